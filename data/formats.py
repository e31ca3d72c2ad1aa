"""What a file is, decided by looking into it; a name only decides between readings that fit."""

import contextlib
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from octavo.data.errors import DataError

HEAD = 1 << 16
"""Bytes of a file that are looked at."""
BOM = b"\xef\xbb\xbf"

_PACKED = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # The second begins what decoders pass over; parallel compressors put it first.
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    # The second: of nothing, with which a file of several parts may begin.
    "bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
}
_OTHER = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive (as .zip, .docx, .epub)",
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"\x7fELF": "a program",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"Rar!\x1a": "a RAR archive",
    b"\x04\x22\x4d\x18": "lz4, which is not read here",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8, for instance with iconv",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8, for instance with iconv",
}
_ARROW = (b"ARROW1\0\0", b"\xff\xff\xff\xff")
_LINES = re.compile(r"\.(jsonl|ndjson|jsonlines)(\.[a-z0-9]{1,4})?$", re.IGNORECASE)
_JSON = re.compile(r"\.json(\.[a-z0-9]{1,4})?$", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """What a file is."""

    kind: str
    """"text", "jsonl", "json" (an array of objects, or one), "parquet", "arrow", or "" for none of
    them."""
    packed: bool = False
    why: str = ""
    """Of what is none: words that follow its name."""
    short: str = ""
    """The same, to be counted."""
    records: bool | None = None
    """Of JSON: its first object has the text field; None: too long to tell."""
    single: bool = False
    """Of JSON: it is one object."""
    by_name: bool = True
    """Of JSON: its name says so."""


def special(path: str | Path) -> str:
    """What a path is that cannot be read from twice, or at all; "" for files and folders."""
    mode = os.stat(path).st_mode
    kinds = {
        "a named pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    }
    return next((name for name, holds in kinds.items() if holds(mode)), "")


def packing(head: bytes) -> str | None:
    """How a file with these first bytes is compressed."""
    return next((name for name, magic in _PACKED.items() if magic.match(head)), None)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed. Raises DataError if that fails, at whatever byte."""
    with open(path, "rb") as file:
        packed = packing(file.read(16))
        if packed is None:
            file.seek(0)
            yield file
            return
    unpack, failures = _unpacking(path, packed)
    try:
        with unpack(path) as file:
            yield file
    except failures as error:
        raise DataError(f"{path} is no readable {packed} file: {error}.") from error
    except OSError as error:  # of gzip, bz2 and pyarrow, unless the storage failed
        if error.errno:
            raise
        raise DataError(f"{path} is no readable {packed} file: {error}.") from error


def _unpacking(path: str | Path, packed: str) -> tuple[Callable, tuple[type[Exception], ...]]:
    """What opens such a file, and what that raises if it is damaged."""
    try:
        if packed == "gzip":
            return gzip.open, (EOFError, zlib.error)
        if packed == "xz":
            import lzma

            return lzma.open, (EOFError, lzma.LZMAError)
        if packed == "bz2":
            import bz2

            return bz2.open, (EOFError,)
        import pyarrow
    except ImportError as error:  # some Pythons are built without them
        raise DataError(f"{path} is {packed}, which this Python cannot read.") from error
    return _open_zstd, (pyarrow.ArrowException,)


def _open_zstd(path: str | Path) -> BinaryIO:
    import pyarrow

    return io.BufferedReader(_Zstd(pyarrow.input_stream(str(path), compression="zstd")))


class _Zstd(io.RawIOBase):
    """What pyarrow decompresses, as a file of Python's that has lines."""

    def __init__(self, stream):
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def look(path: str | Path, text_field: str) -> Look:
    """What the file is. Raises DataError if it is compressed and damaged, OSError if it cannot be
    read."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if packed := packing(head) is not None:
        head = _unpacked_head(path)
    if not head:
        return Look("", packed, "is empty", "empty")
    if head.startswith(b"PAR1") and not packed:
        return Look("parquet")
    if head.startswith(_ARROW) and not packed:
        return Look("arrow")
    if head[257:262] == b"ustar":
        return Look("", packed, "is a tar archive, not text: unpack it first", "a tar archive")
    for magic, what in _OTHER.items():
        if head.startswith(magic):
            return Look("", packed, f"is {what}", re.split("[,;]", what)[0])
    if binary := _binary(head):
        return Look("", packed, binary, "not text")
    return _json_or_text(Path(path).name, head, len(head) < HEAD, packed, text_field)


def _unpacked_head(path: str | Path) -> bytes:
    """Of a file that is damaged further on, what comes before: it is what it seems to be, and the
    damage is met where it is read."""
    head = b""
    try:
        with opened(path) as file:
            reader = cast(io.BufferedReader, file)
            while len(head) < HEAD and (more := reader.read1(HEAD - len(head))):
                head += more
    except DataError:
        if not head:
            raise
    return head


def _binary(head: bytes) -> str:
    """Why this is no text, or ""."""
    if (nul := head.find(b"\0")) >= 0:
        return f"is not text: byte {nul:,} is NUL"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character that the head cuts
            return not_utf8(error.start, head[error.start])
    return ""


def not_utf8(at: int, byte: int) -> str:
    """Says where."""
    return (
        f"is not UTF-8 text: byte {at:,} is 0x{byte:02x}. Convert it first, for instance with iconv"
    )


def _json_or_text(name: str, head: bytes, whole: bool, packed: bool, text_field: str) -> Look:
    lines, by_name = bool(_LINES.search(name)), bool(_LINES.search(name) or _JSON.search(name))
    text = head.removeprefix(BOM).decode("utf-8", errors="ignore").strip("\ufeff \t\r\n")

    def json_look(kind: str, record: Any, single: bool = False) -> Look:
        has = isinstance(dig(record, text_field), str) if isinstance(record, dict) else None
        return Look(kind, packed, records=has, single=single, by_name=by_name)

    rows = [row for row in text.split("\n", 2) if row.strip()]
    first = _parsed(rows[0]) if rows else None
    if text.startswith("{"):
        if isinstance(first, dict):
            if lines or len(rows) == 1 or rows[1].lstrip().startswith("{"):
                return json_look("jsonl", first, single=whole and len(rows) == 1)
        elif len(rows) == 1 and not whole and re.match(r'\{\s*"', text):
            return json_look("jsonl", None)
        elif not lines and isinstance(record := _parsed(text), dict):
            return json_look("json", record, single=True)
        elif _JSON.search(name) and not whole:
            return json_look("json", None, single=True)
    elif text.startswith("["):
        record = _first_of_array(text)
        if isinstance(record, dict) or (by_name and not lines):
            return json_look("json", record)
    if lines:
        return json_look("jsonl", None)
    if by_name:
        return Look("", packed, "has the name of JSON, and holds none", "JSON by its name only")
    return Look("text", packed)


def dig(record: Any, field: str) -> Any:
    """What a record has in a field; ``a.b`` is the field b of the object a, unless the record has a
    field of just that name. None: nothing."""
    if isinstance(record, dict) and field in record:
        return record[field]
    for part in field.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _first_of_array(text: str) -> Any:
    try:
        return json.JSONDecoder().raw_decode(text[1:].lstrip())[0]
    except (ValueError, RecursionError):
        return None
