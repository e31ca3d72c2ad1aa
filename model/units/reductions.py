"""Sums, means and maxima over units, and sequences woven together.

Letters: B batch, T positions, S units, d width.
"""

import jax
import jax.numpy as jnp

from octavo.model.layers import take


def sum_by_unit(x: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """Sums of x ``[B, T, ...]`` over the positions of each unit, ``[B, units, ...]`` float32."""
    add = lambda x, ids: jax.ops.segment_sum(x, ids, units, indices_are_sorted=True)  # noqa: E731
    return jax.vmap(add)(x.astype(jnp.float32), unit_of)


def mean_by_unit(x: jax.Array, weight: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """Means of x ``[B, T, d]`` by weights ``[B, T, 1]``, of x's dtype; 0 for units without
    positions."""
    total = sum_by_unit(weight, unit_of, units)
    return (sum_by_unit(x * weight, unit_of, units) / jnp.maximum(total, 1e-9)).astype(x.dtype)


def max_by_unit(x: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """The same with maxima, of x's dtype; -inf for units without positions."""
    top = lambda x, ids: jax.ops.segment_max(x, ids, units, indices_are_sorted=True)  # noqa: E731
    return jax.vmap(top)(x, unit_of)


def attended_by_unit(
    scores: jax.Array, v: jax.Array, unit_of: jax.Array, units: int, counts: jax.Array | None = None
) -> jax.Array:
    """Values v ``[B, T, h, d]`` of the positions of each unit, by a softmax over them of each
    query's scores ``[B, T, s, h]``: ``[B, units, s, h, d]`` float32; 0 for units without positions
    that count. Each position belongs to one unit, so its scores are few."""
    top = max_by_unit(jax.lax.stop_gradient(scores), unit_of, units)
    weights = jnp.exp(scores - take(top, unit_of))
    if counts is not None:
        weights = weights * counts[..., None, None]
    total = sum_by_unit(weights, unit_of, units)
    mixed = sum_by_unit(jnp.einsum("btsh,bthd->btshd", weights, v), unit_of, units)
    return mixed / jnp.maximum(total, 1e-9)[..., None]


def interleave(
    x: jax.Array, group: jax.Array, extra: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Put ``extra[b, k]`` (``[B, S, p, d]``) behind the positions of x ``[B, T, d]`` whose group is
    at most k; group ``[B, T]`` never falls.

    Returns the sequence ``[B, T + S p, d]`` and the places of x, ``[B, T]``, and of extra,
    ``[B, S, p]``, in it.
    """
    (B, T, d), (S, p) = x.shape, extra.shape[1:3]
    x_at = jnp.arange(T)[None] + p * group
    upto = jnp.sum(group[:, None, :] <= jnp.arange(S)[None, :, None], axis=2)
    extra_at = (upto + p * jnp.arange(S)[None])[:, :, None] + jnp.arange(p)
    places = jnp.concatenate([x_at, extra_at.reshape(B, S * p)], axis=1)
    both = jnp.concatenate([x, extra.reshape(B, S * p, d)], axis=1)
    source = jnp.argsort(places, axis=1)  # places are a permutation
    return take(both, source), x_at, extra_at
