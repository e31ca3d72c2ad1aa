"""The kinds of parts there are. Each is a file in a folder of ``model/``: the file's name is its
own, and the first sentence of its docstring its help. Nothing is imported to know them."""

import functools
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from octavo.configs.checks import ConfigError
from octavo.files import reason

_MODEL = Path(__file__).parents[1] / "model"


@functools.cache
def kinds(folder: str) -> tuple[str, ...]:
    """The names of all kinds of a part, as "units/segmenters"."""
    return tuple(sorted(p.stem for p in (_MODEL / folder).glob("*.py") if p.stem[0] != "_"))


def one_of(folder: str, *others: str) -> Any:
    """The type of a setting that names a kind of part, or one of ``others``."""
    return Literal[(*others, *kinds(folder))]


def help_of(folder: str, what: str) -> str:
    """``what``, then each kind and what it does."""
    return f"{what} " + " ".join(f"{kind}: {_summary(folder, kind)}" for kind in kinds(folder))


def _summary(folder: str, kind: str) -> str:
    text = (_MODEL / folder / f"{kind}.py").read_text(encoding="utf-8")
    found = re.match(r'"""(.*?)(?:\n\n|""")', text, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def import_file(name: str) -> ModuleType:
    """The module of a file that somebody may be writing, as "model.mixers.attention". Raises
    ConfigError if it cannot be imported."""
    try:
        return importlib.import_module(f"octavo.{name}")
    except Exception as error:
        file = f"{name.replace('.', '/')}.py"
        raise ConfigError(f"{file} cannot be used: {reason(error)}.") from error
