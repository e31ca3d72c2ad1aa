"""All measures of schemes on one text, as values that JSON holds, and as rows."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from octavo.evaluation.intrinsic import counts, probes, vocabulary
from octavo.evaluation.intrinsic.bootstrap import Draws, Measured, divided
from octavo.evaluation.intrinsic.cuts import Cut, Scheme
from octavo.evaluation.intrinsic.probes import Gold
from octavo.evaluation.intrinsic.text import Text


class Measure(NamedTuple):
    """A column of the report."""

    title: str
    about: str
    share: bool = False
    """A part of one."""


MEASURES = {
    "vocabulary": Measure("vocabulary", "ids there are"),
    "bytes_per_token": Measure("bytes/token", "bytes of the text for each token or unit"),
    "characters_per_token": Measure("characters/token", "Unicode characters for each"),
    "normalized_length": Measure("length", "tokens, for one of the reference on the same text"),
    "fertility": Measure("fertility", "tokens that hold a part of a word, by words: of UAX 29, "
                         "with a letter or digit; of scripts without spaces, characters"),
    "continued_words": Measure("continued words", "words of two or more tokens", True),
    "word_precision": Measure("cuts beside words", "cuts that lie in no word", True),
    "word_recall": Measure("gaps cut", "gaps between neighbouring words that hold a cut", True),
    "word_f1": Measure("F1 of words", "of the two before"),
    "context_dependence": Measure("context dependence", "occurrences of words that are not cut "
                                  "as the word is most often, of words that occur twice or more",
                                  True),
    "ways_of_words": Measure("ways of a word", "in which such a word is cut, in the mean"),
    "whole_characters": Measure("whole characters", "characters that no cut goes through", True),
    "whole_alphabet": Measure("whole alphabet", "different characters of the text that no cut "
                              "ever goes through", True),
    "partial_tokens": Measure("partial tokens", "tokens that begin or end inside a character",
                              True),
    "renyi_2.5": Measure("Rényi 2.5", "efficiency with alpha 2.5: entropy over log of all ids"),
    "renyi_2": Measure("Rényi 2", "the same with alpha 2"),
    "used": Measure("used", "ids that the text uses", True),
    "overlap": Measure("overlap", "ids that two labels both use, of those that either does, in the "
                       "mean over pairs", True),
    "partial_pieces": Measure("partial pieces", "ids that hold a part of a character", True),
    "scripts": Measure("scripts", "of which the vocabulary holds a whole character"),
    "premium_mean": Measure("premium, mean", "tokens for the same sentences, for one of the "
                            "anchor, over the other languages"),
    "premium_max": Measure("premium, max", "the same of the dearest"),
    "gini": Measure("Gini", "of tokens per sentence over languages: 0 if all take as many"),
    "digit_ways": Measure("ways of numbers", "in which numbers of the same length are cut, in the "
                          "mean over 2 to 12 digits"),
    "digit_threes": Measure("numbers by threes", "numbers of 4 to 12 digits that are cut by threes "
                            "from the right, and nowhere else", True),
    "digit_place_f1": Measure("F1 of threes", "of cuts of such numbers, in the mean over lengths"),
    "morpheme_precision": Measure("morphemes, precision", "cuts inside words at a gold boundary",
                                  True),
    "morpheme_recall": Measure("morphemes, recall", "gold boundaries that are cut", True),
    "morpheme_f1": Measure("morphemes, F1", "of the two before"),
    "morpheme_words": Measure("words as gold", "words that are cut exactly so", True),
    "morpheme_over": Measure("over-segmented", "words with a cut that is no gold boundary", True),
    "morpheme_under": Measure("under-segmented", "words with a gold boundary that is not cut",
                              True),
    "lemma_whole": Measure("lemma whole", "words whose lemma, which they hold, no cut goes through",
                           True),
    "speed": Measure("MB/s", "of text encoded, on this machine, by one thread of Python"),
}  # fmt: skip

_MOST_OVERLAPS = 64
"""Labels whose vocabularies are held against each other: those with the most tokens."""
_SPEED_BYTES = 1_000_000
"""Of the text, from which the speed is told."""


class Found(NamedTuple):
    """What one scheme makes of the text."""

    scheme: Scheme
    about: dict[str, Any]
    """Of ``report``."""
    used: np.ndarray | None
    """``[vocab_size]``: how often the text has each id; None: units."""


def report(
    schemes: Sequence[Scheme],
    texts: Sequence[Text],
    reference: int,
    parallel: dict[str, list[bytes]] | None = None,
    anchor: str = "",
    gold: Sequence[Gold] = (),
    progress: Callable[[str], None] = lambda doing: None,
) -> list[Found]:
    """All that is measured of each scheme.

    reference: the number of the scheme whose tokens the others' are held against. parallel: lines
    by language, ``anchor`` among them. Of each scheme a dict: ``name``, ``tokenizer`` (None:
    units), ``measures``, and by ``labels``, ``languages``, ``scripts`` and ``digits``, where there
    are some; ``overlap`` of labels. A number is a ``Measured``, its value None where it cannot be
    said.
    """
    documents = [text.data for text in texts]
    names = list(dict.fromkeys(text.label for text in texts))
    groups = {name: [i for i, text in enumerate(texts) if text.label == name] for name in names}
    draws = Draws(len(texts))
    of_label = {name: Draws(len(mine)) for name, mine in groups.items()}
    progress(f"{schemes[reference].name}: cutting")
    against = schemes[reference].cut(documents)
    held_against = np.array([cut.tokens for cut in against])

    found = []
    for i, scheme in enumerate(schemes):
        progress(f"{scheme.name}: cutting")
        cuts = against if i == reference else scheme.cut(documents)
        progress(f"{scheme.name}: counting")
        table, ways = counts.table(texts, cuts, held_against)
        measures = counts.measured(draws, table) | {"ways_of_words": Measured(ways)}
        scripts = vocabulary.whole_by_script(texts, cuts)
        measures["whole_alphabet"] = _share(*map(sum, zip(*scripts.values(), strict=True)))
        about: dict[str, Any] = {
            "name": scheme.name,
            "tokenizer": scheme.tokenizer and scheme.tokenizer.name,
            "measures": measures,
            "scripts": {
                name: {"characters": count, "whole": whole}
                for name, (count, whole) in scripts.items()
            },
        }
        if len(names) > 1:
            labels = {
                name: counts.measured(of_label[name], table[mine]) for name, mine in groups.items()
            }
            about["labels"] = labels | {_MEAN: _mean(list(labels.values()))}
        used = None
        if scheme.tokenizer is not None:
            used = _of_vocabulary(scheme, cuts, draws, groups, about)
        if parallel:
            progress(f"{scheme.name}: parallel text")
            about["languages"] = premiums(scheme, parallel, anchor, measures)
        about["digits"] = _digits(scheme, measures)
        if gold:
            measures |= probes.morphemes(scheme, gold)
        if (speed := scheme.speed(_beginning(documents))) is not None:
            measures["speed"] = Measured(speed)
        about["measures"] = {
            name: measures[name]
            for name in MEASURES
            if name in measures and measures[name].value is not None
        }
        found.append(Found(scheme, about, used))
    return found


_MEAN = "mean of labels"


def _mean(labels: list[dict[str, Measured]]) -> dict[str, Measured]:
    """The mean over labels of each measure, which counts all labels alike."""
    values = {name: [of[name].value for of in labels] for name in labels[0]}
    return {
        name: Measured(float(np.mean([one for one in of if one is not None])))
        for name, of in values.items()
        if any(one is not None for one in of)
    }


def _share(whole: float, part: float) -> Measured:
    return Measured(part / whole if whole else None)


def _beginning(documents: Sequence[bytes]) -> list[bytes]:
    """The first documents, of a megabyte or so."""
    size = np.cumsum([len(document) for document in documents])
    return list(documents[: 1 + int(np.searchsorted(size, _SPEED_BYTES))])


def _of_vocabulary(
    scheme: Scheme,
    cuts: Sequence[Cut],
    draws: Draws,
    groups: dict[str, list[int]],
    about: dict[str, Any],
) -> np.ndarray:
    """How often the text has each id; ``about`` learns what follows from it."""
    assert scheme.tokenizer is not None
    size, measures = scheme.tokenizer.vocab_size, about["measures"]
    uses = vocabulary.uses(cuts, size)
    used = np.asarray(uses.sum(axis=0))
    measures |= vocabulary.renyi(draws, uses)
    measures["vocabulary"] = Measured(size)
    measures["used"] = _share(size, int((used > 0).sum()))
    pieces = vocabulary.pieces_of(scheme.tokenizer)
    part = vocabulary.CLASSES.index("part of a character")
    partial = sum(vocabulary.class_of(piece) == part for piece in pieces)
    measures["partial_pieces"] = _share(size, partial)
    measures["scripts"] = Measured(vocabulary.scripts_held(pieces))
    if len(groups) > 1:
        label_uses = {name: np.asarray(uses[mine].sum(axis=0)) > 0 for name, mine in groups.items()}
        for name, there in label_uses.items():
            about["labels"][name]["used"] = _share(size, int(there.sum()))
        most = sorted(groups, key=lambda name: -uses[groups[name]].sum())[:_MOST_OVERLAPS]
        about["overlap"] = vocabulary.overlap({name: label_uses[name] for name in most})
        measures["overlap"] = Measured(float(np.mean([share for *_, share in about["overlap"]])))
    return used


def gini(costs: np.ndarray) -> np.ndarray:
    """The Gini coefficient of costs ``[n, languages]``, ``[n]``: the sum over all pairs of
    |c_i - c_j|, over 2 m^2 times their mean."""
    pairs = np.abs(costs[:, :, None] - costs[:, None, :]).sum(axis=(1, 2))
    return divided(pairs, 2 * costs.shape[1] ** 2 * costs.mean(axis=1))


def premiums(
    scheme: Scheme, parallel: dict[str, list[bytes]], anchor: str, measures: dict[str, Measured]
) -> dict[str, dict[str, Measured]]:
    """The ``premium`` of each language (Petrov et al. 2023, 2305.15425): tokens for its sentences,
    for one of the anchor's; and ``tokens_per_sentence``. ``measures`` learns what they come to.
    Intervals by a bootstrap over sentences."""
    languages = list(parallel)
    lines = [line for of in parallel.values() for line in of]
    tokens = np.array([cut.tokens for cut in scheme.cut(lines)], np.float64)
    tokens = tokens.reshape(len(languages), -1).T
    at = languages.index(anchor)

    def value(sums: np.ndarray) -> np.ndarray:
        premium = divided(sums, sums[:, at : at + 1])
        others = np.delete(premium, at, axis=1)
        return np.column_stack([premium, others.mean(axis=1), others.max(axis=1), gini(sums)])

    found = Draws(len(tokens)).measured(tokens, value)
    measures |= dict(zip(("premium_mean", "premium_max", "gini"), found[-3:], strict=True))
    return {
        language: {"premium": found[i], "tokens_per_sentence": Measured(float(tokens[:, i].mean()))}
        for i, language in enumerate(languages)
    }


def _digits(scheme: Scheme, measures: dict[str, Measured]) -> dict[str, dict[str, Measured]]:
    found = probes.digits(scheme)

    def mean(name: str, least: int) -> Measured:
        return Measured(float(np.mean([of[name] for n, of in found.items() if n >= least])))

    measures["digit_ways"] = mean("ways", 2)
    measures["digit_threes"] = mean("threes", 4)
    measures["digit_place_f1"] = mean("place_f1", 4)
    return {
        str(length): {name: Measured(value) for name, value in of.items() if not np.isnan(value)}
        for length, of in found.items()
    }


def values(found: Sequence[Found]) -> list[dict[str, Any]]:
    """``about`` of each scheme, its numbers as ``value``, ``low`` and ``high``."""

    def plain(of: Any) -> Any:
        if isinstance(of, Measured):
            return of._asdict()
        if isinstance(of, dict):
            return {key: plain(value) for key, value in of.items()}
        return of

    return [plain(one.about) for one in found]


_PARTS = {"labels": "label", "languages": "language", "digits": "digits"}


def table(found: Sequence[Found]) -> str:
    """CSV: a line for each number, ``scheme``, ``of`` (all, or what part), ``part``, ``measure``,
    ``value``, ``low`` and ``high``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["scheme", "of", "part", "measure", *Measured._fields])
    for one in found:
        name = one.about["name"]
        groups = [("all", "", one.about["measures"])]
        for key, of in _PARTS.items():
            groups += [(of, part, numbers) for part, numbers in one.about.get(key, {}).items()]
        for of, part, numbers in groups:
            for measure, number in numbers.items():
                writer.writerow([name, of, part, measure, *number])
    return out.getvalue()
