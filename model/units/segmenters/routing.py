"""where a state is unlike the one before (H-Net)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import StageConfig
from octavo.model.layers import EXACT, parameter, product
from octavo.model.units.segmenters import Decision, Segmenter


class Router(Segmenter):
    """Cosine routing (H-Net, Hwang et al. 2025, 2507.07955, equation 4): a unit opens where a state
    is unlike the one before it. The state of the opening position stands for its unit, which is
    therefore complete at once: here, the opening position is the unit's end."""

    needs = {"pool": ("last",)}  # the position that opens a unit is its end
    supervisions = ("ratio",)
    goes_inside = True

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        d = stage.width
        self.query = parameter(jnp.eye(d), "embed", None)
        self.key = parameter(jnp.eye(d), "embed", None)
        self.width = d

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        return 2 * length * 2 * stage.width**2

    def init_carry(self, batch: int) -> dict:
        return {"previous": jnp.zeros((batch, self.width), jnp.float32)}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        wide = x.astype(jnp.float32)
        before = jnp.concatenate([carry["previous"][:, None], wide[:, :-1]], axis=1)
        query = product(before, self.query[...], EXACT)
        key = product(wide, self.key[...], EXACT)
        lengths = jnp.sum(query * query, -1) * jnp.sum(key * key, -1)
        cosine = jnp.sum(query * key, -1) * lax.rsqrt(jnp.maximum(lengths, 1e-12))
        p = jnp.clip((1 - cosine) / 2, 0, 1)
        p = jnp.where(layout.positions == 0, 1, p)
        ends = p > 0.5
        safe = jnp.clip(p, 1e-4, 1 - 1e-4)
        decision = Decision(ends, jnp.log(safe) - jnp.log1p(-safe), ends * 1.0)
        return decision, {"previous": _last(wide, valid, carry["previous"])}


def _last(x, valid, otherwise):
    """``x[b, valid[b] - 1]``, or ``otherwise`` where valid is 0."""
    if valid is None:
        return otherwise
    last = jnp.take_along_axis(x, jnp.maximum(valid - 1, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where(valid[:, None] > 0, last, otherwise)
