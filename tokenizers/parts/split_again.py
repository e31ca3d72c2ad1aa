"""Tokens split in two at random, of training text alone (StochasTok, Sims et al. 2025)."""

import zlib

import numpy as np

from octavo.compiled import compiled


@compiled
def _split(ids, offsets, lefts, rights, attempts, seed):
    """``attempts`` times, a token of those that are there, each as likely, is split in two of the
    ways it can be, each as likely; those that cannot be split stay."""
    np.random.seed(seed)
    count = len(ids)
    token = np.empty(count + attempts, np.int32)
    after = np.empty(count + attempts, np.int64)
    token[:count] = ids
    for i in range(count):
        after[i] = i + 1 if i + 1 < count else -1
    filled = count
    for _ in range(attempts):
        at = np.random.randint(0, filled)
        first, last = offsets[token[at]], offsets[token[at] + 1]
        if first == last:
            continue
        way = np.random.randint(first, last)
        token[filled], after[filled] = rights[way], after[at]
        token[at], after[at] = lefts[way], filled
        filled += 1
    out = np.empty(filled, np.int32)
    at = np.int64(0)
    for i in range(filled):
        out[i] = token[at]
        at = after[at]
    return out


class SplitAgain:
    """The ways to split each of some pieces into two others of them."""

    def __init__(self, pieces: list[bytes]):
        ids = {piece: i for i, piece in enumerate(pieces)}
        ways = [
            [
                (ids[piece[:cut]], ids[piece[cut:]])
                for cut in range(1, len(piece))
                if piece[:cut] in ids and piece[cut:] in ids
            ]
            for piece in pieces
        ]
        self.offsets = np.cumsum([0, *map(len, ways)])
        flat = np.array([way for of in ways for way in of], np.int32).reshape(-1, 2)
        self.lefts, self.rights = np.ascontiguousarray(flat.T)

    def split(self, ids: np.ndarray, share: float, seed: bytes) -> np.ndarray:
        """``ids`` after ``floor(share * len(ids))`` attempts to split one, drawn by ``seed``: the
        same text is always split in the same way."""
        attempts = int(share * len(ids))
        if not attempts:
            return ids
        ids32 = np.asarray(ids, np.int32)
        drawn = zlib.crc32(seed)
        out = _split(ids32, self.offsets, self.lefts, self.rights, attempts, drawn)
        return out.astype(ids.dtype)
