"""What a cut makes of a document, in numbers that add up over documents, and the ratios of these
that are measures."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from octavo.evaluation.intrinsic.bootstrap import Draws, Measured, divided
from octavo.evaluation.intrinsic.cuts import Cut
from octavo.evaluation.intrinsic.text import Text

COUNTS = (
    "bytes", "characters", "tokens", "reference", "words", "word_tokens", "continued", "cuts",
    "beside", "gaps", "gaps_cut", "whole", "filled", "partial", "repeated", "unusual",
)  # fmt: skip
"""``counted`` says what they are; ``reference``: tokens of the reference; ``repeated`` and
``unusual`` are those of ``in_context``."""

RATIOS = {
    "bytes_per_token": ("bytes", "tokens"),
    "characters_per_token": ("characters", "tokens"),
    "normalized_length": ("tokens", "reference"),
    "fertility": ("word_tokens", "words"),
    "continued_words": ("continued", "words"),
    "word_precision": ("beside", "cuts"),
    "word_recall": ("gaps_cut", "gaps"),
    "whole_characters": ("whole", "characters"),
    "partial_tokens": ("partial", "filled"),
    "context_dependence": ("unusual", "repeated"),
}
"""Measures that are one count over another."""
SUMS = (*RATIOS, "word_f1")
"""All measures of counts."""


def counted(text: Text, cut: Cut) -> dict[str, int]:
    """What a cut does to a text.

    Ids without bytes count as tokens, and for a word that has the next byte (at the end of the
    text, the last). The text is not empty.
    """
    upto = np.append(0, np.cumsum(cut.ends))  # tokens that end before each byte
    start, stop = text.words.T
    inside = upto[stop - 1] - upto[start]
    pieces = inside + 1
    if cut.sizes is not None:
        follows = np.cumsum(cut.sizes)[cut.sizes == 0]
        at = np.minimum(follows, len(text.data) - 1)
        before = np.append(0, np.cumsum(np.bincount(at, minlength=len(text.data))))
        pieces = pieces + before[stop] - before[start]
    edges = text.characters
    split = upto[edges[1:] - 1] > upto[edges[:-1]]
    last = np.zeros(len(text.data), bool)
    last[edges[1:] - 1] = True
    cuts_characters = ~last[cut.ends]
    cuts = int(cut.ends[:-1].sum())
    return {
        "bytes": len(text.data),
        "characters": len(edges) - 1,
        "tokens": cut.tokens,
        "words": len(start),
        # Tokens that hold a byte of each word.
        "word_tokens": int(pieces.sum()),
        "continued": int((pieces > 1).sum()),
        # Cuts, and those that lie in no word.
        "cuts": cuts,
        "beside": cuts - int(inside.sum()),
        # Gaps between neighbouring words, from the end of one to the begin of the next, and those
        # that hold a cut.
        "gaps": max(len(start) - 1, 0),
        "gaps_cut": int((upto[start[1:]] > upto[stop[:-1] - 1]).sum()),
        # Characters that no cut goes through.
        "whole": int((~split).sum()),
        # Tokens with bytes, and those that begin or end inside a character.
        "filled": int(cut.ends.sum()),
        "partial": int((cuts_characters | np.append(False, cuts_characters[:-1])).sum()),
    }


def in_context(
    texts: Sequence[Text], cuts: Sequence[Cut]
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """How much a cut of a word depends on where it stands, by words that occur twice or more.

    Of each text, how many of its words these are, and how many of them are not cut as the word is
    most often, ``[texts]`` each; and the mean number of ways that such a word is cut, None if there
    is none.
    """
    ways: dict[bytes, Counter[bytes]] = {}
    for word, way, _ in _occurrences(texts, cuts):
        ways.setdefault(word, Counter())[way] += 1
    usual = {
        word: min(counts, key=lambda way: (-counts[way], way))
        for word, counts in ways.items()
        if counts.total() > 1
    }
    repeated, unusual = (np.zeros(len(texts), np.int64) for _ in range(2))
    for word, way, i in _occurrences(texts, cuts):
        if word in usual:
            repeated[i] += 1
            unusual[i] += way != usual[word]
    mean = sum(len(ways[word]) for word in usual) / len(usual) if usual else None
    return repeated, unusual, mean


def _occurrences(texts, cuts):
    """Words, where each is cut inside, and the number of its text."""
    for i, (text, cut) in enumerate(zip(texts, cuts, strict=True)):
        ends = cut.ends.tobytes()
        for a, b in text.words.tolist():
            yield text.data[a:b], ends[a : b - 1], i


def table(
    texts: Sequence[Text], cuts: Sequence[Cut], reference: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """``[texts, COUNTS]`` float64, and the mean ways of ``in_context``. reference: tokens of each
    text by the reference."""
    repeated, unusual, ways = in_context(texts, cuts)
    rows = []
    for i, (text, cut) in enumerate(zip(texts, cuts, strict=True)):
        others = {"reference": reference[i], "repeated": repeated[i], "unusual": unusual[i]}
        found = counted(text, cut) | others
        rows.append([found[name] for name in COUNTS])
    return np.array(rows, np.float64), ways


def ratios(sums: np.ndarray) -> np.ndarray:
    """``[n, SUMS]`` of ``[n, COUNTS]``."""
    of = {name: sums[:, i] for i, name in enumerate(COUNTS)}
    found = {name: divided(of[top], of[bottom]) for name, (top, bottom) in RATIOS.items()}
    precision, recall = found["word_precision"], found["word_recall"]
    found["word_f1"] = divided(2 * precision * recall, precision + recall)
    return np.stack([found[name] for name in SUMS], 1)


def measured(draws: Draws, counts: np.ndarray) -> dict[str, Measured]:
    """All measures of a table of counts, by name."""
    return dict(zip(SUMS, draws.measured(counts, ratios), strict=True))
