"""The table behind Unicode words and scripts, made from the Unicode Character Database:

    python -m octavo.tokenizers.unicode.table FOLDER

FOLDER holds auxiliary/WordBreakProperty.txt, emoji/emoji-data.txt, PropList.txt, Scripts.txt and
UnicodeData.txt, of version 15.0. Writes ``unicode_15_0.npz`` beside this file.
"""

import sys
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("unicode_15_0.npz")

CLASSES = (
    "Other", "CR", "LF", "Newline", "Extend", "Format", "ZWJ", "Regional_Indicator", "Katakana",
    "Hebrew_Letter", "ALetter", "Single_Quote", "Double_Quote", "MidNumLet", "MidLetter", "MidNum",
    "Numeric", "ExtendNumLet", "WSegSpace", "Other_Pictographic", "ALetter_Pictographic",
)  # fmt: skip
"""Values of the Word_Break property; those of pictographs are told apart. The low five bits."""
KINDS = ("other", "punctuation", "lowercase", "uppercase", "whitespace")
"""What HAT's splitting asks further: general categories P, Ll, Lu; White_Space. The high bits."""


def load() -> np.ndarray:
    """``[0x110000]`` uint8: ``class + 32 * kind`` of every code point."""
    with np.load(TABLE) as file:
        starts, values = file["starts"], file["values"]
    return np.repeat(values, np.diff(np.append(starts, 0x110000)))


def _properties(path: Path):
    """(first, last, value) of the lines of a property file."""
    for line in path.read_text().splitlines():
        data = line.split("#")[0].strip()
        if data:
            points, value = (part.strip() for part in data.split(";")[:2])
            first, _, last = points.partition("..")
            yield int(first, 16), int(last or first, 16), value


def build(folder: Path) -> np.ndarray:
    """The table, from the database's files."""
    table = np.zeros(0x110000, np.uint8)
    for first, last, value in _properties(folder / "auxiliary" / "WordBreakProperty.txt"):
        table[first : last + 1] = CLASSES.index(value)
    for first, last, value in _properties(folder / "emoji" / "emoji-data.txt"):
        if value == "Extended_Pictographic":
            for point in range(first, last + 1):
                name = f"{CLASSES[table[point]]}_Pictographic"
                table[point] = CLASSES.index(name)
    kinds = np.zeros(0x110000, np.uint8)
    opened = 0
    for line in (folder / "UnicodeData.txt").read_text().splitlines():
        point, name, category = line.split(";")[:3]
        first = opened if name.endswith(", Last>") else int(point, 16)
        opened = int(point, 16)
        kind = {"P": 1, "Ll": 2, "Lu": 3}.get(category if category[0] == "L" else category[0], 0)
        kinds[first : opened + 1] = kind
    for first, last, value in _properties(folder / "PropList.txt"):
        if value == "White_Space":
            kinds[first : last + 1] = KINDS.index("whitespace")
    return table + 32 * kinds


def build_scripts(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names of the scripts, lowercase, and the index of each code point's. 0: none of its own."""
    none = ("common", "inherited")
    ranges = [
        (first, last, value.lower())
        for first, last, value in _properties(folder / "Scripts.txt")
        if value.lower() not in none
    ]
    names = ["other", *sorted({name for _, _, name in ranges})]
    table = np.zeros(0x110000, np.uint8)
    for first, last, name in ranges:
        table[first : last + 1] = names.index(name)
    return names, table


def _runs(name: str, table: np.ndarray) -> dict[str, np.ndarray]:
    edges = np.flatnonzero(np.diff(table.astype(np.int16), prepend=-1))
    return {f"{name}starts": edges.astype(np.uint32), f"{name}values": table[edges]}


if __name__ == "__main__":
    names, scripts = build_scripts(Path(sys.argv[1]))
    runs = _runs("", build(Path(sys.argv[1]))) | _runs("script_", scripts)
    np.savez_compressed(TABLE, **runs, script_names=names)  # type: ignore[arg-type]
