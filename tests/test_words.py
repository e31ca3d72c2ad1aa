"""Unicode words against the standard's own cases; marks between them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.tokenizers.unicode.words import hat_ends, word_ends
from octavo.tokenizers.words import MARK, MOST_BYTES, WordTokenizer

CASES = Path(__file__).parent / "data" / "WordBreakTest-15.0.0.txt.gz"


def pieces(ends: np.ndarray, data: bytes) -> list[bytes]:
    cuts = [0, *(np.flatnonzero(ends) + 1).tolist()]
    assert cuts[-1] == len(data)
    return [data[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def unicode_words(data: bytes) -> list[bytes]:
    return pieces(word_ends(np.frombuffer(data, np.uint8)), data)


def hat_words(text: str, most: int = 64) -> list[str]:
    data = text.encode()
    found = pieces(hat_ends(np.frombuffer(data, np.uint8), most), data)
    return [piece.decode(errors="replace") for piece in found]


def test_word_break_cases():
    count = 0
    for line in gzip.decompress(CASES.read_bytes()).decode().splitlines():
        if line.startswith("#"):
            continue
        expected = [
            b"".join(chr(int(point, 16)).encode() for point in word.split() if point != "×")
            for word in line.strip("÷ ").split("÷")
        ]
        assert unicode_words(b"".join(expected)) == expected, line
        count += 1
    assert count == 1823


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", ["Hello,", " world!"]),
        ("thisIsCamelCase", ["this", "Is", "Camel", "Case"]),
        ("XMLHttp", ["XMLHttp"]),
        ("snake_case", ["snake_", "case"]),
        ("3.14", ["3.", "14"]),
        ("don't", ["don'", "t"]),
        ("hello   world", ["hello", "   ", "world"]),
        ("\n\n", ["\n", "\n"]),
        ("a\tb", ["a", "\t", "b"]),
        (" (a)", [" (", "a)"]),
        ("日本 カタカナ", ["日", "本", " カタカナ"]),
        ("नमस्ते दुनिया", ["नमस्ते", " दुनिया"]),
        ("", []),
    ],
)
def test_hat_words(text, words):
    """Examples that the released splitter was seen to give."""
    assert hat_words(text) == words


def test_long_words_are_cut():
    assert hat_words("x" * 150) == ["x" * 64, "x" * 64, "x" * 22]
    assert hat_words("é" * 5, most=4) == ["éé", "éé", "é"]
    assert hat_words("ab" + "é" * 3, most=3) == ["ab\ufffd", "\ufffd\u00e9", "é"]


@given(data=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data):
    """Bytes that are no UTF-8 stand alone; a valid character is never cut."""
    words = unicode_words(data)
    assert b"".join(words) == data
    text = data.decode("utf-8", errors="surrogateescape")
    edges = np.cumsum([len(c.encode("utf-8", errors="surrogateescape")) for c in text]).tolist()
    assert set(np.cumsum([len(word) for word in words]).tolist()) <= set(edges)
    text = np.frombuffer(data, np.uint8)
    assert max(map(len, pieces(hat_ends(text, 8), data)), default=0) <= 8


@given(text=st.text(alphabet="ab Z1.,'_\n日é", max_size=60), marks=st.lists(st.integers(0, 60)))
@settings(max_examples=200, deadline=None)
def test_marks(text, marks):
    """A mark after every word but the last; a model may put them elsewhere."""
    data = text.encode()
    for tokenizer in (WordTokenizer(), WordTokenizer("unicode")):
        ids = tokenizer.encode(data)
        found = [part.tobytes() for part in np.split(ids, np.flatnonzero(ids == MARK))]
        found = [part.removeprefix(bytes([MARK])) for part in found]
        expected = hat_words(text) if tokenizer.rule == "hat" else unicode_words(data)
        assert found == ([e if isinstance(e, bytes) else e.encode() for e in expected] or [b""])
        kept = ids[ids != MARK]
        moved = np.insert(kept, np.minimum(np.array(marks, int), len(kept)), MARK)
        assert tokenizer.decode(moved) == data


def test_literal_marks_are_escaped():
    tokenizer = WordTokenizer()
    data = b"a\x17 b\x10\x17c" + b"w" * (MOST_BYTES + 1)
    ids = tokenizer.encode(data)
    assert tokenizer.decode(ids) == data
    assert tokenizer.bytes_per_id()[ids].sum() == len(data)
    with pytest.raises(ValueError, match="hat or unicode, not 'x'"):
        WordTokenizer("x")
