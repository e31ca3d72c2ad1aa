"""Tasks about bytes, letters and words, which are made here: nothing is downloaded.

A task is a function that draws a question in a script (``letters``, ``choosing``, ``numbers``). The
questions are the same for all runs, but for how many stand before each: as many as fit a row of
training, up to four.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from octavo.evaluation.bytetasks import choosing, letters, numbers
from octavo.evaluation.bytetasks.asking import CHANCE, Answers, Question, Series, drawn, wilson
from octavo.evaluation.bytetasks.asking import answers as answered
from octavo.evaluation.bytetasks.noised import noised
from octavo.evaluation.bytetasks.scripts import SCRIPTS, Script

QUESTIONS = 100
"""Of each task in each script."""
NOISE = (0.0, 0.1)
"""Shares of characters that are changed."""

Task = Callable[[np.random.Generator, Script], Question]

TASKS: dict[str, Task] = {
    "spelling": letters.spelling,
    "joining": letters.joining,
    "inserting": letters.inserting,
    "deleting": letters.deleting,
    "substituting": letters.substituting,
    "swapping": letters.swapping,
    "reversing": letters.reversing,
    "inserting_words": partial(letters.inserting, level=letters.WORDS),
    "deleting_words": partial(letters.deleting, level=letters.WORDS),
    "substituting_words": partial(letters.substituting, level=letters.WORDS),
    "swapping_words": partial(letters.swapping, level=letters.WORDS),
    "reversing_words": letters.reversing_words,
    "counting": choosing.counting,
    "containing": choosing.containing,
    "rhymes": choosing.rhymes,
    "similarity": choosing.similarity,
    "sums": numbers.sums,
    "aligned_sums": numbers.aligned_sums,
    "reversed_sums": numbers.reversed_sums,
}
NAMES = tuple(TASKS)


def scripts_of(name: str) -> list[Script]:
    """In which a task is asked."""
    of_numbers = name in ("sums", "aligned_sums", "reversed_sums")
    return [script for script in SCRIPTS if script.digits or not of_numbers]


def series_of(name: str, script: Script, noise: float = 0.0) -> Series:
    """The questions of a task in a script, with so much noise."""
    return noised(drawn(partial(_drawn, TASKS[name], script), QUESTIONS), noise)


def _drawn(task: Task, script: Script, rng: np.random.Generator) -> Question:
    return task(rng, script)


def measure(run, names: Sequence[str] = NAMES, **scoring) -> list[dict]:
    """Of each task, in each script and in all, with and without noise: a row ``task``, ``script``,
    ``noise``; ``accuracy`` of the choice, ``low`` and ``high`` (95%, Wilson) and ``chance``;
    ``exact`` with ``exact_low`` and ``exact_high`` (its chance is about 0); ``questions``, and
    ``shots`` before each. ``scoring`` as of ``run.continuations.continuations``."""
    cells = [
        (name, noise, script)
        for name in names
        for noise in NOISE
        for script in scripts_of(name)
    ]  # fmt: skip
    series = [series_of(name, script, noise) for name, noise, script in cells]
    found: dict[tuple[str, float], dict[str, Answers]] = {}
    for (name, noise, script), one in zip(cells, answered(run, series, **scoring), strict=True):
        found.setdefault((name, noise), {})[script.name] = one
    rows = []
    for (name, noise), by_script in found.items():
        for script, each in {"all": list(by_script.values())} | {
            script: [one] for script, one in by_script.items()
        }.items():
            rows.append(_row(name, script, noise, each))
    return rows


def _row(name: str, script: str, noise: float, each: list[Answers]) -> dict:
    choice, exact = np.concatenate([[one.choice, one.exact] for one in each], axis=1)
    row: dict = {"task": name, "script": script, "noise": noise}
    low, high = wilson(float(choice.sum()), len(choice))
    row |= {"accuracy": float(choice.mean()), "low": low, "high": high, "chance": CHANCE}
    low, high = wilson(float(exact.sum()), len(exact))
    row |= {"exact": float(exact.mean()), "exact_low": low, "exact_high": high}
    return row | {"questions": len(choice), "shots": float(np.mean([one.shots for one in each]))}
