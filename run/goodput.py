"""Where the time of a run goes, over all its starts: goodput.jsonl of its folder.

Each start adds a line now and then, at every save, and at its end: what it has spent so far, by
phase. Of one that was killed the next adds the last, as far as metrics.jsonl tells. Nothing here
needs JAX.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octavo import files, process
from octavo.brief import clock, human

PHASES: tuple[str, ...] = (
    "step",
    "compile",
    "restore",
    "data",
    "save",
    "score",
    "profile",
    "start",
)
"""start: all before the first step that is none of the others. compile: the first call of the step.
data: waiting for batches. score: held-out text, samples and the page."""
_LOSABLE = ("step", "data", "save", "score", "profile")
"""What a step that is done again has spent in vain."""


class Clock:
    """Counts the seconds of a start, each in one phase, and keeps them in a file."""

    EVERY = 10.0
    """Seconds between two lines."""

    def __init__(self):
        self.began = time.time()
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "start", time.perf_counter()
        self._path: Path | None = None
        self._written = self._since

    def begin(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """This phase, and then the one before it."""
        before = self._phase
        self.begin(phase)
        try:
            yield
        finally:
            self.begin(before)

    def spent(self, *phases: str) -> float:
        """Seconds so far."""
        self.begin(self._phase)
        return sum(self._seconds[phase] for phase in phases)

    def open(self, path: Path, first_step: int, undone: dict[int, float]) -> None:
        """Where lines go from now on. first_step: that this start goes on from. undone: seconds
        of the steps after it that were logged: those that a killed start has no line of are added
        to it."""
        self._path, self._first = path, first_step
        self._lead = "\n"  # a kill may have cut the last line short
        if (last := _last(path)) is not None:
            more = {step: took for step, took in undone.items() if step > last["step"]}
            spent = last["seconds"].get("step", 0.0) + sum(more.values())
            if more:
                about = {"step": max(more), "seconds": last["seconds"] | {"step": spent}}
                self._add(path, last | about)

    @property
    def due(self) -> bool:
        return self._path is not None and time.perf_counter() - self._written >= self.EVERY

    def write(self, step: int, memory: dict[str, float]) -> None:
        """A line: what was spent up to a step that is done. memory: bytes at most, by names that
        end with ``_bytes``. A disk that takes no line ends nothing; that is said once."""
        if self._path is None:
            return
        self.begin(self._phase)
        self._written = self._since
        spent = {name: round(value, 4) for name, value in self._seconds.items()}
        row = {"began": self.began, "from": self._first, "step": step, "seconds": spent}
        self._add(self._path, row | memory)

    def _add(self, path: Path, row: dict[str, Any]) -> None:
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(self._lead + files.json_text(row) + "\n")
        except OSError as error:
            process.warn(f"no more is kept of where the time goes: {path}: {error.strerror}")
            self._path = None
        self._lead = ""


@dataclass(frozen=True)
class Account:
    """What a goodput.jsonl comes to."""

    seconds: dict[str, float]
    """By phase; and ``lost``: what went into steps that were done again, and is in no phase."""
    away: float
    """Seconds between the end of a start, or its last line, and the next start."""
    starts: int
    first_step: int
    """Steps before it are of a revision that kept no such file."""
    peaks: dict[str, float]
    """The most of each kind of memory that was used."""

    @property
    def total(self) -> float:
        """Seconds in which the run ran."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """The share of them that went into steps which are in the model now."""
        return self.seconds["step"] / max(self.total, 1e-9)


def account(lines: Iterable[bytes]) -> Account | None:
    """The account of a goodput.jsonl; None if no line of it is whole."""
    starts: dict[float, list[dict[str, Any]]] = {}
    for line in lines:
        if (row := _row(line)) is not None:
            starts.setdefault(row["began"], []).append(row)
    if not starts:
        return None
    seconds = dict.fromkeys((*PHASES, "lost"), 0.0)
    ordered = [starts[began] for began in sorted(starts)]
    for number, rows in enumerate(ordered):
        last = rows[-1]["seconds"]
        for phase in PHASES:
            seconds[phase] += last.get(phase, 0.0)
        # What of it is in the model: up to the least step that a later start went on from.
        kept = min((later[0]["from"] for later in ordered[number + 1 :]), default=rows[-1]["step"])
        base = [row["seconds"] for row in rows if row["step"] <= kept]
        for phase in _LOSABLE:
            lost = last.get(phase, 0.0) - (base[-1].get(phase, 0.0) if base else 0.0)
            seconds[phase] -= lost
            seconds["lost"] += lost
    away = math.fsum(
        max(later[0]["began"] - rows[0]["began"] - sum(rows[-1]["seconds"].values()), 0.0)
        for rows, later in zip(ordered, ordered[1:], strict=False)
    )
    every = [row for rows in ordered for row in rows]
    peaks = {
        name: max(row[name] for row in every if name in row)
        for row in every for name in row if name.endswith("_bytes")
    }  # fmt: skip
    return Account(seconds, away, len(ordered), min(row["from"] for row in every), peaks)


def _last(path: Path) -> dict[str, Any] | None:
    """The last whole line of a goodput.jsonl."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    return next((row for line in reversed(lines) if (row := _row(line)) is not None), None)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        numbers = [row["began"], row["from"], row["step"], *row["seconds"].values()]
        numbers += [value for name, value in row.items() if name.endswith("_bytes")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    whole = all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)
    return row if whole else None


def percentiles(seconds: np.ndarray) -> dict[str, float]:
    """Of steps: what half, 90%, 99% and all of them take at most."""
    values = np.percentile(seconds, (50, 90, 99, 100))
    return dict(zip(("p50", "p90", "p99", "max"), map(float, values), strict=True))


def pace(laps: np.ndarray, waits: np.ndarray, steps: np.ndarray) -> str:
    """How long these steps took, in a line. laps: seconds each; waits: those that went for data."""
    each = "  ".join(f"{name} {human(value)}s" for name, value in percentiles(laps).items())
    waited = np.nansum(waits) / max(laps.sum(), 1e-9)
    slowest = int(steps[np.argmax(laps)])
    return f"step time  {each} (step {slowest}); {waited:.1%} of it waits for data"


def where_time_went(found: Account) -> Iterator[str]:
    """In lines: shares of the time, and the most memory that was used."""
    spent = {name: value for name, value in found.seconds.items() if name != "step"}
    parts = [
        f"{name} {value / max(found.total, 1e-9):.1%}"
        for name, value in sorted(spent.items(), key=lambda item: -item[1]) if value > 0
    ]  # fmt: skip
    starts = "1 start" if found.starts == 1 else f"{found.starts} starts"
    away = f", {clock(found.away)} away" if found.away >= 1 else ""
    since = f" from step {found.first_step} on" if found.first_step else ""
    yield (
        f"goodput    {found.goodput:.1%} of {clock(found.total)} in {starts}{since}{away}; "
        f"{', '.join(parts)}"
    )
    if "host_memory_bytes" in found.peaks:
        line = f"memory     {human(found.peaks['host_memory_bytes'])}B of the host at most"
        if device := found.peaks.get("device_memory_bytes"):
            limit = found.peaks.get("device_limit_bytes")
            line += f", {human(device)}B of a device" + (f"'s {human(limit)}B" if limit else "")
        yield line
