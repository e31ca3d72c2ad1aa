"""embeddings side by side (fixed stride)."""

import jax.numpy as jnp

from octavo.model.layers import take
from octavo.model.units.pools import Pool


class Concat(Pool):
    """Patch embeddings (MEGABYTE, Yu et al. 2023, 2305.07185): the last ``max_unit`` positions of
    each unit, zeros before its start."""

    needs = {"segmenter": ("stride",), "encoder_layers": (0,)}
    in_pieces = True

    @classmethod
    def projected(cls, stage, inner_width):
        return stage.width, inner_width // stage.max_unit

    @classmethod
    def flops(cls, stage, inner_width, length, units):
        linear = stage.projection == "linear"
        return 2 * stage.width * inner_width * length / stage.max_unit if linear else 0.0

    def __call__(self, x, units, decision=None, layout=None):
        x = self.enter(self.norm(x))
        B, S = units.last.shape
        back = units.last[:, :, None] - jnp.arange(self.stage.max_unit)[::-1]
        at = jnp.maximum(back, 0).reshape(B, -1)
        inside = take(units.unit_of, at).reshape(back.shape) == jnp.arange(S)[None, :, None]
        pieces = take(x, at).reshape(*back.shape, -1)
        return jnp.where((inside & (back >= 0))[..., None], pieces, 0).reshape(B, S, 1, -1)
