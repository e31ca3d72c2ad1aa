"""What a person tells a script: numbers in their ranges, files to read, files to write. What cannot
work raises ConfigError here, before any work."""

import math
import os
import typing
from dataclasses import dataclass
from pathlib import Path

from octavo import files, storage
from octavo.configs.checks import MOST, ConfigError


@dataclass(frozen=True)
class Range:
    """What a number among the arguments may be, both ends included: ``Annotated[int, Range(1)]``.
    Numbers without one are finite, and fit 64 bits."""

    least: int = -(2**63)
    most: int = MOST


_ANY = Range(most=2**63 - 1)


def check_numbers(arguments: object) -> None:
    """Raise ConfigError for a field of a dataclass that is a number out of its range."""
    for name, hint in typing.get_type_hints(type(arguments), include_extras=True).items():
        ranges = [found for found in getattr(hint, "__metadata__", ()) if isinstance(found, Range)]
        _check_number(name, getattr(arguments, name), *(ranges or [_ANY]))


def _check_number(name: str, value: object, allowed: Range) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{flag} must be a finite number, not {value}.")
    if not allowed.least <= value <= allowed.most:
        raise ConfigError(f"{flag} lies in [{allowed.least}, {allowed.most}], not {value!s:.40}.")


def read_file(path: str, name: str) -> bytes:
    """All of a file that a person named; ``name`` says as what. Raises ConfigError if there is
    none, or it is something else."""
    try:
        if storage.is_url(path):
            storage.check(path, name)
            return storage.read(path)
        return files.read(path)
    except OSError as error:
        raise ConfigError(f"{name} {path} cannot be read: {error.strerror}.".strip()) from error


def check_output(path: str, name: str, *inputs: str | Path | None) -> Path | str:
    """The file or object that a person wants written, for ``storage.write``. Raises ConfigError,
    before any work, if writing it could only fail, or would overwrite one of the inputs: files, or
    folders of runs and corpora."""
    if storage.is_url(path):
        storage.check(path, name)
        if any(_holds_url(str(one), path) for one in inputs if one):
            raise ConfigError(f"{name} {path} is what this command reads; name another file.")
        return path
    out, shown = Path(path), f"{name} {path}".strip()
    try:
        files.check_regular(out)
        if not out.parent.is_dir():
            raise ConfigError(f"there is no folder {out.parent} to write {out.name} to.")
        if any(_holds(Path(one), out) for one in inputs if one):
            raise ConfigError(f"{shown} is what this command reads; name another file.")
        files.probe(out)
    except OSError as error:
        raise ConfigError(f"{shown} cannot be written: {error.strerror}.") from error
    return out


def check_outputs(outputs: dict[str, str | None], *inputs: str | Path | None) -> None:
    """``check_output`` of all that are asked for, by their flags."""
    for name, path in outputs.items():
        if path is not None:
            check_output(path, name, *inputs)


_PARTS = (
    "config.json", "tokenizer.json", "metrics.jsonl", "samples.jsonl", "results.json",
    "sample.txt", "checkpoints", "tensorboard", "marker", "manifest.json", "subwords.json",
    "goodput.jsonl", "profile", "train.documents", "scores",
)  # fmt: skip
"""What runs and corpora consist of, beside shards."""


def _holds_url(one: str, out: str) -> bool:
    """The same of URLs."""
    inside = out.removeprefix(one.rstrip("/"))
    return out.startswith(one.rstrip("/")) and (
        not inside or inside.startswith("/") and inside.strip("/").split("/")[0] in _PARTS
    )


def _holds(one: Path, out: Path) -> bool:
    """Whether an input is the very file ``out``, or a folder that it is a part of."""
    if not os.path.exists(one):
        return False
    if not one.is_dir():
        return out.exists() and one.samefile(out)
    at, folder = Path(os.path.realpath(out)), os.path.realpath(one)
    if not at.is_relative_to(folder):
        return False
    inside = at.relative_to(folder)
    return inside.parts[0] in _PARTS or inside.suffix == ".array_record"
