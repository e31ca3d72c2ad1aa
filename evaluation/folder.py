"""A run directory as its files alone tell of it, read as far as they can be: nothing here needs
JAX, nor that a file is there, or whole."""

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from octavo import process
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.schema import from_json, to_json
from octavo.evaluation.curves import HELDOUT, Curves, Few, number, read_curves, read_rows
from octavo.run.directory import (
    CONFIG,
    DIVERGED,
    GOODPUT,
    LOCK,
    METRICS,
    RESULTS,
    SAMPLE,
    SAMPLES,
)
from octavo.run.goodput import Account, account

_MOST_SAMPLES, _MOST_SAMPLE = 40, 2000
_MOST_CUT = 8192
"""Bytes: a longer text is none that a run cut for its page, and too much for a browser."""
_MOST_BITS = 1e6


class Cut(NamedTuple):
    """How a model cut a text at some step: ``viewer.Units``, with the text."""

    name: str
    text: bytes
    surprisal: np.ndarray
    ends: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Folder:
    """What the files of a run directory say, read as far as they can be."""

    name: str
    path: Path
    config: dict[str, Any]
    results: dict[str, Any]
    curves: Curves
    samples: list[tuple[int, str, str]]
    """Step, prompt, and the text with the prompt."""
    cuts: list[Cut] = field(default_factory=list)
    """At the first, middle and last evaluation."""

    @property
    def step(self) -> int:
        return max(self.curves.last, int(number(self.results.get("step")) or 0))

    @cached_property
    def score(self) -> dict[str, float]:
        """The newest of held-out text, with the ``step`` it is of: of the results, or of the last
        evaluation; empty without one."""
        newest = self.curves.heldout[-1] if self.curves.heldout else {}
        told = {name: number(value) for name, value in self.results.items()}
        told = {name: value for name, value in told.items() if value is not None}
        told["step"] = told.get("heldout/step", told.get("step", 0))
        both = [row for row in (told, newest) if HELDOUT in row]
        return max(both, key=lambda row: row["step"]) if both else {}

    @cached_property
    def best(self) -> tuple[float, int] | None:
        """The lowest held-out bits per byte, and its step."""
        told = self.results.get("best")
        told = told if isinstance(told, dict) else {}
        both = [] if self.curves.best is None else [self.curves.best]
        if (score := number(told.get("bits_per_byte"))) is not None:
            both.append((score, int(number(told.get("step")) or 0)))
        return min(both, default=None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """By dotted name, as this version calls them where it knows them all."""
        try:
            return flat(to_json(from_json(self.config)))
        except ConfigError:
            return flat(self.config)

    @cached_property
    def preset(self) -> tuple[str, dict[str, Any]]:
        """Name and settings of the preset that the run was started from; or the nearest, as the
        files of an unfinished run do not say."""
        known, named = presets(), self.results.get("preset")
        if isinstance(named, str) and named in known:
            return named, flat(to_json(known[named]))
        known = {name: flat(to_json(config)) for name, config in known.items()}
        name = min(known, key=lambda name: len(differing(self.settings, known[name])))
        return f"like {name}", known[name]

    @cached_property
    def status(self) -> tuple[str, bool]:
        """In words, and whether the run goes on as the page is written."""
        steps = number(self.settings.get("train.steps"))
        of = f"{self.step:,}" if steps is None else f"{self.step:,} of {steps:,.0f}"
        done = steps is not None and self.step >= steps
        # Who writes the page of a run that is stopping still holds its lock.
        stopped = self.results.get("stopped") is True and self.results.get("step") == self.step
        lives = not stopped and _lives(self.path / LOCK)
        if not lives and (self.path / DIVERGED).exists():
            return f"gave up at step {of}: its steps were not finite", False
        if done and (self.results.get("finished") is True or not lives):
            return f"finished at step {self.step:,}", False
        if lives:
            return f"running, at step {of} at {time.strftime('%Y-%m-%d %H:%M %Z')}", True
        if not self.step:
            return "nothing is logged yet", False
        return f"stopped at step {of}", False

    @cached_property
    def time(self) -> Account | None:
        """Where it went; None where earlier revisions did not keep that."""
        try:
            return account((self.path / GOODPUT).read_bytes().splitlines())
        except OSError:
            return None

    def newest(self, name: str) -> float | None:
        """The last finite value of a curve."""
        curve = self.curves.of.get(name)
        there = np.isfinite(curve.mean) if curve else np.zeros(0, bool)
        return float(curve.mean[there][-1]) if curve and there.any() else None

    def result(self, name: str, logged: str) -> float | None:
        """A number of the results, or the newest of a curve if the run went on since."""
        told, newest = number(self.results.get(name)), self.newest(logged)
        stale = self.curves.last > (number(self.results.get("step")) or 0)
        return newest if told is None or (stale and newest is not None) else told

    @cached_property
    def recent(self) -> float | None:
        """Bits per byte of training, over the last twentieth of the steps."""
        curve = self.curves.of.get("train/bits_per_byte")
        if curve is None:
            return None
        late = curve.mean[self.curves.of["step"].mean >= 0.95 * self.curves.last]
        late = late[np.isfinite(late)]
        return float(late.mean()) if late.size else None

    @cached_property
    def label_scores(self) -> dict[str, float]:
        """Held-out bits per byte by label, the newest."""
        prefix = f"{HELDOUT}/"
        row = self.curves.heldout[-1] if self.curves.heldout else {}
        found = {name.removeprefix(prefix): v for name, v in row.items() if name.startswith(prefix)}
        if "heldout/bytes" in self.score or not found:  # the newest score is that of the results
            for label, about in self.by_label.items():
                if (value := number(about.get("bits_per_byte"))) is not None:
                    found[label] = value
        return found

    @cached_property
    def by_label(self) -> dict[str, dict]:
        """What the results say of each label."""
        told = self.results.get("heldout/by_label")
        told = told if isinstance(told, dict) else {}
        return {label: about for label, about in told.items() if isinstance(about, dict)}


def check_run(name: str, path: Path) -> None:
    """Raise ConfigError for a folder that is none of a run. name: what a person called it."""
    if not (path / CONFIG).is_file():
        raise ConfigError(
            f"{name} is no run directory: it has no {CONFIG}. Name the folder that train.py "
            "printed."
        )


def read(path: Path, name: str, points: int) -> Folder:
    """A run directory, as far as its files can be read."""
    samples, cuts = _read_samples(path / SAMPLES)
    if not samples and (text := _read_text(path / SAMPLE)):
        samples = [(0, "", text)]
    config, results = read_object(path / CONFIG), read_object(path / RESULTS)
    return Folder(name, path, config, results, read_curves(path / METRICS, points), samples, cuts)


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where it holds none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes()[: 4 * _MOST_SAMPLE].decode(errors="replace")[:_MOST_SAMPLE]
    except OSError:
        return ""


def _read_samples(path: Path) -> tuple[list[tuple[int, str, str]], list[Cut]]:
    """Samples in the order of their steps, and the cuts of the first, middle and last."""
    few: Few[dict[str, Any]] = Few(_MOST_SAMPLES)
    try:
        for row in read_rows(path):
            few.add(row)
    except OSError:
        return [], []
    samples, cuts = [], []
    for row in few:
        text, prompt = row.get("text"), row.get("prompt")
        if text and isinstance(text, str):
            prompt = prompt if isinstance(prompt, str) and text.startswith(prompt) else ""
            samples.append((row["step"], prompt[:_MOST_SAMPLE], text[:_MOST_SAMPLE]))
        if cut := cut_of(f"step {row['step']:,}", row.get("cut")):
            cuts.append(cut)
    chosen = sorted({0, len(cuts) // 2, len(cuts) - 1}) if cuts else []
    return samples, [cuts[i] for i in chosen]


def cut_of(name: str, cut: Any) -> Cut | None:
    """A cut as files have it, text and arrays over its bytes; None if it is not whole."""
    try:
        text = cut["text"].encode("utf-8", "surrogateescape")
        ends = np.array(cut["ends"], bool)
        arrays = [np.array(cut[key], np.float64) for key in ("surprisal", "probability")]
        surprisal = np.clip(np.nan_to_num(arrays[0]), 0, _MOST_BITS)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    if not 0 < len(text) <= _MOST_CUT or any(
        part.shape != (len(text),) for part in (ends, *arrays)
    ):
        return None
    return Cut(name, text, surprisal, ends, arrays[1])


def _lives(lock: Path) -> bool:
    """Whether the owner that a run's lock names still runs, as far as can be known from here."""
    about = read_object(lock)
    if about.get("host") != socket.gethostname():
        return bool(about)
    try:
        return process.alive(int(about["process"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def names_of(workdirs: Sequence[Path]) -> list[str]:
    """The folders' names, or the paths where two are called alike."""
    short = [os.path.basename(os.path.realpath(path)) for path in workdirs]
    names = [str(p) if short.count(s) > 1 else s for p, s in zip(workdirs, short, strict=True)]
    return [name.encode(errors="backslashreplace").decode() for name in names]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found = {}
    for name, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def differing(settings: dict[str, Any], others: dict[str, Any]) -> list[str]:
    return [
        name
        for name in (*settings, *(name for name in others if name not in settings))
        if name != "workdir" and settings.get(name) != others.get(name)
    ]
