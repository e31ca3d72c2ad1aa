"""Scores that a run's folder holds: what was computed once is not computed again.

``RUN/scores/MEASURE-KEY.json`` is what a measure said, and all that it depends on, of which the key
is a digest: the checkpoint, byte for byte, and what lies beside it; the text; the settings; the
code. Whatever of it changes, the score is another.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from octavo import files, process, storage
from octavo.data.heldout import Held
from octavo.data.manifest import read_manifest
from octavo.data.pipeline import folders_of
from octavo.run.directory import CONFIG, MARKER, TOKENIZER
from octavo.storage import is_url
from octavo.tokenizers.interface import digest_of

FOLDER = "scores"
_CODE = (
    "batch.py", "compiled.py", "configs", "data", "decoding", "evaluation", "model", "run",
    "tokenizers",
)  # fmt: skip
"""Files and folders of the code that scores depend on."""
_OPTIMIZER = "opt/"


def checkpoint_digest(name: str, folder: Path, step: int) -> str:
    """Of a run's checkpoint and what lies beside it, all but the optimizer's state. name: as a
    person gave it; folder: where it lies on this machine, without arrays if the name is a URL: of
    these, what the store says of them. Raises OSError."""
    inside = f"checkpoints/{step}"
    if is_url(name):
        there = storage.found(f"{name.rstrip('/')}/{inside}")
        arrays = [
            f"{path} {about['size']} {storage.version(about)}".encode()
            for path, about in sorted(there.items()) if not path.startswith(_OPTIMIZER)
        ]  # fmt: skip
    else:
        arrays = _contents(folder / inside)
    beside = (_contents(folder / MARKER), _files(folder / name for name in (CONFIG, TOKENIZER)))
    return digest_of((*arrays, *beside[0], *beside[1]))


def _contents(folder: Path) -> Iterator[bytes]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    for name in names:
        path = folder / name
        if path.is_file() and not name.startswith(_OPTIMIZER):
            yield name.encode()
            yield from _files([path])


def _files(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with open(path, "rb") as file:
            yield hashlib.file_digest(file, functools.partial(hashlib.blake2b)).digest()


def text_digest(held: Iterable[Held]) -> str:
    """Of documents, and where each is from."""
    return digest_of(
        part for one in held for part in (f"{one.corpus}\n{one.label}".encode(), one.text)
    )


def corpora_digest(source: str) -> str:
    """Of what corpora say of themselves, their checksums among it. Raises DataError."""
    manifests = (read_manifest(folder).to_json() for folder in folders_of(source))
    return digest_of(json.dumps(manifest, sort_keys=True).encode() for manifest in manifests)


@functools.cache
def code_digest() -> str:
    """Of the code that scores depend on."""
    root = Path(__file__).parents[1]
    paths = (path for name in _CODE for path in (root / name, *sorted((root / name).rglob("*.py"))))
    return digest_of(_files(path for path in paths if path.suffix == ".py"))


def path_of(run: str, about: dict[str, Any]) -> str:
    """Where a run keeps the score of all that this says."""
    key = digest_of([json.dumps(about, sort_keys=True).encode()])[:20]
    return f"{run.rstrip('/')}/{FOLDER}/{about['measure']}-{key}.json"


def find(path: str, about: dict[str, Any]) -> dict[str, Any] | None:
    """What is kept: ``rows``, and what else was kept with them; None if nothing is. What is
    damaged is said, and is as if it were not there."""
    try:
        data = storage.read(path) if is_url(path) else files.read(path)
    except OSError:
        return None
    try:
        found = files.parse_json(data, dict, name=path)
        rows = found.get("rows")
        if found.get("about") == about and isinstance(rows, list) and rows:
            return found
    except files.FileError:
        pass
    process.warn(f"{files.shown(path)} is damaged: it is computed again.")
    return None


def keep(path: str, about: dict[str, Any], rows: list[dict], **more: Any) -> None:
    """Write what ``find`` gives. Where nothing can be written, nothing is."""
    try:
        if not is_url(path):
            Path(path).parent.mkdir(exist_ok=True)
        storage.write_json(path, {"about": about, "rows": rows, **more})
    except OSError as error:
        process.warn(f"the score is not kept in {files.shown(path)}: {error.strerror}.")
