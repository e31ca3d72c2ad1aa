"""What pages are made of, as HTML: numbers and any text, tables, what is folded."""

import json
from collections.abc import Iterable
from typing import Any

from octavo.brief import clock, human
from octavo.evaluation.curves import number
from octavo.evaluation.viewer import CONTROLS, readable

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


def plain(text: str) -> str:
    """What a model wrote, with pictures for control characters and for what is no character."""
    return text.translate(CONTROLS | _SURROGATES)


def text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return readable(value if isinstance(value, str) else json.dumps(value))


def si(value: Any, unit: str = "") -> str:
    """A number with a metric prefix: 12_345 -> "12.3 k"."""
    value = number(value)
    return "" if value is None else f"{human(value)}{unit}".strip()


def whole(value: Any) -> str:
    value = number(value)
    return "" if value is None else f"{value:,.0f}"


def time(seconds: Any) -> str:
    seconds = number(seconds)
    return "" if seconds is None else clock(seconds)


def table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> str:
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


def swatch(number: int) -> str:
    return f'<i class="swatch" style="background:var(--c{number % 8})"></i>'


def fold(title: str, inside: str, opened: bool = False) -> str:
    kind = "details open" if opened else "details"
    return f"<{kind}><summary>{readable(title)}</summary>{inside}</details>"


def code(text: str) -> str:
    return f"<code>{readable(text)}</code>"
