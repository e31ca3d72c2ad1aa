"""The same questions with characters changed (``measures.noise``): the wording of each, outside of
quotation marks, so that it asks for the same and the answers stay; and the whole of each line
before it, its answer included. Of sums, which have no wording, the lines before alone."""

import dataclasses
import re

from octavo.evaluation.bytetasks.asking import Question, Series
from octavo.evaluation.measures.noise import KINDS, noisy


def noised(series: Series, rate: float) -> Series:
    """About ``rate`` of the characters are changed; the kinds of noise take turns."""
    if not rate:
        return series
    shots = (
        noisy(line[:-1], KINDS[i % len(KINDS)], rate, i) + b"\n"
        for i, line in enumerate(series.shots)
    )  # fmt: skip
    questions = (_asked(one, rate, i) for i, one in enumerate(series.questions))
    return Series(tuple(shots), tuple(questions))


def _asked(question: Question, rate: float, number: int) -> Question:
    parts = question.asked.split('"')
    for i in range(0, len(parts), 2):
        if re.search("[a-z]", parts[i]):
            seed = number * len(parts) + i
            parts[i] = noisy(parts[i].encode(), KINDS[number % len(KINDS)], rate, seed).decode()
    return dataclasses.replace(question, asked='"'.join(parts))
