"""What makes ``lm_eval --model octavo`` work: lm-eval asks no other package for its models.

The package installs octavo-lm-eval.pth beside itself, a line that every start of Python runs. It
waits for lm-eval's list of models to be imported, and only then is this file read.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

MODEL = "octavo.evaluation.harness:OctavoLM"


def spec(name: str) -> ModuleSpec | None:
    """Of the module with lm-eval's list of models, which will then have ours. Whoever waited for it
    waits no longer."""
    sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__name__", "") != "OctavoInLmEval"]
    found = importlib.util.find_spec(name)
    if found is not None and found.loader is not None:
        execute = found.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            add(module)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
    return found


def add(models: ModuleType) -> None:
    """Put ours into lm-eval's list, and to what knows models by it."""
    from lm_eval.api.registry import model_registry  # pyright: ignore[reportMissingImports]

    models.MODEL_MAPPING.setdefault("octavo", MODEL)
    if "octavo" not in model_registry:
        model_registry.register("octavo", target=MODEL)
