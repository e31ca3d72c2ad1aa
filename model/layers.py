"""Small parts: linear maps, norms, rotary positions. All hold float32, compute in ``dtype``.

Every parameter carries the logical names of its axes (``names``), which model/axes.py maps to those
of the mesh. A stacked parameter has one more leading axis, "layers".
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import RopeScaling


class Filled(NamedTuple):
    """Shares of a row's slots that are expected to hold a unit."""

    mean: float
    most: float
    """In the fullest of many rows."""


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
    """What the backward pass computes again: "none", "dots", "inner", "full"."""
    filled: tuple[Filled, ...] | None = None
    """Of each stage's units; None: all slots are computed."""


def parameter(value: jax.Array, *names: str | None) -> nnx.Param:
    """A parameter with a logical name per axis. (A key of our own: flax's would ask for a mesh.)"""
    assert value.ndim == len(names), (value.shape, names)
    # Never weakly typed: the first update would change that, and compile the step again.
    return nnx.Param(value.astype(jnp.float32), names=names)


KEPT_MIXED, KEPT_HIDDEN, KEPT_QKV = "mixed", "hidden", "qkv"
"""Names of what the backward pass may keep of a block: what attention gives, what goes into the
MLP's nonlinearity, and what attention is computed of."""

EXACT = jax.lax.Precision.HIGHEST
"""Of products behind a decision. By default, TPUs multiply float32 numbers as bfloat16."""


def product(x: jax.Array, weight: jax.Array, precision=None) -> jax.Array:
    """``x @ weight`` of x ``[..., inputs]`` and weight ``[inputs, outputs]``.

    The weight's gradient is one product over all leading axes, of whose factors the narrower is the
    one to be turned: as it would come by itself, it takes twice the time on CPU.
    """
    return _product(x, weight, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x, weight, precision):
    return jnp.matmul(x, weight, precision=precision)


def _product_forward(x, weight, precision):
    return jnp.matmul(x, weight, precision=precision), (x, weight)


def _product_backward(precision, kept, gradient):
    x, weight = kept
    leading = tuple(range(x.ndim - 1))
    over = functools.partial(
        lax.dot_general, dimension_numbers=((leading, leading), ((), ())), precision=precision
    )
    dx = lax.dot_general(gradient, weight, (((x.ndim - 1,), (1,)), ((), ())), precision=precision)
    if weight.shape[0] <= weight.shape[1]:
        return dx, over(x, gradient)
    # The barrier keeps XLA from making the other product of it again.
    return dx, lax.optimization_barrier(over(gradient, x)).T


_product.defvjp(_product_forward, _product_backward)


class Linear(nnx.Module):
    """``x @ weight``, and a bias where one is asked for. weight ``[inputs, outputs]``, normal with
    deviation ``scale / sqrt(inputs)``."""

    def __init__(
        self, inputs: int, outputs: int, names, dtype, rngs: nnx.Rngs, scale: float = 1.0,
        bias: bool = False,
    ):  # fmt: skip
        deviation = scale / inputs**0.5
        weight = jax.random.normal(rngs.params(), (inputs, outputs)) * deviation
        self.weight = parameter(weight, *names)
        self.bias: Any = parameter(jnp.zeros(outputs), names[1]) if bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array, precision=None) -> jax.Array:
        weight = self.weight[...].astype(self.dtype)
        y = product(x.astype(self.dtype), weight, precision)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class ExactLinear(Linear):
    """The same in float32 on any platform, for what decides."""

    def __init__(self, inputs: int, outputs: int, names, rngs: nnx.Rngs, scale: float = 1.0):
        super().__init__(inputs, outputs, names, jnp.float32, rngs, scale)

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x, EXACT)


@jax.custom_vjp
def _scaled(x, scale):
    """x times scale, which has as many axes, each as long or 1."""
    return x * scale


def _scaled_backward(kept, gradient):
    x, scale = kept
    # Over the first axis as well where it is 1, as that of packed rows: sums which leave it take
    # ten times as long on CPU.
    axes = tuple(axis for axis, size in enumerate(scale.shape) if size == 1)
    return gradient * scale, jnp.sum(gradient * x, axis=axes, keepdims=True)


_scaled.defvjp(lambda x, scale: (x * scale, (x, scale)), _scaled_backward)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a learned gain (Zhang & Sennrich 2019); statistics in float32."""

    def __init__(self, width: int, eps: float = 1e-6):
        self.gain = parameter(jnp.ones((width,)), None)
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        inverse = lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        gain = jnp.expand_dims(self.gain[...], range(x.ndim - 1))
        return _scaled(_scaled(wide, inverse), gain).astype(x.dtype)


def rotary_angles(
    positions: jax.Array, head_size: int, base: float, scaling: RopeScaling
) -> tuple[jax.Array, jax.Array]:
    """Cosine, and sine with its sign, for ``rotate``: each ``[B, T, 1, head_size]`` float32."""
    frequencies = base ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
    if scaling.factor != 1:
        waves = scaling.original_length * frequencies / (2 * jnp.pi)  # in so many positions
        kept = jnp.clip((waves - scaling.low) / (scaling.high - scaling.low), 0, 1)
        frequencies *= kept + (1 - kept) / scaling.factor
    angles = positions.astype(jnp.float32)[..., None, None] * frequencies
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([cosine, cosine], axis=-1), jnp.concatenate([-sine, sine], axis=-1)


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary positions (Su et al. 2021), halves convention. x ``[B, T, heads, head_size]``.

    The halves change places by a product with a permutation, which is exact: to cut heads in two
    and join them again costs several times as much on CPU, and on a TPU, whose lanes are a head.
    """
    cosine, sine = angles
    swap = jnp.roll(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape[-1] // 2, axis=0)
    precision = EXACT if x.dtype == jnp.float32 else None
    swapped = jnp.matmul(x, swap, precision=precision, preferred_element_type=jnp.float32)
    return (x.astype(jnp.float32) * cosine + swapped * sine).astype(x.dtype)


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
