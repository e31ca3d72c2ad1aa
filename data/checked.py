"""A shard is known by its content: its checksum is compared when it is first read.

After that its stamp (size, times, inode) is enough: remembered in this process, and in the user's
cache folder for the next one, so that starting on a large corpus reads it once and not every time.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

import google_crc32c

from octavo import files

RACE_NS = 2 * 10**9
"""A file that changed less than this ago is not remembered: it could change again, and its times
stay what they are (clocks of file systems are coarse)."""

Stamp = tuple[int, ...]
_Known = dict[str, tuple[Stamp, str]]
"""By name of the file: its stamp, and the checksum it had."""
_known: dict[Path, _Known] = {}


def checksum(path: Path) -> str:
    """CRC-32C of a whole file, 8 hex digits."""
    crc = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            crc.update(chunk)
    return crc.hexdigest().decode()


def stamp(path: Path) -> Stamp | None:
    """What changes whenever somebody writes to the file or puts another in its place; None: it is
    not there."""
    try:
        s = os.stat(path)
    except FileNotFoundError:
        return None
    return s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev


def checksums(paths: list[Path]) -> list[tuple[str, Stamp | None]]:
    """The checksum and stamp of files of one folder; those whose stamp is remembered are not
    read. Raises OSError for a file that cannot be read."""
    if not paths:
        return []
    folder = paths[0].parent.absolute()
    if folder not in _known:
        _known[folder] = _recall(folder)
    known, found, fresh = _known[folder], [], {}
    for path in paths:
        begun, now = time.time_ns(), stamp(path)
        remembered, crc = known.get(path.name, (None, ""))
        if remembered != now:
            crc = checksum(path)
            if now and stamp(path) == now and begun - max(now[1], now[2]) > RACE_NS:
                known[path.name] = fresh[path.name] = now, crc
        found.append((crc, now))
    if fresh:
        _keep(folder, fresh)
    return found


def _file(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return files.cache_folder() / "checked" / f"{name}.jsonl"


def _recall(folder: Path) -> _Known:
    known: _Known = {}
    with contextlib.suppress(OSError, RuntimeError):  # nothing remembered: read again
        for line in files.read(_file(folder)).splitlines():
            # Half a line of who was killed, or what is none of ours, is no worse than nothing.
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
                for name, (at, crc) in json.loads(line).items():
                    known[name] = tuple(at), crc
    return known


def _keep(folder: Path, fresh: _Known) -> None:
    """Another line: a corpus has many files, and processes read it side by side."""
    with contextlib.suppress(OSError, RuntimeError):  # no cache, as on a read-only file system
        _file(folder).parent.mkdir(parents=True, exist_ok=True)
        with open(_file(folder), "ab", buffering=0) as file:
            file.write(f"\n{files.json_text(fresh)}\n".encode())
