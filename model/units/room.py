"""How many units rows have room for, and what documents may take of it."""

import math

import numpy as np

from octavo.batch import Room
from octavo.configs.model import ModelConfig, StageConfig
from octavo.model.layers import Filled
from octavo.model.units.pools import pool
from octavo.model.units.segmenters import segmenter


def row_units(stage: StageConfig, length: int) -> int:
    """Units that a row of ``length`` positions has room for: its share, those that cutting long
    units adds, and two for each of some documents."""
    share = 0 if segmenter(stage.segmenter).fixed else stage.capacity
    room = 8 + length // 64 + -(-length // stage.max_unit) + math.ceil(share * length)
    return min(-(-room // 8) * 8, length)


def slots(model: ModelConfig, length: int) -> tuple[int, ...]:
    """Positions of the trunk inside each stage that rows of ``length`` have room for."""
    found = []
    for stage in model.stages:
        length = row_units(stage, length) * pool(stage.pool).per_unit(stage)
        found.append(length)
    return tuple(found)


def filled_at(model: ModelConfig, length: int, units: tuple[float, ...]) -> tuple[Filled, ...]:
    """How full rows of ``length`` are if units end at random, so many per position of the row at
    each level."""
    means = (
        each * length * pool(stage.pool).per_unit(stage) / room
        for stage, each, room in zip(model.stages, units, slots(model, length), strict=True)
    )
    return tuple(Filled(mean, 1.12 * mean) for mean in means)  # the fullest of many rows


def whole_units(stage: StageConfig, length: int) -> int:
    """Those of them that can be complete in the row: not the last, into which all is merged that
    has no room. Where each position has a unit, none is merged."""
    units = row_units(stage, length)
    return units if units == length else units - 1


def most_units(stage: StageConfig, length: np.ndarray) -> np.ndarray:
    """The most units that documents of ``length`` positions take, wherever ends are asked for
    (``segmentation.bounded``): the last one, open or not, included."""
    # Units as granted: the ends of all but the last lie before the last position. The share is
    # rounded in float32 there, so a little more counts as a whole one. A stride grants but the
    # begin-of-document id.
    share = np.floor(stage.capacity * (length - 1) * (1 + 2**-20)).astype(int)
    granted = np.minimum(2 if segmenter(stage.segmenter).fixed else 3 + share, length)
    # Cutting one that is too long adds a unit for every max_unit positions beyond its first.
    return np.where(length > 0, granted + (length - granted) // stage.max_unit, 0)


def room_of(model: ModelConfig, length: int) -> Room:
    """The room of the model's rows of ``length`` positions."""
    price = np.zeros((len(model.stages), length + 1), np.int32)
    most = np.zeros(len(model.stages), np.int32)
    places = np.arange(length + 1)  # that a piece has at the level, by its length
    for level, stage in enumerate(model.stages):
        costs = most_units(stage, np.arange(length + 1))
        price[level], most[level] = costs[places], whole_units(stage, length)
        # The units of a level are the positions of the next.
        slots = pool(stage.pool).per_unit(stage)
        length = row_units(stage, length) * slots
        places = np.minimum(price[level] * slots, length)
    return Room(price, most)
