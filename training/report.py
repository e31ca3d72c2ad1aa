"""What a training says: what was decided at its start, how each step went, what it has come to."""

import contextlib
import dataclasses
import math
import os
import resource
import shlex
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from octavo import files
from octavo.brief import clock, human
from octavo.model import flops
from octavo.run.directory import GOODPUT, METRICS, REPORT, RESULTS
from octavo.run.goodput import Clock, account, pace, where_time_went
from octavo.run.opened import Run
from octavo.run.score import by_label
from octavo.training.evaluation import PROMPT, Evaluation, Evaluator, results_of
from octavo.training.expected import cost_of
from octavo.training.folder import from_leader
from octavo.training.metrics import History, MetricsLog, of_parts
from octavo.training.optimizer import learning_rate, rate_after
from octavo.training.screen import Screen, Standing
from octavo.training.tracker import Tracker
from octavo.training.trainer import Trainer

MOST_SHOWN = 12
"""Labels whose score the screen has room for."""
PACE_SECONDS = 60.0
"""Between two lines of how long steps take."""


def decided(trainer: Trainer) -> Iterator[str]:
    """Model, devices and data, and what the run begins with, a line each."""
    config, mesh, plan, definition = (
        trainer.config, trainer.mesh, trainer.plan, trainer.definition
    )  # fmt: skip
    steps, cost = config.train.steps, cost_of(config, plan)
    yield (
        f"model      {config.preset}, {human(definition.parameters)}parameters, "
        f"{definition.backend} attention, {config.execution.compute_dtype}"
    )
    yield (
        f"compute    {human(cost.train_useful)}FLOPs per byte ({human(cost.train_paid)} paid), "
        f"{mesh.size} x {mesh.devices.flat[0].device_kind}, "
        f"mesh {'  '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}"
    )
    yield (
        f"data       {human(sum(c.utf8_bytes for c in plan.corpora))}B of text, "
        f"{trainer.tokenizer.name}, plan {plan.fingerprint}"
    )
    yield (
        f"step       {human(math.prod(trainer.shape) * trainer.bytes_per_id)}B; {steps} steps are "
        f"{steps * config.data.batch_size / plan.rows_per_epoch:.2f} epochs"
    )
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir")
    keeps, place = (getattr(jax.config, name) for name in names)
    kept = f"kept in {place}" if keeps and place else "not kept: each start compiles them again"
    yield f"programs   {kept}"
    if trainer.source:
        yield from trainer.source.said()


def scored(evaluator: Evaluator) -> Iterator[str]:
    """What is scored, and when."""
    if not evaluator.held:
        return
    part, whole = ([sum(len(one.text) for one in held), len(held)]
                   for held in (evaluator.part, evaluator.held))  # fmt: skip
    at_end = f"{human(whole[0])}B in {whole[1]} documents"
    if not 0 < evaluator.every < evaluator.trainer.config.train.steps:
        yield f"held-out   {at_end}, scored at the end"
    elif part == whole:
        yield f"held-out   {at_end}, scored every {evaluator.every} steps and at the end"
    else:
        yield (
            f"held-out   {human(part[0])}B of it in {part[1]} documents scored every "
            f"{evaluator.every} steps; all, {at_end}, at the end"
        )


class _Mark(NamedTuple):
    """What was counted when."""

    step: int
    bytes: int
    flops: float
    useful: float
    time: float


class Reporter:
    """Tells of each step, on the screen and in the log, counts, and keeps results.json.

    Counts go on where the log of the run ends: bytes, FLOPs and seconds are of all its steps."""

    def __init__(
        self, trainer: Trainer, screen: Screen, workdir: Path | None, first_step: int,
        about: dict[str, Any], page: Callable[[list[Path], Path], None], clock: Clock,
    ):  # fmt: skip
        """workdir: None: another host writes. about: what results.json says of the run all along.
        page: writes the page of run directories. clock: of this start."""
        self.skipped = self.in_a_row = 0
        self._trainer, self._screen, self._workdir = trainer, screen, workdir
        self._about, self._page, self.step = about, page, first_step
        self._peak = flops.peak_flops(trainer.mesh.devices.flat[0].device_kind)
        self._log = None
        if workdir is not None:
            name = trainer.config.train.tracker
            tracker = None if name == "none" else Tracker(trainer.config, workdir)
            self._log = MetricsLog(workdir, first_step, tracker)
        kept = dataclasses.asdict(self._log.history) if self._log else None
        self.history = history = History(**from_leader(kept))
        last = history.last if history.last.get("step") == first_step else {}

        def counted(name: str, each: float) -> float:  # revisions before did not count
            return last.get(f"train/{name}") or first_step * each

        step_ids = math.prod(trainer.shape)
        self.bytes = round(counted("bytes", step_ids * trainer.bytes_per_id))
        self.flops = counted("flops", trainer.paid_flops({}))
        self.flops_useful = counted("flops_useful", trainer.useful_flops(step_ids, last))
        self._speed = last.get("perf/bytes_per_second") or 0.0
        self._before, self._began = last.get("perf/seconds") or 0.0, time.perf_counter()
        self._mark = self._counted(self._began)
        self._start: tuple[int, float] | None = None
        earlier = from_leader(self._earlier_results())
        same = earlier.get("step") == first_step  # nothing was done since
        self._overall = (same and earlier.get("bytes_per_second")) or self._speed
        self._heldout = {}
        if earlier.get("heldout/step", first_step + 1) <= first_step:
            self._heldout = {k: v for k, v in earlier.items() if k.startswith("heldout/")}
        self._on_screen = history.scores[-1][1] if history.scores else None
        self._clock, self._first_step = clock, first_step
        self._waited = clock.spent("data")
        self._busy = clock.spent("data", "step")
        self._laps, self._waits = array("d"), array("d")
        self._paced, self._paced_at = 1, self._began  # the first step is said alone
        if workdir is not None and self._log is not None:
            clock.open(workdir / GOODPUT, first_step, self._log.undone)
            self.keep_time()

    def __call__(
        self,
        step: int,
        metrics: dict[str, jax.Array],
        evaluation: Evaluation | None = None,
    ) -> None:
        trainer, train = self._trainer, self._trainer.config.train
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        parts = of_parts(values)
        bits = values["nats"] / math.log(2) / max(values["bytes"], 1)
        self.step, self.in_a_row = step, int(values["skipped"])
        self.skipped += self.in_a_row > 0
        self.bytes += round(values["bytes"])
        self.flops += trainer.paid_flops(values)
        if not self.in_a_row:
            self.flops_useful += trainer.useful_flops(values["targets"], parts)
        if evaluation:
            self._count(evaluation)
        left, of_peak = self._measure(step)
        seconds, waited = self._lap(step)
        rate = self.learning_rate(step)
        memory = {"perf/host_memory_bytes": host_memory(), **device_memory()}
        if self._log:
            self._log.write(step, {
                "train/bits_per_byte": bits,
                "train/loss": values["loss"],
                "train/skipped_in_a_row": values["skipped"],
                "train/bytes": self.bytes,
                "train/flops": self.flops,
                "train/flops_useful": self.flops_useful,
                "optimizer/grad_norm": values["grad_norm"],
                "optimizer/learning_rate": rate,
                "perf/bytes_per_second": self._speed,
                "perf/step_seconds": seconds,
                "perf/data_wait_seconds": waited,
                "perf/seconds": self.seconds,
                **memory,
                **parts,
                **of_peak,
                **(evaluation.metrics if evaluation else {}),
            })  # fmt: skip
            if evaluation:
                self._log.write_sample(step, evaluation.sample)
        smoothed = self.history.smooth(bits)
        self._screen.show(Standing(
            step=step, bits_per_byte=bits, smoothed=smoothed, heldout=self._on_screen,
            speed=self._speed, mfu=of_peak.get("perf/mfu"), learning_rate=rate,
            grad_norm=values["grad_norm"], left=left, memory=list(memory.values())[-1],
        ))  # fmt: skip
        if evaluation:
            self._tell(evaluation)
        if self._clock.due:
            self.keep_time()
        if step % train.log_every == 0:
            for name, share in parts.items():
                if name.startswith("collapsed/") and share > 0.5:
                    self._screen.warn(
                        f"{name} {share:.0%}: nearly all or no positions end a unit; "
                        "raise the stage's supervision-weight"
                    )

    @property
    def seconds(self) -> float:
        """Of training, over all its starts, scores and saving included."""
        return self._before + time.perf_counter() - self._began

    def _counted(self, now: float) -> _Mark:
        return _Mark(self.step, self.bytes, self.flops, self.flops_useful, now)

    def _measure(self, step: int) -> tuple[float, dict[str, float]]:
        """Take the speed since the last due line of progress; returns the seconds left, and the
        shares of the devices' peak that useful FLOPs and all of them have, where it is known."""
        mark, now, train = self._mark, time.perf_counter(), self._trainer.config.train
        elapsed = max(now - mark.time, 1e-9)
        self._speed = (self.bytes - mark.bytes) / elapsed
        of_peak = {}
        if self._peak:
            most = elapsed * self._peak * self._trainer.mesh.size
            of_peak["perf/mfu"] = (self.flops_useful - mark.useful) / most
            of_peak["perf/hfu"] = (self.flops - mark.flops) / most
        first = self._start is None  # which compiles: no measure of what follows
        if self._start is None:
            self._start, self._overall = (self.bytes, now), self._speed
        else:
            first_bytes, began = self._start
            self._overall = (self.bytes - first_bytes) / max(now - began, 1e-9)
        if first or step % train.log_every == 0 or step == train.steps:
            self._mark = self._counted(now)
        return elapsed / max(step - mark.step, 1) * (train.steps - step), of_peak

    def _lap(self, step: int) -> tuple[float, float]:
        """Seconds since the last step was reported, without what else was done in between; and how
        many of them waited for a batch, of this step or, while this one ran, of the next."""
        busy, waited = self._clock.spent("data", "step"), self._clock.spent("data")
        lap = busy - self._busy, waited - self._waited
        self._busy, self._waited = busy, waited
        self._laps.append(lap[0])
        self._waits.append(lap[1])
        if len(self._laps) == 1:
            compiled = self._clock.spent("compile")
            self._screen.log(f"compiled   in {compiled:.1f} s; the first step took {lap[0]:.2f} s")
        elif (now := time.perf_counter()) - self._paced_at >= PACE_SECONDS:
            self._screen.log(self._pace(self._paced))
            self._paced, self._paced_at = len(self._laps), now
        return lap

    def _pace(self, start: int) -> str:
        """How long the steps of this start took, from one of them on."""
        laps, waits = np.array(self._laps[start:]), np.array(self._waits[start:])
        return pace(laps, waits, self._first_step + 1 + start + np.arange(len(laps)))

    def keep_time(self) -> None:
        """Keep in the run's folder where the time went until now."""
        self._clock.write(self.step, peak_memory())

    @property
    def scored(self) -> bool:
        """Whether there is a score to leave behind."""
        return bool(self._heldout)

    def take(self, evaluation: Evaluation | None) -> None:
        """A score that is none of those in the log, for want of one."""
        if evaluation:
            self.history.evaluation_seconds += evaluation.seconds
            self._heldout = results_of(evaluation.score, evaluation.labels, evaluation.step)
            self._tell(evaluation)

    def _count(self, evaluation: Evaluation) -> None:
        # No time of training.
        self._mark = self._mark._replace(time=self._mark.time + evaluation.seconds)
        if self._start:
            self._start = self._start[0], self._start[1] + evaluation.seconds
        self._on_screen = evaluation.score.bits_per_byte
        self.history.evaluation_seconds += evaluation.seconds
        self.history.scores.append((evaluation.step, self._on_screen))
        self._heldout = results_of(evaluation.score, evaluation.labels, evaluation.step)

    def _tell(self, evaluation: Evaluation) -> None:
        within = _within(evaluation.score.interval)
        self._screen.log(
            f"held-out   {evaluation.score.bits_per_byte:.3f} bits/byte{within} "
            f"at step {evaluation.step}"
        )
        if shown := printable(" ".join(evaluation.sample["text"].split())):
            self._screen.log(f"sample     {shown[:100]}")

    def learning_rate(self, step: int) -> float:
        """That the update of a step was made with."""
        count = step - 1  # optax counts the updates before
        return float(_rates(self._trainer, count // _BLOCK)[count % _BLOCK])

    # What it has come to.

    def results(self, finished: bool) -> dict[str, Any]:
        """What results.json says."""
        scores = [(bits, step) for step, bits in self.history.scores if math.isfinite(bits)]
        best = min(scores, default=None)
        return {
            **self._heldout,
            "step": self.step,
            "finished": finished,
            "bytes": self.bytes,
            "flops": self.flops,
            "flops_useful": self.flops_useful,
            "seconds": self.seconds,
            "evaluation_seconds": self.history.evaluation_seconds,
            "bytes_per_second": self._overall,
            "train/bits_per_byte": self.history.smoothed,
            "best": best and {"step": best[1], "bits_per_byte": best[0]},
            **self._about,
        }

    def leave(self, finished: bool = False, stopped: bool = False, **more: Any) -> dict[str, Any]:
        """Write results.json and the page; returns the results. Raises OSError.

        stopped: the run ends here, before its last step or without being sound."""
        results = self.results(finished) | {"stopped": stopped} | more
        if self._workdir is not None:
            with self._clock.during("score"):
                files.write_json(self._workdir / RESULTS, results)
                self.make_page()
        return results

    def make_page(self) -> None:
        if self._workdir is None:
            return
        try:
            self._page([self._workdir], self._workdir / REPORT)
        except Exception as error:  # the page is no part of the work
            self._screen.warn(f"no page of the run: {files.reason(error)}")

    def final(self, evaluator: Evaluator, run: Run) -> None:
        """Score all the text."""
        began = time.perf_counter()
        score = evaluator.of_all(run)
        self._heldout = results_of(score, by_label(score, evaluator.held), run.step)
        self.history.evaluation_seconds += time.perf_counter() - began

    def summary(self) -> Iterator[str]:
        """The end of a run in a few lines: score, labels, loss, and what was spent."""
        about = self.results(finished=True)
        if self._heldout:
            low, high = about["heldout/low"], about["heldout/high"]
            yield (
                f"held-out   {about['heldout/bits_per_byte']:.3f} bits/byte"
                f"{_within(None if low is None else (low, high))}, of "
                f"{human(about['heldout/bytes'])}B in {about['heldout/documents']} documents"
            )
            yield from _by_label(about["heldout/by_label"])
        if (bits := about["train/bits_per_byte"]) is not None:
            yield f"training   {bits:.3f} bits/byte (smoothed)"
        yield (
            f"spent      {human(self.bytes)}B of text, {human(self.flops)}FLOPs, of which "
            f"{human(self.flops_useful)}FLOPs useful"
        )
        yield (
            f"time       {clock(about['seconds'])}, of which {clock(about['evaluation_seconds'])} "
            f"for scores; {human(self._overall)}B/s"
        )
        if len(self._laps) > 1:
            yield self._pace(1)
        if self._workdir is not None:
            self.keep_time()
            with contextlib.suppress(OSError):
                if found := account((self._workdir / GOODPUT).read_bytes().splitlines()):
                    yield from where_time_went(found)

    def left_behind(self, workdir: Path) -> Iterator[str]:
        """Where things are, and what to do with them."""
        where = shlex.quote(str(workdir))
        yield f"page       {workdir / REPORT}"
        yield f"scores     {workdir / RESULTS}"
        yield f"curves     {workdir / METRICS}, or: tensorboard --logdir {where}"
        yield f"models     {workdir / 'checkpoints'}"
        yield f"commands   {_command('evaluate')} {where}"
        yield f'           {_command("generate")} {where} --prompt "{PROMPT}"'
        config, steps = self._trainer.config, self._trainer.config.train.steps
        # A rate that has come down to nothing rises only if asked to.
        rate = rate_after(config, steps, self._trainer.replanned)
        rises = "" if rate else " --train.rewarm True"
        yield f"           {_command('train')} --workdir {where} --train.steps {2 * steps}{rises}"

    def _earlier_results(self) -> dict[str, Any]:
        """What the run left when it was last stopped, or scored; of damage, nothing."""
        with contextlib.suppress(OSError, files.FileError):
            if self._workdir is not None:
                return files.read_json(self._workdir / RESULTS, dict[str, Any])
        return {}

    def close(self) -> None:
        self.keep_time()
        if self._log:
            self._log.close()


def _command(name: str) -> str:
    """Another of our commands, as this one was called."""
    called = Path(sys.argv[0])
    if called.name.startswith("octavo-"):
        return f"octavo-{name}"
    beside = called.with_name(f"{name}.py")
    return f"python {shlex.quote(str(beside)) if called.name == 'train.py' else beside.name}"


def printable(text: str) -> str:
    """Text without what a terminal would act on, lines aside."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _within(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    return f" ({interval[0]:.3f} to {interval[1]:.3f})"


def _by_label(labels: dict[str, dict]) -> Iterator[str]:
    width = max(map(len, labels), default=0)
    for name, of in list(labels.items())[:MOST_SHOWN]:
        low, high = of["low"], of["high"]
        within = _within(None if low is None else (low, high))
        count = f"{of['documents']} document{'s' * (of['documents'] > 1)}"
        yield (
            f"  {name:<{width}}  {of['bits_per_byte']:.3f}{within:<19} {human(of['bytes']):>7}B in "
            f"{count}"
        )
    if len(labels) > MOST_SHOWN:
        yield f"  and {len(labels) - MOST_SHOWN} more in {RESULTS}"


_BLOCK = 1024


@lru_cache(maxsize=2)
def _rates(trainer: Trainer, block: int) -> np.ndarray:
    """Learning rates of a block of updates: many at a time, at places that do not depend on where
    a run was continued."""
    config = trainer.config
    schedule = learning_rate(config.optimizer, config.train.steps, trainer.replanned)
    counts = jnp.arange(block * _BLOCK, (block + 1) * _BLOCK)
    return np.asarray(jnp.broadcast_to(schedule(counts), counts.shape))


def host_memory() -> float:
    """Bytes that this process has in memory: now or, where that is not known, at most so far."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return _host_peak()


def _host_peak() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_memory() -> dict[str, float]:
    """Bytes at most so far, of this process and of that of its devices that used most; and of how
    many, where they say it."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    found = {"host_memory_bytes": _host_peak()}
    for name, called in (("device_memory", "peak_bytes_in_use"), ("device_limit", "bytes_limit")):
        if known := [of[called] for of in stats if called in of]:
            found[f"{name}_bytes"] = max(known)
    return found


def device_memory() -> dict[str, float]:
    """Bytes in use on this host's first device, at most so far; empty where it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    most = stats.get("peak_bytes_in_use")
    return {} if most is None else {"perf/device_memory_bytes": most}
