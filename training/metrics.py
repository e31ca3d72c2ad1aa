"""Metrics to disk and to the screen."""

import json
import math
import os
import time
from pathlib import Path

from rich.console import Console


class MetricsLog:
    """``metrics.jsonl`` (one object a step) and TensorBoard events of a run directory."""

    def __init__(self, workdir: Path, first_step: int):
        """Forget what a killed run logged beyond ``first_step``: those steps come again."""
        self.path = Path(workdir) / "metrics.jsonl"
        _keep_until(self.path, first_step)
        self._file = open(self.path, "a")  # noqa: SIM115  (open for the life of the run)
        self._events = None
        try:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=first_step)
        except OSError as error:
            Console(stderr=True).print(f"warning: no TensorBoard events: {error}")

    def write(self, step: int, values: dict[str, float]) -> None:
        try:
            self._file.write(json.dumps({"step": step} | values) + "\n")
            self._file.flush()
        except OSError as error:  # which does not know its file
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if self._events is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break  # a line cut short by a kill
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)


def of_parts(values: dict[str, float]) -> dict[str, float]:
    """What parts of a model did, from a step's sums. Multi-token prediction: ``mtp_nats/K`` per
    target, of the K-th next id. Levels of an hourglass: ``units/L`` and ``merged/L`` per target,
    and of learned segmenters, per position, ``rate/L`` (ends asked for) and
    ``collapsed/L`` (positions in rows with hardly any ends, or hardly anything else)."""
    found = {}
    for name, value in values.items():
        kind, _, level = name.partition("/")
        if kind in ("units", "merged", "foreseen_nats", "boundary_loss"):
            found[name] = value / max(values["targets"], 1)
        elif kind == "mtp_nats" and values[f"mtp_targets/{level}"]:
            found[name] = value / values[f"mtp_targets/{level}"]
        elif kind in ("ends", "collapsed"):
            name = f"{'rate' if kind == 'ends' else kind}/{level}"
            found[name] = value / max(values[f"positions/{level}"], 1)
    return found


class Progress:
    """Where the run stands: loss, speed and time left, every few steps."""

    def __init__(self, console: Console, first_step: int, steps: int, every: int):
        self.console, self.steps, self.every = console, steps, every
        self._mark_step, self._mark_bytes, self._bytes = first_step, 0.0, 0.0
        self._mark_time = self._start = time.perf_counter()

    def update(self, step: int, bits_per_byte: float, grad_norm: float, new_bytes: float) -> float:
        """Count a finished step; returns bytes per second since the last printed line."""
        self._bytes += new_bytes
        now = time.perf_counter()
        elapsed = max(now - self._mark_time, 1e-9)
        speed = (self._bytes - self._mark_bytes) / elapsed
        if step % self.every == 0 or step == self.steps:
            done = step - self._mark_step
            left = elapsed / max(done, 1) * (self.steps - step)
            self.console.print(
                f"step {step:>{len(str(self.steps))}}/{self.steps}   {bits_per_byte:6.3f} bits/byte"
                f"   {human(speed)}B/s   grad {grad_norm:5.2f}   {clock(left)} left",
                highlight=False,
            )
            self._mark_step, self._mark_bytes, self._mark_time = step, self._bytes, now
        return speed


def human(value: float) -> str:
    """A number with a metric prefix: 12_345 -> "12.3 k"."""
    power = 0
    while abs(value) >= 999.5 and power < 5:
        value /= 1000
        power += 1
    return f"{value:.3g} {' kMGTP'[power].strip()}"


def clock(seconds: float) -> str:
    """Seconds as "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
