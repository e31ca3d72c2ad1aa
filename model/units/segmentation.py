"""Units of a row: where they end, which one a position is in, which one it may see.

A boundary is the last position of its unit. Position t is pooled into ``unit_of[t]`` and may read
``available[t]``, the newest unit that is complete at t (0: none yet, the null unit; k + 1: unit k).
Every rule here decides from positions up to t of the same document, so a boundary leaks nothing.

Letters: B batch, T positions, S units of a row.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from octavo.configs.model import StageConfig
from octavo.model.layers import starts_of, take


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layout:
    """What a trunk knows of its positions, each ``[B, T]``."""

    positions: jax.Array
    """Place within the document, from 0."""
    segment_ids: jax.Array
    """Which document, from 1; 0 is padding."""
    ends: jax.Array
    """Booleans: a rule says that a unit of the first stage ends here."""
    scripts: jax.Array
    """The newest writing system so far (tokenizers/unicode/scripts.py), 0 for none, or if nothing
    asks."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segmentation:
    """Integers ``[B, T]`` unless said otherwise."""

    boundary: jax.Array
    """Booleans: the last position of a unit."""
    unit_of: jax.Array
    """The unit a position is in, from 0, over the whole row; a new document starts a new one."""
    available: jax.Array
    """1 + the newest unit of this document that is complete here; 0: none."""
    follows: jax.Array
    """Counts boundaries and starts of documents: positions from a boundary to the next share it."""
    since: jax.Array
    """Distance to the newest boundary of this document (0 at a boundary), or to its start."""
    last: jax.Array
    """``[B, S]``: the last position of each unit; T - 1 where there is none."""
    layout: Layout
    """Positions, documents and (no) marks of the units, ``[B, S]``."""


def bounded(
    ends: jax.Array,
    stage: StageConfig,
    positions: jax.Array,
    used: jax.Array,
    open_since: jax.Array,
    fresh: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Boundaries ``[B, T]`` from the ends that a segmenter asks for, and which of those ends were
    granted: no document uses more than its share, no unit is longer than ``stage.max_unit``.

    used, open_since ``[B]``: units that the first document used before, and its positions since
    the last end that was granted; 0 for a document that starts here. fresh ``[B, T]``: a document
    starts.
    """
    asked = jnp.cumsum(ends, axis=1)
    # Restart the counts of each document: subtract what stood before its start.
    before = lax.cummax(jnp.where(fresh, asked - ends, 0), axis=1)
    document = jnp.cumsum(fresh, axis=1)
    own = asked - before + jnp.where(document == 0, used[:, None], 0)
    budget = 2 + jnp.floor(stage.capacity * (positions + 1)).astype(jnp.int32)
    # The number granted, min(number before + end, budget), has a closed form. Falling offsets keep
    # each document's minimum its own: no document lacks more than it has positions.
    t = jnp.arange(ends.shape[1])[None]
    offset = lax.cummax(jnp.where(fresh, t, 0), axis=1)
    slack = jnp.minimum(budget - own, 0) - offset
    granted = own + lax.cummin(slack, axis=1) + offset
    previous = jnp.concatenate([used[:, None], granted[:, :-1]], axis=1)
    granted = granted > jnp.where(fresh, 0, previous)
    # Units that are still too long are cut every max_unit positions.
    start = jnp.where(granted, t + 1, -open_since[:, None])
    start = jnp.concatenate([-open_since[:, None], start[:, :-1]], axis=1)
    start = lax.cummax(jnp.where(fresh, t, start), axis=1)
    return granted | ((t - start) % stage.max_unit == stage.max_unit - 1), granted


def segment(boundary: jax.Array, segment_ids: jax.Array, units: int) -> Segmentation:
    """The units of rows, given their boundaries ``[B, T]``; ``units`` is S.

    A row with more units than S - 1 keeps its first; what follows is merged into the last, whose
    state nothing reads: positions there go on seeing the newest unit that was kept. Where S is T,
    each position may be a unit, and nothing is merged.
    """
    T = boundary.shape[1]
    kept = units if units == T else units - 1  # as room.whole_units
    fresh = starts_of(segment_ids)
    fresh = fresh.at[:, 0].set(False)

    def numbered(boundary):
        shifted = jnp.concatenate([jnp.zeros_like(boundary[:, :1]), boundary[:, :-1]], axis=1)
        return jnp.cumsum(shifted | fresh, axis=1)

    boundary = boundary & (numbered(boundary) < kept)
    number = numbered(boundary)
    unit_of = jnp.minimum(number, units - 1)
    first_of_document = lax.cummax(jnp.where(fresh, number, 0), axis=1)
    newest = jnp.minimum(number - 1 + boundary, kept - 1)
    available = jnp.where(newest >= first_of_document, newest + 1, 0)
    t = jnp.arange(T)[None]
    opened = fresh | boundary
    since = t - lax.cummax(jnp.where(opened, t, 0), axis=1)
    # The last position of unit k: as many positions as lie in units up to k, less one.
    k = jnp.arange(units)
    upto = jnp.sum(unit_of[:, None, :] <= k[None, :, None], axis=2)
    exists = k[None] <= unit_of[:, -1:]
    last = jnp.maximum(upto - 1, 0)
    return Segmentation(
        boundary=boundary,
        unit_of=unit_of,
        available=available,
        follows=jnp.cumsum(opened, axis=1),
        since=since,
        last=last,
        layout=Layout(
            positions=jnp.where(exists, k[None] - take(first_of_document, last), 0),
            segment_ids=jnp.where(exists, take(segment_ids, last), 0),
            ends=jnp.zeros_like(last, bool),
            scripts=jnp.zeros_like(last),
        ),
    )
