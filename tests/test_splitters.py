"""Pre-tokens by compiled scanners against the regular expressions themselves."""

import itertools
import random
import re

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import ROOT, random_text, words
from octavo.tokenizers.parts.splitters import DIGITS, PATTERNS, ends, pattern
from octavo.tokenizers.unicode import categories

ALL = [
    (name, digits)
    for name, digits in itertools.product(PATTERNS, DIGITS)
    if digits == "pattern" or name not in ("lines", "none")
]
TRAPS = (
    "a", "B", "ab", "Cd", "HTTPServer", "\u017f", "\u02b0", "\u6587", "\u01c4", "\u00df", "\u0e33",
    "e\u0301", "\u0301", "\u0301\u0308", "\u093e", "'", "'s", "'LL", "'\u017f", "'VE", "'re", "'dx",
    "\u2019s", "1", "23", "4567", "\u0663", "\u0967\u0968", "\u216b", "\u00b2", "\U0001f642",
    "\U0001f44d\U0001f3fd", "\u200d", "\ufeff", ".", "..", "/", "//", "-", "_", "$", " ", "  ",
    "   ", "\t", "\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\u200b",
    "\x00",
)  # fmt: skip
STRAY = (b"\x80", b"\xff", b"\xe6\x97", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90", b"\xf0\x9f\x99")


def cut(data: bytes, cuts: np.ndarray) -> list[bytes]:
    borders = [0, *(np.flatnonzero(cuts) + 1).tolist()]
    assert len(cuts) == len(data) and borders[-1] == len(data)
    return [data[a:b] for a, b in itertools.pairwise(borders)]


def expected(data: bytes, expression: str) -> list[bytes]:
    """The pieces, by the ``regex`` library, stretch by stretch and match by match."""
    found = []
    text = data.decode("utf-8", errors="surrogateescape")
    for stretch in re.split("([\udc80-\udcff])", text):
        at = 0
        for match in regex.finditer(expression, stretch):
            found += [stretch[at : match.start()], match[0]]
            at = match.end()
        found.append(stretch[at:])
    return [piece.encode("utf-8", errors="surrogateescape") for piece in found if piece]


def agree(data: bytes, cases=ALL) -> None:
    for name, digits in cases:
        expression = pattern(name, digits)
        assert cut(data, ends(data, expression)) == expected(data, expression), (name, digits)


def test_the_pattern_of_corpora_that_exist():
    assert (
        pattern("cl100k", "left")
        == PATTERNS["cl100k"]
        == (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s+"
        )
    )


CLASSES = {
    categories.UPPER: r"[\p{Lu}\p{Lt}]",
    categories.LOWER: r"\p{Ll}",
    categories.LETTER: r"[\p{Lm}\p{Lo}]",
    categories.MARK: r"\p{M}",
    categories.NUMBER: r"\p{N}",
    categories.SPACE: r"\s",
    categories.OTHER: r"[^\p{L}\p{M}\p{N}\s]",
}


@pytest.fixture(scope="module")
def known() -> str:
    """The code points of which the library, whose Unicode is newer, says the same as the table."""
    table = categories.load()
    points = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    same = np.zeros(len(table), bool)
    for flag, expression in CLASSES.items():
        runs = "".join(regex.findall(f"{expression}+", points))
        found = np.frombuffer(runs.encode("utf-32-le"), np.uint32)
        same[found] = table[found] == flag
    new = np.flatnonzero(~same)
    new = new[(new < 0xD800) | (new > 0xDFFF)]
    assert {*new[table[new] != categories.OTHER].tolist()} <= {0x295}
    assert len(new) < 20000  # what later versions assign
    return "".join(c for c in points if same[ord(c)])


def test_every_character(known):
    """Alone between line feeds and letters: all; between everything else: at the edges of classes
    and the first."""
    agree("".join(f"{c}a\n" for c in known).encode(), [("o200k", "pattern")])
    table = categories.load()
    edges = np.flatnonzero(np.diff(table.astype(int), prepend=0, append=0))
    near = {int(i) + k for i in edges for k in (-1, 0)}
    some = random.Random(0).sample([c for c in known if ord(c) in near], 500)
    some += [c for c in known if ord(c) < 0x180]
    agree("".join(f"{c}A{c}b{c}{c} {c}  {c}1{c}'{c} '{c}{c}.{c}\r" for c in some).encode())


pieces = st.one_of(st.sampled_from(TRAPS).map(str.encode), st.sampled_from(STRAY))


@given(parts=st.lists(pieces, max_size=24))
@settings(max_examples=250, deadline=None)
def test_traps(parts):
    agree(b"".join(parts))


def settled(data: bytes) -> bytes:
    """No bytes that begin a character which later versions of Unicode may have assigned."""
    return bytes(b if b < 0xD4 else 0xF8 | b for b in data)


@given(data=st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_bytes(data):
    agree(settled(data))


@pytest.mark.parametrize("path", ["README.md", "tests/test_words.py", "docs"])
def test_real_text(path):
    place = ROOT / path
    files = sorted(place.glob("*.md"))[:3] if place.is_dir() else [place]
    data = b"".join(file.read_bytes() for file in files)[:60_000]
    agree(data + random_text(0, 2000) + words(0, 2000))


@pytest.mark.parametrize(
    ("name", "digits", "text", "found"),
    [
        ("gpt2", "pattern", "it's 12345 IT'S", "it|'s| 12345| IT|'|S"),
        ("gpt2", "single", " 12 a", " |1|2| a"),
        ("cl100k", "right", "x1234567 12 1234", "x|1|234|567| |12| |1|234"),
        ("cl100k", "left", "1234567", "123|456|7"),
        ("llama3", "none", "1234567", "1234567"),
        ("o200k", "pattern", "camelCase's HTTPServer!//\n/x", "camel|Case's| HTTPServer|!//\n/|x"),
        ("whitespace", "pattern", "a1,  b", "a1,| | b"),
        ("whitespace", "single", "a12,  b", "a|1|2|,| | b"),
        ("lines", "pattern", "a\n\nb", "a\n|\n|b"),
        ("none", "pattern", "a\n\nb", "a\n\nb"),
        ("superbpe", "pattern", "By the way, 1234: fin...  x", "By the way, |123|4|: fin|...| | x"),
    ],
)  # fmt: skip
def test_examples(name, digits, text, found):
    assert cut(text.encode(), ends(text.encode(), pattern(name, digits))) == [
        piece.encode() for piece in found.split("|")
    ]


@pytest.mark.parametrize("unit", [" ", "a", "A", "7", "aA", "\n ", "' ", "\u0301", "\u3000"])
def test_a_million_of_one(unit):
    """Would never end if a scanner began again at each character."""
    data = (unit * (1_000_000 // len(unit))).encode() + b"x"
    for name, digits in ALL:
        if digits in ("pattern", "right"):
            assert ends(data, pattern(name, digits))[-1] == 1


def test_other_expressions():
    """By the library, also of noise in many stretches; an empty match cuts."""
    noise = settled(random.Random(0).randbytes(400_000))
    for name in ("cl100k", "superbpe"):
        other = f"(?:{PATTERNS[name]})"
        for data in (noise, b" " * 1_000_000, b"", "ab\u6587 \U0001f642".encode() + b"\x80'\xff"):
            assert np.array_equal(ends(data, other), ends(data, PATTERNS[name]))
    assert cut(b"aBcD", ends(b"aBcD", "(?=[A-Z])")) == [b"a", b"Bc", b"D"]
    assert cut(b"a-b", ends(b"a-b", "-")) == [b"a", b"-", b"b"]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"^text is split by gpt2, .*, superbpe, not 'gpt9'$"):
        pattern("gpt9")
    with pytest.raises(ValueError, match="^digits are cut by pattern, .*, not 'up'$"):
        pattern("gpt2", "up")
    for name in ("lines", "none"):
        with pytest.raises(ValueError, match=f"^the splitter {name} leaves digits where they are"):
            pattern(name, "single")
    with pytest.raises(ValueError, match=r"^'\(a' is no regular expression: missing \)"):
        ends(b"a", "(a")
