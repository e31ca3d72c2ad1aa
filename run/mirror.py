"""Run directories on object storage: mirrored here while they are trained or read.

Checkpoints are written here by Orbax and put there whole, the rest of the run with them; of those
there before, only what they say of themselves is fetched, and the arrays of the one that is used.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from octavo import process, storage
from octavo.storage import Lock, Mirror

LOCK = "lock"
MARKER_FOLDER = "marker"
_GROUP = re.compile(rf"(checkpoints/[^/]+|{MARKER_FOLDER})/")
"""What is whole or absent."""
_ARRAYS = re.compile(r"checkpoints/[^/]+/(params|opt)/")
_UNFINISHED = ".orbax-checkpoint-tmp"

_open: dict[Path, "RunMirror"] = {}
"""By their folder here."""


class RunMirror(Mirror):
    """The mirror of a run directory."""

    lock: Lock | None = None

    def refresh(self) -> None:
        """Fetch all but arrays and TensorBoard events, of what is complete there."""
        self.pull(self._wanted)

    def pull(self, wanted) -> None:
        self.remote = storage.listed(self.url)
        super().pull(wanted)

    def _wanted(self, name: str) -> bool:
        group = _GROUP.match(name)
        if group and f"{group[0]}{self.MARKER}" not in self.remote:
            return False
        return not _ARRAYS.match(name) and not name.startswith("tensorboard/") and name != LOCK

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        steps = [name.split("/")[1] for name in self._groups() if name.startswith("checkpoints/")]
        return max((int(step) for step in steps if step.isdecimal()), default=None)

    def _groups(self) -> set[str]:
        """Those that are complete there."""
        found = {name for name in self.remote if _GROUP.match(name)}
        marked = (name.removesuffix(f"/{self.MARKER}") for name in found)
        return {name for name in marked if _GROUP.fullmatch(f"{name}/")}

    def rest(self) -> dict[str, tuple[int, int]]:
        """What changed here beside checkpoints, as it is now."""
        return self.changed(LOCK, MARKER_FOLDER, "checkpoints")

    def put_back(self, changed: dict[str, tuple[int, int]], groups: bool = True) -> None:
        """Put there what changed, then checkpoints that are new here; take away those that are here
        no more. Raises OSError, also if another process has taken the run over."""
        with self.using:
            if self.folder.exists():  # else it is closed
                self._put_back(changed, groups)

    def _put_back(self, changed: dict[str, tuple[int, int]], groups: bool) -> None:
        if self.lock:
            self.lock.check()
        self.push(changed)
        if not groups:
            return
        here = {
            path.relative_to(self.folder).as_posix()
            for path in (*self.folder.glob("checkpoints/*"), self.folder / MARKER_FOLDER)
            if path.is_dir() and _UNFINISHED not in path.name
        }
        complete = self._groups()
        there = {group[0].rstrip("/") for group in map(_GROUP.match, self.remote) if group}
        # What a killed process left half put, too.
        old = there - here | there - complete
        self.take_away([name for name in self.remote if name.startswith(_below(old))])
        for group in sorted(here - complete):
            self.push_group(group)


def _below(groups: set[str]) -> tuple[str, ...]:
    return tuple(f"{group}/" for group in groups)


def folder(name: str | Path) -> Path:
    """The folder on this machine of a run that a person names: for a URL its mirror, the same for
    the life of this process, or until the run is ``owned`` no more.

    Raises ConfigError, in bounded time, if the storage cannot be used; OSError if it fails.
    """
    if not storage.is_url(name):
        return Path(name)
    url = str(name).rstrip("/")
    for where, mirror in _open.items():
        if mirror.url == url:
            return where
    storage.check(url, "--workdir")
    mirror = RunMirror(url)
    mirror.refresh()
    _open[mirror.folder] = mirror
    return mirror.folder


def mirror_of(folder: Path) -> RunMirror | None:
    """The mirror that a folder of this machine is; None if it is a run's own place."""
    return _open.get(folder)


@contextlib.contextmanager
def owned(mirror: RunMirror) -> Iterator[None]:
    """While this process trains in it, no other does; at the end, what is not there yet is put
    there. Raises ConfigError with the holder's name if there is one, OSError."""
    with Lock(f"{mirror.url}/{LOCK}") as mirror.lock:
        try:
            mirror.refresh()  # nobody else changes it now
            try:
                yield
            except BaseException:
                try:
                    mirror.put_back(mirror.rest(), groups=False)
                except OSError as error:  # what ended the run is said
                    process.warn(f"{error.filename}: {error.strerror}")
                raise
            mirror.put_back(mirror.rest(), groups=False)
        finally:
            _open.pop(mirror.folder, None)
            mirror.close()


@contextlib.contextmanager
def fetched(name: str | Path, step: int | None = None, arrays: bool = True) -> Iterator[Path]:
    """A run's folder, to read: for a URL a mirror, taken away at the end, with the parameters of a
    checkpoint (step None: the newest) unless ``arrays`` are not needed. Raises as ``folder``."""
    if not storage.is_url(name):
        yield Path(name)
        return
    storage.check(str(name))
    mirror = RunMirror(str(name))
    try:
        mirror.refresh()
        step = mirror.newest() if step is None else step
        if arrays and step is not None:
            mirror.fill(f"checkpoints/{step}/params")
        yield mirror.folder
    finally:
        mirror.close()
