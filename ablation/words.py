"""How a study's numbers are said."""

import math
from collections.abc import Sequence
from typing import Any

from octavo.brief import human


def short(value: float) -> str:
    """A number as people write it on a command line: 2e12, 600, 1.2e13."""
    text = f"{value:.4g}"
    mantissa, e, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if e else text


def budget_value(budget: dict[str, Any], index: int) -> str:
    """A budget: "2e12 FLOPs", "4 MB", "600 steps"; "" of runs that had none in common."""
    value = budget["values"][index]
    if value is None:
        return ""
    if budget["by"] == "bytes":
        return f"{human(value)}B"
    return f"{short(value)} {'FLOPs' if budget['by'] == 'flops' else budget['by']}"


def matched(budget: dict[str, Any]) -> str:
    """What was the same for all: "useful training FLOPs"."""
    return {
        "flops": f"{budget['counted']} training FLOPs",
        "bytes": "bytes of training text",
        "steps": "training steps",
    }[budget["by"]]


def point_name(point: dict[str, Any]) -> str:
    """An arm, with its size if it has several."""
    return f"{point['arm']} ({point['size']})" if point.get("size") else point["arm"]


def listed(names: Sequence, most: int = 100) -> str:
    """ "a, b and c", or the first of many and how many more there are."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(number: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def verb(names: Sequence, one: str, several: str) -> str:
    return one if len(names) == 1 else several


def digits(margin: float | None) -> int:
    """Behind the point, so that a margin has a digit that counts: 3 or, for a small one, more."""
    return min(6, max(3, -math.floor(math.log10(margin)))) if margin else 3


def within(value: float, margin: float | None) -> str:
    """ "0.270 ± 0.020", without its sign."""
    places = digits(margin)
    told = f"{abs(value):.{places}f}"
    return told if margin is None else f"{told} ± {margin:.{places}f}"


def signed(value: float, margin: float | None = None) -> str:
    """ "+0.270 ± 0.020"."""
    return f"{'−' if value < 0 else '+'}{within(value, margin)}"
