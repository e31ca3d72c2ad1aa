"""Bytes from a run of any tokenizer: its exact score, and a code of bytes (decoding/by_bytes.py).

Each way to spell a text is read as the score reads the tokenizer's own: stepwise, with caches, in
windows that overlap by so many of its ids (run/rows.py).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from octavo.decoding.by_bytes import (
    END,
    ROWS,
    THRESHOLD,
    Heads,
    Read,
    Work,
    answer,
    readings,
    side_by_side,
)
from octavo.model.layers import take
from octavo.run.continuations import Continuation
from octavo.run.rows import row_axes
from octavo.tokenizers.interface import Tokenizer

if TYPE_CHECKING:
    from octavo.run.opened import Run


@dataclass(frozen=True)
class Exact:
    """What a model pays for texts, by all ids that spell each."""

    nats: np.ndarray
    """float64 ``[texts]``, the end of each included: the length of a code."""
    at_most: np.ndarray
    """float64 ``[texts]``: of what was followed of the sum; those of the whole sum are no more."""
    reads: int
    """Ids that the model read."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _empty(bind: Callable, marker, slots: int, rows: int, params: tuple) -> dict:
    """Caches of the model and the marker, of so many rows. Like what follows, compiled once for all
    that a run is asked. params: of the model and the marker."""
    cache = bind(params[0]).init_cache(rows, slots)
    return {"cache": cache, "marked": marker.init_cache(rows, slots)}


def _axes(bind: Callable, marker, slots: int, params: tuple) -> dict:
    return row_axes(lambda rows: _empty(bind, marker, slots, rows, params))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _take(
    bind: Callable, marker, slots: int, params: tuple, pool: dict, sources: jax.Array
) -> dict:
    axes = _axes(bind, marker, slots, params)
    return jax.tree.map(lambda leaf, axis: jnp.take(leaf, sources, axis), pool, axes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), donate_argnums=6)
def _read(
    bind: Callable, marker, slots: int, context: int | None, kind: str, params: tuple, pool: dict,
    old: dict | None, rows: jax.Array, tokens: jax.Array, marks: jax.Array, valid: jax.Array,
) -> tuple[jax.Array, jax.Array, dict]:  # fmt: skip
    """Of tokens and marks ``[n, N]``, ``valid [n]`` of which count, the newest have no mark yet.
    Log-probabilities behind them, all marks, and the pool with what they leave in ``rows``. kind:
    "next": they follow what ``old`` holds; "window": they are all that is seen; "start": they are
    all that there is, none has a mark, and ``old`` is None."""
    n, newest = len(tokens), valid[:, None] - 1
    none = _empty(bind, marker, slots, n, params)
    if old is None:
        marks, marked = marker.extend(params[1], tokens, none["marked"], valid)
    else:
        one = jnp.ones_like(valid)
        mark, marked = marker.extend(params[1], take(tokens, newest), old["marked"], one)
        marks = marks.at[jnp.arange(n), newest[:, 0]].set(mark[:, 0])
    cache = old["cache"] if old is not None and kind == "next" else none["cache"]
    logits, cache = bind(params[0]).extend(tokens, cache, marks, valid, context)
    log_p = jax.nn.log_softmax(take(logits, newest)[:, 0])

    def write(leaf, axis, values):
        return leaf.at[(slice(None),) * axis + (rows,)].set(values, mode="drop")

    axes = _axes(bind, marker, slots, params)
    return log_p, marks, jax.tree.map(write, pool, axes, {"cache": cache, "marked": marked})


class Reader:
    """Reads ids of a run for ``Heads``, with a cache of so many rows.

    overlap: of windows, in ids; None: half a row. slots: ids of a window; None: a row of training.
    context: how far back each sees, if that is less than its window. least: rows that are read at a
    time, at least: of a short text, one more program takes longer than rows that nobody asked for.
    """

    def __init__(
        self, run: "Run", rows: int, overlap: int | None = None, slots: int | None = None,
        context: int | None = None, least: int = 1,
    ):  # fmt: skip
        self.slots = slots = run.length if slots is None else slots
        self.overlap = slots // 2 if overlap is None else overlap
        self.params = run.apart, run.marker.params
        self.rows, self.context, self.least = rows, context, least
        self._about = run.definition.bind, run.marker, slots
        self._pool = _empty(*self._about, rows, self.params)

    def __call__(self, reads: list[Read]) -> np.ndarray:
        """Log-probabilities, float32 ``[reads, vocab_size]``."""
        parts: dict[str, list[int]] = {}
        for i, one in enumerate(reads):
            parts.setdefault(self._kind(one), []).append(i)
        found: list = [None] * len(reads)
        old = {kind: self._sources(kind, [reads[i] for i in mine]) for kind, mine in parts.items()}
        for kind, mine in parts.items():
            log_p = self._part(kind, [reads[i] for i in mine], old[kind])
            for i, each in zip(mine, log_p, strict=False):
                found[i] = each
        return np.stack(found)

    def _kind(self, read: Read) -> str:
        if read.source is None:
            return "start"
        beyond = read.path.count - 1 - self.slots  # ids read since the first window was full
        return "next" if beyond < 0 or beyond % (self.slots - self.overlap) else "window"

    def _sources(self, kind: str, reads: list[Read]) -> dict | None:
        """What the rows hold where they come from."""
        if kind == "start":
            return None
        sources = self._filled(kind, [one.source or 0 for one in reads], 0)
        return _take(*self._about, self.params, self._pool, sources)

    def _part(self, kind: str, reads: list[Read], old: dict | None) -> np.ndarray:
        most = {"start": self.slots, "window": self.overlap + 1, "next": 1}[kind]
        paths = [one.path.newest(most) for one in reads]
        width = min(most, 1 << (max(map(len, paths)) - 1).bit_length())
        valid = self._filled(kind, [len(path) for path in paths], 1)
        tokens, marks = np.zeros((2, len(valid), width), np.int32)
        for i, path in enumerate(paths):
            tokens[i, : len(path)] = [one.id for one in path]
            marks[i, : len(path)] = [one.mark for one in path]
        no_row = self.rows  # nothing is written
        rows = self._filled(kind, [one.row for one in reads], no_row)
        log_p, marks, self._pool = _read(
            *self._about, self.context, kind, self.params, self._pool, old, rows, tokens, marks,
            valid,
        )  # fmt: skip
        log_p, marks = jax.device_get((log_p, marks))
        for path, own in zip(paths, marks, strict=False):
            for one, mark in zip(path, own.tolist(), strict=False):
                one.mark = mark
        return log_p

    def _filled(self, kind: str, values: list[int], more: int) -> np.ndarray:
        """int32, up to a power of four: few programs are compiled."""
        size = self.least if kind == "next" else 1
        while size < len(values):
            size *= 4
        return np.array(values + [more] * (size - len(values)), np.int32)


def exact(
    run: "Run", texts: list[bytes], *, overlap: int | None = None, batch_size: int = 16,
    rows: int = ROWS, threshold: float = THRESHOLD,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Exact:  # fmt: skip
    """The score of texts by all ids that spell them.

    overlap: as in the score. batch_size: texts side by side, each with ``rows`` rows of a cache;
    threshold: as in ``Heads``. progress: is called with the bytes that are done, and how many there
    are. Raises ConfigError if the tokenizer's ids do not stand for fixed bytes, or the model
    predicts no probabilities.
    """
    ways, of = readings(run.tokenizer), sum(map(len, texts))
    sides = min(batch_size, len(texts))
    found: list = [None] * len(texts)
    queue, done = iter(range(len(texts))), 0

    def lane(number: int) -> Work:
        nonlocal done
        for i in queue:
            mine = range(number * rows, (number + 1) * rows)
            heads = Heads(ways, mine, threshold)
            yield from heads.begin([run.tokenizer.bos_id])
            for byte in texts[i]:
                yield from heads.feed(byte)
                done += 1
                if done % 64 == 0:
                    progress(done, of)
            found[i] = (*heads.end(), heads.reads)

    with jax.set_mesh(run.mesh):
        side_by_side(Reader(run, sides * rows, overlap), [lane(number) for number in range(sides)])
    progress(of, of)
    nats, at_most, reads = np.array(found).T
    return Exact(nats, at_most, int(reads.sum()))


def ensemble(
    runs: list["Run"], texts: list[bytes], *, batch_size: int = 16, rows: int = ROWS,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> np.ndarray:  # fmt: skip
    """Nats of texts, float64 ``[runs + 1, texts]``: by each run alone, and by the mean of their
    distributions of each next byte, whatever their tokenizers. Each reads by windows of its own
    rows, which overlap by half; all else as in ``exact``."""
    nats, of = np.zeros((len(runs) + 1, len(texts))), sum(map(len, texts))
    sides = min(batch_size, len(texts))
    ways = [readings(run.tokenizer) for run in runs]
    readers = [Reader(run, sides * rows) for run in runs]

    def do(works: list[list[Work]]) -> None:
        for run, reader, mine in zip(runs, readers, works, strict=True):
            with jax.set_mesh(run.mesh):
                side_by_side(reader, mine)

    done = 0
    for first in range(0, len(texts), sides):
        some = range(first, min(first + sides, len(texts)))
        heads = [
            [Heads(way, range((i - first) * rows, (i - first + 1) * rows)) for i in some]
            for way in ways
        ]
        do([
            [one.begin([run.tokenizer.bos_id]) for one in mine]
            for run, mine in zip(runs, heads, strict=True)
        ])  # fmt: skip
        for at in range(max(len(texts[i]) for i in some) + 1):
            going = [i for i in some if at < len(texts[i])]
            for i in [*going, *(i for i in some if at == len(texts[i]))]:
                each = np.array([mine[i - first].distribution() for mine in heads])
                each = np.vstack([each, each.mean(0)])
                nats[:, i] -= np.log(each[:, texts[i][at] if i in going else END])
            do([[mine[i - first].feed(texts[i][at]) for i in going] for mine in heads])
            done += len(going)
            progress(done, of)
    return nats


CUT = 32
"""Bytes of a prompt's end, at least, that are read by all ids that spell them; or the longest piece
of the tokenizer, if it is shorter."""


def _own(tokenizer: Tokenizer, prompt: bytes) -> tuple[np.ndarray, int]:
    """The tokenizer's own ids up to near a prompt's end, and how many bytes they are."""
    ids, sizes = tokenizer.encode(prompt), tokenizer.bytes_per_id()
    stops = np.cumsum(sizes[ids])
    own = int(np.searchsorted(stops, len(prompt) - min(CUT, int(sizes.max())), "right"))
    while own and not sizes[ids[own - 1]]:  # it may belong to what follows
        own -= 1
    return ids[:own], int(stops[own - 1]) if own else 0


def exact_continuations(
    run: "Run", pairs: Sequence[tuple[bytes, bytes]], *, overlap: int | None = None,
    batch_size: int = 16, rows: int = ROWS,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Continuation]:  # fmt: skip
    """What the bytes of each second text cost behind the first, by all ids that spell them and the
    end of the first (``CUT``); up to there its ids are the tokenizer's own, the newest that leave
    room in a row. Greedy is what the most likely bytes give. All else as in ``exact``."""
    ways, found, done = readings(run.tokenizer), [Continuation(0.0, True)] * len(pairs), 0
    sides = min(batch_size, max(len(pairs), 1))
    reader = Reader(run, sides * rows, overlap)
    queue = iter(range(len(pairs)))

    def lane(number: int) -> Work:
        nonlocal done
        for i in queue:
            context, continuation = pairs[i]
            ids, begin = _own(run.tokenizer, context)
            more = context[begin:]
            most = max(reader.slots - len(more) - len(continuation), reader.overlap + 1)
            heads = Heads(ways, range(number * rows, (number + 1) * rows))
            yield from heads.begin([run.tokenizer.bos_id, *ids.tolist()][-most:])
            for byte in more:
                yield from heads.feed(byte)
            before, greedy = heads.nats, True
            for byte in continuation:
                greedy &= int(heads.distribution().argmax()) == byte
                yield from heads.feed(byte)
            found[i] = Continuation(heads.nats - before, greedy)
            done += 1
            progress(done, len(pairs))

    with jax.set_mesh(run.mesh):
        side_by_side(reader, [lane(number) for number in range(sides)])
    return found


def continued(run: "Run", prompt: bytes) -> list[tuple[np.ndarray, bytes, float]]:
    """What a prompt of subwords may go on with: it may end inside one. Ids whose bytes begin with
    the prompt and reach further, or end there and end the document; what follows the prompt of
    their bytes; and their probability. Up to near its end the ids are the tokenizer's own."""
    tokenizer = run.tokenizer
    ids, begin = _own(tokenizer, prompt)
    room = len(ids) + 1 + len(prompt) - begin
    reader = Reader(run, ROWS, slots=1 << room.bit_length(), context=run.length, least=ROWS)
    heads = Heads(readings(tokenizer), range(ROWS))
    with jax.set_mesh(run.mesh):
        answer(reader, heads.begin([tokenizer.bos_id, *ids.tolist()]))
        for byte in prompt[begin:]:
            answer(reader, heads.feed(byte))
    found = []
    for head, following, p in heads.covers():
        before = [one.id for one in head.path.newest(head.path.count)[1:]]
        inside = len(prompt) - begin - head.at
        for id_, share in zip(following.tolist(), p.tolist(), strict=True):
            more = tokenizer.decode(np.array([id_]))[inside:]
            found.append((np.array([*before, id_], np.int32), more, share))
    return found
