"""Optimizers, one a file: a new file in this folder is found by its name, ``optimizer.name``.

It has a function

    transforms(config: OptimizerConfig, rate: optax.Schedule) -> dict of optax transformations

with one for "matrix" and one for "vector" parameters (norms, biases). One under the file's own name
is for the matrices inside the stack of blocks, ``[layers, inputs, outputs]``; without it they are
"matrix", too. Statistics may have any shape: where it is not that of the parameter, every device
has all of it.
"""

import difflib
import pkgutil
from types import ModuleType

from octavo.configs.checks import ConfigError
from octavo.configs.kinds import import_file


def names() -> tuple[str, ...]:
    """Of all there are; nothing is imported."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The file of an optimizer. Raises ConfigError if there is none, or it cannot be used."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        known = ", ".join(names())
        raise ConfigError(f"no optimizer.name {name!r}.{hint} Optimizers: {known}.")
    module = import_file(f"training.optimizers.{name}")
    if not hasattr(module, "transforms"):
        raise ConfigError(f"training/optimizers/{name}.py lacks transforms.")
    return module
