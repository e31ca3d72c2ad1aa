"""Shards on disk: a corpus is a folder of ArrayRecord files and one manifest.

A shard is one stream of ids, documents end to end, each closed by the tokenizer's end-of-document
id. The stream is cut into records of ``BLOCK`` ids; then, if the corpus has marks, as many records
of one bit per id; one last record holds the documents' lengths (uint32 ids, the closing one
included). The manifest is written last and renamed into place, so a
half-written corpus is never mistaken for a whole one.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from octavo.data.errors import DataError
from octavo.tokenizers import load as tokenizer_loader
from octavo.tokenizers.interface import Tokenizer, fingerprint_of

BLOCK = 1 << 18
FORMAT = 2
MANIFEST = "manifest.json"
SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Shard:
    """One file of a split, as the manifest lists it."""

    file: str
    size: int
    """Bytes on disk."""
    crc32c: str
    documents: int
    tokens: int
    """Ids, the end of each document included."""
    utf8_bytes: int
    """Bytes of the original text; what bits per byte divide by."""


def write_shard(
    folder: Path,
    file: str,
    documents: list[np.ndarray],
    eos_id: int,
    utf8_bytes: int,
    marks: list[np.ndarray] | None = None,
) -> Shard:
    """Write one shard atomically. documents: ids without the end-of-document id; marks: 0 or 1 for
    each of those."""
    eos = np.array([eos_id], documents[0].dtype)
    stream = np.concatenate([part for ids in documents for part in (ids, eos)])
    lengths = np.array([len(ids) + 1 for ids in documents], np.uint32)
    partial = folder / f"{file}.partial"
    writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
    for start in range(0, len(stream), BLOCK):
        writer.write(stream[start : start + BLOCK].tobytes())
    if marks is not None:
        marked = np.concatenate([part for bits in marks for part in (bits, [0])]).astype(np.uint8)
        for start in range(0, len(stream), BLOCK):
            writer.write(np.packbits(marked[start : start + BLOCK]).tobytes())
    writer.write(lengths.tobytes())
    writer.close()
    os.replace(partial, folder / file)
    return Shard(
        file=file,
        size=(folder / file).stat().st_size,
        crc32c=checksum(folder / file),
        documents=len(documents),
        tokens=len(stream),
        utf8_bytes=utf8_bytes,
    )


def checksum(path: Path) -> str:
    """CRC-32C of a whole file, 8 hex digits."""
    crc = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            crc.update(chunk)
    return crc.hexdigest().decode()


def write_manifest(
    folder: Path,
    tokenizer: Tokenizer,
    splits: dict[str, list[Shard]],
    source: dict,
    marks: dict | None,
) -> None:
    """Close a corpus: from here on it can be opened. marks: what the marks are, if it has any."""
    manifest = {
        "format": FORMAT,
        "tokenizer": tokenizer.to_json(),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "dtype": tokenizer.dtype.name,
        "marks": marks,
        "source": source,
        "splits": {
            name: {
                "documents": sum(shard.documents for shard in shards),
                "tokens": sum(shard.tokens for shard in shards),
                "utf8_bytes": sum(shard.utf8_bytes for shard in shards),
                "shards": [dataclasses.asdict(shard) for shard in shards],
            }
            for name, shards in splits.items()
        },
    }
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, folder / MANIFEST)


class Corpus:
    """One split of a prepared folder, as one long stream of ids.

    Raises DataError if the folder is not a finished corpus, or a shard is missing or has another
    size than the manifest says. Flipped bits are found when a record is read (each carries a hash).
    """

    def __init__(self, folder: str | Path, split: str = "train"):
        self.folder, self.split = Path(folder), split
        manifest = read_manifest(self.folder)
        self.tokenizer = tokenizer_loader.from_json(manifest["tokenizer"])
        self.dtype = np.dtype(manifest["dtype"])
        self.marks: dict | None = manifest["marks"]
        """What its marks are: ``kind`` "entropy" or "subwords", and how they were made."""
        if split not in manifest["splits"]:
            raise DataError(
                f"{self.folder} has no split {split!r}; it has {', '.join(manifest['splits'])}."
            )
        self.shards = [Shard(**shard) for shard in manifest["splits"][split]["shards"]]
        for shard in self.shards:
            path = self.folder / shard.file
            if not path.is_file():
                raise DataError(f"{path} is missing, but the manifest lists it. {_REPAIR}")
            if (size := path.stat().st_size) != shard.size:
                raise DataError(
                    f"{path} has {size:,} bytes, but the manifest says {shard.size:,}. {_REPAIR}"
                )
        self.tokens = sum(shard.tokens for shard in self.shards)
        self.documents = sum(shard.documents for shard in self.shards)
        self.utf8_bytes = sum(shard.utf8_bytes for shard in self.shards)
        self.fingerprint = fingerprint_of(
            manifest["tokenizer_fingerprint"].encode(),
            *(shard.crc32c.encode() for shard in self.shards),
        )
        self._starts = np.cumsum([0] + [shard.tokens for shard in self.shards])
        self._readers: dict[int, ArrayRecordReader] = {}

    def __getstate__(self):
        # Worker processes open their own files.
        return self.__dict__ | {"_readers": {}}

    def document_ends(self) -> np.ndarray:
        """``[documents]`` int64: where in the stream each document ends (exclusive)."""
        lengths = [
            np.frombuffer(
                self._records(i, [_blocks(shard) * (2 if self.marks else 1)])[0], np.uint32
            )
            for i, shard in enumerate(self.shards)
        ]
        return np.cumsum(np.concatenate([np.zeros(0, np.uint32), *lengths]), dtype=np.int64)

    def read(self, start: int, stop: int, out: np.ndarray, marks: np.ndarray | None = None) -> None:
        """Copy the stream's ids from ``start`` to ``stop`` to ``out``, and their marks (uint8, 0 or
        1) to ``marks``. Raises DataError if a record is damaged."""
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
                records = self._records(i, [block + behind for block in blocks])
                for block, record in zip(blocks, records, strict=True):
                    values, at = decoded(record), base + block * BLOCK
                    a, b = max(low, at), min(high, at + len(values))
                    target[a - start : b - start] = values[a - at : b - at]

    def documents_in(self, first: int, last: int | None = None) -> Iterator[bytes]:
        """The original text of documents ``first`` to ``last`` (exclusive), in order."""
        edges = np.append(0, self.document_ends())[first:]
        edges = edges if last is None else edges[: last - first + 1]
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            ids = np.empty(end - 1 - start, self.dtype)
            self.read(start, end - 1, ids)
            yield self.tokenizer.decode(ids)

    def _records(self, shard: int, indices: list[int]) -> list[bytes]:
        path = self.folder / self.shards[shard].file
        if shard not in self._readers:
            self._readers[shard] = ArrayRecordReader(str(path))
        try:
            return self._readers[shard].read(indices)
        except Exception as error:  # the reader raises RuntimeError, IndexError and others
            raise DataError(f"{path} is damaged: {error}. {_REPAIR}") from error


_REPAIR = "Restore the file, or prepare the corpus again: delete the file and rerun prepare.py."


def heldout_documents(corpora: list[Corpus], most_bytes: int) -> list[bytes]:
    """Whole held-out documents of each corpus in turn, in order, until ``most_bytes``; 0: all."""
    found: list[bytes] = []
    for corpus in corpora:
        size = 0
        for document in Corpus(corpus.folder, "heldout").documents_in(0):
            found.append(document)
            size += len(document)
            if most_bytes and size >= most_bytes:
                break
    return found


def _bits(record: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(record, np.uint8))


def _blocks(shard: Shard) -> int:
    return -(-shard.tokens // BLOCK)


def read_manifest(folder: Path) -> dict:
    """The manifest of a finished corpus. Raises DataError if there is none."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        started = any(Path(folder).glob("*.array_record*")) if Path(folder).is_dir() else False
        why = (
            "was not finished: run the same prepare.py command again, it continues"
            if started
            else "is not a prepared corpus: make one with python prepare.py SOURCE --out DIR"
        )
        raise DataError(f"{folder} {why}.")
    try:
        manifest = json.loads(path.read_text())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error!r}. Prepare the corpus again.") from error
    if version != FORMAT:
        raise DataError(
            f"{folder} has format {version}, this version reads {FORMAT}; prepare it again."
        )
    return manifest


def verify(folder: Path) -> int:
    """Read every shard and compare its checksum; returns how many files were checked. Raises
    DataError at the first that differs."""
    checked = 0
    for split in read_manifest(folder)["splits"]:
        for shard in Corpus(folder, split).shards:
            path = Path(folder) / shard.file
            if (found := checksum(path)) != shard.crc32c:
                raise DataError(
                    f"{path} has checksum {found}, but the manifest says {shard.crc32c}. {_REPAIR}"
                )
            checked += 1
    return checked
