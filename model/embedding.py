"""Input embeddings: ids ``[...]`` to vectors ``[..., width]``, and back to logits when tied."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from octavo.configs.schema import ConfigError, ModelConfig
from octavo.model.layers import parameter

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
"""The eight bits of every byte, most significant first, ``[256, 8]``."""


class Table(nnx.Module):
    """One learned row per id, scaled to unit variance on the way in, so that the same rows serve
    as output projection."""

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        width = config.width
        rows = jax.random.normal(rngs.params(), (vocab_size, width)) * width**-0.5
        self.rows = parameter(rows, "vocab", "embed")
        self.dtype = dtype

    def table(self) -> jax.Array:
        return self.rows[...]

    def __call__(self, ids: jax.Array) -> jax.Array:
        # Looked up in float32: the gradient adds up thousands of rows per id.
        table = self.table()
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
        self.bits = parameter(jnp.zeros((8, config.width)), None, "embed")

    def table(self) -> jax.Array:
        return self.rows[...] + BITS @ self.bits[...]


class OneHot(nnx.Module):
    """Embedding-free (Shaham & Levy 2021): id i is the i-th unit vector times one learned scale;
    tied logits are the first coordinates of the state times another."""

    def __init__(self, config: ModelConfig, vocab_size: int, dtype, rngs: nnx.Rngs):
        width = config.width
        if width < vocab_size:
            raise ConfigError(
                f"model.embedding one_hot needs model.width of at least {vocab_size} (one "
                f"coordinate per id), not {width}; widen the model or use table."
            )
        self.vocab_size, self.width, self.dtype = vocab_size, width, dtype
        self.scale = parameter(jnp.asarray(width**0.5))
        self.logit_scale = parameter(jnp.asarray(1.0)) if config.tied_embeddings else None

    def __call__(self, ids: jax.Array) -> jax.Array:
        return jax.nn.one_hot(ids, self.width, dtype=self.dtype) * self.scale[...].astype(
            self.dtype
        )

    def logits(self, x: jax.Array) -> jax.Array:
        return x[..., : self.vocab_size].astype(jnp.float32) * self.logit_scale[...]


EMBEDDINGS = {"table": Table, "bit_biased": BitBiased, "one_hot": OneHot}
