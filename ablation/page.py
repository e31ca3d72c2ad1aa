"""The page of a study: what won, by how much, whether to believe it, and what it is made of. One
file, no network, made of ``analysis.summary`` alone; what a summary lacks is left out."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from octavo import files
from octavo.ablation import ranking, sections
from octavo.ablation.labels import budget_label, index_of, shown_budget
from octavo.ablation.provenance import provenance
from octavo.ablation.words import point_name
from octavo.evaluation import parts, viewer
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import readable

HERE = Path(__file__).parent
PAGE = "index.html"
AXES = {
    "flops_useful": "FLOPs, useful", "flops_paid": "FLOPs, paid", "bytes": "bytes",
    "seconds": "time", "parameters": "parameters",
}  # fmt: skip
CURVE_AXES = {"bytes": "bytes", "flops_useful": "FLOPs", "seconds": "time", "step": "steps"}
_MOST_COLUMNS = 60
"""Of a table by language or source."""


def write(out: Path, summary: dict[str, Any]) -> None:
    """Write OUT/index.html: whole or not at all. Raises OSError if it cannot be written."""
    files.write(out / PAGE, page(summary))


def page(summary: dict[str, Any]) -> str:
    """The HTML of ``write``."""
    cuts, cut_data = sections.cuts(summary)
    tables = _tables(summary)
    data = {
        "name": summary["name"],
        "baseline": index_of(summary, summary["baseline"]),
        "arms": [
            {"name": parts.plain(arm["name"]), "colour": arm["colour"]} for arm in summary["arms"]
        ],
        "budgets": [budget_label(summary, i) for i in range(len(summary["budget"]["values"]))],
        "shown": shown_budget(summary),
        "axes": [[name, AXES[name]] for name in AXES if _any(summary["points"], name)],
        "points": [_point(summary, point) for point in summary["points"]],
        "envelope": [
            [index_of(summary, one["arm"]), one["budget"], one["size"]]
            for one in summary.get("envelope") or []
        ],
        "tables": tables,
        "curves": [
            _curve(summary, curve) for curve in summary.get("curves") or [] if curve.get("chosen")
        ],
        "cuts": cut_data,
    }
    data["curveAxes"] = [
        [name, CURVE_AXES[name]]
        for name in CURVE_AXES
        if any(name in curve["x"] for curve in data["curves"])
    ]
    body = [
        sections.answer(summary),
        sections.chart(summary),
        ranking.table(summary),
        sections.costs(summary),
        sections.heat(bool(tables)),
        sections.training(summary, bool(data["curves"])),
        cuts,
        provenance(summary),
    ]
    return viewer.fill(
        HERE / "study.html",
        title=readable(summary.get("title") or summary["name"]),
        header=sections.header(summary),
        body="\n".join(part for part in body if part),
        data=viewer.script_json(data),
        study=(HERE / "study.js").read_text(encoding="utf-8"),
        tables=(HERE / "tables.js").read_text(encoding="utf-8"),
    )


def _any(points: list[dict[str, Any]], name: str) -> bool:
    return any((number(point.get(name)) or 0) > 0 for point in points)


def _point(summary: dict[str, Any], point: dict[str, Any]) -> dict[str, Any]:
    """What the page draws and reckons with."""
    difference, inference = point.get("difference"), point.get("inference") or {}
    parameters = number(inference.get("parameter_bytes"))
    return {
        "arm": index_of(summary, point["arm"]),
        "name": parts.plain(point_name(point)),
        "size": point.get("size"),
        "budget": point["budget"],
        "rank": point["rank"],
        "bits": _short(point["mean"]),
        "spread": _short(point.get("spread")),
        "interval": [_short(point.get("low")), _short(point.get("high"))],
        "seeds": [_short(seed["bits_per_byte"]) for seed in point.get("seeds") or []],
        "difference": difference
        and [_short(difference["mean"]), _short(difference["margin"]), bool(difference["clear"])],
        "proven": bool(point.get("certified", True)),
        "x": {name: _short(point.get(name)) for name in AXES},
        "flops": [_short(inference.get(f"flops_per_byte_{kind}")) for kind in ("useful", "paid")],
        "parameterBytes": _short(parameters),
        "bytesPerUnit": _short(point.get("bytes_per_unit")),
    }


def _at(curve: dict[str, Any], name: str, steps: list[int]) -> list[float | int | None]:
    """Where these steps are on an axis."""
    x = curve.get("x") or {}
    pairs = [
        (step, value)
        for step, value in zip(x.get("step") or [], x.get(name) or [], strict=False)
        if step is not None and value is not None
    ]
    if not pairs:
        return [None] * len(steps)
    known, places = [step for step, _ in pairs], [place for _, place in pairs]
    return [_short(v, 5) for v in np.interp(steps, known, places).tolist()]


def _short(value: Any, digits: int = 6) -> float | int | None:
    """A number as short as it can be read off the page."""
    value = number(value)
    if value is None:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _tables(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores by language, noise and word frequency: tables of all points, which the page shows
    a budget at a time."""
    points = summary["points"]
    found = []

    def table(title: str, about: str, of: Callable[[dict], Iterable[tuple[str, Any]]], **how):
        values = [dict(of(point)) for point in points]
        names = list(dict.fromkeys(name for each in values for name in each))
        if len(names) < 2:
            return
        if left := len(names) - _MOST_COLUMNS:
            about += f" {left:,} more are in results.parquet." if left > 0 else ""
        names = names[:_MOST_COLUMNS]
        found.append({
            "title": title, "about": about, "columns": [parts.plain(name) for name in names],
            "rows": [[_short(each.get(name), 5) for name in names] for each in values],
        } | how)  # fmt: skip

    def each(name: str, label: Callable[[dict], str], value: str):
        return lambda point: [(label(one), one.get(value)) for one in point.get(name) or []]

    table("By language or source", "Bits per byte of held-out text.",
          lambda point: (point.get("by_label") or {}).items())  # fmt: skip
    table("By script", "Bits per byte of held-out text.",
          lambda point: (point.get("by_script") or {}).items())  # fmt: skip
    table("The same sentences in each language",
          "Units of a sentence, over those of English (without it: of the first language). 1 is "
          "fair; no difference is taken.",
          each("languages", lambda one: one["language"], "premium"), values=True,
          digits=2)  # fmt: skip
    table("Under noise", "Bits per byte of a part of the held-out text in which so many characters "
          "are changed; none: of that part as it is.",
          each("noise", _noise, "bits_per_byte"))  # fmt: skip
    table("What noise adds", "Bits per byte above those of the text as it was.",
          lambda point: [(_noise(one), one.get("more")) for one in point.get("noise") or []
                         if number(one.get("rate"))])  # fmt: skip
    table("Words, by how often they stand in the training text", "Bits per byte of the words.",
          each("bands", lambda one: one["band"], "bits_per_byte"))  # fmt: skip
    table("Next word right, by how often it stands in the training text",
          "Percent; more is better.", each("bands", lambda one: one["band"], "accuracy"),
          more=True, percent=True)  # fmt: skip
    return found


def _noise(row: dict[str, Any]) -> str:
    rate = number(row.get("rate"))
    return f"{row['noise']} {rate:.3g}" if rate else f"{row['noise']}"


def _curve(summary: dict[str, Any], curve: dict[str, Any]) -> dict[str, Any]:
    units, scored = curve.get("units") or {}, curve.get("heldout") or []
    steps = [step for step, _ in scored]
    return {
        "arm": index_of(summary, curve["arm"]),
        "budget": curve["budget"],
        "seed": curve["seed"],
        "x": {
            name: [_short(v, 5) for v in values]
            for name, values in (curve.get("x") or {}).items()
            if name in CURVE_AXES
        },
        "train": [_short(v, 4) for v in curve.get("train") or []],
        "heldout": {
            "x": {name: _at(curve, name, steps) for name in CURVE_AXES},
            "bits": [_short(v, 5) for _, v in scored],
        },
        "units": [_short(v, 4) for v in units.get("0") or []],
    }
