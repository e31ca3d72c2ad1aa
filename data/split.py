"""Which text is held out: a share of the bytes of every stratum, decided by content.

A document is held out if the checksum of its text is among the lowest ``share`` of all checksums,
so that copies never lie on both sides. That serves large strata, and is all that earlier revisions
did. A stratum is

- a label, where labels were told by a field;
- a file, where there are few files (``MOST_FILES``), or its share is at least 4 KiB;
- all files of one label that are smaller, together;
- the documents of all strata of less than ``PIECE`` bytes, together.

Where a stratum has few documents, chance may give none, or far too much. So what lies in small
strata is looked at first (``look_through``: every unit by itself, in parallel), and of a stratum of
which chance keeps less than half its share, or more than twice, documents are chosen in the order
of their checksums until they are its share. Of a long one, only the end is held out. What was
chosen is a table from checksums to bytes, the same for the whole corpus: so copies still go one
way.
"""

import heapq
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import google_crc32c

from octavo.data.manifest import MOST_LABELS
from octavo.data.records import Skipped
from octavo.data.shards import too_many_labels
from octavo.data.sources import UNIT_BYTES, Unit, documents

MOST_FILES = 64
"""So many files each give held-out text, however small they are (of ``PIECE`` bytes at least)."""
PIECE = 512
"""Bytes that a stratum gives at least, where it has four times as many."""
_END = 2048
"""Of a long document at least so many bytes are held out, if the stratum's share is as many."""
_SHORTEST = 32
"""Of what has many copies, at least so many bytes of each, or half."""
_FILE = 4096
"""Of more files, those whose share is at least so many bytes are strata of their own."""
TOLD = "told "
"""How the names of strata of labels begin that documents tell."""
_SKETCH = 64
"""Documents with the lowest checksums that are remembered of a stratum. One in which chance holds
out as many is large enough to be left to chance."""
_LARGE = 1 << 20
"""A stratum that is known to have so many bytes of held-out text is not looked at first."""


@dataclass
class Sketch:
    """What a stratum holds, and the documents that would be held out of it first."""

    documents: int = 0
    size: int = 0
    """Bytes."""
    lowest: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By checksum: the document's bytes, and how many copies of it there are."""
    limit: int = 2**32
    """No checksum above it can be among the lowest any more."""

    def add(self, document: bytes) -> None:
        self.documents += 1
        self.size += len(document)
        key = google_crc32c.value(document)
        if key <= self.limit:
            size, copies = self.lowest.get(key, (len(document), 0))
            self.lowest[key] = size, copies + 1
            if len(self.lowest) >= 2 * _SKETCH:
                self.thin()

    def thin(self) -> None:
        kept = heapq.nsmallest(_SKETCH, self.lowest)
        self.lowest = {key: self.lowest[key] for key in kept}
        if len(kept) == _SKETCH:
            self.limit = kept[-1]

    def merge(self, other: "Sketch") -> None:
        self.documents += other.documents
        self.size += other.size
        for key, (size, copies) in other.lowest.items():
            self.lowest[key] = size, copies + self.lowest.get(key, (0, 0))[1]
        self.thin()


Sketches = dict[str, Sketch]
"""By stratum."""


@dataclass(frozen=True)
class Rule:
    """Decides. share: of bytes. chosen: of documents, by checksum, that chance does not decide:
    how many bytes of it are held out, 0 or more."""

    share: float
    chosen: dict[int, int] = field(default_factory=dict)

    def split(self, unit: Unit, document: bytes) -> tuple[bytes, bytes]:
        """The part of a document that is trained on and the part that is held out; one is mostly
        empty. Documents of a prepared corpus stay where they are, so that tokenizers are compared
        on the same split."""
        if unit.kind == "corpus":
            heldout = unit.paths[1] == "heldout"
            return (b"", document) if heldout else (document, b"")
        return cut_end(document, self.size(google_crc32c.value(document), len(document)))

    def size(self, key: int, size: int) -> int:
        """How many bytes of a document of this checksum and size are held out."""
        return self.chosen.get(key, size if key < self.share * 2**32 else 0)


def cut_end(document: bytes, size: int) -> tuple[bytes, bytes]:
    """A beginning, and an end of about so many bytes: cut after a blank line where there is one
    near, else after a line, a space, or between characters."""
    if size >= len(document):
        return b"", document
    if not size:
        return document, b""
    at = len(document) - size
    for mark in (b"\n\n", b"\n", b" "):
        before = document.rfind(mark, max(at - size // 2, 0), at)
        found = before if before >= 0 else document.find(mark, at, at + size // 2)
        if found >= 0:
            return document[: found + len(mark)], document[found + len(mark) :]
    while at and document[at] & 0xC0 == 0x80:
        at -= 1
    return document[:at], document[at:]


def strata_of(units: list[Unit], share: float) -> list[tuple[str, ...]]:
    """The stratum of each path of each unit; () for units whose documents tell their labels, or
    that are not looked at."""
    sizes = {path: os.stat(path).st_size for unit in units if unit.of_files for path in unit.paths}
    few = len(sizes) <= MOST_FILES

    def stratum(path: str, label: str | None) -> str:
        least = PIECE if few else _FILE / max(share, 1e-9)
        return f"file {path}" if sizes[path] >= least else f"files {label}"

    found: list[tuple[str, ...]] = []
    for unit in units:
        if unit.label_field or unit.kind in ("corpus", "stdlib"):
            found.append(())
        elif unit.of_files:
            pairs = zip(unit.paths, unit.labels, strict=True)
            found.append(tuple(stratum(path, label) for path, label in pairs))
        else:
            found.append(tuple(f"files {label}" for label in unit.labels))
    return found


def small(units: list[Unit], strata: list[tuple[str, ...]], share: float) -> list[bool]:
    """Which units have to be looked at first: those of strata that may be small."""
    sizes: dict[str, int] = {}
    for unit, names in zip(units, strata, strict=True):
        for path, name in zip(unit.paths, names, strict=False):
            sizes[name] = sizes.get(name, 0) + _bytes(unit, path)
    return [
        bool(share)
        and unit.kind not in ("corpus", "stdlib")
        and (bool(unit.label_field) or any(sizes[name] * share < _LARGE for name in names))
        for unit, names in zip(units, strata, strict=True)
    ]


def _bytes(unit: Unit, path: str) -> int:
    """Of a unit on disk, roughly."""
    if not unit.of_files:  # the last unit of a source may be small
        return UNIT_BYTES if unit.start else 0
    whole = os.stat(path).st_size
    if unit.kind in ("text", "jsonl") and unit.stop is not None:
        return min(unit.stop, whole) - unit.start
    # Of Parquet, a unit is some row groups: the first stands for the file.
    return 0 if unit.start else whole


def look_through(unit: Unit, strata: tuple[str, ...]) -> Sketches:
    """The strata of a unit."""
    found: Sketches = {}
    for document in documents(unit):
        if document and not isinstance(document, Skipped):
            name = strata[document.of] if strata else f"{TOLD}{document.label}"
            found.setdefault(name, Sketch()).add(document)
            if len(found) > len(strata) + MOST_LABELS:
                raise too_many_labels()
    for sketch in found.values():
        sketch.thin()
    return found


def merged(parts: Iterable[Sketches]) -> Sketches:
    """The strata of all units together."""
    found: Sketches = {}
    for part in parts:
        for name, sketch in part.items():
            found.setdefault(name, Sketch()).merge(sketch)
    return found


def rule_of(strata: Sketches, share: float) -> Rule:
    """What is held out so that every stratum gives its share."""
    chance, chosen = Rule(share), {}
    rest, divided = Sketch(), []
    for name, sketch in strata.items():
        several = name.startswith(TOLD) and len(sketch.lowest) > 1
        if several or sketch.size >= PIECE:
            divided.append(sketch)
        else:
            rest.merge(sketch)
    copies: Counter = Counter()
    for sketch in strata.values():
        copies.update({key: number for key, (_, number) in sketch.lowest.items()})
    for sketch in (*divided, rest):
        for key, size in _sizes(sketch, share, copies).items():
            chosen[key] = max(chosen.get(key, 0), size)
    by_chance = {
        key: chance.size(key, size)
        for sketch in strata.values()
        for key, (size, _) in sketch.lowest.items()
    }
    return Rule(share, {key: size for key, size in chosen.items() if size != by_chance[key]})


def _sizes(sketch: Sketch, share: float, copies: Mapping[int, int]) -> dict[int, int]:
    """How many bytes are held out of each of the documents that are remembered of a stratum.
    copies: how many there are of each in all strata."""
    lowest = sorted(sketch.lowest.items())[:_SKETCH]
    sizes = {key: Rule(share).size(key, size) for key, (size, _) in lowest}
    held = sum(sizes[key] * here for key, (_, here) in lowest)
    target = max(share * sketch.size, min(PIECE, sketch.size // 4))
    most = (1 + share) / 2 * sketch.size
    large = len(lowest) == _SKETCH and all(sizes.values())
    if large or (target / 2 <= held <= 2 * target and 0 < held <= most):
        return sizes
    sizes = none = dict.fromkeys(sizes, 0)
    if len(lowest) > 1 or sketch.size >= PIECE:  # else there is nothing to divide
        part = max(target / 4, min(target, _END))
        # What has many copies last: even a little of each is much.
        lowest.sort(key=lambda item: copies[item[0]] * min(item[1][0], part) > 2 * target)
        while True:
            sizes = none | _parts(lowest, target, part, most, copies)
            taken = sum(sizes[key] * here for key, (_, here) in lowest)
            if taken >= target or part >= max(size for _, (size, _) in lowest):
                break
            part *= 2
    return sizes


def _parts(
    lowest: list, target: float, part: float, most: float, copies: Mapping[int, int]
) -> dict[int, int]:
    """Of documents in order, all or a part of about so many bytes (of one with many copies, of all
    together), until they are the target."""
    sizes: dict[int, int] = {}
    taken = 0
    for key, (size, here) in lowest:
        if taken >= target:
            break
        few = copies[key] == 1 or copies[key] * size <= 2 * target
        whole = few and size <= 2 * part and taken + size * here <= most
        each = part if few else max(part / copies[key], _SHORTEST)
        sizes[key] = size if whole else min(math.ceil(each), size // 2)
        taken += sizes[key] * here
    return sizes


def expected(strata: Sketches, rule: Rule) -> int:
    """Bytes that are held out of what is remembered of the strata; 0: of none is anything."""
    return sum(
        rule.size(key, size)
        for sketch in strata.values()
        for key, (size, _) in sketch.lowest.items()
    )
