"""A page for runs: how they learn, what they write, how they cut a text, and what they are. One
file, no network, made of files of run directories alone; of an older run it shows what there is."""

import html
import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from octavo import files
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.schema import from_json, to_json
from octavo.evaluation import viewer
from octavo.evaluation.curves import HELDOUT, SKIPPED, Curves, Few, number, read_curves, read_rows
from octavo.evaluation.viewer import CONTROLS, readable

AXES = {"step": "steps", "train/bytes": "bytes", "train/flops": "FLOPs", "perf/seconds": "time"}
_POINTS = 1000
"""Points of a curve, over all runs of a page; at least ``_LEAST`` of each."""
_LEAST = 150
_MOST_SAMPLES, _MOST_SAMPLE = 40, 2000
_MOST_LABELS = 300
_MOST_LABEL_CURVES = 8
_MOST_CHARTS = 12
"""Of metrics that no other chart has."""


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
        """The newest of held-out text: of the results, or of the last evaluation; empty without
        one."""
        newest = self.curves.heldout[-1] if self.curves.heldout else {}
        told = {name: number(value) for name, value in self.results.items()}
        told = {name: value for name, value in told.items() if value is not None}
        both = [row for row in (newest, told) if HELDOUT in row]
        return max(both, key=lambda row: row.get("step", 0)) if both else {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """By dotted name, as this version calls them where it knows them all."""
        try:
            return _flat(to_json(from_json(self.config)))
        except ConfigError:
            return _flat(self.config)

    @cached_property
    def preset(self) -> tuple[str, dict[str, Any]]:
        """Name and settings of the preset that the run was started from; or the nearest, as the
        files of an unfinished run do not say."""
        known = {name: _flat(to_json(config)) for name, config in presets().items()}
        named = self.results.get("preset")
        if isinstance(named, str) and named in known:
            return named, known[named]
        name = min(known, key=lambda name: len(_differing(self.settings, known[name])))
        return f"like {name}", known[name]

    @cached_property
    def status(self) -> tuple[str, bool]:
        """In words, and whether the run goes on as the page is written."""
        steps = number(self.settings.get("train.steps"))
        of = f"{self.step:,}" if steps is None else f"{self.step:,} of {int(steps):,}"
        if _lives(self.path / "lock"):
            return f"running, at step {of}", True
        if not self.step:
            return "nothing is logged yet", False
        if (self.path / "diverged.json").exists():
            return f"gave up at step {of}: its steps were not finite", False
        if steps is not None and self.step >= steps:
            return f"finished at step {self.step:,}", False
        return f"stopped at step {of}", False


def write_report(workdirs: list[Path], out: Path) -> None:
    """Write the page of a run, or of several side by side: whole or not at all.

    Needs no JAX. Files that are not there, or hold something else, are passed over; raises OSError
    if ``out`` cannot be written."""
    files.write(out, page(workdirs))


def page(workdirs: Sequence[Path], cuts: Iterable[Cut] = ()) -> str:
    """The HTML of ``write_report``. cuts: of other texts, shown besides."""
    points = max(_LEAST, _POINTS // max(len(workdirs), 1))
    names = _names(workdirs)
    runs = [read(path, name, points) for path, name in zip(workdirs, names, strict=True)]
    groups, cut_data = _cuts(runs, cuts)
    charts = _charts(runs)
    body = [_compared(runs) if len(runs) > 1 else _figures(runs[0])]
    body += [_chart_section(runs, charts), _labels(runs), _samples(runs), groups, *_facts(runs)]
    data = {
        "axes": [[name, AXES[name]] for name in AXES if any(name in r.curves.of for r in runs)],
        "charts": charts,
        "runs": [_data(run, charts) for run in runs],
        "cuts": cut_data,
    }
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    return viewer.fill(
        "report.html",
        title=f"{readable(title)} · Octavo",
        header=_header(runs),
        body="\n".join(part for part in body if part),
        data=viewer.script_json(data),
        charts=(viewer.HERE / "report.js").read_text(encoding="utf-8"),
    )


# What is read.


def read(path: Path, name: str, points: int) -> Folder:
    """A run directory, as far as its files can be read."""
    samples, cuts = _read_samples(path / "samples.jsonl")
    if not samples and (text := _read_text(path / "sample.txt")):
        samples = [(0, "", text)]
    config, results = _read_object(path / "config.json"), _read_object(path / "results.json")
    return Folder(
        name, path, config, results, read_curves(path / "metrics.jsonl", points), samples, cuts
    )


def _read_object(path: Path) -> dict[str, Any]:
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
        if isinstance(text, str):
            prompt = prompt if isinstance(prompt, str) and text.startswith(prompt) else ""
            samples.append((row["step"], prompt, text[:_MOST_SAMPLE]))
        if cut := _cut(row):
            cuts.append(cut)
    chosen = sorted({0, len(cuts) // 2, len(cuts) - 1}) if cuts else []
    return samples, [cuts[i] for i in chosen]


def _cut(row: dict[str, Any]) -> Cut | None:
    """The cut of a row of samples.jsonl; None without one that is whole."""
    try:
        cut = row["cut"]
        text = cut["text"].encode("utf-8", "surrogateescape")
        ends = np.array(cut["ends"], bool)
        arrays = [np.array(cut[name], np.float64) for name in ("surprisal", "probability")]
        surprisal = np.nan_to_num(arrays[0])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    if not text or any(part.shape != (len(text),) for part in (ends, *arrays)):
        return None
    return Cut(f"step {row['step']:,}", text, surprisal, ends, arrays[1])


def _lives(lock: Path) -> bool:
    """Whether the owner that a run's lock names still runs, as far as can be known from here."""
    about = _read_object(lock)
    if about.get("host") != socket.gethostname():
        return bool(about)
    try:
        os.kill(int(about["process"]), 0)
    except PermissionError:  # it is there, and another user's
        return True
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return False
    return True


def _names(workdirs: Sequence[Path]) -> list[str]:
    """The folders' names, or their whole paths where two are called alike."""
    paths = [os.path.realpath(path) for path in workdirs]
    short = [os.path.basename(path) for path in paths]
    return [p if short.count(s) > 1 else s for p, s in zip(paths, short, strict=True)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found = {}
    for name, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _differing(settings: dict[str, Any], others: dict[str, Any]) -> list[str]:
    return [
        name
        for name in (*settings, *(name for name in others if name not in settings))
        if name != "workdir" and settings.get(name) != others.get(name)
    ]


# What the charts draw.


def _charts(runs: list[Folder]) -> list[dict[str, Any]]:
    """The charts for what any of the runs logged."""
    there = dict.fromkeys(name for run in runs for name in run.curves.of)
    taken = {"step", SKIPPED, *AXES}
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
    chart("Of the devices' peak", "MFU", "perf/mfu", smooth=True)
    chart("Memory", "bytes", "perf/host_memory_bytes", "perf/device_memory_bytes")
    chart("Time besides", "seconds", "perf/data_wait_seconds", "perf/evaluation_seconds",
          clip=True)  # fmt: skip
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
        "perf/evaluation_seconds": "evaluating",
    }.get(name, level.replace("_", " ") or kind)  # fmt: skip


def _label_scores(run: Folder) -> dict[str, float]:
    """Held-out bits per byte by label, the newest."""
    prefix = f"{HELDOUT}/"
    row = run.curves.heldout[-1] if run.curves.heldout else {}
    found = {name.removeprefix(prefix): v for name, v in row.items() if name.startswith(prefix)}
    told = run.results.get("heldout/by_label")
    for label, about in told.items() if isinstance(told, dict) else ():
        value = number(about.get("bits_per_byte")) if isinstance(about, dict) else None
        if value is not None:
            found[label] = value
    return found


def _drawn_labels(runs: list[Folder]) -> list[str]:
    """Those that are curves: all, or the worst, middle and best of many."""
    scores: dict[str, float] = {}
    for run in runs:
        if len(run.curves.heldout) > 1:
            scores = _label_scores(run) | scores
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
    curves = {}
    for name, curve in of.items():
        if ("curves", name) in wanted:
            few = exact or np.array_equal(curve.low, curve.high, equal_nan=True)
            band = [None, None] if few else [_round(curve.low), _round(curve.high)]
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
        "name": readable_text(run.name),
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


# What the page says.

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


def plain(text: str) -> str:
    """What a model wrote, with pictures for control characters and for what is no character."""
    return text.translate(CONTROLS | _SURROGATES)


def readable_text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return readable(value if isinstance(value, str) else json.dumps(value))


def _si(value: Any, unit: str = "") -> str:
    """A number with a metric prefix: 12_345 -> "12.3 k"."""
    value, power = number(value), 0
    if value is None:
        return ""
    while abs(value) >= 999.5 and power < 8:
        value /= 1000
        power += 1
    return f"{value:.3g} {' kMGTPEZY'[power].strip()}{unit}".strip()


def _time(seconds: Any) -> str:
    seconds = number(seconds)
    if seconds is None:
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _newest(run: Folder, name: str) -> float | None:
    """The last finite value of a curve."""
    curve = run.curves.of.get(name)
    there = np.isfinite(curve.mean) if curve else np.zeros(0, bool)
    return float(curve.mean[there][-1]) if curve and there.any() else None


def _result(run: Folder, *names: str) -> float | None:
    """A number of the results, or the newest of a curve."""
    for name in names:
        value = number(run.results.get(name))
        value = _newest(run, name) if value is None else value
        if value is not None:
            return value
    return None


def _recent(run: Folder) -> float | None:
    """Bits per byte of training, over the last twentieth of the steps."""
    curve = run.curves.of.get("train/bits_per_byte")
    if curve is None:
        return None
    late = curve.mean[run.curves.of["step"].mean >= 0.95 * run.curves.last]
    late = late[np.isfinite(late)]
    return float(late.mean()) if late.size else None


def _interval(run: Folder) -> str:
    low, high = run.score.get("heldout/low"), run.score.get("heldout/high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _header(runs: list[Folder]) -> str:
    if len(runs) > 1:
        about = " · ".join(dict.fromkeys(readable(run.preset[0]) for run in runs))
        return f"<header><div><h1>{len(runs)} runs</h1><p>{about}</p></div></header>"
    run = runs[0]
    score, status = "", run.status
    if HELDOUT in run.score:
        interval = _interval(run)
        where = f"held-out text at step {int(run.score.get('step', run.step)):,}"
        told = f"95% interval {interval} · {where}" if interval else where
        score = f"<b>{run.score[HELDOUT]:.3f}</b> <span>bits/byte</span><p>{told}</p>"
    elif (recent := _recent(run)) is not None:
        score = (
            f"<b>{recent:.3f}</b> <span>bits/byte</span><p>of training; nothing was held out</p>"
        )
        if run.curves.last < (number(run.settings.get("train.steps")) or 0):
            score = score.replace("nothing was held out", "held-out text is not scored yet")
    again = ""
    if status[1]:
        again = ' · <label><input type="checkbox" id="reload"> reload each minute</label>'
    return (
        f"<header><div><h1>{readable(run.name)}</h1>"
        f"<p>{readable(run.preset[0])} · {readable(status[0])}{again}</p></div>"
        f'<div class="score">{score}</div></header>'
    ) + _failure(run)


def _failure(run: Folder) -> str:
    failed = run.results.get("failed")
    return f'<p class="warning">{_text(failed)}</p>' if failed else ""


def _figures(run: Folder) -> str:
    """The key figures, as far as they are known."""
    result = run.results
    paid, useful = _result(run, "flops", "train/flops"), number(result.get("flops_useful"))
    seconds = _result(run, "seconds", "perf/seconds")
    evaluating = number(result.get("evaluation_seconds"))
    best = result.get("best") if isinstance(result.get("best"), dict) else None
    best = (number(best.get("bits_per_byte")), best.get("step")) if best else run.curves.best
    devices = number(result.get("devices"))
    device = result.get("device")
    recent, mfu = _recent(run), _newest(run, "perf/mfu")
    text = number(result.get("heldout/bytes"))
    documents = number(result.get("heldout/documents"))
    told = {
        "steps": f"{run.step:,}",
        "training": recent is not None and f"{recent:.3f} bits/byte lately",
        "best held-out": best and best[0] is not None and f"{best[0]:.3f} at step {best[1]:,}",
        "held-out text": text is not None
        and _si(text, "B") + (f" in {int(documents):,} documents" if documents else ""),
        "bytes read": _si(_result(run, "bytes", "train/bytes"), "B"),
        "FLOPs": _si(paid) + (f" ({_si(useful)} useful)" if useful is not None else ""),
        "parameters": _si(result.get("parameters")),
        "time": _time(seconds)
        + (f" ({_time(evaluating)} evaluating)" if evaluating is not None else ""),
        "speed": _si(_result(run, "bytes_per_second", "perf/bytes_per_second"), "B/s"),
        "of the peak": mfu is not None and f"{mfu:.1%}",
        "devices": isinstance(device, str)
        and (f"{int(devices):,} × " if devices is not None else "") + device,
        "hosts": (number(result.get("hosts")) or 1) > 1 and f"{result['hosts']:,}",
        "skipped steps": f"{run.curves.skipped:,}" if run.curves.skipped else "",
    }  # fmt: skip
    rows = [f"<div><dt>{name}</dt><dd>{readable(v)}</dd></div>" for name, v in told.items() if v]
    return f"<dl>{''.join(rows)}</dl>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> str:
    """A table of cells that are HTML; ``numbers``: columns that are aligned as such."""
    right = set(numbers)
    kind = [' class="n"' if i in right else "" for i in range(1000)]
    top = "".join(f'<th scope="col"{kind[i]}>{cell}</th>' for i, cell in enumerate(head))
    body = []
    for row in rows:
        first, *others = row
        cells = "".join(f"<td{kind[i]}>{cell}</td>" for i, cell in enumerate(others, 1))
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table class="facts"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _swatch(number: int) -> str:
    return f'<i class="swatch" style="background:var(--c{number % 8})"></i>'


def _compared(runs: list[Folder]) -> str:
    """The scores in one table, the best first."""
    ranked = sorted(range(len(runs)), key=lambda i: runs[i].score.get(HELDOUT, float("inf")))
    seen = [
        value
        for run in runs
        if HELDOUT in run.score
        for value in map(run.score.get, (HELDOUT, "heldout/low", "heldout/high"))
        if value is not None
    ]
    lines = []
    for i in ranked:
        run = runs[i]
        score = run.score.get(HELDOUT)
        recent = _recent(run)
        lines.append([
            _swatch(i) + readable(run.name), readable(run.preset[0]),
            "" if score is None else f"<b>{score:.3f}</b>", _interval(run),
            _whisker(run, i, seen), "" if recent is None else f"{recent:.3f}",
            readable(run.status[0]), _si(_result(run, "bytes", "train/bytes"), "B"),
            _si(_result(run, "flops", "train/flops")), _si(run.results.get("parameters")),
            _si(_result(run, "bytes_per_second", "perf/bytes_per_second"), "B/s"),
        ])  # fmt: skip
    head = (
        "run", "preset", "held-out bits/byte", "95% interval", "", "training", "status", "bytes",
        "FLOPs", "parameters", "speed",
    )  # fmt: skip
    texts = {
        tuple(run.results.get(f"heldout/{what}") for what in ("bytes", "documents"))
        for run in runs
        if "heldout/bytes" in run.results
    }
    warning = ""
    if len(texts) > 1:
        warning = (
            '<p class="warning">These scores are not of the same text: the runs held out different '
            "amounts. Score them alike with evaluate.py RUN --text FILE.</p>"
        )
    failures = "".join(map(_failure, runs))
    table = _table(head, lines, (2, 3, 5, 7, 8, 9, 10))
    return f'{warning}{failures}<div class="scores">{table}</div>'


def _whisker(run: Folder, number: int, seen: list[float]) -> str:
    """The interval as a picture, on a scale for all runs."""
    score = run.score.get(HELDOUT)
    if score is None or len(seen) < 2:
        return ""
    least, most = min(seen), max(seen)
    at = [
        4 + 112 * (run.score.get(name, score) - least) / (most - least or 1)
        for name in ("heldout/low", HELDOUT, "heldout/high")
    ]
    colour = f"var(--c{number % 8})"
    return (
        '<svg class="whisker" viewBox="0 0 120 16" aria-hidden="true">'
        f'<path d="M{at[0]:.1f} 8H{at[2]:.1f}" style="stroke:{colour};stroke-width:3"/>'
        f'<circle cx="{at[1]:.1f}" cy="8" r="4" style="fill:{colour}"/></svg>'
    )


def _chart_section(runs: list[Folder], charts: list[dict[str, Any]]) -> str:
    if not charts:
        return "<p>Nothing is logged yet, so there are no curves.</p>"
    legend = '<div id="runs" role="group" aria-label="runs"></div>' if len(runs) > 1 else ""
    notes = ["Drag over a chart to look closer; point at it, or use the arrow keys, to read it."]
    if any(run.curves.skipped for run in runs):
        notes.append("Triangles: steps that were skipped, as they were not finite.")
    if not all(run.curves.exact for run in runs):
        notes.append("Shaded: from the least to the most of neighbouring steps.")
    if any("heldout/low" in row for run in runs for row in run.curves.heldout):
        notes.append("Shaded around held-out points: the 95% interval.")
    return (
        '<h2>Curves</h2><noscript>The curves need JavaScript.</noscript><div class="bar">'
        '<fieldset id="axes" aria-label="x axis"></fieldset>'
        '<label><input type="checkbox" id="log"> logarithmic</label>'
        '<label>smoothing <input type="range" id="smooth" min="0" max="4" step="1"></label>'
        f'<button type="button" id="whole" hidden>whole run</button>{legend}</div>'
        f'<div id="charts"></div><p class="quiet">{" ".join(notes)}</p>'
    )


def _labels(runs: list[Folder]) -> str:
    """Held-out scores by language or source."""
    scores = [_label_scores(run) for run in runs]
    named = dict.fromkeys(label for each in scores for label in each)
    if not named:
        return ""
    worst = sorted(
        named, key=lambda label: max(each.get(label, 0) for each in scores), reverse=True
    )
    shown = worst[:_MOST_LABELS]
    if len(runs) > 1:
        head = ["", *(_swatch(i) + readable(run.name) for i, run in enumerate(runs))]
        rows = [
            [readable(label), *(f"{s[label]:.3f}" if label in s else "" for s in scores)]
            for label in shown
        ]
    else:
        first = runs[0].curves.heldout[0] if runs[0].curves.heldout else {}
        told = runs[0].results.get("heldout/by_label")
        head, rows = ["", "bits/byte", "at first", "bytes", "documents"], []
        for label in shown:
            about = told.get(label) if isinstance(told, dict) else None
            about = about if isinstance(about, dict) else {}
            began, documents = first.get(f"{HELDOUT}/{label}"), number(about.get("documents"))
            rows.append([
                readable(label), f"{scores[0][label]:.3f}",
                "" if began is None else f"{began:.3f}", _si(about.get("bytes"), "B"),
                "" if documents is None else f"{int(documents):,}",
            ])  # fmt: skip
    more = (
        f"<p class=quiet>and {len(named) - len(shown):,} more.</p>"
        if len(named) > len(shown)
        else ""
    )
    table = _table(head, rows, range(1, len(head)))
    return f"<h2>Held-out text by language or source</h2>{table}{more}"


def _samples(runs: list[Folder]) -> str:
    """What each run writes: the newest, and a slider to the earlier ones."""
    if not any(run.samples for run in runs):
        return ""
    found = []
    for i, run in enumerate(runs):
        if not run.samples:
            continue
        step, prompt, text = run.samples[-1]
        name = f"<h3>{_swatch(i)}{readable(run.name)}</h3>" if len(runs) > 1 else ""
        slider = ""
        if (last := len(run.samples) - 1) > 0:
            slider = (
                f'<input type="range" min="0" max="{last}" value="{last}" '
                'aria-label="which evaluation the sample is of">'
            )
        where = f"step {step:,}" if step else "at the end"
        prompt, text = plain(prompt), plain(text)
        told = f"<b>{html.escape(prompt)}</b>{html.escape(text[len(prompt) :])}"
        found.append(
            f'<div class="sample" data-run="{i}">{name}<output class="quiet">{where}</output>'
            f"{slider}<pre>{told}</pre></div>"
        )
    return f'<h2>Samples</h2><div class="samples">{"".join(found)}</div>'


def _cuts(runs: list[Folder], besides: Iterable[Cut]) -> tuple[str, list[dict[str, Any]]]:
    """How the runs cut texts, those of the same text side by side, and the data to point at."""
    groups: dict[bytes, list[Cut]] = {}
    for run in runs:
        for cut in run.cuts if len(runs) == 1 else run.cuts[-1:]:
            name = cut.name if len(runs) == 1 else f"{run.name} · {cut.name}"
            groups.setdefault(cut.text, []).append(cut._replace(name=name))
    for cut in besides:
        groups.setdefault(cut.text, []).append(cut)
    if not groups:
        return "", []
    found, data = [], []
    for i, (text, cuts) in enumerate(groups.items()):
        sections, about = viewer.columns(text, [(cut.name, cut) for cut in cuts], "h3")
        found.append(f'<div class="units" id="cut{i}">{sections}</div>')
        data.append(about)
    return (
        '<h2>How text is cut</h2><label><input type="checkbox" id="heat"> colour by surprisal '
        'instead of units</label><p class="quiet">Units alternate in colour; the line below says '
        "how many bits a character cost, more the stronger it is. Point at a character, or use the "
        "arrow keys, for the probability that a unit ends there. A dotted bar is a cut inside a "
        f'character.</p><div id="cuts">{"".join(found)}</div>'
    ), data


def _facts(runs: list[Folder]) -> list[str]:
    """Settings, data and provenance, folded; of several runs, first where their settings differ."""
    names = [_swatch(i) + readable(run.name) for i, run in enumerate(runs)]
    found = []
    if len(runs) == 1:
        run = runs[0]
        name, theirs = run.preset
        changed = _differing(run.settings, theirs) if run.settings else []
        rows = [[_code(key), _value(run.settings, key), _value(theirs, key)] for key in changed]
        if rows:
            heading = f"Settings that are not those of the preset {name.removeprefix('like ')}"
            found.append(_fold(heading, _table(("setting", "run", "preset"), rows), opened=True))
    else:
        keys = dict.fromkeys(key for run in runs for key in run.settings if key != "workdir")
        differing = [k for k in keys if len({_value(run.settings, k) for run in runs}) > 1]
        rows = []
        for key in differing:
            values = [_value(run.settings, key) for run in runs]
            usual = max(values, key=values.count)
            rows.append([
                _code(key),
                *(v if v == usual else f'<span class="differs">{v}</span>' for v in values),
            ])  # fmt: skip
        if rows:
            found.append(_fold("Settings that differ", _table(("", *names), rows), opened=True))
        else:
            found.append("<p>The settings of these runs are the same.</p>")
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    if keys:
        rows = [[_code(key), *(_value(run.settings, key) for run in runs)] for key in keys]
        found.append(_fold("All settings", _table(("", *names), rows)))
    if data := _corpora(runs):
        found.append(_fold("Data", data))
    if provenance := _provenance(runs, names):
        found.append(_fold("Provenance", provenance))
    return ["<h2>What it is</h2>" if len(runs) == 1 else "<h2>What they are</h2>", *found]


def _fold(title: str, inside: str, opened: bool = False) -> str:
    kind = "details open" if opened else "details"
    return f"<{kind}><summary>{readable(title)}</summary>{inside}</details>"


def _code(text: str) -> str:
    return f"<code>{readable(text)}</code>"


def _value(settings: dict[str, Any], key: str) -> str:
    return f"<code>{_text(settings[key])}</code>" if key in settings else ""


def _corpora(runs: list[Folder]) -> str:
    rows = []
    for i, run in enumerate(runs):
        name = _swatch(i) + readable(run.name)
        told = run.results.get("data")
        told = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        source, tokenizer = run.settings.get("data.source"), _text(run.results.get("tokenizer", ""))
        if not told and source is not None:
            told = [{"folder": source}]
        for one in told:
            folder, mark = _text(one.get("folder", "")), _text(one.get("fingerprint", ""))
            size = _si(one.get("bytes"), "B")
            rows.append([name, folder, f"<code>{mark}</code>", size, tokenizer])
    head = ("run", "folder", "fingerprint", "text", "tokenizer")
    return _table(head, rows, (3,)) if rows else ""


def _provenance(runs: list[Folder], names: list[str]) -> str:
    about = {
        "command": "command", "commit": "commit", "revision of octavo": "revision of Octavo",
        "device": "device", "devices": "devices", "hosts": "hosts", "seed": "seed",
    }  # fmt: skip
    rows = []
    for key, label in about.items():
        values = [run.results.get(key) for run in runs]
        if key == "seed":
            values = [
                run.settings.get("train.seed") if v is None else v
                for run, v in zip(runs, values, strict=True)
            ]
        if any(value is not None for value in values):
            rows.append([label, *("" if v is None else _said(v) for v in values)])
    versions = [run.results.get("versions") for run in runs]
    versions = [each if isinstance(each, dict) else {} for each in versions]
    for library in dict.fromkeys(name for each in versions for name in each):
        rows.append([readable(library), *(_text(each.get(library, "")) for each in versions)])
    rows.append(["folder", *(f"<code>{readable(str(run.path))}</code>" for run in runs)])
    return _table(("", *names), rows)


def _said(value: Any) -> str:
    """A command may be a list of words."""
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    return f"<code>{_text(value)}</code>"
