"""Parts that declare themselves: a kind of part is a file, found by its name, with one class in it.

The class is its own record. What asks about a kind (checks, FLOPs, help, losses) asks the class.
"""

import inspect
from typing import Any, TypeVar

from octavo.configs.checks import ConfigError
from octavo.configs.kinds import import_file, kinds

Part = TypeVar("Part")


def find(base: type[Part], folder: str, kind: str) -> type[Part]:
    """The class of a kind: the one in ``model/FOLDER/KIND.py`` that is a ``base``. Raises
    ConfigError if there is no such kind, or its file cannot be used."""
    if kind not in kinds(folder):
        raise ConfigError(f"no {folder} {kind!r}; there are {', '.join(kinds(folder))}.")
    module = import_file(f"model.{folder.replace('/', '.')}.{kind}")
    parts = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    ]
    file = f"model/{folder}/{kind}.py"
    if len(parts) != 1:
        raise ConfigError(f"{file} has one class that is a {base.__name__}, not {len(parts)}.")
    if inspect.isabstract(parts[0]):
        lacking = getattr(parts[0], "__abstractmethods__", ())
        raise ConfigError(f"{file} lacks {', '.join(sorted(lacking))}.")
    return parts[0]


def unmet(needs: dict[str, tuple | range], settings: Any) -> str | None:
    """What of ``needs`` (values that settings may have) the settings lack, as text: "pool last and
    unpool repeat"; None if nothing."""
    if all(getattr(settings, name) in allowed for name, allowed in needs.items()):
        return None
    return " and ".join(f"{name} {_either(allowed)}" for name, allowed in needs.items())


def _either(allowed: Any) -> str:
    if isinstance(allowed, range):
        return f"of {allowed.start} or more"
    return " or ".join(str(value) for value in allowed)
