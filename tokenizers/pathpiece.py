"""PathPiece (Schmidt et al. 2024, 2402.18376): a text in the fewest tokens of a vocabulary, and a
vocabulary that is pruned by how many tokens each piece saves.

It begins with a large BPE vocabulary, of pieces of at most 16 bytes. A piece that is left out costs
each of its places the tokens of the shortest way around it: through a byte inside it, or by a
longer piece that covers it (equations of section 3.2 there). The cheapest go, in rounds.
"""

from typing import Any

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts.merges import learned
from octavo.tokenizers.parts.pieces import PieceTokenizer
from octavo.tokenizers.parts.tables import MISSING, find, joined, trie
from octavo.tokenizers.parts.text import Text

LONGEST = 16
"""Bytes of a piece."""
BEGIN = 1 << 18
"""Pieces to begin with, at most, or as many times the size as follows."""
TIMES = 8
KEPT = 0.8
"""Share of what is above the size that a round keeps."""


class PathPieceTokenizer(PieceTokenizer):
    """See the module docstring."""

    scheme = "pathpiece"
    usage = {"pathpiece:SIZE": "fewest tokens, of a vocabulary pruned for it (PathPiece)"}
    segmenting = "fewest"

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        begin, _ = learned(text.counts, min(BEGIN, TIMES * size), text.progress)
        pieces = [piece for piece in begin if len(piece) <= LONGEST]
        data, starts = joined(list(text.counts))
        weights = np.fromiter(text.counts.values(), np.int64, len(starts) - 1)
        first = len(pieces)
        while len(pieces) > size:
            text.progress("pruning", first - len(pieces), first - size)
            cost = _costs(data, starts, weights, *trie(pieces), len(pieces))
            cost[:256] = np.iinfo(np.int64).max
            keep = max(size, size + int(KEPT * (len(pieces) - size)) - 1)
            # Of equally cheap ones, the later go.
            order = np.lexsort((np.arange(len(pieces)), -cost))[:keep]
            pieces = [pieces[i] for i in np.sort(order)]
        return {"vocabulary": pieces}


@compiled
def _costs(data, starts, weights, keys, children, piece_of, pieces):
    """Tokens that the text has more without each piece, int64 ``[pieces]``."""
    cost = np.zeros(pieces, np.int64)
    for word in range(len(weights)):
        text = data[starts[word] : starts[word + 1]]
        size = len(text)
        # Fewest tokens from the begin to each byte, and from each byte to the end.
        there, back = np.full(size + 1, size + 1), np.full(size + 1, size + 1)
        come = np.zeros(size + 1, np.int64)
        there[0] = back[size] = 0
        for at in range(size):
            node = np.int64(0)
            for behind in range(at + 1, size + 1):
                node = np.int64(find(keys, children, node << 8 | np.int64(text[behind - 1])))
                if node == MISSING:
                    break
                if piece_of[node] != MISSING and there[at] + 1 < there[behind]:
                    there[behind], come[behind] = there[at] + 1, at
        for at in range(size - 1, -1, -1):
            node = np.int64(0)
            for behind in range(at + 1, size + 1):
                node = np.int64(find(keys, children, node << 8 | np.int64(text[behind - 1])))
                if node == MISSING:
                    break
                if piece_of[node] != MISSING:
                    back[at] = min(back[at], back[behind] + 1)
        end = size
        while end > 0:
            begin = come[end]
            if end - begin > 1:
                least = size + 1
                for inside in range(begin + 1, end):
                    least = min(least, there[inside] + back[inside])
                piece = -1
                for at in range(max(0, end - 16), begin + 1):
                    node = np.int64(0)
                    for behind in range(at + 1, size + 1):
                        node = np.int64(
                            find(keys, children, node << 8 | np.int64(text[behind - 1]))
                        )
                        if node == MISSING:
                            break
                        if piece_of[node] == MISSING or behind < end:
                            continue
                        if at == begin and behind == end:
                            piece = piece_of[node]
                        else:
                            least = min(least, there[at] + 1 + back[behind])
                cost[piece] += weights[word] * (least - there[size])
            end = begin
    return cost
