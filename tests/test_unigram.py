"""Unigram subwords: exact for every character, and trained on all of the text."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import random_text, words
from octavo.tokenizers import load
from octavo.tokenizers.unigram import UnigramTokenizer

TEXTS = [words(i, 2000) for i in range(4)] + [random_text(0, 4000)]
TOKENIZER = UnigramTokenizer.train(TEXTS, 320)
SIZES = TOKENIZER.bytes_per_id()

TRAPS = [
    b"\x00", b" ", b"  ", b"\n", b"\r\n", b"\t", b"\x0b", b"\x1f", b"\x7f",
    "\u2581".encode(), b"\xe2\x96", b"\x81", "\u2585".encode(), b"\xff", b"\xc0\x80",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "\u0378".encode(), "\ufdd0".encode(), "\ufffd".encode(),
    "\ufeff".encode(), "\U0010ffff".encode(), "e\u0301".encode(), "\ufb01".encode(), b"<unk>",
    b"<s>", b"<0x41>", b"the ", "日本".encode(), b"C",
]  # fmt: skip


def check(data: bytes) -> None:
    """``data`` comes back, and each id ends where ``bytes_per_id`` says."""
    ids = TOKENIZER.encode(data)
    assert TOKENIZER.decode(ids) == data
    ends = np.cumsum(SIZES[ids])
    starts = ends - SIZES[ids]
    for id_, start, end in zip(ids, starts, ends, strict=True):
        assert start < end and TOKENIZER.decode(np.array([id_])) == data[start:end]
    assert len(data) == (ends[-1] if len(ids) else 0)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(max_size=60).map(str.encode)))
def test_any_bytes_and_text(data):
    check(data)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TRAPS), max_size=12).map(b"".join))
def test_traps_side_by_side(data):
    check(data)


@pytest.mark.parametrize("around", ["", " "], ids=["bare", "spaced"])
def test_every_character(around):
    """Assigned or not, nothing is normalized, joined or dropped."""
    for first in range(0, 0x110000, 256):
        if not 0xD800 <= first < 0xE000:  # surrogates are no characters
            text = "".join(chr(c) + around for c in range(first, first + 256))
            data = (around + text).encode()
            ids = TOKENIZER.encode(data)
            assert TOKENIZER.decode(ids) == data, hex(first)
            assert SIZES[ids].sum() == len(data), hex(first)


def test_subwords_hold_their_white_space():
    ids = TOKENIZER.encode(b"the quick ")
    assert [TOKENIZER.pieces[i] for i in ids] == [b"the ", b"quick "]
    assert len(TOKENIZER.encode(TEXTS[0])) < len(TEXTS[0]) / 4


def test_every_id_has_its_size():
    """Only sentencepiece's unknown sign, which encoding never yields, and the edge have none."""
    assert [len(TOKENIZER.decode(np.array([i]))) for i in range(320)] == SIZES.tolist()
    assert np.flatnonzero(SIZES == 0).tolist() == [0, TOKENIZER.eos_id] == [0, 319]


def test_save_and_load(tmp_path):
    load.save(TOKENIZER, tmp_path / "t.json")
    again = load.load(tmp_path / "t.json")
    assert again.name == TOKENIZER.name == "unigram-320"
    assert again.fingerprint == TOKENIZER.fingerprint
    assert again.pieces == TOKENIZER.pieces
    for text in [*TEXTS, b"".join(TRAPS)]:
        np.testing.assert_array_equal(again.encode(text), TOKENIZER.encode(text))


def test_a_model_that_is_none():
    with pytest.raises(ValueError, match="no sentencepiece model"):
        load.from_json({"scheme": "unigram", "model": "AAAA"})
    without = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c a b c"] * 9), model_writer=without, vocab_size=8,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="256 single bytes"):
        UnigramTokenizer(without.getvalue())


def test_training_is_deterministic():
    """In another process too, whose hashes of strings differ."""
    program = "from test_unigram import TOKENIZER; print(TOKENIZER.fingerprint)"
    others = {"PYTHONHASHSEED": "1", "PYTHONPATH": os.path.dirname(__file__)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | others, capture_output=True, text=True
    )
    assert found.stdout.strip() == TOKENIZER.fingerprint, found.stderr
    assert UnigramTokenizer.train(TEXTS[:-1], 290).fingerprint != TOKENIZER.fingerprint


@pytest.mark.parametrize("reserved", ["\u2585", "\u2581", "\x00", "\udcff"], ids=ascii)
def test_training_skips_a_sign_not_its_line(reserved):
    lines = TEXTS[0].decode().replace(" and ", " and\n")
    marked = "\n".join(reserved + line for line in lines.split("\n"))
    trained = UnigramTokenizer.train([marked.encode(errors="surrogateescape")], 290)
    assert trained.pieces == UnigramTokenizer.train([lines.encode()], 290).pieces


def test_training_cuts_long_lines():
    """sentencepiece drops what is longer than 4192 bytes."""
    for text, size in ((b"zebra quagga " * 5000, 284), ("日本語 ".encode() * 5000, 263)):
        assert any(len(piece) > 5 for piece in UnigramTokenizer.train([text], size).pieces)


def test_sizes_that_cannot_be_had(capfd):
    """The message names a size that works; the library adds nothing to it."""
    text = [b"the quick brown fox jumps over the lazy dog " * 40]
    with pytest.raises(ValueError, match="too small for .* 289 ids; at most 288 are possible"):
        UnigramTokenizer.train(text, 289)
    assert UnigramTokenizer.train(text, 288).vocab_size == 288
    with pytest.raises(ValueError, match="at least 285 ids, asked for 284"):
        UnigramTokenizer.train(text, 284)
    assert UnigramTokenizer.train(text, 285).vocab_size == 285
    for nothing in ([], [b"\0\xff"], [b"", b"\n"]):
        with pytest.raises(ValueError, match="hold no text to train on"):
            UnigramTokenizer.train(nothing, 300)
    assert capfd.readouterr() == ("", "")
