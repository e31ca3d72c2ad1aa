"""What a run gives texts behind others: the cost of a continuation's bytes given a context's.

Context and continuation are encoded as one text, as they would stand in a document, and the ids of
the continuation are those behind as many as the context alone has (lm-eval counts them so for its
own models). Where no id is left, as a context may end inside an id, they begin with the first that
reaches beyond the context.

Of a text longer than a row the last row's worth is read, whatever the context loses of it; a
continuation longer than a row is read in windows, as a score is.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from octavo.batch import FIELDS, Batch
from octavo.model.entropy import cross_entropy
from octavo.run.rows import row_axes
from octavo.run.score import costs, rows_at_a_time
from octavo.run.sharding import batch_sharding, place_batch
from octavo.tokenizers.interface import Tokenizer

if TYPE_CHECKING:
    from octavo.run.opened import Run

PART = 256
"""Positions of a text that are read at a time behind a cache."""
SHARE = 2
"""A context is read once for its continuations where fewer positions are read by this factor."""

Pair = tuple[bytes, bytes]
"""A context, and what may follow it."""


class Continuation(NamedTuple):
    """What a model says of one."""

    nats: float
    """What its bytes cost behind the context; of a log-likelihood, the negative."""
    greedy: bool
    """Whether the most likely ids, one after the other, are its ids."""


def cut(tokenizer: Tokenizer, context: bytes, continuation: bytes) -> tuple[np.ndarray, int]:
    """Ids of both as one text, and which is the first of the continuation."""
    ids = tokenizer.encode(context + continuation)
    first = len(tokenizer.encode(context)) if context else 0
    if continuation and first >= len(ids):
        stops = np.cumsum(tokenizer.bytes_per_id()[ids])
        first = int(np.searchsorted(stops, len(context), side="right"))
    return ids, min(first, len(ids))


def continuations(
    run: "Run",
    pairs: Sequence[Pair],
    *,
    overlap: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Continuation]:
    """What the run says of each pair.

    batch_size: rows at a time. overlap: of windows, as in the score. progress is called with the
    pairs that are done, and how many there are.
    """
    encoded, firsts = [], []
    for pair in pairs:
        ids, first = cut(run.tokenizer, *pair)
        encoded.append(ids)
        firsts.append(first)
    found: list = [Continuation(0.0, True)] * len(pairs)  # of no bytes
    shared, alone = _apart(encoded, firsts, run.length)
    done = 0

    def keep(numbers: list[int], each: Iterable[Continuation]) -> None:
        nonlocal done
        for i, one in zip(numbers, each, strict=True):
            found[i] = one
        done += len(numbers)
        progress(done, len(pairs))

    if shared:
        assert run.mesh is not None, "what is read lies over a mesh"
        reader = _Shared(run, rows_at_a_time(run.mesh, batch_size, len(shared)))
        for begin in range(0, len(shared), reader.batch_size):
            some = shared[begin : begin + reader.batch_size]
            keep([i for mine in some for i in mine], reader.of_groups(some, encoded, firsts))
    if alone:
        asked = [slice(firsts[i], len(encoded[i])) for i in alone]
        how = {"overlap": overlap, "batch_size": batch_size}
        each = costs(run, [encoded[i] for i in alone], asked, **how)
        keep(alone, [Continuation(float(n.sum(dtype=np.float64)), bool(c.all())) for n, c in each])
    return found


def _apart(
    encoded: Sequence[np.ndarray], firsts: Sequence[int], length: int
) -> tuple[list[list[int]], list[int]]:
    """Numbers of the texts whose context is read once, by context, and of those that are read
    alone, the longest first; those of no ids are in neither."""
    groups: dict[bytes, list[int]] = {}
    for i, (ids, first) in enumerate(zip(encoded, firsts, strict=True)):
        if len(ids) > first:
            groups.setdefault(ids[:first].tobytes(), []).append(i)
    shared, alone = [], []
    for mine in groups.values():
        first, sizes = firsts[mine[0]], [len(encoded[i]) for i in mine]
        once = first + sum(size - first for size in sizes)
        if first and max(sizes) <= length and sum(sizes) >= SHARE * once:
            shared.append(mine)
        else:
            alone += mine
    shared.sort(key=lambda mine: -firsts[mine[0]])
    return shared, sorted(alone, key=lambda i: -len(encoded[i]))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _read(
    bind: Callable, mesh: Mesh, slots: int, scored: bool, params: dict, cache: dict | None,
    valid: jax.Array, arrays: dict,
) -> tuple[tuple | None, dict]:  # fmt: skip
    """Rows of a cache (None: of a new one) continued by ``valid [B]`` of the positions of a batch.
    Of each position, if they are scored, nats and whether the target was the most likely id; and
    the longer cache."""
    model, batch = bind(params), Batch(**arrays).widen()
    held = model.init_cache(len(valid), slots) if cache is None else cache
    logits, longer = model.extend(batch.tokens, held, batch.marks, valid)
    if not scored:
        return None, longer
    nats, _ = cross_entropy(logits, batch.targets)
    found = nats, jnp.argmax(logits, axis=-1) == batch.targets
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, jax.P())), longer


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rows(bind: Callable, slots: int, params: dict, cache: dict, sources: jax.Array) -> dict:
    """A cache of the rows ``sources [B]`` of another."""
    axes = row_axes(lambda rows: bind(params).init_cache(rows, slots))
    return jax.tree.map(lambda leaf, axis: jnp.take(leaf, sources, axis), cache, axes)


class _Text(NamedTuple):
    """Of a text, ids and marks ``[n]`` that a model reads, and the ids ``[n]`` to predict."""

    tokens: np.ndarray
    marks: np.ndarray
    targets: np.ndarray

    def part(self, places: slice) -> "_Text":
        return _Text(*(each[places] for each in self))


class _Shared:
    """Reads contexts once for all that may follow them; so many rows at a time."""

    def __init__(self, run: "Run", batch_size: int):
        assert run.mesh is not None, "what is read lies over a mesh"
        self.run, self.mesh, self.batch_size = run, run.mesh, batch_size
        self._bind, self._sharding = run.definition.bind, batch_sharding(run.mesh)

    def of_groups(
        self, groups: list[list[int]], encoded: list[np.ndarray], firsts: list[int]
    ) -> list[Continuation]:
        """Of all texts of the groups, one behind the other. At most as many groups as rows."""
        numbers = [i for mine in groups for i in mine]
        whole = dict(zip(numbers, self._texts([encoded[i] for i in numbers]), strict=True))
        contexts = [whole[mine[0]].part(slice(firsts[mine[0]])) for mine in groups]
        texts = [whole[i].part(slice(firsts[i], None)) for i in numbers]
        rows = [row for row, mine in enumerate(groups) for _ in mine]
        widths = _width(contexts), _width(texts)
        # What a row is continued by is written whole, whatever of it counts.
        slots = _power_of_two(max(len(encoded[i]) for i in numbers) + max(widths))
        with jax.set_mesh(self.mesh):
            _, cache = self._all(contexts, None, slots, widths[0], False)
            found = []
            for begin in range(0, len(texts), self.batch_size):
                some = slice(begin, begin + self.batch_size)
                sources = np.zeros(self.batch_size, np.int32)
                sources[: len(rows[some])] = rows[some]
                own = _rows(self._bind, slots, self.run.apart, cache, sources)
                found += self._all(texts[some], own, slots, widths[1], True)[0]
        return found

    def _texts(self, encoded: list[np.ndarray]) -> Iterable[_Text]:
        for ids, marks in zip(encoded, self.run.marker.of_documents(encoded), strict=True):
            tokens = np.append(self.run.tokenizer.bos_id, ids[:-1].astype(np.int32))
            yield _Text(tokens, np.append(0, marks[:-1]), ids)

    def _all(
        self, texts: list[_Text], cache: dict | None, slots: int, width: int, scored: bool
    ) -> tuple[list[Continuation], dict]:
        """Rows of the cache continued by texts, a part at a time."""
        nats, greedy = np.zeros(len(texts)), np.ones(len(texts), bool)
        for begin in range(0, max(len(text.tokens) for text in texts), width):
            parts = [text.part(slice(begin, begin + width)) for text in texts]
            valid = np.zeros(self.batch_size, np.int32)
            valid[: len(parts)] = [len(part.tokens) for part in parts]
            arrays = {name: np.zeros((len(valid), width), np.int32) for name in FIELDS}
            for row, part in enumerate(parts):
                for name, values in part._asdict().items():
                    arrays[name][row, : len(values)] = values
            placed = place_batch(self._sharding, arrays, np.arange(len(valid)), len(valid))
            about = self._bind, self.mesh, slots, scored
            found, cache = _read(*about, self.run.apart, cache, valid, placed)
            if found is not None:
                counts = (np.arange(width) < valid[:, None])[: len(texts)]
                each, correct = (np.asarray(values)[: len(texts)] for values in found)
                nats += np.where(counts, each, 0).sum(1, dtype=np.float64)
                greedy &= (correct | ~counts).all(1)
        assert cache is not None, "there are texts"
        return list(map(Continuation, nats.tolist(), greedy.tolist())), cache


def _power_of_two(count: int) -> int:
    """The least that is no less: texts of many lengths share few programs."""
    return 1 << (count - 1).bit_length()


def _width(texts: list[_Text]) -> int:
    return min(PART, _power_of_two(max(len(text.tokens) for text in texts)))
