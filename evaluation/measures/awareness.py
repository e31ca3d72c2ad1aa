"""What a model knows of the letters in its ids: spelling, counting and reversing words, digits of
sums, as questions that are made here (as CUTE, Edman et al. 2024, 2409.15452, asks them).

They are asked as all questions are (``bytetasks.asking``). Wrong answers have the same letters as
the right one, or differ in a digit that may be any, so it does not help to know which come often.
It does help to know what words look like; tasks asks more kinds, in more scripts, of which nothing
is answered but by reading the question.

The questions are the same for all runs, but for how many stand before each: as many as fit a row
of training, up to four.
"""

from collections.abc import Callable

import numpy as np

from octavo.evaluation.bytetasks.asking import (
    CHANCE,
    WRONG,
    Question,
    answers,
    drawn,
    others,
    share,
)
from octavo.evaluation.bytetasks.letters import spelt, swapped, word
from octavo.evaluation.bytetasks.numbers import other_sums
from octavo.evaluation.bytetasks.scripts import LATIN

TEXTS = False
KEPT = True
QUESTIONS = 200
"""Of each task."""


def spelling(rng: np.random.Generator) -> Question:
    """The letters of a word, one by one; wrong: with two of them swapped."""
    right = word(rng, LATIN)
    wrong = others(tuple(right), lambda: swapped(rng, list(right)))
    return Question(f'Spell "{right}":', spelt(list(right)), tuple(map(spelt, wrong)))


def counting(rng: np.random.Generator) -> Question:
    """How often a letter occurs in two words: once to four times, each as often."""
    count = int(rng.integers(1, WRONG + 2))
    letters: list[str] = []
    while not letters:
        words = f"{word(rng, LATIN)} {word(rng, LATIN)}"
        letters = sorted({c for c in words if c != " " and words.count(c) == count})
    asked = f'How many "{rng.choice(letters)}" in "{words}"?'
    return Question(asked, f" {count}", tuple(f" {n}" for n in range(1, WRONG + 2) if n != count))


def reversing(rng: np.random.Generator) -> Question:
    """A word from its last letter to its first; wrong: with two letters swapped."""
    right = word(rng, LATIN)
    wrong = others(tuple(right), lambda: swapped(rng, list(right)))
    return Question(
        f'"{right}" backwards:', f" {right[::-1]}", tuple(" " + "".join(w[::-1]) for w in wrong)
    )


def sums(rng: np.random.Generator) -> Question:
    """The sum of two numbers of three digits; wrong: a digit is another, but not the first."""
    one, other = rng.integers(100, 1000, 2).tolist()
    wrong = other_sums(rng, one + other)
    return Question(f"{one} + {other} =", f" {one + other}", tuple(f" {w}" for w in wrong))


TASKS: tuple[Callable[[np.random.Generator], Question], ...] = (
    spelling, counting, reversing, sums,
)  # fmt: skip
"""A task is a function that can draw ``QUESTIONS`` different questions and those before them; its
name is the task's."""


def measure(run, documents: list, arguments=None, **scoring) -> list[dict]:
    """A row for each task."""
    found = answers(run, [drawn(task, QUESTIONS) for task in TASKS], **scoring)
    rows = []
    for task, one in zip(TASKS, found, strict=True):
        row = {
            "task": task.__name__,
            "questions": QUESTIONS,
            "shots": one.shots,
            "chance": CHANCE,
        }
        for name, right in (("choice", one.choice), ("exact", one.exact)):
            row |= share(right, (name, f"{name}_low", f"{name}_high"))
        rows.append(row)
    return rows
