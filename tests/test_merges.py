"""Learning merges, and applying them: beside other implementations, and naive ones."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import rustbpe
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import ROOT, random_text, words
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.parts import counts as counting
from octavo.tokenizers.parts import merges, splitters
from octavo.tokenizers.parts.counts import Counts
from octavo.tokenizers.parts.merges import Merger, learn, learned
from octavo.tokenizers.parts.pieces import BYTES

TEXTS = {
    "english": [path.read_text() for path in sorted(ROOT.glob("docs/*.md"))[:6]],
    "others": [
        "Все люди рождаются свободными и равными в своём достоинстве и правах. " * 3,
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。" * 3,
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. " * 2,
        "यह सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता। " * 2,
    ],
    "runs": ["a" * 250 + " aa aaa aaaa aaaaa bababa abababab " * 9, " " * 250 + "x", "\n" * 90],
}


@pytest.mark.parametrize("name", TEXTS)
def test_as_rustbpe_learns_and_tiktoken_encodes(name):
    texts, pattern = TEXTS[name], splitters.PATTERNS["cl100k"]
    ours = BPETokenizer.train([text.encode() for text in texts], 900)
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter(texts), 899, pattern=pattern)
    assert ours.pieces == [bytes(piece) for piece, _ in theirs.get_mergeable_ranks()]
    assert ours.vocab_size > 280
    ranks = {piece: i for i, piece in enumerate(ours.pieces)}
    encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in (text for of in TEXTS.values() for text in of):
        assert ours.encode(text.encode()).tolist() == encoding.encode_ordinary(text)


def naive_counts(sequences, weights, languages):
    """By language, how often each pair occurs."""
    found = [Counter() for _ in range(max(languages) + 1)]
    for sequence, weight, language in zip(sequences, weights, languages, strict=True):
        for pair in pairwise(sequence):
            found[language][pair] += weight
    return found


def replaced(sequence, pair, new):
    out, at = [], 0
    while at < len(sequence):
        if tuple(sequence[at : at + 2]) == pair:
            out.append(new)
            at += 2
        else:
            out.append(sequence[at])
            at += 1
    return out


sequences = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=14), st.integers(1, 5), st.integers(0, 2)
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(sequences, st.randoms(use_true_random=False), st.booleans())
def test_counts_are_those_of_counting_again(found, rng, rejects):
    """After every merge, of every pair and language; what is best is most frequent, and of equals
    the one of lowest ids."""
    texts, weights, languages = (list(part) for part in zip(*found, strict=True))
    merger = Merger([np.array(text, np.int32) for text in texts], weights, languages)
    rejected = set()
    for new in range(3, 15):
        expected = naive_counts(texts, weights, languages)
        sizes = [0] * (max(languages) + 1)
        for text, weight, of in zip(texts, weights, languages, strict=True):
            sizes[of] += weight * len(text)
        assert merger.tokens.tolist() == sizes
        for language, counts in enumerate(expected):
            for pair in range(merger.used):
                ids = int(merger.lefts[pair]), int(merger.rights[pair])
                if ids not in rejected:
                    assert merger.totals[language, pair] == counts[ids]
            left = {pair: count for pair, count in counts.items() if pair not in rejected}
            best = min(left, key=lambda pair: (-left[pair], pair), default=None)
            got = merger.best(language)
            assert (got and got[1:]) == (best and (*best, left[best]))
        got = merger.best(rng.randrange(len(sizes)))
        if not got:
            continue
        if rejects and rng.random() < 0.3:
            rejected.add(got[1:3])
            merger.reject(got[0])
        else:
            merger.merge(got[0], new)
            texts = [replaced(text, got[1:3], new) for text in texts]


def test_two_ways_to_a_piece_are_one():
    """Of "ab" and "c", and of "a" and "bc"; and no piece is longer than may be."""
    pieces = [*BYTES, b"ab", b"bc"]
    merger = Merger([np.array([256, ord("c")]), np.array([ord("a"), 257])], [3, 2])
    assert learn(merger, pieces, 300) == [3] and pieces[258:] == [b"abc"]
    assert merger.ids[merger.ids >= 0].tolist() == [258, 258]
    pieces, _ = learned({b"a" * 5000: 9}, 400)
    assert max(map(len, pieces)) == merges.LONGEST


def test_a_merger_grows():
    """More pairs than it has room for at first."""
    rng = random.Random(0)
    texts = [[rng.randrange(40) for _ in range(30)] for _ in range(200)]
    merger = Merger([np.array(text, np.int32) for text in texts], [1] * 200)
    for new in range(40, 140):
        pair, left, right, count = merger.best()
        counts = naive_counts(texts, [1] * 200, [0] * 200)[0]
        assert count == counts[left, right] == max(counts.values())
        merger.merge(pair, new)
        texts = [replaced(text, (left, right), new) for text in texts]
    assert merger.used == len({*zip(merger.lefts[: merger.used], merger.rights, strict=False)})


def pieces_of(text: bytes) -> list[bytes]:
    return [part + b" " for part in text.split(b" ")[:-1]]


def test_counts(monkeypatch):
    """As a Counter counts, a few bytes at a time too."""
    for at_once in (1, 5, 1 << 22):
        monkeypatch.setattr(counting, "_AT_ONCE", at_once)
        counts, expected = Counts(), Counter()
        for i in range(4):
            text = words(i, 300) + b" " + random_text(i, 200).replace(b"\n", b" ") + b" "
            data = np.frombuffer(text, np.uint8)
            counts.add(data, data == 0x20)
            expected.update(pieces_of(text))
        assert counts.counted() == expected and [*counts.counted()] == [*expected]
    counts.add(np.zeros(0, np.uint8), np.zeros(0, bool))
    counts.add(np.frombuffer(b"no end", np.uint8), np.zeros(6, bool))
    assert counts.counted()[b"no end"] == 1


def test_the_rarest_are_forgotten(monkeypatch):
    """Bounded in kinds and in bytes; what is frequent stays, exactly counted, and where all are
    equally rare, something does."""
    counts = Counts(100)
    for i in range(1000):
        text = b"often %d rare " % i
        data = np.frombuffer(text, np.uint8)
        counts.add(data, data == 0x20)
        assert counts.kinds <= 100
    assert counts.counted()[b"often "] == counts.counted()[b"rare "] == 1000
    assert b"999 " in counts.counted() and b"0 " not in counts.counted()
    monkeypatch.setattr(counting, "MOST_BYTES", 1000)
    for i in range(400):
        text = b"%d" % i * 20 + b" "
        data = np.frombuffer(text, np.uint8)
        counts.add(data, data == 0x20)
        assert counts.filled <= 1000
    assert counts.counted()[b"often "] == 1000 and len(counts.counted()) > 5
