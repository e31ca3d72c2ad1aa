"""The table of all numbers of a study, as HTML."""

import math
from collections.abc import Iterable
from typing import Any

from octavo.ablation.labels import (
    arm_name,
    at_budget,
    beginning,
    bits,
    budget_label,
    difference,
    index_of,
    section,
    shown_budget,
)
from octavo.ablation.words import counted, point_name
from octavo.evaluation import parts
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import readable


def table(summary: dict[str, Any]) -> str:
    """All arms, sortable, the best first. Cells carry the number that they are sorted by."""
    budgets = range(len(summary["budget"]["values"]))
    last = shown_budget(summary)
    head = [("arm", "", 0), ("rank", at_budget(summary, last), 1)]
    head += [("bits/byte", at_budget(summary, i), 1) for i in budgets]
    baseline = beginning(summary["baseline"])
    head += [(f"− {baseline}", at_budget(summary, i), 1) for i in budgets]
    head += [("not told apart from", "", 0), *((name, about, 1) for name, about, _ in _MEASURES)]
    head += [("certified", "", 1)]
    top = "".join(
        f'<th scope="col"{_NUMBER * right}><button type="button"><span>{readable(name)}'
        f"</span>{f'<small>{readable(about)}</small>' if about else ''}</button></th>"
        for name, about, right in head
    )
    groups: dict[tuple, dict[int, dict[str, Any]]] = {}
    for point in summary["points"]:
        groups.setdefault((point["arm"], point.get("size")), {})[point["budget"]] = point
    order = sorted(groups.values(), key=lambda of: _order(of.get(last)))
    body = "".join(_row(summary, of, last, budgets) for of in order)
    return section("table", "Numbers", "All numbers", (
        f"{_ranks(summary)}"
        '<div class="scroll" tabindex="0" role="region" aria-label="all numbers">'
        f'<table class="facts sortable"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        '</div><p class="quiet">Mean ± standard deviation over seeds; differences ± half of a 95% '
        "interval, over documents and seeds, <b>bold</b> where they are clear. A small number is "
        "the rank at that budget. Next word: right, of words that were to be foreseen. Premium: "
        "units that the dearest language takes for the same sentences, for one of the "
        "cheapest. FLOPs a byte: to read text, useful (and paid). Certified: a text of it was "
        "compressed and restored, at the size that the score says, with every seed.</p>"
    ))  # fmt: skip


_NUMBER = ' class="n"'
_MOST_TIED = 4


def _pair(point: dict[str, Any]) -> tuple[str, Any]:
    inference = point.get("inference") or {}
    useful, paid = (inference.get(f"flops_per_byte_{kind}") for kind in ("useful", "paid"))
    return f"{parts.si(useful)}" + (f" ({parts.si(paid)})" if number(paid) else ""), useful


def _value(name: str, form):
    return lambda point: (form(point.get(name)), point.get(name))


def _share(value: Any) -> str:
    return "" if number(value) is None else f"{value:.1%}"


def _ratio(value: Any) -> str:
    return "" if number(value) is None else f"{value:.2f}"


_MEASURES = (
    ("next word", "right", _value("next_word_accuracy", _share)),
    ("premium", "of languages", _value("fairness_premium", _ratio)),
    ("bytes/unit", "", _value("bytes_per_unit", _ratio)),
    ("training", "bytes/s", _value("train_bytes_per_second", parts.si)),
    ("decoding", "bytes/s", _value("decode_bytes_per_second", parts.si)),
    ("FLOPs/byte", "useful (paid)", _pair),
    ("parameters", "", _value("parameters", parts.si)),
)


def _row(
    summary: dict[str, Any], of: dict[int, dict[str, Any]], last: int, budgets: Iterable[int]
) -> str:
    newest = of[max(of)]
    name = arm_name(summary, newest)
    rank = (of.get(last) or {}).get("rank")
    cells: list[tuple[str, Any, str]] = [(str(rank or ""), rank, _NUMBER)]
    for i in budgets:
        if (point := of.get(i)) is None:
            cells.append(("", None, _NUMBER))
            continue
        spread = f" ± {bits(point['spread'])}" if number(point.get("spread")) is not None else ""
        cells.append(
            (
                f"{bits(point['mean'])}{spread} <small>{point['rank'] or ''}</small>",
                point["mean"],
                _NUMBER,
            )
        )
    for i in budgets:
        against = (of.get(i) or {}).get("difference")
        if against is None:
            baseline = newest["arm"] == summary["baseline"] and i in of
            cells.append(("baseline" if baseline else "", 0 if baseline else None, _NUMBER))
            continue
        told = difference(against)
        told = f"<b>{told}</b>" if against.get("clear") else told
        cells.append((told, against["mean"], _NUMBER))
    tied = (of.get(last) or {}).get("tied") or []
    told = ", ".join(tied[:_MOST_TIED])
    if more := tied[_MOST_TIED:]:
        told += f" and {len(more)} more"
    cells.append((f'<span class="tied">{readable(told)}</span>', len(tied) or None, ""))
    for _, _, form in _MEASURES:
        told, key = form(newest)
        cells.append((told, key, _NUMBER))
    proven = [bool(point.get("certified")) for point in of.values()]
    mark = "\N{CHECK MARK}" if all(proven) else f"<b>{sum(proven)} of {len(proven)}</b>"
    cells.append((mark, sum(proven) / len(proven), _NUMBER))
    inside = "".join(f"<td{kind}{_key(key)}>{told}</td>" for told, key, kind in cells)
    arm = index_of(summary, newest["arm"])
    return (
        f'<tr data-arm="{arm}"><th scope="row"{_key(point_name(newest))}>{name}</th>{inside}</tr>'
    )


def _order(point: dict[str, Any] | None) -> tuple[float, float]:
    """By rank; then what has none, by its mean."""
    return (point["rank"] or math.inf, point["mean"]) if point else (math.inf, math.inf)


def _key(value: Any) -> str:
    """What a cell is sorted by."""
    if isinstance(value, str):
        return f' data-key="{readable(value)}"'
    return "" if number(value) is None else f' data-key="{value:.9g}"'


def _ranks(summary: dict[str, Any]) -> str:
    """Where the order of two arms is another at another budget."""
    flips = summary.get("flips") or []
    if not flips:
        return ""
    rows = []
    for flip in flips:
        first, second = (budget_label(summary, i) for i in flip["budgets"])
        rows.append(
            f"<li>{readable(flip['a'])} is ahead of {readable(flip['b'])} at {readable(first)}, "
            f"behind it at {readable(second)}</li>"
        )
    return parts.fold(f"Ranks that flip: {counted(len(rows), 'pair')}", f"<ul>{''.join(rows)}</ul>")
