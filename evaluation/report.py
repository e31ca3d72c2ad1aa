"""A page for runs: how they learn, what they write, how they cut a text, and what they are. One
file, no network, made of files of run directories alone; of an older run it shows what there is."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octavo import files
from octavo.evaluation import sections, viewer
from octavo.evaluation.curves import HELDOUT, SKIPPED
from octavo.evaluation.folder import Cut, Folder, names_of, read
from octavo.evaluation.parts import plain

AXES = {"step": "steps", "train/bytes": "bytes", "train/flops": "FLOPs", "perf/seconds": "time"}
_POINTS = 800
"""Points of a curve, over all runs of a page; at least ``_LEAST`` of each."""
_LEAST = 150
_MOST_LABEL_CURVES = 8
_MOST_CHARTS = 12
"""Of metrics that no other chart has."""


def write_report(workdirs: list[Path], out: Path) -> None:
    """Write the page of a run, or of several side by side: whole or not at all.

    Needs no JAX. Files that are not there, or hold something else, are passed over; raises OSError
    if ``out`` cannot be written."""
    files.write(out, page(workdirs))


def page(workdirs: Sequence[Path], cuts: Iterable[Cut] = ()) -> str:
    """The HTML of ``write_report``. cuts: of other texts, shown besides."""
    points = max(_LEAST, _POINTS // max(len(workdirs), 1))
    names = names_of(workdirs)
    runs = [read(path, name, points) for path, name in zip(workdirs, names, strict=True)]
    groups, cut_data = sections.cuts(runs, cuts)
    charts = _charts(runs)
    body = [
        sections.compared(runs) if len(runs) > 1 else sections.figures(runs[0]),
        sections.curves(runs, charts),
        sections.labels(runs),
        sections.samples(runs),
        groups,
        *sections.facts(runs),
    ]
    data = {
        "axes": [[name, AXES[name]] for name in AXES if any(name in r.curves.of for r in runs)],
        "charts": charts,
        "runs": [_data(run, charts) for run in runs],
        "cuts": cut_data,
    }
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    return viewer.fill(
        "report.html",
        title=f"{viewer.readable(title)} · Octavo",
        header=sections.header(runs),
        body="\n".join(part for part in body if part),
        data=viewer.script_json(data),
        report=(viewer.HERE / "report.js").read_text(encoding="utf-8"),
    )


def _charts(runs: list[Folder]) -> list[dict[str, Any]]:
    """The charts for what any of the runs logged."""
    there = dict.fromkeys(name for run in runs for name in run.curves.of)
    taken = {SKIPPED, "train/flops_useful", *AXES}
    found = []

    def chart(title: str, unit: str, *names: str, **how) -> None:
        series = [
            {"table": "curves", "name": name, "label": _words(name)}
            for pattern in names
            for name in there
            if name == pattern or (pattern.endswith("/") and name.startswith(pattern))
        ]
        taken.update(one["name"] for one in series)
        series += how.pop("besides", [])
        if series:
            found.append({"title": title, "unit": unit, "series": series} | how)

    scored = [{"table": "heldout", "name": HELDOUT, "label": "held-out"}]
    scored = scored if any(run.curves.heldout for run in runs) else []
    chart("Bits per byte", "", "train/bits_per_byte", besides=scored, smooth=True, wide=True,
          clip=True, marks=True)  # fmt: skip
    labels = [
        {"table": "heldout", "name": f"{HELDOUT}/{label}", "label": label}
        for label in _drawn_labels(runs)
    ]
    chart("Held-out bits per byte", "by language or source", besides=labels)
    chart("Learning rate", "", "optimizer/learning_rate")
    chart("Gradient norm", "", "optimizer/grad_norm", smooth=True, log=True, marks=True)
    chart("Units", "per id", "units/", "rate/", smooth=True)
    chart("Merged and collapsed", "share", "merged/", "collapsed/", smooth=True)
    chart("Losses of parts", "nats", "mtp_nats/", "foreseen_nats/", "boundary_loss/", smooth=True,
          clip=True)  # fmt: skip
    chart("Loss", "nats per id, with all that is added", "train/loss", smooth=True, clip=True)
    chart("Speed", "bytes per second", "perf/bytes_per_second", smooth=True)
    chart("Of the devices' peak", "useful and paid", "perf/mfu", "perf/hfu", smooth=True)
    chart("Memory", "bytes", "perf/host_memory_bytes", "perf/device_memory_bytes")
    chart("Time of a step", "seconds", "perf/step_seconds", "perf/data_wait_seconds", clip=True)
    chart("Time of scores", "seconds", "perf/evaluation_seconds", clip=True)
    for name in [name for name in there if name not in taken][:_MOST_CHARTS]:
        chart(name, "", name, smooth=True)
    return found


def _words(name: str) -> str:
    """A metric's name in a legend."""
    kind, _, level = name.partition("/")
    kinds = {
        "units": "units", "rate": "ends asked for", "merged": "merged", "collapsed": "collapsed",
        "boundary_loss": "boundary loss", "foreseen_nats": "foreseen",
    }  # fmt: skip
    if kind in kinds:
        return f"{kinds[kind]}, level {level}"
    if kind == "mtp_nats":
        return f"id {level} ahead"
    return {
        "train/bits_per_byte": "training", "perf/host_memory_bytes": "host",
        "perf/device_memory_bytes": "device", "perf/data_wait_seconds": "waiting for data",
        "perf/step_seconds": "step",
        "perf/evaluation_seconds": "evaluating", "perf/mfu": "MFU", "perf/hfu": "HFU",
    }.get(name, level.replace("_", " ") or kind)  # fmt: skip


def _drawn_labels(runs: list[Folder]) -> list[str]:
    """Those that are curves: all, or the worst, middle and best of many."""
    scores: dict[str, float] = {}
    for run in runs:
        if len(run.curves.heldout) > 1:
            drawn = set().union(*run.curves.heldout)
            there = {k: v for k, v in run.label_scores.items() if f"{HELDOUT}/{k}" in drawn}
            scores = there | scores
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    if len(ranked) < 2:
        return []
    most = _MOST_LABEL_CURVES if len(runs) == 1 else _MOST_LABEL_CURVES // 2
    at = np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int)
    return [ranked[i] for i in at]


def _data(run: Folder, charts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page draws of a run."""
    of, exact, rows = run.curves.of, run.curves.exact, run.curves.heldout
    wanted = {(one["table"], one["name"]) for chart in charts for one in chart["series"]}
    noisy = {one["name"] for chart in charts if chart.get("smooth") for one in chart["series"]}
    curves = {}
    for name, curve in of.items():
        if ("curves", name) in wanted:
            few = exact or np.array_equal(curve.low, curve.high, equal_nan=True)
            band = [None, None]
            if name in noisy and not few:
                band = [_round(curve.low, 4), _round(curve.high, 4)]
            curves[name] = [_round(curve.mean), *band]
    heldout = {
        name: [_round([row.get(name) for row in rows]), None, None]
        for table, name in wanted
        if table == "heldout" and any(name in row for row in rows)
    }
    if HELDOUT in heldout and any("heldout/low" in row and "heldout/high" in row for row in rows):
        for place, name in ((1, "heldout/low"), (2, "heldout/high")):
            heldout[HELDOUT][place] = _round([row.get(name) for row in rows])
    skips = of[SKIPPED].high if SKIPPED in of else np.zeros(0)
    return {
        "name": run.name,
        "curves": {
            "x": {axis: _round(of[axis].mean, 9) for axis in AXES if axis in of},
            "values": curves,
        },
        "heldout": {
            "x": {
                axis: _round([row.get(axis) for row in rows], 9)
                for axis in AXES
                if any(axis in row for row in rows)
            },
            "values": heldout,
        },
        "skipped": np.flatnonzero(skips > 0).tolist(),
        "samples": [[step, plain(prompt), plain(text)] for step, prompt, text in run.samples],
    }


def _round(values, digits: int = 6) -> list[float | int | None]:
    """Numbers as short as they can be read off a chart."""
    found: list[float | int | None] = []
    for value in values.tolist() if isinstance(values, np.ndarray) else values:
        if value is None or not np.isfinite(value):
            found.append(None)
        else:
            short = float(f"{value:.{digits}g}")
            found.append(int(short) if short.is_integer() and abs(short) < 1e15 else short)
    return found
