"""The language model: embedding, trunk, head."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.schema import ModelConfig
from octavo.model.batch import Batch
from octavo.model.embedding import EMBEDDINGS
from octavo.model.layers import Linear, RMSNorm
from octavo.model.transformer import Transformer


class ByteLM(nnx.Module):
    """Predicts the next id at every position.

    Raises ConfigError where the config and the vocabulary do not fit each other.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, backend: str, dtype, rngs: nnx.Rngs):
        self.config, self.vocab_size = config, vocab_size
        self.embedding = EMBEDDINGS[config.embedding](config, vocab_size, dtype, rngs)
        self.trunk = Transformer(config, backend, dtype, rngs)
        self.norm = RMSNorm(config.width)
        # A small head: the first predictions are close to uniform, whatever the width.
        untied = not config.tied_embeddings
        shape = (config.width, vocab_size)
        self.head = Linear(*shape, ("embed", "vocab"), dtype, rngs, 0.1) if untied else None

    def _logits(self, x: jax.Array) -> jax.Array:
        x = self.norm(x)
        if self.head is None:
            return self.embedding.logits(x)
        return self.head(x).astype(jnp.float32)

    def __call__(self, batch: Batch) -> jax.Array:
        """Float32 logits ``[B, T, vocab_size]``; those at t depend on the batch's tokens up to t
        of the same segment, and on nothing else."""
        x = self.embedding(batch.tokens)
        return self._logits(self.trunk(x, batch.positions, batch.segment_ids))

    def init_cache(self, batch: int, slots: int) -> dict:
        return {
            "length": jnp.zeros((batch,), jnp.int32),
            "trunk": self.trunk.init_cache(batch, slots),
        }

    def extend(
        self, tokens: jax.Array, cache: dict, context: int | None = None
    ) -> tuple[jax.Array, dict]:
        """Continue each row of the cache by tokens ``[B, N]``: float32 logits
        ``[B, N, vocab_size]``, equal to the parallel pass, and the longer cache.

        context: how far back to look at most, for rows longer than the model was trained on.
        """
        length = cache["length"]
        x, trunk = self.trunk.extend(self.embedding(tokens), cache["trunk"], length, context)
        return self._logits(x), {"length": length + tokens.shape[1], "trunk": trunk}
