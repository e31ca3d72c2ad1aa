"""A page that shows text as models cut it: units in alternating colours, and on hover what the
model thought of each byte. One file, no network."""

import codecs
import html
from pathlib import Path
from string import Template

import numpy as np

from octavo import files
from octavo.run.score import Units

PAGE = Path(__file__).with_name("viewer.html")


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


def beginning(text: bytes, most: int) -> bytes:
    """The first ``most`` bytes, less the beginning of a character that would be cut there."""
    if len(text) <= most:
        return text
    whole = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(text[:most])
    return whole.encode("utf-8", "surrogateescape") or text[:most]


def _written(character: str) -> str:
    """A character as the page writes it: those that browsers drop or change by their pictures."""
    if character == "\n":
        return "\u21b5\n"
    if character == "\t":
        return "\u2192\t"
    if character < " ":
        return chr(0x2400 + ord(character))
    return html.escape(character)


def page(text: bytes, views: list[tuple[str, Units]]) -> str:
    """The whole HTML page: names of models, and how each cuts the text."""
    pieces = characters(text)
    columns = []
    for number, (name, shown) in enumerate(views):
        unit_of = np.cumsum(shown.ends) - shown.ends
        units = int(unit_of[-1]) + 1
        spans = []
        for i, (character, at, size) in enumerate(pieces):
            # Cuts inside a character show as a bar on it.
            inside = bool(shown.ends[at : at + size - 1].any())
            kind = f"u{unit_of[at] % 2}" + (" cut" if inside else "")
            spans.append(f'<span class="{kind}" data-i="{i}">{_written(character)}</span>')
        about = (
            f"{shown.surprisal.sum() / len(text):.3f} bits/byte · "
            f"{len(text) / units:.2f} bytes/unit · {units} units"
        )
        # A name of a folder may hold bytes that are no UTF-8.
        name = html.escape(name.encode(errors="backslashreplace").decode())
        columns.append(
            f'<section data-model="{number}"><h2>{name}</h2>'
            f"<p>{about}</p><pre>{''.join(spans)}</pre></section>"
        )
    data = {
        "bytes": list(text),
        "characters": [[at, size] for _, at, size in pieces],
        "models": [
            {
                "bits": np.round(shown.surprisal, 3).tolist(),
                "ends": shown.ends.astype(int).tolist(),
                "probability": [
                    None if np.isnan(p) else round(float(p), 4) for p in shown.probability
                ],
            }
            for _, shown in views
        ],
    }
    # "<" could end the script early, or begin a comment in it.
    told = files.json_text(data).replace("<", "\\u003c")
    template = Template(PAGE.read_text(encoding="utf-8"))
    return template.substitute(columns="\n".join(columns), data=told)
