"""What a run logged, read for people to look at: curves thinned as they are read, so that a million
steps take bounded memory and little time. Lines that are cut, or of no kind known, are passed over.
"""

import itertools
import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic_core import from_json  # four times as fast as json

T = TypeVar("T")
HELDOUT = "heldout/bits_per_byte"
SKIPPED = "train/skipped_in_a_row"
_ROWS = 8192
"""Lines that are turned into arrays at a time."""
_MOST_NAMES = 200
"""Metrics of one run that are read."""
_MOST_LABELS = 1000
"""Labels of held-out text whose scores over the run are kept."""
_MOST_EVALUATIONS = 400
_MOST = 1e300
"""Larger numbers are none: what is reckoned with them must stay finite."""
_MOST_STEP = 2**53


class Few(Generic[T]):
    """Some of a long row of things, evenly: the first, the newest, and at most ``most`` others."""

    def __init__(self, most: int):
        self._most, self._stride, self.count = most, 1, 0
        self._kept: list[T] = []
        self._newest: list[T] = []

    def add(self, item: T) -> None:
        self._newest = [item]
        if self.count % self._stride == 0:
            self._newest = []
            self._kept.append(item)
            if len(self._kept) > self._most:
                if len(self._kept) % 2 == 0:
                    self._newest = [item]
                del self._kept[1::2]
                self._stride *= 2
        self.count += 1

    def __iter__(self) -> Iterator[T]:
        yield from self._kept
        yield from self._newest


@dataclass
class Curve:
    """A metric over buckets of steps: arrays of one length, NaN where nothing finite was logged."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass
class Curves:
    """metrics.jsonl of a run."""

    steps: int = 0
    """Lines that are steps."""
    last: int = 0
    """The last step."""
    skipped: int = 0
    """Steps whose update was skipped."""
    exact: bool = True
    """Every step is a bucket of its own."""
    of: dict[str, Curve] = field(default_factory=dict)
    """By name of metric; "step" among them."""
    heldout: list[dict[str, float]] = field(default_factory=list)
    """The rows at which held-out text was scored, or some of them evenly, without what is no
    number."""
    best: tuple[float, int] | None = None
    """The lowest held-out bits per byte, and its step."""


def read_curves(path: Path, points: int) -> Curves:
    """The curves of a metrics.jsonl in about ``points`` buckets: equally wide, but for the first,
    which are narrow enough for a logarithmic axis. Nothing is kept of a file that is not there."""
    found = Curves()
    try:
        edges = _edges(_last_step(path), points)
        buckets = _Buckets(edges)
        heldout: Few[dict[str, float]] = Few(_MOST_EVALUATIONS)
        for rows in _chunks(path):
            buckets.add(rows)
            found.steps += len(rows)
            for row in rows:
                if (number(row.get(SKIPPED)) or 0) > 0:
                    found.skipped += 1
                if HELDOUT in row:
                    kept = _heldout(row)
                    heldout.add(kept)
                    score = kept.get(HELDOUT)
                    if score is not None and (found.best is None or score < found.best[0]):
                        found.best = score, row["step"]
            found.last = max(found.last, *(row["step"] for row in rows))
    except OSError:
        return found
    found.heldout = list(heldout)
    found.of, found.exact = buckets.curves()
    return found


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects with a step among the lines of a file. Raises OSError."""
    with path.open("rb") as file:
        for line in file:
            if (row := read_row(line)) is not None:
                yield row


def read_row(line: bytes) -> dict[str, Any] | None:
    """A line that is an object with a step; None for any other."""
    try:
        row = from_json(line)
    except ValueError:
        try:
            row = json.loads(line)  # which takes halves of surrogate pairs, as damaged text has
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) and _is_step(row.get("step")) else None


def number(value: Any) -> float | None:
    """A finite number as it is, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _MOST else None


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEP


def _chunks(path: Path) -> Iterator[list[dict[str, Any]]]:
    rows = []
    for row in read_rows(path):
        rows.append(row)
        if len(rows) == _ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


def _last_step(path: Path) -> int:
    """The largest step among the last lines."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 18)))
        lines = file.read().splitlines()
    return max((row["step"] for line in lines[-100:] if (row := read_row(line))), default=0)


def _edges(last: int, points: int) -> np.ndarray:
    """The last step of each bucket, up to ``last``."""
    widest, edges, edge = max(last / points, 1.0), [0], 0.0
    while edges[-1] < last:
        edge += min(max(1.0, edge / 32), widest)
        edges.append(min(round(edge), last))
    return np.array(edges)


def _heldout(row: dict[str, Any]) -> dict[str, float]:
    """What of a row is a finite number, and not too many labels of it."""
    kept, labels = {}, 0
    for name, value in row.items():
        labels += name.startswith(f"{HELDOUT}/")
        if labels > _MOST_LABELS and name.startswith(f"{HELDOUT}/"):
            continue
        if (value := number(value)) is not None:
            kept[name] = value
    return kept


class _Buckets:
    """Sums, least and largest values of every metric by bucket of steps."""

    def __init__(self, edges: np.ndarray):
        self._edges = edges
        self._sums: dict[str, tuple[np.ndarray, ...]] = {}

    def add(self, rows: list[dict[str, Any]]) -> None:
        steps = np.array([row["step"] for row in rows], np.float64)
        at = np.minimum(np.searchsorted(self._edges, steps), len(self._edges) - 1)
        names = dict.fromkeys(itertools.chain.from_iterable(rows))
        for name in names:
            if name.startswith("heldout/") or name == "nonfinite":
                continue
            if name not in self._sums and len(self._sums) >= _MOST_NAMES:
                continue
            values = _column(rows, name)
            there = np.abs(values) <= _MOST  # nor what is no number
            if there.any():
                self._add(name, at[there], values[there])

    def _add(self, name: str, at: np.ndarray, values: np.ndarray) -> None:
        size = len(self._edges)
        if name not in self._sums:
            self._sums[name] = (
                np.zeros(size), np.zeros(size), np.full(size, np.inf), np.full(size, -np.inf)
            )  # fmt: skip
        count, total, low, high = self._sums[name]
        count += np.bincount(at, minlength=size)
        total += np.bincount(at, values, size)
        np.minimum.at(low, at, values)
        np.maximum.at(high, at, values)

    def curves(self) -> tuple[dict[str, Curve], bool]:
        """By name, without buckets that hold no step; and whether each holds but one."""
        if "step" not in self._sums:
            return {}, True
        counts = self._sums["step"][0]
        there = counts > 0
        found = {}
        for name, (count, total, low, high) in self._sums.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = total / count
            low, high = (np.where(count > 0, part, np.nan) for part in (low, high))
            found[name] = Curve(mean[there], low[there], high[there])
        return found, bool(counts.max() <= 1)


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    try:
        values = list(map(operator.itemgetter(name), rows))
    except KeyError:
        values = [row.get(name) for row in rows]
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):  # something else than numbers is among them
        found = (number(value) for value in values)
        return np.array([np.nan if v is None else v for v in found], np.float64)
