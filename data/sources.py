"""Where text comes from: files, folders, JSONL, TFDS, and the Python that runs this.

A source is a list of ``Unit``s, decided from names and sizes alone; each unit yields its documents
(bytes) independently of the others, so units are prepared in parallel and in any order.
"""

import ast
import gzip
import json
import os
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octavo.data.errors import DataError
from octavo.data.shards import MANIFEST, SPLITS, Corpus

UNIT_BYTES = 64 << 20
"""Text per unit, and so per shard, roughly."""
DOCUMENT_BYTES = 64 << 10
"""A text file longer than this is cut into documents of at most this size, at blank lines where
it has them, else at line ends, else between characters."""


@dataclass(frozen=True)
class Unit:
    """A part of a source. kind: "text", "jsonl", "tfds", "corpus" or "stdlib"."""

    kind: str
    paths: tuple[str, ...]
    start: int = 0
    """First byte (one file), example (tfds) or document of a split (corpus)."""
    stop: int | None = None
    optional: bool = False
    """Found in a folder, not named: skipped, with a warning, if it holds no text."""
    text_field: str = "text"


def find_units(sources: list[str], text_field: str, tfds_dir: str | None) -> list[Unit]:
    """Units of the named sources. Raises DataError for a source that does not exist."""
    units: list[Unit] = []
    for source in sources:
        if source == "stdlib":
            units.append(Unit("stdlib", ()))
        elif source.startswith("tfds:"):
            units += _tfds_units(source.removeprefix("tfds:"), text_field, tfds_dir)
        elif (Path(source) / MANIFEST).is_file():
            units += _corpus_units(source)
        elif Path(source).is_dir():
            files = sorted(p for p in Path(source).rglob("*") if p.is_file() and not _hidden(p))
            if not files:
                raise DataError(f"the folder {source} holds no files.")
            units += _file_units(files, text_field, optional=True)
        elif Path(source).is_file():
            units += _file_units([Path(source)], text_field, optional=False)
        else:
            raise DataError(
                f"{source} does not exist. A source is a text file, a folder, a .jsonl file, a "
                "prepared corpus, tfds:NAME, or stdlib."
            )
    return units


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in path.parts)


def _file_units(files: list[Path], text_field: str, optional: bool) -> Iterator[Unit]:
    small: list[str] = []
    gathered = 0
    for path in files:
        kind = "jsonl" if path.name.endswith((".jsonl", ".jsonl.gz")) else "text"
        size = path.stat().st_size
        if kind == "text" and size <= UNIT_BYTES:
            # Small files share a unit.
            if gathered + size > UNIT_BYTES and small:
                yield Unit("text", tuple(small), optional=optional)
                small, gathered = [], 0
            small.append(str(path))
            gathered += size
        elif path.name.endswith(".gz"):
            yield Unit(kind, (str(path),), optional=optional, text_field=text_field)
        else:
            for start in range(0, max(size, 1), UNIT_BYTES):
                stop = min(start + UNIT_BYTES, size)
                yield Unit(kind, (str(path),), start, stop, optional, text_field)
    if small:
        yield Unit("text", tuple(small), optional=optional)


def _tfds_builder(name: str, tfds_dir: str | None):
    import tensorflow_datasets as tfds

    name = name.partition(":")[0]
    try:
        if Path(name).is_dir():
            return tfds.builder_from_directory(name)
        return tfds.builder(name, data_dir=tfds_dir, file_format="array_record")
    except Exception as error:  # TFDS raises its own and whatever the dataset's code raises
        raise DataError(f"TFDS cannot open {name!r}: {error}") from error


def _tfds_units(name: str, text_field: str, tfds_dir: str | None) -> Iterator[Unit]:
    builder = _tfds_builder(name, tfds_dir)
    split = name.partition(":")[2] or "train"
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(f"TFDS cannot prepare {name!r}: {error}") from error
    if split not in builder.info.splits:
        known = ", ".join(builder.info.splits)
        raise DataError(f"{name}: no split {split!r}; it has {known}.")
    if text_field not in builder.info.features:
        known = ", ".join(builder.info.features)
        raise DataError(f"{name}: no feature {text_field!r}; name one with --text-field: {known}.")
    info = builder.info.splits[split]
    per_unit = max(1, -(-info.num_examples * UNIT_BYTES // max(info.num_bytes, 1)))
    where = (str(builder.data_path), split)
    for start in range(0, info.num_examples, per_unit):
        stop = min(start + per_unit, info.num_examples)
        yield Unit("tfds", where, start, stop, text_field=text_field)


def _corpus_units(folder: str) -> Iterator[Unit]:
    for split in SPLITS:
        first = 0
        for shard in Corpus(folder, split).shards:
            yield Unit("corpus", (folder, split), first, first + shard.documents)
            first += shard.documents


def documents(unit: Unit) -> Iterator[bytes]:
    """The unit's documents, in order. Raises DataError for text that is none."""
    match unit.kind:
        case "text":
            for path in unit.paths:
                try:
                    yield from _text_documents(path, unit.start, unit.stop)
                except DataError as error:
                    if not unit.optional:
                        raise
                    yield Skipped(str(error))
        case "jsonl":
            yield from _jsonl_documents(unit)
        case "tfds":
            yield from _tfds_documents(unit)
        case "corpus":
            folder, split = unit.paths
            yield from Corpus(folder, split).documents_in(unit.start, unit.stop)
        case "stdlib":
            yield from stdlib_documents()


class Skipped(bytes):
    """No document, but the reason why a file gave none."""

    def __new__(cls, reason: str):
        skipped = super().__new__(cls)
        skipped.reason = reason
        return skipped


def _read_range(path: str, start: int, stop: int | None) -> bytes:
    """Whole lines that begin in [start, stop)."""
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        if stop is None:
            try:
                return file.read()
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(f"{path} is no readable gzip file: {error}.") from error
        if start:
            file.seek(start - 1)
            file.readline()
        begin = file.tell()
        data = file.read(max(0, stop - begin))
        return data + file.readline() if data and not data.endswith(b"\n") else data


def _text_documents(path: str, start: int, stop: int | None) -> Iterator[bytes]:
    data = _read_range(path, start, stop)
    if not data and not start:
        raise DataError(f"{path} is empty.")
    if (nul := data.find(b"\0")) >= 0:
        raise DataError(f"{path} is not text: byte {start + nul:,} is NUL.")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {start + error.start:,} is "
            f"0x{data[error.start]:02x}. Convert it first, for instance with iconv."
        ) from error
    at = 0
    while at < len(data):
        end = _cut(data, at)
        yield data[at:end]
        at = end


def _cut(data: bytes, start: int) -> int:
    limit = start + DOCUMENT_BYTES
    if limit >= len(data):
        return len(data)
    for mark in (b"\n\n", b"\n"):
        found = data.rfind(mark, start, limit)
        if found > start:
            return found + len(mark)
    while data[limit] & 0xC0 == 0x80:
        limit -= 1
    return limit


def _jsonl_documents(unit: Unit) -> Iterator[bytes]:
    path = unit.paths[0]
    data = _read_range(path, unit.start, unit.stop)
    if not data and not unit.start:
        raise DataError(f"{path} is empty.")
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}" + (f" after byte {unit.start:,}" if unit.start else "")
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}).") from error
        if not isinstance(record, dict) or not isinstance(record.get(unit.text_field), str):
            known = ", ".join(record) if isinstance(record, dict) else "none"
            raise DataError(
                f"{where}: no text in field {unit.text_field!r}; name the field with "
                f"--text-field (fields here: {known})."
            )
        # A lone surrogate is legal JSON but no text; keep what it can be kept as.
        yield record[unit.text_field].encode("utf-8", errors="replace")


def _tfds_documents(unit: Unit) -> Iterator[bytes]:
    path, split = unit.paths
    source = _tfds_builder(path, None).as_data_source(split)
    for i in range(unit.start, unit.stop):
        text = source[i][unit.text_field]
        if not isinstance(text, bytes):
            raise DataError(f"{path}: feature {unit.text_field!r} is not text.")
        yield text


def stdlib_documents() -> Iterator[bytes]:
    """The embedded corpus: English prose of the Python that runs this, about 2.3 MB.

    The language reference as ``help()`` shows it, and the docstrings of the standard library. It
    differs between Python versions; the corpus fingerprint says which one was read. PSF licence.
    """
    from pydoc_data import topics

    for topic in sorted(topics.topics):
        yield topics.topics[topic].encode()
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in skip)
        for name in sorted(files):
            if name.endswith(".py"):
                text = _docstrings(Path(folder, name))
                if len(text) >= 200:
                    yield text.encode()


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text)
