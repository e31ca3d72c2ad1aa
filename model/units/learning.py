"""What learned segmenters share: exact sums of probabilities, and gradients through decisions.

Letters: B batch, T positions.
"""

import jax
import jax.numpy as jnp
from jax import lax

from octavo.model.axes import ROWS, constrain

UNIT = 1 << 12
"""Fixed point of accumulated probabilities: sums are exact, however a row is cut into steps."""


def within_document(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Sums of x ``[B, T]`` over earlier positions of the same document, itself not counted; of
    those in the row. Exact for integers."""
    return _since(x, positions == 0)


def _since(x: jax.Array, starts: jax.Array) -> jax.Array:
    x = constrain(x, *ROWS)  # before it is summed, not within
    before = jnp.cumsum(x, axis=1) - x
    t = jnp.arange(x.shape[1])[None]
    start = lax.cummax(jnp.where(starts, t, 0), axis=1)
    return before - jnp.take_along_axis(before, start, axis=1)


def membership(count: jax.Array, positions: jax.Array) -> jax.Array:
    """The weight of each position in its unit, ``[B, T]``: exactly 1, but with a slope. More ends
    before it move a position out of its unit, towards the next (the gradient of dynamic pooling's
    official code)."""
    ends_before = within_document(count, positions)
    return 1 + (ends_before - lax.stop_gradient(ends_before))


def passing(
    p: jax.Array, positions: jax.Array, start: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Where the sum of p ``[B, T]`` over a document, this position counted, passes a half (and one
    and a half, and so on): booleans; how far from a whole number the sum before it is, and a zero
    with that sum's slope; and the sum over all ``valid`` positions, in fixed point. start ``[B]``:
    the sum before the row."""
    mean, slope, after = accumulated(p, positions, start, valid)
    unit = (mean + UNIT // 2) // UNIT
    ends = (mean + _fixed(p) + UNIT // 2) // UNIT > unit
    return ends, (mean - unit * UNIT) / UNIT, slope, after


def _fixed(x: jax.Array) -> jax.Array:
    return jnp.round(lax.stop_gradient(x) * UNIT).astype(jnp.int32)


def accumulated(p, positions, start, valid, ends=None):
    """Sum of p ``[B, T]`` over the positions before each, of the document or, with ends ``[B, T]``,
    since the newest end: in fixed point, and a zero that has its gradient; and the sum in fixed
    point behind all ``valid`` positions.

    start ``[B]``: what came before the row, in fixed point.
    """
    steps, starts = _fixed(p), positions == 0
    if ends is not None:
        starts |= jnp.pad(ends, ((0, 0), (1, 0)))[:, :-1]
    # A row that takes up a document has no start of one before its first positions.
    taken_up = lax.cummax(jnp.where(starts, 1, 0), axis=1) == 0
    whole = _since(steps, starts) + jnp.where(taken_up, start[:, None], 0)
    soft = _since(p, starts)
    slope = soft - lax.stop_gradient(soft)
    if valid is None:
        return whole, slope, start
    behind = whole + steps if ends is None else jnp.where(ends, 0, whole + steps)
    last = jnp.take_along_axis(behind, jnp.maximum(valid - 1, 0)[:, None], axis=1)[:, 0]
    return whole, slope, jnp.where(valid > 0, last, start)
