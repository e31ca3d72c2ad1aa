"""Cuts of words whose morphemes are known, and of numbers: each stands behind a space in a document
of its own, as a word stands in a text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo import files
from octavo.configs.checks import ConfigError
from octavo.evaluation.intrinsic.bootstrap import Draws, Measured, divided
from octavo.evaluation.intrinsic.cuts import Scheme

LENGTHS = range(1, 13)
"""Digits of the numbers that are cut."""
NUMBERS = 100
"""Of each length, drawn once for all: fewer if there are no more."""


@dataclass(frozen=True)
class Gold:
    """A word, where its morphemes end, and its lemma."""

    word: bytes
    cuts: frozenset[int]
    """Bytes before each boundary inside the word."""
    lemma: bytes = b""
    """Empty: unknown."""


def read_morphemes(path: str) -> list[Gold]:
    """Lines ``word<TAB>mor pheme s`` or ``word<TAB>mor pheme s<TAB>lemma`` of a file; empty ones
    are passed over. Raises ConfigError for any other, or if there is none."""
    try:
        lines = files.read(path).decode().splitlines()
    except OSError as error:
        raise ConfigError(f"--morphemes {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--morphemes {path} is not UTF-8 text: byte {error.start}.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word, *more = line.split("\t")
        morphemes = more[0].split() if more else []
        if not word or len(more) > 2 or "".join(morphemes) != word:
            raise ConfigError(
                f"line {number} of --morphemes {path} is no word, a tab and its morphemes with "
                f"spaces between, which spell it: {line!r:.80}."
            )
        stops = np.cumsum([len(morpheme.encode()) for morpheme in morphemes])[:-1].tolist()
        lemma = more[1].strip().encode() if len(more) > 1 else b""
        found.append(Gold(word.encode(), frozenset(stops), lemma))
    if not found:
        raise ConfigError(f"--morphemes {path} has no words.")
    return found


def cuts_inside(scheme: Scheme, words: Sequence[bytes]) -> list[frozenset[int]]:
    """Bytes of each word before each cut inside it."""
    cuts = scheme.cut([b" " + word for word in words])
    return [frozenset((np.flatnonzero(cut.ends[1:-1]) + 1).tolist()) for cut in cuts]


MORPHEMES = (
    "morpheme_precision", "morpheme_recall", "morpheme_f1", "morpheme_words", "morpheme_over",
    "morpheme_under", "lemma_whole",
)  # fmt: skip


def morphemes(scheme: Scheme, gold: Sequence[Gold]) -> dict[str, Measured]:
    """Agreement with gold boundaries: precision, recall and F1 of cuts inside words; shares of
    words that are cut exactly so, that are cut anywhere else (over), that lack a cut (under), and,
    of those whose lemma they hold as it is, that no cut goes through it. Intervals by words."""
    rows = []
    for one, cuts in zip(gold, cuts_inside(scheme, [one.word for one in gold]), strict=True):
        at = one.word.find(one.lemma) if one.lemma else -1
        inside = any(at < cut < at + len(one.lemma) for cut in cuts)
        rows.append([
            len(cuts & one.cuts), len(cuts), len(one.cuts), 1, cuts == one.cuts,
            not cuts <= one.cuts, not one.cuts <= cuts, at >= 0, at >= 0 and not inside,
        ])  # fmt: skip

    def value(sums: np.ndarray) -> np.ndarray:
        hits, cut, wanted, words, exact, over, under, lemmas, whole = sums.T
        return np.stack([
            divided(hits, cut), divided(hits, wanted), divided(2 * hits, cut + wanted),
            divided(exact, words), divided(over, words), divided(under, words),
            divided(whole, lemmas),
        ], 1)  # fmt: skip

    found = Draws(len(rows)).measured(np.array(rows, np.float64), value)
    return dict(zip(MORPHEMES, found, strict=True))


def numbers(length: int) -> list[bytes]:
    """Numbers of so many digits, the first not 0: all, if they are at most ``NUMBERS``, else as
    many, the same each time."""
    low, high = 10 ** (length - 1), 10**length
    if high - low <= NUMBERS:
        return [str(number).encode() for number in range(low, high)]
    rng = np.random.default_rng(length)
    found: dict[int, None] = {}
    while len(found) < NUMBERS:
        found[int(rng.integers(low, high))] = None
    return [str(number).encode() for number in found]


def places(length: int) -> frozenset[int]:
    """Where a number is cut by threes from the right: L - 3, L - 6, ..."""
    return frozenset(range(length - 3, 0, -3))


def digits(scheme: Scheme) -> dict[int, dict[str, float]]:
    """Of numbers of each length: in how many ``ways`` they are cut; the share that is cut by
    ``threes`` from the right, and nowhere else; the F1 of cuts against these ``places``, NaN where
    there are none."""
    of = {length: numbers(length) for length in LENGTHS}
    cuts = iter(cuts_inside(scheme, [number for each in of.values() for number in each]))
    found = {}
    for length, each in of.items():
        ways, wanted = Counter(next(cuts) for _ in each), places(length)
        hits = sum(len(way & wanted) * count for way, count in ways.items())
        made = sum(len(way) * count for way, count in ways.items())
        f1 = 2 * hits / (made + len(wanted) * len(each)) if wanted else float("nan")
        found[length] = {
            "ways": float(len(ways)),
            "threes": ways[wanted] / len(each),
            "place_f1": f1,
        }
    return found
