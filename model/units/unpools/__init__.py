"""How units reach the positions after them: one kind a file, named as in ``StageConfig.unpool``.

An unpool makes each unit's memory, ``[B, S, m, d]``: what positions after the unit may read of it.

Letters: B batch, T positions, S units, U memories (the null unit's first), d and D outer and inner
width, m vectors of a memory.
"""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.layers import Linear, RMSNorm, parameter, take
from octavo.model.parts import find


class Unpool(nnx.Module):
    """A kind of unpool, and what it declares of itself."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Settings of ``StageConfig`` that not every stage has a use for, but this one."""
    needs: ClassVar[dict[str, tuple | range]] = {}
    """Other settings of the stage, and the values that this kind goes with."""
    whole: ClassVar[bool] = False
    """Whether it goes with an encoder that looks at whole units: no state of it is passed on."""
    in_pieces: ClassVar[bool] = False
    """Whether max_unit must divide the inner width."""
    cross_attends: ClassVar[bool] = False
    """Whether the decoder's blocks attend to memories."""
    averages: ClassVar[bool] = False
    """Whether memories are averaged by the probability of their units (``averaged``)."""

    def __init__(self, stage: StageConfig, inner_width: int, dtype, rngs: nnx.Rngs):
        self.stage, self.dtype = stage, dtype
        d = stage.width
        padded = stage.projection != "linear"
        self.norm: Any = None if padded else RMSNorm(inner_width)
        shape = self.piece(stage, inner_width), self.size(stage) * d
        self.leave: Any = None if padded else Linear(*shape, (None, "embed"), dtype, rngs)
        null = jax.random.normal(rngs.params(), (self.vectors(stage), d)) * 0.02
        self.null = parameter(null, None, "embed")
        self._make(stage, rngs)

    def _make(self, stage: StageConfig, rngs: nnx.Rngs) -> None:
        """Parameters of the kind's own."""

    @classmethod
    def size(cls, stage: StageConfig) -> int:
        """Vectors that are made of each state of the inner trunk."""
        return 1

    @classmethod
    def piece(cls, stage: StageConfig, inner_width: int) -> int:
        """Of how many numbers each is made."""
        return inner_width

    @classmethod
    def vectors(cls, stage: StageConfig) -> int:
        """m: of a unit's memory."""
        return cls.size(stage)

    @classmethod
    def leading(cls, stage: StageConfig) -> int:
        """Vectors that lead each unit's positions in the decoder."""
        return 0

    @classmethod
    def flops(cls, stage: StageConfig, inner_width: int, length: float, units: float) -> float:
        """Of a row of ``length`` positions, with room for so many units."""
        if stage.projection != "linear":
            return 0.0
        made = cls.vectors(stage) * cls.piece(stage, inner_width)
        return 2 * stage.width * made * units

    def memory(self, z: jax.Array) -> jax.Array:
        """z ``[B, S, positions of the inner trunk, D]`` to memories ``[B, S, m, d]``."""
        if self.leave is None:
            learned, d = self.stage.projection == "learned_pad", self.stage.width
            return z[..., :d] if learned else z[..., -d:]
        z = self._pieces(self.norm(z))
        return self.leave(z).reshape(*z.shape[:2], self.vectors(self.stage), self.stage.width)

    def _pieces(self, z: jax.Array) -> jax.Array:
        return z

    def before_any(self, batch: int) -> jax.Array:
        """The memory of the null unit, ``[batch, 1, m, d]``."""
        null = self.null[...].astype(self.dtype)
        return jnp.broadcast_to(null, (batch, 1, *null.shape))

    def averaged(self, made: jax.Array, p: jax.Array, before: jax.Array) -> jax.Array:
        """Memories ``[B, S, 1, d]`` as averages with the ones before them; p ``[B, S]``: the
        probability of each, before ``[B, 1, d]``: the average before the first."""
        raise NotImplementedError

    @abc.abstractmethod
    def __call__(self, x, memory, index, boundary, since, p=None) -> jax.Array:
        """What the decoder starts from, ``[B, T, d]``.

        x ``[B, T, d]``: the encoder's states, or embeddings; memory ``[B, U, m, d]``; index
        ``[B, T]``: which of U each reads; boundary, since as in Segmentation; p ``[B, T]``: the
        probability of a boundary, where memories are averaged.
        """

    def at_extra(self, x, memory, index, boundary, since, p=None) -> jax.Array:
        """The same for extra positions x ``[B, P, d]``, from what holds where each stands."""
        return self(x, memory, index, boundary, since, p)


def read(memory: jax.Array, index: jax.Array, which: jax.Array | int = 0) -> jax.Array:
    """``memory[b, index[b, t], which[b, t]]``. Gradients of all that read a memory are summed in
    float32."""
    B, U, m, d = memory.shape
    each = memory.reshape(B, U * m, d).astype(jnp.float32)
    return take(each, index * m + which).astype(memory.dtype)


def unpool(kind: str) -> type[Unpool]:
    """The class of a kind."""
    return find(Unpool, "units/unpools", kind)
