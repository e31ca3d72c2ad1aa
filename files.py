"""Files that are whole or absent: written beside and renamed, read with their shape checked.

UTF-8 whatever the locale. JSON never holds NaN or infinity: they are written as null.
"""

import contextlib
import errno
import json
import math
import os
import stat
import uuid
from pathlib import Path
from typing import Any


class FileError(Exception):
    """A file that does not hold what it should. The message says which, and what is wrong."""


def read(path: str | Path) -> bytes:
    """All of a file. Raises OSError, also for what is no regular file: a pipe would be waited for,
    a device may never end."""
    check_regular(path)
    return Path(path).read_bytes()


def check_regular(path: str | Path) -> None:
    """Raise OSError if something else than a regular file lies there."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
            kind = kinds.get(stat.S_IFMT(mode), "a device")
            raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))


def write(path: str | Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a run after a kill, finds all of it or nothing."""
    path = Path(path)
    partial = _beside(path)
    try:
        with open(partial, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def create(path: str | Path, data: bytes) -> None:
    """Write a file that is not there, whole at once. Of several who come at the same time one
    succeeds. Raises FileExistsError, OSError."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # not every file system has links
            with open(path, "xb") as file:
                file.write(data)
    finally:
        partial.unlink(missing_ok=True)


def probe(path: str | Path) -> None:
    """Raise the OSError that ``write`` would raise if the folder takes no file of this name."""
    partial = _beside(Path(path))
    open(partial, "wb").close()
    partial.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that any reader takes."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """``write`` of ``json_text``, indented."""
    write(path, json_text(value, indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(
    path: str | Path,
    type_: Any = Any,
    *,
    error: type[Exception] = FileError,
    advice: str = "",
) -> Any:
    """What a JSON file holds, as ``type_``: a dataclass, or any annotation; dataclasses take no
    unknown keys, and no value is turned into another type.

    Raises ``error`` (with ``advice`` at the end of its sentence) if the content is something else,
    OSError if the file cannot be read.
    """
    return parse_json(read(path), type_, name=str(path), error=error, advice=advice)


def parse_json(
    data: bytes | str,
    type_: Any = Any,
    *,
    name: str,
    error: type[Exception] = FileError,
    advice: str = "",
    fault: str = " is damaged, or of another version",
) -> Any:
    """The same of text that lies in memory; ``name`` says whose it is, ``fault`` what to think of
    a wrong one."""
    import pydantic  # here: commands that read no file start without it

    try:
        return pydantic.TypeAdapter(type_).validate_json(data, strict=True, extra="forbid")
    except pydantic.ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = first.get("ctx", {}).get("error", first["msg"])
        told = first["type"] in ("missing", "json_invalid", "value_error")
        long = isinstance(first["input"], dict | list | bytes)
        found = "" if told or long else f", not {first['input']!r:.60}"
        sentence = f"{where}: {what}" if where else f"{what}"
        text = f"{name}{fault}: {sentence.rstrip('.')}{found}."
        raise error(f"{text} {advice}".rstrip()) from invalid


def cache_folder() -> Path:
    """Where this user's caches lie. Raises RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo"


_names: dict[str, str] = {}
"""What folders of the cache stand for: what a person named."""


def show(folder: Path, name: str) -> None:
    """From here on, sentences call the folder by this name."""
    _names[str(folder)] = name


def shown(text: str) -> str:
    """A sentence with what a person named in place of folders of the cache."""
    for folder, name in _names.items():
        text = text.replace(folder, name)
    return text


def reason(error: Exception) -> str:
    """Why a file of ours, which somebody may be writing, cannot be used: in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
