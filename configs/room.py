"""How much of a row documents may take, so that none takes units from another."""

from dataclasses import dataclass

import numpy as np

from octavo.configs.schema import ModelConfig


@dataclass(frozen=True, eq=False)
class Room:
    """What pieces of documents that share a row cost at each level of an hourglass, and may cost
    together. A flat model has no levels: what has room by length shares."""

    price: np.ndarray
    """``[levels, length + 1]`` int32: the most units that a piece of so many positions takes."""
    most: np.ndarray
    """``[levels]`` int32: units that a row has for its pieces."""

    @classmethod
    def of_flat(cls, length: int) -> "Room":
        """No levels."""
        return cls(np.zeros((0, length + 1), np.int32), np.zeros(0, np.int32))

    @classmethod
    def of_any(cls, length: int) -> "Room":
        """Two pieces a row: each costs up to three units beyond its share, and no level has room
        for fewer than eight (``StageConfig.units``)."""
        return cls(np.ones((1, length + 1), np.int32), np.full(1, 2, np.int32))

    def tobytes(self) -> bytes:
        """All of it, for a fingerprint."""
        return self.price.astype("<i4").tobytes() + self.most.astype("<i4").tobytes()


def room_of(model: ModelConfig, length: int) -> Room:
    """The room of the model's rows of ``length`` positions."""
    price = np.zeros((len(model.stages), length + 1), np.int32)
    most = np.zeros(len(model.stages), np.int32)
    places = np.arange(length + 1)  # that a piece has at the level, by its length
    for level, stage in enumerate(model.stages):
        costs = np.array([stage.most_units(n) for n in range(length + 1)], np.int32)
        price[level], most[level] = costs[places], stage.whole_units(length)
        # The units of a level are the positions of the next.
        slots = stage.slots if stage.pool == "prefix" else 1
        length = stage.units(length) * slots
        places = np.minimum(price[level] * slots, length)
    return Room(price, most)
