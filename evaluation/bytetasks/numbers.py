"""Sums of two numbers of three digits: as one writes them, with digits that are aligned, and from
the last digit to the first. Wrong: a digit is another, but not the first, of which some come more
often; any of the answers would be right for another second number, with the same probability."""

from collections.abc import Callable

import numpy as np

from octavo.evaluation.bytetasks.asking import Question, others
from octavo.evaluation.bytetasks.scripts import Script


def sums(
    rng: np.random.Generator, script: Script, write: Callable[[str], str] = str
) -> Question:  # fmt: skip
    """write: digits as they are shown."""
    while True:
        one, other = rng.integers(100, 1000, 2).tolist()
        each = [str(one + other), *other_sums(rng, one + other)]
        right, *wrong = (each[i] for i in rng.permutation(len(each)).tolist())
        if all(100 <= int(answer) - one < 1000 for answer in each):
            break
    one, other, answer, *rest = (
        script.number(write(n)) for n in (str(one), str(int(right) - one), right, *wrong)
    )
    return Question(f"{one} + {other} =", f" {answer}", tuple(f" {n}" for n in rest))


def other_sums(rng: np.random.Generator, right: int) -> list[str]:
    """With a digit that is another, but not the first."""
    answer = str(right)

    def changed() -> str:
        at = int(rng.integers(1, len(answer)))
        return f"{answer[:at]}{rng.integers(10)}{answer[at + 1 :]}"

    return others(answer, changed)


def aligned_sums(rng: np.random.Generator, script: Script) -> Question:
    """A space between digits, all filled up to four: what is added stands in a column."""
    return sums(rng, script, lambda number: " ".join(number.rjust(4, "0")))


def reversed_sums(rng: np.random.Generator, script: Script) -> Question:
    """From the last digit to the first: each needs no more than what stands before it."""
    return sums(rng, script, lambda number: number[::-1])
