"""a table plus hashed tables of the 3 to 8 ids up to each."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import ModelConfig
from octavo.model.axes import constrain
from octavo.model.embeddings import LearnedTable
from octavo.model.layers import back_by, parameter
from octavo.tokenizers.interface import Vocabulary


class NgramHash(LearnedTable):
    """A table plus one hashed table for each of the n-grams of 3 to 8 ids that end here, summed
    (BLT, 2412.09871, section 3.2.1; one hash function, here of 32 bits). An n-gram that would
    begin before its document adds nothing."""

    uses = ("hash_rows",)
    reach = 7
    sizes = range(3, 9)

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs):
        super().__init__(config, vocabulary, dtype, rngs)
        shape = (len(self.sizes), config.hash_rows, config.widths[0])
        # Small at first: rare n-grams should not drown the id itself.
        self.hashed = parameter(jax.random.normal(rngs.params(), shape) * 0.1, None, None, "embed")

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        x = super().__call__(ids, positions).astype(jnp.float32)
        hashed = constrain(self.hashed[...])
        found = self.hashes(ids, positions, hashed.shape[1])
        for table, size, row in zip(hashed, self.sizes, found, strict=True):
            x += jnp.where(self.counts(size, positions)[..., None], table[row], 0)
        return x.astype(self.dtype)

    def hashes(self, ids: jax.Array, positions: jax.Array, rows: int) -> Iterator[jax.Array]:
        """The row ``[B, T]`` of the n-gram that ends at each place, for each size."""
        code, spread = jnp.zeros(ids.shape, jnp.uint32), jnp.uint32(0x9E3779B1)
        for back in range(self.sizes[-1]):
            # Adding the ids from the last to the first: every size on the way is a hash.
            one = back_by(ids.astype(jnp.uint32) + 1, positions, back)
            code = (code ^ one) * spread
            if back + 1 in self.sizes:
                yield (code ^ (code >> 15)) % jnp.uint32(rows)

    def counts(self, size: int, positions: jax.Array) -> jax.Array:
        """Which n-grams of a size add their row, ``[B, T]``."""
        return positions >= size - 1
