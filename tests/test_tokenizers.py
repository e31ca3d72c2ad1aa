"""Every scheme is an exact, reversible map between bytes and ids."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import random_text, words
from octavo.tokenizers import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Tokenizer, dtype_for
from octavo.tokenizers.unigram import UnigramTokenizer
from octavo.tokenizers.words import WordTokenizer

PLAIN = r"[a-z]+| +|[^a-z ]+"
BPE = BPETokenizer.train([words(i, 2000) for i in range(5)] + [random_text(0, 4000)], 400)
UNIGRAM = UnigramTokenizer.train([words(i, 2000) for i in range(5)] + [random_text(0, 4000)], 320)
SCHEMES = [ByteTokenizer(), WordTokenizer(), WordTokenizer("unicode"), BPE, UNIGRAM]

TRAPS = [b"\x02", b"\x03", b"\x10", b"\x17", b"\x00", b"C", b"\xe2\x96\x81", b"\r\n", b"  ",
         b"the ", b"\xe6\x97", b"\n"]  # fmt: skip

texts = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.lists(st.sampled_from(TRAPS)).map(b"".join),
)


@pytest.mark.parametrize("tokenizer", SCHEMES, ids=lambda t: t.name)
@settings(max_examples=300, deadline=None)
@given(data=texts)
def test_round_trip(tokenizer, data):
    """Any byte string comes back; ids fit; the end of a document never occurs inside one."""
    ids = tokenizer.encode(data)
    assert tokenizer.decode(ids) == data
    assert ids.dtype == tokenizer.dtype
    assert not len(ids) or int(ids.max()) < tokenizer.vocab_size
    assert tokenizer.eos_id not in ids
    assert tokenizer.bytes_per_id()[ids].sum() == len(data)
    # What marks the edges of a document adds no bytes.
    framed = np.concatenate([[tokenizer.bos_id], ids, [tokenizer.eos_id]]).astype(np.int64)
    assert tokenizer.decode(framed) == data


@pytest.mark.parametrize("tokenizer", SCHEMES, ids=lambda t: t.name)
def test_interface(tokenizer, tmp_path):
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.bytes_per_id().shape == (tokenizer.vocab_size,)
    assert re.fullmatch("[0-9a-f]{16}", tokenizer.fingerprint)
    load.save(tokenizer, tmp_path / "t.json")
    again = load.load(tmp_path / "t.json")
    assert again.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(again.encode(b"the fox"), tokenizer.encode(b"the fox"))
    with pytest.raises(ValueError, match="found"):
        tokenizer.decode(np.array([tokenizer.vocab_size]))


def test_byte_ids_are_the_bytes():
    tokenizer = ByteTokenizer()
    text = "plain tëxt\n\t日本".encode()
    np.testing.assert_array_equal(tokenizer.encode(text), list(text))
    assert tokenizer.vocab_size == 256 and tokenizer.dtype == np.uint8
    # A literal end-of-text byte is escaped, not lost and not mistaken for the end.
    assert tokenizer.encode(b"a\x03b").tolist() == [ord("a"), 0x10, 0x43, ord("b")]


def by_replaying(vocabulary: list[bytes], piece: bytes) -> list[int]:
    """BPE by its definition: again and again merge the leftmost pair of lowest rank."""
    rank = {token: i for i, token in enumerate(vocabulary)}
    parts = [bytes([b]) for b in piece]
    while True:
        ranks = [rank.get(a + b, len(rank)) for a, b in zip(parts, parts[1:], strict=False)]
        if not ranks or min(ranks) == len(rank):
            return [rank[part] for part in parts]
        at = ranks.index(min(ranks))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_bpe_ids_are_those_of_the_merges():
    tokenizer = BPETokenizer.train([words(i, 3000) for i in range(4)], 350, pattern=PLAIN)
    assert tokenizer.vocab_size > 257
    text = words(9, 500)
    expected = [
        id_
        for piece in re.findall(PLAIN, text.decode())
        for id_ in by_replaying(tokenizer.vocabulary, piece.encode())
    ]
    assert tokenizer.encode(text).tolist() == expected
    assert len(expected) < len(text) / 2


def test_fingerprint_follows_the_meaning():
    other = BPETokenizer(BPE.vocabulary[:-1], BPE.pattern)
    reordered = BPETokenizer([*BPE.vocabulary[:-2], *BPE.vocabulary[:-3:-1]], BPE.pattern)
    split = BPETokenizer(BPE.vocabulary, PLAIN)
    prints = {t.fingerprint for t in (BPE, other, reordered, split, ByteTokenizer())}
    assert len(prints) == 5


def test_training_is_deterministic_and_bounded():
    texts = [words(i, 2000) for i in range(3)]
    assert BPETokenizer.train(texts, 300).fingerprint == BPETokenizer.train(texts, 300).fingerprint
    assert BPETokenizer.train([b"ab"], 1000).vocab_size <= 258
    with pytest.raises(ValueError, match="at least 257 ids, asked for 256"):
        BPETokenizer.train(texts, 256)
    with pytest.raises(ValueError, match="single bytes"):
        BPETokenizer([b"a", b"b"])
    with pytest.raises(ValueError, match="twice"):
        BPETokenizer([*BPE.vocabulary, BPE.vocabulary[-1]])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"scheme": "bpe"}', '{"scheme": "x"}', "\0"])
def test_a_file_that_is_no_tokenizer(content, tmp_path):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match="not a tokenizer file|unknown tokenization scheme"):
        load.load(tmp_path / "t.json")


def test_dtypes():
    assert [dtype_for(n) for n in (256, 257, 65_536, 65_537)] == [
        np.uint8, np.uint16, np.uint16, np.uint32,
    ]  # fmt: skip
