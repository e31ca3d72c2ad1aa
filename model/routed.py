"""Each position through one of several functions of the same form, and through no other.

Positions are sorted by route into blocks of one route each, and the function runs block by block:
its work is that of one route, not of all (as in grouped matrix products of mixtures of experts,
MegaBlocks, Gale et al. 2022, 2211.15841).

Letters: N positions, K routes, b positions of a block, n blocks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from octavo.model.axes import POSITIONS, ROWS, divides, on_own

LEAST, MOST = 16, 512
"""Positions of a block."""


def block_size(count: int, routes: int) -> int:
    """For so many positions: half-empty blocks, at most one a route, are an eighth at most of all.
    0: too few positions for blocks to save anything."""
    size = 1 << max(count // (8 * routes), 1).bit_length() - 1
    return min(size, MOST) if size >= LEAST else 0


def routed(
    function: Callable[[jax.Array, Any], jax.Array], x: jax.Array, route: jax.Array, params: Any
) -> jax.Array:
    """``function(x[b, t], params of route[b, t])`` for all positions: x ``[B, T, d]``, route
    ``[B, T]`` integers below K, params a tree of arrays ``[K, ...]``. The function takes
    ``[b, d]`` and one route's params to ``[b]``; so the result is ``[B, T]``.

    Where rows and positions are split over devices, each sorts its own.
    """
    own = POSITIONS if divides(x, POSITIONS) else ROWS
    return on_own(partial(_routed, function), (x, route, params), (own, own, ()), own)


def _routed(function, x, route, params):
    shape, routes = route.shape, len(jax.tree.leaves(params)[0])
    x, route = x.reshape(-1, x.shape[-1]), route.reshape(-1)
    block = block_size(len(route), routes)
    if not block or routes == 1:
        every = jax.vmap(partial(function, x))(params)  # [K, N]
        return jnp.take_along_axis(every, route[None], axis=0)[0].reshape(shape)
    blocks = len(route) // block + routes
    # A position's place: behind the blocks of the routes before its own, in order.
    mine = jax.nn.one_hot(route, routes, dtype=jnp.int32)
    seen = jnp.cumsum(mine, axis=0)
    needed = -(-seen[-1] // block)
    ends = jnp.cumsum(needed)
    nth = jnp.sum(seen * mine, axis=1) - 1
    place = (ends - needed)[route] * block + nth
    source = jnp.full(blocks * block, len(route)).at[place].set(jnp.arange(len(route)))
    of_block = jnp.minimum(jnp.searchsorted(ends, jnp.arange(blocks), side="right"), routes - 1)
    # Zeros where a block has no position.
    sorted_ = jnp.take(x, source, axis=0, mode="fill", fill_value=0)
    found: Any = _by_block(function, sorted_.reshape(blocks, block, -1), of_block, params)
    return found.reshape(-1)[place].reshape(shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_block(function, x, of_block, params):
    """x ``[n, b, d]``, of_block ``[n]``: the route of each, rising; ``[n, b]``."""
    return _by_block_forward(function, x, of_block, params)[0]


def _by_block_forward(function, x, of_block, params):
    found = lax.platform_dependent(
        x, of_block, params,
        cuda=partial(_at_once, function), default=partial(_one_by_one, function),
    )  # fmt: skip
    return found, (x, of_block, params)


def _by_block_backward(function, kept, gradient):
    dx, total = lax.platform_dependent(
        *kept, gradient,
        cuda=partial(_pulled_at_once, function), default=partial(_pulled_one_by_one, function),
    )  # fmt: skip
    return dx, None, total


def _one_by_one(function, x, of_block, params):
    def one(_, at):
        block, route = at
        return None, function(block, jax.tree.map(lambda leaf: leaf[route], params))

    return lax.scan(one, None, (x, of_block))[1]


def _pulled_one_by_one(function, x, of_block, params, gradient):
    # Added up in place, block by block: nothing as large as n times the params exists.
    def one(total, at):
        block, route, g = at
        pull = jax.vjp(function, block, jax.tree.map(lambda leaf: leaf[route], params))[1]
        d_block, more = pull(g)
        return jax.tree.map(lambda t, m: t.at[route].add(m), total, more), d_block

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, dx = lax.scan(one, zeros, (x, of_block, gradient))
    return dx, total


def _at_once(function, x, of_block, params):
    """The params of all blocks side by side: more memory, but few and large products, as a GPU
    wants them."""
    return jax.vmap(function)(x, jax.tree.map(lambda leaf: leaf[of_block], params))


def _pulled_at_once(function, x, of_block, params, gradient):
    pull = jax.vjp(lambda x, params: _at_once(function, x, of_block, params), x, params)[1]
    return pull(gradient)


_by_block.defvjp(_by_block_forward, _by_block_backward)
