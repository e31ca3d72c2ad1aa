"""a piece for each position."""

import jax.numpy as jnp

from octavo.model.layers import parameter
from octavo.model.units.unpools import Unpool, read


class Split(Unpool):
    """The unit's vector cut into one for each position of the next (MEGABYTE, 2305.07185)."""

    needs = {"segmenter": ("stride",)}
    whole = True
    in_pieces = True

    def _make(self, stage, rngs):
        self.pad = parameter(jnp.zeros((stage.width,)), "embed")

    @classmethod
    def piece(cls, stage, inner_width):
        return inner_width // stage.max_unit

    @classmethod
    def vectors(cls, stage):
        return stage.max_unit

    def _pieces(self, z):
        return z.reshape(*z.shape[:2], self.stage.max_unit, -1)

    def __call__(self, x, memory, index, boundary, since, p=None):
        x = jnp.where(boundary[..., None], self.pad[...].astype(x.dtype), x)
        return self.at_extra(x, memory, index, boundary, since, p)

    def at_extra(self, x, memory, index, boundary, since, p=None):
        return x + read(memory, index, jnp.minimum(since, self.stage.max_unit - 1))
