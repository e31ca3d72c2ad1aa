"""What a run says of whole documents: every byte and every end of document is predicted and paid.

A document longer than a row is scored in windows that overlap: each begins ``overlap`` ids before
the first id it scores, so that every id but the first few has at least that much context.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from octavo.batch import FIELDS, Batch
from octavo.data.heldout import Held
from octavo.model.entropy import cross_entropy
from octavo.model.layers import take
from octavo.model.units.hourglass import Level
from octavo.run.rows import over_documents, packed_rows
from octavo.run.sharding import batch_sharding, place_batch
from octavo.tokenizers.interface import Tokenizer

if TYPE_CHECKING:
    from octavo.run.opened import Run


@dataclass(frozen=True)
class Predictions:
    """What a model says of one document: arrays over its ids and its end."""

    nats: np.ndarray
    """float32: what each id costs."""
    correct: np.ndarray
    """Booleans: the id was the most likely one."""
    ends: np.ndarray
    """Booleans, of the ids alone: a unit of the first level ends with it; all, of a flat model."""
    probability: np.ndarray
    """float32, of the ids alone: what a learned segmenter gave an end there; NaN without one."""
    levels: np.ndarray
    """int8, of the id of the begin of the document and the ids: how many levels of an hourglass
    end a unit with it."""

    @property
    def units(self) -> int:
        """Of the first level; what follows the last end is one."""
        return int(self.ends.sum()) + int(not self.ends[-1:].all())


@dataclass(frozen=True)
class Units:
    """How a model cuts a text at its first level: arrays over the bytes of the text."""

    surprisal: np.ndarray
    """float64: bits of each byte; ends of documents are paid besides. What an id stands for shares
    its bits; those of an id without bytes go to the byte before."""
    ends: np.ndarray
    """Booleans: a unit ends with this byte; all, of a flat model of bytes."""
    probability: np.ndarray
    """float64: what a learned segmenter gave an end here; NaN without one."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First byte of each unit, and the one behind it; what follows the last end is a unit."""
        edges = np.unique(np.r_[0, np.flatnonzero(self.ends) + 1, len(self.ends)]).tolist()
        return list(zip(edges, edges[1:], strict=False))


RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """What a model pays for a set of documents."""

    nats: float
    bytes: int
    """UTF-8 bytes of the original text."""
    documents: int
    ids: int
    """Predictions: one per id, ends of documents included."""
    document_nats: np.ndarray = field(repr=False, compare=False)
    """float64 ``[documents]``, the end of each included."""
    document_bytes: np.ndarray = field(repr=False, compare=False)
    """int64 ``[documents]``."""
    units: list[Units] = field(repr=False, compare=False)
    """Of each document."""

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def surprisal(self) -> list[np.ndarray]:
        """Bits of each byte of each document, as in ``Units``."""
        return [one.surprisal for one in self.units]

    @functools.cached_property
    def interval(self) -> tuple[float, float] | None:
        """Bits per byte at both ends of the 95% interval of a bootstrap over documents: how the
        score moves with the choice of them, by ``RESAMPLES`` draws with replacement (percentiles;
        the same draws for the same documents). None of fewer than two, which say nothing of it."""
        return interval(self.document_nats, self.document_bytes)


def interval(nats: np.ndarray, sizes: np.ndarray) -> tuple[float, float] | None:
    """``Score.interval`` of documents that cost ``nats`` and have ``sizes`` bytes."""
    filled = int((sizes > 0).sum())
    if filled < 2 or not np.isfinite(nats).all():
        return None
    rng, share = np.random.default_rng(0), np.full(len(nats), 1 / len(nats))
    found = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.multinomial(len(nats), share)
        while not (size := drawn @ sizes):  # a draw of empty documents alone
            drawn = rng.multinomial(len(nats), share)
        found[i] = drawn @ nats / size
    low, high = np.quantile(found, [0.025, 0.975]) / math.log(2)
    return float(low), float(high)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(bind: Callable, mesh: Mesh, params: dict, arrays: dict) -> tuple[jax.Array, ...]:
    """The fields of ``Predictions`` by position ``[B, T]``, whole on every device. Compiled once
    for all that a run is asked."""
    batch = Batch(**arrays).widen()
    output = bind(params)(batch)
    nats, _ = cross_entropy(output.logits, batch.targets)
    correct = jnp.argmax(output.logits, axis=-1) == batch.targets
    ends, p = jnp.ones_like(correct), None
    if output.levels:
        ends, p = output.levels[0].boundary, output.levels[0].decision.probability
    p = jnp.full_like(nats, jnp.nan) if p is None else p
    found = nats, correct, ends, p, _levels(output.levels, ends)
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, jax.P()))


def _levels(levels: tuple[Level, ...], like: jax.Array) -> jax.Array:
    """How many levels end a unit with each position, int8 ``[B, T]``: a unit of the next level ends
    with the last vector of the unit that it ends with."""
    found, ends, at = jnp.zeros_like(like, jnp.int8), jnp.ones_like(like, bool), None
    for level in levels:
        ends &= level.boundary if at is None else take(level.boundary, at)
        found += ends
        at = level.inner if at is None else take(level.inner, at)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(bind: Callable, mesh: Mesh, params: dict, arrays: dict) -> tuple[jax.Array]:
    """``[B, T, V]``, whole on every device."""
    found = bind(params)(Batch(**arrays).widen()).logits
    return (jax.lax.with_sharding_constraint(found, NamedSharding(mesh, jax.P())),)


def _by_windows(
    function: Callable,
    run: "Run",
    encoded: list[np.ndarray],
    overlap: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, of: None,
    asked: list[slice] | None = None,
) -> list[tuple[np.ndarray, ...]]:
    """What a ``function`` like ``_predict`` gives for each document: arrays over its ids and its
    end, or over those that are ``asked``.

    overlap: None: half a row. batch_size: rows at a time, which never change what comes out. Raises
    ValueError unless ``0 <= overlap < length``.
    """
    length = run.length
    overlap = length // 2 if overlap is None else overlap
    if not 0 <= overlap < length:
        raise ValueError(f"the overlap must lie in [0, {length}), the row length; not {overlap}")
    marks = run.marker.of_documents(encoded)
    rows, places = packed_rows(encoded, run.tokenizer, length, overlap, marks, run.room, asked)
    assert run.mesh is not None, "a score lies over a mesh"
    mesh = run.mesh
    sharding = batch_sharding(mesh)
    batch_size = rows_at_a_time(mesh, batch_size, len(rows))

    def evaluate(part: np.ndarray):
        arrays = {name: part[:, i] for i, name in enumerate(FIELDS)}
        placed = place_batch(sharding, arrays, np.arange(batch_size), batch_size)
        return jax.device_get(function(run.definition.bind, mesh, run.params, placed))

    with jax.set_mesh(mesh):
        return over_documents(evaluate, rows, places, len(encoded), batch_size, progress)


def rows_at_a_time(mesh: Mesh, batch_size: int, rows: int) -> int:
    """Rows of each batch of so many: what is missing is filled up, to no more than a power of two
    above those there are. A mesh needs rows for each of its devices."""
    batch_size = min(batch_size, 1 << (rows - 1).bit_length())
    devices = mesh.shape["replica"] * mesh.shape["fsdp"]
    return -(-batch_size // devices) * devices


def predictions(run: "Run", encoded: list[np.ndarray], **how) -> list[Predictions]:
    """What the run says of documents; ``how`` as in ``_by_windows``."""
    # Position i reads id i - 1: what it says of the cut behind that id stands one further on.
    return [
        Predictions(nats, correct, ends[1:], p[1:], levels)
        for nats, correct, ends, p, levels in _by_windows(_predict, run, encoded, **how)
    ]


def costs(
    run: "Run", encoded: list[np.ndarray], asked: list[slice], **how
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of the ids of each document that are asked: nats, and whether each was the most likely one.
    No others are read than these and what stands before them in their windows. ``how`` as in
    ``_by_windows``."""
    found = _by_windows(_predict, run, encoded, asked=asked, **how)
    return [(nats, correct) for nats, correct, *_ in found]


def logits(run: "Run", ids: np.ndarray) -> np.ndarray:
    """Float32 ``[ids + 1, V]``: before each id of a document, and before its end."""
    return _by_windows(_logits, run, [ids])[0][0]


def score(run: "Run", documents: list[bytes], **how) -> Score:
    """The score of documents; ``how`` as in ``_by_windows``. Raises ValueError if there are no
    bytes to score."""
    if not any(documents):
        raise ValueError("there is no text to score")
    encoded = [run.tokenizer.encode(document) for document in documents]
    return score_of(run.tokenizer, documents, encoded, predictions(run, encoded, **how))


def score_of(
    tokenizer: Tokenizer,
    documents: list[bytes],
    encoded: list[np.ndarray],
    found: list[Predictions],
) -> Score:
    """The score that predictions of documents come to."""
    nats = np.array([one.nats.sum(dtype=np.float64) for one in found])
    return Score(
        nats=float(sum(nats)),
        bytes=sum(map(len, documents)),
        documents=len(documents),
        ids=sum(len(one.nats) for one in found),
        document_nats=nats,
        document_bytes=np.array([len(document) for document in documents]),
        units=[
            over_bytes(ids, one, tokenizer, len(text))
            for ids, one, text in zip(encoded, found, documents, strict=True)
        ],
    )


def by_label(score: Score, held: list[Held]) -> dict[str, dict]:
    """What a score of these documents is of each label and corpus: ``bits_per_byte``, the ends of
    its interval ``low`` and ``high`` (None: one document), ``bytes`` and ``documents``, by name.

    Of one corpus, labels; of several, each corpus, and CORPUS/LABEL. Empty if there is nothing to
    tell apart.
    """
    corpora: dict[str, dict[str | None, list[int]]] = {}
    for i, one in enumerate(held):
        corpora.setdefault(one.corpus, {}).setdefault(one.label, []).append(i)
    groups: dict[str, list[int]] = {}
    for corpus, labels in corpora.items():
        if len(corpora) > 1:
            groups[corpus] = [i for mine in labels.values() for i in mine]
        if len(labels) > 1:
            prefix = f"{corpus}/" if len(corpora) > 1 else ""
            named = ((label, mine) for label, mine in labels.items() if label is not None)
            groups |= {f"{prefix}{label}": mine for label, mine in named}
    found = {}
    for name, mine in groups.items():
        nats, sizes = score.document_nats[mine], score.document_bytes[mine]
        if size := int(sizes.sum()):
            low, high = interval(nats, sizes) or (None, None)
            bits = float(nats.sum()) / math.log(2) / size
            found[name] = {
                "bits_per_byte": bits, "low": low, "high": high,
                "bytes": size, "documents": len(mine),
            }  # fmt: skip
    return found


def over_bytes(ids: np.ndarray, found: Predictions, tokenizer: Tokenizer, size: int) -> Units:
    """Predictions of ids as bits, ends and probabilities of the ``size`` bytes they stand for. What
    ids without bytes cost, and the ends they mark, go to the byte before (at first, the one
    after)."""
    bits, ends, probability = np.zeros(size), np.zeros(size, bool), np.full(size, np.nan)
    if size:
        sizes = tokenizer.bytes_per_id()[ids]
        # A byte that had to be escaped stands for itself, and the escape for nothing.
        stops = np.minimum(np.cumsum(sizes), size)
        last = np.maximum(stops - 1, 0)
        first = np.minimum(np.minimum(stops - sizes, size - 1), last)
        counts = last + 1 - first
        at = np.repeat(last + 1 - np.cumsum(counts), counts) + np.arange(counts.sum())
        each = found.nats[: len(ids)] / math.log(2) / counts
        np.add.at(bits, at, np.repeat(each, counts))
        np.logical_or.at(ends, last, found.ends)
        np.fmax.at(probability, last, found.probability)
    return Units(bits, ends, probability)
