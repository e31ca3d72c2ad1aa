"""ngram_hash with BLT's published hash, of bytes."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.model.embeddings.ngram_hash import NgramHash
from octavo.model.layers import back_by
from octavo.tokenizers.interface import Vocabulary

PRIME = 1_000_000_007
"""The first prime of the released code; the paper has one function."""
OFFSET, BEGIN = 4, 1
"""The released vocabulary: byte b is id b + 4, the begin of a document 1; 0 fills."""


class NgramPolynomial(NgramHash):
    """As ngram_hash, the row of an n-gram being that of the code released with BLT (2412.09871;
    ``byte_group_hash_function``): of its ids x_0, ..., x_(n-1) in that vocabulary, the oldest
    first, sum of x_j * 1000000007^j as a signed integer of 64 bits that wraps, modulo the rows. (In
    the paper, the newest has the power 0.) What an n-gram lacks before its document is filled with
    zeros, and it adds its row; there, what stands before in the row of training is read on.
    Raises ConfigError for ids that are no bytes."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs):
        if not vocabulary.are_bytes:
            raise ConfigError(
                "model.embedding ngram_polynomial hashes bytes, but the ids of the data are none: "
                "use ngram_hash, or a corpus of bytes."
            )
        super().__init__(config, vocabulary, dtype, rngs)
        self.bos_id = vocabulary.bos_id

    def hashes(self, ids: jax.Array, positions: jax.Array, rows: int) -> Iterator[jax.Array]:
        ids = ids.astype(jnp.uint32)
        ids = jnp.where(ids == self.bos_id, BEGIN, ids + OFFSET).astype(jnp.uint32)
        code = [jnp.zeros_like(ids)] * 4
        for back in range(self.sizes[-1]):
            # From the newest id to the oldest: every size on the way is a hash.
            code = _next(code, back_by(ids, positions, back))
            if back + 1 in self.sizes:
                yield _modulo(code, rows)

    def counts(self, size: int, positions: jax.Array) -> jax.Array:
        return jnp.ones_like(positions, bool)


def _next(code: Sequence[jax.Array], one: jax.Array) -> list[jax.Array]:
    """code * PRIME + one, of 64 bits in four parts of 16, the lowest first."""
    low, high = (_times(code, factor) for factor in (PRIME % 2**16, PRIME // 2**16))
    found, carry = [], one
    for a, b in zip(low, [jnp.zeros_like(one), *high[:3]], strict=True):
        value = a + b + carry
        found.append(value % 2**16)
        carry = value // 2**16
    return found


def _times(code: Sequence[jax.Array], factor: int) -> list[jax.Array]:
    """code times what has 16 bits."""
    found, carry = [], jnp.zeros_like(code[0])
    for part in code:
        value = part * jnp.uint32(factor) + carry  # at most 2^32 - 2^16
        found.append(value % 2**16)
        carry = value // 2**16
    return found


def _modulo(code: Sequence[jax.Array], rows: int) -> jax.Array:
    """A signed number modulo rows, at least 0; rows is at most 2^24."""
    found = jnp.zeros_like(code[0])
    for part in reversed(code):
        for digit in (part // 2**8, part % 2**8):
            found = (found * 2**8 + digit) % jnp.uint32(rows)
    less = jnp.where(code[-1] >= 2**15, rows - 2**64 % rows, 0).astype(jnp.uint32)
    return (found + less) % jnp.uint32(rows)
