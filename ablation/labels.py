"""How the page of a study names and writes what it shows: arms, budgets, numbers."""

from typing import Any

from octavo.brief import human
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import readable

_MINUS = str.maketrans("-", "\N{MINUS SIGN}")
_UNITS = {"flops": "FLOPs", "bytes": "B"}


def bits(value: Any) -> str:
    """Bits per byte, or another number of that size."""
    value = number(value)
    return "" if value is None else f"{value:.3f}"


def signed(value: Any) -> str:
    value = number(value)
    if value is None:
        return ""
    told = f"{value:+.3f}".translate(_MINUS)
    return told if told.strip("+\N{MINUS SIGN}0.") else "0.000"


def budget_label(summary: dict[str, Any], budget: int) -> str:
    by, value = summary["budget"]["by"], summary["budget"]["values"][budget]
    if value is None:
        return "as trained"
    return f"{value:,.0f} steps" if by == "steps" else f"{human(value)}{_UNITS[by]}"


def beginning(name: str, most: int = 24) -> str:
    """Of a long name, where there is little room."""
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def point_label(point: dict[str, Any]) -> str:
    """An arm, with its size if it has several."""
    return point["arm"] + (f" {point['size']}" if point.get("size") else "")


def at(summary: dict[str, Any], budget: int) -> list[dict[str, Any]]:
    """The points of a budget, the best first."""
    found = [point for point in summary["points"] if point["budget"] == budget]
    return sorted(found, key=lambda point: (point["rank"], point["mean"]))


def largest(summary: dict[str, Any]) -> int:
    """The budget that the answer is of: the largest of which there are results."""
    return max((point["budget"] for point in summary["points"]), default=0)


def swatch(summary: dict[str, Any], arm: str) -> str:
    """The colour of an arm, in a shape that tells those of one colour apart."""
    place = next((one["colour"] for one in summary["arms"] if one["name"] == arm), 0)
    return (
        f'<i class="swatch s{place // 8 % 4}" style="background:var(--c{place % 8})" '
        'aria-hidden="true"></i>'
    )


def arm_name(summary: dict[str, Any], point: dict[str, Any]) -> str:
    """The arm of a point for a table: its colour and name."""
    name = readable(point_label(point))
    colour = swatch(summary, point["arm"])
    return f'<span class="name" title="{name}">{colour}<span>{name}</span></span>'


def index_of(summary: dict[str, Any], arm: str) -> int:
    return next((i for i, one in enumerate(summary["arms"]) if one["name"] == arm), 0)


def section(name: str, nav: str, title: str, inside: str) -> str:
    """A part of the page, and what stands for it at the top."""
    heading = f"<h2>{title}</h2>" if title else ""
    return f'<section id="{name}" data-nav="{nav}">{heading}{inside}</section>'


def count(number: int, what: str) -> str:
    """3, "seed" as "3 seeds"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
