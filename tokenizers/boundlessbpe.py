"""BoundlessBPE (Schmidt et al. 2025, 2504.00178), in the two phases of 2604.05192: merges inside
pre-tokens, and supermerges of whole adjacent pre-tokens, in the order of how often they occur.

A supermerge joins pre-tokens each of which is one piece of letters (perhaps with a space, marks,
underscores or apostrophes). How many there are falls out of the counts. Nothing is deleted from the
vocabulary: the released code's default.

Of that code's choices, these differ: words are those of ``splitter`` (its own patterns cut scripts
without spaces into characters); one letter alone may be joined, and so may a mark that begins a
word; runs of more than 30 words are counted in parts of 30; of merges and supermerges of one count,
which there are mixed in the same way, the lower ids decide (there, the greater strings).
"""

import functools
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np

from octavo.tokenizers.parts import segment
from octavo.tokenizers.parts.merges import Merger, learn, learned
from octavo.tokenizers.parts.pieces import PieceTokenizer, options_without
from octavo.tokenizers.parts.text import Text

LONGEST = 30
"""Pre-tokens of a run that is counted whole."""


def joins(pieces: list[bytes]) -> np.ndarray:
    """Whether each piece, as a pre-token, may be joined to others: booleans."""
    found = np.zeros(len(pieces), bool)
    for i, piece in enumerate(pieces):
        text = piece.decode("utf-8", "replace")
        bare = re.sub("[ _'\u2019]", "", text)
        letters = [c for c in bare if c.isalpha()]
        found[i] = bool(letters) and all(c.isalpha() or _mark(c) for c in bare)
    return found


def _mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


class BoundlessBPETokenizer(PieceTokenizer):
    """superwords: how many of the vocabulary, the last of it, are made of whole pre-tokens."""

    scheme = "boundlessbpe"
    usage = {"boundlessbpe:SIZE": "BPE and merges of whole words (BoundlessBPE)"}
    fields = (*PieceTokenizer.fields, "superwords")
    options = options_without("segmenter")
    splitter = "o200k"

    def __init__(self, vocabulary: list[bytes], *args: Any, superwords: int, **kwargs: Any):
        super().__init__(vocabulary, *args, **kwargs)
        if self.segmenter != "merges":
            raise ValueError(f"boundlessbpe is encoded by merges, not by {self.segmenter}")
        if type(superwords) is not int or not 0 <= superwords <= len(vocabulary) - 256:
            raise ValueError(f"superwords is a number of pieces, not {superwords!r:.40}")
        self.superwords = superwords

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        pieces, counts = learned(text.counts, size, text.progress)
        supers, super_counts = _supermerges(text, pieces, size)
        # Both lists by count, of as much text; a supermerge stands behind what it is made of.
        share = text.read / max(sum(map(len, text.sample)), 1)
        super_counts = [round(count * share) for count in super_counts]
        room = size - 256
        least = sorted([*counts, *super_counts], reverse=True)[:room]
        kept = 0 if not least else sum(count >= least[-1] for count in counts)
        kept = min(kept, room)
        vocabulary = [*pieces[: 256 + kept]]
        words = _made(supers, vocabulary)[: room - kept]
        return {"vocabulary": [*vocabulary, *words], "superwords": len(words)}

    @functools.cached_property
    def _parts(self) -> tuple:
        whole = len(self.pieces) - self.superwords
        inside = segment.Merges(self.pieces, whole)
        across = segment.pair_table(self.pieces, range(whole, len(self.pieces)))
        return inside, across, joins(self.pieces)

    def segment(self, data: np.ndarray, ends: np.ndarray) -> np.ndarray:
        inside, across, joined = self._parts
        ids, counts = inside.apply(data, ends)
        return segment.over_whole(ids, counts, joined, across)

    def to_json(self) -> dict:
        return super().to_json() | {"superwords": self.superwords}


def _made(supers: list[bytes], vocabulary: list[bytes]) -> list[bytes]:
    """Those that two pieces make, each of the vocabulary or made before: where counts of a sample
    are too high, a word of another may be no piece."""
    known, found = set(vocabulary), []
    for piece in supers:
        if any(piece[:cut] in known and piece[cut:] in known for cut in range(1, len(piece))):
            known.add(piece)
            found.append(piece)
    return found


def _supermerges(text: Text, pieces: list[bytes], size: int) -> tuple[list[bytes], list[int]]:
    """Supermerges of the text, and how often each occurred: learned over runs of pre-tokens that
    may be joined, counted whole."""
    inside, joined = segment.Merges(pieces, len(pieces)), joins(pieces)
    runs: Counter[bytes] = Counter()
    for document in text.sample:
        data = np.frombuffer(document, np.uint8)
        ids, counts = inside.apply(data, text.ends(document))
        at = np.cumsum(counts) - counts
        able = (counts == 1) & joined[ids[at]] if len(at) else np.zeros(0, bool)
        edges = np.flatnonzero(np.diff(np.r_[False, able, False].astype(np.int8)))
        for begin, end in edges.reshape(-1, 2).tolist():
            for start in range(begin, end, LONGEST):
                run = ids[at[start : min(start + LONGEST, end)]]
                if len(run) > 1:
                    runs[run.tobytes()] += 1
    sequences = [np.frombuffer(run, np.int32) for run in runs]
    merger = Merger(sequences, runs.values())
    found = [*pieces]
    counts = learn(merger, found, len(pieces) + size, least=2, progress=text.progress)
    return found[len(pieces) :], counts
