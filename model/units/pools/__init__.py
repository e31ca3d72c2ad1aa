"""How a unit's positions become its vector: one kind a file, named as in ``StageConfig.pool``.

Letters: B batch, T positions, N new ones, S units, d and D outer and inner width, p vectors per
unit in the inner trunk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.layers import Linear, RMSNorm, parameter
from octavo.model.parts import find
from octavo.model.units.segmentation import Layout, Segmentation
from octavo.model.units.segmenters import Decision


@dataclass(frozen=True)
class New:
    """New positions of documents, ``[B, N]``, as a pool sees them in decoding."""

    x: jax.Array
    """Their states ``[B, N, d]``."""
    window: jax.Array
    """``[B, max_unit + N, d]``: the same behind the unit that was open, which is right-aligned."""
    decision: Decision
    layout: Layout
    boundary: jax.Array
    """Booleans: a unit ends here."""
    real: jax.Array
    """Booleans: the position counts."""


class Pool(nnx.Module):
    """A kind of pool, then the step to the inner width; and what it declares of itself."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Settings of ``StageConfig`` that not every stage has a use for, but this one."""
    needs: ClassVar[dict[str, tuple | range]] = {}
    """Other settings of the stage, and the values that this kind goes with."""
    whole: ClassVar[bool] = False
    """Whether it goes with an encoder that looks at whole units."""
    in_pieces: ClassVar[bool] = False
    """Whether max_unit must divide the inner width."""

    def __init__(self, stage: StageConfig, inner_width: int, dtype, rngs: nnx.Rngs):
        self.stage, self.inner_width = stage, inner_width
        self._make(stage, dtype, rngs)
        padded = stage.projection != "linear"
        more = inner_width - stage.width
        learned = stage.projection == "learned_pad" and more
        self.pad: Any = parameter(jnp.zeros((more,)), None) if learned else None
        shape = self.projected(stage, inner_width)
        self.norm: Any = None if padded else RMSNorm(shape[0])
        self.enter: Any = None if padded else Linear(*shape, ("embed", None), dtype, rngs)

    def _make(self, stage: StageConfig, dtype, rngs: nnx.Rngs) -> None:
        """Parameters of the kind's own."""

    @classmethod
    def per_unit(cls, stage: StageConfig) -> int:
        """Positions of the inner trunk for each unit."""
        return 1

    @classmethod
    def adds(cls, stage: StageConfig) -> int:
        """Positions that it adds to the encoder's rows for each unit."""
        return 0

    @classmethod
    def projected(cls, stage: StageConfig, inner_width: int) -> tuple[int, int]:
        """What the step to the inner width is from and to."""
        return stage.width, inner_width

    @classmethod
    def flops(cls, stage: StageConfig, inner_width: int, length: float, units: float) -> float:
        """Of a row of ``length`` positions, with room for so many units."""
        if stage.projection != "linear":
            return 0.0
        d, D = cls.projected(stage, inner_width)
        return 2 * d * D * units * cls.per_unit(stage)

    def __call__(
        self, x: jax.Array, units: Segmentation, decision: Any = None,
        layout: Any = None,
    ) -> jax.Array:  # fmt: skip
        """States x ``[B, T, d]`` to ``[B, S, p, D]``; decision
        (a Decision) and layout: in the parallel pass."""
        raise NotImplementedError

    def of_whole_units(self, x: jax.Array, units: Segmentation, encoder: Callable) -> jax.Array:
        """The same of embeddings, for an ``encoder(x, positions, unit ids)`` that looks at whole
        units."""
        return self(encoder(x, order(x), units.unit_of), units)

    def init_carry(self, batch: int) -> dict:
        """What decoding remembers of the open unit, beside its positions."""
        return {}

    def extend(self, new: New, units: Segmentation, most: int, carry: dict) -> jax.Array:
        """Units ``[B, most, p, D]`` that end among new positions. units: of the window; the first
        there is what lies before the open one."""
        return self(new.window, units)[:, 1 : most + 1]

    def settle(self, new: New, carry: dict) -> dict:
        """What is remembered after the new positions that are real."""
        return carry

    def project(self, pooled: jax.Array) -> jax.Array:
        """The step to the inner width: ``[..., d]`` to ``[..., D]``."""
        if self.enter is not None:
            return self.enter(self.norm(pooled))
        more = self.inner_width - self.stage.width
        shape = (*pooled.shape[:-1], more)
        if self.pad is None:
            return jnp.concatenate([jnp.zeros(shape, pooled.dtype), pooled], axis=-1)
        pad = jnp.broadcast_to(self.pad[...].astype(pooled.dtype), shape)
        return jnp.concatenate([pooled, pad], axis=-1)


def order(x: jax.Array) -> jax.Array:
    """0, 1, 2, ... for each row of x ``[B, T, ...]``."""
    return jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])


def pool(kind: str) -> type[Pool]:
    """The class of a kind."""
    return find(Pool, "units/pools", kind)
