"""The plan: which text lies in which row of which step, as a pure function of the step.

A strategy cuts a corpus into rows; an order shuffles the rows of each epoch; a mixture interleaves
corpora. None of them holds state, so the global batch at a step is the same for any number of
hosts or workers, and resuming is starting at another step.

A row is a list of pieces ``[start, stop)`` of the corpus's stream (each within one document). The
row's targets are those ids; its inputs are the ids before them, or the begin-of-document id where a
piece opens its document. So every id of the stream, ends of documents included, is predicted
exactly once an epoch. A piece that continues a document starts without the context before it.

A row of an hourglass has room for so many units. Pieces that share one may never need more: what
a document's loss is would depend on those beside it.
"""

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from octavo.batch import Room
from octavo.compiled import compiled
from octavo.data.errors import DataError
from octavo.data.index import Ends
from octavo.data.shards import Corpus
from octavo.tokenizers.interface import fingerprint_of

CHUNK = 1 << 22
"""Ids of neighbouring rows that stay neighbours on disk; the unit of reading and packing."""
_PART = 16
"""Chunks that are planned at a time: memory is that of their documents."""
Kept = Callable[[Callable[[], np.ndarray]], np.ndarray]
"""Gives what a function makes, from a file where it was made before."""


@dataclass(frozen=True)
class Rows:
    """Pieces of consecutive rows, in CSR form: row r has pieces ``first[r] .. first[r + 1]``."""

    first: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def part(self, skipped: int, size: int) -> "Rows":
        """So many rows, after those that are skipped."""
        first = self.first[skipped : skipped + size + 1]
        pieces = slice(first[0], first[-1])
        return Rows(first - first[0], self.start[pieces], self.stop[pieces])


def _made(make: Callable[[], np.ndarray]) -> np.ndarray:
    return make()


class Concat:
    """Documents end to end, cut every ``length`` ids; the last row of the corpus is padded. Where
    pieces have no room beside those before them, they begin a row, and the one before is padded.

    kept: may remember what takes a pass over all documents."""

    def __init__(self, ends: Ends, length: int, room: Room | None = None, kept: Kept = _made):
        self.ends, self.length, self._room = ends, length, room
        self.chunk_ids = max(1, CHUNK // length) * length
        self.chunks = -(-ends.total // self.chunk_ids)
        self.sizes = np.full(self.chunks, self.chunk_ids // length, np.int64)
        """Rows of each chunk."""
        self.sizes[-1:] = -(-(ends.total - (self.chunks - 1) * self.chunk_ids) // length)
        self.split = False
        if room is not None and len(room.most):
            breaks = kept(lambda: np.concatenate(_in_parts(self._count_breaks, self.chunks)))
            self.sizes += breaks
            self.split = bool(breaks.any())
        self.total = int(self.sizes.sum())

    def _breaks(self, low: int, high: int) -> np.ndarray:
        """Where pieces have to begin a row within the rows of some whole chunks."""
        if self._room is None or not len(self._room.most):
            return np.zeros(0, np.int64)
        ends = np.append(self.ends.between(low, high - 1), high)
        limits = low, ends, self.length, self._room.price, self._room.most
        found = np.zeros(0, np.int64)
        found = np.empty(_breaks(*limits, found), np.int64)
        _breaks(*limits, found)
        return found

    def _count_breaks(self, first: int, last: int) -> np.ndarray:
        """In each of the chunks ``first`` to ``last``, int32."""
        low, high = first * self.chunk_ids, min(last * self.chunk_ids, self.ends.total)
        places = self._breaks(low, high) // self.chunk_ids - first
        return np.bincount(places, minlength=last - first).astype(np.int32)

    def chunk(self, chunk: int) -> Rows:
        low = chunk * self.chunk_ids
        high = min(low + self.chunk_ids, self.ends.total)
        edges = np.arange(low, high, self.length, dtype=np.int64)
        if len(breaks := self._breaks(low, high) if self.split else ()):
            edges = np.union1d(edges, breaks)
        # Sorted already, so that this merges them.
        starts = np.sort(np.concatenate([edges, self.ends.between(low, high - 1)]), kind="stable")
        starts = starts[np.diff(starts, prepend=-1) > 0]
        first = np.append(np.searchsorted(starts, edges), len(starts))
        return Rows(first.astype(np.int64), starts, np.append(starts[1:], high))


def _in_parts(work: Callable[[int, int], np.ndarray], chunks: int) -> list[np.ndarray]:
    """What is made of all chunks, some neighbours at a time, on all cores."""
    firsts = range(0, chunks, _PART)
    lasts = [min(first + _PART, chunks) for first in firsts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, firsts, lasts))


@compiled
def _breaks(start, ends, length, price, most, out):
    """Where pieces have to begin a row within the rows that ``Concat`` cuts from ``start`` on, the
    beginning of a row: how many places there are, and the first of them in ``out``."""
    used = np.zeros(len(most), np.int64)
    count = 0
    for end in ends:
        low = start
        while low < end:
            high = min(low - low % length + length, end)
            if low % length == 0:
                used[:] = 0
            elif not _fits(used, price, most, high - low):
                if count < len(out):
                    out[count] = low
                count += 1
                used[:] = 0
            used += price[:, high - low]
            # Rows that are all of one document have no room to share.
            low = high if high == end else max(high, (end - 1) // length * length)
        start = end
    return count


@compiled
def _fits(used, price, most, size):
    """Whether there is room for a piece beside those that used some."""
    for level in range(len(most)):
        if used[level] + price[level, size] > most[level]:
            return False
    return True


class BestFit:
    """Best-fit packing (Ding et al. 2024, "Fewer Truncations"): a document longer than a row is cut
    into rows and a rest; the rests, longest first, go to the fullest row with room for them. A row
    whose units have no room for the next is closed.
    Packed within chunks of neighbouring documents, so that a row is read from one place.

    kept: may remember how many rows that gives."""

    def __init__(self, ends: Ends, length: int, room: Room | None = None, kept: Kept = _made):
        self.ends, self.length, self.chunk_ids = ends, length, CHUNK
        self._room = Room.of_flat(length) if room is None else room
        grid = -(-ends.total // CHUNK)
        found = kept(lambda: np.concatenate(_in_parts(self._count, grid), axis=1))
        # Documents are grouped into chunks of about CHUNK ids by where they start; within a longer
        # one none does.
        self._places = np.flatnonzero(found[0])
        self.sizes = found[0][self._places].astype(np.int64)
        """Rows of each chunk."""
        self.chunks = len(self.sizes)
        self.split = bool(found[1].any())
        self.total = int(self.sizes.sum())

    def _edges(self, first: int, last: int) -> np.ndarray:
        """Where documents that start in some places of the grid start, and the last one ends."""
        low, high = first * self.chunk_ids, last * self.chunk_ids
        starts = self.ends.between(low - 1, min(high, self.ends.total) - 1)
        starts = starts if first else np.append(0, starts)
        return np.append(starts, self.ends.after(int(starts[-1]))) if len(starts) else starts

    def _count(self, first: int, last: int) -> np.ndarray:
        """``[2, places]`` int32 of the places ``first`` to ``last``: rows, and whether any of them
        had to be closed."""
        found = np.zeros((2, last - first), np.int32)
        limits = self.length, self._room.price, self._room.most
        _count(self._edges(first, last), first, self.chunk_ids, *limits, found)
        return found

    def chunk(self, chunk: int) -> Rows:
        place = int(self._places[chunk])
        edges = self._edges(place, place + 1)
        *rows, _ = _best_fit(edges, self.length, self._room.price, self._room.most)
        return Rows(*rows)


@compiled
def _count(edges, first, chunk_ids, length, price, most, out):
    """Rows of the documents between ``edges`` that start in each place of the grid, and whether one
    was closed: see ``BestFit._count``."""
    low = 0
    while low < len(edges) - 1:
        place = edges[low] // chunk_ids
        high = low + 1
        while high < len(edges) - 1 and edges[high] // chunk_ids == place:
            high += 1
        rows, _, _, closed = _best_fit(edges[low : high + 1], length, price, most)
        out[0, place - first] = len(rows) - 1
        out[1, place - first] = closed
        low = high


@compiled
def _best_fit(edges, length, price, most):
    """Pieces of the documents between ``edges``, packed (see ``Rows``), and whether a row was
    closed for want of units."""
    count = 0
    for d in range(len(edges) - 1):
        count += (edges[d + 1] - edges[d] + length - 1) // length
    start = np.empty(count, np.int64)
    stop = np.empty(count, np.int64)
    n = 0
    for d in range(len(edges) - 1):
        for at in range(edges[d], edges[d + 1], length):
            start[n] = at
            stop[n] = min(at + length, edges[d + 1])
            n += 1
    # Longest first; ties in text order.
    place = np.zeros(length + 2, np.int64)
    for piece in range(count):
        place[length - (stop[piece] - start[piece]) + 1] += 1
    place = np.cumsum(place)
    order = np.empty(count, np.int64)
    for piece in range(count):
        size = stop[piece] - start[piece]
        order[place[length - size]] = piece
        place[length - size] += 1
    # rows_by_room[room] is a stack of rows with exactly that much room, linked through `below`.
    top = np.full(length + 1, -1, np.int64)
    below = np.empty(count, np.int64)
    row_of = np.empty(count, np.int64)
    # A segment tree over room: tree[node] says whether any row under it is open.
    leaves = 1
    while leaves < length + 1:
        leaves *= 2
    tree = np.zeros(2 * leaves, np.bool_)
    used = np.zeros((count, len(most)), np.int64)
    rows, closed = 0, False
    for k in range(count):
        piece = order[k]
        size = stop[piece] - start[piece]
        if size == length:  # nothing shares its row
            row_of[piece] = rows
            rows += 1
            continue
        while True:
            # The smallest room >= size that some row has.
            node = leaves + size
            found = -1
            if tree[node]:
                found = size
            else:
                while node > 1:
                    if node % 2 == 0 and tree[node + 1]:
                        node += 1
                        while node < leaves:
                            node = 2 * node if tree[2 * node] else 2 * node + 1
                        found = node - leaves
                        break
                    node //= 2
            if found < 0:
                row = rows
                rows += 1
                found = length
                break
            row = top[found]
            top[found] = below[row]
            if top[found] < 0:
                node = leaves + found
                tree[node] = False
                while node > 1:
                    node //= 2
                    tree[node] = tree[2 * node] or tree[2 * node + 1]
            if _fits(used[row], price, most, size):
                break
            closed = True
        row_of[piece] = row
        for level in range(len(most)):
            used[row, level] += price[level, size]
        room = found - size
        if room > 0:
            below[row] = top[room]
            top[room] = row
            node = leaves + room
            while node >= 1 and not tree[node]:
                tree[node] = True
                node //= 2
    first = np.zeros(rows + 1, np.int64)
    for piece in range(count):
        first[row_of[piece] + 1] += 1
    first = np.cumsum(first)
    # By row, and within one in text order.
    by_row = np.empty(count, np.int64)
    place = first.copy()
    for piece in range(count):
        by_row[place[row_of[piece]]] = piece
        place[row_of[piece]] += 1
    return first, start[by_row], stop[by_row], closed


def _kept(corpus: Corpus, packing: str, length: int, room: Room | None) -> Kept:
    """What remembers the rows of a corpus that are packed so."""
    about = packing, length, CHUNK, room and room.tobytes()
    return functools.partial(corpus.kept, fingerprint_of(repr(about).encode()))


STRATEGIES = {"concat": Concat, "best_fit": BestFit}


def permutation(count: int, *key: int) -> np.ndarray:
    """A shuffle of ``range(count)``, a pure function of its arguments on every platform and
    version (sorted SplitMix64 hashes; NumPy promises that for its raw bit streams only)."""
    with np.errstate(over="ignore"):
        state = np.uint64(0x9E3779B97F4A7C15)
        for part in key:
            state = _mix(state ^ np.uint64(part)) + np.uint64(0x9E3779B97F4A7C15)
        hashes = _mix(state + np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return np.argsort(hashes)  # no two are equal: any way of sorting gives the same


def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def values(x: np.ndarray) -> list[int]:
    """Those in an array, in order. (Mostly there is one, and ``np.unique`` takes its time.)"""
    low, high = int(x.min()), int(x.max())
    return [low] if low == high else np.unique(x).tolist()


class Order:
    """A shuffle of a strategy's rows for every epoch, of each lane by itself: a lane is an equal
    part of the rows, neighbours in the corpus. Its chunks are permuted, then the rows within each
    window of neighbouring permuted chunks. A corpus of one window is one lane, shuffled uniformly.

    window_ids: of all lanes together.
    """

    def __init__(self, strategy: Concat | BestFit, window_ids: int, *key: int, lanes: int = 1):
        self.strategy, self.key, self.lanes = strategy, key, lanes
        self.total = strategy.total
        self.window_chunks = max(1, window_ids // CHUNK // lanes)
        self._remember()

    def _remember(self):
        self._lane = lru_cache(maxsize=None)(self._make_lane)
        self._epoch = lru_cache(maxsize=2 * self.lanes)(self._make_epoch)
        self._window = lru_cache(maxsize=4)(self._make_window)

    def __getstate__(self):
        # What was computed stays behind; a worker process computes it again.
        computed = "_ends", "_lane", "_epoch", "_window"
        return {k: v for k, v in self.__dict__.items() if k not in computed}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._remember()

    @cached_property
    def _ends(self) -> np.ndarray:
        """Rows up to the end of each chunk."""
        return np.cumsum(self.strategy.sizes)

    def _edges(self, lane: int) -> tuple[int, int]:
        """Rows before a lane, and up to its end."""
        return self.total * lane // self.lanes, self.total * (lane + 1) // self.lanes

    def _make_lane(self, lane: int):
        """The chunks in which rows of a lane lie, and the first of those rows and how many they are
        in each."""
        low, high = self._edges(lane)
        first, last = np.searchsorted(self._ends, [low, high - 1], side="right")
        chunks = np.arange(first, last + 1)
        ends = self._ends[chunks]
        begins = ends - self.strategy.sizes[chunks]
        skipped = np.maximum(low - begins, 0)
        return chunks, skipped, np.minimum(ends, high) - begins - skipped

    def _key(self, lane: int) -> tuple[int, ...]:
        return (*self.key, lane) if self.lanes > 1 else self.key

    def _make_epoch(self, lane: int, epoch: int):
        sizes = self._lane(lane)[2]
        low, high = self._edges(lane)
        order = permutation(len(sizes), *self._key(lane), epoch)
        ends = np.cumsum(sizes[order])[self.window_chunks - 1 :: self.window_chunks]
        whole = len(ends) and ends[-1] == high - low
        return order, ends if whole else np.append(ends, high - low)

    def _make_window(self, lane: int, epoch: int, window: int):
        order = self._epoch(lane, epoch)[0]
        mine = order[window * self.window_chunks : (window + 1) * self.window_chunks]
        chunks, skipped, sizes = (about[mine] for about in self._lane(lane))
        shuffled = permutation(int(sizes.sum()), *self._key(lane), epoch, window)
        slot = np.repeat(np.arange(len(mine)), sizes)[shuffled]
        return Window(chunks, skipped, sizes, slot, shuffled - (np.cumsum(sizes) - sizes)[slot])

    def locate(self, lane: int, draws: np.ndarray) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
        """Groups (epoch, window, which of the lane's draws, their places in that window)."""
        groups = []
        low, high = self._edges(lane)
        epochs = draws // (high - low)
        for epoch in values(epochs):
            ends = self._epoch(lane, epoch)[1]
            mine = np.flatnonzero(epochs == epoch)
            at = draws[mine] - epoch * (high - low)
            windows = np.searchsorted(ends, at, side="right")
            for window in values(windows):
                here = windows == window
                origin = ends[window - 1] if window else 0
                groups.append((epoch, window, mine[here], at[here] - origin))
        return groups

    def window(self, lane: int, epoch: int, window: int) -> "Window":
        return self._window(lane, epoch, window)


@dataclass(frozen=True)
class Window:
    """Place p of a window is row ``row[p]`` of those that chunk ``chunks[slot[p]]`` gives to it:
    ``sizes``, after the first ``skipped``."""

    chunks: np.ndarray
    skipped: np.ndarray
    sizes: np.ndarray
    slot: np.ndarray
    row: np.ndarray


LANE_CHUNKS = 16
"""A lane has at least so many chunks: of those at its edges, two lanes read the text."""


def _lanes(chunks: int, window_chunks: int, rows: int) -> int:
    """Lanes of a corpus, whatever the hosts: a power of two that divides the rows of a batch, of
    which each has a chunk in memory."""
    lanes = 1
    if chunks > window_chunks:
        most = min(window_chunks, chunks // LANE_CHUNKS)
        while 2 * lanes <= most and rows % (2 * lanes) == 0:
            lanes *= 2
    return lanes


PERIOD = 4096
"""Rows within which a mixture says which corpus each draws from."""
_FAR = 1 << 12
"""Periods among which lanes begin."""


def _fixed(weights: list[float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mixture of version 1, the same in every period, which never draws from a corpus whose
    share of a period is below half a row: (choice, rank, counts): place p of a period draws from
    corpus ``choice[p]``, as its ``rank[p]``-th draw of the period; ``counts`` of each."""
    shares = np.array(weights) / sum(weights) * PERIOD
    counts = np.floor(shares).astype(np.int64)
    for c in np.argsort(counts - shares, kind="stable")[: PERIOD - counts.sum()]:
        counts[c] += 1
    choice = np.repeat(np.arange(len(weights)), counts)
    choice = choice[permutation(PERIOD, seed, len(weights))]
    rank = np.zeros(PERIOD, np.int64)
    for c in range(len(weights)):
        rank[choice == c] = np.arange(counts[c])
    return choice, rank, counts


class Mixture:
    """Which corpus each row draws from: after any number of rows, each has been drawn its share up
    to a few rows, however small the share is."""

    def __init__(self, weights: list[float], seed: int, fixed: bool, lane: int | None = None):
        self.key = (seed, len(weights)) if lane is None else (seed, len(weights), lane)
        exact = [Fraction(weight) for weight in weights]
        # Of the rows left by the corpora before, the share of each.
        self.shares = [share / sum(exact[i:]) for i, share in enumerate(exact)]
        self.fixed = _fixed(weights, seed) if fixed else None
        # Lanes begin far apart, so that they do not draw from a corpus of a small share at once.
        far = 0 if lane is None else int(permutation(_FAR, *self.key)[0])
        self.first = far * PERIOD
        self.before = self._drawn(self.first)
        self._remember()

    def _remember(self):
        self._period = lru_cache(maxsize=64)(self._make_period)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_period"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._remember()

    def _drawn(self, rows: int) -> np.ndarray:
        """How often each corpus is drawn in the first rows. Sums to them; no count ever falls, as
        a rounded share and what it leaves both grow with what they are of."""
        counts = []
        for share in self.shares:
            counts.append(math.floor(rows * share + Fraction(1, 2)))
            rows -= counts[-1]
        return np.array(counts, np.int64)

    def _make_period(self, period: int) -> tuple[np.ndarray, np.ndarray]:
        """The corpus of each row of a period, and the number of its draw."""
        before, after = self._drawn(period * PERIOD), self._drawn((period + 1) * PERIOD)
        counts = after - before
        choice = np.repeat(np.arange(len(counts)), counts)
        rank = np.arange(PERIOD) - np.repeat(np.cumsum(counts) - counts, counts)
        # Draw k of n lies anywhere in the k-th of n equal parts, so that shares hold within, too.
        jitter = permutation(PERIOD, *self.key, period) / PERIOD
        order = np.argsort((rank + jitter) / counts[choice], kind="stable")
        return choice[order], (before[choice] + rank)[order]

    def draws(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the run, or of a lane, as corpora and their draw numbers: each counts 0, 1, 2 and
        so on over all of them."""
        periods, places = np.divmod(rows, PERIOD)
        if self.fixed is not None:
            choice, rank, counts = self.fixed
            corpus = choice[places]
            return corpus, periods * counts[corpus] + rank[places]
        if len(self.shares) == 1:
            return np.zeros_like(rows), rows
        corpus, draw = np.empty_like(rows), np.empty_like(rows)
        periods += self.first // PERIOD
        for period in np.unique(periods).tolist():
            mine = periods == period
            corpus[mine], draw[mine] = (values[places[mine]] for values in self._period(period))
        return corpus, draw - self.before[corpus]


class Plan:
    """What every row of every step holds.

    The rows of a batch belong to lanes, each of which reads a part of every large corpus; so the
    hosts, which have some rows each, read about their share of the text, and what a row holds is
    the same for any number of them.

    corpora: (corpus, weight) pairs; a share ``weight`` of the rows of a lane (over any stretch, up
    to a few rows) comes from each. room: of the model's rows. version: 1 gives the rows of runs
    that were started before shares held over the run and rows had a room, which is then ignored; up
    to 2, there are no lanes. Where no corpus is larger than a window, that changes no row.

    Raises DataError for a version that this revision does not know.
    """

    VERSION = 3

    def __init__(
        self,
        corpora: list[tuple[Corpus, float]],
        *,
        packing: str,
        length: int,
        batch_size: int,
        shuffle_window_ids: int,
        seed: int,
        room: Room | None = None,
        version: int = VERSION,
    ):
        if version not in range(1, self.VERSION + 1):
            raise DataError(
                f"the run's data follow version {version} of the plan, which this revision does "
                f"not know (1 to {self.VERSION}); continue the run with the revision it is of."
            )
        self.corpora = [corpus for corpus, _ in corpora]
        self.length, self.batch_size = length, batch_size
        weights = [weight for _, weight in corpora]
        room = room if version > 1 else None
        self.orders = []
        for i, corpus in enumerate(self.corpora):
            kept = _kept(corpus, packing, length, room)
            strategy = STRATEGIES[packing](corpus.ends, length, room, kept)
            lanes = 1
            if version > 2:
                lanes = _lanes(strategy.chunks, shuffle_window_ids // CHUNK, batch_size)
            self.orders.append(Order(strategy, shuffle_window_ids, seed, i, lanes=lanes))
        self.lanes = max(order.lanes for order in self.orders)
        self.mixtures = [
            Mixture(weights, seed, version == 1, None if self.lanes == 1 else lane)
            for lane in range(self.lanes)
        ]
        self.description = {
            "corpora": {str(i): c.fingerprint for i, c in enumerate(self.corpora)},
            "weights": weights,
            "packing": packing,
            "length": length,
            "batch_size": batch_size,
            "shuffle_window_ids": shuffle_window_ids,
            "seed": seed,
            "version": version,
        }
        if version > 1:
            # Where all rows have room, all models share one plan.
            split = any(order.strategy.split for order in self.orders)
            self.description["room"] = fingerprint_of(room.tobytes()) if room and split else None

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(repr(self.description).encode())

    @cached_property
    def rows_per_epoch(self) -> int:
        """Rows of all corpora together, each once."""
        return sum(order.total for order in self.orders)

    def bytes_per_id(self) -> float:
        """UTF-8 bytes per id of the stream, over all corpora as weighted."""
        pairs = zip(self.corpora, self.description["weights"], strict=True)
        weighted = [(c.utf8_bytes / c.tokens, weight) for c, weight in pairs]
        return sum(b * w for b, w in weighted) / sum(w for _, w in weighted)

    def draws(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Global rows (= step x batch size + row) as corpora, their lanes, and draw numbers of
        those."""
        if self.lanes == 1:
            corpora, draws = self.mixtures[0].draws(rows)
            return corpora, np.zeros_like(rows), draws
        each = self.batch_size // self.lanes
        steps, places = np.divmod(rows, self.batch_size)
        lanes, turns = places // each, steps * each + places % each
        corpora, draws = np.zeros_like(rows), turns
        if len(self.corpora) > 1:
            draws = np.empty_like(rows)
            for lane in values(lanes):
                mine = lanes == lane
                corpora[mine], draws[mine] = self.mixtures[lane].draws(turns[mine])
        # Of a corpus that has fewer lanes, neighbours share one and take turns.
        sharing = np.array([self.lanes // order.lanes for order in self.orders])[corpora]
        return corpora, lanes // sharing, draws * sharing + lanes % sharing

    def streams(self, rows: np.ndarray) -> int:
        """How many lanes of corpora the rows of a batch draw from."""
        lanes = np.unique(rows % self.batch_size * self.lanes // self.batch_size)
        return sum(len(np.unique(lanes * order.lanes // self.lanes)) for order in self.orders)
