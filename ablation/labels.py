"""How the page of a study names and writes what it shows: arms, budgets, numbers."""

import math
from typing import Any

from octavo.ablation import words
from octavo.ablation.verdict import decisive
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import readable

_MINUS = str.maketrans("-", "\N{MINUS SIGN}")


def bits(value: Any) -> str:
    """Bits per byte, or another number of that size."""
    value = number(value)
    return "" if value is None else f"{value:.3f}"


def difference(of: dict[str, Any] | None) -> str:
    """A difference and its margin: "+0.270 ± 0.020"."""
    return "" if not of else words.signed(of["mean"], of["margin"]).translate(_MINUS)


def budget_label(summary: dict[str, Any], budget: int) -> str:
    return words.budget_value(summary["budget"], budget) or "as trained"


def at_budget(summary: dict[str, Any], budget: int) -> str:
    """ "at 2e12 FLOPs"; "" of runs that had no budget in common."""
    told = words.budget_value(summary["budget"], budget)
    return told and f"at {told}"


def beginning(name: str, most: int = 24) -> str:
    """Of a long name, where there is little room."""
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def at(summary: dict[str, Any], budget: int) -> list[dict[str, Any]]:
    """The points of a budget, the best first; those without a rank last."""
    found = [point for point in summary["points"] if point["budget"] == budget]
    return sorted(found, key=lambda point: (point["rank"] or math.inf, point["mean"]))


def shown_budget(summary: dict[str, Any]) -> int:
    """The budget that the answer is of; without one, the last of which there are results."""
    if (budget := decisive(summary)) is not None:
        return budget
    return max((point["budget"] for point in summary["points"]), default=0)


def arm_name(summary: dict[str, Any], point: dict[str, Any]) -> str:
    """The arm of a point for a table: its colour and name."""
    name, colour = readable(words.point_name(point)), swatch(summary, point["arm"])
    return f'<span class="name" title="{name}">{colour}<span>{name}</span></span>'


def index_of(summary: dict[str, Any], arm: str) -> int:
    return next((i for i, one in enumerate(summary["arms"]) if one["name"] == arm), 0)


def colour_of(summary: dict[str, Any], arm: str) -> int:
    return summary["arms"][index_of(summary, arm)]["colour"]


def swatch(summary: dict[str, Any], arm: str) -> str:
    """The colour of an arm, in a shape that tells those of one colour apart."""
    place = colour_of(summary, arm)
    return (
        f'<i class="swatch s{place // 8 % 4}" style="background:var(--c{place % 8})" '
        'aria-hidden="true"></i>'
    )


def section(name: str, nav: str, title: str, inside: str) -> str:
    """A part of the page, and what stands for it at the top."""
    heading = f"<h2>{title}</h2>" if title else ""
    return f'<section id="{name}" data-nav="{nav}">{heading}{inside}</section>'
