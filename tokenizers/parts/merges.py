"""Learning merges: byte pair encoding over weighted sequences of symbols, compiled.

The most frequent pair of adjacent symbols becomes a symbol of its own, again and again; of equally
frequent pairs the one of lower ids goes first, as in ``rustbpe`` and Hugging Face ``tokenizers``.
What is counted are distinct pre-tokens with how often each occurs, in each of several languages.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts.tables import MISSING, copy, empty, find, put
from octavo.tokenizers.parts.text import Progress, quiet

LONGEST = 256
"""Bytes of a piece: what finds pieces in a text takes as many steps a byte, at worst."""
_AT_ONCE = 1 << 20
"""Places for whose pairs there is room before any is counted."""


@compiled
def _before(counts, pairs, lefts, rights, a, b):
    """Whether entry a of a heap goes before b: more frequent, then of lower ids."""
    if counts[a] != counts[b]:
        return counts[a] > counts[b]
    one, other = pairs[a], pairs[b]
    if lefts[one] != lefts[other]:
        return lefts[one] < lefts[other]
    return rights[one] < rights[other]


@compiled
def _push_all(counts, pairs, size, lefts, rights, added, totals):
    for pair in added:
        if totals[pair] <= 0:
            continue
        at = size
        counts[at], pairs[at] = totals[pair], pair
        size += 1
        while at:
            up = (at - 1) >> 1
            if not _before(counts, pairs, lefts, rights, at, up):
                break
            counts[at], counts[up] = counts[up], counts[at]
            pairs[at], pairs[up] = pairs[up], pairs[at]
            at = up
    return size


@compiled
def _sift(counts, pairs, size, lefts, rights):
    at = 0
    while True:
        first = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < size and _before(counts, pairs, lefts, rights, child, first):
                first = child
        if first == at:
            return
        counts[at], counts[first] = counts[first], counts[at]
        pairs[at], pairs[first] = pairs[first], pairs[at]
        at = first


@compiled
def _best(counts, pairs, size, lefts, rights, totals):
    """The most frequent pair (-1: there is none) and the size of the heap. Entries say what counts
    were: one that is too high is put back where it belongs."""
    while size:
        pair = pairs[0]
        if counts[0] == totals[pair]:
            return pair, size
        if totals[pair] <= 0:
            size -= 1
            counts[0], pairs[0] = counts[size], pairs[size]
        elif totals[pair] < counts[0]:
            counts[0] = totals[pair]
        else:  # a pair whose count rose was put in again
            size -= 1
            counts[0], pairs[0] = counts[size], pairs[size]
        _sift(counts, pairs, size, lefts, rights)
    return -1, size


@compiled
def _pair_of(left, right, keys, index, lefts, rights, used):
    """The number of a pair, a new one if it has none; and how many there are."""
    key = np.int64(left) << 32 | np.int64(right)
    pair = find(keys, index, key)
    if pair == MISSING:
        pair = np.int32(used)
        put(keys, index, key, pair)
        lefts[pair], rights[pair] = left, right
        used += 1
    return pair, used


@compiled
def _count(
    begin, end, ids, right, owner, weights, languages, keys, index, lefts, rights, totals,
    first, places, nexts, used, noted,
):  # fmt: skip
    """Enter the pairs of adjacent symbols whose first is at ``begin`` or behind and before ``end``;
    returns the numbers of pairs and of places."""
    for at in range(begin, end):
        if right[at] < 0:
            continue
        pair, used = _pair_of(ids[at], ids[right[at]], keys, index, lefts, rights, used)
        totals[languages[owner[at]], pair] += weights[owner[at]]
        places[noted], nexts[noted] = at, first[pair]
        first[pair] = noted
        noted += 1
    return used, noted


@compiled
def _length(nexts, note):
    count = 0
    while note >= 0:
        count += 1
        note = nexts[note]
    return count


@compiled
def _merge(
    merged, new, ids, left, right, owner, weights, languages, keys, index, lefts, rights, totals,
    first, places, nexts, used, noted, stamps, stamp, touched, saved,
):  # fmt: skip
    """Merge all places of a pair into the symbol ``new``. Returns the numbers of pairs, of places,
    of ``touched`` pairs, whose counts may have risen, and of symbols ``saved`` by language."""
    a, b = lefts[merged], rights[merged]
    count = _length(nexts, first[merged])
    where = np.empty(count, np.int32)
    note = first[merged]
    for i in range(count):
        where[i] = places[note]
        note = nexts[note]
    if a == b:  # of overlapping places the first counts
        where.sort()
    first[merged] = -1
    changed = 0
    for at in where:
        after = right[at]
        if ids[at] != a or after < 0 or ids[after] != b:
            continue
        before, behind, word = left[at], right[after], owner[at]
        totals[languages[word], merged] -= weights[word]
        saved[languages[word]] += weights[word]
        if before >= 0:
            pair, used = _pair_of(ids[before], a, keys, index, lefts, rights, used)
            totals[languages[word], pair] -= weights[word]
        if behind >= 0:
            pair, used = _pair_of(b, ids[behind], keys, index, lefts, rights, used)
            totals[languages[word], pair] -= weights[word]
        ids[at], ids[after] = new, -1
        right[at], right[after] = behind, -1
        if behind >= 0:
            left[behind] = at
        for side in range(2):
            begin = before if side == 0 else at
            end = at if side == 0 else behind
            if begin < 0 or end < 0:
                continue
            pair, used = _pair_of(ids[begin], ids[end], keys, index, lefts, rights, used)
            totals[languages[word], pair] += weights[word]
            places[noted], nexts[noted] = begin, first[pair]
            first[pair] = noted
            noted += 1
            if stamps[pair] != stamp:
                stamps[pair] = stamp
                touched[changed] = pair
                changed += 1
    return used, noted, changed


def _more(array: np.ndarray, size: int, fill: int) -> np.ndarray:
    """``array`` with room for ``size`` along its last axis."""
    if array.shape[-1] >= size:
        return array
    grown = np.full((*array.shape[:-1], max(size, 2 * array.shape[-1])), fill, array.dtype)
    grown[..., : array.shape[-1]] = array
    return grown


class Merger:
    """Weighted sequences of symbols, in which pairs are merged one kind at a time.

    sequences: ids of each. weights: how often each occurs. languages: whose each is, from 0 on.
    """

    def __init__(
        self,
        sequences: list[np.ndarray] | list[bytes],
        weights: Iterable[int],
        languages: Iterable[int] | None = None,
    ):
        sizes = np.array([len(sequence) for sequence in sequences], np.int64)
        if sequences and isinstance(sequences[0], bytes):
            flat = np.frombuffer(b"".join(sequences), np.uint8).astype(np.int32)  # type: ignore[arg-type]
        else:
            flat = np.concatenate([np.zeros(0, np.int32), *sequences]).astype(np.int32)
        count = len(flat)
        self.ids = flat
        self.weights = np.fromiter(weights, np.int64, len(sizes))
        of = itertools.repeat(0) if languages is None else languages
        self.languages = np.fromiter(of, np.int32, len(sizes))
        self.owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.left = np.arange(-1, count - 1, dtype=np.int32)
        self.right = np.arange(1, count + 1, dtype=np.int32)
        edges = np.cumsum(sizes)
        starts = (edges - sizes)[sizes > 0]
        self.left[starts], self.right[edges[sizes > 0] - 1] = -1, -1
        number = int(self.languages.max(initial=0)) + 1
        self.tokens = np.zeros(number, np.int64)
        """Symbols of each language, each as often as its sequence occurs."""
        np.add.at(self.tokens, self.languages, self.weights * sizes)
        self.symbols = int(flat.max(initial=0)) + 1
        self.keys, self.index = empty(1)
        self.lefts, self.rights = np.empty(1, np.int32), np.empty(1, np.int32)
        self.totals = np.zeros((number, 1), np.int64)
        self.first = np.full(1, -1, np.int32)
        self.stamps = np.zeros(1, np.int32)
        self.places, self.nexts = np.empty(count + 1, np.int32), np.empty(count + 1, np.int32)
        self.used = self.noted = self.stamp = 0
        for begin in range(0, count, _AT_ONCE):
            end = min(begin + _AT_ONCE, count)
            self._reserve(end - begin, end - begin)
            self.used, self.noted = _count(
                begin, end, self.ids, self.right, self.owner, self.weights, self.languages,
                self.keys, self.index, self.lefts, self.rights, self.totals, self.first,
                self.places, self.nexts, self.used, self.noted,
            )  # fmt: skip
        self.heaps = [
            (np.empty(self.used + 1, np.int64), np.empty(self.used + 1, np.int32))
            for _ in range(number)
        ]
        self.heap_sizes = [0] * number
        self._push(np.arange(self.used, dtype=np.int32))

    def _reserve(self, places: int, pairs: int) -> None:
        """Room for so many more places, and pairs."""
        self.places = _more(self.places, self.noted + places, 0)
        self.nexts = _more(self.nexts, self.noted + places, 0)
        pairs += self.used
        self.lefts, self.rights = _more(self.lefts, pairs, 0), _more(self.rights, pairs, 0)
        self.totals, self.first = _more(self.totals, pairs, 0), _more(self.first, pairs, -1)
        self.stamps = _more(self.stamps, pairs, 0)
        if 2 * pairs > len(self.keys):
            grown = empty(pairs)
            copy(self.keys, self.index, *grown)
            self.keys, self.index = grown

    def _push(self, added: np.ndarray) -> None:
        for language, (counts, pairs) in enumerate(self.heaps):
            size = self.heap_sizes[language]
            counts, pairs = _more(counts, size + len(added), 0), _more(pairs, size + len(added), 0)
            self.heaps[language] = counts, pairs
            self.heap_sizes[language] = _push_all(
                counts, pairs, size, self.lefts, self.rights, added, self.totals[language]
            )

    def best(self, language: int = 0) -> tuple[int, int, int, int] | None:
        """``(pair, left, right, count)`` of the most frequent pair; None if there is none."""
        pair, size = _best(
            *self.heaps[language], self.heap_sizes[language], self.lefts, self.rights,
            self.totals[language],
        )  # fmt: skip
        self.heap_sizes[language] = size
        if pair < 0:
            return None
        return pair, int(self.lefts[pair]), int(self.rights[pair]), int(self.totals[language, pair])

    def reject(self, pair: int) -> None:
        """Never offer a pair again."""
        self.totals[:, pair] = np.iinfo(np.int64).min // 2

    def merge(self, pair: int, new: int) -> None:
        """Make the symbol ``new`` of every place of a pair."""
        count = _length(self.nexts, self.first[pair])
        self.symbols = max(self.symbols, new + 1)
        self._reserve(2 * count, 2 * min(count, self.symbols))  # a new pair holds the new symbol
        self.stamp += 1
        touched, saved = np.empty(2 * count, np.int32), np.zeros(len(self.heaps), np.int64)
        self.used, self.noted, changed = _merge(
            pair, new, self.ids, self.left, self.right, self.owner, self.weights,
            self.languages, self.keys, self.index, self.lefts, self.rights, self.totals,
            self.first, self.places, self.nexts, self.used, self.noted, self.stamps, self.stamp,
            touched, saved,
        )  # fmt: skip
        self.tokens -= saved
        self._push(touched[:changed])


def learn(
    merger: Merger,
    pieces: list[bytes],
    size: int,
    *,
    allowed: Callable[[bytes], bool] | None = None,
    language: Callable[[Merger], Iterable[int]] = lambda merger: (0,),
    least: int = 1,
    progress: Progress = quiet,
) -> list[int]:
    """Merge until ``pieces`` has ``size`` entries or no pair is left that occurs ``least`` times.
    Adds each new piece to ``pieces``; returns how often each occurred when it was made.

    allowed: whether a piece may be, of at most ``LONGEST`` bytes. language: those whose most
    frequent pair is merged next, the first that has one.
    """
    ids = {piece: i for i, piece in enumerate(pieces)}
    counts: list[int] = []
    while len(pieces) < size:
        for one in language(merger):
            found = merger.best(one)
            if found and found[3] >= least:
                break
        else:
            break
        pair, left, right, count = found
        piece = pieces[left] + pieces[right]
        if len(piece) > LONGEST or allowed and not allowed(piece):
            merger.reject(pair)
            continue
        if piece not in ids:
            ids[piece] = len(pieces)
            pieces.append(piece)
            counts.append(count)
            if not len(counts) % 256:
                progress("merging", len(pieces), size)
        # Else it is another way to a piece that there is: what is encoded goes it too.
        merger.merge(pair, ids[piece])
    return counts


def learned(
    kinds: dict[bytes, int], size: int, progress: Progress = quiet, least: int = 1
) -> tuple[list[bytes], list[int]]:
    """A vocabulary of ``size`` byte strings, of pre-tokens that occur so often: the 256 single
    bytes, and merges, each of at least ``least`` places, in their order. And how often each merge
    occurred."""
    pieces = [bytes([b]) for b in range(256)]
    merger = Merger(list(kinds), kinds.values())
    counts = learn(merger, pieces, size, least=least, progress=progress)
    return pieces, counts
