"""Stacks over units: as many slots as the units of a batch need, of a few compiled numbers."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from octavo.model.axes import ROWS, split
from octavo.model.layers import Execution, Filled
from octavo.model.packing import Packing
from octavo.model.transformer import Transformer


@dataclass(frozen=True)
class Room:
    """What is compiled on a platform, beside all slots."""

    mean: tuple[float, ...]
    """Slots of a device, times the mean of what is expected."""
    tile: int
    """Of which they are multiples."""
    packs: bool = True
    """Whether rows are laid end to end; else, all are as long as the fullest."""
    between: bool = True
    """Whether stacks between levels, of few layers, have programs of their own, too."""


FULLEST = (1.07, 1.25)
"""Slots of a row, times the fullest that is expected."""
ROOM = {
    "cpu": Room((1.07, 1.25), 8),
    # To lay rows end to end and apart again, in every layer, takes longer than what it saves.
    "gpu": Room((1.07, 1.25), 64, packs=False),
    # Its compiler takes minutes for a stack; its kernel of attention computes tiles.
    "tpu": Room((1.2,), 128, between=False),
}


def sizes(
    platform: str, filled: Filled, rows: int, slots: int, innermost: bool, parts: int = 1
) -> list[tuple[int, int]]:
    """Numbers of slots that are compiled for so many rows of a device, beside all of them: in all,
    and of a row. innermost: for the units of the last stage. parts: devices that share each row;
    rows that are shared are not laid end to end."""
    room, found = ROOM[platform], []
    if not (innermost or room.between):
        return []
    tile, packs = room.tile * parts, room.packs and rows > 1 and parts == 1

    def tiles(count: float) -> int:
        return int(-(-count // tile) * tile)

    for mean, fullest in zip(room.mean, FULLEST, strict=False):
        row = min(tiles(slots * filled.most * fullest), slots)
        packed = tiles(rows * slots * filled.mean * mean)
        found.append((packed if packs else rows * row, row))
    return [size for size in found if size[0] < rows * slots]


class ByNeed:
    """For stacks over the units of stage ``level - 1``. At level 0 there are none, and all is
    computed."""

    def __init__(self, level: int, execution: Execution):
        self.level, self.platform = level, execution.platform
        self.filled = execution.filled[level - 1] if level and execution.filled else None
        self.innermost = level == len(execution.filled or ())

    def __call__(
        self, stack: Transformer, x: jax.Array, positions: jax.Array, segment_ids: jax.Array
    ) -> tuple[jax.Array, dict]:
        """``stack(x, positions, segment_ids)`` of ``[B, T, d]``, where what exists lies first in
        its row, and what comes of the rest is never read. Also, sums over the batch for what units
        of stage L became: ``computed/L``, the slots that were computed, and ``mixed/L``, those of
        the rows in which they saw each other."""
        if not self.level:
            return stack(x, positions, segment_ids), {}
        (B, T, _), G, parts = x.shape, split(*ROWS), split("positions")
        compiled = []
        if self.filled:
            compiled = sizes(self.platform, self.filled, B // G, T, self.innermost, parts)
        count = jnp.sum(segment_ids > 0, axis=1)

        def whole(x):
            return stack(x, positions, segment_ids, rare=bool(compiled))

        def packed(length, row, rare, x):
            rows, seen = Packing(count, T, length), Packing(count, row, length)
            x, places = rows.pack(x), rows.pack(positions)
            return rows.unpack(stack(x, places, segment_ids[:, :row], packing=seen, rare=rare))

        def narrow(row, rare, x):
            parts = (part[:, :row] for part in (x, positions, segment_ids))
            return jnp.pad(stack(*parts, rare=rare), ((0, 0), (0, T - row), (0, 0)))

        needed, fullest = jnp.max(jnp.sum(count.reshape(G, -1), axis=1)), jnp.max(count)
        fits = [(needed <= length) & (fullest <= row) for length, row in compiled]
        branches = [
            functools.partial(narrow, row, i > 0) if length == B // G * row
            else functools.partial(packed, length, row, i > 0)
            for i, (length, row) in enumerate(compiled)
        ]  # fmt: skip
        choice = jnp.sum(~jnp.array(fits, bool))
        x = lax.switch(choice, [*branches, whole], x) if branches else whole(x)
        computed, mixed = jnp.array([*compiled, (B // G * T, T)], jnp.float32)[choice]
        level = self.level - 1
        return x, {f"computed/{level}": computed * G, f"mixed/{level}": mixed * B}
