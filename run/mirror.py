"""Run directories on object storage: mirrored here while they are trained or read.

Checkpoints are written here by Orbax and put there whole, the rest of the run with them; of those
there before, only what they say of themselves is fetched, and the arrays of the one that is used.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from octavo import process, storage
from octavo.locks import Lock
from octavo.run.directory import LOCK
from octavo.run.directory import MARKER as MARKER_FOLDER
from octavo.storage import Mirror

_GROUP = re.compile(rf"(checkpoints/[^/]+|{MARKER_FOLDER})/")
"""What is whole or absent."""
_ARRAYS = re.compile(r"checkpoints/[^/]+/(params|opt)/")
_LEFT = ("tensorboard/", "profile/")
_UNFINISHED = ".orbax-checkpoint-tmp"

_open: dict[Path, "RunMirror"] = {}
"""By their folder here."""


class RunMirror(Mirror):
    """The mirror of a run directory."""

    lock: Lock | None = None
    direct = False
    """Checkpoints are written there by Orbax, not here."""

    def refresh(self) -> None:
        """Fetch all but arrays, TensorBoard events and traces, of what is complete there."""
        self.pull(self._wanted)

    def _wanted(self, name: str) -> bool:
        group = _GROUP.match(name)
        if group and f"{group[0]}{self.MARKER}" not in self.remote:
            return False
        return not _ARRAYS.match(name) and not name.startswith(_LEFT) and name != LOCK

    def newest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        steps = [name.split("/")[1] for name in self._complete() if name.startswith("checkpoints/")]
        return max((int(step) for step in steps if step.isdecimal()), default=None)

    def _groups(self) -> set[str]:
        """Those that lie there."""
        return {found[1] for found in map(_GROUP.match, self.remote) if found}

    def _complete(self) -> set[str]:
        return {group for group in self._groups() if f"{group}/{self.MARKER}" in self.remote}

    def rest(self) -> dict[str, tuple[int, int]]:
        """What changed here beside checkpoints, as it is now."""
        return self.changed(LOCK, MARKER_FOLDER, "checkpoints")

    def put_back(self, changed: dict[str, tuple[int, int]]) -> None:
        """Put there what changed, then checkpoints that are new here; take away those that are here
        no more. Raises OSError, also if another process has taken the run over."""
        with self.using:
            if self.folder.exists():  # else it is closed
                self._put_back(changed)

    def _put_back(self, changed: dict[str, tuple[int, int]]) -> None:
        if self.lock:
            self.lock.check()
        self.push(changed)
        here = {MARKER_FOLDER} if (self.folder / MARKER_FOLDER).is_dir() else set()
        found = () if self.direct else (self.folder / "checkpoints").glob("*")
        here |= {f"checkpoints/{path.name}" for path in found if _UNFINISHED not in path.name}
        # What a killed process left half put.
        self._take_away(self._groups() - self._complete())
        for group in sorted(here - self._complete()):
            self.push_group(group)
        self._take_away(self._complete() - here)

    def _take_away(self, groups: set[str]) -> None:
        if not self.direct:
            below = tuple(f"{group}/" for group in groups)
            self.take_away([name for name in self.remote if name.startswith(below)])


def folder(name: str | Path, flag: str = "--workdir") -> Path:
    """The folder on this machine of a run that a person names with ``flag``: for a URL its mirror,
    the same for the life of this process, or until the run is ``owned`` no more.

    Raises ConfigError, in bounded time, if the storage cannot be used; OSError if it fails.
    """
    if not storage.is_url(name):
        return Path(name)
    url = str(name).rstrip("/")
    for where, mirror in _open.items():
        if mirror.url == url:
            return where
    storage.check(url, flag)
    mirror = RunMirror(url)
    mirror.refresh()
    _open[mirror.folder] = mirror
    return mirror.folder


def fetch_arrays(folder: Path, step: int) -> None:
    """Fetch the parameters of a checkpoint, if the folder is a mirror. Raises OSError."""
    if mirror := mirror_of(folder):
        mirror.fill(f"checkpoints/{step}/params")


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
                    mirror.put_back(mirror.rest())
                except OSError as error:  # what ended the run is said
                    process.warn(f"{error.filename}: {error.strerror}")
                raise
            mirror.put_back(mirror.rest())
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
