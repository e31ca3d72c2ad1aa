"""Cells are done: here, one after another or several at a time; on other machines by the same
command; or one by one, as a queue of jobs asks for them."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octavo import process
from octavo.ablation import corpora, measure, results
from octavo.ablation.claims import Claims
from octavo.ablation.place import MEASURED, SPEED, TEXT, Place
from octavo.ablation.plan import Cell, Planned
from octavo.brief import clock
from octavo.cli import RunError
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config
from octavo.evaluation import curves
from octavo.evaluation.parallel import read_parallel
from octavo.locks import InUse
from octavo.process import Preempted
from octavo.run.directory import RESULTS
from octavo.run.opened import open_run

LOOK_SECONDS = 0.5
OTHERS_SECONDS = 5.0
"""How often is looked what other machines have finished."""
SAVING_SECONDS = 120.0
"""A cell that is asked to stop has so long to save."""
PAGE_SECONDS = 60.0
"""The page is made anew no more often while cells are done."""


@dataclass
class Progress:
    """What is done of a study, as its files say: names of cells."""

    done: set[str] = field(default_factory=set)
    trained: set[str] = field(default_factory=set)
    """Finished, and not measured."""
    lost: dict[str, str] = field(default_factory=dict)
    """They gave up, and why."""
    broken: dict[str, str] = field(default_factory=dict)
    """Their files do not hold what they should, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of training, of those that are finished."""
    chosen: dict[str, str] = field(default_factory=dict)
    """By arm, which of its tries was chosen."""
    rates: dict[str, float] = field(default_factory=dict)
    """By arm, the multiple of its learning rate that was chosen."""

    def ready(self, cell: Cell) -> bool:
        """Whether its learning rate is known."""
        return cell.rate is not None or cell.arm in self.rates

    def over(self, cell: Cell) -> bool:
        """Whether there is nothing left to do: of a try that is not chosen, or not yet, to measure
        it."""
        if cell.name in self.done or cell.name in self.lost:
            return True
        return cell.tried and cell.name in self.trained and self.chosen.get(cell.arm) != cell.name


def progress(place: Place, planned: Planned) -> Progress:
    """Look at the files of a study."""
    found = Progress()
    tries: dict[str, list[results.Cell]] = {}
    read = results.read_cells(place.files(), planned.to_json())
    for plan, cell in zip(planned.cells, read, strict=True):
        if cell.status == "done":
            found.done.add(cell.name)
        elif cell.status == "trained":
            found.trained.add(cell.name)
        elif cell.status == "lost":
            found.lost[cell.name] = cell.why or "it gave up"
        elif cell.status == "failed":
            found.broken[cell.name] = cell.why or "its files cannot be read"
        if cell.status in ("done", "trained"):
            found.seconds[cell.name] = curves.number(cell.results.get("seconds")) or 0.0
        if plan.tried:
            tries.setdefault(plan.arm, []).append(cell)
    for arm, cells in tries.items():
        choice = results.chosen_rate(cells)
        if choice and choice["rate"] is not None:
            found.rates[arm], found.chosen[arm] = choice["rate"], choice["cell"]
    return found


def do(place: Place, planned: Planned, chosen: int, train: Callable[[Config], dict]) -> None:
    """Do one cell: train its run, or go on with it, and measure it. train: as ``octavo.train``.

    Raises ConfigError if there is no such cell, Preempted if another process does it or its
    learning rate is not chosen yet, RunError if it never will be; and what ``train`` raises."""
    by_number = {cell.number: cell for cell in planned.cells}
    if chosen not in by_number:
        raise ConfigError(f"--cell {chosen}: the study has cells 0 to {max(by_number)}.")
    cell = by_number[chosen]
    claims = Claims(place.out)
    if other := claims.held(cell.name):
        raise Preempted(f"cell {chosen}, {cell.name}, is being done by {other}")
    try:
        with claims.of(cell.name):
            _do(place, planned, cell, train)
    except InUse as error:  # who came a moment earlier
        raise Preempted(f"cell {chosen}, {cell.name}, is being done: {error}") from error


def _do(place: Place, planned: Planned, cell: Cell, train: Callable[[Config], dict]) -> None:
    now, called = progress(place, planned), f"cell {cell.number}, {cell.name},"
    if now.over(cell):
        print(f"{called} is done.")
        return
    if planned.about["existing"]:
        run = planned.about["folders"][cell.name]
    else:
        if not now.ready(cell):
            left = [str(c.number) for c in planned.tries_of(cell.arm) if not now.over(c)]
            if not left:
                raise RunError(f"{called} cannot be done: {_none_chosen(cell)}.")
            raise Preempted(
                f"{called} waits for the learning rate of {cell.arm}, which cells "
                f"{', '.join(left)} try"
            )
        run = place.run(cell.name)
        rate = now.rates[cell.arm] if cell.rate is None else cell.rate
        _train(place, cell, planned.config(cell, rate, run), train)
        if progress(place, planned).over(cell):
            print(f"{cell.name} is measured if its learning rate is chosen.")
            return
    _measure(place, planned, cell, run)


def _none_chosen(cell: Cell) -> str:
    return f"no learning rate that {cell.arm} tried came to an end"


def _train(place: Place, cell: Cell, config: Config, train) -> None:
    found = place.read(f"runs/{cell.name}/{RESULTS}") or {}
    if not (found.get("finished") and found.get("step") == cell.steps):
        train(config)


def _measure(place: Place, planned: Planned, cell: Cell, run: str) -> None:
    text, about = place.read(TEXT), planned.about
    held = corpora.scored(text["source"], about["heldout_bytes"])
    parallel = about["parallel"] and read_parallel(about["parallel"], measure.SENTENCES)
    print(f"measuring {cell.name} ...", flush=True)
    with place.folder(f"runs/{cell.name}") as folder:
        measure.measure(open_run(run), text, held, folder, parallel, path=run)


@dataclass
class Job:
    """A cell that a process does."""

    cell: Cell
    process: subprocess.Popen
    log: Any
    began: float = field(default_factory=time.monotonic)

    def said(self) -> str:
        """Its last line."""
        self.log.seek(0)
        lines = [line for line in self.log.read().splitlines() if line.strip()]
        return lines[-1].removeprefix("error: ") if lines else "it said nothing"


class Workers:
    """Do all cells of a study that nobody else does, ``jobs`` at a time."""

    def __init__(
        self, place: Place, planned: Planned, jobs: int, script: Path,
        page: Callable[[], None], say: Callable[[str], None],
    ):  # fmt: skip
        """script: ablate.py, which does a cell in a process of its own. page: makes the page of
        what is done."""
        self._place, self._planned, self._jobs = place, planned, jobs
        self._script, self._page, self._say = script, page, say
        self._claims = Claims(place.out)
        self._running: list[Job] = []
        self._failed: dict[str, str] = {}
        self._stop: int | None = None
        self._mine: list[tuple[float, float]] = []
        """FLOPs and seconds of cells that were done here."""

    def __call__(self) -> dict[str, str]:
        """Returns why cells failed, by name. Raises Preempted if a signal stopped it."""
        before = {n: signal.getsignal(n) for n in process.SIGNALS}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._note)
        try:
            self._work()
        finally:
            self._end_running()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._stop is not None:
            raise Preempted(f"the study is kept in {self._place}")
        return self._failed

    def _note(self, number, frame) -> None:
        self._stop = number

    def _work(self) -> None:
        now, looked, paged = progress(self._place, self._planned), 0.0, time.monotonic()
        told = ""
        while self._stop is None:
            over = [job for job in self._running if job.process.poll() is not None]
            for job in over:
                self._running.remove(job)
                self._ended(job)
            others = time.monotonic() - looked > OTHERS_SECONDS
            if over or (others and len(self._running) < self._jobs):
                now, looked = progress(self._place, self._planned), time.monotonic()
            for job in over:
                self._tell(job, now)
            self._lose(now)
            left = [
                c for c in self._planned.cells if not now.over(c) and c.name not in self._failed
            ]
            if not left and not self._running:
                return
            mine = {job.cell.name for job in self._running}
            free = [c for c in left if c.name not in mine and now.ready(c)]
            for cell in free:
                if len(self._running) >= self._jobs:
                    break
                if self._claims.held(cell.name) is None:
                    self._start(cell)
            if over and time.monotonic() - paged > PAGE_SECONDS:
                self._page()
                paged = time.monotonic()
            if not self._running and left:
                cells = f"{len(left)} cells" if len(left) > 1 else "a cell"
                names = f"waiting for {cells} that other processes do"
                if told != names:
                    self._say(names)
                    told = names
            time.sleep(LOOK_SECONDS if self._running else OTHERS_SECONDS)

    def _lose(self, now: Progress) -> None:
        """Count what cannot be done as failed: a run that gave up, unless it was a try, and cells
        whose learning rate can never be chosen."""
        for cell in self._planned.cells:
            if cell.name in now.lost:
                self._failed.pop(cell.name, None)
                if not cell.tried:
                    self._failed[cell.name] = now.lost[cell.name]
            tries = self._planned.tries_of(cell.arm)
            if not now.ready(cell) and all(now.over(c) or c.name in self._failed for c in tries):
                self._failed[cell.name] = _none_chosen(cell)

    def _start(self, cell: Cell) -> None:
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        command = [sys.executable, str(self._script), "--out", self._place.out]
        job = subprocess.Popen(
            [*command, "--cell", str(cell.number)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
            env=process.with_starter(),
        )  # fmt: skip
        self._running.append(Job(cell, job, log))
        self._say(f"cell {cell.number:<4} {cell.name}: {cell.steps} steps")

    def _ended(self, job: Job) -> None:
        code = job.process.returncode
        if code not in (process.DONE, process.PREEMPTED):
            why = job.said()
            if code < 0:  # it had no last words
                why = f"it was killed by {signal.Signals(-code).name}. It last said: {why}"
            self._failed[job.cell.name] = why
            self._say(f"cell {job.cell.number:<4} {job.cell.name} failed: {why}")
        job.log.close()

    def _tell(self, job: Job, now: Progress) -> None:
        cell = job.cell
        if not now.over(cell):
            if job.process.returncode == process.DONE and cell.name in now.broken:
                self._failed[cell.name] = now.broken[cell.name]  # no second try would do better
            return
        found = self._place.read(f"runs/{cell.name}/{MEASURED}") or {}
        bits = f"{found['bits_per_byte']:.3f} bits/byte, " if cell.name in now.done else ""
        took = time.monotonic() - job.began
        self._mine.append((cell.flops_paid, took))
        left = sum(c.flops_paid for c in self._planned.cells if not now.over(c))
        flops, seconds = (sum(part) for part in zip(*self._mine, strict=True))
        over = sum(now.over(c) for c in self._planned.cells)
        self._say(
            f"cell {cell.number:<4} {cell.name}: {bits}{clock(took)}; "
            f"{over} of {len(self._planned.cells)} cells, about "
            f"{clock(left * seconds / flops / self._jobs)} left"
        )

    def _end_running(self) -> None:
        """What runs saves and stops."""
        for job in self._running:
            with contextlib.suppress(ProcessLookupError):
                job.process.terminate()
        deadline = time.monotonic() + SAVING_SECONDS
        for job in self._running:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
            job.log.close()
        self._running.clear()


def time_arms(place: Place, planned: Planned, say: Callable[[str], None]) -> None:
    """Measure how fast every arm trains and decodes, side by side, once for the arms that there
    are. Nothing if another process does it. say: is told how far it is."""
    from octavo.ablation.speed import measure_speed

    chosen, now = {}, progress(place, planned)
    for cell in planned.cells:  # the first of each rung that has a model: any has its shapes
        if cell.name in now.done | now.trained:
            chosen.setdefault((cell.arm, cell.size), cell.name)
    found = place.read(SPEED) or {}
    known = {(one["arm"], one["size"]) for one in found.get("arms", ())}
    if known >= chosen.keys():
        return
    claims = Claims(place.out)
    if claims.held("speed"):
        return
    with claims.of("speed"):
        folders = planned.about.get("folders", {})
        runs = [(a, s, folders.get(n) or place.run(n)) for (a, s), n in chosen.items()]
        place.write(SPEED, measure_speed(runs, say=say))


def check_failed(failed: dict[str, str]) -> None:
    """Raise RunError if cells failed."""
    if failed:
        name, why = next(iter(failed.items()))
        why = why.rstrip(".")
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise RunError(
            f"{name} failed{more}: {why}. The same command tries again what did not give up; "
            "what is done is kept."
        )
