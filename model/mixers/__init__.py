"""What mixes positions in a block: one kind a file, named as in ``ModelConfig.mixers``."""

import abc
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
from flax import nnx

from octavo.configs.model import ModelConfig
from octavo.model.kernels import MaskSpec
from octavo.model.layers import Execution, rotary_angles
from octavo.model.packing import Packing
from octavo.model.parts import find


@dataclass(frozen=True)
class Rows:
    """Positions of whole rows, as a mixer sees them."""

    angles: tuple[jax.Array, jax.Array]
    """Of rotary positions."""
    spec: MaskSpec
    """What each may see."""
    packing: Packing | None = None
    """How the rows were packed, where x is ``[G, L, d]`` and all else is of ``[B, T]`` rows but the
    angles; None: they were not."""

    @property
    def segment_ids(self) -> Any:
        """``[B, T]``: the document of each."""
        return self.spec.segment_ids

    def unpacked(self, x: jax.Array) -> jax.Array:
        """In the rows in which positions see each other, ``[B, T, ...]``."""
        return x if self.packing is None else self.packing.unpack(x)

    def packed(self, x: jax.Array) -> jax.Array:
        """As the positions came, ``[B, T, ...]`` or ``[G, L, ...]``."""
        return x if self.packing is None else self.packing.pack(x)

    def whole(self) -> "Rows":
        """Those in which positions see each other, not packed."""
        angles = tuple(self.unpacked(angle) for angle in self.angles)
        return replace(self, angles=angles, packing=None)


@dataclass(frozen=True)
class Step:
    """New positions ``[B, N]`` behind those that a cache holds."""

    angles: tuple[jax.Array, jax.Array]
    length: jax.Array
    """``[B]``: how many the cache holds."""
    first: jax.Array
    """``[B, N]``: the first place that each sees. Where it is the position's own, something begins
    that sees nothing before it."""
    key_bias: jax.Array | None = None
    """``[B, slots]``: of the whole cache, as in ``MaskSpec``."""
    isolated: bool = False
    """Of the new positions, each sees itself only."""
    query_at: jax.Array | None = None
    """``[B, 1]``: the only new position whose result is wanted; None: all."""


class Mixer(nnx.Module):
    """A kind of mixer, and what it declares of itself. spec: what its stack will ask of it (of the
    arrays none is looked at). Raises ConfigError if it cannot serve."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Settings of attention that it has a use for too: window, kv_heads, head_dim, qk_norm and the
    like."""
    sees_all: ClassVar[bool] = False
    """Whether it can look ahead too, bias keys, and hide positions from others: what encoders of
    whole units, delete gates, registers and look-ahead tokens need."""
    packs: ClassVar[bool] = False
    """Whether it takes rows as they are packed, and lays them apart only where positions meet. Of
    one that does not, all is computed in whole rows."""

    def __init__(
        self, config: ModelConfig, execution: Execution, rngs: nnx.Rngs, spec: MaskSpec
    ): ...

    @abc.abstractmethod
    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        """``[B, T, d]`` to ``[B, T, d]``, all positions at once; of packed rows ``[G, L, d]``, if
        it ``packs``."""

    @staticmethod
    @abc.abstractmethod
    def init_cache(config: ModelConfig, layers: int, batch: int, slots: int, dtype) -> dict:
        """An empty cache of so many layers, each leaf ``[layers, ...]``."""

    @abc.abstractmethod
    def extend(
        self, x: jax.Array, cache: dict, layer: jax.Array, step: Step
    ) -> tuple[jax.Array, dict, dict]:
        """New positions x ``[B, N, d]`` of layer number ``layer``: their results, the cache of all
        layers with what may be written at once, and what ``settle`` needs of this layer."""

    @staticmethod
    @abc.abstractmethod
    def settle(cache: dict, found: dict, kept: jax.Array) -> dict:
        """The cache of all layers after the first ``kept [B]`` new positions; found: of all layers,
        stacked."""

    @staticmethod
    @abc.abstractmethod
    def flops(config: ModelConfig, length: float, causal: bool = True) -> float:
        """Of one layer over a row of ``length`` positions, forward."""

    @staticmethod
    def flops_alone(config: ModelConfig) -> float:
        """What of them is for one position, whatever its row: of a layer that ``packs``."""
        return 0.0


def mixer(kind: str) -> type[Mixer]:
    """The class of a kind."""
    return find(Mixer, "mixers", kind)


def angles_of(config: ModelConfig, positions: jax.Array) -> Any:
    """Rotary angles of positions ``[B, T]``."""
    return rotary_angles(positions, config.head_size, config.rope_base, config.rope_scaling)
