"""Where text comes from: files, folders, records, TFDS, and the Python that runs this.

A source is a list of ``Unit``s, decided from what its files are and how large; each unit yields its
documents (bytes) independently of the others, so units are prepared in parallel and in any order,
and in memory that does not grow with them.
"""

import ast
import codecs
import errno
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from octavo.data.errors import DataError
from octavo.data.folders import Survey, files_in, is_corpus, sorted_out
from octavo.data.formats import Look, look, not_utf8, opened, special
from octavo.data.labels import labels_of
from octavo.data.manifest import SPLITS
from octavo.data.records import (
    Document,
    Fields,
    Skipped,
    array_documents,
    arrow_documents,
    check_arrow,
    line_documents,
    parquet_documents,
    parquet_groups,
    skip_line,
)
from octavo.data.shards import Corpus

UNIT_BYTES = 64 << 20
"""Text per unit, and so per shard, roughly."""
DOCUMENT_BYTES = 64 << 10
"""A text file longer than this is cut into documents of at most this size, at blank lines where
it has them, else at line ends, else between characters."""
_CHUNK = 1 << 20


_RECORDS = ("jsonl", "json", "parquet", "arrow")


@dataclass(frozen=True)
class Unit:
    """A part of a source. kind: "text", "jsonl", "json", "parquet", "arrow", "tfds", "corpus" or
    "stdlib"."""

    kind: str
    paths: tuple[str, ...]
    start: int = 0
    """First byte (one file), row group (parquet), example (tfds) or document of a split
    (corpus)."""
    stop: int | None = None
    optional: bool = False
    """Found in a folder, not named: skipped, with a warning, if it holds no text."""
    text_field: str = "text"
    # A corpus knows its units by the representation of what is above.
    labels: tuple[str, ...] = field(default=(), repr=False)
    """Of the documents of each path. Empty: they have none, or tell their own."""
    label_field: str | None = field(default=None, repr=False)
    """Where records tell their labels."""
    skip_bad: bool = field(default=False, repr=False)
    """Leave out records that give no text, rather than stop."""

    @property
    def of_files(self) -> bool:
        return self.kind == "text" or self.kind in _RECORDS

    @property
    def fields(self) -> Fields:
        return Fields(self.text_field, self.label_field, self.skip_bad)


def find_units(
    sources: list[str],
    text_field: str,
    tfds_dir: str | None,
    survey: Survey | None = None,
    *,
    label: str | None = None,
    label_field: str | None = None,
    skip_bad: bool = False,
) -> list[Unit]:
    """Units of the named sources; ``survey`` learns what was read and what was left out.

    label: "file" or "folder", what the label of a file's documents is; None: its name, or what
    many files have in common. label_field: where records tell it instead. skip_bad: leave out
    records that give no text. Raises DataError for a source that does not exist or holds no text,
    OSError for one that cannot be read.
    """
    survey = survey or Survey()
    units: list[Unit] = []
    for source in sources:
        if source == "stdlib":
            units.append(Unit("stdlib", ()))
        elif source.startswith("tfds:"):
            units += _tfds_units(source.removeprefix("tfds:"), text_field, tfds_dir)
        elif _exists(source) and Path(source).is_dir():
            if is_corpus(Path(source)):
                units += _corpus_units(source)
            else:
                units += _folder_units(Path(source), text_field, survey, skip_bad)
        else:
            seen = look(source, text_field)
            if not seen.kind:
                raise DataError(f"{source} {seen.why}.")
            files_here = [(Path(source), seen)]
            units += _file_units(files_here, text_field, False, survey, skip_bad)
    files = {path: None for unit in units if unit.of_files for path in unit.paths}
    names = labels_of(list(files), label)
    return [_labelled(unit, names, label_field, skip_bad) for unit in units]


def _labelled(unit: Unit, names: dict[str, str], label_field: str | None, skip_bad: bool) -> Unit:
    if label_field and unit.kind in (*_RECORDS, "tfds"):
        return replace(unit, label_field=label_field, skip_bad=skip_bad)
    if unit.kind == "tfds":
        return replace(unit, labels=(Path(unit.paths[0]).parent.name,), skip_bad=skip_bad)
    if unit.of_files:
        labels = tuple(names[path] for path in unit.paths)
        return replace(unit, labels=labels, skip_bad=skip_bad)
    return unit


_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def _exists(source: str) -> bool:
    """Raises DataError for what is neither a file nor a folder."""
    try:
        what = special(source)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _NOWHERE:
            raise
        if os.path.lexists(source.replace("\0", "")):
            raise DataError(f"{source} is a link to nothing.") from error
        raise DataError(
            f"{source:.300} does not exist. A source is a text file, a folder, a .jsonl file, a "
            "Parquet file, a prepared corpus, tfds:NAME, or stdlib."
        ) from error
    if what:
        raise DataError(f"{source} is {what}, not a file: write its text to a file first.")
    return True


def _folder_units(folder: Path, text_field: str, survey: Survey, skip_bad: bool) -> Iterator[Unit]:
    before = len(survey.left_out)
    files = files_in(folder, survey)
    kept = sorted_out(files, text_field, survey)
    if not kept:
        left = [sentence for sentence, _ in survey.left_out[before:]]
        more = f" Left out: {' '.join(left[:3])}" if left else ""
        more += f" And {len(left) - 3:,} more." if len(left) > 3 else ""
        what = "text" if files else "files"
        raise DataError(f"the folder {folder} holds no {what}.{more}")
    yield from _file_units(kept, text_field, True, survey, skip_bad)


_SHOWN = {
    "text": "text", "jsonl": "JSON lines", "json": "JSON", "parquet": "Parquet", "arrow": "Arrow",
}  # fmt: skip


def _file_units(
    files: list[tuple[Path, Look]],
    text_field: str,
    optional: bool,
    survey: Survey,
    skip_bad: bool,
) -> Iterator[Unit]:
    small: list[str] = []
    gathered = 0
    for path, seen in files:
        groups: list[tuple[int, int]] = []
        try:
            if seen.kind == "parquet":
                groups = parquet_groups(str(path), text_field, UNIT_BYTES)
            elif seen.kind == "arrow":
                check_arrow(str(path), text_field)
        except DataError as error:
            if not skip_bad:
                raise
            survey.left_out.append((str(error), "a file without records"))
            continue
        survey.read[_SHOWN[seen.kind]] += 1
        if not seen.by_name:
            survey.notes.append(f"{path} holds {_SHOWN[seen.kind]}: read as records, not as text.")
        size = path.stat().st_size
        if seen.kind == "text" and size <= UNIT_BYTES:
            # Small files share a unit.
            if gathered + size > UNIT_BYTES and small:
                yield Unit("text", tuple(small), optional=optional)
                small, gathered = [], 0
            small.append(str(path))
            gathered += size
        elif seen.kind == "parquet":
            for start, stop in groups:
                yield Unit("parquet", (str(path),), start, stop, optional, text_field)
        elif seen.packed or seen.kind in ("json", "arrow"):
            yield Unit(seen.kind, (str(path),), optional=optional, text_field=text_field)
        else:
            for start in range(0, size, UNIT_BYTES):
                stop = min(start + UNIT_BYTES, size)
                yield Unit(seen.kind, (str(path),), start, stop, optional, text_field)
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
    features: Any = builder.info.features  # a mapping, for all that TFDS says of its type
    if text_field.partition(".")[0] not in features:
        known = ", ".join(features)
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


def documents(unit: Unit) -> Iterator[Document | Skipped]:
    """The unit's documents, in order, with their labels, and a ``Skipped`` in the place of what is
    none. Raises DataError for text that is none."""
    match unit.kind:
        case "text":
            for of, path in enumerate(unit.paths):
                label = unit.labels[of] if unit.labels else None
                try:
                    for text in _text_documents(path, unit.start, unit.stop):
                        yield Document(text, label, of)
                except DataError as error:
                    if not unit.optional:
                        raise
                    yield Skipped(str(error))
        case "tfds":
            yield from _with_label(unit, _tfds_documents(unit))
        case "corpus":
            folder, split = unit.paths
            yield from Corpus(folder, split).documents_in(unit.start, unit.stop)
        case "stdlib":
            for text in stdlib_documents():
                yield Document(text)
        case _:
            yield from _with_label(unit, _records(unit))


def _with_label(unit: Unit, found: Iterator[Document | Skipped]) -> Iterator[Document | Skipped]:
    """What is found, with the label of the unit where it tells none."""
    for document in found:
        if isinstance(document, Document) and unit.labels:
            document.label = unit.labels[0]
        yield document


def _records(unit: Unit) -> Iterator[Document | Skipped]:
    path, fields = unit.paths[0], unit.fields
    try:
        match unit.kind:
            case "jsonl":
                yield from line_documents(path, unit.start, unit.stop, fields)
            case "json":
                yield from array_documents(path, fields)
            case "parquet":
                yield from parquet_documents(path, unit.start, unit.stop or 0, fields)
            case "arrow":
                yield from arrow_documents(path, fields)
    except DataError as error:
        if not unit.skip_bad:
            raise
        yield Skipped(f"{error} What follows in it is left out.", "a damaged file")


def _text_documents(path: str, start: int, stop: int | None) -> Iterator[bytes]:
    # Twice, so that a file which turns out to be no text gives no documents.
    _check_text(path, start, stop)
    with opened(path) as file:
        data, more = b"", True
        chunks = _chunks(file, start, stop)
        at = 0
        while True:
            while more and len(data) - at <= DOCUMENT_BYTES:
                chunk = next(chunks, b"")
                data, at, more = data[at:] + chunk, 0, bool(chunk)
            if at == len(data):
                return
            end = _cut(data, at)
            yield data[at:end]
            at = end


def _check_text(path: str, start: int, stop: int | None) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = start
    with opened(path) as file:
        for data in _chunks(file, start, stop):
            if start and at == start:
                at = file.tell() - len(data)
            if (nul := data.find(b"\0")) >= 0:
                raise DataError(f"{path} is not text: byte {at + nul:,} is NUL.")
            _decode(decoder, path, data, at)
            at += len(data)
    if at == start == 0:
        raise DataError(f"{path} is empty.")
    _decode(decoder, path, b"", at, final=True)


def _decode(decoder, path: str, data: bytes, at: int, final: bool = False) -> None:
    held = len(decoder.getstate()[0])
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError as error:
        where = at - held + error.start
        raise DataError(f"{path} {not_utf8(where, error.object[error.start])}.") from error


def _chunks(file: BinaryIO, start: int, stop: int | None) -> Iterator[bytes]:
    """Whole lines that begin in [start, stop), in parts."""
    if start:
        file.seek(start - 1)
        skip_line(file)
    left = max(0, stop - file.tell()) if stop is not None else None
    last = b"\n"
    while (left is None or left > 0) and (
        data := file.read(_CHUNK if left is None else min(_CHUNK, left))
    ):
        left = left if left is None else left - len(data)
        last = data[-1:]
        yield data
    while left is not None and last != b"\n" and (data := file.readline(_CHUNK)):
        last = data[-1:]
        yield data


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


def _tfds_documents(unit: Unit) -> Iterator[Document | Skipped]:
    path, split = unit.paths
    assert unit.stop is not None, "units of TFDS have an end"
    source = _tfds_builder(path, None).as_data_source(split)  # pyright: ignore[reportCallIssue]
    for i in range(unit.start, unit.stop):
        yield unit.fields.document(source[i], f"{path}, example {i} of {split}")


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
