"""Metrics to disk."""

import contextlib
import errno
import json
import math
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.summary import text

from octavo import files, process
from octavo.run.directory import METRICS, SAMPLES
from octavo.training.tracker import Tracker

_EVENTS: Any = event_pb2  # their names are made when they are imported
_SUMMARIES: Any = summary_pb2


SMOOTH = 0.95
"""What the mean of the loss keeps of itself at a step."""


@dataclass
class History:
    """What the log says of the steps that a run goes on from."""

    last: dict[str, Any] = field(default_factory=dict)
    """The row of the last of them."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """Steps at which held-out text was scored, and its bits per byte."""
    evaluation_seconds: float = 0.0
    smoothed: float | None = None
    """Mean of the bits per byte of the newest steps: of all, while they are few."""
    weight: float = 0.0

    def add(self, row: dict[str, Any]) -> None:
        self.last = row
        if isinstance(bits := row.get("train/bits_per_byte"), float):
            self.smooth(bits)
        if isinstance(bits := row.get("heldout/bits_per_byte"), float):
            self.scores.append((row["step"], bits))
        if isinstance(seconds := row.get("perf/evaluation_seconds"), float):
            self.evaluation_seconds += seconds

    def smooth(self, bits: float) -> float:
        """Count a step in; returns the mean."""
        if self.smoothed is None or not math.isfinite(self.smoothed):
            self.smoothed, self.weight = bits, 0.0
        self.weight = SMOOTH * self.weight + 1
        self.smoothed += (bits - self.smoothed) / self.weight
        return self.smoothed


class MetricsLog:
    """Of a run directory: ``metrics.jsonl`` (one object a step), ``samples.jsonl`` (one a score)
    and TensorBoard events.

    Numbers that are not finite are null there, and named under ``nonfinite``."""

    def __init__(self, workdir: Path, first_step: int, tracker: Tracker | None = None):
        """Forget what a killed run logged beyond ``first_step``: those steps come again. tracker:
        gets all that is finite, too."""
        self._tracker = tracker
        self.path = Path(workdir) / METRICS
        self.history = History()
        self.undone: dict[int, float] = {}
        """Seconds that steps took which come again."""
        _keep_until(self.path, first_step, self.history.add, self._undo)
        _keep_until(self.path.with_name(SAMPLES), first_step)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  (for the run's life)
        self._events = Events(Path(workdir) / "tensorboard", first_step)

    def _undo(self, row: dict[str, Any]) -> None:
        if isinstance(seconds := row.get("perf/step_seconds"), float):
            self.undone[row["step"]] = seconds

    def write(self, step: int, values: dict[str, float]) -> None:
        """Raises OSError that names the file. Events that cannot be written end nothing."""
        strange = [name for name, value in values.items() if not math.isfinite(value)]
        row = {"step": step} | values | ({"nonfinite": strange} if strange else {})
        try:
            self._file.write(files.json_text(row) + "\n")
            self._file.flush()
        except OSError as error:  # which does not know its file
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        finite = {name: value for name, value in values.items() if name not in strange}
        self._events.write(step, finite)
        if self._tracker:
            self._tracker.write(step, finite)

    def write_sample(self, step: int, sample: dict[str, Any]) -> None:
        """What the model writes (``text``) and how it cuts a text at a step. Raises OSError."""
        with open(self.path.with_name(SAMPLES), "a", encoding="utf-8") as file:
            file.write(files.json_text({"step": step} | sample) + "\n")
        if sample["text"]:
            self._events.write_text(step, "sample", sample["text"])

    def close(self) -> None:
        self._file.close()
        self._events.close()
        if self._tracker:
            self._tracker.close()


class Events:
    """Scalars for TensorBoard, written at once: no thread that could die, no queue that could fill.
    After a failure, with one warning, there are no more."""

    def __init__(self, folder: Path, first_step: int):
        self._file = None
        try:
            folder.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
            self._file = open(folder / name, "xb", buffering=0)  # noqa: SIM115
        except OSError as error:
            self._give_up(error)
        self._add(file_version="brain.Event:2")
        if first_step:  # what a killed run wrote beyond it is not shown
            start = _EVENTS.SessionLog(status=_EVENTS.SessionLog.START)
            self._add(step=first_step + 1, session_log=start)

    def write(self, step: int, values: dict[str, float]) -> None:
        summary = _SUMMARIES.Summary
        scalars = [summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step=step, summary=summary(value=scalars))

    def write_text(self, step: int, tag: str, content: str) -> None:
        shown = content.encode(errors="replace").decode().replace("\0", "\ufffd")
        self._add(step=step, summary=text(tag, shown))

    def close(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    def _add(self, **content) -> None:
        if not self._file:
            return
        data = _EVENTS.Event(wall_time=time.time(), **content).SerializeToString()
        head = struct.pack("<Q", len(data))
        record = head + _masked_crc(head) + data + _masked_crc(data)
        try:
            if self._file.write(record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        name = error.filename or getattr(self._file, "name", "the log")
        process.warn(f"no more TensorBoard events: {name}: {error.strerror}")
        with contextlib.suppress(OSError):
            self.close()


def _masked_crc(data: bytes) -> bytes:
    """As TensorFlow's record files have it."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _keep_until(
    path: Path,
    step: int,
    see: Callable[[dict], None] = lambda row: None,
    drop: Callable[[dict], None] = lambda row: None,
) -> None:
    """Drop the lines of later steps, and what a kill cut short; ``see`` is shown the others, and
    ``drop`` those of later steps."""
    if not path.exists():
        return
    before, kept = path.read_bytes(), []
    for line in before.splitlines():
        try:
            row = json.loads(line)
            if row["step"] <= step:
                kept.append(files.json_text(row) + "\n")
                see(row)
            else:
                drop(row)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    if (after := "".join(kept).encode()) != before:
        files.write(path, after)


def of_parts(values: dict[str, float]) -> dict[str, float]:
    """What parts of a model did, from a step's sums. Multi-token prediction: ``mtp_nats/K`` per
    target, of the K-th next id. Levels of an hourglass: ``units/L``, ``merged/L`` and
    ``computed/L`` (slots that were computed, padding included) per target, and of learned
    segmenters, per position, ``rate/L`` (ends asked for) and ``collapsed/L`` (positions in rows
    with hardly any ends, or hardly anything else)."""
    found = {}
    for name, value in values.items():
        kind, _, level = name.partition("/")
        if kind in ("units", "merged", "computed", "foreseen_nats", "boundary_loss"):
            found[name] = value / max(values["targets"], 1)
        elif kind == "mtp_nats" and values[f"mtp_targets/{level}"]:
            found[name] = value / values[f"mtp_targets/{level}"]
        elif kind in ("ends", "collapsed"):
            name = f"{'rate' if kind == 'ends' else kind}/{level}"
            found[name] = value / max(values[f"positions/{level}"], 1)
    return found
