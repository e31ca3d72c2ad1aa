"""What a model reads and an objective scores: its fields and their types, written down once; and
how much of a row documents may take, so that none takes units from another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import jax


class Batch(NamedTuple):
    """Rows of packed documents, every field ``[batch, length]``.

    Arrives in the narrow types of the pipeline (``dtypes``) and is widened by ``widen`` on the
    device.
    """

    tokens: "jax.Array"
    """The id before each target: what the model reads."""
    targets: "jax.Array"
    """The ids to predict."""
    segment_ids: "jax.Array"
    """Which document of the row, from 1; 0 is padding. Segments never see each other."""
    positions: "jax.Array"
    """Place within the segment, from 0."""
    loss_weights: "jax.Array"
    """1 where the target counts, 0 where it does not (padding, context that is not scored)."""
    marks: "jax.Array"
    """1 where a unit that was marked beforehand ends with the token; 0 everywhere without marks."""

    @staticmethod
    def dtypes(ids: np.dtype, length: int) -> dict[str, np.dtype]:
        """The narrow type of each field of rows of ``length``; ids: of the vocabulary."""
        place = np.uint16 if length <= np.iinfo(np.uint16).max else np.uint32
        narrow = {"segment_ids": place, "positions": place}
        others = narrow | {"loss_weights": np.uint8, "marks": np.uint8}
        return {name: np.dtype(others.get(name, ids)) for name in FIELDS}

    def widen(self) -> "Batch":
        """The same batch with int32 ids and float32 weights."""
        wide = Batch(*(field.astype(np.int32) for field in self))
        return wide._replace(loss_weights=self.loss_weights.astype(np.float32))


FIELDS = Batch._fields


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
        for fewer than eight (model/units/room.py)."""
        return cls(np.ones((1, length + 1), np.int32), np.full(1, 2, np.int32))

    def tobytes(self) -> bytes:
        """All of it, for a fingerprint."""
        return self.price.astype("<i4").tobytes() + self.most.astype("<i4").tobytes()
