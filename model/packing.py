"""Rows of a trunk laid end to end, so that slots which hold no unit cost nothing.

Rows have room for the most units that their text could have; how many it has is known only when it
is cut. What works on each position alone (projections, norms, MLPs) runs over one long row of all
the units of a device's rows; attention sees them in their own rows.

Letters: B rows, S slots of a row, G groups (devices that split rows), L places of a long row.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from octavo.model.axes import ROWS, on_own


@dataclass(frozen=True)
class Packing:
    """Where rows lie, of which the first ``count [B]`` slots hold something. All fits if the sum of
    a group's counts is at most L."""

    count: jax.Array
    slots: int
    """S."""
    length: int
    """L."""

    def pack(self, x: jax.Array) -> jax.Array:
        """x ``[B, S, ...]`` to ``[G, L, ...]``; zeros where there is nothing."""
        return _pack(self.slots, self.length, x, self.count)

    def unpack(self, x: jax.Array) -> jax.Array:
        """The inverse; zeros in slots that hold nothing."""
        return _unpack(self.slots, self.length, x, self.count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pack(slots, length, x, count):
    return on_own(functools.partial(_pack_group, slots, length), (x, count), (ROWS, ROWS), ROWS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unpack(slots, length, x, count):
    return on_own(functools.partial(_unpack_group, slots, length), (x, count), (ROWS, ROWS), ROWS)


# Each is the transpose of the other: copies of whole rows both ways, where JAX would add up parts.
_pack.defvjp(
    lambda slots, length, x, count: (_pack(slots, length, x, count), count),
    lambda slots, length, count, g: (_unpack(slots, length, g, count), None),
)
_unpack.defvjp(
    lambda slots, length, x, count: (_unpack(slots, length, x, count), count),
    lambda slots, length, count, g: (_pack(slots, length, g, count), None),
)


def _pack_group(slots, length, x, count):
    """x ``[R, S, ...]`` to ``[1, L, ...]``."""
    start = jnp.cumsum(count) - count
    rest = x.shape[2:]

    def put(row, long):
        # What lies beyond a row's count is written over by the next.
        at = (start[row], *[0] * len(rest))
        return lax.dynamic_update_slice(long, lax.dynamic_index_in_dim(x, row, 0, False), at)

    long = lax.fori_loop(0, len(x), put, jnp.zeros((length + slots, *rest), x.dtype))[:length]
    real = jnp.arange(length) < start[-1] + count[-1]
    return jnp.where(real.reshape(-1, *[1] * len(rest)), long, 0)[None]


def _unpack_group(slots, length, x, count):
    """x ``[1, L, ...]`` to ``[R, S, ...]``."""
    start = jnp.cumsum(count) - count
    rest = x.shape[2:]
    long = jnp.pad(x[0], [(0, slots)] + [(0, 0)] * len(rest))

    def take(row, rows):
        at = (start[row], *[0] * len(rest))
        got = lax.dynamic_slice(long, at, (slots, *rest))
        got = jnp.where((jnp.arange(slots) < count[row]).reshape(-1, *[1] * len(rest)), got, 0)
        return lax.dynamic_update_index_in_dim(rows, got, row, 0)

    return lax.fori_loop(0, len(count), take, jnp.zeros((len(count), slots, *rest), x.dtype))
