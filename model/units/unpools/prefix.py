"""it begins the next unit."""

import jax.numpy as jnp

from octavo.model.units.unpools import Unpool, read


class Prefix(Unpool):
    """The word's vectors stand before the bytes of the next word (Learn Your Tokens, 2310.11628):
    the last of them in place of the boundary itself."""

    uses = ("slots", "predict_ends")
    whole = True

    @classmethod
    def vectors(cls, stage):
        return stage.slots

    @classmethod
    def leading(cls, stage):
        return stage.slots - 1

    def __call__(self, x, memory, index, boundary, since, p=None):
        return jnp.where(boundary[..., None], read(memory, index, memory.shape[2] - 1), x)

    def at_extra(self, x, memory, index, boundary, since, p=None):
        return x  # an extra position is never the boundary's own
