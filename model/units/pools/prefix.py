"""learned positions added to each unit."""

import jax
import jax.numpy as jnp

from octavo.configs.model import StageConfig
from octavo.model.layers import parameter, take
from octavo.model.units.pools import Pool, order
from octavo.model.units.reductions import interleave


class Prefix(Pool):
    """Word pooling with ``slots`` learned vectors that attend to their unit (Learn Your Tokens,
    Thawani et al. 2023, 2310.11628)."""

    uses = ("slots",)
    needs = {"encoder_scope": ("unit",)}
    whole = True

    def _make(self, stage: StageConfig, dtype, rngs) -> None:
        vectors = jax.random.normal(rngs.params(), (stage.slots, stage.width))
        self.positions = parameter(vectors, None, "embed")

    @classmethod
    def per_unit(cls, stage: StageConfig) -> int:
        return stage.slots

    @classmethod
    def adds(cls, stage: StageConfig) -> int:
        return stage.slots

    def of_whole_units(self, x, units, encoder):
        B, S = units.last.shape
        learned = self.positions[...].astype(x.dtype)
        learned = jnp.broadcast_to(learned, (B, S, *learned.shape))
        both, _, learned_at = interleave(x, units.unit_of, learned)
        ids = jnp.broadcast_to(jnp.arange(S)[None, :, None, None], (*learned_at.shape, 1))
        ids = interleave(units.unit_of[..., None], units.unit_of, ids)[0][..., 0]
        states = take(encoder(both, order(both), ids), learned_at.reshape(B, -1))
        return self.project(states.reshape(learned.shape))
