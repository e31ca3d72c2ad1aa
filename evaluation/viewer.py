"""A page that shows text as models cut it: units in alternating colours, and on hover what the
model thought of each byte. One file, no network."""

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, Protocol

import numpy as np

from octavo import files

HERE = Path(__file__).parent


class Units(Protocol):
    """How a model cuts a text, as ``run.score.Units`` has it: arrays over the bytes of the text."""

    @property
    def surprisal(self) -> np.ndarray: ...
    @property
    def ends(self) -> np.ndarray: ...
    @property
    def probability(self) -> np.ndarray: ...


def characters(text: bytes) -> list[tuple[str, int, int]]:
    """The characters of a text with their first byte and how many they have; a byte that is no
    UTF-8 is one of its own."""
    found, at = [], 0
    while at < len(text):
        for size in (1, 2, 3, 4):
            try:
                found.append((text[at : at + size].decode(), at, size))
                break
            except UnicodeDecodeError:
                continue
        else:
            found.append(("\N{REPLACEMENT CHARACTER}", at, size := 1))
        at += size
    return found


CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
"""Browsers drop or change control characters: by their code, the pictures that stand for them."""


def written(character: str) -> str:
    """A character as the page writes it."""
    if character == "\n":
        return "\u21b5\n"
    if character == "\t":
        return "\u2192\t"
    return character.translate(CONTROLS)


def readable(name: str) -> str:
    """Text for a page: it may hold bytes that were no UTF-8, as names of folders do."""
    return html.escape(name.encode(errors="backslashreplace").decode().translate(CONTROLS))


def columns(
    text: bytes, views: Sequence[tuple[str, Units]], heading: str = "h2"
) -> tuple[str, dict[str, Any]]:
    """A text as models cut it, side by side: a section for each of the names, and the data of which
    ``units.js`` writes the text into it, and shows the rest on hover."""
    pieces = characters(text)
    found = []
    for number, (name, shown) in enumerate(views):
        units = int((np.cumsum(shown.ends) - shown.ends)[-1]) + 1
        about = (
            f"{shown.surprisal.sum() / len(text):.3f} bits/byte · "
            f"{len(text) / units:.2f} bytes/unit · {units} units"
        )
        found.append(
            f'<section data-model="{number}"><{heading}>{readable(name)}</{heading}>'
            f'<p>{about}</p><pre tabindex="0"></pre></section>'
        )
    data = {
        "bytes": list(text),
        "characters": [[at, size, written(character)] for character, at, size in pieces],
        "models": [
            {
                "bits": np.round(shown.surprisal, 2).tolist(),
                "ends": shown.ends.astype(int).tolist(),
                "probability": [
                    None if np.isnan(p) else round(float(p), 2) for p in shown.probability
                ],
            }
            for _, shown in views
        ],
    }
    return "\n".join(found), data


def script_json(data: Any) -> str:
    """JSON that can stand in a script: "<" could end it early, or begin a comment in it."""
    return files.json_text(data).replace("<", "\\u003c")


def fill(template: str | Path, **parts: str) -> str:
    """A page: its template, of this folder or another, with parts and with what pages share: among
    it a ``head``, of the page's title and look."""
    shared = {"style": "style.css", "script": "units.js", "look": "page.css", "charts": "charts.js"}
    read = {name: (HERE / file).read_text(encoding="utf-8") for name, file in shared.items()}
    read["head"] = _template("head.html").safe_substitute(read | parts)
    return _template(template).substitute(read | parts)


def _template(name: str | Path) -> Template:
    return Template((HERE / name).read_text(encoding="utf-8"))


def page(text: bytes, views: Sequence[tuple[str, Units]]) -> str:
    """The whole HTML page: names of models, and how each cuts the text."""
    sections, data = columns(text, views)
    return fill("viewer.html", columns=sections, data=script_json(data))
