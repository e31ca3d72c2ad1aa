"""ByteSpan (Goriely et al. 2025, 2506.18639): pieces are spans of bytes that a byte model finds
predictable, the most frequent first.

A span goes on while the surprisal of the next byte falls ("monotonic"), or, by "combined", is low
(below the 30th percentile) too; it never leaves its pre-token, and a space that begins one stays
with what follows. What spans do not fill of the vocabulary is left to merges over the spans' own
pieces. Text is segmented by the longest piece from the left.

The byte model is a run of this repository (``model=RUN``), or, without one, a context mixture of
orders 0 to 4 that learns as it reads (``parts/context.py``).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from octavo.tokenizers.parts.context import surprisal_of
from octavo.tokenizers.parts.merges import Merger, learn
from octavo.tokenizers.parts.pieces import BYTES, PieceTokenizer
from octavo.tokenizers.parts.segment import by_greed
from octavo.tokenizers.parts.tables import ends_of, joined, trie
from octavo.tokenizers.parts.text import Text, behind

LOW = 30
"""Percentile of surprisal below which a span goes on, by "combined"."""
LEAST = 2
"""Occurrences of a span that becomes a piece."""

Surprisal = Callable[[bytes], np.ndarray]
"""Bits of each byte of a document."""


class ByteSpanTokenizer(PieceTokenizer):
    """See the module docstring."""

    scheme = "bytespan"
    usage = {
        "bytespan:SIZE": "spans that a byte model predicts (ByteSpan); bytespan:SIZE,model=RUN"
    }
    options = PieceTokenizer.options | {"constraint": str, "model": str}
    segmenting = "greedy"

    @classmethod
    def build(
        cls,
        text: Text,
        size: int,
        constraint: str = "monotonic",
        model: Surprisal | None = None,
    ) -> dict[str, Any]:
        """constraint: "monotonic" or "combined". model: gives the surprisal of a document."""
        if constraint not in ("monotonic", "combined"):
            raise ValueError(f"constraint is monotonic or combined, not {constraint!r:.40}")
        counts = text.counts  # reads the sample
        bits = [*map(model, text.sample)] if model else surprisal_of(text.sample)
        low = -np.inf
        if constraint == "combined" and any(map(len, bits)):
            low = float(np.percentile(np.concatenate(bits), LOW))
        spans: Counter[bytes] = Counter()
        for document, surprisal in zip(text.sample, bits, strict=True):
            data, ends = np.frombuffer(document, np.uint8), text.ends(document)
            goes_on = (np.diff(surprisal) < 0) | (surprisal[1:] < low)
            begins = np.append(True, ends[:-1] == 1)[:-1]
            goes_on[begins & (data[:-1] == 0x20)] = True
            ends = ends | np.append(~goes_on, True)
            spans.update(behind(document, ends))
        pieces = [*BYTES]
        for span, count in spans.most_common():
            if len(pieces) == size or count < LEAST:
                break
            if len(span) > 1:
                pieces.append(span)
        if len(pieces) < size and counts:
            _fill(pieces, counts, size, text)
        return {"vocabulary": pieces}


def _fill(pieces: list[bytes], counts: Counter[bytes], size: int, text: Text) -> None:
    """Merge adjacent pieces of what greed makes of the text, up to the size."""
    data, starts = joined(list(counts))
    ids = by_greed(data, ends_of(starts), trie(pieces))
    sizes = np.array([len(piece) for piece in pieces])[ids]
    cuts = np.searchsorted(np.cumsum(sizes), starts[1:-1]) + 1
    learn(Merger(np.split(ids, cuts), counts.values()), pieces, size, progress=text.progress)
