"""Measures of a run, one a file: a new file in this folder is found by its name.

It begins with a sentence that says what is measured, and has a function

    measure(run, documents, arguments, **scoring) -> list of rows for a table (dicts of like keys)

``documents`` are bytes; with ``HELD = True`` in the file, they come with their labels
(``data.heldout.Held``), with ``PARALLEL = True`` they are the lines of each language of
``--parallel``, and with ``TEXTS = False`` there are none. A value of a row that is a dict of rows,
by name, becomes a table of its own; a list ``document_nats`` of the only row is not shown: what
each document cost, by which runs are compared. With ``KEPT = True`` the rows are kept in the run's
folder (evaluation/kept.py) and taken from there while what the measure is given, the checkpoint and
the code are the same: of a measure that depends on nothing else, the corpora that the run was
trained on excepted (then also ``READS_CORPORA = True``), and writes nothing.
``arguments`` are those of evaluate.py, and ``scoring`` is for ``run.score``. The file may also have
``check(arguments, inputs)``, which raises ConfigError before a run is opened if what it would write
cannot be written, or would overwrite an input; and ``choose(held, most_bytes)``, which of the
documents, or what beginnings of them, are measured: ``--most-bytes`` is then for it.
"""

import ast
import pkgutil
from pathlib import Path
from types import ModuleType

from octavo.configs.checks import ConfigError
from octavo.configs.kinds import import_file
from octavo.files import reason

NAMES = tuple(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The file of a measure. Raises ConfigError if it cannot be used."""
    module = import_file(f"evaluation.measures.{name}")
    if not hasattr(module, "measure"):
        raise ConfigError(f"evaluation/measures/{name}.py lacks measure.")
    return module


def sentences() -> str:
    """What each measures, for a help text; nothing is imported."""
    found = {}
    for name in NAMES:
        path = Path(__path__[0]) / f"{name}.py"
        try:
            tree = ast.parse(path.read_bytes(), path.name)
        except SyntaxError as error:  # in the way of this measure alone
            found[name] = f"cannot be used: {reason(error)}."
        else:
            found[name] = (ast.get_docstring(tree) or "").partition("\n\n")[0]
    return " ".join(f"{name}: {sentence}" for name, sentence in found.items())
