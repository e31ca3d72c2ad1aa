"""Byte tasks (``bytetasks``: bytes, spelling, ..., or files: blimp:DIR, lambada:FILE, cute:DIR,
execute:DIR), and tasks of lm-eval, EleutherAI's harness (the extra ``tasks``): --tasks A,B.

Values and standard errors of the harness's tasks are its own, of a run as evaluation/harness.py
reads it.
"""

import contextlib
import difflib
import functools
import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from octavo.configs.checks import ConfigError
from octavo.evaluation import bytetasks

TEXTS = False


def check(arguments, inputs) -> None:
    """Raise ConfigError for names that are no tasks, before a run is opened."""
    made, names = _names(arguments)
    bytetasks.check(made, arguments.num_fewshot)
    if not names:
        return
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            f"{', '.join(names)} is no byte task ({bytetasks.ALL}, {', '.join(bytetasks.NAMES)}), "
            "and lm-eval, which has others, is not here: pip install 'octavo[tasks]'."
        )
    if arguments.include_path is not None and not Path(arguments.include_path).is_dir():
        raise ConfigError(f"--include-path {arguments.include_path} is no folder.")
    known = _manager(arguments.include_path).all_tasks
    for name in names:
        if name not in known:
            like = difflib.get_close_matches(name, [*bytetasks.NAMES, *known], 3)
            raise ConfigError(
                f"--tasks: there is no task {name!r}"
                + (f"; alike: {', '.join(like)}." if like else "; lm_eval ls tasks lists them.")
            )


def measure(run, documents: list, arguments, **scoring) -> list[dict]:
    """Rows of byte tasks as ``bytetasks.measure`` says; then those of the harness: one for each
    metric of each task, ``task``, ``metric``, ``value``, ``stderr`` (None: there is none),
    ``shots``, ``documents`` and the task's ``version``; where answers are taken out of what was
    generated, by which ``filter``."""
    made, names = _names(arguments)
    about = {} if arguments.heads is None else {"heads": arguments.heads}
    about |= {"exact": arguments.exact, **scoring}
    rows: list[dict] = []
    if made:
        rows += bytetasks.measure(run, made, arguments.limit, arguments.num_fewshot, **about)
    if names:
        rows += _of_harness(run, names, arguments, **about)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _of_harness(run, names: list[str], arguments, **about) -> list[dict]:
    import lm_eval  # pyright: ignore[reportMissingImports]

    from octavo.evaluation.harness import OctavoLM

    model = OctavoLM(run, **about)
    with _quiet():
        manager = _manager(arguments.include_path)
        tasks = _loaded(manager, names)
        evaluate: Any = lm_eval.simple_evaluate
        found = evaluate(
            model, tasks=tasks, num_fewshot=arguments.num_fewshot, limit=arguments.limit,
            task_manager=manager, log_samples=False, bootstrap_iters=BOOTSTRAP,
        )  # fmt: skip
    rows = list(_rows(found))
    if {row["filter"] for row in rows} == {"none"}:
        return [{name: value for name, value in row.items() if name != "filter"} for row in rows]
    return rows


BOOTSTRAP = 1000
"""Draws, for standard errors of what is no mean."""


def _names(arguments) -> tuple[list[str], list[str]]:
    """Byte tasks, and those of the harness."""
    names = [name.strip() for name in (arguments.tasks or "").split(",") if name.strip()]
    if not names:
        raise ConfigError("tasks needs their names: --tasks spelling,arc_easy,lambada_openai.")
    names = list(dict.fromkeys(names))
    made = [name for name in names if bytetasks.ours(name)]
    return made, [name for name in names if name not in made]


@functools.lru_cache(maxsize=2)
def _manager(include_path: str | None):
    """What knows the tasks; it reads thousands of files."""
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    return TaskManager(include_path=include_path)


def _loaded(manager, names: list[str]) -> list:
    """The tasks and groups. Raises ConfigError for one whose data is not there."""
    found = []
    for name in names:
        try:
            loaded = manager.load(name)
        except Exception as error:  # whatever its data set, or code beside it, raises
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"the task {name} cannot be loaded: {first:.300}") from error
        found += loaded.get("groups", {}).values() or loaded["tasks"].values()
    return found


def _rows(found: dict) -> Iterator[dict]:
    for task, values in found["results"].items():
        for key, value in values.items():
            metric, comma, by = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            stderr = values.get(f"{metric}_stderr,{by}")
            counts = found.get("n-samples", {}).get(task, {})
            yield {
                "task": task,
                "metric": metric,
                "filter": by,
                "value": value,
                "stderr": stderr if isinstance(stderr, float) else None,
                "shots": found.get("n-shot", {}).get(task),
                "documents": counts.get("effective"),
                "version": str(found.get("versions", {}).get(task, "")),
            }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the harness says of each task; standard output is for the table."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
