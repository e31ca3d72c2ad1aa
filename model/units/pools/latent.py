"""one learned query attends to the positions up to the one before each end (released HAT)."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.layers import Linear, RMSNorm, back_by, parameter
from octavo.model.units.pools import New, Pool
from octavo.model.units.reductions import attended_by_unit
from octavo.model.units.segmentation import Segmentation


class Latent(Pool):
    """The encoder's connector of the released HAT (Neitemeier et al. 2025, 2501.10322, as in
    TFree-HAT): one query for all words. A word is known to have ended by the first byte of the
    next, which is not part of it: a unit gathers what lies from the end before it up to the
    position before its own. Changed: no rotary positions, which mix places of words with those of
    bytes there."""

    needs = {"segmenter": ("word_start",)}

    def _make(self, stage: StageConfig, dtype, rngs: nnx.Rngs) -> None:
        d, self.heads, self.dtype = stage.width, stage.heads, dtype
        self.latent = parameter(jax.random.normal(rngs.params(), (1, d)), None, "embed")
        self.positions_norm = RMSNorm(d)
        self.query = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.key = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.value = Linear(d, d, ("embed", "heads"), dtype, rngs)

    @classmethod
    def flops(cls, stage, inner_width, length, units):
        attention = 4 * stage.width**2 * length
        return attention + super().flops(stage, inner_width, length, units)

    def __call__(self, x, units, decision=None, layout=None):
        assert layout is not None, "the places of the positions"
        return self._attended(back_by(x, layout.positions, 1), layout.positions > 0, units)

    def extend(self, new: New, units, most, carry):
        M = self.stage.max_unit
        at = new.layout.positions[:, :1] + jnp.arange(-M, new.x.shape[1])
        return self._attended(back_by(new.window, at, 1), at > 0, units)[:, 1 : most + 1]

    def _attended(self, x: jax.Array, there: jax.Array, units: Segmentation) -> jax.Array:
        """States x ``[B, T, d]``, of which those ``there [B, T]`` count."""
        (B, T, d), S = x.shape, units.last.shape[1]
        q = self.query(self.latent[...]).reshape(self.heads, -1)
        normed = self.positions_norm(x)
        k, v = (project(normed).reshape(B, T, self.heads, -1) for project in (self.key, self.value))
        scores = jnp.einsum("hd,bthd->bth", q, k, preferred_element_type=jnp.float32)
        scores = jnp.where(there[..., None], scores * q.shape[-1] ** -0.5, -1e9)
        mixed = attended_by_unit(scores[:, :, None], v, units.unit_of, S, there)
        return self.project(mixed.astype(self.dtype).reshape(B, S, 1, d))
