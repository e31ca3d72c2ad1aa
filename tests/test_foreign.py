"""Tokenizer files of others: the ids that their libraries give, of any text, or a refusal that says
which text is lost."""

import base64
import functools
import io
import itertools
import json
import random
import string
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sentencepiece
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizers
from helpers import random_text, words
from octavo import prepare as prepare_script
from octavo.data.shards import Corpus
from octavo.tokenizers import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.huggingface import HuggingFaceTokenizer
from octavo.tokenizers.interface import check_lossless
from octavo.tokenizers.parts import foreign, splitters
from octavo.tokenizers.parts.library import PROBES
from octavo.tokenizers.sentencepiece import SentencePieceTokenizer

TEXT = [words(i, 2000).decode() for i in range(4)] + [
    random_text(1, 2000).decode("utf-8", "ignore"),
    "It's 1234567 o'clock,  she'LL say:\r\n\tdef f(x):\n\n    return x  # \u4e2d\u6587 \u05e9\u05c1"
    " caf\xe9 na\xefve \u0434\u043e\u043c <|endoftext|> the<s>the </s> ",
]
SPECIAL = "<|endoftext|>"
BYTES = sorted(foreign.byte_alphabet())
LLAMA = splitters.pattern("llama3")


def drawn(seed: int, count: int) -> list[str]:
    """Texts of traps and of words, side by side."""
    pick = random.Random(seed)
    traps = [probe for probe in PROBES if probe.isascii() or probe.encode(errors="ignore")]
    traps = [t for t in traps if t == t.encode(errors="ignore").decode()]
    return ["".join(pick.choices([*traps, "the ", "quick", SPECIAL], k=12)) for _ in range(count)]


ALL_TEXT = [*TEXT, *drawn(0, 300)]


def saved(tokenizer, folder: Path):
    """What a corpus or a run keeps of it, and reads again."""
    load.save(tokenizer, folder / "kept.json")
    assert json.loads((folder / "kept.json").read_text())["scheme"] == tokenizer.scheme
    again = load.load(folder / "kept.json")
    assert again.fingerprint == tokenizer.fingerprint and type(again) is type(tokenizer)
    return again


def check_any_bytes(tokenizer) -> None:
    for data in (bytes(range(256)), b"\xff" * 50, b"a\xe2\x96b\x00", *map(str.encode, ALL_TEXT)):
        check_lossless(tokenizer, data)


# --- tiktoken


OURS = BPETokenizer.train(map(str.encode, TEXT), 500, splitter="cl100k")


def lines_of(pieces, ranks=None) -> bytes:
    pairs = zip(pieces, ranks or itertools.count(), strict=False)
    return b"".join(b"%s %d\n" % (base64.b64encode(piece), rank) for piece, rank in pairs)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("cl100k_base.tiktoken", splitters.pattern("cl100k")),
        ("mine.o200k.tiktoken", splitters.pattern("o200k")),
        ("p50k_base.tiktoken", splitters.pattern("gpt2")),
        ("qwen.tiktoken", splitters.pattern("llama3", "single")),
        ("tokenizer.model", LLAMA),
    ],
)
def test_tiktoken(tmp_path, name, pattern):
    (tmp_path / name).write_bytes(lines_of(OURS.pieces))
    found = load.load(tmp_path / name)
    assert type(found) is BPETokenizer and found.vocab_size == 500 and found.pattern == pattern
    ranks = {piece: i for i, piece in enumerate(OURS.pieces)}
    library = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in ALL_TEXT:
        assert found.encode(text.encode()).tolist() == library.encode_ordinary(text)
    check_any_bytes(found)
    assert saved(found, tmp_path).pieces == OURS.pieces


def test_tiktoken_with_gaps(tmp_path):
    """Ids are the order of ranks."""
    (tmp_path / "x.cl100k.tiktoken").write_bytes(
        lines_of(OURS.pieces, [*range(300), *range(10**9, 10**9 + 199)])
    )
    assert load.load(tmp_path / "x.cl100k.tiktoken").fingerprint == OURS.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("mine.tiktoken", lines_of(OURS.pieces), "let its name tell, as in mine.cl100k.tiktoken"),
        ("gpt2.x", lines_of(OURS.pieces)[:-5], "line 499 is no base64 and rank"),
        ("gpt2.x", lines_of(OURS.pieces) + b"YWI= x\n", "line 500 is no base64 and rank"),
        ("gpt2.x", lines_of(OURS.pieces) + b"YWI= 7\n", "line 500 holds a second piece of rank 7"),
        ("gpt2.x", lines_of(OURS.pieces) + b"YWI 7\n", "'YWI' is no base64"),
        ("gpt2.x", lines_of(OURS.pieces[3:]), "starts with the 256 single bytes"),
        ("gpt2.x", lines_of([*OURS.pieces, b"a"]), "the same byte string twice"),
        ("gpt2.x", lines_of([*OURS.pieces, b"x" * 1025]), "line 500 holds a piece that is too l"),
        ("gpt2.x", lines_of([*OURS.pieces, b"\xfe\xfd\xfc"]), r"merge into b'\\xfe\\xfd\\xfc'"),
    ],
    ids=range(9),
)  # fmt: skip
def test_tiktoken_that_cannot_be_used(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be used as a tokenizer: .*({said})"):
        load.load(tmp_path / name)


# --- Hugging Face


def hugging_face(pre_tokenizer, normalizer=None, *, special=(SPECIAL,), **model):
    """BPE that their library trains."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(**model))
    made.pre_tokenizer = pre_tokenizer
    if normalizer:
        made.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(special), initial_alphabet=BYTES, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def split_by(regex, behavior="isolated", invert=False):
    pre = tokenizers.pre_tokenizers
    return pre.Sequence([
        pre.Split(tokenizers.Regex(regex), behavior, invert),
        pre.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip


def byte_level(**how):
    return tokenizers.pre_tokenizers.ByteLevel(**{"add_prefix_space": False} | how)


def plain(content: str):
    """Their ids of text in which nothing is special."""
    data = json.loads(content) | {"added_tokens": []}
    library = tokenizers.Tokenizer.from_str(json.dumps(data))
    return lambda text: library.encode(text, add_special_tokens=False).ids


def digits():
    pre = tokenizers.pre_tokenizers
    return pre.Sequence([pre.Digits(individual_digits=True), byte_level()])


BY_BYTES = {
    "gpt2": lambda: hugging_face(byte_level()),
    "llama3": lambda: hugging_face(split_by(LLAMA), ignore_merges=True),
    "removed": lambda: hugging_face(split_by(LLAMA, "removed", True)),
    "qwen": lambda: hugging_face(split_by(splitters.pattern("llama3", "single")), special=()),
    "o200k": lambda: hugging_face(split_by(splitters.pattern("o200k"))),
}
BY_LIBRARY = {
    "digits": lambda: hugging_face(digits()),
    "regex": lambda: hugging_face(split_by(r"\s+|[^\s]+")),
}


@functools.cache
def their(name: str) -> str:
    """A tokenizer.json."""
    return (BY_BYTES | BY_LIBRARY)[name]().to_str()


@pytest.mark.parametrize("name", [*BY_BYTES, *BY_LIBRARY])
def test_hugging_face(tmp_path, name):
    """Byte-level BPE is ours, with ids in the order of theirs; what else comes back is run by
    them."""
    (tmp_path / "tokenizer.json").write_text(their(name))
    found = load.load(tmp_path / "tokenizer.json")
    assert type(found) is (BPETokenizer if name in BY_BYTES else HuggingFaceTokenizer)
    first = int(name in BY_BYTES and name != "qwen")  # their id of the special token is 0
    assert found.vocab_size == len(json.loads(their(name))["model"]["vocab"]) - first + 1
    again, theirs = saved(found, tmp_path), plain(their(name))
    for text in ALL_TEXT:
        ids = found.encode(text.encode()).tolist()
        assert [i + first for i in ids] == theirs(text)
        assert again.encode(text.encode()).tolist() == ids
    check_any_bytes(found)


def spaced(**how):
    """Characters and byte fallback, spaces as U+2581: as Gemma comes."""
    alphabet = sorted(set("".join(TEXT).replace(" ", "\u2581")))
    tokens = ["<unk>", "<s>", *(f"<0x{b:02X}>" for b in range(256)), *alphabet]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("q", "u")]
    vocab = {t: i for i, t in enumerate(dict.fromkeys([*tokens, *map("".join, merges)]))}
    options = {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True} | how
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges, **options))
    made.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    made.add_special_tokens(["<unk>", "<s>"])
    return made


def test_hugging_face_with_byte_fallback(tmp_path):
    library = spaced()
    (tmp_path / "tokenizer.json").write_text(library.to_str())
    found, theirs = load.load(tmp_path / "tokenizer.json"), plain(library.to_str())
    assert type(found) is HuggingFaceTokenizer
    assert found.pieces[library.token_to_id("\u2581the")] == b" the"
    for text in ALL_TEXT:
        if "\u2581" not in text:  # which theirs gives back as a space
            assert found.encode(text.encode()).tolist() == theirs(text)
    assert found.encode("\u2581".encode()).tolist() == [2 + b for b in "\u2581".encode()]
    check_any_bytes(saved(found, tmp_path))


def test_hugging_face_unigram(tmp_path):
    """Its special ids have a score, by which it would find their spelling in text."""
    scores = {"<unk>": 0.0, "<s>": 0.0, **{f"<0x{b:02X}>": -99.0 for b in range(256)}}
    scores |= {c: -3.0 for c in "".join([*TEXT, string.printable]).replace(" ", "\u2581")}
    scores |= {"\u2581the": -1.0, "qu": -2.0, "ick": -2.0}
    library = tokenizers.Tokenizer(
        tokenizers.models.Unigram(list(scores.items()), unk_id=0, byte_fallback=True)
    )
    library.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    library.add_special_tokens(["<unk>", "<s>"])
    (tmp_path / "t.json").write_text(library.to_str())
    found, theirs = load.load(tmp_path / "t.json"), plain(library.to_str())
    assert not {0, 1} & set(found.encode(b"<s> <unk>").tolist()) and 1 in theirs("<s>")
    for text in ALL_TEXT:
        if not {"\u2581", "<"} & set(text):
            assert found.encode(text.encode()).tolist() == theirs(text)
    check_any_bytes(saved(found, tmp_path))
    check_lossless(found, "\uffff1\uffff".encode())  # what it finds instead of the spelling


def with_model(content: str, **fields) -> str:
    data = json.loads(content)
    return json.dumps(data | {"model": data["model"] | fields})


NORMAL = tokenizers.normalizers
NO_BYTE = r"no id stands for the byte b'\\x00' alone"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: hugging_face(byte_level(), NORMAL.NFC()), r"'e\\u0301' comes back as '\\xe9'"),
        (lambda: hugging_face(byte_level(), NORMAL.Lowercase()), "'A' comes back as 'a'"),
        (lambda: hugging_face(byte_level(), NORMAL.Strip()), "' a' comes back as 'a'"),
        (lambda: hugging_face(byte_level(add_prefix_space=True)), "'a' comes back as ' a'"),
        (lambda: hugging_face(tokenizers.pre_tokenizers.Whitespace()), NO_BYTE),
        (lambda: spaced(byte_fallback=False), NO_BYTE),
    ],
    ids=["nfc", "lowercase", "strip", "prefix", "white space", "unknown"],
)
def test_hugging_face_that_loses_text(tmp_path, made, said):
    (tmp_path / "t.json").write_text(made().to_str())
    with pytest.raises(ValueError, match=f"t.json cannot be used as a tokenizer: .*text: {said}"):
        load.load(tmp_path / "t.json")


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_merges_that_are_no_ranks(tmp_path, ignore_merges):
    """What merges by rank would cut in another way is run by their library."""
    merges = json.loads(their("gpt2"))["model"]["merges"]
    kinds = set()
    for some in (merges, merges[::-1], merges[1:], merges[:-50], merges[:9] + merges[40:]):
        content = with_model(their("gpt2"), merges=some, ignore_merges=ignore_merges)
        (tmp_path / "t.json").write_text(content)
        found, theirs = load.load(tmp_path / "t.json"), plain(content)
        kinds.add(type(found))
        first = int(type(found) is BPETokenizer)
        for text in [*TEXT, *ALL_TEXT[:100]]:
            assert [i + first for i in found.encode(text.encode()).tolist()] == theirs(text)
    assert kinds == {BPETokenizer, HuggingFaceTokenizer}


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_a_piece_that_no_merge_makes(tmp_path, ignore_merges):
    """It is never found, or found where it is a word."""
    vocab = json.loads(their("gpt2"))["model"]["vocab"]
    content = with_model(
        their("gpt2"), vocab=vocab | {"zqj": len(vocab)}, ignore_merges=ignore_merges
    )
    (tmp_path / "t.json").write_text(content)
    found, theirs = load.load(tmp_path / "t.json"), plain(content)
    assert type(found) is (HuggingFaceTokenizer if ignore_merges else BPETokenizer)
    first = int(not ignore_merges)
    for text in ("zqj", "zqj zqj", "zqjj", *TEXT):
        assert [i + first for i in found.encode(text.encode()).tolist()] == theirs(text)


def test_without_their_library(tmp_path, monkeypatch):
    # From a checkout, Python finds our own folder tokenizers/ by that name.
    monkeypatch.setitem(sys.modules, "tokenizers", ModuleType("tokenizers"))
    (tmp_path / "ours.json").write_text(their("gpt2"))
    assert type(load.load(tmp_path / "ours.json")) is BPETokenizer
    (tmp_path / "theirs.json").write_text(their("regex"))
    with pytest.raises(ValueError, match=r"theirs.json cannot .* pip install 'octavo\[hf\]'"):
        load.load(tmp_path / "theirs.json")


# --- sentencepiece


def piece_model(**options) -> bytes:
    out = io.BytesIO()
    how = {
        "model_type": "unigram", "vocab_size": 340, "hard_vocab_limit": False,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "byte_fallback": True, "minloglevel": 2,
    }  # fmt: skip
    sentences = (line for text in TEXT for line in text.split("\n"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=out, **how | options
    )
    return out.getvalue()


PIECES = {
    "unigram": {},
    "bpe": {"model_type": "bpe"},
    "no dummy prefix": {"add_dummy_prefix": False, "user_defined_symbols": ["\n\n", "<x>"]},
    "suffix": {"treat_whitespace_as_suffix": True},
}


@functools.cache
def their_pieces(name: str) -> bytes:
    """A .model."""
    return piece_model(**PIECES[name])


@pytest.mark.parametrize("name", PIECES)
def test_sentencepiece(tmp_path, name):
    """Its ids, of text between other text: at the ends of one it puts a space, we do not."""
    (tmp_path / "x.model").write_bytes(their_pieces(name))
    found = load.load(tmp_path / "x.model")
    library = sentencepiece.SentencePieceProcessor(model_proto=their_pieces(name))
    assert type(found) is SentencePieceTokenizer and found.vocab_size == len(library) + 1
    before, after = {"suffix": ("", "\n"), "no dummy prefix": ("", "")}.get(name, ("\n", ""))
    around = len(library.encode(before + after))
    for text in ALL_TEXT:
        if not {"\0", "\u2581"} & set(text):
            ids = library.encode(before + text + after)
            ids = ids[around:] if before else ids[: len(ids) - around]
            assert found.encode(text.encode()).tolist() == ids
    check_any_bytes(found)
    silent = [library.bos_id(), library.eos_id(), library.unk_id(), found.eos_id]
    assert not set(silent) & set(found.encode(b"<s><unk></s>").tolist())
    assert np.flatnonzero(found.bytes_per_id() == 0).tolist() == sorted(silent)
    check_any_bytes(saved(found, tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"byte_fallback": False, "vocab_size": 150}, r"no id stands for the byte b'\\x00' alone"),
        ({"remove_extra_whitespaces": True}, "' a' comes back as 'a'"),
        ({"normalization_rule_name": "nmt_nfkc"}, r"'\\n' comes back as ' '|comes back as"),
    ],
)
def test_sentencepiece_that_loses_text(tmp_path, options, said):
    (tmp_path / "x.model").write_bytes(piece_model(**options))
    with pytest.raises(ValueError, match=f"x.model cannot be used as a tokenizer: .*({said})"):
        load.load(tmp_path / "x.model")


# --- any file


FILES = {
    "gpt2.tiktoken": lambda: lines_of(OURS.pieces),
    "ours.json": lambda: their("gpt2").encode(),
    "theirs.json": lambda: their("regex").encode(),
    "x.model": lambda: their_pieces("unigram"),
}
WRONG = [None, 3, -1, 2**40, 10**300, "x", [], {}, [[]], [3], ["a"], {"type": "BPE"}, 0.5, True]


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_damaged_files(tmp_path_factory, data):
    """Cut, with bytes changed, or with a value of another type: a tokenizer that is exact, or one
    sentence."""
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = FILES[name]()
    if name.endswith(".json") and data.draw(st.booleans()):
        parsed = at = json.loads(content)
        while isinstance(at, dict) and at:
            key = data.draw(st.sampled_from(sorted(at)[:12]))
            if not isinstance(at[key], dict) or data.draw(st.integers(0, 3)) == 0:
                at[key] = data.draw(st.sampled_from(WRONG))
                break
            at = at[key]
        content = json.dumps(parsed).encode()
    else:
        content = bytearray(content)
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(content[: data.draw(st.integers(0, len(content)))])
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    try:
        found = load.load(path)
        for text in (bytes(range(256)), "".join(TEXT).encode()):
            check_lossless(found, text)
    except ValueError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error), error
        assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "none of ours, of Hugging Face, tiktoken or sentencepiece"),
        (b"hello world\n", "none of ours, of Hugging Face"),
        (b"\x89PNG\r\n\x1a\n\x00", "none of ours, of Hugging Face"),
        (b"GGUF\x03\x00\x00\x00", "none of ours, of Hugging Face"),
        (b"\n\x00", "damaged|no id stands"),
        (b'{"model": {"vocab": ' + b"[" * 100_000, "it is damaged"),
        (b'{"model": {"vocab": {"a": 1e999}}}', "its ids do not all lie in 0"),
        (b'{"model": {"vocab": {"a": 99999999999}}}', "its ids do not all lie in 0"),
        (b'{"model": {"vocab": {"a": -1}}}', "its ids do not all lie in 0"),
        (b'{"model": {"vocab": {}}}\xff', "damaged|UTF-8|utf-8"),
        (
            b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"],'
            b' "continuing_subword_prefix": "xyz"}}',
            "it is damaged",
        ),
    ],
    ids=range(11),
)
def test_other_files(tmp_path, content, said):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=f"f (is not a|cannot be used as a) tokenizer.*({said})"):
        load.load(tmp_path / "f")


@pytest.mark.parametrize("scheme", ["huggingface", "sentencepiece"])
def test_saved_files_that_are_damaged(tmp_path, scheme):
    field = load.scheme(scheme).fields[0]
    for value in (3, None, "", "x", "AAAA", "[" * 100_000, "{}", "\x00", []):
        (tmp_path / "t.json").write_text(json.dumps({"scheme": scheme, field: value}))
        with pytest.raises(ValueError, match="t.json is not a tokenizer file: "):
            load.load(tmp_path / "t.json")
    with pytest.raises(ValueError, match="read from files, not trained"):
        load.scheme(scheme).read_argument("300")


@pytest.mark.parametrize("name", ["theirs.json", "x.model"])
def test_long_texts(name):
    """White space, and bytes that are not UTF-8, one after another and each alone."""
    found = foreign.read(FILES[name](), name)
    for data in (b" " * 200_000, b"\xff" * 200_000, b"\xffa" * 10_000):
        assert found is not None and found.decode(found.encode(data)) == data


@pytest.mark.parametrize("name", FILES)
def test_a_corpus(tmp_path, name):
    """Prepared by a file of others, it keeps ours, and gives back its text."""
    (tmp_path / name).write_bytes(FILES[name]())
    texts = [text.encode() for text in TEXT[:4]]
    (tmp_path / "in").mkdir()
    for i, text in enumerate(texts):
        (tmp_path / "in" / f"{i}.txt").write_bytes(text)
    prepare_script.prepare(
        prepare_script.Arguments(
            (str(tmp_path / "in"),), str(tmp_path / "out"), str(tmp_path / name), processes=1,
            heldout=0,
        )
    )  # fmt: skip
    corpus = Corpus(tmp_path / "out")
    assert corpus.tokenizer.fingerprint == load.load(tmp_path / name).fingerprint
    assert sorted(corpus.documents_in(0)) == sorted(texts)
