"""Bits per byte of whole documents: every byte and every end of document is predicted and paid.

A document longer than a row is scored in windows that overlap: each begins ``overlap`` ids before
the first id it scores, so that every id but the first few has at least that much context.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from octavo.batch import FIELDS, Batch
from octavo.configs.room import Room
from octavo.model.entropy import cross_entropy
from octavo.run.rows import over_documents, packed_rows
from octavo.run.sharding import batch_sharding, place_batch
from octavo.tokenizers.interface import Tokenizer


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


@dataclass(frozen=True)
class Score:
    """What a model pays for a set of documents."""

    nats: float
    bytes: int
    """UTF-8 bytes of the original text."""
    documents: int
    ids: int
    """Predictions: one per id, ends of documents included."""

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


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
    found = nats, correct, ends, jnp.full_like(nats, jnp.nan) if p is None else p
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, jax.P()))


def predictions(
    bind: Callable,
    params: dict,
    encoded: list[np.ndarray],
    tokenizer: Tokenizer,
    marker,
    mesh: Mesh,
    *,
    length: int,
    overlap: int,
    batch_size: int,
    room: Room | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Predictions]:
    """Predict every id of documents with rows of ``length``; ``bind(params)`` is the model, marker
    gives the ids their stored marks (run/marks.py), room is that of the model's rows (see
    ``packed_rows``).

    Raises ValueError unless ``0 <= overlap < length``.
    """
    if not 0 <= overlap < length:
        raise ValueError(f"the overlap must lie in [0, {length}), the row length; not {overlap}")
    marks = marker.of_documents(encoded)
    rows, places = packed_rows(encoded, tokenizer, length, overlap, marks, room)
    sharding = batch_sharding(mesh)
    # Rows are filled up to a batch: no more than a power of two above those there are. A mesh needs
    # rows for each of its devices.
    batch_size = min(batch_size, 1 << (len(rows) - 1).bit_length())
    devices = mesh.shape["replica"] * mesh.shape["fsdp"]
    batch_size = -(-batch_size // devices) * devices

    def evaluate(part: np.ndarray):
        arrays = {name: part[:, i] for i, name in enumerate(FIELDS)}
        placed = place_batch(sharding, arrays, np.arange(batch_size), batch_size)
        return jax.device_get(_predict(bind, mesh, params, placed))

    found = over_documents(evaluate, rows, places, len(encoded), batch_size, progress)
    # Position i reads id i - 1: what it says of the cut behind that id stands one further on.
    return [Predictions(nats, correct, ends[1:], p[1:]) for nats, correct, ends, p in found]


def score(
    bind: Callable, params: dict, documents: list[bytes], tokenizer: Tokenizer, *rest, **settings
) -> Score:
    """The score of documents; further arguments as in ``predictions``. Raises ValueError if there
    are no bytes to score."""
    if not any(documents):
        raise ValueError("there is no text to score")
    encoded = [tokenizer.encode(document) for document in documents]
    found = predictions(bind, params, encoded, tokenizer, *rest, **settings)
    return Score(
        nats=sum(float(one.nats.sum(dtype=np.float64)) for one in found),
        bytes=sum(map(len, documents)),
        documents=len(documents),
        ids=sum(len(one.nats) for one in found),
    )
