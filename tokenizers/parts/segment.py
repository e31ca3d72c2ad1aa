"""Segmenters: from the bytes of a pre-token to ids of pieces, compiled. Every one is linear in the
length of the text but for a logarithm, whatever the text is.

========  ==========================================================================================
merges    again and again, the leftmost adjacent pair whose concatenation is the piece of lowest id
          (BPE; "string-rank")
greedy    the longest piece from the left, again and again
fewest    as few pieces as can be, of those ways the one with the longest last piece, and so on to
          the left (PathPiece-L, Schmidt et al. 2024, 2402.18376)
likeliest the largest sum of scores (Unigram, Kudo 2018, 1804.10959)
========  ==========================================================================================
"""

import re
import threading

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts.tables import MISSING, Tree, find, hashed, table

NAMES = ("merges", "greedy", "fewest", "likeliest")

_SHORT = 24
"""Symbols up to which a pre-token is merged by looking at all pairs for each merge."""
_KEPT_BYTES, _KEPT_IDS, _KEPT = 24, 8, 1 << 15
"""What is kept of pre-tokens seen before: so long ones, of so few ids, in so many places."""
_ACROSS = re.compile(b"[^ ] ")
"""In a piece that reaches from one word into the next."""


def single_of(pieces: list[bytes]) -> np.ndarray:
    """The id of each byte, int32 ``[256]``."""
    found = np.empty(256, np.int32)
    found[[piece[0] for piece in pieces[:256]]] = np.arange(256)
    return found


def pair_table(pieces: list[bytes], made: range) -> tuple[np.ndarray, np.ndarray]:
    """What two adjacent ids make, of the pieces ``made``: key ``left << 32 | right`` to id."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    keys, values = [], []
    for i in made:
        piece = pieces[i]
        for cut in range(1, len(piece)):
            left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
            if left is not None and right is not None:
                keys.append(left << 32 | right)
                values.append(i)
    return table(np.array(keys, np.int64), np.array(values, np.int64))


@compiled
def _push(heap, size, key):
    at = size
    while at and key < heap[(at - 1) >> 1]:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return size + 1


@compiled
def _pop(heap, size):
    """Take the least away; the heap has one entry less."""
    size -= 1
    key, at = heap[size], 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if key <= heap[child]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return size


@compiled
def _merge_short(ids, count, keys, values):
    """Merge ``ids[:count]`` in place; returns how many are left."""
    ranks = np.empty(_SHORT, np.int32)
    for i in range(count - 1):
        ranks[i] = find(keys, values, np.int64(ids[i]) << 32 | np.int64(ids[i + 1]))
    while count > 1:
        best = -1
        for i in range(count - 1):
            if ranks[i] != MISSING and (best < 0 or ranks[i] < ranks[best]):
                best = i
        if best < 0:
            break
        ids[best] = ranks[best]
        count -= 1
        for i in range(best + 1, count):
            ids[i] = ids[i + 1]
            ranks[i - 1] = ranks[i]
        if best:
            key = np.int64(ids[best - 1]) << 32 | np.int64(ids[best])
            ranks[best - 1] = find(keys, values, key)
        if best + 1 < count:
            ranks[best] = find(keys, values, np.int64(ids[best]) << 32 | np.int64(ids[best + 1]))
    return count


@compiled
def _merge_long(ids, count, keys, values):
    """The same for any length, by a heap of pairs (rank, then place) and a linked list of
    symbols."""
    right = np.arange(1, count + 1, dtype=np.int32)
    left = np.arange(-1, count - 1, dtype=np.int32)
    rank_at = np.empty(count, np.int32)  # of the pair that begins here
    heap = np.empty(3 * count, np.int64)
    size = 0
    rank_at[count - 1] = MISSING
    for at in range(count - 1):
        rank = find(keys, values, np.int64(ids[at]) << 32 | np.int64(ids[at + 1]))
        rank_at[at] = rank
        if rank != MISSING:
            size = _push(heap, size, np.int64(rank) << 32 | at)
    while size:
        rank, at = np.int32(heap[0] >> 32), np.int64(heap[0] & 0xFFFFFFFF)
        size = _pop(heap, size)
        if rank_at[at] != rank:  # the pair is another by now
            continue
        after = right[at]
        ids[at], ids[after] = rank, MISSING
        rank_at[after] = MISSING
        right[at] = right[after]
        if right[at] < count:
            left[right[at]] = at
        for begin in (at, np.int64(left[at])):
            if begin < 0:
                continue
            end, found = right[begin], np.int32(MISSING)
            if end < count:
                found = find(keys, values, np.int64(ids[begin]) << 32 | np.int64(ids[end]))
            rank_at[begin] = found
            if found != MISSING:
                size = _push(heap, size, np.int64(found) << 32 | begin)
    kept = 0
    for i in range(count):
        if ids[i] >= 0:
            ids[kept] = ids[i]
            kept += 1
    return kept


@compiled
def merge_in_place(ids, count, keys, values):
    """``merges`` of ``ids[:count]``; returns how many are left of them."""
    if count <= _SHORT:
        return _merge_short(ids, count, keys, values)
    return _merge_long(ids, count, keys, values)


@compiled
def _by_merges(
    data, ends, single, keys, values, text, sizes, known, known_counts, out, counts
):  # fmt: skip
    """Ids of the pre-tokens of ``data``, behind each other in ``out``; ``counts`` has how many of
    each pre-token. Returns the numbers of ids and of pre-tokens."""
    filled = done = start = 0
    for at in range(len(data)):
        if not ends[at] and at + 1 < len(data):
            continue
        size = at + 1 - start
        place = -1
        if size <= _KEPT_BYTES:
            place = np.int64(hashed(data, start, at + 1) >> np.uint64(33)) & (_KEPT - 1)
            if sizes[place] == size:
                same = True
                for i in range(size):
                    if text[place, i] != data[start + i]:
                        same = False
                        break
                if same:
                    count = known_counts[place]
                    for i in range(count):
                        out[filled + i] = known[place, i]
                    filled += count
                    counts[done] = count
                    done += 1
                    start = at + 1
                    continue
        for i in range(size):
            out[filled + i] = single[data[start + i]]
        count = merge_in_place(out[filled : filled + size], size, keys, values)
        if place >= 0 and count <= _KEPT_IDS:
            sizes[place], known_counts[place] = size, count
            for i in range(size):
                text[place, i] = data[start + i]
            for i in range(count):
                known[place, i] = out[filled + i]
        filled += count
        counts[done] = count
        done += 1
        start = at + 1
    return filled, done


@compiled
def _cut_more(data, ends, apart, cuts):
    """``ends``, and those places between two bytes that stand ``apart``."""
    for at in range(len(data)):
        cuts[at] = ends[at] or (at + 1 < len(data) and apart[data[at], data[at + 1]])


@compiled
def _merge_on(ids, counts, cuts, ends, keys, values, out, totals):
    """Merge what parts between ``cuts`` came to, all parts up to an end together."""
    filled = done = at = first = part = 0
    for place in range(len(cuts)):
        if not cuts[place] and place + 1 < len(cuts):
            continue
        for i in range(counts[part]):
            out[filled + i] = ids[at + i]
        filled += counts[part]
        at += counts[part]
        part += 1
        if ends[place] or place + 1 == len(cuts):
            kept = merge_in_place(out[first:filled], filled - first, keys, values)
            filled = first + kept
            totals[done] = kept
            done += 1
            first = filled
    return filled, done


class Merges:
    """``merges`` of the first ``size`` of some pieces; the first 256 are the single bytes.

    Pre-tokens seen before are kept. Where pieces reach across words, those before the first that
    does are merged first, between words: no later merge makes a piece of lower id of theirs, so the
    result is the same, and words are short and repeat.
    """

    def __init__(self, pieces: list[bytes], size: int):
        self.single = single_of(pieces)
        across = (i for i in range(256, size) if _ACROSS.search(pieces[i]))
        inside = next(across, size)
        self.table = pair_table(pieces, range(256, inside))
        self.rest, self.apart = None, None
        if inside < size:
            self.rest = pair_table(pieces, range(256, size))
            self.apart = np.ones((256, 256), np.bool_)
            for piece in pieces[256:inside]:
                text = np.frombuffer(piece, np.uint8)
                self.apart[text[:-1], text[1:]] = False
        self.kept = threading.local()  # what two threads wrote at once would be wrong

    def apply(self, data: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids, int32, of uint8 ``data`` whose pre-tokens end where ``ends`` is 1, and how many
        belong to each pre-token."""
        if self.rest is None:
            return self._inside(data, ends)
        cuts = np.empty(len(data), np.uint8)
        _cut_more(data, ends, self.apart, cuts)
        ids, counts = self._inside(data, cuts)
        out, totals = np.empty(len(ids), np.int32), np.empty(len(counts), np.int32)
        filled, done = _merge_on(ids, counts, cuts, ends, *self.rest, out, totals)
        return out[:filled], totals[:done]

    def _inside(self, data: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(self.kept, "arrays"):
            self.kept.arrays = (
                np.zeros((_KEPT, _KEPT_BYTES), np.uint8), np.zeros(_KEPT, np.int8),
                np.zeros((_KEPT, _KEPT_IDS), np.int32), np.zeros(_KEPT, np.int8),
            )  # fmt: skip
        out, counts = np.empty(len(data), np.int32), np.empty(len(data), np.int32)
        text, sizes, known, known_counts = self.kept.arrays
        filled, done = _by_merges(
            data, ends, self.single, *self.table, text, sizes, known, known_counts, out, counts
        )
        return out[:filled], counts[:done]

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "kept"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state | {"kept": threading.local()}


@compiled
def _over_whole(ids, counts, joins, keys, values, out):
    filled = at = 0
    pre = 0
    while pre < len(counts):
        if counts[pre] != 1 or not joins[ids[at]]:
            for i in range(counts[pre]):
                out[filled + i] = ids[at + i]
            filled += counts[pre]
            at += counts[pre]
            pre += 1
            continue
        first = filled
        while pre < len(counts) and counts[pre] == 1 and joins[ids[at]]:
            out[filled] = ids[at]
            filled += 1
            at += 1
            pre += 1
        count = merge_in_place(out[first:filled], filled - first, keys, values)
        filled = first + count
    return filled


def over_whole(
    ids: np.ndarray, counts: np.ndarray, joins: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Supermerges (BoundlessBPE): ``merges`` over runs of pre-tokens that are one id each, of
    those for which ``joins``, booleans by id, holds."""
    out = np.empty(len(ids), np.int32)
    return out[: _over_whole(ids, counts, joins, *pairs, out)]


@compiled
def _by_greed(data, ends, keys, children, piece_of, out):
    filled = start = 0
    limit = 0
    while start < len(data):
        if start >= limit:
            limit = start + 1
            while limit < len(data) and not ends[limit - 1]:
                limit += 1
        node, found, behind = np.int64(0), -1, start
        for at in range(start, limit):
            child = find(keys, children, node << 8 | np.int64(data[at]))
            if child == MISSING:
                break
            node = np.int64(child)
            if piece_of[node] != MISSING:
                found, behind = piece_of[node], at + 1
        out[filled] = found
        filled += 1
        start = behind
    return filled


@compiled
def _by_path(data, ends, keys, children, piece_of, scores, out):
    """The best path through each pre-token: the largest sum of ``scores``; of equal ones, that
    whose last piece is longest."""
    best = np.empty(len(data) + 1, np.float64)
    come = np.empty(len(data) + 1, np.int32)  # the piece that ends here
    size_of = np.empty(len(data) + 1, np.int32)
    filled = start = 0
    while start < len(data):
        limit = start + 1
        while limit < len(data) and not ends[limit - 1]:
            limit += 1
        best[start] = 0.0
        for at in range(start + 1, limit + 1):
            best[at] = -np.inf
        for at in range(start, limit):
            node = np.int64(0)
            for behind in range(at + 1, limit + 1):
                child = find(keys, children, node << 8 | np.int64(data[behind - 1]))
                if child == MISSING:
                    break
                node = np.int64(child)
                piece = piece_of[node]
                if piece != MISSING and best[at] + scores[piece] > best[behind]:
                    best[behind] = best[at] + scores[piece]
                    come[behind] = piece
                    size_of[behind] = behind - at
        first, at = filled, limit
        while at > start:
            out[filled] = come[at]
            filled += 1
            at -= size_of[at]
        for i in range((filled - first) // 2):
            a, b = first + i, filled - 1 - i
            out[a], out[b] = out[b], out[a]
        start = limit
    return filled


def by_greed(data: np.ndarray, ends: np.ndarray, tree: Tree) -> np.ndarray:
    """``greedy``, int32; ``tree`` is a ``trie``."""
    out = np.empty(len(data), np.int32)
    return out[: _by_greed(data, ends, *tree, out)]


def by_path(data: np.ndarray, ends: np.ndarray, tree: Tree, scores: np.ndarray) -> np.ndarray:
    """``likeliest``, and ``fewest`` if every score is -1; int32. ``scores``: float64 by piece."""
    out = np.empty(len(data), np.int32)
    return out[: _by_path(data, ends, *tree, scores, out)]
