"""Where documents end: one memory-mapped file of their lengths beside the shards of a split.

So a start opens no shard, and processes share what they read of it. ``prepare.py`` writes it; of a
corpus without one it is made, from the shards, when it is first needed.

A header says of which shards it is. Documents lie in segments of ``SEGMENT``; a table has the place
of each segment's first document in the stream, and its checksum, which is compared whenever the
segment is read. Then come the lengths (uint32 ids, the end of the document included) and, if
documents have labels, the number of each one's label in its shard (uint16).
"""

import contextlib
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from octavo import files

SEGMENT = 1 << 15
_MAGIC = b"octavo documents 1"
_HEADER = np.dtype([
    ("magic", "S32"), ("key", "S16"), ("documents", "<i8"), ("labelled", "<i8"), ("crc", "<u4"),
])  # fmt: skip
_TABLE = np.dtype([("start", "<i8"), ("crc", "<u4")])


class Damaged(Exception):
    """An index that is not there, not of these shards, or not whole."""


class Index:
    """A file that ``write`` made, opened. Raises Damaged unless it is one of these shards."""

    def __init__(self, path: Path, key: str, documents: int, labelled: bool):
        self.path, self.about = path, (key, documents, labelled)
        self._open()

    def _open(self) -> None:
        key, self.documents, self.labelled = self.about
        self.segments = -(-self.documents // SEGMENT)
        try:
            data = np.memmap(self.path, np.uint8, "r")
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise Damaged from error
        sizes = _sizes(self.documents, self.labelled)
        if len(data) != sum(sizes):
            raise Damaged
        ends = np.cumsum(sizes).tolist()
        self._table = data[ends[0] : ends[1]].view(_TABLE)
        expected = _header(key, self.documents, self.labelled, self._table)
        if data[: ends[0]].tobytes() != expected:
            raise Damaged
        self._lengths = data[ends[1] : ends[2]].view("<u4")
        self._labels = data[ends[2] :].view("<u2")
        self.segment = lru_cache(maxsize=8)(self._segment)

    def __getstate__(self):
        # Worker processes map the file themselves.
        return {"path": self.path, "about": self.about}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    @property
    def starts(self) -> np.ndarray:
        """``[segments]`` int64: where in the stream the first document of each begins."""
        return self._table["start"]

    def _segment(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of a segment's documents, and the numbers of their labels (none without labels).
        Raises Damaged."""
        here = slice(i * SEGMENT, (i + 1) * SEGMENT)
        lengths, labels = self._lengths[here], self._labels[here]
        if _checksum(lengths, labels) != self._table["crc"][i]:
            raise Damaged
        return lengths, labels


def _sizes(documents: int, labelled: bool) -> tuple[int, int, int, int]:
    """Bytes of the header, the table, the lengths and the labels."""
    table = -(-documents // SEGMENT) * _TABLE.itemsize
    return _HEADER.itemsize, table, 4 * documents, 2 * documents * labelled


def _header(key: str, documents: int, labelled: bool, table: np.ndarray) -> bytes:
    header = np.array((_MAGIC, key.encode(), documents, labelled, 0), _HEADER)
    header["crc"] = google_crc32c.extend(google_crc32c.value(header.tobytes()), table.tobytes())
    return header.tobytes()


def _checksum(lengths: np.ndarray, labels: np.ndarray) -> int:
    crc = google_crc32c.value(lengths.tobytes())
    return google_crc32c.extend(crc, labels.tobytes())


def _allocate(file: BinaryIO, size: int) -> None:
    """Take room on the disk, so that a full one is an error, and no signal. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    some = bytes(1 << 20)
    for begin in range(0, size, len(some)):
        file.write(some[: size - begin])


def write(
    path: Path, key: str, documents: int, labelled: bool,
    parts: Iterator[tuple[np.ndarray, np.ndarray]],
) -> None:  # fmt: skip
    """Write an index whole. parts: lengths and numbers of labels of each shard, in order (no labels
    where no shard has any). Raises OSError."""
    sizes = _sizes(documents, labelled)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            _allocate(file, sum(sizes))
        data = np.memmap(partial, np.uint8, "r+")
        begins = np.cumsum(sizes).tolist()
        table = data[begins[0] : begins[1]].view(_TABLE)
        lengths = data[begins[1] : begins[2]].view("<u4")
        labels = data[begins[2] :].view("<u2")
        at = 0
        for part, numbers in parts:
            lengths[at : at + len(part)] = part
            labels[at : at + len(part)] = numbers
            at += len(part)
        start = 0
        for i in range(len(table)):
            here = slice(i * SEGMENT, (i + 1) * SEGMENT)
            table[i] = start, _checksum(lengths[here], labels[here])
            start += int(lengths[here].sum(dtype=np.int64))
        header = _header(key, documents, labelled, table)
        data[: begins[0]] = np.frombuffer(header, np.uint8)
        data.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def opened(places: list[Path], *about, make: Callable[[Path], None]) -> Index:
    """The index at one of some places; or one that is made: at the first that can be written, else
    among temporary files until this process ends."""
    for place in places:
        with contextlib.suppress(Damaged):
            return Index(place, *about)
    for place in places:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            make(place)
            return Index(place, *about)
    place = Path(_temporary().name) / f"{uuid.uuid4().hex}.documents"
    make(place)
    return Index(place, *about)


def kept(places: list[Path], make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is kept at one of some places, with its checksum; made where none is whole, and
    put at the first that can be written."""
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            data = place.read_bytes()
            if int.from_bytes(data[:4], "little") == google_crc32c.value(data[4:]):
                return np.load(io.BytesIO(data[4:]))
    made, data = make(), io.BytesIO()
    np.save(data, made)
    crc = google_crc32c.value(data.getvalue()).to_bytes(4, "little")
    for place in places:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write(place, crc + data.getvalue())
            break
    return made


@lru_cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="octavo-")


class Ends:
    """Where documents end in a stream of ids, a part of neighbouring documents at a time.

    starts: ``[parts + 1]``, ids before each part. part: the ends of a part's documents, int64.
    """

    def __init__(self, starts: np.ndarray, part: Callable[[int], np.ndarray]):
        self.starts, self.part = starts, part
        self.total = int(starts[-1])

    @classmethod
    def of(cls, ends: np.ndarray) -> "Ends":
        """Of documents that are known at once."""
        return cls(np.array([0, ends[-1]]), _Known(ends))

    def between(self, low: int, high: int) -> np.ndarray:
        """Ends above ``low``, up to ``high``."""
        first = max(int(np.searchsorted(self.starts, low, "right")) - 1, 0)
        last = int(np.searchsorted(self.starts, high, "left"))
        parts = [self.part(i) for i in range(first, min(last, len(self.starts) - 1))]
        found = np.concatenate([np.zeros(0, np.int64), *parts])
        return found[slice(*np.searchsorted(found, [low, high], "right"))]

    def after(self, place: int) -> int:
        """The first end above a place before the last one."""
        for i in range(int(np.searchsorted(self.starts, place, "right")) - 1, len(self.starts) - 1):
            ends = self.part(i)
            if len(ends) and ends[-1] > place:
                return int(ends[np.searchsorted(ends, place, "right")])
        raise IndexError(f"no document ends after {place}")


class _Known:
    def __init__(self, ends: np.ndarray):
        self.ends = np.asarray(ends, np.int64)

    def __call__(self, i: int) -> np.ndarray:
        return self.ends
