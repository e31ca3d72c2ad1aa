"""Pages of what schemes do: a text as all cut it, line below line; the numbers; and the vocabulary
of each as a list. Files that lie beside each other, without anything from the network."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octavo.brief import beginning
from octavo.evaluation import parts, viewer
from octavo.evaluation.intrinsic import PAGE, TABLE, VALUES, vocabulary
from octavo.evaluation.intrinsic.bootstrap import Measured
from octavo.evaluation.intrinsic.counts import SUMS
from octavo.evaluation.intrinsic.cuts import Cut
from octavo.evaluation.intrinsic.report import MEASURES, Found
from octavo.evaluation.intrinsic.text import Text
from octavo.evaluation.viewer import readable

HERE = Path(__file__).parent
SHOWN_BYTES = 3000
"""Of the text that is shown cut, over all labels; of each label ``_LEAST`` or more."""
_LEAST = 250
_MOST_LABELS = 16
"""Of which a text is shown."""

GROUPS = {
    "Length and characters": (
        "bytes_per_token", "characters_per_token", "normalized_length", "whole_characters",
        "whole_alphabet", "partial_tokens",
    ),
    "Words": (
        "fertility", "continued_words", "word_precision", "word_recall", "word_f1",
        "context_dependence", "ways_of_words",
    ),
    "Vocabulary and speed": (
        "vocabulary", "used", "overlap", "partial_pieces", "scripts", "renyi_2.5", "renyi_2",
        "speed",
    ),
    "Languages": ("premium_mean", "premium_max", "gini"),
    "Numbers": ("digit_ways", "digit_threes", "digit_place_f1"),
    "Morphemes": (
        "morpheme_precision", "morpheme_recall", "morpheme_f1", "morpheme_words", "morpheme_over",
        "morpheme_under", "lemma_whole",
    ),
}  # fmt: skip


def shown(texts: Sequence[Text]) -> list[Text]:
    """The beginning of the first document of each label."""
    first: dict[str, Text] = {}
    for text in texts:
        first.setdefault(text.label, text)
    some = list(first.values())[:_MOST_LABELS]
    most = max(SHOWN_BYTES // len(some), _LEAST)
    return [Text(beginning(text.data, most), text.label) for text in some]


def pages(found: Sequence[Found], texts: Sequence[Text], about: str) -> dict[str, str]:
    """All files by name: the page, and one for each vocabulary. about: a line on what was
    measured."""
    lists = {
        i: f"vocabulary-{i}-{re.sub('[^A-Za-z0-9.-]+', '-', one.scheme.name)[:60]}.html"
        for i, one in enumerate(found)
        if one.used is not None
    }
    made = {lists[i]: _vocabulary(found[i]) for i in lists}
    return {PAGE: _page(found, shown(texts), about, lists)} | made


def _page(found: Sequence[Found], texts: Sequence[Text], about: str, lists: dict[int, str]) -> str:
    cut = [one.scheme.cut([text.data for text in texts]) for one in found]
    data = {
        "schemes": [parts.plain(one.scheme.name) for one in found],
        "texts": [_text(text, [of[k] for of in cut]) for k, text in enumerate(texts)],
        "breakdowns": _breakdowns(found),
    }
    files = " · ".join(f'<a href="{name}">{name}</a>' for name in (TABLE, VALUES))
    title = f"{len(found)} ways to cut a text"
    return viewer.fill(
        HERE / "schemes.html",
        title=f"{title} · Octavo",
        header=f"<header><div><h1>{title}</h1><p>{readable(about)}</p></div>"
        f"<p>beside this page: {files}</p></header>",
        lists=_lists(found, lists),
        numbers="\n".join(_table(title, names, found) for title, names in GROUPS.items()),
        data=viewer.script_json(data),
        schemes=(HERE / "schemes.js").read_text(encoding="utf-8"),
    )


def _text(text: Text, cuts: Sequence[Cut]) -> dict[str, Any]:
    """A text and how each scheme cuts it, as ``schemes.js`` reads it."""
    return {
        "label": parts.plain(text.label),
        "bytes": list(text.data),
        "characters": [
            [at, size, viewer.written(character), _width(character)]
            for character, at, size in viewer.characters(text.data)
        ],
        "cuts": [_tokens(cut) for cut in cuts],
    }


def _width(character: str) -> int:
    """Columns that a character takes in a font of one width."""
    if unicodedata.category(character)[0] == "M":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _tokens(cut: Cut) -> dict[str, Any]:
    """The byte behind each token, and its id; of units, no ids."""
    if cut.ids is None or cut.sizes is None:
        return {"stops": (np.flatnonzero(cut.ends) + 1).tolist(), "ids": None}
    return {"stops": np.cumsum(cut.sizes).tolist(), "ids": cut.ids.tolist()}


def _table(title: str, names: Sequence[str], found: Sequence[Found]) -> str:
    """The measures of a group that any scheme has, as a table."""
    names = [name for name in names if any(name in one.about["measures"] for one in found)]
    if not names:
        return ""
    head = "".join(
        f'<th scope="col" class="n"><button type="button" title="{readable(about)}"><span>'
        f"{readable(title)}</span></button></th>"
        for title, about, _ in (MEASURES[name] for name in names)
    )
    body = []
    for one in found:
        measures = one.about["measures"]
        cells = "".join(_cell(measures.get(name), MEASURES[name].share) for name in names)
        key = readable(one.scheme.name)
        body.append(f'<tr><th scope="row" data-key="{key}">{key}</th>{cells}</tr>')
    about = "".join(
        f"<dt>{readable(MEASURES[name].title)}</dt><dd>{readable(MEASURES[name].about)}</dd>"
        for name in names
    )
    return (
        f'<h3>{readable(title)}</h3><div class="scroll" tabindex="0"><table class="facts sortable">'
        f'<thead><tr><th scope="col"><button type="button"><span>scheme</span></button></th>{head}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f"<details><summary>What these are</summary><dl>{about}</dl></details>"
    )


def _cell(measured: Measured | None, share: bool) -> str:
    if measured is None or measured.value is None:
        return '<td class="n"></td>'
    told = number(measured.value, share)
    if measured.low is not None and measured.high is not None and measured.low < measured.high:
        ends = f"{number(measured.low, share)} to {number(measured.high, share)}"
        told += f"<small>{ends}</small>"
    return f'<td class="n" data-key="{measured.value:.9g}">{told}</td>'


def number(value: float, share: bool = False) -> str:
    """A number as a table shows it; a part of one as a percentage."""
    if share:
        return f"{value:.1%}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _breakdowns(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Tables by a part of the text or of what was asked: of each the title, the columns, and the
    rows, a scheme's name and its numbers as text, each with what it is sorted by."""
    made = []

    def add(title: str, key: str, value, share: bool = False) -> None:
        columns = dict.fromkeys(part for one in found for part in one.about.get(key, {}))
        rows = [
            [value(one.about[key].get(part, {})) for part in columns] if key in one.about else []
            for one in found
        ]
        if any(cell is not None for row in rows for cell in row):
            made.append({
                "title": title,
                "columns": [parts.plain(part) or "(no label)" for part in columns],
                "rows": [
                    [parts.plain(one.scheme.name), [_entry(cell, share) for cell in row]]
                    for one, row in zip(found, rows, strict=True)
                    if any(cell is not None for cell in row)
                ],
            })  # fmt: skip

    def of(name: str):
        return lambda numbers: numbers[name].value if name in numbers else None

    for name in (*SUMS, "used"):
        add(f"by label: {MEASURES[name].title}", "labels", of(name), MEASURES[name].share)
    add("by language: premium", "languages", of("premium"))
    add("by language: tokens per sentence", "languages", of("tokens_per_sentence"))
    add("by script: different characters that are never cut", "scripts", _whole, True)
    add("by digits of a number: ways", "digits", of("ways"))
    add("by digits of a number: cut by threes from the right", "digits", of("threes"), True)
    add("by digits of a number: F1 of threes", "digits", of("place_f1"))
    for one in found:
        shares = {(a, b): share for a, b, share in one.about.get("overlap", ())}
        names = [name for name in one.about.get("labels", {}) if any(name in p for p in shares)]
        if names:
            both = {(b, a): share for (a, b), share in shares.items()} | shares
            told = [parts.plain(name) or "(no label)" for name in names]
            cells = [[_entry(both.get((a, b)), True) for b in names] for a in names]
            made.append({
                "title": f"overlap of labels: {parts.plain(one.scheme.name)}",
                "columns": told,
                "rows": [list(row) for row in zip(told, cells, strict=True)],
            })  # fmt: skip
    return made


def _whole(counts: dict[str, int]) -> float | None:
    return counts["whole"] / counts["characters"] if counts else None


def _entry(value: float | None, share: bool) -> list:
    return ["", None] if value is None else [number(value, share), float(f"{value:.9g}")]


def _lists(found: Sequence[Found], lists: dict[int, str]) -> str:
    """The vocabularies that there are, each with a link to its page."""
    rows = []
    for i, name in lists.items():
        scheme, used = found[i].scheme, found[i].used
        assert scheme.tokenizer is not None and used is not None
        link = f'<a href="{readable(name)}">{readable(scheme.name)}</a>'
        rows.append(
            [link, readable(scheme.tokenizer.name), f"{len(used):,}", f"{int((used > 0).sum()):,}"]
        )
    if not rows:
        return '<p class="quiet">Units have no ids, and so no vocabulary.</p>'
    return parts.table(("vocabulary", "scheme", "ids", "used by the text"), rows, (2, 3))


def _vocabulary(one: Found) -> str:
    """The page of a vocabulary."""
    tokenizer, used = one.scheme.tokenizer, one.used
    assert tokenizer is not None and used is not None
    pieces = vocabulary.pieces_of(tokenizer)
    kinds = [vocabulary.class_of(piece) for piece in pieces]
    names, of = vocabulary.main_scripts(pieces)
    part = vocabulary.CLASSES.index("part of a character")
    data = {
        # What is no text, as bytes.
        "pieces": [
            list(piece) if kind == part else piece.decode()
            for piece, kind in zip(pieces, kinds, strict=True)
        ],
        "counts": used.astype(int).tolist(),
        "classes": vocabulary.CLASSES,
        "kinds": kinds,
        "scripts": names,
        "of": of,
    }
    title = f"Vocabulary of {one.scheme.name}"
    about = (
        f"{tokenizer.name}: {len(pieces):,} ids, of which the text uses {int((used > 0).sum()):,}"
    )
    return viewer.fill(
        HERE / "vocabulary.html",
        title=f"{readable(title)} · Octavo",
        header=f"<header><div><h1>{readable(title)}</h1><p>{readable(about)}</p></div>"
        f'<p><a href="{PAGE}">all schemes</a></p></header>',
        data=viewer.script_json(data),
        vocabulary=(HERE / "vocabulary.js").read_text(encoding="utf-8"),
    )
