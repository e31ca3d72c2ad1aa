"""Files and folders on object storage, named by URL: gs://, s3://, and what else fsspec knows.

The libraries of shards and checkpoints work on files of this machine: ArrayRecord reads no others,
and Orbax 0.12 writes no others but gs://. So a folder that a URL names has a mirror here, in the
user's cache: what is needed of it is fetched, and what changed is put back (``Mirror``). Everything
else of Octavo sees a folder of this machine, and ``files.shown`` names it by its URL.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from octavo import files, process
from octavo.configs.checks import ConfigError

ANSWER_SECONDS = 30
"""A store that does not answer for so long is not waited for before anything begins."""
TRANSFERS = 16
"""Objects on their way at a time."""
LIBRARIES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}
"""Of a scheme; the extras ``gs`` and ``s3`` bring them."""


def is_url(name: str | Path) -> bool:
    """Whether a name is of something on other storage than this machine's. Raises ConfigError for
    what was meant to be."""
    found = re.match(r"(?!tfds:)([A-Za-z][A-Za-z0-9+.-]+):/(/?)(.*)", str(name))
    if found and not (found[2] and found[3].strip("/")):
        raise ConfigError(
            f"{name} is no URL, as {found[1].lower()}://BUCKET/NAME; what is called so on this "
            f"machine is ./{name}."
        )
    return bool(found)


def base(url: str) -> str:
    """The last part of a URL, as a folder's name."""
    return url.rstrip("/").rpartition("/")[2] or "root"


def refuse(name: str, flag: str) -> None:
    """Raise ConfigError for a URL where only a file or folder of this machine can be used."""
    if is_url(name):
        raise ConfigError(
            f"{flag} {name} is no file or folder of this machine, the only kind that is taken "
            "here: copy it first."
        )


def check(url: str, flag: str = "") -> None:
    """Raise ConfigError, a sentence that names ``flag``, unless the library of the URL's scheme is
    installed and the store answers, with the credentials that there are, within
    ``ANSWER_SECONDS``."""
    outcome: list[BaseException | None] = []

    def ask() -> None:
        try:
            fs, path = opened(url)
            with contextlib.suppress(FileNotFoundError):  # the folder: made by what is put there
                fs.ls(path)
                outcome.append(None)
                return
            bucket = path.strip("/").partition("/")[0]
            if fs.async_impl:  # where there are buckets, ours must be there
                fs.ls(bucket)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    process.within(ANSWER_SECONDS, ask)
    shown = f"{flag} {url}".strip()
    if not outcome:
        raise ConfigError(f"{shown}: no answer within {ANSWER_SECONDS} seconds.")
    if (error := outcome[0]) is None:
        return
    if isinstance(error, ConfigError):
        raise ConfigError(f"{shown}: {error}") from error
    if isinstance(error, FileNotFoundError):
        raise ConfigError(f"{shown}: there is no such bucket; make it first.") from error
    raise ConfigError(
        f"{shown} cannot be reached: {_reason(error)}. Check the name, the network and the "
        "credentials."
    ) from error


def opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there. Raises ConfigError if there is none for it."""
    import fsspec  # here: commands that name no URL start without it

    scheme = url.partition("://")[0].lower()
    try:
        fs, path = fsspec.core.url_to_fs(scheme + url[len(scheme) :])
    except ImportError as error:
        if scheme in LIBRARIES:
            how = f"pip install {LIBRARIES[scheme]}"
            raise ConfigError(f"the library for {scheme}:// is not installed: {how}.") from error
        raise ConfigError(f"{str(error).rstrip('.')}, with pip.") from error
    except ValueError as error:
        raise ConfigError(
            f"{scheme}:// is no storage that is known here: {str(error).rstrip('.')}."
        ) from error
    fs.invalidate_cache()  # what it listed before: others put things there, too
    library = type(fs).__module__.partition(".")[0]
    logging.getLogger(library).setLevel(logging.CRITICAL)  # what fails, we say
    return fs, path.rstrip("/")


def _reason(error: BaseException) -> str:
    """In a line."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"{type(error).__name__}: {first}".rstrip(".")


@contextlib.contextmanager
def at(url: str) -> Iterator[None]:
    """What libraries raise becomes an OSError that names the URL."""
    try:
        yield
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url) from error
    except Exception as error:  # each library has its own
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # of this machine
        denied = isinstance(error, PermissionError)
        number = errno.EACCES if denied else errno.EIO
        raise OSError(number, _reason(error), url) from error


def read(url: str) -> bytes:
    """All of an object. Raises OSError that names it."""
    with at(url):
        fs, path = opened(url)
        return fs.cat_file(path)


def write(path: str | Path, data: bytes | str) -> None:
    """A file of this machine, or an object: all of it or nothing. Raises OSError that names it."""
    if not is_url(path):
        files.write(path, data)
        return
    url = str(path)
    data = data.encode() if isinstance(data, str) else data
    with at(url):
        fs, name = opened(url)
        _in_place(fs, name, lambda name: fs.pipe_file(name, data))


def write_json(path: str | Path, value: Any) -> None:
    """``write`` of ``json_text``, indented."""
    write(path, files.json_text(value, indent=1) + "\n")


def _in_place(fs, path: str, put: Callable[[str], Any]) -> None:
    """Object stores put objects whole. Where there are folders, files are renamed into place."""
    if fs.async_impl:
        put(path)
        return
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    partial = f"{path}.{os.getpid()}.partial"
    put(partial)
    fs.mv(partial, path)


def found(url: str) -> dict[str, dict]:
    """What a store says of each object below a URL, ``size`` and more, by name; of an object that
    the URL itself names, as "". Nothing if there is no such folder. Raises OSError."""
    with at(url):
        fs, root = opened(url)
        try:
            about = fs.find(root, detail=True)
        except FileNotFoundError:
            return {}
    names = {
        name[len(root) :].removeprefix("/"): what for name, what in about.items()
        if what["type"] == "file" and (name == root or name.startswith(f"{root}/"))
    }  # fmt: skip
    # No name may lead out of the folder that it is fetched to.
    return {
        name: what for name, what in names.items()
        if not {".", ".."} & set(name.split("/")) and not name.endswith((".partial", "/"))
    }  # fmt: skip


def listed(url: str) -> dict[str, int]:
    """Every object below a URL, and its bytes."""
    return {name: int(what["size"] or 0) for name, what in found(url).items() if name}


def version(what: dict) -> int:
    """A time, in seconds, for the copy of an object: another one when the object changes."""
    known = (
        "ETag", "etag", "md5Hash", "LastModified", "updated", "last_modified", "mtime", "created",
    )  # fmt: skip
    text = repr([str(what.get(name)) for name in known])
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


def fetch(url: str, sizes: dict[str, int], folder: Path) -> None:
    """Objects below a URL to files below a folder, each whole or absent. Raises OSError."""

    def one(name: str) -> None:
        where, out = f"{url}/{name}", folder / name
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
        try:
            with at(where):
                fs, path = opened(where)
                fs.get_file(path, str(partial))
                if (got := partial.stat().st_size) != sizes[name]:
                    raise OSError(errno.EIO, f"{got:,} of {sizes[name]:,} bytes came")
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)

    _each(one, sizes)


def put(url: str, names: Iterable[str], folder: Path) -> None:
    """Files below a folder to objects below a URL, each whole or absent. Raises OSError."""

    def one(name: str) -> None:
        with at(f"{url}/{name}"):
            fs, path = opened(f"{url}/{name}")
            _in_place(fs, path, lambda path: fs.put_file(str(folder / name), path))

    _each(one, names)


def remove(url: str, names: Iterable[str] = ("",)) -> None:
    """Take objects away, if they are there. Raises OSError."""

    def one(name: str) -> None:
        where = f"{url}/{name}".rstrip("/")
        with contextlib.suppress(FileNotFoundError), at(where):
            fs, path = opened(where)
            fs.rm_file(path)

    _each(one, names)


def _each(action: Callable[[str], None], names: Iterable[str]) -> None:
    with concurrent.futures.ThreadPoolExecutor(TRANSFERS) as pool:
        for done in [pool.submit(action, name) for name in names]:
            done.result()


def cached(kind: str, url: str) -> Path:
    """The folder of this user's cache for a URL."""
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:20]
    return files.cache_folder() / kind / digest


class Mirror:
    """A folder of object storage, and its likeness on this machine for as long as it is used."""

    MARKER = "commit_success.txt"
    """Last object of a group that is whole or absent, as Orbax has it on object storage."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        _clear_dead()
        home = files.cache_folder() / "mirrors" / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.folder = home / base(self.url)
        self.folder.mkdir(parents=True)
        self.remote: dict[str, int] = {}
        """Objects there, and their sizes, when last looked at."""
        self._stamps: dict[str, tuple[int, int]] = {}
        """Of the files here that are as they are there."""
        self._versions: dict[str, int] = {}
        self.using = threading.Lock()
        """Held while something is put there, and when it is closed."""
        files.show(self.folder, self.url)

    def pull(self, wanted: Callable[[str], bool]) -> None:
        """Fetch what is wanted and new; what is not there any more goes here too."""
        there = found(self.url)
        self.remote = {name: int(what["size"] or 0) for name, what in there.items()}
        versions = {name: version(what) for name, what in there.items()}
        for name in list(self._stamps):
            if versions.get(name) != self._versions.get(name):
                (self.folder / name).unlink(missing_ok=True)
                del self._stamps[name]
        self._versions = versions
        self._fetch([name for name in self.remote if wanted(name)])

    def _fetch(self, names: Iterable[str]) -> None:
        missing = {name: self.remote[name] for name in names if name not in self._stamps}
        fetch(self.url, missing, self.folder)
        self._stamps |= {name: self._stamp(name) for name in missing}

    def fill(self, prefix: str) -> None:
        """Fetch what is still missing below a folder of it."""
        self._fetch([name for name in self.remote if name.startswith(f"{prefix}/")])

    def _stamp(self, name: str) -> tuple[int, int]:
        found = (self.folder / name).stat()
        return found.st_size, found.st_mtime_ns

    def changed(self, *without: str) -> dict[str, tuple[int, int]]:
        """Files here that differ from what is there, as they are now; not of what lies ``without``,
        where others may be at work."""
        tops = [path for path in self.folder.iterdir() if path.name not in without]
        found = {}
        for path in (path for top in tops for path in (top, *top.rglob("*"))):
            name = path.relative_to(self.folder).as_posix()
            with contextlib.suppress(FileNotFoundError):
                now = None if name.endswith(".partial") or path.is_dir() else self._stamp(name)
                if now and self._stamps.get(name) != now:
                    found[name] = now
        return found

    def push(self, changed: dict[str, tuple[int, int]]) -> None:
        """Put files there as they were when ``changed`` was asked: of those that only grow, as
        much as there was; and take away there what was taken away here."""

        def one(name: str) -> None:
            try:
                with open(self.folder / name, "rb") as file:
                    data = file.read(changed[name][0])
            except FileNotFoundError:  # taken away since
                return
            write(f"{self.url}/{name}", data)
            self._stamps[name] = changed[name]
            self.remote[name] = len(data)

        _each(one, changed)
        gone = [name for name in list(self._stamps) if not (self.folder / name).exists()]
        self.take_away(gone)

    def push_group(self, group: str) -> None:
        """Put a folder of files there, whole or absent for who looks for its ``MARKER``."""
        root = self.folder / group
        marker = f"{group}/{self.MARKER}"
        (self.folder / marker).touch()
        names = [p.relative_to(self.folder).as_posix() for p in root.rglob("*") if p.is_file()]
        for part in ([name for name in names if name != marker], [marker]):
            put(self.url, part, self.folder)
            self._stamps |= {name: self._stamp(name) for name in part}
            self.remote |= {name: self._stamps[name][0] for name in part}

    def take_away(self, names: Iterable[str]) -> None:
        """Take objects away there: markers first."""
        names = sorted(names, key=lambda name: not name.endswith(self.MARKER))
        for part in ([n for n in names if n.endswith(self.MARKER)], names):
            remove(self.url, part)
        for name in names:
            self._stamps.pop(name, None)
            self.remote.pop(name, None)

    def close(self) -> None:
        """Take away what lies here: nothing is put there after this."""
        with self.using:
            shutil.rmtree(self.folder.parent, ignore_errors=True)


def _clear_dead() -> None:
    """Take away mirrors of processes that were killed."""
    for folder in (files.cache_folder() / "mirrors").glob("*-*"):
        owner = folder.name.partition("-")[0]
        if owner.isdigit() and not process.alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
