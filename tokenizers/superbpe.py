"""SuperBPE (Liu et al. 2025, 2503.13423): BPE inside words up to a share of the vocabulary, then on
across spaces.

The second stage splits at digits, runs of punctuation and runs of spaces alone. As in the released
code, no piece of it holds a colon followed by a space, or more than four words. Encoding merges by
rank inside what the second stage's pattern leaves whole.
"""

from collections import Counter
from typing import Any

from octavo.tokenizers.parts import splitters
from octavo.tokenizers.parts.merges import Merger, learn, learned
from octavo.tokenizers.parts.pieces import PieceTokenizer, by_merges, options_without
from octavo.tokenizers.parts.text import Text, behind

TRANSITION = 0.9
"""Share of the vocabulary that is learned inside words (the paper's best: 180k of 200k)."""
MOST_WORDS = 4


class SuperBPETokenizer(PieceTokenizer):
    """BPE of two stages; see the module docstring."""

    scheme = "superbpe"
    usage = {"superbpe:SIZE": "BPE that goes on across spaces (SuperBPE)"}
    options = options_without("presegment") | {"transition": float}
    splitter = "o200k"

    @classmethod
    def build(cls, text: Text, size: int, transition: float = TRANSITION) -> dict[str, Any]:
        """transition: share of the vocabulary that the first stage learns."""
        if not 0 <= transition <= 1:
            raise ValueError(f"transition is a share in [0, 1], not {transition}")
        first = max(256, round(transition * size))
        pieces, _ = learned(text.counts, first, text.progress)
        pattern = splitters.pattern("superbpe", text.digits)
        chunks: Counter[bytes] = Counter()
        for document in text.sample:
            chunks.update(behind(document, splitters.ends(document, pattern)))
        merger = Merger(by_merges(pieces, list(chunks)), chunks.values())
        learn(merger, pieces, size, allowed=_allowed, progress=text.progress)
        return {"vocabulary": pieces, "pattern": pattern}


def _allowed(piece: bytes) -> bool:
    return b": " not in piece and len([w for w in piece.split(b" ") if w]) <= MOST_WORDS
