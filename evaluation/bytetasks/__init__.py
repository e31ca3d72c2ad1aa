"""Tasks about bytes, letters and words, which are made here: nothing is downloaded.

A task is a function that draws a question in a script (``letters``, ``choosing``, ``numbers``). The
questions are the same for all runs, but for how many stand before each: as many as fit a row of
training, up to four.
"""

import functools
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from octavo.configs.checks import ConfigError
from octavo.evaluation.bytetasks import choosing, files, letters, numbers
from octavo.evaluation.bytetasks.asking import (
    CHANCE,
    SHOTS,
    Answers,
    Question,
    Series,
    answers,
    drawn,
    share,
)
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
    "inserting_words": functools.partial(letters.inserting, level=letters.WORDS),
    "deleting_words": functools.partial(letters.deleting, level=letters.WORDS),
    "substituting_words": functools.partial(letters.substituting, level=letters.WORDS),
    "swapping_words": functools.partial(letters.swapping, level=letters.WORDS),
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
ALL = "bytes"
"""Stands for all of them."""


def ours(name: str) -> bool:
    """Whether a name is one of these tasks, or of a task in a file: KIND:PATH (``files``)."""
    return name == ALL or name in TASKS or name.partition(":")[0] in files.KINDS and ":" in name


def check(names: Sequence[str], shots: int | None = None) -> None:
    """Raise ConfigError for a file that is not there or not of its kind, or for more shots than
    there are."""
    for name in names:
        if ":" in name:
            _read(name)
    if shots is not None and shots > SHOTS and any(":" not in name for name in names):
        raise ConfigError(f"--num-fewshot: byte tasks have {SHOTS} or fewer, not {shots}.")


def scripts_of(name: str) -> list[Script]:
    """In which a task is asked."""
    return [script for script in SCRIPTS if script.digits or TASKS[name] not in _OF_NUMBERS]


_OF_NUMBERS = numbers.sums, numbers.aligned_sums, numbers.reversed_sums


@functools.cache
def series_of(name: str, script: Script, noise: float = 0.0) -> Series:
    """The questions of a task in a script, with so much noise."""
    if noise:
        return noised(series_of(name, script), noise)
    task, seed = TASKS[name], zlib.crc32(f"{name} {script.name}".encode())

    def key(one: Question) -> str:
        # Of a word and what it is with letters swapped, whichever is asked for, one is kept.
        return str(sorted(one.asked))

    return drawn(lambda rng: task(rng, script), QUESTIONS, key, seed)


def measure(
    run,
    names: Sequence[str] = (ALL,),
    limit: int | None = None,
    shots: int | None = None,
    **scoring,
) -> list[dict]:
    """Of each task, in each script and in all, with and without noise: a row ``task``, ``script``,
    ``noise``; ``accuracy`` of the choice, ``low`` and ``high`` (95%, Wilson) and ``chance``;
    ``exact`` with ``exact_low`` and ``exact_high`` (its chance is about 0); ``questions``, and
    ``shots`` before each. Of a task in a file: rows as ``files`` says.

    limit: ask so many of each task in each script, the first. shots: so many before each; None:
    four. ``scoring`` as of ``Run.costs``.
    """
    made = [
        each for name in names if ":" not in name for each in (NAMES if name == ALL else [name])
    ]
    rows = _made(run, list(dict.fromkeys(made)), limit, shots, **scoring) if made else []
    for name in names:
        if ":" in name:
            groups = {key: each[:limit] for key, each in _read(name).items()}
            rows += files.KINDS[name.partition(":")[0]][1](run, name, groups, **scoring)
    return rows


def _read(name: str) -> files.Groups:
    return files.read(name, files.KINDS[name.partition(":")[0]][0])


def _made(
    run, names: list[str], limit: int | None, shots: int | None, **scoring
) -> list[dict]:  # fmt: skip
    cells = [
        (name, noise, script)
        for name in names
        for noise in NOISE
        for script in scripts_of(name)
    ]  # fmt: skip
    series = []
    for name, noise, script in cells:
        one = series_of(name, script, noise)
        series.append(Series(one.shots[:shots], one.questions[:limit]))
    found: dict[tuple[str, float], dict[str, Answers]] = {}
    for (name, noise, script), one in zip(cells, answers(run, series, **scoring), strict=True):
        found.setdefault((name, noise), {})[script.name] = one
    return [
        _row(name, script, noise, each)
        for (name, noise), by_script in found.items()
        for script, each in [
            ("all", [*by_script.values()]),
            *((k, [v]) for k, v in by_script.items()),
        ]
    ]


def _row(name: str, script: str, noise: float, each: list[Answers]) -> dict:
    choice, exact = np.concatenate([[one.choice, one.exact] for one in each], axis=1)
    return {
        "task": name, "script": script, "noise": noise, **share(choice), "chance": CHANCE,
        **share(exact, ("exact", "exact_low", "exact_high")),
        "questions": len(choice), "shots": float(np.mean([one.shots for one in each])),
    }  # fmt: skip
