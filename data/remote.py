"""Corpora and texts on object storage: fetched to this user's cache, and prepared there.

Of a corpus, the manifest is fetched when it is opened, once for each content, and a shard when it
is first read: a host of many, which reads a part, has that part.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c

from octavo import files, storage
from octavo.data import checked
from octavo.data.errors import DataError
from octavo.data.manifest import MANIFEST, RECIPE, Manifest, Shard, read_manifest

_OF_UNITS = re.compile(r"(train|heldout|unit)-\d+\.")
_UNFINISHED = re.compile(rf"(unit|look)-\d+\.|{re.escape(RECIPE)}$")
"""What only an unfinished corpus has."""


def corpus_folder(name: str | Path) -> Path:
    """The folder on this machine of a corpus that a person names: for a URL its copy in the cache,
    to which shards come (``fetch``) when they are read.

    Raises ConfigError, in bounded time, if the storage cannot be used; DataError if there is no
    finished corpus, or a shard is missing; OSError if the storage fails, or the cache cannot be
    written.
    """
    if not storage.is_url(name):
        return Path(name)
    url = str(name).rstrip("/")
    storage.check(url)
    sizes = storage.listed(url)
    if MANIFEST not in sizes:
        raise DataError(
            f"{url} is not a prepared corpus, or not finished: make one with python prepare.py "
            "SOURCE --out DIR."
        )
    data = storage.read(f"{url}/{MANIFEST}")
    folder = _place(url, data)
    files.show(folder, url)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / MANIFEST, data)
    shards = _shards(read_manifest(folder))
    for file, shard in shards.items():
        if sizes.get(file) != shard.size:
            found = "is missing" if file not in sizes else f"has {sizes[file]:,} bytes"
            raise DataError(
                f"{url}/{file} {found}, but the manifest says {shard.size:,}. Run the same "
                "prepare.py command again: it makes anew what is missing or damaged."
            )
    missing = {
        file: size for file, size in sizes.items()
        if file not in (MANIFEST, RECIPE, *shards) and not _there(folder / file, size)
    }  # fmt: skip
    storage.fetch(url, missing, folder)
    files.write(folder.parent / _FROM, url)
    return folder


_FROM = "octavo-url"
"""Beside a copy, the file that says of what."""


def url_of(folder: Path) -> str | None:
    """Where a copy in the cache is from; None: it is none."""
    try:
        url = (folder.parent / _FROM).read_text()
    except OSError:
        return None
    files.show(folder, url)
    return url


def fetch(url: str, folder: Path, shards: Iterable[Shard]) -> None:
    """Fetch shards that are not there. Raises DataError for one that is damaged, OSError."""
    for shard in shards:
        path = folder / shard.file
        if path.exists():
            continue
        storage.fetch(url, {shard.file: shard.size}, folder)
        if (crc := checked.checksum(path)) != shard.crc32c:
            path.unlink()
            raise DataError(
                f"{url}/{shard.file} is damaged: it has checksum {crc}, but the manifest says "
                f"{shard.crc32c}. Run the same prepare.py command again: it makes anew what is "
                "missing or damaged."
            )


def _place(url: str, manifest: bytes) -> Path:
    """Where the copy of a corpus of this content lies."""
    content = hashlib.sha256(manifest).hexdigest()[:20]
    return storage.cached("corpora", url) / content / storage.base(url)


def _shards(manifest: Manifest) -> dict[str, Shard]:
    return {shard.file: shard for split in manifest.splits.values() for shard in split.shards}


def _there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def verify(url: str) -> int:
    """Read every shard there and compare its checksum; returns how many. Raises DataError at the
    first that differs."""
    storage.check(url)
    sizes = storage.listed(url)
    if MANIFEST not in sizes:
        raise DataError(f"{url} is not a prepared corpus, or not finished.")
    data = storage.read(f"{url}/{MANIFEST}")
    told = {"name": f"{url}/{MANIFEST}", "error": DataError}
    shards = _shards(files.parse_json(data, Manifest, **told))
    for file, shard in shards.items():
        found = f"{google_crc32c.value(storage.read(f'{url}/{file}')):08x}"
        if found != shard.crc32c:
            raise DataError(
                f"{url}/{file} has checksum {found}, but the manifest says {shard.crc32c}."
            )
    return len(shards)


@contextlib.contextmanager
def prepared(name: str, part: bool = False) -> Iterator[Path]:
    """The folder in which a corpus that a person names is prepared: for a URL one in the cache,
    which is kept until the corpus is finished and, at the end of this context, put there: shards
    first, the manifest last. part: of a part, all is put there without a manifest; of a corpus that
    has none, what parts put there is fetched. Raises as ``corpus_folder``."""
    if not storage.is_url(name):
        yield Path(name)
        return
    url = name.rstrip("/")
    storage.check(url, "--out")
    there = storage.listed(url)
    before, stamps = None, {}
    if MANIFEST in there:
        before = storage.read(f"{url}/{MANIFEST}")
        folder = _place(url, before)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {file: s for file, s in there.items() if not _there(folder / file, s)}
        storage.fetch(url, wanted, folder)  # what is damaged or missing is made anew
        stamps = {file: checked.stamp(folder / file) for file in there}
    else:
        folder = storage.cached("corpora", url) / "unfinished" / storage.base(url)
        wanted = {
            file: size for file, size in there.items()
            if not (part and _OF_UNITS.match(file)) and not _there(folder / file, size)
        }  # fmt: skip
        storage.fetch(url, wanted, folder)
    files.show(folder, url)
    try:
        yield folder
    except DataError as error:
        if before is None and folder.exists():
            raise DataError(f"{error} What is unfinished lies in {folder.parent}.") from error
        raise
    here = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if part and not (folder / MANIFEST).exists():
        storage.put(url, here, folder)
        return
    data = (folder / MANIFEST).read_bytes()
    if data == before:
        here = [file for file in here if checked.stamp(folder / file) != stamps.get(file)]
    storage.put(url, [file for file in here if file != MANIFEST], folder)
    storage.put(url, [MANIFEST], folder)
    if before is None:
        storage.remove(url, [file for file in there if _UNFINISHED.match(file)])
        # From here on it is a copy as any other.
        final = _place(url, data)
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(final)
        files.show(final, url)


@contextlib.contextmanager
def text(names: tuple[str, ...]) -> Iterator[list[str]]:
    """Sources as a person names them, each a place on this machine: what a URL names, a file or a
    folder, is fetched, and taken away at the end. Raises as ``corpus_folder``."""
    found, fetched = [], []
    try:
        for name in names:
            if not storage.is_url(name):
                found.append(name)
                continue
            storage.check(name)
            url = name.rstrip("/")
            there = storage.found(url)
            if MANIFEST in there:
                found.append(str(corpus_folder(url)))
                continue
            if not there:
                raise DataError(f"{url} does not exist, or is empty.")
            home = storage.cached("sources", url)
            fetched.append(home)
            place = home / storage.base(url)
            files.show(place, url)
            if "" in there:
                parent, _, file = url.rpartition("/")
                _fetch_text(parent, {file: there[""]}, home)
            else:
                _fetch_text(url, there, place)
            found.append(str(place))
        yield found
    finally:
        for home in fetched:
            shutil.rmtree(home, ignore_errors=True)


def _fetch_text(url: str, there: dict[str, dict], folder: Path) -> None:
    """The copies have times of their own: a preparation that continues knows by them whether a
    source changed."""
    missing = {
        name: int(what["size"] or 0) for name, what in there.items()
        if not (folder / name).is_file() or (folder / name).stat().st_mtime != storage.version(what)
    }  # fmt: skip
    storage.fetch(url, missing, folder)
    for name in missing:
        time = storage.version(there[name])
        os.utime(folder / name, (time, time))
