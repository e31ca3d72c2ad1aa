"""frozen identity rows, no parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.model.embeddings import Embedding
from octavo.model.layers import parameter
from octavo.tokenizers.interface import Vocabulary


class OneHot(Embedding):
    """Embedding-free (Shaham & Levy 2021): id i is the i-th unit vector times one learned scale;
    tied logits are the first coordinates of the state times another."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs):
        width, vocab_size = config.widths[0], vocabulary.size
        if width < vocab_size:
            raise ConfigError(
                f"model.embedding one_hot needs model.width of at least {vocab_size} (one "
                f"coordinate per id), not {width}; widen the model or use table."
            )
        self.vocab_size, self.width, self.dtype = vocab_size, width, dtype
        self.scale = parameter(jnp.asarray(width**0.5))
        self.logit_scale: Any = parameter(jnp.asarray(1.0)) if config.tied_embeddings else None

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        return jax.nn.one_hot(ids, self.width, dtype=self.dtype) * self.scale[...].astype(
            self.dtype
        )

    def logits(self, x: jax.Array) -> jax.Array:
        return x[..., : self.vocab_size].astype(jnp.float32) * self.logit_scale[...]

    @staticmethod
    def head_flops(config, vocab_size):
        return 0 if config.tied_embeddings else 2 * config.widths[0] * vocab_size
