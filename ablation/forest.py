"""The answer of a study as a picture: a ranked dot plot with intervals. It needs no script."""

import math
from typing import Any

from octavo.ablation.labels import (
    arm_name,
    at,
    at_budget,
    bits,
    difference,
    index_of,
    shown_budget,
)
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import readable


def forest(summary: dict[str, Any]) -> str:
    """A ranked dot plot of the largest budget: differences to the baseline, with intervals; bits
    per byte where there is none to compare to."""
    budget = shown_budget(summary)
    best: dict[str, dict[str, Any]] = {}
    for point in at(summary, budget):
        best.setdefault(point["arm"], point)
    rows = list(best.values())
    if not rows:
        return ""
    differs = any(point.get("difference") for point in rows)
    spans = [_span(point, differs) for point in rows]
    low, high = _domain(spans, differs)

    def place(value: float) -> float:
        return 100 * min(max((value - low) / (high - low), 0), 1)

    lines = []
    for point, span in zip(rows, spans, strict=True):
        verdict = _verdict(point) if differs else ""
        shown = ""
        if differs:
            shown = difference(point.get("difference"))
        lines.append(
            f'<tr data-arm="{index_of(summary, point["arm"])}">'
            f'<td class="n">{point["rank"] or ""}</td>'
            f'<th scope="row">{arm_name(summary, point)}</th>'
            f'<td class="n">{bits(point["mean"])}</td>'
            f'<td class="fp">{_dots(span, place, verdict, differs)}</td>'
            f'<td class="n {verdict.replace(" ", "-")}">{shown}</td>'
            f'<td class="verdict">{verdict}</td></tr>'
        )
    ticks = "".join(
        f'<span style="left:{place(value):.1f}%">{_tick(value, differs)}</span>'
        for value in _ticks(low, high)
    )
    title = f"Bits per byte above or below {summary['baseline']}" if differs else "Bits per byte"
    title = f"{title} {at_budget(summary, budget)}".strip()
    left, right = ("\N{LEFTWARDS ARROW} better", "worse \N{RIGHTWARDS ARROW}")
    sides = f'<span class="sides"><span>{left}</span><span>{right}</span></span>'
    note = (
        "Dot: mean over seeds, filled if the difference is clear. Ticks: each seed. Thick: 95% "
        "interval over documents. Thin: with what seeds differ by."
        if differs
        else "Dot: mean over seeds. Bar: 95% interval over documents."
    )
    head = "".join(
        f'<th scope="col" class="{kind}">{text}</th>'
        for kind, text in (
            ("n", "#"), ("", "arm"), ("n", "bits/byte"), ("fp", sides),
            ("n", "difference" if differs else ""), ("verdict", ""),
        )
    )  # fmt: skip
    return (
        f'<figure class="forest"><figcaption><h2>{readable(title)}</h2>'
        f"</figcaption><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        f'<tfoot aria-hidden="true"><tr><td></td><td></td><td></td><td class="fp">'
        f'<div>{ticks}</div></td><td></td><td class="verdict"></td></tr></tfoot></table>'
        f'<p class="quiet">{note}</p></figure>'
    )


def _span(point: dict[str, Any], differs: bool) -> dict[str, Any]:
    """What is drawn of a point: where its dot, its bar and its thin line are."""
    if not differs:
        mean = point["mean"]
        docs = (number(point.get("low")), number(point.get("high")))
        return {
            "mean": mean,
            "docs": docs if None not in docs else None,
            "margin": None,
            "seeds": [],
        }
    against = point.get("difference")
    if not against:
        return {"mean": 0.0, "docs": None, "margin": None, "seeds": []}
    mean, margin = against["mean"], number(against.get("margin"))
    docs = (number(against.get("low")), number(against.get("high")))
    return {
        "mean": mean, "docs": docs if None not in docs else None,
        "margin": None if margin is None else (mean - margin, mean + margin),
        "seeds": [v for v in map(number, against.get("by_seed") or []) if v is not None],
    }  # fmt: skip


def _domain(spans: list[dict[str, Any]], differs: bool) -> tuple[float, float]:
    """What the plot reaches over. One arm far off does not squeeze the others."""
    ends = [v for s in spans for v in (s["mean"], *(s["docs"] or ()), *(s["margin"] or ()))]
    low, high = min(ends), max(ends)
    middle = sorted(s["mean"] for s in spans)[3 * (len(spans) - 1) // 4]
    if high - low > 4 * (middle - low) > 0:
        high = middle + 1.5 * (middle - low)
    if differs:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or 0.01
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= raw * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tick(value: float, differs: bool) -> str:
    return f"{value:+g}".replace("-", "\N{MINUS SIGN}") if differs and value else f"{value:g}"


def _dots(span: dict[str, Any], place, verdict: str, differs: bool) -> str:
    def bar(kind: str, ends) -> str:
        if not ends:
            return ""
        a, b = place(ends[0]), place(ends[1])
        return f'<i class="{kind}" style="left:{a:.2f}%;width:{b - a:.2f}%"></i>'

    zero = f'<i class="zero" style="left:{place(0):.2f}%"></i>' if differs else ""
    seeds = "".join(f'<i class="seed" style="left:{place(v):.2f}%"></i>' for v in span["seeds"])
    at = place(span["mean"])
    kind = "dot off" if at >= 100 else "dot"
    dot = f'<i class="{kind}" style="left:{at:.2f}%"></i>'
    return (
        f'<div class="{verdict.replace(" ", "-")}">{zero}{bar("margin", span["margin"])}'
        f"{bar('docs', span['docs'])}{seeds}{dot}</div>"
    )


def _verdict(point: dict[str, Any]) -> str:
    against = point.get("difference")
    if not point.get("certified", True):
        return "not proven"
    if not against:
        return "baseline"
    if not against.get("clear"):
        return "not clear"
    return "better" if against["mean"] < 0 else "worse"
