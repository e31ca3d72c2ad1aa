"""Tokenization schemes by name, and tokenizers from a file and back to a file.

Every file beside this one but ``NONE`` is a scheme of its name; a new one is found. One that is
broken is in the way of nothing but itself.
"""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo import files

if TYPE_CHECKING:  # what shows a help text has no use for numpy
    from octavo.tokenizers.interface import Tokenizer

NONE = ("interface", "load")
_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All schemes."""
    return sorted(m.name for m in pkgutil.iter_modules([str(_FOLDER)]) if m.name not in NONE)


def usages() -> dict[str, str]:
    """What the command line takes, ``SCHEME`` or ``SCHEME:ARGUMENT``, each with a line of help.

    Read without running the files, so that no library of theirs is imported for it."""
    found: dict[str, str] = {}
    for name in names():
        try:
            found |= _usage(name)
        except Exception as error:
            found[name] = f"cannot be used: {error}"
    return found


def _usage(name: str) -> dict[str, str]:
    """``usage`` of the class in a file whose ``scheme`` is the file's name."""
    path = _FOLDER / f"{name}.py"
    for node in ast.parse(path.read_bytes(), path.name).body:
        record = {
            ast.unparse(target): line.value
            for line in getattr(node, "body", [])
            if isinstance(line, ast.Assign)
            for target in line.targets
        }
        if {"scheme", "usage"} <= set(record) and ast.literal_eval(record["scheme"]) == name:
            usage = ast.literal_eval(record["usage"])
            return {str(spec): str(line) for spec, line in usage.items()}
    raise ValueError(f"tokenizers/{name}.py has no Tokenizer with scheme {name!r} and its usage")


def scheme(name: str) -> "type[Tokenizer]":
    """The class of a scheme. Raises ValueError if there is none, or its file is broken."""
    from octavo.tokenizers.interface import Tokenizer

    if name not in names():
        known = ", ".join(names())
        raise ValueError(f"unknown tokenization scheme {name!r:.40}; known: {known}")
    try:
        module = importlib.import_module(f"octavo.tokenizers.{name}")
    except Exception as error:
        raise ValueError(f"tokenizers/{name}.py cannot be used: {files.reason(error)}") from error
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Tokenizer):
            if getattr(found, "scheme", None) == name:
                lacking = sorted(found.__abstractmethods__) if inspect.isabstract(found) else []
                if not hasattr(found, "usage"):
                    lacking.append("usage")
                if lacking:
                    raise ValueError(f"tokenizers/{name}.py lacks {', '.join(lacking)}")
                return found
    raise ValueError(f"tokenizers/{name}.py has no Tokenizer with scheme {name!r}")


def from_json(data: dict) -> "Tokenizer":
    """The tokenizer that wrote ``data`` with ``to_json``. Raises ValueError if none did."""
    name = data.get("scheme") if isinstance(data, dict) else None
    found = scheme(str(name))
    if set(data) - {"scheme"} != set(found.fields):
        wanted = ", ".join(found.fields) or "no other field"
        given = ", ".join(sorted(set(data) - {"scheme"}))
        raise ValueError(f"a tokenizer {name} has {wanted}, found {given}")
    return found.from_json(data)


def load(path: Path) -> "Tokenizer":
    """Read a tokenizer file. Raises ValueError if it is not one, OSError if it cannot be read."""
    try:
        return from_json(files.read_json(path, dict[str, Any], error=ValueError))
    except ValueError as error:
        what = str(error).removeprefix(f"{path} ").rstrip(".")
        raise ValueError(f"{path} is not a tokenizer file: {what}") from error


def save(tokenizer: "Tokenizer", path: Path) -> None:
    """Write a tokenizer file that ``load`` reads."""
    files.write(path, files.json_text(tokenizer.to_json()))
