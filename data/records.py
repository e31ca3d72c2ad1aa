"""Records of JSON and Parquet files, one at a time, and the text in them."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, BinaryIO

from octavo.data.errors import DataError
from octavo.data.formats import BOM, dig, opened
from octavo.data.labels import clean

MOST_BYTES = 128 << 20
"""Of one record; a longer one is refused."""
_SPACE = re.compile(r"[ \t\r\n]*")


class Document(bytes):
    """The text of a document. label: the language or source it is of, if known; of: which of its
    unit's paths it is from."""

    label: str | None
    of: int

    def __new__(cls, text: bytes, label: str | None = None, of: int = 0):
        document = super().__new__(cls, text)
        document.label, document.of = label, of
        return document


class Skipped(bytes):
    """No document, but the reason why a file or record gave none, and the kind it is counted as."""

    reason: str
    kind: str

    def __new__(cls, reason: str, kind: str = "not text"):
        skipped = super().__new__(cls)
        skipped.reason, skipped.kind = reason, kind
        return skipped


class BadRecord(DataError):
    """A record that gives no document. kind: it is counted as."""

    def __init__(self, sentence: str, kind: str):
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class Fields:
    """Where records have their text, and their label if they tell it; ``meta.lang`` is the field
    lang of the object meta. skip_bad: leave out records that give no text."""

    text: str = "text"
    label: str | None = None
    skip_bad: bool = False

    def document(self, record: Any, where: str) -> Document | Skipped:
        """Of a record. Raises DataError if it gives none, unless those are left out."""
        return self.unless_bad(lambda: self._document(record, where))

    def unless_bad(self, make: Callable[[], Document | Skipped]) -> Document | Skipped:
        try:
            return make()
        except BadRecord as error:
            if self.skip_bad:
                return Skipped(str(error), error.kind)
            raise DataError(
                f"{error} --skip-bad leaves out such records and counts them."
            ) from error

    def _document(self, record: Any, where: str) -> Document | Skipped:
        text = dig(record, self.text)
        if not isinstance(text, str | bytes):
            raise BadRecord(
                f"{where}: no text in field {self.text!r}; name the field with --text-field "
                f"(fields here: {known_fields(record)}).",
                "a record without text",
            )
        try:
            data = text.encode("utf-8") if isinstance(text, str) else text
        except UnicodeEncodeError:  # legal in JSON, but no text
            return Skipped(f"{where} holds half of a surrogate pair.", "half of a surrogate pair")
        return Document(data, self.label_of(dig(record, self.label), where) if self.label else None)

    def label_of(self, value: Any, where: str) -> str:
        """As text. Raises BadRecord if it is none."""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str | Integral) and str(value).strip():
            return clean(str(value))
        raise BadRecord(
            f"{where}: no label in field {self.label!r} of --label-field.", "a record without label"
        )

    @property
    def names(self) -> set[str]:
        """Names that may come only once in an object."""
        fields = [self.text, self.label or self.text]
        return {*fields, *(part for field in fields for part in field.split("."))}


def known_fields(record: Any) -> str:
    """Names of a record's fields, for a message."""
    if not isinstance(record, dict):
        return "none"
    names = [
        f"{name}.{inner}" if inner else name
        for name, value in record.items()
        for inner in (value if isinstance(value, dict) and value else [""])
    ]
    return f"{', '.join(names):.200}"


def line_documents(
    path: str, start: int, stop: int | None, fields: Fields
) -> Iterator[Document | Skipped]:
    """Of JSON lines that begin in [start, stop) bytes; stop None: of all."""
    names = fields.names

    def read(part: bytes, where: str) -> Document | Skipped:
        return fields.unless_bad(lambda: fields.document(_json(part, where, names), where))

    with opened(path) as file:
        for number, line in enumerate(_lines(path, file, start, stop), 1):
            if not start and number == 1:
                line = line.removeprefix(BOM)
            # A file of an old Mac has carriage returns alone.
            for part in line.splitlines():
                if part.strip():
                    where = f"{path}, line {number}" + (f" after byte {start:,}" if start else "")
                    yield read(part, where)


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


def _json(data: bytes, where: str, names: set[str]) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique(names))
    except RecursionError:
        sentence = f"{where}: not JSON that can be read (nested too deeply)."
        raise BadRecord(sentence, "not JSON") from None
    except ValueError as error:
        raise BadRecord(f"{where}: not JSON ({error}).", "not JSON") from error


def _unique(names: set[str]) -> Callable[[list[tuple[str, Any]]], dict]:
    """Makes objects; refuses one with two texts."""

    def make(pairs: list[tuple[str, Any]]) -> dict:
        made = dict(pairs)
        if len(made) < len(pairs):
            for name in names:
                if sum(other == name for other, _ in pairs) > 1:
                    raise ValueError(f"the field {name!r} comes twice")
        return made

    return make


def array_documents(path: str, fields: Fields) -> Iterator[Document | Skipped]:
    """Of a JSON array of objects, or of one object."""
    with opened(path) as file:
        for number, record in enumerate(_objects(path, file, fields.names), 1):
            yield fields.document(record, f"{path}, record {number}")


def _objects(path: str, file: BinaryIO, names: set[str]) -> Iterator[Any]:
    text = _Growing(path, io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    decoder = json.JSONDecoder(object_pairs_hook=_unique(names))
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
def _arrow_errors(path: str, what: str) -> Iterator[None]:
    """Turns what pyarrow raises into DataError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # the storage's own
            raise
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path} is no readable {what} file: {first.rstrip('.'):.200}.") from error


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[Any]:
    """The file, opened by pyarrow. Raises DataError for what that raises."""
    import pyarrow.parquet

    with (
        _arrow_errors(path, "Parquet"),
        pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        yield file


@contextlib.contextmanager
def _arrow(path: str) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema and the batches of an Arrow file or stream, as ``datasets`` saves them."""
    import pyarrow.ipc

    with _arrow_errors(path, "Arrow"), pyarrow.memory_map(path) as file:
        if file.read(6) == b"ARROW1":
            whole = pyarrow.ipc.open_file(file)
            indices = range(whole.num_record_batches)
            yield whole.schema, (whole.get_batch(i) for i in indices)
        else:
            file.seek(0)
            stream = pyarrow.ipc.open_stream(file)
            yield stream.schema, iter(stream)


def parquet_groups(path: str, field: str, most_bytes: int) -> list[tuple[int, int]]:
    """Row groups [first, last), as many together as hold so many bytes. Raises DataError if
    the file has no column ``field`` of text."""
    with _parquet(path) as file:
        schema, about = file.schema_arrow, file.metadata
        _check_column(path, schema, field)
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


def check_arrow(path: str, field: str) -> None:
    """Raise DataError if an Arrow file has no column ``field`` of text."""
    with _arrow(path) as (schema, _):
        _check_column(path, schema, field)


def _check_column(path: str, schema: Any, field: str) -> None:
    if not _is_text(_type_at(schema, field)):
        raise DataError(
            f"{path}: no column {field!r} of text; name one with --text-field (columns here: "
            f"{', '.join(_columns(schema)):.200})."
        )


def _columns(schema: Any) -> list[str]:
    """Names of the columns, of those within structs too."""
    import pyarrow

    return [
        f"{column.name}.{inner.name}" if inner is not None else column.name
        for column in schema
        for inner in (column.type if pyarrow.types.is_struct(column.type) else [None])
    ]


def _path(schema: Any, field: str) -> list[str] | None:
    """The names that lead to a column: one, or those of structs first; None: there is none."""
    import pyarrow

    if schema.names.count(field) == 1:
        return [field]
    names = field.split(".")
    if schema.names.count(names[0]) != 1:
        return None
    kind = schema.field(names[0]).type
    for name in names[1:]:
        if not pyarrow.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        kind = kind.field(name).type
    return names


def _type_at(schema: Any, field: str) -> Any:
    names = _path(schema, field)
    if names is None:
        return None
    kind = schema.field(names[0]).type
    for name in names[1:]:
        kind = kind.field(name).type
    return kind


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if kind is None:
        return False
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        types.is_string, types.is_large_string, types.is_binary, types.is_large_binary,
        types.is_string_view, types.is_binary_view,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def parquet_documents(
    path: str, first: int, last: int, fields: Fields
) -> Iterator[Document | Skipped]:
    """Of the rows of row groups [first, last)."""
    number = 0
    with _parquet(path) as file:
        schema = file.schema_arrow
        wanted = [_wanted(path, schema, fields.text)]
        if fields.label:
            wanted.append(_wanted(path, schema, fields.label))
        parts = file.iter_batches(
            batch_size=256,
            row_groups=list(range(first, last)),
            columns=[".".join(names) for names in wanted],
        )
        for part in parts:
            where = f"{path}, row {{}} of row group {first}"
            yield from _rows(part, wanted, fields, where, number)
            number += part.num_rows


def arrow_documents(path: str, fields: Fields) -> Iterator[Document | Skipped]:
    """Of the rows of an Arrow file or stream."""
    number = 0
    with _arrow(path) as (schema, parts):
        wanted = [_wanted(path, schema, fields.text)]
        if fields.label:
            wanted.append(_wanted(path, schema, fields.label))
        for whole in parts:
            for start in range(0, whole.num_rows, 256):
                part = whole.slice(start, 256)
                yield from _rows(part, wanted, fields, f"{path}, row {{}}", number)
                number += part.num_rows


def _wanted(path: str, schema: Any, field: str) -> list[str]:
    names = _path(schema, field)
    if names is None:
        raise DataError(
            f"{path}: no column {field!r} (columns: {', '.join(_columns(schema)):.200})."
        )
    return names


def _rows(
    part: Any, wanted: list[list[str]], fields: Fields, where: str, number: int
) -> Iterator[Document | Skipped]:
    """Of a batch of rows. where: says which file, with a place for the number of the row."""
    import pyarrow

    texts, *labels = (_column(part, names) for names in wanted)
    texts = texts.cast(pyarrow.large_binary()).to_pylist()
    told = labels[0].to_pylist() if labels else texts
    for i, (text, label) in enumerate(zip(texts, told, strict=True), number + 1):
        at = where.format(i)
        if text is None:
            yield Skipped(f"{at} holds no text.", "a row without text")
        elif not _is_utf8(text):
            yield Skipped(f"{at} is not UTF-8 text.", "a row that is not UTF-8")
        elif labels:
            yield fields.unless_bad(
                lambda text=text, label=label, at=at: Document(text, fields.label_of(label, at))
            )
        else:
            yield Document(text)


def _column(part: Any, names: list[str]) -> Any:
    import pyarrow
    import pyarrow.compute

    column = part.column(names[0])
    for name in names[1:]:
        column = pyarrow.compute.struct_field(  # pyright: ignore[reportAttributeAccessIssue]
            column, name
        )
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
