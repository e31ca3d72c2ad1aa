"""queries of the unit attend to its positions."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.layers import Linear, RMSNorm, take
from octavo.model.units.pools import Pool
from octavo.model.units.reductions import attended_by_unit, max_by_unit
from octavo.model.units.segmentation import Segmentation


class Cross(Pool):
    """The patch queries of BLT (Pagnoni et al. 2024, 2412.09871), ``slots`` a unit, side by
    side."""

    uses = ("slots",)

    def _make(self, stage: StageConfig, dtype, rngs: nnx.Rngs) -> None:
        self.cross = UnitQueries(stage, dtype, rngs)

    @classmethod
    def projected(cls, stage, inner_width):
        return stage.width * stage.slots, inner_width

    @classmethod
    def flops(cls, stage, inner_width, length, units):
        attention = 2 * stage.width**2 * (2 * length + 3 * units * stage.slots)
        return attention + super().flops(stage, inner_width, length, units)

    def __call__(self, x, units, decision=None, layout=None):
        return self.project(self.cross(x, units))


class UnitQueries(nnx.Module):
    """A unit's queries attend to its own positions (BLT, 2412.09871): queries start as the
    projection of the positions' maximum; their results, added to them, lie side by side."""

    def __init__(self, stage: StageConfig, dtype, rngs: nnx.Rngs):
        d, self.slots, self.heads = stage.width, stage.slots, stage.heads
        self.dtype = dtype
        self.start = Linear(d, self.slots * d, ("embed", None), dtype, rngs)
        self.query_norm, self.norm = RMSNorm(d), RMSNorm(d)
        self.query = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.key = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.value = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.out = Linear(d, d, ("heads", "embed"), dtype, rngs)

    def __call__(self, x: jax.Array, units: Segmentation) -> jax.Array:
        (B, T, d), S = x.shape, units.last.shape[1]
        highest = max_by_unit(x, units.unit_of, S)
        highest = jnp.where(jnp.isfinite(highest), highest, 0)
        start = self.start(highest).reshape(B, S, self.slots, d)
        q = self.query(self.query_norm(start)).reshape(B, S, self.slots, self.heads, -1)
        normed = self.norm(x)
        k, v = (project(normed).reshape(B, T, self.heads, -1) for project in (self.key, self.value))
        own = take(q, units.unit_of)
        scores = jnp.einsum("btshd,bthd->btsh", own, k, preferred_element_type=jnp.float32)
        scores *= q.shape[-1] ** -0.5
        mixed = attended_by_unit(scores, v, units.unit_of, S).astype(self.dtype)
        return (start + self.out(mixed.reshape(B, S, self.slots, d))).reshape(B, S, 1, -1)
