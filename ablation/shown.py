"""What the page and the tables show of each cell: where it comes from, its curves, how it cuts."""

import json
from typing import Any

import numpy as np

from octavo.ablation.results import POINTS, Cell
from octavo.evaluation.curves import HELDOUT, number
from octavo.evaluation.folder import flat

X = {
    "bytes": "train/bytes", "flops_useful": "train/flops_useful", "seconds": "perf/seconds",
    "step": "step",
}  # fmt: skip
RESULTS: dict[type, tuple[str, ...]] = {
    float: (
        HELDOUT, "heldout/bytes", "heldout/documents", "step", "flops", "flops_useful", "bytes",
        "seconds", "evaluation_seconds", "bytes_per_second", "parameters", "seed", "devices",
        "hosts",
    ),
    bool: ("finished", "stopped", "commit_changed"),
    str: ("failed", "preset", "tokenizer", "device", "commit", "revision", "command"),
    dict: ("versions",),
    list: ("data",),
}  # fmt: skip
"""Of results.json, by what they are; of another type, they are passed over."""
SETTINGS = ("optimizer.learning_rate", "train.steps", "train.seed", "data.source")
"""Shown of every cell."""


def settings_of(cells: list[Cell]) -> dict[str, dict[str, Any]]:
    """By cell, the settings that are not the same in all cells, by dotted name, and ``SETTINGS``;
    folders of runs aside."""
    known = {cell.name: flat(cell.config) for cell in cells}
    names = dict.fromkeys(name for settings in known.values() for name in settings)
    there = [settings for settings in known.values() if settings]
    wanted = [
        name for name in names
        if name != "workdir" and (
            name in SETTINGS or len({json.dumps(each.get(name)) for each in there}) > 1
        )
    ]  # fmt: skip
    return {
        cell: {name: settings[name] for name in wanted if name in settings}
        for cell, settings in known.items()
    }


def cell_json(cell: Cell, chosen: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """A cell as the summary has it: what was planned, and what it came to."""
    certificate, collapsed = cell.measured.get("certificate"), cell.measured.get("collapsed")
    return cell.planned | {
        "status": cell.status, "why": cell.why, "chosen": chosen,
        "learning_rate": cell.learning_rate, "settings": settings, "command": _command(cell),
        "results": _results(cell.results),
        "certificate": _certificate(certificate) if isinstance(certificate, dict) else None,
        "unproven": cell.unproven if cell.measured else None,
        "collapsed": str(collapsed) if collapsed else None,
    }  # fmt: skip


def _command(cell: Cell) -> str | None:
    """What makes the run anew: with the learning rate that was chosen, which no plan knows."""
    command = cell.planned.get("command")
    known = cell.planned.get("rate") is not None or cell.learning_rate is None
    if known or not str(command).startswith("python train.py "):  # or of a run that was there
        return command
    return f"{command} --optimizer.learning-rate {cell.learning_rate!r}"


def _results(results: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for kind, names in RESULTS.items():
        for name in names:
            value = results.get(name)
            if kind is float:
                value = number(value)
            elif kind is list and isinstance(value, list):
                value = [each for each in value if isinstance(each, dict)]
            if value is not None and (kind is float or isinstance(value, kind)):
                found[name] = value
    return found


def _certificate(certificate: dict[str, Any]) -> dict[str, Any]:
    """What of it is as it should be."""
    found = _plain(certificate)
    for name in ("decoder", "checkpoint", "why"):
        if not isinstance(found.get(name, ""), str):
            del found[name]
    pieces, versions = certificate.get("pieces"), certificate.get("versions")
    pieces = pieces if isinstance(pieces, list) else []
    return found | {
        "pieces": [_plain(piece) for piece in pieces if isinstance(piece, dict)],
        "versions": _plain(versions) if isinstance(versions, dict) else {},
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is None or isinstance(v, str | int | float)}


def curve_json(cell: Cell, chosen: bool) -> dict[str, Any]:
    """How a cell was trained, in at most ``POINTS`` points, each the mean over steps that follow
    one another; of what was not logged, None."""
    of = cell.curves.of
    size = len(of["step"].mean)
    groups = np.array_split(np.arange(size), min(POINTS, size))

    def thinned(name: str) -> list[float | None]:
        if name not in of:
            return [None] * len(groups)
        found = []
        for group in groups:
            there = of[name].mean[group]
            there = there[np.isfinite(there)]
            found.append(float(f"{there.mean():.6g}") if there.size else None)
        return found

    rows = cell.curves.heldout
    at = np.unique(np.linspace(0, len(rows) - 1, min(POINTS, len(rows))).round().astype(int))
    return {
        "cell": cell.name, "arm": cell.planned["arm"], "size": cell.planned["size"],
        "budget": cell.planned["budget"], "seed": cell.planned["seed"], "chosen": chosen,
        "x": {name: thinned(metric) for name, metric in X.items()},
        "train": thinned("train/bits_per_byte"),
        "heldout": [[int(rows[i]["step"]), rows[i][HELDOUT]] for i in at if HELDOUT in rows[i]],
        "units": {
            name.removeprefix("units/"): thinned(name) for name in of if name.startswith("units/")
        },
    }  # fmt: skip


def cuts(cells: dict[str, Cell], order: list[str]) -> list[dict[str, Any]]:
    """The same texts as each arm cuts them, side by side; what is damaged is passed over. cells: of
    each arm, one."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for arm in order:
        told = cells[arm].measured.get("cuts") if arm in cells else None
        for cut in told if isinstance(told, list) else ():
            if (mine := _cut(cut)) is not None:
                key = str(cut.get("label")), cut["text"]
                whole = found.setdefault(
                    key, {"label": cut.get("label"), "text": key[1], "arms": []}
                )
                whole["arms"].append({"arm": arm, **mine})
    return list(found.values())


def _cut(cut: Any) -> dict[str, Any] | None:
    try:
        size = len(cut["text"].encode("utf-8", "surrogateescape"))
        surprisal = [number(each) or 0.0 for each in cut["surprisal"]]
        probability = [number(each) for each in cut["probability"]]
        ends = [each is True for each in cut["ends"]]
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return None
    if not size or {len(ends), len(surprisal), len(probability)} != {size}:
        return None
    return {
        "ends": ends, "surprisal": surprisal, "probability": probability,
        "bits_per_byte": sum(surprisal) / size,
    }  # fmt: skip
