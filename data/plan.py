"""The plan: which text lies in which row of which step, as a pure function of the step.

A strategy cuts a corpus into rows; an order shuffles the rows of each epoch; a mixture interleaves
corpora. None of them holds state, so the global batch at a step is the same for any number of
hosts or workers, and resuming is starting at another step.

A row is a list of pieces ``[start, stop)`` of the corpus's stream (each within one document). The
row's targets are those ids; its inputs are the ids before them, or the begin-of-document id where a
piece opens its document. So every id of the stream, ends of documents included, is predicted
exactly once an epoch. A piece that continues a document starts without the context before it.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numba
import numpy as np

from octavo.data.shards import Corpus
from octavo.tokenizers.interface import fingerprint_of

CHUNK = 1 << 22
"""Ids of neighbouring rows that stay neighbours on disk; the unit of reading and packing."""


@dataclass(frozen=True)
class Rows:
    """Pieces of consecutive rows, in CSR form: row r has pieces ``first[r] .. first[r + 1]``."""

    first: np.ndarray
    start: np.ndarray
    stop: np.ndarray


class Concat:
    """Documents end to end, cut every ``length`` ids; the last row of the corpus is padded."""

    def __init__(self, ends: np.ndarray, length: int):
        self.ends, self.length = ends, length
        self.total = -(-int(ends[-1]) // length)
        self.per_chunk = max(1, CHUNK // length)
        self.chunks = -(-self.total // self.per_chunk)

    def rows_in(self, chunk: int) -> int:
        return min(self.per_chunk, self.total - chunk * self.per_chunk)

    def chunk(self, chunk: int) -> Rows:
        low = chunk * self.per_chunk * self.length
        high = min(low + self.rows_in(chunk) * self.length, int(self.ends[-1]))
        edges = np.arange(low, high, self.length, dtype=np.int64)
        inner = self.ends[np.searchsorted(self.ends, low, "right") :]
        inner = inner[: np.searchsorted(inner, high, "left")]
        starts = np.union1d(edges, inner)
        first = np.append(np.searchsorted(starts, edges), len(starts))
        return Rows(first.astype(np.int64), starts, np.append(starts[1:], high))


class BestFit:
    """Best-fit packing (Ding et al. 2024, "Fewer Truncations"): a document longer than a row is cut
    into rows and a rest; the rests, longest first, go to the fullest row with room for them.
    Packed within chunks of neighbouring documents, so that a row is read from one place."""

    def __init__(self, ends: np.ndarray, length: int):
        self.ends, self.length = ends, length
        # Documents are grouped into chunks of about CHUNK ids by where they start.
        starts = np.concatenate([[0], ends[:-1]])
        groups = starts // CHUNK
        self.group_edges = np.flatnonzero(np.diff(groups, prepend=-1))
        self.chunks = len(self.group_edges)
        self._rows = [len(self.chunk(i).first) - 1 for i in range(self.chunks)]
        self.total = sum(self._rows)

    def rows_in(self, chunk: int) -> int:
        return self._rows[chunk]

    def chunk(self, chunk: int) -> Rows:
        low = self.group_edges[chunk]
        high = self.group_edges[chunk + 1] if chunk + 1 < self.chunks else len(self.ends)
        origin = self.ends[low - 1] if low else 0
        return Rows(*_best_fit(np.append(origin, self.ends[low:high]), self.length))


@numba.njit(cache=True, nogil=True)
def _best_fit(edges, length):
    """Pieces of the documents between ``edges``, packed; see ``Rows``."""
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
    # Longest first; ties in text order (mergesort is stable).
    order = np.argsort(start - stop, kind="mergesort")
    # rows_by_room[room] is a stack of rows with exactly that much room, linked through `below`.
    top = np.full(length + 1, -1, np.int64)
    below = np.empty(count, np.int64)
    row_of = np.empty(count, np.int64)
    # A segment tree over room: tree[node] says whether any row under it is open.
    leaves = 1
    while leaves < length + 1:
        leaves *= 2
    tree = np.zeros(2 * leaves, np.bool_)
    rows = 0
    for k in range(count):
        piece = order[k]
        size = stop[piece] - start[piece]
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
        else:
            row = top[found]
            top[found] = below[row]
            if top[found] < 0:
                node = leaves + found
                tree[node] = False
                while node > 1:
                    node //= 2
                    tree[node] = tree[2 * node] or tree[2 * node + 1]
        row_of[piece] = row
        room = found - size
        if room > 0:
            below[row] = top[room]
            top[room] = row
            node = leaves + room
            while node >= 1 and not tree[node]:
                tree[node] = True
                node //= 2
    by_row = np.argsort(row_of, kind="mergesort")
    first = np.zeros(rows + 1, np.int64)
    for piece in range(count):
        first[row_of[piece] + 1] += 1
    return np.cumsum(first), start[by_row], stop[by_row]


STRATEGIES = {"concat": Concat, "best_fit": BestFit}


def permutation(count: int, *key: int) -> np.ndarray:
    """A shuffle of ``range(count)``, a pure function of its arguments on every platform and
    version (sorted SplitMix64 hashes; NumPy promises that for its raw bit streams only)."""
    with np.errstate(over="ignore"):
        state = np.uint64(0x9E3779B97F4A7C15)
        for part in key:
            state = _mix(state ^ np.uint64(part)) + np.uint64(0x9E3779B97F4A7C15)
        hashes = _mix(state + np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return np.argsort(hashes, kind="stable")


def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Order:
    """A shuffle of a strategy's rows for every epoch: chunks are permuted, then the rows within
    each window of neighbouring permuted chunks. A corpus of one window is shuffled uniformly."""

    def __init__(self, strategy: Concat | BestFit, window_ids: int, *key: int):
        self.strategy, self.key = strategy, key
        self.total = strategy.total
        self.window_chunks = max(1, window_ids // CHUNK)
        self._sizes = np.array([strategy.rows_in(i) for i in range(strategy.chunks)], np.int64)
        self._remember()

    def _remember(self):
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._window = lru_cache(maxsize=4)(self._make_window)

    def __getstate__(self):
        # What was computed stays behind; a worker process computes it again.
        return {k: v for k, v in self.__dict__.items() if k not in ("_epoch", "_window")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._remember()

    def _make_epoch(self, epoch: int):
        chunks = permutation(len(self._sizes), *self.key, epoch)
        ends = np.cumsum(self._sizes[chunks])[self.window_chunks - 1 :: self.window_chunks]
        return chunks, ends if len(ends) and ends[-1] == self.total else np.append(ends, self.total)

    def _make_window(self, epoch: int, window: int):
        chunks = self._epoch(epoch)[0]
        mine = chunks[window * self.window_chunks : (window + 1) * self.window_chunks]
        sizes = self._sizes[mine]
        shuffled = permutation(int(sizes.sum()), *self.key, epoch, window)
        slot = np.repeat(np.arange(len(mine)), sizes)[shuffled]
        return mine, slot, shuffled - (np.cumsum(sizes) - sizes)[slot]

    def locate(self, draws: np.ndarray) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
        """Groups (epoch, window, which of the draws, their places in that window)."""
        groups = []
        epochs = draws // self.total
        for epoch in np.unique(epochs).tolist():
            ends = self._epoch(epoch)[1]
            mine = np.flatnonzero(epochs == epoch)
            at = draws[mine] - epoch * self.total
            windows = np.searchsorted(ends, at, side="right")
            for window in np.unique(windows).tolist():
                here = windows == window
                origin = ends[window - 1] if window else 0
                groups.append((epoch, window, mine[here], at[here] - origin))
        return groups

    def window(self, epoch: int, window: int):
        """(chunks, slot, row): place p of the window is row ``row[p]`` of ``chunks[slot[p]]``."""
        return self._window(epoch, window)


class Plan:
    """What every row of every step holds.

    corpora: (corpus, weight) pairs; a share ``weight`` of the rows (exact in every stretch of 4096
    rows, up to rounding) comes from each.
    """

    PERIOD = 4096

    def __init__(
        self,
        corpora: list[tuple[Corpus, float]],
        *,
        packing: str,
        length: int,
        batch_size: int,
        shuffle_window_ids: int,
        seed: int,
    ):
        self.corpora = [corpus for corpus, _ in corpora]
        self.length, self.batch_size = length, batch_size
        self.description = {
            "corpora": {str(i): c.fingerprint for i, c in enumerate(self.corpora)},
            "weights": [weight for _, weight in corpora],
            "packing": packing,
            "length": length,
            "batch_size": batch_size,
            "shuffle_window_ids": shuffle_window_ids,
            "seed": seed,
            "version": 1,
        }
        self.orders = [
            Order(STRATEGIES[packing](c.document_ends(), length), shuffle_window_ids, seed, i)
            for i, c in enumerate(self.corpora)
        ]
        self._mix = self._mixture([weight for _, weight in corpora], seed)

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

    def _mixture(self, weights: list[float], seed: int):
        """(choice, rank, counts): within a period, place p draws from corpus ``choice[p]``, as its
        ``rank[p]``-th draw of the period; corpus c is drawn ``counts[c]`` times a period."""
        if len(weights) == 1:
            place = np.arange(self.PERIOD)
            return np.zeros_like(place), place, np.array([self.PERIOD])
        shares = np.array(weights) / sum(weights) * self.PERIOD
        counts = np.floor(shares).astype(np.int64)
        for c in np.argsort(counts - shares, kind="stable")[: self.PERIOD - counts.sum()]:
            counts[c] += 1
        choice = np.repeat(np.arange(len(weights)), counts)
        choice = choice[permutation(self.PERIOD, seed, len(weights))]
        rank = np.zeros(self.PERIOD, np.int64)
        for c in range(len(weights)):
            rank[choice == c] = np.arange(counts[c])
        return choice, rank, counts

    def draws(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global rows (= step x batch size + row) as corpora and their draw numbers."""
        choice, rank, counts = self._mix
        period, place = np.divmod(rows, self.PERIOD)
        corpus = choice[place]
        return corpus, period * counts[corpus] + rank[place]
