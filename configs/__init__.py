"""Presets by name: every module here but ``NONE`` has ``presets()``, from a name to a config."""

import importlib
import pkgutil

from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config

NONE = ("schema", "model", "kinds", "checks")

BROKEN: dict[str, BaseException] = {}
"""Files of presets that cannot be used, and why: the others can."""


def presets() -> dict[str, Config]:
    """Every preset's name and config; a new file in this folder is found."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in NONE):
        try:
            own = importlib.import_module(f"octavo.configs.{module}").presets()
            _check(own, found)
            found |= own
        except (Exception, SystemExit) as error:  # of a file that somebody is writing
            BROKEN[f"configs/{module}.py"] = error
    return found


def _check(own: dict[str, Config], found: dict[str, Config]) -> None:
    """Raise ConfigError unless these are presets, with names of their own."""
    for name, config in own.items():
        if not isinstance(name, str) or not isinstance(config, Config):
            raise ConfigError(f"presets() gives configs by name, not {config!r:.60} as {name!r}")
        if name in found:
            raise ConfigError(f"there is a preset {name!r} already")
