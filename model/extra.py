"""Extra positions in the rows of a stack: registers and look-ahead tokens."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from octavo.model.transformer import Transformer


@dataclass(frozen=True)
class ExtraPositions:
    """``L`` of them after every ``every`` positions of a row. They see what stands before them and
    the extra ones of the same place before them (isolated: none); none else sees them. (MuToR's
    registers stand before an id, here after the one before it.)

    Letters: B batch, T positions, G places in a row, L extra positions a place, d width.
    """

    vectors: jax.Array
    """``[L, d]``"""
    ahead: jax.Array
    """``[L]``: each predicts the id this far after the next one, and has the rotary position of the
    id before that."""
    every: int
    isolated: bool

    def anchors(self, length: int) -> np.ndarray:
        """The position that each stands after, ``[G * L]``."""
        return np.repeat(np.arange(self.every - 1, length, self.every), len(self.ahead))

    def inputs(self, x: jax.Array) -> jax.Array:
        """What they put into rows x ``[B, T, d]``: ``[B, G * L, d]``."""
        B, T, d = x.shape
        repeated = jnp.tile(self.vectors.astype(x.dtype), (T // self.every, 1))
        return jnp.broadcast_to(repeated, (B, *repeated.shape))

    def through(
        self, stack: Transformer, x: jax.Array, own: jax.Array, positions: jax.Array,
        segment_ids: jax.Array, memory=None,
    ) -> jax.Array:  # fmt: skip
        """Run rows x ``[B, T, d]`` and extra positions ``own [B, G * L, d]`` through a stack; the
        rest as the stack wants it, of x. Returns both, ``[B, T + G * L, d]``."""
        B, T, d = x.shape
        L, anchors = len(self.ahead), self.anchors(T)

        def woven(main, own):
            main = main.reshape(B, T // self.every, self.every, *main.shape[2:])
            own = own.reshape(B, T // self.every, L, *own.shape[2:])
            both = jnp.concatenate([main, own], axis=2)
            return both.reshape(B, -1, *both.shape[3:])

        ahead = jnp.tile(self.ahead, T // self.every)
        positions, segment_ids = (jnp.broadcast_to(v, (B, T)) for v in (positions, segment_ids))
        if memory is not None:
            memory = memory[0], woven(memory[1], memory[1][:, anchors])
        both = stack(
            woven(x, own), woven(positions, positions[:, anchors] + ahead),
            woven(segment_ids, segment_ids[:, anchors]), memory,
            extra=(self.every, L, self.isolated),
        )  # fmt: skip
        both = both.reshape(B, T // self.every, self.every + L, d)
        parts = both[:, :, : self.every], both[:, :, self.every :]
        return jnp.concatenate([part.reshape(B, -1, d) for part in parts], axis=1)
