"""Next-word accuracy and character noise, by hand and from the command line."""

import json
import math

import numpy as np
import pytest

from helpers import run
from octavo.evaluation.measures import capacity
from octavo.evaluation.measures.noise import KINDS, noisy
from octavo.evaluation.measures.words import by_band, frequencies, word_bits, word_hits
from octavo.model.flops import forward_flops
from octavo.run.opened import open_run
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.words import MARK, WordTokenizer


def hits(document, tokenizer, wrong_at):
    """Which words count when the ids at ``wrong_at`` were not the most likely."""
    ids = tokenizer.encode(document)
    correct = np.ones(len(ids) + 1, bool)
    correct[wrong_at] = False
    words, found = word_hits(document, ids, correct, tokenizer)
    return dict(zip([word.decode() for word in words], found.tolist(), strict=True))


def test_words_of_bytes():
    text, tokenizer = b"one two\nthree", ByteTokenizer()
    assert hits(text, tokenizer, []) == {"one": True, "two": True, "three": True}
    for at, missed in ((0, "one"), (2, "one"), (3, "one"), (4, "two"), (7, "two"), (8, "three"),
                       (12, "three"), (13, "three")):  # fmt: skip
        assert [word for word, hit in hits(text, tokenizer, [at]).items() if not hit] == [missed]
    assert hits(b" \n ", tokenizer, []) == {}
    assert hits(b"", tokenizer, []) == {}


def test_words_with_marks():
    tokenizer = WordTokenizer()
    text = b"one two."
    ids = tokenizer.encode(text).tolist()
    assert ids == [*b"one", MARK, *b" two."]
    for at, missed in ((3, ["one"]), (4, ["one"]), (5, ["two."]), (9, ["two."])):
        assert [word for word, hit in hits(text, tokenizer, [at]).items() if not hit] == missed


def test_words_of_subwords():
    """A subword that holds the space belongs to the word it leads."""
    tokenizer = BPETokenizer.train([b"the cat the cat the dog the dog " * 50], 270)
    text = b"the cat"
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    assert pieces[0] == b"the" and pieces[-1].endswith(b"cat")
    assert hits(text, tokenizer, [1]) == {"the": True, "cat": False}
    assert hits(text, tokenizer, [0]) == {"the": False, "cat": True}


def test_bands():
    counts = frequencies([b"a a b", b"a c " * 20])
    assert counts[b"a"] == 22 and counts[b"c"] == 20 and counts[b"z"] == 0
    hits, bits = np.array([True, False, True, False]), np.array([1.0, 2.0, 4.0, 8.0])
    rows = by_band([b"a", b"a", b"b", b"zz"], hits, bits, counts)
    assert [(row["band"], row["words"], row["accuracy"]) for row in rows] == [
        ("all", 4, 0.5), ("0", 1, 0.0), ("1 to 10", 1, 1.0), ("11 to 100", 2, 0.5),
        ("101 to 1000", 0, None), ("1001 or more", 0, None),
    ]  # fmt: skip
    assert [(row["bytes"], row["bits_per_byte"]) for row in rows[:4]] == [
        (5, 3.0), (2, 4.0), (1, 4.0), (2, 1.5),
    ]  # fmt: skip


def test_bits_of_words():
    text = b" ab  c\n"
    assert word_bits(text, np.arange(len(text))).tolist() == [1 + 2, 5]
    assert word_bits(b" \n", np.ones(2)).tolist() == word_bits(b"", np.zeros(0)).tolist() == []


TEXT = "Größer IST besser. 日本語\n" * 40


@pytest.mark.parametrize("kind", KINDS)
def test_noise(kind):
    data = TEXT.encode() + b"\xff"
    found = noisy(data, kind, 0.1, seed=1)
    assert found == noisy(data, kind, 0.1, seed=1) != noisy(data, kind, 0.1, seed=2)
    assert noisy(data, kind, 0.0, seed=1) == data
    before, after = (len(x.decode(errors="surrogateescape")) for x in (data, found))
    grown = {"drop": -0.1, "insert": 0.1, "repeat": 0.1}.get(kind, 0)
    assert after / before - 1 == pytest.approx(grown, abs=0.03)
    if kind in ("swap", "case"):
        both = [x.decode(errors="replace") for x in (data, found)]
        same = np.mean([a == b for a, b in zip(*both, strict=True)])
        assert 0.75 < same < 0.97
    if kind == "case":
        assert both[0].lower() == both[1].lower()


def test_noise_of_nothing_known():
    with pytest.raises(ValueError, match="unknown noise 'rain'; known: drop"):
        noisy(b"x", "rain", 0.1, 0)


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path):
    out = tmp_path / "out.json"
    arguments = ("--most-bytes", "1500", "--json", str(out))
    done = run("evaluate.py", str(trained[0]), "words", *arguments)
    assert done.returncode == 0 and "1 to 10" in done.stdout, done.stderr
    rows = json.loads(out.read_text())["words"]
    assert rows[0]["words"] == sum(row["words"] for row in rows[1:]) > 100
    assert 0 <= rows[0]["accuracy"] < 1
    done = run("evaluate.py", str(trained[0]), "noise", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["noise"]
    assert {row["noise"] for row in rows} == {"none", *KINDS}
    assert all(np.isfinite(row["bits_per_byte"]) for row in rows)
    assert next(row for row in rows if row["noise"] == "case")["more"] > 0


@pytest.mark.xdist_group("trained")
def test_capacity(trained, tmp_path):
    """The published form and the plain one, of the same numbers."""
    saved = open_run(trained[0])
    texts = [b"the quick brown fox ", b"jumps over"]
    (row,) = capacity.measure(saved, texts)
    score = saved.score(texts)
    assert row["bits_per_byte"] == score.bits_per_byte
    assert (row["low"], row["high"]) == score.interval
    each = forward_flops(saved.config.model, 256, saved.length)
    assert row["flops_per_byte"] == pytest.approx(each * 32 / 30)  # two ends
    assert row["saved_per_megaflop"] == pytest.approx(
        (8 - score.bits_per_byte) / row["flops_per_byte"] * 1e6
    )
    bits = score.nats / math.log(2)
    assert row["published"] == pytest.approx((8 * 30 / 32 - bits / 32 - 27) / math.log2(each))
    done = run("evaluate.py", str(trained[0]), "capacity", "--most-bytes", "500")
    assert done.returncode == 0 and "flops_per_byte" in done.stdout, done.stderr


def test_capacity_of_subwords():
    """Ids twice as long, at the same cost of the text and the same FLOPs per byte: the plain form
    stays, the published one rises."""
    one = capacity.capacity(200.0, 100, 100, 1e6)
    other = capacity.capacity(200.0, 50, 100, 1e6)
    plain = [name for name in one if name.startswith("saved") or name == "flops_per_byte"]
    assert len(plain) == 4 and all(one[name] == other[name] for name in plain)
    assert one["saved_per_byte"] == 6 and other["published"] > one["published"]
