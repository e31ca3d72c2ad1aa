"""Foreseeing where a unit ends, so that all of it can be drafted without the encoder (Toucan,
Fleshman & Van Durme 2023, 2311.08620: the decoder emits the end of a token itself)."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.drafter import Draft, Drafter
from octavo.model.layers import ExactLinear, RMSNorm


class EndPredictor(nnx.Module):
    """Log-odds that a unit ends with an id, from the decoder's state before it and its
    embedding."""

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        d = stage.width
        self.norm = RMSNorm(d)
        self.state = ExactLinear(d, 2 * d, ("embed", "mlp"), rngs)
        self.id = ExactLinear(d, 2 * d, ("embed", "mlp"), rngs)
        self.out = ExactLinear(2 * d, 1, ("mlp", None), rngs)

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        """Over a row of ``length`` positions."""
        return 2 * length * (4 * stage.width**2 + 2 * stage.width)

    def __call__(self, before: jax.Array, embedded: jax.Array) -> jax.Array:
        """States and embeddings ``[..., d]`` to ``[...]``."""
        before, embedded = before.astype(jnp.float32), embedded.astype(jnp.float32)
        hidden = self.state(self.norm(before)) + self.id(self.norm(embedded))
        return self.out(jax.nn.gelu(hidden))[..., 0]


class WithinUnit(Drafter):
    """The decoder alone, up to where it foresees the unit's end. Up to there its logits are the
    model's."""

    def draft(self, model, params, carry, now):
        ids, count = [], jnp.zeros_like(now.first)
        going, id_, trunk = count == 0, now.first, now.cache["trunk"]
        for i in range(1, self.size + 1):
            x = model.embedding(id_[:, None], now.length[:, None] + i - 1)
            x, ends, trunk = model.trunk.foresee(x, trunk)
            going &= ~ends
            count += going
            id_ = now.choose(i, model.logits(x))[:, 0]
            ids.append(id_)
        return Draft(jnp.stack(ids, axis=1), count), carry
