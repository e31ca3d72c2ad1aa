"""The distribution of the next byte, from a model of ids: a sum over all ids that spell the text.

A head is ids that end where a byte of the text ends. The probability that a text begins with given
bytes is the sum, over heads, of the head's probability times that of all next ids whose bytes go on
with what is left of them (the cover of a prefix: Phan et al. 2024, 2410.09303; Vieira et al. 2025,
2412.03719). All ids that spell the text count, not only those that the tokenizer would write: that
is what the model gives the text.

Heads multiply with every byte, and most differ in how they began alone. Where there are more than
rows for them, or one holds next to nothing, it is dropped, and the head most like it, which ends at
the same byte, has its probability from then on. So what comes out is the distribution of a real
code: it depends on the bytes up to there alone, and a decoder computes it too. Where nothing was
dropped it is the sum itself; how much the heads that were followed make of it is counted beside.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from octavo.configs.checks import ConfigError
from octavo.tokenizers.bytes import ESCAPE, FLIP, ByteTokenizer
from octavo.tokenizers.interface import SubwordTokenizer, Tokenizer

END = 256
"""Of a distribution ``[257]`` over bytes: the end of the text."""
ROWS = 16
"""Heads at a time, of each text."""
THRESHOLD = 1e-6
"""Heads with less of the probability are dropped."""
SILENT = 4
"""Ids without bytes that may follow one another."""


@dataclass(slots=True)
class Path:
    """Ids from the begin of a document on, the newest of them: heads share what they began with."""

    before: "Path | None"
    id: int
    count: int
    """Of ids, the begin of the document included."""
    mark: int = 0
    """The stored mark of the id (run/marks.py), once it was read."""

    def newest(self, count: int) -> list["Path"]:
        """The last ``count`` ids, in order."""
        found, at = [], self
        while at is not None and len(found) < count:
            found.append(at)
            at = at.before
        return found[::-1]


def path_of(ids: Sequence[int]) -> Path:
    """Of ids, the begin of the document first."""
    path = None
    for count, id_ in enumerate(ids, 1):
        path = Path(path, int(id_), count)
    assert path is not None, "a document begins with an id"
    return path


@dataclass(frozen=True)
class Read:
    """What a model is asked: the next id's distribution behind a path. ``source`` is the row where
    all of the path but its newest id was read (None: none of it was), and ``row`` where it now is.
    Of several asked at once, all sources are read before any row is written."""

    path: Path
    source: int | None
    row: int


Work = Generator[list[Read], np.ndarray, None]
"""Sent log-probabilities ``[reads, vocab_size]`` for each list of reads."""
Model = Callable[[list[Read]], np.ndarray]


class Node:
    """The ids whose bytes begin alike: ``lo`` to ``hi`` of a sorted list, the first ``depth`` bytes
    of which are the same; ``exact`` of them have no more."""

    def __init__(self, pieces: list[bytes], lo: int, hi: int, depth: int):
        self.lo, self.hi, self.depth, self._pieces = lo, hi, depth, pieces
        self.exact = next((i for i in range(hi - lo) if len(pieces[lo + i]) > depth), hi - lo)
        longer = pieces[lo + self.exact : hi]
        following = np.fromiter((piece[depth] for piece in longer), np.uint8, len(longer))
        self.bytes, self.starts = np.unique(following, return_index=True)
        self._children: dict[int, Node] = {}

    def child(self, byte: int) -> "Node | None":
        """Those that go on with a byte."""
        if byte not in self._children:
            i = int(np.searchsorted(self.bytes, byte))
            if i == len(self.bytes) or self.bytes[i] != byte:
                return None
            edges = np.append(self.starts, self.hi - self.lo - self.exact)
            lo, hi = (self.lo + self.exact + int(edge) for edge in edges[i : i + 2])
            self._children[byte] = Node(self._pieces, lo, hi, self.depth + 1)
        return self._children[byte]


@dataclass
class Reading:
    """What ids stand for where they are read. pieces: the bytes of each id, None where it stands
    for none here. silent: ids without bytes that may stand here, and in which reading each goes on.
    """

    pieces: list[bytes | None]
    silent: dict[int, int] = field(default_factory=dict)
    end: int | None = None
    """The id that ends the document, if one may here."""

    def __post_init__(self):
        spelt = [(piece, i) for i, piece in enumerate(self.pieces) if piece]
        spelt.sort()
        self.order = np.array([i for _, i in spelt])
        self.root = Node([piece for piece, _ in spelt], 0, len(spelt), 0)


def readings(tokenizer: Tokenizer) -> list[Reading]:
    """How ids spell bytes: first as they do in general; and of a scheme of bytes, how they do
    behind an escape. Raises ConfigError for a scheme whose ids do not stand for fixed bytes."""
    if isinstance(tokenizer, SubwordTokenizer):
        silent = {i: 0 for i, piece in enumerate(tokenizer.pieces) if not piece}
        return [Reading([*tokenizer.pieces, None], silent, tokenizer.eos_id)]
    if isinstance(tokenizer, ByteTokenizer):
        edges = tokenizer.bos_id, tokenizer.eos_id
        silent = {i: int(i == ESCAPE) for i in tokenizer.special if i not in edges}
        plain = [None if i in tokenizer.special else bytes([i]) for i in range(256)]
        return [
            Reading(plain, silent, tokenizer.eos_id),
            # What needs no escape is not looked for behind one: it is never written so.
            Reading([bytes([i ^ FLIP]) if i ^ FLIP in tokenizer.special else None
                     for i in range(256)]),
        ]  # fmt: skip
    raise ConfigError(
        f"the ids of {tokenizer.name} do not each stand for bytes of their own: what they spell "
        "cannot be followed byte by byte."
    )


@dataclass
class Head:
    """Ids that ended at a byte, and what may follow them. at: how many bytes they are. weight:
    their probability and that of what was dropped for them, as a share of the text's so far. sure:
    log-probability of these ids alone, per that of the text so far."""

    path: Path
    at: int
    row: int
    weight: float
    sure: float
    reading: int
    node: Node
    """The next ids that go on with the bytes since."""
    p: np.ndarray
    """float64: of each id of the node."""
    end: float
    """Of the end of the document, until a byte follows."""

    @property
    def mass(self) -> float:
        """Of texts in which the next id reaches further."""
        return self.weight * (float(self.p[self.node.exact :].sum()) + self.end)


@dataclass
class New:
    """A head that nothing was read of."""

    path: Path
    at: int
    weight: float
    sure: float
    source: int | None
    reading: int = 0

    @property
    def mass(self) -> float:
        return self.weight


class Heads:
    """What is known of one text, byte by byte. rows: of the model, its own.

    ``begin`` and ``feed`` are generators that ask for reads of a model, as many at a time as can be
    (``answer`` gives them those of one text alone). threshold: see ``THRESHOLD``.
    """

    def __init__(self, ways: list[Reading], rows: Sequence[int], threshold: float = THRESHOLD):
        self.ways, self.threshold = ways, threshold
        self.capacity, self._free = len(rows), list(rows)[::-1]
        self.live: list[Head] = []
        self.size = 0
        self.nats = 0.0
        """Of the bytes so far: the length of the code."""
        self.reads = 0

    def begin(self, ids: Sequence[int]) -> Work:
        """ids: what is known to begin the document, its begin id first; no other head is summed."""
        yield from self._grow([New(path_of(ids), 0, 1.0, 0.0, None)])

    def feed(self, byte: int) -> Work:
        """The next byte of the text. Raises ConfigError if the model gives it no probability."""
        new, live = [], []
        self.size += 1
        for head in self.live:
            node = head.node.child(byte)
            if node is None:
                self._free.append(head.row)
                continue
            at = node.lo - head.node.lo
            head.p, head.node, head.end = head.p[at : at + node.hi - node.lo], node, 0.0
            ids = self.ways[head.reading].order[node.lo : node.lo + node.exact]
            new += [self._after(head, i, p) for i, p in zip(ids.tolist(), head.p, strict=False)]
            live.append(head)
        self.live = live
        self._paid(sum(one.mass for one in (*new, *live)), *new, *live)
        yield from self._grow(new)

    def _after(self, head: Head, id_: int, p: float, reading: int = 0) -> New:
        path = Path(head.path, id_, head.path.count + 1)
        sure = head.sure + float(np.log(p)) if p > 0 else -np.inf
        return New(path, self.size, head.weight * float(p), sure, head.row, reading)

    def end(self) -> tuple[float, float]:
        """The text is over. Nats of it and its end: the length of the code, and of what was
        followed of the sum, which the whole sum is at most."""
        ends = [head for head in self.live if head.end]
        followed = np.logaddexp.reduce([head.sure + np.log(head.end) for head in ends])
        at_most = self.nats - float(followed)
        self._paid(sum(head.weight * head.end for head in ends))
        return self.nats, at_most

    def _paid(self, share: float, *heads: Head | New) -> None:
        if not share > 0:
            raise ConfigError("the model gives this text no probability at all.")
        paid = float(np.log(share))
        self.nats -= paid
        for head in heads:
            head.weight, head.sure = head.weight / share, head.sure - paid

    def distribution(self) -> np.ndarray:
        """float64 ``[257]``, of each next byte and of the end; sums to 1."""
        found = np.zeros(END + 1)
        for head in self.live:
            node = head.node
            if len(node.bytes):
                sums = np.add.reduceat(head.p[node.exact :], node.starts)
                found[node.bytes] += head.weight * sums
            found[END] += head.weight * head.end
        return found / found.sum()

    def covers(self) -> Iterator[tuple[Head, np.ndarray, np.ndarray]]:
        """Of each head the next ids that reach further than the text so far, the end of the
        document among them, and their shares of its probability."""
        for head in self.live:
            ids = self.ways[head.reading].order[head.node.lo + head.node.exact : head.node.hi]
            p = head.weight * head.p[head.node.exact :]
            edge = self.ways[head.reading].end
            if edge is not None and head.end:
                ids, p = np.append(ids, edge), np.append(p, head.weight * head.end)
            yield head, ids, p

    def _grow(self, new: list[New]) -> Work:
        """Read the heads that are new, as far as they are kept, and those that ids without bytes
        then make of them."""
        for _ in range(1 + SILENT):
            new = self._keep(new)
            if not new:
                break
            reads = [Read(one.path, one.source, self._free.pop()) for one in new]
            self.reads += len(reads)
            log_p = yield reads
            more = []
            for one, read, each in zip(new, reads, np.asarray(log_p, np.float64), strict=True):
                p = np.exp(each - each.max())
                p /= p.sum()
                if not np.isfinite(p[0]):
                    raise ConfigError(
                        "the model predicts no probabilities: its parameters are not finite."
                    )
                way = self.ways[one.reading]
                end = 0.0 if way.end is None else float(p[way.end])
                about = one.path, one.at, read.row, one.weight, one.sure, one.reading, way.root
                head = Head(*about, p[way.order], end)
                self.live.append(head)
                more += [self._after(head, i, p[i], then) for i, then in way.silent.items()]
            new = more
        left = sum(head.mass for head in self.live)
        for head in self.live:
            head.weight /= left

    def _keep(self, new: list[New]) -> list[New]:
        """Which of the new heads are kept, beside the old ones that are; the others' probability
        goes to those most like them. The heaviest of those that ended at the last byte is kept in
        any case: any byte may follow it, and the end."""
        heads: list = sorted([*new, *self.live], key=lambda head: -head.mass)
        masses = np.array([head.mass for head in heads])
        worth, like = masses.copy(), [-1] * len(heads)
        if len(heads) > self.capacity or masses[-1] < self.threshold:
            for i, head in enumerate(heads):
                same, j = max(
                    ((_alike(head.path, heads[j].path), -j) for j in range(i)
                     if (heads[j].at, heads[j].reading) == (head.at, head.reading)),
                    default=(0, 1),
                )  # fmt: skip
                worth[i], like[i] = worth[i] * 0.5**same, -j
        kept = (worth >= self.threshold) & (worth > 0)
        here = (i for i, h in enumerate(heads) if h.at == self.size and not h.reading)
        first = next(here)
        kept[first], worth[first] = True, np.inf
        kept[np.argsort(-worth, kind="stable")[self.capacity :]] = False
        more = np.zeros(len(heads))
        for i in np.flatnonzero(~kept).tolist():
            j = like[i]
            while j >= 0 and not kept[j]:
                j = like[j]
            if j >= 0:
                more[j] += masses[i]
            if isinstance(heads[i], Head):
                self._free.append(heads[i].row)
        for i in np.flatnonzero(kept & (masses > 0)).tolist():
            heads[i].weight *= 1 + more[i] / masses[i]
        left = [head for head, keep in zip(heads, kept, strict=True) if keep]
        self.live = [head for head in left if isinstance(head, Head)]
        return [head for head in left if isinstance(head, New)]


def _alike(a: Path, b: Path) -> int:
    """How many ids two paths end with in common, as far as that matters."""
    same, one, other = 0, a, b
    while one is not None and other is not None and one.id == other.id and same < 32:
        same, one, other = same + 1, one.before, other.before
    return same


def answer(model: Model, work: Work) -> None:
    """Do the work of one text."""
    side_by_side(model, [work])


def side_by_side(model: Model, works: list[Work]) -> None:
    """Do the work of several texts, what they ask read together."""
    asked = [(work, reads) for work in works if (reads := next(work, None)) is not None]
    while asked:
        found = model([read for _, reads in asked for read in reads])
        split = np.split(found, np.cumsum([len(reads) for _, reads in asked])[:-1])
        following = []
        for (work, _), log_p in zip(asked, split, strict=True):
            try:
                following.append((work, work.send(log_p)))
            except StopIteration:
                pass
        asked = following
