"""Words cut at random: a control arm with the lengths of subwords and none of their sense.

A pre-token is cut behind each of its bytes with a chance of one in four, drawn by its own bytes, so
that the same word is always cut in the same way. The most frequent parts are pieces; what is no
piece is spelled by the longest pieces from the left.
"""

from collections import Counter
from typing import Any

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts.pieces import BYTES, PieceTokenizer
from octavo.tokenizers.parts.tables import hashed
from octavo.tokenizers.parts.text import Text, behind


class RandomSplitsTokenizer(PieceTokenizer):
    """See the module docstring."""

    scheme = "randomsplits"
    usage = {"randomsplits:SIZE": "words cut at random (a control)"}
    segmenting = "greedy"

    def ends(self, data: bytes) -> np.ndarray:
        ends = super().ends(data)
        _cut(np.frombuffer(data, np.uint8), ends)
        return ends

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        parts: Counter[bytes] = Counter()
        for pre_token, count in text.counts.items():
            ends = np.zeros(len(pre_token), np.uint8)
            _cut(np.frombuffer(pre_token, np.uint8), ends)
            for part in behind(pre_token, ends):
                parts[part] += count
        longer = [part for part, _ in parts.most_common() if len(part) > 1]
        return {"vocabulary": [*BYTES, *longer[: size - 256]]}


@compiled
def _cut(data, ends):
    start = 0
    for at in range(len(data)):
        if not ends[at] and at + 1 < len(data):
            continue
        drawn = hashed(data, start, at + 1)
        for i in range(start, at):
            drawn ^= drawn >> np.uint64(12)  # xorshift64*
            drawn ^= drawn << np.uint64(25)
            drawn ^= drawn >> np.uint64(27)
            if (drawn * np.uint64(2685821657736338717)) >> np.uint64(62) == 0:
                ends[i] = 1
        start = at + 1
