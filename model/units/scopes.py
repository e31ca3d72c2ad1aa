"""A decoder whose positions see their own unit only: all units side by side, and step by step.

Letters: B batch, T positions, N new ones, S units, U memories, d width.
"""

import jax
import jax.numpy as jnp

from octavo.model.layers import take
from octavo.model.transformer import Transformer
from octavo.model.units.pools import order
from octavo.model.units.reductions import interleave
from octavo.model.units.segmentation import Segmentation


def decode_units(
    stack: Transformer, x: jax.Array, memory: jax.Array, units: Segmentation, leading: int, reads
) -> jax.Array:
    """States ``[B, T, d]`` of positions x, each in the unit that follows the boundaries up to it;
    the first ``leading`` vectors of a unit's memory ``[B, U, m, d]`` stand before its positions."""
    ids, at = units.follows, None
    if leading:
        S = units.last.shape[1]
        group = jnp.minimum(units.unit_of + units.boundary, S)
        before = memory[:, 1:, :leading]
        before_ids = jnp.broadcast_to(take(ids, units.last)[..., None], before.shape[:3])
        x, at, _ = interleave(x, group, before)
        ids = interleave(ids[..., None], group, before_ids[..., None])[0][..., 0]
    x = stack(x, order(x), ids, reads)
    return x if at is None else take(x, at)


def extend_units(
    stack: Transformer, x: jax.Array, memory: jax.Array, ended: jax.Array, boundary: jax.Array,
    leading: int, cache: list, length: jax.Array, follows_from: jax.Array, reads,
) -> tuple[jax.Array, dict, jax.Array]:  # fmt: skip
    """The same for new positions x ``[B, N, d]``, ``ended [B, N]`` units behind those before.

    length ``[B]``: places of the stack that its cache holds; follows_from ``[B]``: where in them
    the newest boundary stands. Also what ``Transformer.settle`` wants, and where each unit's part
    begins, ``[B, U]``.
    """
    B, N, _ = x.shape
    at, group = order(x), ended
    U = memory.shape[1]
    if leading:
        x, at, _ = interleave(x, ended, memory[:, 1:, :leading])
        index = jnp.broadcast_to(jnp.arange(1, U)[None, :, None, None], (B, U - 1, leading, 1))
        group = interleave(ended[..., None], ended, index)[0][..., 0]
    # Where each unit's part begins, in places of the stack: the old one, then the new ones.
    begins = jnp.zeros((B, U), jnp.int32).at[:, 0].set(follows_from)
    put = jax.vmap(lambda begins, unit, place: begins.at[unit].set(place, mode="drop"))
    begins = put(begins, jnp.where(boundary, ended, U), length[:, None] + at - leading)
    x, pending = stack.extend(x, cache, length, take(begins, group), reads)
    return take(x, at), pending, begins
