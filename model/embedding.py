"""Input embeddings: ids ``[B, T]`` at their places in their documents to vectors ``[B, T, width]``,
and back to logits when tied. An embedding looks at the ``reach`` ids before each; a place below 0
(or before it) holds no id.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from octavo.configs.schema import ConfigError, ModelConfig
from octavo.model.layers import constrain, parameter

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
"""The eight bits of every byte, most significant first, ``[256, 8]``."""


class Table(nnx.Module):
    """One learned row per id, scaled to unit variance on the way in, so that the same rows serve
    as output projection."""

    reach = 0

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        width = config.widths[0]
        rows = jax.random.normal(rngs.params(), (vocab_size, width)) * width**-0.5
        self.rows = parameter(rows, "vocab", "embed")
        self.dtype = dtype

    def table(self) -> jax.Array:
        return self.rows[...]

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        # Looked up in float32: the gradient adds up thousands of rows per id.
        table = constrain(self.table(), rows=False)
        return (table * table.shape[1] ** 0.5)[ids].astype(self.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        weight = self.table().astype(self.dtype)
        return jnp.einsum("...d,vd->...v", x, weight, preferred_element_type=jnp.float32)


class BitBiased(Table):
    """A table plus a projection of the byte's bits: ``E'[b] = E[b] + bits(b) A``, A starts at zero
    ("Back to Bytes"; the reference folds A into E after training, which changes nothing)."""

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        if vocab_size != 256:
            raise ConfigError(
                f"model.embedding bit_biased reads bytes (256 ids), but the data has {vocab_size}; "
                "use table."
            )
        super().__init__(config, vocab_size, dtype, rngs)
        self.bits = parameter(jnp.zeros((8, config.widths[0])), None, "embed")

    def table(self) -> jax.Array:
        return self.rows[...] + BITS @ self.bits[...]


class OneHot(nnx.Module):
    """Embedding-free (Shaham & Levy 2021): id i is the i-th unit vector times one learned scale;
    tied logits are the first coordinates of the state times another."""

    reach = 0

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        width = config.widths[0]
        if width < vocab_size:
            raise ConfigError(
                f"model.embedding one_hot needs model.width of at least {vocab_size} (one "
                f"coordinate per id), not {width}; widen the model or use table."
            )
        self.vocab_size, self.width, self.dtype = vocab_size, width, dtype
        self.scale = parameter(jnp.asarray(width**0.5))
        self.logit_scale = parameter(jnp.asarray(1.0)) if config.tied_embeddings else None

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        return jax.nn.one_hot(ids, self.width, dtype=self.dtype) * self.scale[...].astype(
            self.dtype
        )

    def logits(self, x: jax.Array) -> jax.Array:
        return x[..., : self.vocab_size].astype(jnp.float32) * self.logit_scale[...]


def _back(x: jax.Array, positions: jax.Array, by: int) -> jax.Array:
    """x ``[B, T, ...]`` of ``by`` places before, 0 where that is another document or none."""
    moved = jnp.pad(x, [(0, 0), (by, 0)] + [(0, 0)] * (x.ndim - 2))[:, : x.shape[1]]
    known = (positions >= by).reshape(*positions.shape, *[1] * (x.ndim - 2))
    return jnp.where(known, moved, 0)


class NgramHash(Table):
    """A table plus one hashed table for each of the n-grams of 3 to 8 ids that end here, summed
    (BLT, 2412.09871, section 3.2.1; its one hash function, here in 32 bits). An n-gram that would
    begin before its document adds nothing."""

    reach = 7
    sizes = range(3, 9)

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, vocab_size, dtype, rngs)
        shape = (len(self.sizes), config.hash_rows, config.widths[0])
        # Small at first: rare n-grams should not drown the id itself.
        self.hashed = parameter(jax.random.normal(rngs.params(), shape) * 0.1, None, None, "embed")

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        x = super().__call__(ids, positions).astype(jnp.float32)
        hashed = constrain(self.hashed[...], rows=False)
        code, spread = jnp.zeros(ids.shape, jnp.uint32), jnp.uint32(0x9E3779B1)
        for back in range(self.sizes[-1]):
            # Adding the ids from the last to the first: every size on the way is a hash.
            one = _back(ids.astype(jnp.uint32) + 1, positions, back)
            code = (code ^ one) * spread
            size = back + 1
            if size in self.sizes:
                table = hashed[size - self.sizes[0]]
                row = (code ^ (code >> 15)) % jnp.uint32(table.shape[0])
                x += jnp.where((positions >= back)[..., None], table[row], 0)
        return x.astype(self.dtype)


class NgramConv(Table):
    """A table mixed with causal convolutions over the 2, 3 and 4 ids up to each, by learned weights
    (LOBEF's nCF; the paper's strided convolutions look ahead, these do not)."""

    reach = 3
    sizes = range(2, 5)

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, vocab_size, dtype, rngs)
        width = config.widths[0]
        self.kernels = nnx.List(
            parameter(
                jax.random.normal(rngs.params(), (size, width, width)) * (size * width) ** -0.5,
                None, "embed", None,
            )
            for size in self.sizes
        )  # fmt: skip
        self.mix = parameter(jnp.full((len(self.sizes) + 1,), 0.5), None)

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        x = super().__call__(ids, positions)
        mix = self.mix[...].astype(self.dtype)
        total = mix[0] * x
        for share, kernel in zip(mix[1:], self.kernels, strict=True):
            taps = kernel[...].astype(self.dtype)
            moved = (_back(x, positions, back) @ tap for back, tap in enumerate(taps))
            total += share * sum(moved)
        return total


EMBEDDINGS = {
    "table": Table,
    "bit_biased": BitBiased,
    "one_hot": OneHot,
    "ngram_hash": NgramHash,
    "ngram_conv": NgramConv,
}
