"""Subword schemes, beside their definitions and other implementations."""

import heapq
import json
import math
import random
import sys
from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import random_text, run, words
from octavo.tokenizers import boundlessbpe, huffman, load, pathpiece, superbpe
from octavo.tokenizers.blocks import BlocksTokenizer
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.interface import TrainedTokenizer
from octavo.tokenizers.parts import presegment, splitters
from octavo.tokenizers.parts import text as texts
from octavo.tokenizers.parts.pieces import BYTES, by_merges
from octavo.tokenizers.parts.split_again import SplitAgain
from octavo.tokenizers.parts.tables import joined, trie
from octavo.tokenizers.parts.text import Labelled, Text, behind
from octavo.tokenizers.unigram import UnigramTokenizer
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers, trainers

SCHEMES = {
    name: scheme
    for name in load.names()
    if issubclass(scheme := load.scheme(name), TrainedTokenizer) and scheme.usage
}
PROSE = "".join(topics[name] for name in sorted(topics)).encode()
PAGES = [PROSE[at : at + 16_000] for at in range(0, 96_000, 16_000)]
DOCUMENTS = [*PAGES, *(words(i, 2000) for i in range(3)), random_text(0, 4000)]
OTHERS = [
    ("Все люди рождаются свободными и равными. " * 4 + "日本語の文章。" * 5).encode(),
    bytes(range(256)) * 2, "\ud800\udfff".encode("utf-8", "surrogatepass"), b"", b"a", b"\xff",
    b"<|endoftext|><s><0x41>\x00\xe2\x96\x81", random_text(7, 999), PAGES[0][:3000],
    b"a" * 300 + b" " * 300 + b"\n" * 70,
]  # fmt: skip


def number_of(name: str, number: int) -> int:
    return 5 if name == "blocks" else number


TRAINED = {name: scheme.train(DOCUMENTS, number_of(name, 600)) for name, scheme in SCHEMES.items()}


def pre_tokens(tokenizer, data: bytes) -> list[bytes]:
    return behind(data, tokenizer.ends(data))


def by_replaying(rank: dict[tuple[int, int], int], ids: list[int]) -> list[int]:
    """Again and again the leftmost pair of the lowest rank."""
    while True:
        ranks = [rank.get(pair, math.inf) for pair in pairwise(ids)]
        if not ranks or min(ranks) == math.inf:
            return ids
        at = ranks.index(min(ranks))
        ids = [*ids[:at], int(ranks[at]), *ids[at + 2 :]]


def ranks_of(pieces: list[bytes], made: range) -> dict[tuple[int, int], int]:
    ids = {piece: i for i, piece in enumerate(pieces)}
    return {
        (ids[pieces[i][:cut]], ids[pieces[i][cut:]]): i
        for i in made
        for cut in range(1, len(pieces[i]))
        if pieces[i][:cut] in ids and pieces[i][cut:] in ids
    }


def greedily(ids: dict[bytes, int], text: bytes) -> list[int]:
    out = []
    while text:
        size = next(n for n in range(len(text), 0, -1) if text[:n] in ids)
        out.append(ids[text[:size]])
        text = text[size:]
    return out


def on_best_path(ids: dict[bytes, int], scores: list[float], text: bytes) -> list[int]:
    """Of equal ways, that whose last piece is longest, and so on to the left."""
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        found = (-math.inf, [])
        for begin in range(end):  # the longest first
            if (piece := ids.get(text[begin:end])) is not None:
                score = best[begin][0] + scores[piece]
                if score > found[0]:
                    found = score, [*best[begin][1], piece]
        best.append(found)
    return best[-1][1]


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_keeps_every_byte(name, tmp_path):
    """In training text too; and its file is all of it."""
    tokenizer = TRAINED[name]
    load.save(tokenizer, tmp_path / "t.json")
    again = load.load(tmp_path / "t.json")
    assert again.fingerprint == tokenizer.fingerprint and again.name == tokenizer.name
    for data in OTHERS:
        ids = tokenizer.encode(data)
        assert tokenizer.decode(ids) == data
        assert tokenizer.bytes_per_id()[ids].sum() == len(data)
        assert again.encode(data).tolist() == ids.tolist()
        drawn = tokenizer.encode_training(data)
        assert tokenizer.decode(drawn) == data and drawn.dtype == ids.dtype == tokenizer.dtype
        assert tokenizer.bytes_per_id()[drawn].sum() == len(data)
        assert again.encode_training(data).tolist() == drawn.tolist()


LITTLE = {
    "nothing": [], "empty": [b"", b""], "a byte": [b"a"], "invalid": [b"\xff\xc0" * 50],
    "one letter": [b"a" * 3000], "spaces": [b" " * 3000], "edges": [b"<s></s><|endoftext|>" * 9],
}  # fmt: skip


@pytest.mark.parametrize("text", LITTLE)
@pytest.mark.parametrize("name", SCHEMES)
def test_text_that_gives_little(name, text):
    """No more ids than it can give, or a sentence; never a crash or a lost byte."""
    for size in (257, 258, 3000):
        try:
            tokenizer = SCHEMES[name].train(LITTLE[text], number_of(name, size))
        except ValueError as error:
            assert name == "unigram"
            assert str(size) in str(error) or "no text to train on" in str(error)
            continue
        assert name == "blocks" or 257 <= tokenizer.vocab_size <= size
        for data in (b"a", b"a" * 50 + b"\xff", LITTLE[text][0] if LITTLE[text] else b""):
            assert tokenizer.decode(tokenizer.encode(data)) == data


@pytest.mark.parametrize("name", SCHEMES)
def test_an_option_that_is_none(name):
    scheme = SCHEMES[name]
    number = str(number_of(name, 300))
    for argument in ("", "x", "-3", "1e3", "99999999999999999999", "1", f"{number},nope=3",
                     f"{number},", f"{number},splitter", f"{number},splitter="):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            scheme.read_argument(argument)
    for option, value in {
        "splitter": "nope",
        "digits": "nope",
        "segmenter": "likeliest",
        "stochastok": "nan",
        "transition": "2",
        "constraint": "x",
    }.items():
        if option not in scheme.options:
            continue

        def unread():
            raise AssertionError("wrong options are found before text is read")
            yield b""

        number_, options = scheme.read_argument(f"{number},{option}={value}")
        with pytest.raises(ValueError, match=value if option != "splitter" else "nope"):
            scheme.train(unread(), number_, **options)


WRONG = [None, True, -1, 3, 1.5, 10**400, "x", "é", "\ud800", [], [3], [[]], [[1]], [{}], [None],
         {}, {"a": 3}, {"a": [1]}, {"ab": [1, 1]}, {"\udc80b": [1]}, [-1] * 256]  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_a_damaged_file_is_a_sentence(name):
    """Whatever stands in any field: another tokenizer, or ValueError."""
    content = TRAINED[name].to_json()
    for field in (*content, *SCHEMES[name].optional, "asked"):
        for wrong in [*WRONG, *([of[:-1]] if isinstance(of := content.get(field), list) else [])]:
            try:
                found = load.from_json(content | {field: wrong})
            except ValueError as error:
                assert len(str(error)) < 500 and "\n" not in str(error), (field, wrong)
            else:
                assert found.decode(found.encode(b"the fox\xff ab")) == b"the fox\xff ab"
    for field in ("scheme", *SCHEMES[name].fields_of(content)):
        with pytest.raises(ValueError):
            load.from_json({k: v for k, v in content.items() if k != field})


@pytest.mark.parametrize("segmenter", ["merges", "greedy", "fewest"])
def test_segmenters(segmenter):
    """Beside what each says in a few lines of Python."""
    tokenizer = BPETokenizer(TRAINED["bpe"].pieces, splitters.PATTERNS["lines"],
                             segmenter=segmenter)  # fmt: skip
    ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    rank = ranks_of(tokenizer.pieces, range(256, len(tokenizer.pieces)))
    seen = 0
    for data in [*OTHERS, words(5, 300)]:
        expected: list[int] = []
        for part in pre_tokens(tokenizer, data[:500]):
            if segmenter == "merges":
                expected += by_replaying(rank, [ids[bytes([b])] for b in part])
            elif segmenter == "greedy":
                expected += greedily(ids, part)
            else:
                expected += on_best_path(ids, [-1] * len(ids), part)
        assert tokenizer.encode(data[:500]).tolist() == expected
        seen += len(expected)
    assert seen < sum(min(len(data), 500) for data in OTHERS)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab ", min_size=1, max_size=9), max_size=8),
    st.sets(st.text("ab ", min_size=2, max_size=5), max_size=8),
    st.data(),
)
def test_segmenters_on_small_vocabularies(parts, longer, data):
    pieces = [*BYTES, *(piece.encode() for piece in data.draw(st.permutations(sorted(longer))))]
    ids = {piece: i for i, piece in enumerate(pieces)}
    scores = [float(data.draw(st.integers(-9, -1))) for _ in pieces[256:]]
    scores = [-10.0] * 256 + scores
    text = "\n".join(parts).encode()
    rank = ranks_of(pieces, range(256, len(pieces)))
    ways = {
        "merges": lambda part: by_replaying(rank, [ids[bytes([b])] for b in part]),
        "greedy": lambda part: greedily(ids, part),
        "fewest": lambda part: on_best_path(ids, [-1] * len(ids), part),
        "likeliest": lambda part: on_best_path(ids, scores, part),
    }
    for name, way in ways.items():
        tokenizer = BPETokenizer(pieces, splitters.PATTERNS["lines"], segmenter=name,
                                 scores=scores if name == "likeliest" else None)  # fmt: skip
        expected = [id_ for part in pre_tokens(tokenizer, text) for id_ in way(part)]
        assert tokenizer.encode(text).tolist() == expected


def test_unigram_as_sentencepiece_scores():
    """Of a piece tokenizer's pre-tokens: no worse, by the scores of sentencepiece."""
    tokenizer = UnigramTokenizer.train(DOCUMENTS, 700, splitter="gpt2", digits="single")
    whole = UnigramTokenizer.train(DOCUMENTS, 700)
    processor = sentencepiece.SentencePieceProcessor()
    processor.load_from_serialized_proto(whole.model)
    pieces = [*BYTES, *{p: None for p in whole.pieces if len(p) > 1}]
    # Its own pieces and scores, over what it takes whole: equal but for ties.
    score = {whole.pieces[i]: processor.get_score(i) for i in range(processor.get_piece_size())}
    scores = [score.get(p, -99.0) if p in score else -99.0 for p in pieces]
    ours = type(tokenizer)(pieces, splitters.PATTERNS["none"], segmenter="likeliest", scores=scores)
    for page in PAGES:
        text = page.decode().encode("ascii", "ignore")[:2000]
        theirs = sum(score[whole.pieces[i]] for i in whole.encode(text))
        assert sum(scores[i] for i in ours.encode(text)) >= theirs - 1e-3
    assert len(tokenizer.encode(PAGES[0])) < len(PAGES[0]) / 2
    # Digits stay alone, as was asked for; sentencepiece's own splitting is off.
    assert all(len(ours) == 1 for ours in tokenizer.pieces if ours.strip(b"0123456789") == b"")


def test_unigram_takes_lines_as_words():
    tokenizer = UnigramTokenizer.train([b"zebra quagga\n" * 500], 300, splitter="lines")
    assert max(map(len, tokenizer.pieces)) > 6


def naive_costs(pieces: list[bytes], kinds: dict[bytes, int]) -> list[float]:
    """Tokenization.md 2.6: without a piece, the shortest way through a byte inside it, or by a
    longer piece that covers it."""
    known, cost = set(pieces), Counter()
    for text, weight in kinds.items():
        n = len(text)

        def fewest(part: bytes) -> list[bytes]:
            ids = {piece: i for i, piece in enumerate(pieces)}
            return [pieces[i] for i in on_best_path(ids, [-1] * len(pieces), part)]

        there = [len(fewest(text[:i])) for i in range(n + 1)]
        back = [len(fewest(text[i:])) for i in range(n + 1)]
        s = 0
        for piece in fewest(text):
            e = s + len(piece)
            if len(piece) > 1:
                ways = [there[j] + back[j] for j in range(s + 1, e)]
                ways += [
                    there[i] + 1 + back[j]
                    for i in range(s + 1)
                    for j in range(e, n + 1)
                    if (i, j) != (s, e) and text[i:j] in known
                ]
                cost[piece] += weight * (min(ways) - there[n])
            s = e
    return [cost[piece] for piece in pieces]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 4), max_size=5),
    st.sets(st.text("abc", min_size=2, max_size=5), max_size=7),
)
def test_costs_of_pathpiece(kinds, longer):
    pieces = [*BYTES, *(piece.encode() for piece in sorted(longer))]
    counts = {kind.encode(): count for kind, count in kinds.items()}
    data, starts = joined([*counts])
    weights = np.array([*counts.values()], np.int64)
    found = pathpiece._costs(data, starts, weights, *trie(pieces), len(pieces))
    assert found.tolist() == naive_costs(pieces, counts)


def test_pathpiece_needs_fewer_tokens_than_its_beginning():
    ours, bpe = TRAINED["pathpiece"], TRAINED["bpe"]
    assert ours.vocab_size == bpe.vocab_size == 600 and ours.segmenter == "fewest"
    assert max(map(len, ours.pieces)) <= pathpiece.LONGEST
    assert sum(len(ours.encode(p)) for p in PAGES) < sum(len(bpe.encode(p)) for p in PAGES)


def test_superbpe_as_its_second_stage_through_hugging_face(monkeypatch):
    """Ids of the first stage as characters of private use, merged by the stock trainer."""
    monkeypatch.setattr(superbpe, "_allowed", lambda piece: True)
    ours = SCHEMES["superbpe"].train(PAGES, 500, transition=0.8)
    first = ours.pieces[: round(0.8 * 499)]
    chunks = [part for page in PAGES for part in behind(page, splitters.ends(page, ours.pattern))]
    lines = ["".join(chr(0xE000 + i) for i in ids) for ids in by_merges(first, chunks)]
    stock = HFTokenizer(models.BPE())
    stock.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = [chr(0xE000 + i) for i in range(len(first))]
    trainer = trainers.BpeTrainer(vocab_size=499, initial_alphabet=alphabet, show_progress=False)
    stock.train_from_iterator(lines, trainer)
    vocabulary = sorted(stock.get_vocab().items(), key=lambda item: item[1])
    theirs = [b"".join(first[ord(c) - 0xE000] for c in piece) for piece, _ in vocabulary]
    assert ours.pieces == theirs
    assert sum(b" " in piece[1:-1] and piece.strip() != b"" for piece in ours.pieces[400:]) > 1


def test_rules_of_superbpe():
    text = b"one two three four five six: seven one two three four five six: seven. " * 300
    ours = SCHEMES["superbpe"].train([text], 400, transition=0.3)
    assert any(len(piece.split()) == superbpe.MOST_WORDS for piece in ours.pieces)
    for piece in ours.pieces:
        assert len(piece.split(b" ")) - piece.startswith(b" ") <= superbpe.MOST_WORDS
        assert b": " not in piece
    rank = ranks_of(ours.pieces, range(256, len(ours.pieces)))
    ids = {piece: i for i, piece in enumerate(ours.pieces)}
    expected = [
        id_
        for part in behind(text[:200], splitters.ends(text[:200], ours.pattern))
        for id_ in by_replaying(rank, [ids[bytes([b])] for b in part])
    ]
    assert ours.encode(text[:200]).tolist() == expected


def test_boundlessbpe_joins_whole_words():
    ours = TRAINED["boundlessbpe"]
    whole = len(ours.pieces) - ours.superwords
    assert ours.superwords > 1
    ids = {piece: i for i, piece in enumerate(ours.pieces)}
    inside = ranks_of(ours.pieces, range(256, whole))
    joins = boundlessbpe.joins(ours.pieces)
    for piece in ours.pieces[whole:]:
        parts = pre_tokens(ours, piece)
        assert len(parts) > 1
        assert all(ids.get(part, whole) < whole and joins[ids[part]] for part in parts)
    assert [bool(j) for j in boundlessbpe.joins([b"a", b" a", b"a'b_c", "\u2019é".encode(), b" ",
            b"'", b"a1", b"(a", b".", b"\xff", "e\u0301".encode()])] == [
        True, True, True, True, False, False, False, False, False, False, True]  # fmt: skip
    # Both phases, replayed.
    across = ranks_of(ours.pieces, range(whole, len(ours.pieces)))
    for data in OTHERS:
        expected, line = [], []
        for part in pre_tokens(ours, data):
            found = by_replaying(inside, [ids[bytes([b])] for b in part])
            if len(found) == 1 and joins[found[0]]:
                line += found
                continue
            expected += [*by_replaying(across, line), *found]
            line = []
        assert ours.encode(data).tolist() == expected + by_replaying(across, line)


def test_boundlessbpe_mixes_by_count(monkeypatch):
    """A supermerge is there if and only if it is as frequent as the rarest merge; as frequent in
    all of the text, of which runs of words are counted in a sample."""
    text = b"of the " * 400 + b"".join(
        b"w%c%c. " % (97 + i // 9, 97 + i % 9) * i for i in range(80)
    )
    documents = [text] * 8
    ours = SCHEMES["boundlessbpe"].train(documents, 300)
    assert b" of the" in ours.pieces and 0 < ours.superwords < 30
    merged, counts = ours.pieces[256 : 299 - ours.superwords], Counter()
    for part in pre_tokens(ours, text):
        counts[part] += 1
    rarest = min(counts[piece] for piece in merged if counts[piece])
    runs = text.count(b"of the of the of the of the ")
    assert runs and rarest < 400
    monkeypatch.setattr(texts, "LONG_BYTES", len(text))
    sampled = SCHEMES["boundlessbpe"].train(documents, 300)
    assert sampled.pieces == ours.pieces


def test_parity_bpe_beside_a_naive_one():
    """Each merge is of the language with the fewest bytes a token."""
    documents = [Labelled.of(words(i, 900), "en") for i in range(3)]
    documents += [Labelled.of("日本語の文章をここに書く。猫と犬。".encode() * 9, "ja"),
                  Labelled.of(b"", "no"),
                  Labelled.of("Все люди рождаются свободными. ".encode() * 5, "ru")]  # fmt: skip
    ours = SCHEMES["parity-bpe"].train(documents, 330)
    text = Text(documents, ours.pattern)
    kinds = {name: [([*kind], count) for kind, count in found.items()]
             for name, found in text.by_label.items() if found}  # fmt: skip
    pieces = [*BYTES]
    size = {name: sum(len(ids) * c for ids, c in found) for name, found in kinds.items()}
    while len(pieces) < 329:
        tokens = {name: sum(len(ids) * c for ids, c in found) for name, found in kinds.items()}
        for name in sorted(kinds, key=lambda name: (size[name] / tokens[name], name)):
            pairs = Counter()
            for ids, count in kinds[name]:
                for pair in pairwise(ids):
                    pairs[pair] += count
            if pairs:
                break
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        pieces.append(pieces[pair[0]] + pieces[pair[1]])
        rank = {pair: len(pieces) - 1}
        kinds = {name: [(by_replaying(rank, ids), c) for ids, c in found]
                 for name, found in kinds.items()}  # fmt: skip
    assert ours.pieces == pieces
    tokens = {name: sum(len(ids) * c for ids, c in found) for name, found in kinds.items()}
    assert ours.languages == {name: round(size[name] / tokens[name], 3) for name in sorted(kinds)}
    plain = SCHEMES["parity-bpe"].train([bytes(document) for document in documents], 330)
    assert plain.pieces == BPETokenizer.train(documents, 330).pieces != pieces
    with pytest.raises(ValueError, match="at most 128 languages, found 129 labels"):
        SCHEMES["parity-bpe"].train([Labelled.of(b"a b", str(i)) for i in range(129)], 300)


@pytest.mark.parametrize("constraint", ["monotonic", "combined"])
def test_spans_of_bytespan(constraint):
    """A span goes on at byte i where bits[i] < bits[i - 1]: the surprisal of byte i itself."""
    bits = {page: np.array(random.Random(len(page)).choices(range(9), k=len(page)), float)
            for page in PAGES}  # fmt: skip
    ours = SCHEMES["bytespan"].train(PAGES, 500, constraint=constraint, model=bits.__getitem__)
    low = np.percentile(np.concatenate([*bits.values()]), 30)
    spans = Counter()
    for page, of in bits.items():
        at = 0
        for part in pre_tokens(ours, page):
            span = part[:1]
            for i in range(1, len(part)):
                here, before = of[at + i], of[at + i - 1]
                if (i == 1 and part[:1] == b" ") or here < before or (
                    constraint == "combined" and here < low
                ):  # fmt: skip
                    span += part[i : i + 1]
                else:
                    spans[span] += 1
                    span = part[i : i + 1]
            spans[span] += 1
            at += len(part)
    frequent = [span for span, n in spans.most_common() if n > 1 and len(span) > 1][:243]
    assert ours.pieces[256:] == frequent[: len(ours.pieces) - 256] and ours.segmenter == "greedy"


def test_bytespan_fills_up_by_merges():
    """What spans leave of the vocabulary; and the model of its own finds words."""
    ours = SCHEMES["bytespan"].train([words(0, 4000)], 400, model=lambda data: np.arange(len(data)))
    assert b" quick" in ours.pieces and ours.vocab_size > 270
    own = TRAINED["bytespan"]
    assert own.vocab_size == 600 and len(own.encode(PAGES[0])) < len(PAGES[0]) / 2


def test_stochastok_draws_as_it_should():
    """Attempts are at uniform places of the list as it is by then; ways are uniform."""
    pieces = [*BYTES, b"abc", b"ab", b"bc"]
    again, seen = SplitAgain(pieces), Counter()
    ids = np.array([256, ord("x")], np.uint16)
    for i in range(4000):  # one attempt
        found = again.split(ids, 0.5, b"%d" % i)
        seen[tuple(pieces[i] for i in found)] += 1
    expected = {(b"abc", b"x"): 1 / 2, (b"a", b"bc", b"x"): 1 / 4, (b"ab", b"c", b"x"): 1 / 4}
    assert seen.keys() == expected.keys()
    assert all(abs(seen[way] / 4000 - share) < 0.05 for way, share in expected.items())
    again, seen = SplitAgain([*BYTES, b"abcd", b"ab", b"cd"]), Counter()
    for i in range(4000):  # three attempts: the last finds the token left in a third of the cases
        seen[len(again.split(np.array([256], np.uint16), 3.0, b"%d" % i))] += 1
    assert seen.keys() == {3, 4} and abs(seen[4] / 4000 - 1 / 3) < 0.05
    ours = TRAINED["stochastok"]
    whole, drawn = ours.encode(PAGES[0]), ours.encode_training(PAGES[0])
    assert ours.stochastok == 0.1 and len(whole) < len(drawn) <= len(whole) + len(whole) // 10
    assert ours.pieces == TRAINED["bpe"].pieces and ours.fingerprint != TRAINED["bpe"].fingerprint


def test_huffman_codes_are_as_short_as_can_be():
    """Of two tails and one first id, as short as by Huffman's algorithm."""
    rng = random.Random(0)
    words_ = [(b"%03d" % i, rng.randrange(1, 1000)) for i in range(300)]
    words_.sort(key=lambda word: -word[1])
    found = dict(zip(*huffman._forest(words_, 1, 2), strict=True))
    heap = [count for _, count in words_]
    heapq.heapify(heap)
    least = 0
    while len(heap) > 1:
        least += (joint := heapq.heappop(heap) + heapq.heappop(heap))
        heapq.heappush(heap, joint)
    assert sum(count * (len(found[word]) - 1) for word, count in words_) == least
    # Near the entropy where there are more.
    whole = sum(count for _, count in words_)
    bits = -sum(count / whole * math.log2(count / whole) for _, count in words_)
    found = dict(zip(*huffman._forest(words_, 1, 16), strict=True))
    mean = sum(count * (len(found[word]) - 1) for word, count in words_) / whole
    assert bits / 4 <= mean < bits / 4 + 0.5


def test_huffman_codes_longer_than_words():
    """As few ids as there can be, of so many words of two letters."""
    text = b" ".join(bytes([a, b]) for a in range(97, 123) for b in range(97, 123)) * 3
    ours = SCHEMES["huffman"].train([text], 265, splitter="gpt2")
    assert ours.tails == 2 and max(map(len, ours.codes)) > 8
    assert ours.decode(ours.encode(text)) == text and len(ours.encode(text)) > 2 * len(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 599)))
def test_huffman_decodes_whatever_is_drawn(ids):
    """What breaks off stands for nothing; what follows is read."""
    ours = TRAINED["huffman"]
    ids = [i for i in ids if i < ours.vocab_size]
    assert ours.decode(np.array([*ids, *ours.encode(b" the")], int)).endswith(b"the")


def test_blocks():
    ours = BlocksTokenizer.train([b"abcdef" * 9 + b"abc", b"xyz"], 3)
    assert ours.pieces[256:] == [b"abc", b"def", b"xyz"] and ours.name == "blocks-3"
    found = [ours.pieces[i] for i in ours.encode(b"abcdexabc" + b"xyzab")]
    assert found == [b"abc", b"d", b"e", b"x", b"abc", b"xyz", b"a", b"b"]


def test_random_splits_are_of_the_word_alone():
    ours = TRAINED["randomsplits"]
    text = PAGES[0]
    cuts: dict[bytes, bytes] = {}
    ends, whole = ours.ends(text), splitters.ends(text, ours.pattern)
    at = within = 0
    for part in behind(text, whole):
        mine = ends[at : at + len(part)].tobytes()
        assert cuts.setdefault(part, mine) == mine
        at += len(part)
        within += len(part) - 1
    inside = int(ends.sum()) - int(whole.sum())
    assert abs(inside / within - 1 / 4) < 0.05


CUTTER = """
import sys
for line in sys.stdin:
    word = line.strip()
    print(word[:-3], word[-3:]) if word.endswith("ing") and len(word) > 4 else print(word)
"""


def test_presegmented_by_a_program(tmp_path):
    (tmp_path / "cut.py").write_text(CUTTER)
    documents = [b"walking talking sinking ring. Walking\n" * 40]
    program = f"{sys.executable} {tmp_path / 'cut.py'}"
    ours = BPETokenizer.train(documents, 300, presegment=program)
    asked = BPETokenizer.train(
        documents, 300,
        presegment=lambda of: [[w[:-3], w[-3:]] if len(w) > 4 else [w] for w in of],
    )  # fmt: skip
    assert ours.fingerprint == asked.fingerprint
    cut = [ours.pieces[i] for i in ours.encode(b"walking talking ring unseening")]
    assert cut[:5] == [b"walk", b"ing", b" talk", b"ing", b" ring"]
    assert not any(b"king" in piece for piece in ours.pieces)
    again = load.from_json(json.loads(json.dumps(ours.to_json())))
    assert again.fingerprint == ours.fingerprint
    assert again.encode(documents[0]).tolist() == ours.encode(documents[0]).tolist()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('no model')", "ended with 1: no model"),
        ("print('x y')", "answered 1 of 2 words"),
        ("print('x'); print('y')", "of other letters"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n')", "cannot be run"),
        ("while True: print('x' * 999)", "answers without end"),
        ("import sys; sys.exit(3)", "ended with 3$"),
        ("import time; time.sleep(60)", "took more than 0.5 seconds"),
        (None, "cannot be run"), ("", "answered 0 of 2 words"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_cut(program, said, tmp_path, monkeypatch):
    monkeypatch.setattr(presegment, "MOST_SECONDS", 0.5 if "sleep" in (program or "") else 60)
    (tmp_path / "cut.py").write_text(program or "")
    command = f"{sys.executable} {tmp_path / 'cut.py'}" if program is not None else "/no/program"
    with pytest.raises(ValueError, match=said):
        BPETokenizer.train([b"some words"], 300, presegment=command)


@pytest.mark.parametrize("argument", ["stochastok:300,digits=right", "unigram:300,splitter=gpt2"])
def test_prepare(argument, tmp_path):
    """Training text alone is split at random; a tokenizer that was trained stays."""
    from octavo.data.shards import Corpus

    (tmp_path / "in").mkdir()
    for i, page in enumerate(DOCUMENTS):
        (tmp_path / "in" / f"{i}.txt").write_bytes(page)
    command = ["prepare.py", str(tmp_path / "in"), "--heldout", "0.3", "--processes", "1",
               "--out", str(tmp_path / "out"), "--tokenizer"]  # fmt: skip
    done = run(*command, argument)
    assert done.returncode == 0 and "training" in done.stdout, done.stderr
    train, heldout = (Corpus(tmp_path / "out", split) for split in ("train", "heldout"))
    for corpus, encode in ((train, train.tokenizer.encode_training),
                           (heldout, heldout.tokenizer.encode)):  # fmt: skip
        found = [*corpus.documents_in(0)]
        assert found and corpus.tokens == sum(len(encode(text)) + 1 for text in found)
    before = (tmp_path / "out" / "tokenizer.json").read_bytes()
    done = run(*command, argument)
    assert done.returncode == 0 and "training" not in done.stdout
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == before
    done = run(*command, argument.replace("300", "301"))
    assert done.returncode == 2 and "Choose another --out" in done.stderr
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == before
