"""What the runs of a study have come to, read from its folder alone: nothing here needs JAX, nor
that a file is there, or whole."""

import contextlib
import hashlib
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from octavo.ablation.place import FORMAT, MEASURED, RUNS, SPEED, STUDY, TEXT
from octavo.configs.checks import ConfigError
from octavo.data.errors import DataError
from octavo.evaluation.curves import SKIPPED, Curves, number, read_curves, read_rows
from octavo.files import FileError, read_json, shown
from octavo.run.directory import CERTIFICATE, CONFIG, DIVERGED, METRICS, RESULTS

POINTS = 60
"""Of a curve."""
_NEEDED = (
    "name", "budget", "seeds", "baseline", "tuning", "unequal", "existing", "text", "arms", "cells"
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell of a study, as far as its run has come."""

    planned: dict[str, Any]
    """What study.json says of it."""
    path: Path
    """Of its run."""
    certificate: Path
    """The folder of what was compressed."""
    status: str
    """missing: not finished. trained: finished, not measured. done: measured. lost: it gave up.
    failed: its files cannot be read, or do not hold what they should."""
    why: str | None = None
    """It is lost or failed, in a sentence."""
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    results: dict[str, Any] = field(default_factory=dict, repr=False)
    measured: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.planned["name"]

    @cached_property
    def nats(self) -> np.ndarray:
        """float64 ``[documents]``: what each scored document costs, its end included."""
        return np.array(self.measured["documents"]["nats"], np.float64)

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 ``[documents]``: UTF-8 bytes of each."""
        return np.array(self.measured["documents"]["bytes"], np.int64)

    @property
    def bits_per_byte(self) -> float:
        return float(self.nats.sum() / math.log(2) / self.sizes.sum())

    @property
    def learning_rate(self) -> float | None:
        """The peak that the run was trained with."""
        optimizer = self.config.get("optimizer")
        return number(optimizer.get("learning_rate")) if isinstance(optimizer, dict) else None

    @cached_property
    def curves(self) -> Curves:
        return read_curves(self.path / METRICS, POINTS)

    @cached_property
    def unproven(self) -> str | None:
        """Why the certificate does not prove the score, as the end of a sentence; None: it does.
        Files of it that are there are those that it names."""
        return _unproven(self.measured, self.certificate)


def read_study(out: Path) -> dict[str, Any]:
    """What study.json says. Raises ConfigError if the folder holds no study, DataError if it cannot
    be read."""
    path = out / STUDY
    try:
        study = read_json(path, dict[str, Any], error=DataError, advice=_ANEW)
        if study.get("format") != FORMAT:
            raise DataError(
                f"{path} has format {study.get('format')!r}, and this version reads {FORMAT}."
            )
        if lacking := [name for name in _NEEDED if name not in study]:
            raise DataError(f"{path} does not say {', '.join(lacking)}. {_ANEW}")
        _ = [(each["name"], each["arm"], each["budget"], each["seed"]) for each in study["cells"]]
        _ = [(each["name"], each["sizes"]) for each in study["arms"]], study["budget"]["values"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{shown(str(out))} holds no study: there is no {STUDY}.") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error} is not there. {_ANEW}") from error
    return study


_ANEW = "Run the command of the study again, which writes it anew."


def read_speed(out: Path) -> dict[str, Any] | None:
    """speed.json as far as it is there and whole."""
    with contextlib.suppress(OSError, FileError):
        speed = read_json(out / SPEED, dict[str, Any])
        rows = speed.get("arms")
        if isinstance(rows, list) and all(isinstance(row, dict) and "arm" in row for row in rows):
            return speed
    return None


def read_cells(out: Path, study: dict[str, Any]) -> list[Cell]:
    """The cells, in the order of the plan."""
    expected = _documents(out, study)
    return [_read_cell(out, study, planned, expected) for planned in study["cells"]]


def _documents(out: Path, study: dict[str, Any]) -> list[int] | None:
    """Bytes of each document that is scored, as text.json says; None if it does not."""
    with contextlib.suppress(OSError, FileError, KeyError, TypeError):
        text = read_json(out / TEXT, dict[str, Any])
        if text["fingerprint"] == study["text"]["fingerprint"]:
            return [each["bytes"] for each in text["documents"]]
    return None


def _read_cell(
    out: Path, study: dict[str, Any], planned: dict[str, Any], expected: list[int] | None
) -> Cell:
    ours = out / RUNS / planned["name"]
    path = ours  # of a run that was there already, copies
    config: dict[str, Any] = {}
    results: dict[str, Any] = {}
    measured: dict[str, Any] = {}

    def found(status: str, why: str | None = None) -> Cell:
        return Cell(planned, path, ours / CERTIFICATE, status, why, config, results, measured)

    try:
        config = _read(path / CONFIG)
        results = _read(path / RESULTS)
        if not (study["existing"] or _finished(results, planned)):
            if not (path / DIVERGED).exists():
                return found("missing")
            step = results.get("step")
            where = f" at step {step:,}" if isinstance(step, int) else ""
            return found("lost", f"it gave up{where}: its steps were not finite")
        measured = _read(ours / MEASURED)
        if not measured:
            return found("trained")
        if wrong := _wrong(measured, results, study, expected):
            return found("failed", f"{MEASURED} {wrong}")
        return found("done")
    except (OSError, FileError) as error:
        return found("failed", shown(_sentence(error).replace(f"{path}{os.sep}", "")))


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty if there is none. Raises FileError, OSError."""
    try:
        return read_json(path, dict[str, Any])
    except FileNotFoundError:
        return {}


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read: {error.strerror}"
    return str(error).strip().rstrip(".")


def _finished(results: dict[str, Any], planned: dict[str, Any]) -> bool:
    """Whether all steps were made, and the run was sound at the end. What fails after that, as a
    score, leaves a run that can be measured."""
    if results.get("stopped") is True:
        return False
    return results.get("finished") is True or (
        "step" in results and results["step"] == planned.get("steps")
    )


def _wrong(
    measured: dict[str, Any],
    results: dict[str, Any],
    study: dict[str, Any],
    expected: list[int] | None,
) -> str | None:
    """What is wrong with measured.json, as the end of a sentence; None: nothing."""
    if measured.get("format") != FORMAT:
        return f"has format {measured.get('format')!r}, and this version reads {FORMAT}"
    if measured.get("fingerprint") != study["text"]["fingerprint"]:
        return "is of other text than the study's"
    if not study["existing"] and measured.get("step") != results.get("step"):
        return f"is of step {measured.get('step')}, and the run ended at step {results.get('step')}"
    try:
        nats = np.array(measured["documents"]["nats"], np.float64)
        sizes = np.array(measured["documents"]["bytes"], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return "does not say what each document costs"
    if nats.ndim != 1 or nats.shape != sizes.shape or not sizes.sum() or (sizes < 0).any():
        return "does not say what each document costs"
    if expected is not None and sizes.tolist() != expected:
        return "is of documents of other sizes than the study's"
    if not np.isfinite(nats).all():
        return "has a score that is not finite: the model gives no probability to some text"
    bits = float(nats.sum() / math.log(2) / sizes.sum())
    told = number(measured.get("bits_per_byte"))
    if told is None or not math.isclose(bits, told, rel_tol=1e-6):
        return f"does not add up: its documents cost {bits:.6f} bits per byte, and it says {told}"
    return None


def _unproven(measured: dict[str, Any], folder: Path) -> str | None:
    certificate = measured.get("certificate")
    if not isinstance(certificate, dict):
        return "there is no certificate"
    if certificate.get("proves") is not True:
        why = certificate.get("why")
        return why.strip().rstrip(".") if isinstance(why, str) and why else "its certificate fails"
    if certificate.get("step") != measured.get("step"):
        return f"the certificate is of step {certificate.get('step')}"
    pieces = certificate.get("pieces")
    if not isinstance(pieces, list) or not pieces:
        return "its certificate names no text"
    for piece in pieces:
        try:
            data = (folder / piece["compressed"]).read_bytes()
            if piece["restored"] is not True:
                return f"{piece['compressed']} was not restored"
            if hashlib.sha256(data).hexdigest() != piece["compressed_sha256"]:
                return f"{piece['compressed']} is not the file that it was made of"
        except (KeyError, TypeError):
            return "its certificate is damaged"
        except OSError:
            continue  # it was not kept here
    return None


# Learning rates.


def tries_of(study: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    """The cells of the plan that try learning rates for an arm."""
    if len(study["tuning"]["grid"]) < 2:
        return []
    return [each for each in study["cells"] if each["arm"] == arm and each["rate"] is not None]


def chosen_rate(cells: list[Cell]) -> dict[str, Any] | None:
    """What was chosen among these tries, which are all of one arm; None if not all have ended.

    ``rate`` is the multiple of the preset's learning rate and ``learning_rate`` the rate itself,
    ``bits_per_byte`` what ``training_bits`` gives, ``cell`` the name of the cell, ``edge`` whether
    the rate is the least or the largest of several, all None if all tries are lost. ``tries`` says
    the same of each, with ``chosen``, and ``why`` one is lost.

    The lowest bits per byte of training wins; of equals, the lowest rate. No held-out text chooses.
    A try is lost that gave up, or of which a step that counts was skipped.
    """
    tries = []
    for cell in sorted(cells, key=lambda cell: cell.planned["rate"]):
        lost = cell.status == "lost"
        if not (lost or _finished(cell.results, cell.planned)):
            return None
        bits = None if lost else training_bits(cell.path / METRICS, cell.planned["steps"])
        why = cell.why if lost else "steps of its last tenth were skipped, or are not logged"
        tries.append({
            "arm": cell.planned["arm"], "size": cell.planned["size"], "cell": cell.name,
            "rate": cell.planned["rate"], "learning_rate": cell.learning_rate,
            "bits_per_byte": bits, "why": why if bits is None else None,
        })  # fmt: skip
    sound = [each for each in tries if each["bits_per_byte"] is not None]
    best = min(sound, key=lambda each: each["bits_per_byte"], default=None)
    for each in tries:
        each["chosen"] = each is best
        each["edge"] = each is best and len(tries) > 1 and (each is tries[0] or each is tries[-1])
    names = ("rate", "learning_rate", "bits_per_byte", "cell", "edge")
    return {name: best[name] if best else None for name in names} | {"tries": tries}


def training_bits(path: Path, steps: int) -> float | None:
    """Mean bits per byte of training over the last tenth of the steps, those after ``0.9 steps``.
    None if one of them is not logged, was skipped, or has no finite value."""
    first = 9 * steps // 10 + 1
    bits: dict[int, float | None] = {}
    with contextlib.suppress(OSError):
        for row in read_rows(path):
            if row["step"] >= first:
                skipped = (number(row.get(SKIPPED)) or 0) > 0
                bits[row["step"]] = None if skipped else number(row.get("train/bits_per_byte"))
    last = [bits.get(step) for step in range(first, steps + 1)]
    sound = [each for each in last if each is not None]
    return sum(sound) / len(sound) if sound and len(sound) == len(last) else None
