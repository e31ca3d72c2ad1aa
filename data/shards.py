"""Shards on disk: a corpus is a folder of ArrayRecord files and one manifest.

A shard is one stream of ids, documents end to end, each closed by the tokenizer's end-of-document
id. The stream is cut into records of ``BLOCK`` ids; then, if the corpus has marks, as many records
of one bit per id; the next record holds the documents' lengths (uint32 ids, the closing one
included), and, if documents have labels, a last one the number of each one's label (uint16), whose
names are in the manifest. The manifest is written last and renamed into place, so a half-written
corpus is never mistaken for a whole one. ``SPLIT.documents`` repeats the lengths and labels of all
shards, for what asks for them before it reads any (``index``).

Before anything of a shard is used, all of it is read once and its checksum compared with the
manifest (6 to 9 GB/s of a file in memory; else as fast as the storage reads). ``checked`` says for
how long that holds.
"""

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from octavo import files, process
from octavo.data import checked
from octavo.data.errors import DataError
from octavo.data.index import SEGMENT, Damaged, Ends, Index, kept, opened, write
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
from octavo.data.remote import fetch, url_of
from octavo.tokenizers.interface import Tokenizer, fingerprint_of

BLOCK = 1 << 18


_MANY = 1 << 22
"""Documents of which a start remembers what it made of all of them."""


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


def index_file(split: str) -> str:
    """Name of the index of a split's documents, beside its shards."""
    return f"{split}.documents"


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


READERS = 256
"""Shards of a corpus that a process holds open: each is a file."""


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
        self.shards = manifest.splits[split].shards
        parts = [self._part(shard) for shard in self.shards]
        self.url = url_of(self.folder)
        """Where shards come from when they are first read; None: they are here."""
        mine = [shard for shard, part in zip(self.shards, parts, strict=True) if part.documents]
        for shard in mine if self.label else self.shards:
            path = self.folder / shard.file
            if not (self.url and not path.exists()):
                _check_size(path, shard)
        self.tokens = sum(part.tokens for part in parts)
        self.documents = sum(part.documents for part in parts)
        self.utf8_bytes = sum(part.utf8_bytes for part in parts)
        self.fingerprint = fingerprint_of(
            manifest.tokenizer_fingerprint.encode(),
            *(shard.crc32c.encode() for shard in (mine if self.label else self.shards)),
            *([self.label.encode()] if self.label else []),
        )
        self._starts = np.cumsum([0] + [shard.tokens for shard in self.shards])
        self._firsts = np.cumsum([0] + [shard.documents for shard in self.shards])
        self._checked: dict[int, checked.Stamp | None] = {}
        self._remember()

    def _remember(self):
        self._own = lru_cache(maxsize=8)(self._make_own)
        self._reader = lru_cache(maxsize=READERS)(self._make_reader)

    def __getstate__(self):
        # Worker processes open their own files.
        return {k: v for k, v in self.__dict__.items() if k not in ("_own", "_reader")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._remember()

    def of_split(self, split: str) -> "Corpus":
        """Another split of the same."""
        return Corpus(f"{self.folder}[{self.label}]" if self.label else self.folder, split)

    def _part(self, shard: Shard) -> Shard | Label:
        """What counts of a shard."""
        if self.label is None:
            return shard
        none = Label(self.label, 0, 0, 0)
        return next((label for label in shard.labels if label.name == self.label), none)

    def by_label(self) -> dict[str | None, tuple[int, int]]:
        """(documents, UTF-8 bytes) of each label; None: of what has none."""
        if self.label:
            return {self.label: (self.documents, self.utf8_bytes)}
        return by_label(self.shards)

    def document_ends(self) -> np.ndarray:
        """``[documents]`` int64: where in the stream each document ends (exclusive)."""
        return self.ends.between(0, self.tokens)

    @cached_property
    def ends(self) -> Ends:
        """The same, read where it is needed."""
        return Ends(self._own_starts, self._ends_in)

    @cached_property
    def _index(self) -> Index:
        """Of the lengths of documents; made from the shards where there is none."""
        about = index_about(self.shards)

        def make(place: Path) -> None:
            write(place, *about, self._lengths_and_labels())

        return opened(self._places_of(index_file(self.split)), *about, make=make)

    def _places_of(self, file: str) -> list[Path]:
        """Where something that is derived from the shards may be kept: beside them, else in the
        user's cache."""
        places = [self.folder / file]
        with contextlib.suppress(RuntimeError):  # a user without a home
            digest = hashlib.sha256(os.fsencode(self.folder.absolute())).hexdigest()[:32]
            places.append(files.cache_folder() / "documents" / digest / file)
        return places

    def kept(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What is made of all documents under some name: of many documents, only once."""
        if self.documents < _MANY:
            return make()
        key = fingerprint_of(self.fingerprint.encode(), name.encode())
        return kept(self._places_of(f"{self.split}-{key}.rows"), make)

    def _lengths_and_labels(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of every shard, by what the shards hold."""
        self._check(range(len(self.shards)))
        labelled = any(shard.labels for shard in self.shards)
        for i in range(len(self.shards)):
            lengths = self._lengths(i)
            yield lengths, self._numbers(i) if labelled else np.zeros(0, np.uint16)

    def _segment(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self._index.segment(i)
        except Damaged:
            process.warn(f"{self._index.path} is damaged; it is made anew from the shards.")
            self._index.path.unlink(missing_ok=True)
            del self._index
            return self._index.segment(i)

    def _mine(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a segment of the index: all lengths, and which documents count."""
        lengths, labels = self._segment(i)
        if self.label is None:
            return lengths, np.ones(len(lengths), np.bool_)
        first = i * SEGMENT
        low, high = np.searchsorted(self._firsts, [first, first + len(lengths)], "right") - 1
        mine = np.zeros(len(lengths), np.bool_)
        for shard in range(int(low), min(int(high), len(self.shards) - 1) + 1):
            names = [label.name for label in self.shards[shard].labels]
            if self.label in names:
                here = slice(*(np.maximum(self._firsts[shard : shard + 2] - first, 0)))
                mine[here] = labels[here] == names.index(self.label)
        return lengths, mine

    @cached_property
    def _own_starts(self) -> np.ndarray:
        """``[segments + 1]``: ids that count before each segment of the index."""
        if self.label is None:
            return np.append(self._index.starts, self.tokens)
        sizes = (self._mine(i) for i in range(self._index.segments))
        return np.cumsum([0, *(int(lengths[mine].sum(dtype=np.int64)) for lengths, mine in sizes)])

    def _make_own(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the documents of a segment that count: where they end in the stream, and where they
        begin in that of all."""
        lengths, mine = self._mine(i)
        begins = np.cumsum(lengths, dtype=np.int64) - lengths + self._index.starts[i]
        ends = np.cumsum(lengths[mine], dtype=np.int64) + self._own_starts[i]
        return ends, begins[mine]

    def _ends_in(self, i: int) -> np.ndarray:
        return self._own(i)[0]

    def _places(self, i: int) -> np.ndarray:
        """Which documents of a shard count."""
        if self.label is None:
            return np.arange(self.shards[i].documents)
        return np.flatnonzero(np.array(self._labels(i)) == self.label)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Where the documents of the label between two places of its own stream lie, or what of
        them does, in that of all."""
        segment = int(np.searchsorted(self._own_starts, start, side="right")) - 1
        while start < stop:
            ends, begins = self._own(segment)
            own = np.append(self._own_starts[segment], ends)
            run = int(np.searchsorted(own, start, side="right")) - 1
            while start < stop and run < len(ends):
                end = min(stop, int(ends[run]))
                low = int(begins[run] + start - own[run])
                yield low, low + end - start
                run, start = run + 1, end
            segment += 1

    def _lengths(self, i: int) -> np.ndarray:
        """Of a shard's documents; uint32."""
        (record,) = self._records(i, [_behind(self.shards[i], self.marks)])
        return _lengths_in(record, self.folder, self.shards[i])

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
        return [shard.labels[number].name for number in self._numbers(i).tolist()]

    def _numbers(self, i: int) -> np.ndarray:
        """Which of the shard's labels each of its documents has; uint16, 0 where there are none."""
        shard = self.shards[i]
        if not shard.labels:
            return np.zeros(shard.documents, np.uint16)
        (record,) = self._records(i, [_behind(shard, self.marks) + 1])
        return _numbers_in(record, self.folder, shard)

    def read(self, start: int, stop: int, out: np.ndarray, marks: np.ndarray | None = None) -> None:
        """Copy the stream's ids from ``start`` to ``stop`` to ``out``, and their marks (uint8, 0 or
        1) to ``marks``. Raises DataError if a record is damaged."""
        if self.label is None:
            self._read(start, stop, out, marks)
            return
        # What lies near is read with it: documents may be short, and those of others between.
        base, ids = 0, np.zeros(0, self.dtype)
        bits = None if marks is None else np.zeros(0, np.uint8)
        at = 0
        for low, high in self._runs(start, stop):
            if not base <= low <= high <= base + len(ids):
                shard_ends = int(self._starts[np.searchsorted(self._starts, low, "right")])
                base, size = low, max(high, min(low + BLOCK, shard_ends)) - low
                ids = np.empty(size, self.dtype)
                bits = None if marks is None else np.empty(size, np.uint8)
                self._read(base, base + size, ids, bits)
            here = slice(at, at + high - low)
            out[here] = ids[low - base : high - base]
            if marks is not None and bits is not None:
                marks[here] = bits[low - base : high - base]
            at += high - low

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
        new, shards = [], list(shards)
        if self.url:
            fetch(self.url, self.folder, (self.shards[i] for i in shards))
        for i in shards:
            now = checked.stamp(self.folder / self.shards[i].file)
            if now is None or self._checked.get(i) != now:
                new.append(i)
        stamps = check(self.folder, [self.shards[i] for i in new])
        self._checked.update(zip(new, stamps, strict=True))

    def _make_reader(self, shard: int, stamp: checked.Stamp | None) -> ArrayRecordReader:
        """Of the file as it is now: ``stamp`` changes with it."""
        return ArrayRecordReader(str(self.folder / self.shards[shard].file))

    def _records(self, shard: int, indices: Iterable[int]) -> Iterator[bytes]:
        self._check([shard])
        path = self.folder / self.shards[shard].file
        try:
            reader = self._reader(shard, self._checked.get(shard))
            for index in indices:
                yield reader.read([index])[0]
        except Exception as error:  # the reader raises RuntimeError, IndexError and others
            raise DataError(f"{path} is damaged: {error}. {_REPAIR}") from error


_REPAIR = (
    "Restore the file, or run the same prepare.py command again: it makes anew what is missing or "
    "damaged."
)


def check(folder: Path, shards: Sequence[Shard]) -> list[checked.Stamp | None]:
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
    try:
        about = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        about = None
    if about is None or not stat.S_ISREG(about.st_mode):
        raise DataError(f"{path} is missing, but the manifest lists it. {_REPAIR}")
    if (size := about.st_size) != shard.size:
        raise DataError(
            f"{path} has {size:,} bytes, but the manifest says {shard.size:,}. {_REPAIR}"
        )


def _bits(record: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(record, np.uint8))


def _blocks(shard: Shard) -> int:
    return -(-shard.tokens // BLOCK)


def _behind(shard: Shard, marks: dict | None) -> int:
    """The number of the record behind the ids and marks of a shard: that of the lengths."""
    return _blocks(shard) * (2 if marks else 1)


def _lengths_in(record: bytes, folder: Path, shard: Shard) -> np.ndarray:
    """Of a shard's documents; uint32."""
    lengths = np.frombuffer(record, np.uint32)
    found = len(lengths), int(lengths.sum(dtype=np.int64))
    if found != (shard.documents, shard.tokens):
        raise DataError(
            f"{folder / MANIFEST} is damaged: it says that {shard.file} has "
            f"{shard.documents} documents of {shard.tokens} tokens, but it has {found[0]} of "
            f"{found[1]}. {REMAKE}"
        )
    return lengths


def _numbers_in(record: bytes, folder: Path, shard: Shard) -> np.ndarray:
    """Of the labels of a shard's documents; uint16."""
    numbers = np.frombuffer(record, np.uint16)
    counts = np.bincount(numbers, minlength=len(shard.labels)).tolist()
    if counts != [label.documents for label in shard.labels]:
        raise DataError(
            f"{folder / MANIFEST} is damaged: it says another thing of the labels of "
            f"{shard.file} than that holds. {REMAKE}"
        )
    return numbers


def has_index(folder: Path, split: str, shards: Iterable[Shard]) -> bool:
    """Whether a split has a whole index of these shards."""
    shards = tuple(shards)
    try:
        index = Index(folder / index_file(split), *index_about(shards))
        for i in range(index.segments):
            index.segment(i)
    except Damaged:
        return False
    return True


def index_about(shards: tuple[Shard, ...]) -> tuple[str, int, bool]:
    """What an index of the shards is of: their content, the names of labels, and how many documents
    there are; whether any has labels."""
    parts = (
        f"{s.crc32c} {s.documents} {s.tokens} {[label.name for label in s.labels]}" for s in shards
    )
    documents = sum(shard.documents for shard in shards)
    key = fingerprint_of(*(part.encode() for part in parts))
    return key, documents, any(shard.labels for shard in shards)


def write_index(folder: Path, split: str, shards: Iterable[Shard], marks: dict | None) -> None:
    """Write the index of shards that are known to be whole. Raises DataError, OSError."""
    shards = tuple(shards)
    about = index_about(shards)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for shard in shards:
            reader = ArrayRecordReader(str(folder / shard.file))
            behind, numbers = _behind(shard, marks), np.zeros(0, np.uint16)
            lengths = _lengths_in(reader.read([behind])[0], folder, shard)
            if shard.labels:
                numbers = _numbers_in(reader.read([behind + 1])[0], folder, shard)
            elif about[-1]:
                numbers = np.zeros(shard.documents, np.uint16)
            yield lengths, numbers

    write(folder / index_file(split), *about, parts())


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
