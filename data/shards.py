"""Shards on disk: a corpus is a folder of ArrayRecord files and one manifest.

A shard is one stream of ids, documents end to end, each closed by the tokenizer's end-of-document
id. The stream is cut into records of ``BLOCK`` ids; then, if the corpus has marks, as many records
of one bit per id; the next record holds the documents' lengths (uint32 ids, the closing one
included), and, if documents have labels, a last one the number of each one's label (uint16), whose
names are in the manifest. The manifest is written last and renamed into place, so a half-written
corpus is never mistaken for a whole one.

Before anything of a shard is used, all of it is read once and its checksum compared with the
manifest (6 to 9 GB/s of a file in memory; else as fast as the storage reads). ``checked`` says for
how long that holds.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from octavo.data import checked
from octavo.data.errors import DataError
from octavo.data.manifest import (
    MANIFEST,
    MOST_LABELS,
    REMAKE,
    Label,
    Shard,
    by_label,
    read_manifest,
    tokenizer_of,
)
from octavo.data.records import Document
from octavo.tokenizers.interface import Tokenizer, fingerprint_of

BLOCK = 1 << 18


class ShardWriter:
    """Writes one shard, document by document, beside its place; ``close`` puts it there. Memory
    holds a block of ids, the marks as bits and the lengths.

    Raises OSError, and leaves nothing behind, if the file cannot be written.
    """

    def __init__(self, folder: Path, file: str, tokenizer: Tokenizer, marked: bool):
        self.path, self.marked = folder / file, marked
        self.partial = folder / f"{file}.{os.getpid()}.partial"
        self._eos = np.array([tokenizer.eos_id], tokenizer.dtype)
        self._ids: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []
        self._waiting = self.tokens = self.utf8_bytes = self._records = 0
        self._marks: list[bytes] = []
        self._lengths: list[int] = []
        self._labels: dict[str, list[int]] = {}
        """By name: its number, documents, ids and bytes."""
        self._label_of: list[int] = []
        self._writer = None

    def add(
        self,
        ids: np.ndarray,
        utf8_bytes: int,
        marks: np.ndarray | None = None,
        label: str | None = None,
    ) -> None:
        """A document: ids without the end-of-document id; the bytes of its text; if the shard is
        marked, 0 or 1 for each id; its label, which all of a shard have or none. Raises DataError
        for more than ``MOST_LABELS`` labels."""
        if label is not None:
            about = self._labels.setdefault(label, [len(self._labels), 0, 0, 0])
            if len(self._labels) > MOST_LABELS:
                raise too_many_labels()
            about[1] += 1
            about[2] += len(ids) + 1
            about[3] += utf8_bytes
            self._label_of.append(about[0])
        self._ids += [ids, self._eos]
        if self.marked:
            self._bits += [np.asarray(marks, np.uint8), np.zeros(1, np.uint8)]
        self._lengths.append(len(ids) + 1)
        self.tokens += len(ids) + 1
        self.utf8_bytes += utf8_bytes
        self._waiting += len(ids) + 1
        if self._waiting >= BLOCK:
            self._write_blocks(self._waiting // BLOCK * BLOCK)

    def _write_blocks(self, size: int) -> None:
        ids = np.concatenate(self._ids)
        bits = np.concatenate(self._bits) if self.marked else None
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            self._write(ids[start:stop].tobytes())
            if bits is not None:
                self._marks.append(np.packbits(bits[start:stop]).tobytes())
        self._ids = [ids[size:].copy()]
        self._bits = [] if bits is None else [bits[size:].copy()]
        self._waiting -= size

    def _write(self, record: bytes) -> None:
        try:
            if self._writer is None:
                self._writer = ArrayRecordWriter(str(self.partial), "group_size:1,uncompressed")
            self._writer.write(record)
        except Exception as error:  # the writer raises RuntimeError and others
            self._fail(error)
        self._records += 1

    def close(self) -> Shard:
        """Finish the file, and say what it is."""
        if self._waiting:
            self._write_blocks(self._waiting)
        last = [np.array(self._lengths, np.uint32).tobytes()]
        if self._labels:
            last.append(np.array(self._label_of, np.uint16).tobytes())
        for record in (*self._marks, *last):
            self._write(record)
        assert self._writer is not None, "the lengths are written"
        try:
            self._writer.close()
            self._writer = None
            with open(self.partial, "rb+") as file:
                os.fsync(file.fileno())
            if (found := ArrayRecordReader(str(self.partial)).num_records()) != self._records:
                raise OSError(errno.EIO, f"holds {found} of {self._records} records")
            size, crc = self.partial.stat().st_size, checked.checksum(self.partial)
            os.replace(self.partial, self.path)
        except Exception as error:
            self._fail(error)
        documents = len(self._lengths)
        labels = tuple(Label(name, *about[1:]) for name, about in self._labels.items())
        return Shard(self.path.name, size, crc, documents, self.tokens, self.utf8_bytes, labels)

    def discard(self) -> None:
        """Leave nothing behind but a finished file."""
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception:  # what made it fail was said already
            pass
        self.partial.unlink(missing_ok=True)

    def _fail(self, error: Exception) -> None:
        self.discard()
        full = "No space left on device" in str(error)
        number = errno.ENOSPC if full else getattr(error, "errno", None) or errno.EIO
        what = os.strerror(number) if full else (str(error).splitlines() or ["cannot write"])[0]
        raise OSError(number, what, str(self.path)) from error


def too_many_labels() -> DataError:
    return DataError(
        f"documents have more than {MOST_LABELS:,} labels: name a field with --label-field that "
        "says their language or source, not what each alone has."
    )


_OF_LABEL = re.compile(r"(.+)\[([^\[\]]+)\]")


def folder_and_label(name: str) -> tuple[str, str | None]:
    """``FOLDER[LABEL]`` in two; a folder of just that name has no label."""
    named = _OF_LABEL.fullmatch(name)
    if named is None or Path(name).is_dir():
        return name, None
    return named[1], named[2]


class Corpus:
    """One split of a prepared folder, as one long stream of ids. ``FOLDER[LABEL]`` is that of the
    documents of one label, as if there were no others.

    Raises DataError if the folder is not a finished corpus, or a shard is missing or has another
    size than the manifest says; and, when one is first read, if its content is another.
    """

    def __init__(self, folder: str | Path, split: str = "train"):
        name, self.label = folder_and_label(str(folder))
        self.folder, self.split = Path(name), split
        manifest = read_manifest(self.folder)
        self.tokenizer = tokenizer_of(self.folder, manifest)
        self.dtype = np.dtype(manifest.dtype)
        self.marks: dict | None = manifest.marks
        """What its marks are: ``kind`` "entropy" or "subwords", and how they were made."""
        if split not in manifest.splits:
            has = ", ".join(manifest.splits) or "none"
            raise DataError(
                f"{self.folder} has no split {split!r}; it has {has}. Prepare the text again, with "
                "--heldout 0.01 if it is held-out text that is missing."
            )
        counted = {name: by_label(part.shards) for name, part in manifest.splits.items()}
        self.split_documents = {
            name: sum(n for label, (n, _) in counts.items() if self.label in (None, label))
            for name, counts in counted.items()
        }
        """Of every split there is."""
        if self.label and not any(self.split_documents.values()):
            known = ", ".join(
                sorted({str(label) for counts in counted.values() for label in counts})
            )
            raise DataError(f"{self.folder} has no label {self.label!r}; it has {known:.300}.")
        self.shards = [
            shard
            for shard in manifest.splits[split].shards
            if self.label is None or any(label.name == self.label for label in shard.labels)
        ]
        for shard in self.shards:
            _check_size(self.folder / shard.file, shard)
        parts = [self._part(shard) for shard in self.shards]
        self.tokens = sum(part.tokens for part in parts)
        self.documents = sum(part.documents for part in parts)
        self.utf8_bytes = sum(part.utf8_bytes for part in parts)
        self.fingerprint = fingerprint_of(
            manifest.tokenizer_fingerprint.encode(),
            *(shard.crc32c.encode() for shard in self.shards),
            *([self.label.encode()] if self.label else []),
        )
        self._starts = np.cumsum([0] + [shard.tokens for shard in self.shards])
        self._readers: dict[int, ArrayRecordReader] = {}
        self._checked: dict[int, checked.Stamp | None] = {}

    def __getstate__(self):
        # Worker processes open their own files.
        return self.__dict__ | {"_readers": {}}

    def of_split(self, split: str) -> "Corpus":
        """Another split of the same."""
        return Corpus(f"{self.folder}[{self.label}]" if self.label else self.folder, split)

    def _part(self, shard: Shard) -> Shard | Label:
        """What counts of a shard."""
        return next((label for label in shard.labels if label.name == self.label), shard)

    def by_label(self) -> dict[str | None, tuple[int, int]]:
        """(documents, UTF-8 bytes) of each label; None: of what has none."""
        if self.label:
            return {self.label: (self.documents, self.utf8_bytes)}
        return by_label(self.shards)

    def document_ends(self) -> np.ndarray:
        """``[documents]`` int64: where in the stream each document ends (exclusive)."""
        self._check(range(len(self.shards)))
        lengths = [self._lengths(i)[self._places(i)] for i in range(len(self.shards))]
        return np.cumsum(np.concatenate([np.zeros(0, np.uint32), *lengths]), dtype=np.int64)

    def _places(self, i: int) -> np.ndarray:
        """Which documents of a shard count."""
        if self.label is None:
            return np.arange(self.shards[i].documents)
        return np.flatnonzero(np.array(self._labels(i)) == self.label)

    @cached_property
    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Where documents of the label begin in its own stream, and in that of all."""
        ends = [self._starts[i] + np.cumsum(self._lengths(i), dtype=np.int64)
                for i in range(len(self.shards))]  # fmt: skip
        mine = np.concatenate([ends[i][self._places(i)] for i in range(len(self.shards))])
        own = np.append(0, self.document_ends())
        return own[:-1], mine - np.diff(own)

    def _lengths(self, i: int) -> np.ndarray:
        """Of a shard's documents; uint32."""
        shard = self.shards[i]
        (record,) = self._records(i, [_blocks(shard) * (2 if self.marks else 1)])
        lengths = np.frombuffer(record, np.uint32)
        found = len(lengths), int(lengths.sum(dtype=np.int64))
        if found != (shard.documents, shard.tokens):
            raise DataError(
                f"{self.folder / MANIFEST} is damaged: it says that {shard.file} has "
                f"{shard.documents} documents of {shard.tokens} tokens, but it has {found[0]} of "
                f"{found[1]}. {REMAKE}"
            )
        return lengths

    def document_of(self, label: str, number: int) -> int:
        """Which document is a label's ``number``-th. Reads no shard but the one it is in."""
        if self.label:
            return number
        first = 0
        for i, shard in enumerate(self.shards):
            here = sum(part.documents for part in shard.labels if part.name == label)
            if number < here:
                return first + int(np.flatnonzero(np.array(self._labels(i)) == label)[number])
            number, first = number - here, first + shard.documents
        raise IndexError(f"{label} has fewer documents")

    def _labels(self, i: int) -> list[str | None]:
        """Of a shard's documents."""
        shard = self.shards[i]
        if not shard.labels:
            return [None] * shard.documents
        (record,) = self._records(i, [_blocks(shard) * (2 if self.marks else 1) + 1])
        numbers = np.frombuffer(record, np.uint16)
        counts = np.bincount(numbers, minlength=len(shard.labels)).tolist()
        if counts != [label.documents for label in shard.labels]:
            raise DataError(
                f"{self.folder / MANIFEST} is damaged: it says another thing of the labels of "
                f"{shard.file} than that holds. {REMAKE}"
            )
        return [shard.labels[number].name for number in numbers.tolist()]

    def read(self, start: int, stop: int, out: np.ndarray, marks: np.ndarray | None = None) -> None:
        """Copy the stream's ids from ``start`` to ``stop`` to ``out``, and their marks (uint8, 0 or
        1) to ``marks``. Raises DataError if a record is damaged."""
        if self.label is None:
            self._read(start, stop, out, marks)
            return
        own, stored = self._runs
        run = int(np.searchsorted(own, start, side="right")) - 1
        # What lies near is read with it: documents may be short, and those of others between.
        base, ids = 0, np.zeros(0, self.dtype)
        bits = None if marks is None else np.zeros(0, np.uint8)
        at = start
        while at < stop:
            end = min(stop, int(own[run + 1]) if run + 1 < len(own) else stop)
            low = int(stored[run] + at - own[run])
            high = low + end - at
            if not base <= low <= high <= base + len(ids):
                base, size = low, min(max(high, low + BLOCK), int(self._starts[-1])) - low
                ids = np.empty(size, self.dtype)
                bits = None if marks is None else np.empty(size, np.uint8)
                self._read(base, base + size, ids, bits)
            out[at - start : end - start] = ids[low - base : high - base]
            if marks is not None and bits is not None:
                marks[at - start : end - start] = bits[low - base : high - base]
            run, at = run + 1, end

    def _read(self, start: int, stop: int, out: np.ndarray, marks: np.ndarray | None) -> None:
        """The same, of the stream of all documents."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for i in range(first, len(self.shards)):
            base = int(self._starts[i])
            low, high = max(start, base), min(stop, int(self._starts[i + 1]))
            if low >= high:
                break
            blocks = range((low - base) // BLOCK, (high - 1 - base) // BLOCK + 1)
            parts = [(out, 0, lambda record: np.frombuffer(record, self.dtype))]
            if marks is not None:
                parts.append((marks, _blocks(self.shards[i]), _bits))
            for target, behind, decoded in parts:
                # One after another, each copied while it lies in the processor's cache.
                records = self._records(i, (block + behind for block in blocks))
                for block, record in zip(blocks, records, strict=True):
                    values, at = decoded(record), base + block * BLOCK
                    a, b = max(low, at), min(high, at + len(values))
                    target[a - start : b - start] = values[a - at : b - at]

    def documents_in(self, first: int, last: int | None = None) -> Iterator[Document]:
        """The original text of documents ``first`` to ``last`` (exclusive), in order, with their
        labels."""
        last = self.documents if last is None else min(last, self.documents)
        opened = 0
        for i, shard in enumerate(self.shards):
            here = self._part(shard).documents
            low, high = max(first - opened, 0), min(last - opened, here)
            opened += here
            if low >= high:
                continue
            edges = self._starts[i] + np.append(0, np.cumsum(self._lengths(i), dtype=np.int64))
            labels = self._labels(i)
            for j in self._places(i)[low:high].tolist():
                start, end = int(edges[j]), int(edges[j + 1])
                ids = np.empty(end - 1 - start, self.dtype)
                self._read(start, end - 1, ids, None)
                yield Document(self.tokenizer.decode(ids), labels[j])

    def _check(self, shards: Iterable[int]) -> None:
        """Compare the content of shards that changed, or were not read yet."""
        new = []
        for i in shards:
            now = checked.stamp(self.folder / self.shards[i].file)
            if now is None or self._checked.get(i) != now:
                new.append(i)
                self._readers.pop(i, None)
        stamps = check(self.folder, [self.shards[i] for i in new])
        self._checked.update(zip(new, stamps, strict=True))

    def _records(self, shard: int, indices: Iterable[int]) -> Iterator[bytes]:
        self._check([shard])
        path = self.folder / self.shards[shard].file
        try:
            if shard not in self._readers:
                self._readers[shard] = ArrayRecordReader(str(path))
            reader = self._readers[shard]
            for index in indices:
                yield reader.read([index])[0]
        except Exception as error:  # the reader raises RuntimeError, IndexError and others
            raise DataError(f"{path} is damaged: {error}. {_REPAIR}") from error


_REPAIR = (
    "Restore the file, or run the same prepare.py command again: it makes anew what is missing or "
    "damaged."
)


def check(folder: Path, shards: list[Shard]) -> list[checked.Stamp | None]:
    """Compare shards with the manifest: there, as large, and of the same content. Raises DataError
    at the first that differs."""
    paths = [folder / shard.file for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        _check_size(path, shard)
    found = checked.checksums(paths)
    for path, shard, (crc, _) in zip(paths, shards, found, strict=True):
        if crc != shard.crc32c:
            raise DataError(
                f"{path} is damaged, or another file: it has checksum {crc}, but the manifest says "
                f"{shard.crc32c}. {_REPAIR}"
            )
    return [stamp for _, stamp in found]


def _check_size(path: Path, shard: Shard) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing, but the manifest lists it. {_REPAIR}")
    if (size := path.stat().st_size) != shard.size:
        raise DataError(
            f"{path} has {size:,} bytes, but the manifest says {shard.size:,}. {_REPAIR}"
        )


def _bits(record: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(record, np.uint8))


def _blocks(shard: Shard) -> int:
    return -(-shard.tokens // BLOCK)


def verify(folder: Path) -> int:
    """Read every shard and compare its checksum, whatever is remembered; returns how many files
    were checked. Raises DataError at the first that differs."""
    number = 0
    for split in read_manifest(folder).splits:
        for shard in Corpus(folder, split).shards:
            path = Path(folder) / shard.file
            if (found := checked.checksum(path)) != shard.crc32c:
                raise DataError(
                    f"{path} has checksum {found}, but the manifest says {shard.crc32c}. {_REPAIR}"
                )
            number += 1
    return number
