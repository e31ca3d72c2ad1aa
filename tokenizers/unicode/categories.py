"""What splitting patterns ask of a character: letter, mark, number, white space; made by

    pip install unicodedata2==16.0.0
    python -m octavo.tokenizers.unicode.categories

which writes ``categories_16_0.npz`` beside this file. Version 16.0 is what tiktoken 0.14 splits by,
for every code point. It stays: another version would give other ids to the same text. (``regex``
2026.11 has version 18.0, where 17,559 further code points, most of them ideographs, have a class,
and U+0295 another one.)
"""

from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("categories_16_0.npz")

UPPER, LOWER, LETTER, MARK, NUMBER, SPACE, OTHER = (1 << bit for bit in range(7))
r"""One flag a code point: \p{Lu} and \p{Lt}; \p{Ll}; \p{Lm} and \p{Lo}; \p{M}; \p{N}; \s; the rest,
unassigned ones among them."""


def load() -> np.ndarray:
    """``[0x110000]`` uint8: the flag of every code point."""
    with np.load(TABLE) as file:
        starts, values = file["starts"], file["values"]
    return np.repeat(values, np.diff(np.append(starts, 0x110000)))


def build() -> np.ndarray:
    """The same from the Unicode Character Database, as ``unicodedata2`` has it."""
    import unicodedata2  # type: ignore[import-not-found]

    if unicodedata2.unidata_version != "16.0.0":
        raise SystemExit("install unicodedata2==16.0.0")
    flags = {
        "Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": LETTER, "Lo": LETTER, "Mn": MARK, "Mc": MARK,
        "Me": MARK, "Nd": NUMBER, "Nl": NUMBER, "No": NUMBER, "Zs": SPACE, "Zl": SPACE,
        "Zp": SPACE,
    }  # fmt: skip
    categories = map(unicodedata2.category, map(chr, range(0x110000)))
    table = np.array([flags.get(category, OTHER) for category in categories], np.uint8)
    table[[*range(0x09, 0x0E), 0x85]] = SPACE  # controls with the White_Space property
    return table


if __name__ == "__main__":
    table = build()
    starts = np.flatnonzero(np.diff(table.astype(np.int16), prepend=-1))
    np.savez_compressed(TABLE, starts=starts.astype(np.uint32), values=table[starts])
