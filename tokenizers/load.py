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
    data = dict(data)
    asked = data.pop("asked", None)
    wanted = found.fields_of(data)
    if set(data) - {"scheme", *found.optional} != set(wanted):
        given = ", ".join(sorted(set(data) - {"scheme"}))
        raise ValueError(
            f"a tokenizer {name} has {', '.join(wanted) or 'no other field'}, found {given}"
        )
    tokenizer = found.from_json(data)
    if asked is not None:
        if not isinstance(asked, str) or not hasattr(tokenizer, "asked"):
            raise ValueError(f"asked is {asked!r:.40}")
        tokenizer.asked = asked  # type: ignore[attr-defined]
    return tokenizer


def load(path: Path) -> "Tokenizer":
    """Read a tokenizer file: ours, or one of others (``parts/foreign.py``). Raises ValueError if it
    is none or loses text, OSError if it cannot be read."""
    from octavo.tokenizers.parts import foreign

    data = files.read(path)
    try:
        found = foreign.read(data, Path(path).name)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used as a tokenizer: {error}") from error
    try:
        if found is None and data.lstrip()[:1] not in (b"{", b"["):
            raise ValueError("it is none of ours, of Hugging Face, tiktoken or sentencepiece")
        fields = dict[str, Any]
        return found or from_json(files.parse_json(data, fields, name=str(path), error=ValueError))
    except ValueError as error:
        what = str(error).removeprefix(f"{path} ").rstrip(".")
        raise ValueError(f"{path} is not a tokenizer file: {what}") from error


def save(tokenizer: "Tokenizer", path: Path) -> None:
    """Write a tokenizer file that ``load`` reads."""
    asked = getattr(tokenizer, "asked", "")
    files.write(path, files.json_text(tokenizer.to_json() | ({"asked": asked} if asked else {})))
