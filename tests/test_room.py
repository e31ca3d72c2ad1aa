"""Pieces that share a row have the units that they have alone, wherever ends are asked for."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import of_preset, shrink
from octavo.batch import FIELDS, Room
from octavo.configs import presets
from octavo.configs.model import ModelConfig, StageConfig
from octavo.model.layers import starts_of
from octavo.model.units.room import most_units, room_of, row_units
from octavo.model.units.segmentation import bounded, segment
from octavo.run.rows import packed_rows
from octavo.tokenizers.bytes import ByteTokenizer

LENGTH = 64


def cut(ends, positions, segment_ids, stage):
    """Boundaries of rows in which ``ends`` are asked for."""
    none = jnp.zeros(len(ends), jnp.int32)
    fresh = starts_of(jnp.asarray(segment_ids))
    return bounded(jnp.asarray(ends), stage, jnp.asarray(positions), none, none, fresh)[0]


def most_found(ends, stage):
    """The most units that documents take of whose ends ``[documents, n]`` are asked for: by the
    first of their positions, the first two, and so on (what follows never changes a boundary)."""
    positions = np.broadcast_to(np.arange(ends.shape[1]), ends.shape)
    boundary = np.asarray(cut(ends, positions, np.ones_like(positions), stage))
    return (np.cumsum(boundary, axis=1) + ~boundary).max(0).tolist()


@pytest.mark.parametrize("longest", [1, 2, 3, 5, 64])
def test_the_most_units_of_a_document(longest):
    """No document ever takes more, and some take as many: all ways to ask for ends are tried."""
    ends = np.array(list(itertools.product([False, True], repeat=11)))
    for capacity in (0.2, 0.25, 1 / 3, 0.4, 0.75, 0.999999, 1.0, 1.5):
        stage = StageConfig(capacity=capacity, max_unit=longest)
        assert most_found(ends, stage) == [most_units(stage, n) for n in range(1, 12)]
        assert most_units(stage, 0) == 0


@pytest.mark.parametrize("longest", [1, 2, 3, 5, 64])
def test_the_most_units_of_a_stride(longest):
    """Only the id that begins a document asks for an end; a piece of one has none."""
    stage = StageConfig(segmenter="stride", max_unit=longest)
    ends = np.zeros((2, 40), bool)
    ends[0, 0] = True
    assert most_found(ends, stage) == [most_units(stage, n) for n in range(1, 41)]


def test_shares_are_rounded_as_on_the_device():
    """float32 rounds some shares up to a whole number of units."""
    lengths = np.arange(1, 65_536)
    for capacity in (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9):
        stage = StageConfig(capacity=capacity, max_unit=2**30)
        granted = 2 + np.floor(jnp.float32(capacity) * lengths.astype(np.float32)).astype(int)
        most = np.array([most_units(stage, n) for n in lengths.tolist()])
        # All that is granted before the last position, and a unit that holds it.
        assert (most[1:] >= np.minimum(granted[:-1] + 1, lengths[1:])).all()
        assert (most >= np.minimum(granted, lengths)).all()


def test_a_stage_that_may_end_units_everywhere():
    """Where a row has as many units as positions, none is merged, the last included."""
    stage = StageConfig(capacity=1.0)
    segment_ids = np.repeat([[1, 2]], LENGTH // 2, axis=1)
    positions = np.tile(np.arange(LENGTH // 2), (1, 2))
    boundary = cut(np.ones((1, LENGTH), bool), positions, segment_ids, stage)
    units = segment(boundary, jnp.asarray(segment_ids), row_units(stage, LENGTH))
    assert units.boundary.all() and units.available.tolist() == [list(range(1, LENGTH + 1))]
    assert room_of(ModelConfig(stages=(stage,)), LENGTH).most.tolist() == [LENGTH]


@functools.partial(jax.jit, static_argnums=3)
def levels(ends, positions, segment_ids, stages):
    """Of each level: its boundaries, distances from them, whether any unit is seen, and documents.
    Further in, an end is asked for everywhere."""
    found = []
    for stage in stages:
        if stage.segmenter == "stride":
            ends = (positions == 0) & (not found)
        boundary = cut(ends, positions, segment_ids, stage) & (segment_ids > 0)
        units = segment(boundary, segment_ids, row_units(stage, segment_ids.shape[1]))
        found.append((units.boundary, units.since, units.available > 0, segment_ids))
        positions, segment_ids = units.layout.positions, units.layout.segment_ids
        ends = jnp.ones_like(segment_ids, bool)
    return found


def cuts_of(encoded, stages, room):
    """How documents are cut in rows that have ``room``: by level and document. And how many rows
    there are."""
    rows, places = packed_rows(encoded, ByteTokenizer(), LENGTH, 0, room=room)
    rows = np.pad(rows, ((0, len(encoded) - len(rows)), (0, 0), (0, 0)))
    ends = np.zeros((len(encoded), LENGTH), bool)
    for place in places:
        # Everywhere, or at most places.
        size = place.columns.stop - place.columns.start
        ends[place.row, place.columns] = np.arange(size) % (size % 4 + 2) > 0
    positions, segment_ids = (rows[:, FIELDS.index(n)] for n in ("positions", "segment_ids"))
    found = []
    for *level, segments in jax.device_get(levels(ends, positions, segment_ids, stages)):
        for place in places:
            here = segments[place.row] == segment_ids[place.row, place.columns.start]
            found.append([one[place.row][here].tolist() for one in level])
    return found, places[-1].row + 1


TRIED = [of_preset(name) for name in ("words", "spacebyte", "megabyte", "aunet", "hnet-2stage")]


@pytest.mark.parametrize("known", [True, False], ids=["the model's room", "any model's room"])
@pytest.mark.parametrize("name", TRIED)
def test_pieces_that_share_a_row_are_cut_as_alone(name, known):
    """On every level, where ends are asked for after most positions."""
    model = shrink(presets()[name]).model
    rng = np.random.default_rng(0)
    encoded = [np.full(size, 97) for size in (*rng.integers(0, 12, 100), *rng.integers(0, 40, 28))]
    together, rows = cuts_of(encoded, model.stages, room_of(model, LENGTH) if known else None)
    assert rows < 80
    alone_only = Room(np.ones((1, LENGTH + 1), np.int32), np.ones(1, np.int32))
    alone, rows = cuts_of(encoded, model.stages, alone_only)
    assert rows == len(encoded) and together == alone
