"""Bits per byte of whole documents: every byte and every end of document is predicted and paid.

A document longer than a row is scored in windows that overlap: each begins ``overlap`` ids before
the first id it scores, so that every id but the first few has at least that much context.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from octavo.model.batch import FIELDS, Batch
from octavo.tokenizers.interface import Tokenizer
from octavo.training.objective import cross_entropy
from octavo.training.sharding import batch_sharding, place_batch


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


def score(
    bind: Callable,
    params: dict,
    documents: list[bytes],
    tokenizer: Tokenizer,
    mesh: Mesh,
    *,
    length: int,
    overlap: int,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Score:
    """Score documents with rows of ``length``; ``bind(params)`` is the model.

    Raises ValueError unless ``0 <= overlap < length`` and there are bytes to score.
    """
    if not 0 <= overlap < length:
        raise ValueError(f"the overlap must lie in [0, {length}), the row length; not {overlap}")
    if not any(documents):
        raise ValueError("there is no text to score")
    encoded = [tokenizer.encode(document) for document in documents]
    rows = packed_rows(encoded, tokenizer, length, overlap)
    sharding = batch_sharding(mesh)
    # A mesh needs rows for each of its devices.
    devices = mesh.shape["replica"] * mesh.shape["fsdp"]
    batch_size = -(-batch_size // devices) * devices

    def nats_of(params, arrays):
        batch = Batch(**arrays).widen()
        nats, _ = cross_entropy(bind(params)(batch), batch.targets)
        return jnp.sum(nats * batch.loss_weights, axis=1)

    nats_of = jax.jit(nats_of, out_shardings=NamedSharding(mesh, jax.P()))
    total = 0.0
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        padded = np.zeros((batch_size, len(FIELDS), length), np.int32)
        padded[: len(part)] = part
        arrays = {name: padded[:, i] for i, name in enumerate(FIELDS)}
        placed = place_batch(sharding, arrays, np.arange(batch_size), batch_size)
        total += float(np.asarray(nats_of(params, placed), np.float64).sum())
        progress(min(start + batch_size, len(rows)), len(rows))
    return Score(
        nats=total,
        bytes=sum(map(len, documents)),
        documents=len(documents),
        ids=sum(len(ids) + 1 for ids in encoded),
    )


def packed_rows(encoded: list[np.ndarray], tokenizer: Tokenizer, length: int, overlap: int) -> list:
    """Rows ``[5, length]`` int32 (the fields of Batch) that hold all windows, packed in order."""
    rows: list[np.ndarray] = []
    column = length
    for ids in encoded:
        targets = np.append(ids.astype(np.int32), tokenizer.eos_id)
        tokens = np.append(tokenizer.bos_id, targets[:-1])
        start = 0
        while True:
            stop = min(start + length, len(targets))
            if column + stop - start > length:
                rows.append(np.zeros((5, length), np.int32))
                column = segment = 0
            segment += 1
            at = slice(column, column + stop - start)
            row = rows[-1]
            row[0, at], row[1, at] = tokens[start:stop], targets[start:stop]
            row[2, at], row[3, at] = segment, np.arange(stop - start)
            row[4, at] = 1
            if start:
                row[4, column : column + overlap] = 0
            column += stop - start
            if stop == len(targets):
                break
            start += length - overlap
    return rows
