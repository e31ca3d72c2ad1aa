"""Presets by name: every module here but ``NONE`` has ``presets()``, from a name to a config."""

import importlib
import pkgutil

from octavo.configs.schema import Config

NONE = ("schema", "model", "kinds", "checks")

BROKEN: dict[str, Exception] = {}
"""Files of presets that cannot be used, and why: the others can."""


def presets() -> dict[str, Config]:
    """Every preset's name and config; a new file in this folder is found."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in NONE):
        try:
            new = importlib.import_module(f"octavo.configs.{module}").presets()
            if again := found.keys() & new:
                raise ValueError(f"there is a preset {min(again)} already")
            found |= new
        except Exception as error:  # of a file that somebody is writing
            BROKEN[f"configs/{module}.py"] = error
    return found
