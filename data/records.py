"""Records of JSON and Parquet files, one at a time, and the text in them."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from octavo.data.errors import DataError
from octavo.data.formats import BOM, opened

MOST_BYTES = 128 << 20
"""Of one record; a longer one is refused."""
_SPACE = re.compile(r"[ \t\r\n]*")


class Skipped(bytes):
    """No document, but the reason why a file or record gave none, and the kind it is counted as."""

    reason: str
    kind: str

    def __new__(cls, reason: str, kind: str = "not text"):
        skipped = super().__new__(cls)
        skipped.reason, skipped.kind = reason, kind
        return skipped


def line_documents(path: str, start: int, stop: int | None, field: str) -> Iterator[bytes]:
    """Of JSON lines that begin in [start, stop) bytes; stop None: of all."""
    with opened(path) as file:
        for number, line in enumerate(_lines(path, file, start, stop), 1):
            if not start and number == 1:
                line = line.removeprefix(BOM)
            # A file of an old Mac has carriage returns alone.
            for part in line.splitlines():
                if part.strip():
                    where = f"{path}, line {number}" + (f" after byte {start:,}" if start else "")
                    yield _text(_json(part, where, field), field, where)


def _lines(path: str, file: BinaryIO, start: int, stop: int | None) -> Iterator[bytes]:
    if start:
        file.seek(start - 1)
        skip_line(file)
    at = file.tell() if stop is not None else 0
    while (stop is None or at < stop) and (line := file.readline(MOST_BYTES + 1)):
        if len(line) > MOST_BYTES:
            raise DataError(f"{path}: a line holds more than {MOST_BYTES >> 20} MiB; cut it first.")
        at += len(line)
        yield line


def skip_line(file: BinaryIO) -> None:
    """To the beginning of the next line, however long this one is."""
    while (part := file.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def _json(data: bytes, where: str, field: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique(field))
    except RecursionError:
        raise DataError(f"{where}: not JSON that can be read (nested too deeply).") from None
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}).") from error


def _unique(field: str) -> Callable[[list[tuple[str, Any]]], dict]:
    """Makes objects; refuses one with two texts."""

    def make(pairs: list[tuple[str, Any]]) -> dict:
        made = dict(pairs)
        if len(made) < len(pairs) and sum(name == field for name, _ in pairs) > 1:
            raise ValueError(f"the field {field!r} comes twice")
        return made

    return make


def _text(record: Any, field: str, where: str) -> bytes:
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        known = ", ".join(record) if isinstance(record, dict) else "none"
        raise DataError(
            f"{where}: no text in field {field!r}; name the field with --text-field "
            f"(fields here: {known:.200})."
        )
    try:
        return record[field].encode("utf-8")
    except UnicodeEncodeError:  # legal in JSON, but no text
        return Skipped(f"{where} holds half of a surrogate pair.", "half of a surrogate pair")


def array_documents(path: str, field: str) -> Iterator[bytes]:
    """Of a JSON array of objects, or of one object."""
    with opened(path) as file:
        for number, record in enumerate(_objects(path, file, field), 1):
            yield _text(record, field, f"{path}, record {number}")


def _objects(path: str, file: BinaryIO, field: str) -> Iterator[Any]:
    text = _Growing(path, io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    decoder = json.JSONDecoder(object_pairs_hook=_unique(field))
    if text.next() != "[":
        yield text.value(decoder)
        if text.next():
            raise DataError(f"{path}: not JSON (something follows its end).")
        return
    text.at += 1
    if text.next() == "]":
        return
    while True:
        yield text.value(decoder)
        mark = text.next()
        text.at += 1
        if mark == "]" and not text.next():
            return
        if mark != ",":
            raise DataError(f"{path}: not JSON (no array of objects, or not all of it).")


class _Growing:
    """A text of which a part is in memory."""

    def __init__(self, path: str, file: io.TextIOWrapper):
        self.path, self.file = path, file
        self.part, self.at = "", 0

    def _grow(self) -> bool:
        held = len(self.part) - self.at
        if held > MOST_BYTES:
            raise DataError(f"{self.path}: a record holds more than {MOST_BYTES >> 20} MiB.")
        try:
            more = self.file.read(min(max(1 << 20, held), MOST_BYTES + 1 - held))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not JSON ({error}).") from error
        self.part, self.at = self.part[self.at :] + more, 0
        return bool(more)

    def next(self) -> str:
        """The next character that is no white space, or ""."""
        while True:
            space = _SPACE.match(self.part, self.at)
            assert space is not None, "it matches no characters, too"
            self.at = space.end()
            if self.at < len(self.part):
                return self.part[self.at]
            if not self._grow():
                return ""

    def value(self, decoder: json.JSONDecoder) -> Any:
        """The value that comes next."""
        self.next()
        while True:
            try:
                found, self.at = decoder.raw_decode(self.part, self.at)
                return found
            except RecursionError:
                why = "nested too deeply"
            except json.JSONDecodeError as error:
                if self._grow():
                    continue
                why = str(error)
            except ValueError as error:
                why = str(error)
            raise DataError(f"{self.path}: not JSON that can be read ({why:.200}).")


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[Any]:
    """The file, opened by pyarrow. Raises DataError for what that raises."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # the storage's own
            raise
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path} is no readable Parquet file: {first:.200}.") from error


def parquet_groups(path: str, field: str, most_bytes: int) -> list[tuple[int, int]]:
    """Row groups [first, last), as many together as hold so many bytes. Raises DataError if
    the file has no column ``field`` of text."""
    with _parquet(path) as file:
        schema, about = file.schema_arrow, file.metadata
        if schema.names.count(field) != 1 or not _is_text(schema.field(field).type):
            raise DataError(
                f"{path}: no column {field!r} of text; name one with --text-field (columns here: "
                f"{', '.join(schema.names):.200})."
            )
        groups: list[tuple[int, int]] = []
        size = 0
        for i in range(about.num_row_groups):
            # Of all columns: asking for one ends the process where the file is damaged.
            more = about.row_group(i).total_byte_size
            if groups and size + more <= most_bytes:
                groups[-1], size = (groups[-1][0], i + 1), size + more
            else:
                groups.append((i, i + 1))
                size = more
        return groups


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests)


def parquet_documents(path: str, first: int, last: int, field: str) -> Iterator[bytes]:
    """Of the rows of row groups [first, last)."""
    import pyarrow

    number = 0
    with _parquet(path) as file:
        parts = file.iter_batches(
            batch_size=256, row_groups=list(range(first, last)), columns=[field]
        )
        for part in parts:
            column = part.column(0)
            if pyarrow.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            for text in column.cast(pyarrow.large_binary()).to_pylist():
                number += 1
                yield _row(text, f"{path}, row {number} of row group {first}")


def _row(text: bytes | None, where: str) -> bytes:
    if text is None:
        return Skipped(f"{where} holds no text.", "a row without text")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return Skipped(f"{where} is not UTF-8 text.", "a row that is not UTF-8")
    return text
