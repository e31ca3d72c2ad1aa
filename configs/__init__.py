"""Presets by name: every module here but ``NONE`` has ``presets()``, from a name to a config.

A line ``NAME: what it is.`` in a module's docstring (or ``NAME, NAME: ...``) describes its presets
to who lists them, and ``MINUTES``, where there is one, says how long they train."""

import dataclasses
import importlib
import pkgutil
import re
from dataclasses import dataclass
from types import ModuleType

from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config

NONE = ("schema", "model", "kinds", "checks")

BROKEN: dict[str, BaseException] = {}
"""Files of presets that cannot be used, and why: the others can."""


_DESCRIPTION = re.compile(r"^([\w, -]+): (.+(?:\n(?![\w, -]+: ).+)*)", re.MULTILINE)
"""A line that begins with names, and what goes on from it."""


@dataclass(frozen=True)
class Family:
    """The presets of one file."""

    title: str
    presets: dict[str, Config]
    about: dict[str, str]
    """A sentence of each that is described."""
    minutes: dict[str, float]
    """Of training, where that was measured (docs/models.md)."""


def presets() -> dict[str, Config]:
    """Every preset's name and config; a new file in this folder is found."""
    return {name: config for family in families() for name, config in family.presets.items()}


def families() -> list[Family]:
    """The presets, file by file."""
    found: list[Family] = []
    names: dict[str, Config] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in NONE):
        try:
            file = importlib.import_module(f"octavo.configs.{module}")
            own = file.presets()
            _check(own, names)
            own = {name: dataclasses.replace(config, preset=name) for name, config in own.items()}
            found.append(_family(file, own))
            names |= own
        except (Exception, SystemExit) as error:  # of a file that somebody is writing
            BROKEN[f"configs/{module}.py"] = error
    return found


def _family(file: ModuleType, own: dict[str, Config]) -> Family:
    text = file.__doc__ or ""
    title = _sentence(text.partition("\n\n")[0]).partition(":")[0]
    about = {}
    for names, told in _DESCRIPTION.findall(text):
        about |= {name: _sentence(told) for name in names.split(", ") if name in own}
    for name in own.keys() - about.keys():
        smaller, dash, size = name.rpartition("-")
        if dash and smaller in about:
            about[name] = f"{smaller} at the FLOPs per byte of flat-{size}"
    return Family(title, own, about, getattr(file, "MINUTES", {}))


def _sentence(text: str) -> str:
    """The first one, without who published what it tells of, and when."""
    text = re.sub(r"\s*\([^()]*\b(19|20)\d\d\b[^()]*\)", "", " ".join(text.split()))
    return re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip(".")


def _check(own: dict[str, Config], found: dict[str, Config]) -> None:
    """Raise ConfigError unless these are presets, with names of their own."""
    for name, config in own.items():
        if not isinstance(name, str) or not isinstance(config, Config):
            raise ConfigError(f"presets() gives configs by name, not {config!r:.60} as {name!r}")
        if name in found:
            raise ConfigError(f"there is a preset {name!r} already")
