"""Whole documents as rows of overlapping windows, of which none changes what another costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from octavo.batch import FIELDS, Room
from octavo.tokenizers.interface import Tokenizer


@dataclass(frozen=True)
class Place:
    """Where the scored part of a window lies."""

    row: int
    columns: slice
    document: int


def packed_rows(
    encoded: list[np.ndarray],
    tokenizer: Tokenizer,
    length: int,
    overlap: int,
    marks: list[np.ndarray] | None = None,
    room: Room | None = None,
    asked: list[slice] | None = None,
) -> tuple[np.ndarray, list[Place]]:
    """Rows ``[rows, fields of Batch, length]`` int32 that hold all windows, packed in order, and
    where every id is scored, once.

    A document longer than a row is cut into windows that each begin ``overlap`` ids before the
    first id they score. marks: of each document's ids. room: of the model's rows. asked: which ids
    of each document are scored (its end is one behind the last); None: all.
    """
    room = Room.of_any(length) if room is None else room
    index = {name: i for i, name in enumerate(FIELDS)}
    rows: list[np.ndarray] = []
    places = []
    column, used = length, np.zeros(len(room.most), np.int64)
    for document, ids in enumerate(encoded):
        targets = np.append(ids.astype(np.int32), tokenizer.eos_id)
        tokens = np.append(tokenizer.bos_id, targets[:-1])
        marked = np.append(0, marks[document]) if marks else np.zeros_like(tokens)
        whole = slice(0, len(targets))
        for start, first, stop in windows(asked[document] if asked else whole, length, overlap):
            cost = room.price[:, stop - start]
            if column + stop - start > length or (used + cost > room.most).any():
                rows.append(np.zeros((len(FIELDS), length), np.int32))
                column = segment = 0
                used = np.zeros_like(used)
            segment += 1
            used += cost
            row, at = rows[-1], slice(column, column + stop - start)
            row[index["tokens"], at] = tokens[start:stop]
            row[index["targets"], at] = targets[start:stop]
            row[index["segment_ids"], at] = segment
            row[index["positions"], at] = np.arange(stop - start)
            row[index["marks"], at] = marked[start:stop]
            again = first - start
            row[index["loss_weights"], column + again : at.stop] = 1
            places.append(Place(len(rows) - 1, slice(column + again, at.stop), document))
            column += stop - start
    return np.stack(rows), places


def windows(asked: slice, length: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Where each window of a document begins, the first id that it scores, and the one behind its
    last. All that is asked lies in one window if it can: in the last ``length`` ids up to there."""
    first, end = asked.start, asked.stop
    start = max(0, end - length if end - first <= length else first - overlap)
    while True:
        stop = min(start + length, end)
        yield start, first, stop
        if stop == end:
            return
        start, first = stop - overlap, stop


def over_documents(
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    rows: np.ndarray,
    places: list[Place],
    documents: int,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[tuple[np.ndarray, ...]]:
    """Per document what ``evaluate`` gives for its targets: arrays over its ids and its end.

    evaluate: from ``batch_size`` rows (the last ones zero) to arrays ``[batch_size, length]``.
    """
    parts = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        padded = np.zeros((batch_size, *rows.shape[1:]), rows.dtype)
        padded[: len(part)] = part
        parts.append([values[: len(part)] for values in evaluate(padded)])
        progress(start + len(part), len(rows))
    whole = [np.concatenate(values) for values in zip(*parts, strict=True)]
    # A document's windows follow one another, and so do the parts of it that they score.
    pieces: list[list[Place]] = [[] for _ in range(documents)]
    for place in places:
        pieces[place.document].append(place)
    return [
        tuple(np.concatenate([values[p.row, p.columns] for p in mine]) for values in whole)
        for mine in pieces
    ]


def row_axes(make: Callable[[int], Any]) -> Any:
    """Which axis of each array that ``make(rows)`` makes, as of a cache, is that of rows."""
    of_two, of_three = (jax.eval_shape(lambda rows=rows: make(rows)) for rows in (2, 3))
    return jax.tree.map(
        lambda a, b: [x == y for x, y in zip(a.shape, b.shape, strict=True)].index(False),
        of_two, of_three,
    )  # fmt: skip
