"""Small parts: linear maps, norms, rotary positions. All hold float32, compute in ``dtype``.

Every parameter carries the logical names of its axes (``names``); ``ShardingRules`` maps those to
mesh axes. A stacked parameter has one more leading axis, "layers".
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


@dataclass(frozen=True)
class Execution:
    """How a model is computed (``ExecutionConfig``), and where."""

    platform: str
    """Where it is to run: "cpu", "tpu" or "gpu"."""
    dtype: Any
    """Of matrix products."""
    attention: str = "auto"
    scan_layers: bool = True
    remat: str = "full"


def parameter(value: jax.Array, *names: str | None) -> nnx.Param:
    """A parameter with a logical name per axis. (A key of our own: flax's would ask for a mesh.)"""
    assert value.ndim == len(names), (value.shape, names)
    # Never weakly typed: the first update would change that, and compile the step again.
    return nnx.Param(value.astype(jnp.float32), names=names)


BATCH_AXES = ("replica", "fsdp")
"""The mesh axes that split the rows of a batch."""


def constrain(x: jax.Array, rows: bool = True) -> jax.Array:
    """Say that ``[B, ...]`` activations are split by rows and nothing else, where a mesh is set;
    without ``rows``, that every device has all of x (a table that rows look things up in).

    Once a block is enough; without it the compiler may prefer to split activations like weights.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, jax.P(BATCH_AXES) if rows else jax.P())


EXACT = jax.lax.Precision.HIGHEST
"""Of products behind a decision. By default, TPUs multiply float32 numbers as bfloat16."""


class Linear(nnx.Module):
    """``x @ weight``, no bias. weight ``[inputs, outputs]``, normal with deviation
    ``scale / sqrt(inputs)``."""

    def __init__(self, inputs: int, outputs: int, names, dtype, rngs: nnx.Rngs, scale: float = 1.0):
        deviation = scale / inputs**0.5
        weight = jax.random.normal(rngs.params(), (inputs, outputs)) * deviation
        self.weight = parameter(weight, *names)
        self.dtype = dtype

    def __call__(self, x: jax.Array, precision=None) -> jax.Array:
        weight = self.weight[...].astype(self.dtype)
        return jnp.matmul(x.astype(self.dtype), weight, precision=precision)


class ExactLinear(Linear):
    """The same in float32 on any platform, for what decides."""

    def __init__(self, inputs: int, outputs: int, names, rngs: nnx.Rngs, scale: float = 1.0):
        super().__init__(inputs, outputs, names, jnp.float32, rngs, scale)

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x, EXACT)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a learned gain (Zhang & Sennrich 2019); statistics in float32."""

    def __init__(self, width: int, name: str | None = None):
        self.gain = parameter(jnp.ones((width,)), name)

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)
        return (normed * self.gain[...]).astype(x.dtype)


def rotary_angles(positions: jax.Array, head_size: int, base: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine for ``rotate``, each ``[B, T, 1, head_size / 2]`` float32."""
    frequencies = base ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
    angles = positions.astype(jnp.float32)[..., None, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary positions (Su et al. 2021), halves convention. x ``[B, T, heads, head_size]``."""
    cosine, sine = angles
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def take(x: jax.Array, index: jax.Array) -> jax.Array:
    """``x[b, index[b, i]]`` for x ``[B, T, ...]``, index ``[B, N]``."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)


def back_by(x: jax.Array, positions: jax.Array, by: int) -> jax.Array:
    """x ``[B, T, ...]`` of ``by`` places before, 0 where that is another document or none."""
    moved = jnp.pad(x, [(0, 0), (by, 0)] + [(0, 0)] * (x.ndim - 2))[:, : x.shape[1]]
    known = (positions >= by).reshape(*positions.shape, *[1] * (x.ndim - 2))
    return jnp.where(known, moved, 0)


def starts_of(segment_ids: jax.Array) -> jax.Array:
    """Booleans ``[B, T]``: the first position of each document, the row's first included."""
    first = jnp.ones_like(segment_ids[:, :1], bool)
    return jnp.concatenate([first, segment_ids[:, 1:] != segment_ids[:, :-1]], axis=1)
