"""Questions with one right answer and some wrong ones, and how well a run answers them.

A question stands behind others with their answers, as plain text, and is asked in two ways. Choice:
the right answer costs less than wrong ones of the same length; where several cost the same, the
right one counts for its share, so that a model that gives all bytes the same is right by chance.
Exact: greedy decoding gives the answer and ends its line, as one pass tells (see
``Run.costs``); a uniform model's chance of that is about 0. Both with a 95% interval
(Wilson 1927).
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)
SHOTS = 4
WRONG = 3
CHANCE = 1 / (1 + WRONG)


@dataclass(frozen=True)
class Question:
    asked: str
    answer: str
    """With the space that leads it."""
    wrong: tuple[str, ...]
    """``WRONG`` others, all different, as many bytes as the answer."""

    def line(self, answer: str) -> bytes:
        return f"{self.asked}{answer}\n".encode()


@dataclass(frozen=True)
class Series:
    """Questions of one kind, and those that stand before each."""

    shots: tuple[bytes, ...]
    """Lines."""
    questions: tuple[Question, ...]


class Answers(NamedTuple):
    """To a series."""

    choice: np.ndarray
    """float64 ``[questions]``: 1 where the right answer costs the least, its share where others
    cost the same."""
    exact: np.ndarray
    """Booleans ``[questions]``."""
    shots: float
    """Lines that stood before a question, in the mean."""


def drawn(
    draw: Callable[[np.random.Generator], Question],
    count: int,
    key: Callable[[Question], Hashable] = lambda one: one.asked,
    seed: int = 0,
) -> Series:
    """``SHOTS`` questions that stand before each, and ``count`` that are asked. Those that differ
    in their key are kept: it must not tell which of a question's answers is right, or what was
    asked less often would be right more often."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < SHOTS + count:
        one = draw(rng)
        found.setdefault(key(one), one)
    each = list(found.values())
    shots = tuple(one.line(one.answer) for one in each[:SHOTS])
    return Series(shots, tuple(each[SHOTS:]))


def others(right: T, draw: Callable[[], T]) -> list[T]:
    """``WRONG`` different ones that are drawn, none of them right."""
    found: list[T] = []
    while len(found) < WRONG:
        one = draw()
        if one != right and one not in found:
            found.append(one)
    return found


def wilson(right: float, of: int) -> tuple[float, float]:
    """The 95% interval of a share of ``right`` among ``of``."""
    z, p = 1.959964, right / of
    middle = p + z * z / (2 * of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = (x / (1 + z * z / of) for x in (middle - half, middle + half))
    return max(low, 0.0), min(high, 1.0)


def share(
    right: np.ndarray, names: tuple[str, str, str] = ("accuracy", "low", "high")
) -> dict[str, float]:
    """The mean of points between 0 and 1 and its interval (``wilson``), by these names."""
    found = float(right.mean()), *wilson(float(right.sum()), len(right))
    return dict(zip(names, found, strict=True))


def context_of(run, shots: Sequence[bytes], question: Question) -> tuple[bytes, int]:
    """What stands before the answers, and how many lines of it are shots: as many as fit a row of
    training with the longest answer."""
    said = [question.line(one) for one in (question.answer, *question.wrong)]
    count = len(shots)
    while count and max(_ids(run, shots[:count], line) for line in said) >= run.length:
        count -= 1
    return b"".join(shots[:count]) + question.asked.encode(), count


def _ids(run, shots: Sequence[bytes], line: bytes) -> int:
    return len(run.tokenizer.encode(b"".join(shots) + line))


def answers(run, series: Sequence[Series], **scoring) -> list[Answers]:
    """What a run answers; all questions are read together."""
    pairs, counts = [], []
    for one in series:
        for question in one.questions:
            context, count = context_of(run, one.shots, question)
            counts.append(count)
            pairs += [
                (context, f"{answer}\n".encode()) for answer in (question.answer, *question.wrong)
            ]
    found = run.costs(pairs, **scoring)
    nats = np.array([one.nats for one in found]).reshape(-1, 1 + WRONG)
    exact = np.array([one.greedy for one in found[:: 1 + WRONG]], bool)
    best = nats == nats.min(axis=1, keepdims=True)
    choice = best[:, 0] / best.sum(axis=1)
    edges = np.cumsum([len(one.questions) for one in series])[:-1]
    parts = (np.split(values, edges) for values in (choice, exact, np.array(counts)))
    return [Answers(a, b, float(np.mean(c))) for a, b, c in zip(*parts, strict=True)]
