"""What is measured of ways to cut text: by hand, and against definitions in plain loops."""

import csv
import io
import json
import math
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import words
from octavo import cli, schemes
from octavo.configs.checks import ConfigError
from octavo.data.prepare import prepare
from octavo.data.sources import find_units
from octavo.evaluation.intrinsic import counts, page, probes, vocabulary
from octavo.evaluation.intrinsic.bootstrap import RESAMPLES, Draws
from octavo.evaluation.intrinsic.cuts import Cut, Scheme, cut_by_tokens, named, schemes_of
from octavo.evaluation.intrinsic.report import gini, premiums, report
from octavo.evaluation.intrinsic.text import Text, read
from octavo.run import opened
from octavo.run.score import Predictions
from octavo.tokenizers import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.words import WordTokenizer

TEXT = "No, 12 cats\u2019 na\u00efve d\u00e9j\u00e0-vu! \u65e5\u672c a1 \u0e01\u0e32"


def cut_at(data: bytes, *places: int) -> Cut:
    """A cut behind so many bytes."""
    ends = np.zeros(len(data), bool)
    ends[[place - 1 for place in places]] = True
    ends[-1:] = True
    return Cut(ends)


def scheme_of(rule, name: str = "rule") -> Scheme:
    """A scheme that cuts a document behind the bytes that ``rule`` gives."""
    return Scheme(name, lambda texts: [cut_at(text, *rule(text)) for text in texts])


def test_words_and_characters():
    text = Text(TEXT.encode(), "")
    found = [text.data[a:b].decode() for a, b in text.words.tolist()]
    # Thai SARA AA goes on its own: a letter.
    assert found == ["No", "12", "cats", "na\u00efve", "d\u00e9j\u00e0", "vu", "\u65e5", "\u672c",
                     "a1", "\u0e01", "\u0e32"]  # fmt: skip
    sizes = np.diff(text.characters).tolist()
    assert sizes == [len(c.encode()) for c in TEXT]
    odd = Text(b"a\xff\xe6\x97b\xed\xa0\x80\xf0\x9f\x98\x80", "")
    assert np.diff(odd.characters).tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 4]


def by_definition(data: bytes, places: set[int], words: list[tuple[int, int]]) -> dict[str, int]:
    """``counted`` in plain loops. places: of all cuts, 0 and the end among them."""
    edges = sorted(places | {0, len(data)})
    tokens = list(zip(edges, edges[1:], strict=False))
    inner = [p for p in edges if 0 < p < len(data)]
    text = data.decode("utf-8", "surrogateescape")
    at, characters = 0, []
    for c in text:
        size = len(c.encode("utf-8", "surrogateescape"))
        characters.append((at, at + size))
        at += size
    pieces = [sum(a < stop and b > start for a, b in tokens) for start, stop in words]
    starts = {a for a, _ in characters} | {len(data)}
    return {
        "bytes": len(data), "characters": len(text), "tokens": len(tokens), "words": len(words),
        "word_tokens": sum(pieces), "continued": sum(n > 1 for n in pieces), "cuts": len(inner),
        "beside": sum(not any(a < p < b for a, b in words) for p in inner),
        "gaps": max(len(words) - 1, 0),
        "gaps_cut": sum(
            any(b <= p <= c for p in inner)
            for (_, b), (c, _) in zip(words, words[1:], strict=False)
        ),
        "whole": sum(not any(a < p < b for p in inner) for a, b in characters),
        "filled": len(tokens),
        "partial": sum(a not in starts or b not in starts for a, b in tokens),
    }  # fmt: skip


@given(
    data=st.text(alphabet="ab c1.'\n\u00e9\u65e5\U0001f600", min_size=1, max_size=40).map(
        str.encode
    )
    | st.binary(min_size=1, max_size=30),
    cuts=st.sets(st.integers(1, 100)),
)
@settings(max_examples=200, deadline=None)
def test_counts_are_those_of_the_definitions(data, cuts):
    places = {cut for cut in cuts if cut < len(data)}
    text = Text(data, "")
    spans = [(a, b) for a, b in text.words.tolist()]
    assert counts.counted(text, cut_at(data, *places)) == by_definition(data, places, spans)


def test_ids_without_bytes():
    """They count as tokens, and for the word whose byte follows."""
    data = b"ab\x02cd e"
    cut = cut_by_tokens(ByteTokenizer(), data)
    assert cut.tokens == 8 and cut.ends.all()
    found = counts.counted(Text(data, ""), cut)
    assert (found["tokens"], found["words"], found["word_tokens"]) == (8, 3, 5)
    cut = cut_by_tokens(WordTokenizer("unicode"), b"ab c")
    assert cut.tokens == 6  # ab, mark, space, mark, c
    found = counts.counted(Text(b"ab c", ""), cut)
    assert (found["word_tokens"], found["continued"]) == (4, 2)
    tokens, units = schemes_of("words", WordTokenizer("unicode"))
    assert units.name == "words, units" and units.tokenizer is None
    (cut,) = units.cut([b"ab c"])
    assert cut.ends.tolist() == [False, True, True, True] and cut.ids is None
    assert tokens.cut([b"ab c"])[0].tokens == 6


def test_ratios():
    texts = [Text(b"one two", "a"), Text("\u00e9t\u00e9".encode(), "b")]
    cuts = [cut_at(b"one two", 2, 3), cut_at(texts[1].data, 1)]
    table, ways = counts.table(texts, cuts, np.array([7, 5]))
    found = {k: v.value for k, v in counts.measured(Draws(2), table).items()}
    assert found == {
        "bytes_per_token": 12 / 5, "characters_per_token": 10 / 5, "normalized_length": 5 / 12,
        # on|e| two, and half of a letter.
        "fertility": 5 / 3, "continued_words": 2 / 3, "word_precision": 1 / 3, "word_recall": 1.0,
        "word_f1": 0.5, "whole_characters": 9 / 10, "partial_tokens": 2 / 5,
        "context_dependence": None,
    }  # fmt: skip
    assert ways is None


def test_context_dependence():
    """By words that occur twice or more: cat twice whole and once cut, dog in two ways, once
    each."""
    texts = [Text(b"cat dog cat", ""), Text(b"dog cat bird", "")]
    cuts = [cut_at(texts[0].data, 3, 4, 7, 8), cut_at(texts[1].data, 2, 5, 9, 11)]
    repeated, unusual, ways = counts.in_context(texts, cuts)
    assert repeated.tolist() == [3, 2] and unusual.sum() == 2 and ways == 2.0
    assert counts.in_context(texts[:1], cuts[:1])[2] == 1.0


def test_intervals():
    top, bottom = np.array([3.0, 1, 4, 1, 5]), np.array([9.0, 2, 6, 5, 3])
    sums = np.stack([top, bottom], 1)
    (found,) = Draws(5).measured(sums, lambda of: of[:, :1] / of[:, 1:])
    drawn = np.random.default_rng(0).multinomial(5, [0.2] * 5, RESAMPLES)
    each = [sum(w * top) / sum(w * bottom) for w in drawn]
    assert found.value == 14 / 25
    assert (found.low, found.high) == pytest.approx(np.quantile(each, [0.025, 0.975]))
    (one,) = Draws(1).measured(sums[:1], lambda of: of[:, :1] / of[:, 1:])
    assert one == (1 / 3, None, None)
    (none,) = Draws(5).measured(sums, lambda of: np.full((len(of), 1), np.nan))
    assert none == (None, None, None)
    many = np.ones((4500, 2))  # in groups: 2,000 of them, of two or three
    (same,) = Draws(4500).measured(many, lambda of: of[:, :1] / of[:, 1:])
    assert same == (1.0, 1.0, 1.0)


def test_renyi():
    def efficiency(ids, size, alpha):
        p = np.array(list(Counter(ids).values())) / len(ids)
        return math.log(sum(p**alpha)) / (1 - alpha) / math.log(size)

    for ids, size in (([0, 1], 4), ([0, 0, 0, 5, 7], 100), ([2], 3)):
        cut = Cut(np.ones(len(ids), bool), np.array(ids), np.ones(len(ids), int))
        found = vocabulary.renyi(Draws(1), vocabulary.uses([cut], size))
        for name, alpha in (("renyi_2.5", 2.5), ("renyi_2", 2)):
            assert found[name].value == pytest.approx(efficiency(ids, size, alpha))
    assert efficiency([0, 1], 4, 2.5) == pytest.approx(0.5)


def test_gini_and_premiums():
    assert gini(np.array([[1.0, 1, 1], [0, 0, 3], [1, 3, 0]])).tolist() == pytest.approx(
        [0, 2 / 3, 0.5]
    )
    costs = np.random.default_rng(0).random(7)
    by_pairs = sum(abs(a - b) for a in costs for b in costs) / (2 * 49 * costs.mean())
    assert gini(costs[None])[0] == pytest.approx(by_pairs)
    parallel = {"deu": [b"abcd", b"ab"], "eng": [b"a", b"ab"], "khm": [b"abcdef", b"abc"]}
    measures = {}
    found = premiums(schemes_of("bytes", ByteTokenizer())[0], parallel, "eng", measures)
    assert {k: v["premium"].value for k, v in found.items()} == {"deu": 2, "eng": 1, "khm": 3}
    assert found["deu"]["tokens_per_sentence"].value == 3
    assert measures["premium_mean"].value == 2.5 and measures["premium_max"].value == 3
    assert measures["gini"].value == pytest.approx(8 / 36)
    assert found["deu"]["premium"].low == 1 and found["deu"]["premium"].high == 4


def test_overlap_use_and_scripts():
    used = {"a": [1, 1, 0, 0], "b": [0, 1, 1, 0], "c": [0, 0, 0, 0]}
    found = vocabulary.overlap({name: np.array(ids, bool) for name, ids in used.items()})
    assert found == [("a", "b", 1 / 3), ("a", "c", 0.0), ("b", "c", 0.0)]
    data = "a\u00e9\u00e9\u65e5 \u044f".encode() + b"\xff"
    found = vocabulary.whole_by_script([Text(data, "")], [cut_at(data, 4, 7)])
    assert found == {"other": (1, 1), "latin": (2, 1), "han": (1, 0), "cyrillic": (1, 1)}
    assert vocabulary.scripts_held([b"a", "\u65e5".encode(), "\u044f".encode()[:1], b" "]) == 2
    names, of = vocabulary.main_scripts([b"1", b"a", "a\u65e5\u672c".encode(), b"b"])
    assert [names[i] for i in of] == ["other", "latin", "han", "latin"]


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (b"", "no bytes"), (b"\xe6\x97", "part of a character"), (b" \n", "white space"),
        (b"\x00", "control characters"), (b"12", "digits"), (b" 7", "digits"), (b"...", "symbols"),
        (b"the", "letters"), ("\u0939\u0947".encode(), "letters"), (b" the", "space and letters"),
        (b"of the", "several words"), (b"the ", "mixed"), (b"a1", "mixed"), (b"n't", "mixed"),
    ],
)  # fmt: skip
def test_classes(piece, kind):
    assert vocabulary.CLASSES[vocabulary.class_of(piece)] == kind


GOLD = "unhappiness\tun happi ness\thappy\nworkers\twork er s\twork\n\ncats\tcat s\n"


def test_morphemes(tmp_path):
    (tmp_path / "gold.tsv").write_text(GOLD)
    gold = probes.read_morphemes(str(tmp_path / "gold.tsv"))
    assert [sorted(one.cuts) for one in gold] == [[2, 7], [4, 6], [3]]
    assert [one.lemma for one in gold] == [b"happy", b"work", b""]
    # un|happi|ness, wo|rk|er|s, cats: behind the space of each document.
    places = {b" unhappiness": [1, 3, 8], b" workers": [1, 3, 5, 7], b" cats": []}
    found = {k: v.value for k, v in probes.morphemes(scheme_of(places.get), gold).items()}
    assert found == {
        "morpheme_precision": 4 / 5, "morpheme_recall": 4 / 5, "morpheme_f1": 4 / 5,
        "morpheme_words": 1 / 3, "morpheme_over": 1 / 3, "morpheme_under": 1 / 3,
        "lemma_whole": 0.0,
    }  # fmt: skip
    whole = {k: v.value for k, v in probes.morphemes(scheme_of(lambda text: []), gold).items()}
    assert whole["morpheme_precision"] is None and whole["morpheme_recall"] == 0
    assert whole["morpheme_f1"] == 0 and whole["lemma_whole"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"cats\n", "line 1 of --morphemes"),
        (b"cats\tcat s\ndogs\tdog\n", "line 2 of --morphemes .*'dogs\\\\tdog'"),
        (b"a\ta\tb\tc\n", "line 1"), (b"\n", "has no words"), (b"\xff\ta", "is not UTF-8"),
    ],
)  # fmt: skip
def test_morphemes_that_are_none(content, said, tmp_path):
    (tmp_path / "gold.tsv").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        probes.read_morphemes(str(tmp_path / "gold.tsv"))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        probes.read_morphemes(str(tmp_path / "none"))


def test_digits():
    assert [len(probes.numbers(n)) for n in (1, 2, 3, 12)] == [9, 90, 100, 100]
    assert all(len(set(probes.numbers(n))) == len(probes.numbers(n)) for n in probes.LENGTHS)
    assert sorted(probes.places(7)) == [1, 4] and not probes.places(3)
    threes = probes.digits(scheme_of(lambda text: range(len(text) - 3, 1, -3)))
    assert all(of["ways"] == 1 and of["threes"] == 1 for of in threes.values())
    assert threes[7]["place_f1"] == 1 and math.isnan(threes[3]["place_f1"])
    singles = probes.digits(scheme_of(lambda text: range(1, len(text))))
    assert singles[7]["threes"] == 0 and singles[7]["place_f1"] == 2 * 2 / (6 + 2)
    # Where the first digit is odd, one cut behind it.
    odd = probes.digits(scheme_of(lambda text: [2] if text[1] % 2 else []))
    assert odd[4]["ways"] == 2 and 0 < odd[4]["threes"] < 1 and odd[1]["ways"] == 1


def test_a_run(monkeypatch):
    """The units of a model, and its ids where they are not bytes that units are made of."""
    bpe = BPETokenizer.train([b"the cat the cat the dog the dog " * 50], 270)

    def predictions(encoded):  # a unit ends with every second id
        return [
            Predictions(np.zeros(len(ids) + 1, np.float32), np.zeros(len(ids) + 1, bool),
                        np.arange(len(ids)) % 2 == 1, np.zeros(len(ids), np.float32),
                        np.zeros(len(ids) + 1, np.int8)) for ids in encoded
        ]  # fmt: skip

    run = SimpleNamespace(predictions=predictions)
    monkeypatch.setattr(opened, "open_run", lambda path: run)
    for tokenizer, stages, names in (
        (ByteTokenizer(), 1, ["run, units"]), (bpe, 1, ["run", "run, units"]), (bpe, 0, ["run"]),
        (ByteTokenizer(), 0, ["run"]),
    ):  # fmt: skip
        run.tokenizer = tokenizer
        run.config = SimpleNamespace(model=SimpleNamespace(stages=(None,) * stages))
        assert [scheme.name for scheme in named(["s3://bucket/run"])] == names
    run.tokenizer, run.config.model.stages = ByteTokenizer(), (None,)
    (units,) = named(["s3://bucket/run"])
    (cut,) = units.cut([b"abcde"])
    assert cut.ends.tolist() == [False, True, False, True, True] and cut.tokens == 3
    assert units.speed([b"abcde"]) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts of two languages, parallel text, a corpus of a BPE and its file."""
    made = tmp_path_factory.mktemp("schemes")
    (made / "text").mkdir()
    for name, extra in (("eng", ""), ("fra", " d\u00e9j\u00e0 \u65e5\u672c 1234")):
        text = words(3, 20_000).decode() + extra
        (made / "text" / f"{name}.txt").write_text(text, encoding="utf-8")
    (made / "parallel").mkdir()
    (made / "parallel" / "eng.txt").write_text("one two\nthree\n")
    (made / "parallel" / "ell.txt").write_text("\u03b1\u03b2 \u03b3\n\u03b4\n", encoding="utf-8")
    (made / "gold.tsv").write_text(GOLD)
    bpe = BPETokenizer.train([words(3, 20_000)], 300)
    load.save(bpe, made / "bpe.json")
    units = find_units([str(made / "text")], "text", None)
    prepare(units, made / "corpus", bpe, heldout=0.2, processes=1)
    return made


def asked(folder, *arguments) -> schemes.Arguments:
    return cli.parse(schemes.Arguments, "schemes.py", "", [str(a) for a in arguments])


def test_text_that_is_read(folder):
    texts = read([str(folder / "text")], 1000)
    assert [(one.label, len(one.data)) for one in texts] == [("eng", 1000), ("fra", 1000)]
    held = read([str(folder / "corpus")], 10**9)
    assert 0 < sum(len(one.data) for one in held) < 15_000  # what was held out alone
    assert {one.label for one in held} == {"eng", "fra"}


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "out"
    schemes.measure(asked(
        folder, folder / "text", "--of", "bytes", folder / "corpus", folder / "bpe.json",
        "words:unicode", "--reference", "corpus", "--parallel", folder / "parallel",
        "--morphemes", folder / "gold.tsv", "--most-bytes", "4000", "--out", out,
    ))  # fmt: skip
    said = capsys.readouterr().out
    assert "length is relative to corpus" in said and f"the page is {out / 'index.html'}" in said
    told = json.loads((out / "measures.json").read_text())
    of = {one["name"]: one for one in told["schemes"]}
    assert list(of) == ["bytes", "corpus", "bpe", "words:unicode", "words:unicode, units"]
    measures = {k: {m: v["value"] for m, v in one["measures"].items()} for k, one in of.items()}
    # The same tokenizer, from a corpus and from a file; speed is that of a moment.
    assert measures["corpus"] | {"speed": 0} == measures["bpe"] | {"speed": 0}
    assert measures["corpus"]["normalized_length"] == 1
    ratio = measures["corpus"]["bytes_per_token"]
    assert measures["bytes"]["normalized_length"] == pytest.approx(ratio) and ratio > 1
    assert set(measures["bytes"]) - set(measures["words:unicode, units"]) == {
        "vocabulary", "used", "overlap", "partial_pieces", "scripts", "renyi_2.5", "renyi_2",
        "speed", "morpheme_precision",
    }  # fmt: skip
    assert measures["words:unicode, units"]["fertility"] == 1
    assert measures["bytes"]["speed"] > 0
    assert set(of["bytes"]["labels"]) == {"eng", "fra", "mean of labels"}
    assert of["bytes"]["languages"]["ell"]["premium"]["value"] == 9 / 12
    rows = list(csv.DictReader(io.StringIO((out / "measures.csv").read_text())))
    (row,) = [
        row
        for row in rows
        if (row["scheme"], row["of"], row["measure"]) == ("bpe", "all", "bytes_per_token")
    ]
    assert float(row["value"]) == ratio
    names = {path.name for path in out.iterdir()}
    assert names == {
        "index.html", "measures.json", "measures.csv", "vocabulary-0-bytes.html",
        "vocabulary-1-corpus.html", "vocabulary-2-bpe.html", "vocabulary-3-words-unicode.html",
    }  # fmt: skip
    for name in ("index.html", "vocabulary-1-corpus.html"):
        made = (out / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert made.count("http") == 1 and "default-src 'none'" in made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("text", "name what cuts the text with --of"),
        ("--of bytes", "name a TEXT, or parallel text"),
        ("text --of bytes bytes", "--of bytes is named twice"),
        ("text --of nothing", "--of nothing is neither a scheme .* no such file"),
        ("text --of bpe:300", "bpe is trained: prepare a corpus with --tokenizer bpe:300"),
        ("text --of words:x", "split by hat or unicode, not 'x'"),
        ("text --of gold.tsv", "gold.tsv is not a tokenizer file"),
        ("text --of text", "text is neither .* neither a run nor a prepared corpus"),
        ("text --of bytes --reference bpe", "--reference bpe is none of bytes"),
        ("text --of bytes --anchor deu", "--anchor is of --parallel"),
        ("--of bytes --parallel parallel --anchor deu", "no language 'deu'; there are ell, eng"),
        ("text --of bytes --out text", "--out text is what this command reads"),
        ("text --of bytes --out gold.tsv", "--out gold.tsv is no folder"),
        ("text --of bytes --out no/where", "there is no folder no"),
        ("text s3://b/x --of bytes", "s3://b/x is no file or folder of this machine"),
    ],
)
def test_wrong_use(arguments, said, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=re.sub(r" (\.\*) ", r" \1 ", said)):
        schemes.measure(asked(folder, *arguments.split()))
    assert not (folder / "no").exists()


@pytest.mark.xdist_group("trained")  # where the browser is
def test_the_pages_in_a_browser(folder, browser, tmp_path):
    hostile = "</script><!--<b>x \u65e5"
    texts = [
        Text(f"the cat\n\n{hostile} end".encode() + b"\xff", hostile),
        Text(b"caf\xc3\xa9", "b"),
    ]
    bpe = load.load(folder / "bpe.json")
    of = [*schemes_of(hostile, bpe), *schemes_of("words", WordTokenizer())]
    made = page.pages(report(of, texts, 0), texts, "about")
    for name, text in made.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(made)[1:] == ["vocabulary-0--script----b-x-.html", "vocabulary-1-words.html"]

    def js(code: str):
        return browser.execute_script(code)

    browser.get(f"file://{tmp_path / 'index.html'}")
    # Each line of the text once for each scheme: two of the first, one of the second.
    assert js("return document.querySelectorAll('.line').length") == 3
    lines = js("return [...document.querySelectorAll('.line .row pre')].map(e => e.textContent)")
    assert lines[0] == lines[1] == lines[2] == "the cat\u21b5\u21b5"
    assert lines[3] == hostile + " end\ufffd" and lines[6] == "caf\u00e9"
    bytes_row = "document.querySelectorAll('.line')[2].querySelectorAll('.row')[1]"
    assert js(f"return {bytes_row}.querySelectorAll('.cut').length") == 1  # inside the last letter
    js("document.querySelector('.row span[data-i=\"1\"]').dispatchEvent("
       "new MouseEvent('mousemove', {bubbles: true, clientX: 50, clientY: 50}))")  # fmt: skip
    tip = js("return [...document.querySelectorAll('#tip tr')].map("
             "row => [...row.cells].map(cell => cell.textContent))")  # fmt: skip
    ids = bpe.encode(texts[0].data)
    sizes = bpe.bytes_per_id()[ids]
    at = int(np.searchsorted(np.cumsum(sizes), 1, side="right"))
    assert tip[0][:2] == [hostile, str(ids[at])]
    assert tip[0][3] == bpe.decode(ids[at : at + 1]).hex(" ")
    assert tip[1] == ["words", "104", "h", "68"]
    assert tip[2][:3] == ["words, units", "unit", "the"]
    js("document.querySelector('.chips button').click()")
    assert js("return document.querySelectorAll('.line .row').length") == 6
    # Sorted by a head: schemes by bytes per token.
    js("document.querySelectorAll('table.sortable')[0].querySelectorAll('thead button')[1].click()")
    first = js("return [...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map("
               "row => +row.children[1].dataset.key)")  # fmt: skip
    assert first == sorted(first) and len(first) == 3
    titles = js("return [...document.querySelectorAll('#breakdown option')].map(e => e.text)")
    assert "by label: fertility" in titles and f"overlap of labels: {hostile}" in titles

    browser.get(f"file://{tmp_path / 'vocabulary-0--script----b-x-.html'}")
    size = bpe.vocab_size
    assert js("return document.querySelector('#told').textContent") == f"{size} ids, {size} shown"
    js(
        "const e = document.getElementById('find'); e.value = 'c3';"
        "e.dispatchEvent(new Event('input'))"
    )
    found = js(
        "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[2].textContent)"
    )
    assert "c3" in found and all("c3" in one for one in found)
    levels = [line["level"] for line in browser.get_log("browser")]
    assert "SEVERE" not in levels
