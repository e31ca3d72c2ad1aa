"""What a vocabulary holds, and how a text uses it."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from octavo.evaluation.intrinsic.bootstrap import Draws, Measured
from octavo.evaluation.intrinsic.cuts import Cut
from octavo.evaluation.intrinsic.text import Text, points
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.unicode import scripts

CLASSES = (
    "no bytes", "part of a character", "white space", "control characters", "digits", "symbols",
    "letters", "space and letters", "several words", "mixed",
)  # fmt: skip
"""What a piece is: what ``class_of`` gives an index of."""


def pieces_of(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each id stands for, alone."""
    found = []
    for i in range(tokenizer.vocab_size):
        try:
            found.append(tokenizer.decode(np.array([i])))
        except ValueError:
            found.append(b"")
    return found


def class_of(piece: bytes) -> int:
    """An index into ``CLASSES``."""
    if not piece:
        return CLASSES.index("no bytes")
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return CLASSES.index("part of a character")
    inside = text.strip()
    if not inside:
        return CLASSES.index("white space")
    if all(unicodedata.category(c) == "Cc" for c in inside):
        return CLASSES.index("control characters")
    if any(c.isspace() for c in inside):
        return CLASSES.index("several words")
    letters, numbers = (
        [test(c) or _combines(c) for c in inside] for test in (str.isalpha, str.isnumeric)
    )
    if all(letters) and text in (inside, f" {inside}"):
        return CLASSES.index("letters" if text == inside else "space and letters")
    if all(numbers):
        return CLASSES.index("digits")
    if not any(c.isalnum() for c in inside):
        return CLASSES.index("symbols")
    return CLASSES.index("mixed")


def _combines(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def scripts_of(found: np.ndarray) -> np.ndarray:
    """The script of each code point, an index into ``scripts.names()``; 0: none of its own."""
    first, values = scripts.pages()
    within = np.where(found <= 0x10FFFF, found, 0).astype(np.int64)
    return values[first[within // scripts.PAGE], within % scripts.PAGE]


def uses(cuts: Sequence[Cut], vocab_size: int) -> csr_array:
    """How often each document has each id: sparse ``[documents, vocab_size]``."""
    ids = [np.zeros(0, np.int64) if cut.ids is None else cut.ids.astype(np.int64) for cut in cuts]
    rows = np.repeat(np.arange(len(cuts)), [len(one) for one in ids])
    at = (rows, np.concatenate(ids))
    return csr_array((np.ones(len(rows)), at), shape=(len(cuts), vocab_size))


RENYI = {"renyi_2.5": 2.5, "renyi_2": 2.0}
"""Measures and their alpha."""


def renyi(draws: Draws, used: csr_array) -> dict[str, Measured]:
    """Renyi efficiency of ids (Zouhar et al. 2023, 2306.16842): H_a(p) / log |V|, where H_a(p) =
    log(sum of p^a) / (1 - a), p the shares of ids in the text and |V| all ids there are, of which
    the text may lack some."""

    def value(sums: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            p = sums / sums.sum(axis=1, keepdims=True)
            most = np.log(sums.shape[1])
            found = [np.log((p**a).sum(axis=1)) / (1 - a) / most for a in RENYI.values()]
        return np.stack(found, 1)

    return dict(zip(RENYI, draws.measured(used, value), strict=True))


def overlap(used: dict[str, np.ndarray]) -> list[tuple[str, str, float]]:
    """Of each pair of labels, ids that both use over ids that one of them uses (Jaccard).

    used: booleans ``[vocab_size]``, whether a text of each label has each id.
    """
    names, found = list(used), []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            either = int((used[a] | used[b]).sum())
            found.append((a, b, int((used[a] & used[b]).sum()) / either if either else 0.0))
    return found


def whole_by_script(texts: Sequence[Text], cuts: Sequence[Cut]) -> dict[str, tuple[int, int]]:
    """Different characters of the texts by script ("other": of none), and how many of them no cut
    ever goes through. A byte that is no UTF-8 counts as none."""
    there, split = np.zeros(0x110000, bool), np.zeros(0x110000, bool)
    for text, cut in zip(texts, cuts, strict=True):
        found, edges = points(text.data), text.characters
        upto = np.append(0, np.cumsum(cut.ends))
        there[found] = True
        split[found[upto[edges[1:] - 1] > upto[edges[:-1]]]] = True
    there[0xD800:0xE000] = False
    found = np.flatnonzero(there)
    of, names = scripts_of(found), scripts.names()
    count, whole = (
        np.bincount(of[which], minlength=len(names)).tolist()
        for which in (np.ones(len(found), bool), ~split[found])
    )
    return {names[i]: (count[i], whole[i]) for i in np.unique(of).tolist()}


def scripts_held(pieces: Sequence[bytes]) -> int:
    """Scripts of which a piece holds a whole character."""
    text = "".join(piece.decode(errors="ignore") for piece in pieces)
    return len(set(np.unique(scripts_of(points(text.encode()))).tolist()) - {0})


def main_scripts(pieces: Sequence[bytes]) -> tuple[list[str], list[int]]:
    """Names of scripts, and which of them each piece has the most characters of: "other" if none
    of its characters has a script."""
    names, of = ["other"], []
    numbers: dict[int, int] = {0: 0}
    for piece in pieces:
        found = scripts_of(points(piece))
        own = found[found > 0]
        script = int(np.bincount(own).argmax()) if len(own) else 0
        if script not in numbers:
            numbers[script] = len(names)
            names.append(scripts.names()[script])
        of.append(numbers[script])
    return names, of
