"""Sums of two numbers of three digits: as one writes them, with digits that are aligned, and from
the last digit to the first. Wrong: a digit is another, but not the first, of which some come more
often."""

from collections.abc import Callable

import numpy as np

from octavo.evaluation.bytetasks.asking import Question, others
from octavo.evaluation.bytetasks.scripts import Script


def sums(
    rng: np.random.Generator, script: Script, write: Callable[[str], str] = str
) -> Question:  # fmt: skip
    """write: digits as they are shown."""
    one, other = rng.integers(100, 1000, 2).tolist()
    answer = f"{one + other}"

    def changed() -> str:
        at = int(rng.integers(1, len(answer)))
        return f"{answer[:at]}{rng.integers(10)}{answer[at + 1 :]}"

    wrong = others(answer, changed)
    shown = [script.number(write(n)) for n in (str(one), str(other), answer, *wrong)]
    return Question(f"{shown[0]} + {shown[1]} =", f" {shown[2]}", tuple(f" {n}" for n in shown[3:]))


def aligned_sums(rng: np.random.Generator, script: Script) -> Question:
    """A space between digits, all filled up to four: what is added stands in a column."""
    return sums(rng, script, lambda number: " ".join(number.rjust(4, "0")))


def reversed_sums(rng: np.random.Generator, script: Script) -> Question:
    """From the last digit to the first: each needs no more than what stands before it."""
    return sums(rng, script, lambda number: number[::-1])
