"""How often each of many short byte strings occurs, counted by compiled code in bounded memory."""

from collections import Counter

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts.tables import hashed

MOST_KINDS = 4_000_000
"""Distinct strings that are counted at a time; beyond that, the rarest are forgotten."""
MOST_BYTES = 64_000_000
"""Bytes of them; the same."""
_AT_ONCE = 1 << 22
"""Bytes for whose strings there is room before any is counted, or one string."""


@compiled
def _add(data, ends, slots, hashes, starts, sizes, counts, arena, kinds, filled):
    """Count the pieces of ``data``; returns the numbers of kinds and of bytes in the arena."""
    mask = len(slots) - 1
    start = 0
    for behind in range(1, len(data) + 1):
        if not ends[behind - 1] and behind < len(data):
            continue
        mixed = hashed(data, start, behind)
        at = np.int64((mixed ^ (mixed >> np.uint64(31))) & np.uint64(mask))
        while True:
            kind = slots[at]
            if kind < 0:
                slots[at] = kinds
                hashes[kinds], starts[kinds], sizes[kinds] = mixed, filled, behind - start
                counts[kinds] = 1
                for i in range(start, behind):
                    arena[filled] = data[i]
                    filled += 1
                kinds += 1
                break
            if hashes[kind] == mixed and sizes[kind] == behind - start:
                same = True
                for i in range(behind - start):
                    if arena[starts[kind] + i] != data[start + i]:
                        same = False
                        break
                if same:
                    counts[kind] += 1
                    break
            at = (at + 1) & mask
        start = behind
    return kinds, filled


@compiled
def _place(slots, hashes, kinds):
    mask = len(slots) - 1
    for kind in range(kinds):
        mixed = hashes[kind]
        at = np.int64((mixed ^ (mixed >> np.uint64(31))) & np.uint64(mask))
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = kind


@compiled
def _gather(kept, starts, sizes, arena, into, ends):
    filled = 0
    for kind in kept:
        for i in range(starts[kind], starts[kind] + sizes[kind]):
            into[filled] = arena[i]
            filled += 1
        ends[filled - 1] = 1


class Counts:
    """most: kinds that are kept; the rarest of more are forgotten, down to half as many, and so
    they are of more than ``MOST_BYTES``."""

    def __init__(self, most: int = MOST_KINDS):
        self.most = most
        self.kinds = self.filled = 0
        self.slots = np.full(1 << 12, -1, np.int32)
        self.hashes, self.starts = np.empty(0, np.uint64), np.empty(0, np.int64)
        self.sizes, self.counts = np.empty(0, np.int32), np.empty(0, np.int64)
        self.arena = np.empty(0, np.uint8)

    def add(self, data: np.ndarray, ends: np.ndarray) -> None:
        """Count the pieces of uint8 ``data``, which end where ``ends`` is 1."""
        start = 0
        while start < len(data):
            stop = min(start + _AT_ONCE, len(data))
            if stop < len(data):  # behind the last piece that fits, or the first
                fits = np.flatnonzero(ends[start:stop])
                if len(fits):
                    stop = start + int(fits[-1]) + 1
                else:
                    longer = int(np.argmax(ends[stop:] != 0))
                    stop = stop + longer + 1 if ends[stop + longer] else len(data)
            self._add(data[start:stop], ends[start:stop])
            if self.kinds > self.most or self.filled > MOST_BYTES:
                self._forget()
            start = stop

    def _add(self, data: np.ndarray, ends: np.ndarray) -> None:
        pieces = int(np.count_nonzero(ends)) + 1
        room = self.kinds + pieces
        if room > len(self.hashes):
            for name in ("hashes", "starts", "sizes", "counts"):
                setattr(self, name, _grown(getattr(self, name), room))
        self.arena = _grown(self.arena, self.filled + len(data))
        if 2 * room > len(self.slots):
            self.slots = np.full(1 << (2 * room).bit_length(), -1, np.int32)
            _place(self.slots, self.hashes, self.kinds)
        self.kinds, self.filled = _add(
            data, ends, self.slots, self.hashes, self.starts, self.sizes, self.counts, self.arena,
            self.kinds, self.filled,
        )  # fmt: skip

    def _forget(self) -> None:
        """Of equally rare ones, those seen first go: they had the longest time to come again."""
        sizes, counts = self.sizes[: self.kinds], self.counts[: self.kinds]
        order = np.lexsort((np.arange(self.kinds), counts))[::-1][: max(self.most // 2, 1)]
        kept = np.sort(order[np.cumsum(sizes[order]) <= MOST_BYTES // 2])
        data = np.empty(int(sizes[kept].sum()), np.uint8)
        ends = np.zeros(len(data), np.uint8)
        _gather(kept, self.starts, self.sizes, self.arena, data, ends)
        counts = counts[kept]
        self.__init__(self.most)
        if len(kept):
            self._add(data, ends)
            self.counts[: self.kinds] = counts

    def counted(self) -> Counter[bytes]:
        """How often each occurred, in the order in which they first did."""
        text = self.arena[: self.filled].tobytes()
        starts, sizes = self.starts[: self.kinds].tolist(), self.sizes[: self.kinds].tolist()
        kinds = [text[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        return Counter(dict(zip(kinds, self.counts[: self.kinds].tolist(), strict=True)))


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    if len(array) >= size:
        return array
    grown = np.empty(max(size, 2 * len(array)), array.dtype)
    grown[: len(array)] = array
    return grown
