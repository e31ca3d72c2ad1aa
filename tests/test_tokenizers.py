"""Every scheme is an exact, reversible map between bytes and ids."""

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import ROOT, random_text, words
from octavo.tokenizers import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.fused import FusedTokenizer
from octavo.tokenizers.interface import Tokenizer, TrainedTokenizer, dtype_for, native
from octavo.tokenizers.unigram import UnigramTokenizer
from octavo.tokenizers.words import WordTokenizer

PLAIN = r"[a-z]+| +|[^a-z ]+"
BPE = BPETokenizer.train([words(i, 2000) for i in range(5)] + [random_text(0, 4000)], 400)
UNIGRAM = UnigramTokenizer.train([words(i, 2000) for i in range(5)] + [random_text(0, 4000)], 320)
PAGE = (ROOT / "docs" / "extending" / "tokenizer.md").read_text()
ADDED = dict(re.findall(r"`tokenizers/(\w+)\.py`[^`]*```python\n(.*?)```", PAGE, re.DOTALL))
"""The files that the page adds, by scheme."""


def added(name: str) -> type:
    """The class of a file of the page."""
    module = types.ModuleType(name)
    exec(ADDED[name], vars(module))
    return vars(module)[f"{name.capitalize()}Tokenizer"]


def every_scheme():
    """A tokenizer of each scheme there is, a new one included, and of another splitter of words.
    One that always takes an argument which is no size has to be added here."""
    for name in load.names():
        scheme = load.scheme(name)
        if issubclass(scheme, TrainedTokenizer) and scheme.usage:
            size = 4 if name == "blocks" else 300
            yield {"bpe": BPE, "unigram": UNIGRAM}.get(name) or scheme.train([words(0, 2000)], size)
        elif name in scheme.usage:
            yield scheme.from_argument(None)
    yield WordTokenizer("unicode")
    yield FusedTokenizer(BPE)


OURS = list(every_scheme())
SCHEMES = [*OURS, added("capitals")(), added("pairs").train([random_text(0, 4000)], 300)]

TRAPS = [b"\x02", b"\x03", b"\x10", b"\x17", b"\x00", b"C", b"\xe2\x96\x81", b"\r\n", b"  ",
         b"the ", b"THE", b"\xe6\x97", b"\n"]  # fmt: skip

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
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_ids_decode(tokenizer, data):
    """A model draws what it likes."""
    ids = st.integers(0, tokenizer.vocab_size - 1)
    assert isinstance(tokenizer.decode(np.array(data.draw(st.lists(ids)), int)), bytes)


@pytest.mark.parametrize("tokenizer", OURS, ids=lambda t: t.name)
def test_interface(tokenizer, tmp_path):
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.to_json().keys() - {*tokenizer.optional} == {"scheme", *tokenizer.fields}
    assert type(tokenizer) is load.scheme(tokenizer.scheme)
    assert tokenizer.usage.items() <= load.usages().items()
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
    learned = BPETokenizer.train([words(i, 3000) for i in range(4)], 350, splitter="lines")
    tokenizer = BPETokenizer(learned.pieces, PLAIN)
    assert tokenizer.vocab_size > 257
    text = words(9, 500)
    expected = [
        id_
        for piece in re.findall(PLAIN, text.decode())
        for id_ in by_replaying(tokenizer.pieces, piece.encode())
    ]
    assert tokenizer.encode(text).tolist() == expected
    assert len(expected) < 0.8 * len(text)


def test_fingerprint_follows_the_meaning():
    other = BPETokenizer(BPE.pieces[:-1], BPE.pattern)
    reordered = BPETokenizer([*BPE.pieces[:-2], *BPE.pieces[:-3:-1]], BPE.pattern)
    split = BPETokenizer(BPE.pieces, PLAIN)
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
        BPETokenizer([*BPE.pieces, BPE.pieces[-1]])


SINGLE = [base64.b64encode(bytes([b])).decode() for b in range(256)]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "3", "null", "\0", "[" * 100_000, '{"scheme": ' + "[" * 100_000,
        '{"scheme": "x"}', '{"scheme": []}', '{"scheme": "bytes", "more": 1}',
        '{"scheme": "words"}', '{"scheme": "words", "rule": []}',
        '{"scheme": "words", "rule": "x"}',
        '{"scheme": "bpe"}', '{"scheme": "bpe", "pattern": "a", "vocabulary": 3}',
        '{"scheme": "bpe", "pattern": "a", "vocabulary": [3]}',
        '{"scheme": "bpe", "pattern": "a", "vocabulary": ["?"]}',
        json.dumps({"scheme": "bpe", "pattern": "(", "vocabulary": SINGLE}),
        json.dumps({"scheme": "bpe", "pattern": 3, "vocabulary": SINGLE}),
        json.dumps({"scheme": "bpe", "pattern": "a", "vocabulary": [*SINGLE, ""]}),
        '{"scheme": "unigram"}', '{"scheme": "unigram", "model": 3}',
        '{"scheme": "unigram", "model": ""}', '{"scheme": "unigram", "model": "AAAA"}',
        '{"scheme": "unigram", "model": "é"}', '{"scheme": "unigram", "model": "\\u0000"}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_tokenizer(content, tmp_path):
    """One sentence that names it."""
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match="t.json is not a tokenizer file: ") as raised:
        load.load(tmp_path / "t.json")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_mutilated_tokenizer_files(data):
    """Cut, or with bytes changed: the tokenizer that was, another one, or ValueError."""
    tokenizer = data.draw(st.sampled_from(OURS))
    content = bytearray(json.dumps(tokenizer.to_json()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        Path(file.name).write_bytes(content)
        try:
            found = load.load(Path(file.name))
        except ValueError as error:
            assert file.name in str(error)
        else:
            assert found.decode(found.encode(b"the fox")) == b"the fox"


LONG = {
    "white space": b" " * 1_000_000 + b"x" + b"\t\n" * 500_000,
    "one letter": b"a" * 1_000_000,
    "no white space": random_text(3, 50_000).replace(b" ", b"").replace(b"\n", b"") * 20,
    "invalid": b"a\xff\xfe\xe6\x97" * 80_000,
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("tokenizer", OURS, ids=lambda t: t.name)
def test_long_runs(tokenizer, name):
    """Encoding neither crashes nor takes the square of the length (it would not end here)."""
    ids = tokenizer.encode(LONG[name])
    assert tokenizer.bytes_per_id()[ids].sum() == len(LONG[name])
    assert tokenizer.decode(ids) == LONG[name]


@pytest.mark.parametrize("name", LONG)
def test_training_on_long_runs(name):
    texts = [words(i, 2000) for i in range(3)]
    assert BPETokenizer.train([*texts, LONG[name][:1_000_000]], 290).vocab_size == 290


def test_long_runs_are_merged_as_a_whole():
    """As tiktoken merges them; and invalid bytes are single ids."""
    text = words(3, 3000) + b" \n \t  " * 40 + "日本".encode() * 30_000
    ranks = {piece: i for i, piece in enumerate(BPE.pieces)}
    encoding = tiktoken.Encoding("", pat_str=BPE.pattern, mergeable_ranks=ranks, special_tokens={})
    assert BPE.encode(text).tolist() == encoding.encode_ordinary(text.decode())
    mixed = BPE.encode(b"the fox\xff\xe6\x97the ")
    parts = [BPE.encode(b"the fox"), *(BPE.encode(bytes([b])) for b in b"\xff\xe6\x97"),
             BPE.encode(b"the ")]  # fmt: skip
    assert mixed.tolist() == np.concatenate(parts).tolist()


def test_panics_are_errors():
    """What a library in Rust raises is no Exception."""

    class PanicException(BaseException):
        pass

    with pytest.raises(ValueError, match="too bad: at the disco"), native("too bad"):
        raise PanicException("at the disco\nmore")
    with pytest.raises(KeyboardInterrupt), native("too bad"):
        raise KeyboardInterrupt


TINY = (
    "--model.width 32 --model.layers 2 --model.heads 2 --data.length 64 --data.batch-size 8 "
    "--optimizer.warmup-steps 4 --train.steps 5 --train.evaluation-bytes 2000 "
    "--train.sample-bytes 20"
).split()


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a person runs, to add files to, and a way to run it."""
    home = tmp_path / "checkout"
    for package in ("configs", "data", "decoding", "evaluation", "model", "tokenizers", "training"):
        shutil.copytree(ROOT / package, home / package)
    for file in ROOT.glob("*.py"):
        shutil.copy(file, home)
    (home / "octavo").symlink_to(".")
    (home / "my-texts").mkdir()
    for i in range(300):
        (home / "my-texts" / f"{i}.txt").write_bytes(words(i, 200).title())

    def run(*command):
        return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300)

    return home, run


def test_the_page_on_adding_a_tokenizer(checkout):
    """Its files and its commands, word for word; training only shorter."""
    home, run = checkout
    for name, code in ADDED.items():
        (home / "tokenizers" / f"{name}.py").write_text(code)
    commands = re.findall("^python (.*)$", PAGE, re.MULTILINE)
    assert len(ADDED) == 2 and len(commands) == 5
    for command in commands:
        done = run(sys.executable, *shlex.split(command), *(TINY if "train.py" in command else []))
        assert done.returncode == 0, done.stderr
        if command.startswith("evaluate.py"):
            assert "bits_per_byte" in done.stdout
    saved = json.loads((home / "runs" / "capitals" / "tokenizer.json").read_text())
    assert saved == {"scheme": "capitals"}
    capitals, pairs, marked = (
        json.loads((home / "corpora" / name / "manifest.json").read_text())
        for name in ("capitals", "pairs", "marked")
    )
    assert [corpus["tokenizer"]["scheme"] for corpus in (capitals, pairs)] == ["capitals", "pairs"]
    sizes = [corpus["splits"]["heldout"]["utf8_bytes"] for corpus in (capitals, pairs, marked)]
    assert sizes[0] == sizes[1] == sizes[2] > 0
    assert marked["marks"]["tokenizer"] == "pairs"
    done = run(sys.executable, "prepare.py", "--help")
    for name in ADDED:
        assert next(iter(added(name).usage)) + ": bytes" in done.stdout


BROKEN = ADDED["capitals"].replace('"capitals"', '"broken"')


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def", "tokenizers/broken.py cannot be used: SyntaxError"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("SIZE = 3", "tokenizers/broken.py has no Tokenizer with scheme 'broken'"),
        (ADDED["capitals"], "tokenizers/broken.py has no Tokenizer with scheme 'broken'"),
        (
            BROKEN.replace("def decode", "def other"),
            "tokenizers/broken.py lacks decode",
        ),
        (BROKEN.replace("eos_id = EDGE", "other_id = EDGE"), "tokenizers/broken.py lacks eos_id"),
        (
            BROKEN.replace("ids[capital] += 32", "ids[capital] = 32"),
            "tokenizers/broken.py loses text: decode(encode(data)) is not data",
        ),
        (
            BROKEN.replace("EDGE = 256, 257", "EDGE = 258, 257"),
            "tokenizers/broken.py loses text: ids lie below vocab_size 258, found ",
        ),
        (
            BROKEN.replace("EDGE = 256, 257", "EDGE = 256, 101"),
            "tokenizers/broken.py loses text: encode gives eos_id 101, which only ends documents",
        ),
    ],
    ids=["syntax", "library", "no-class", "another-name", "half", "ends", "lossy", "size", "eos"],
)
def test_a_broken_scheme_breaks_itself(checkout, code, said):
    home, run = checkout
    (home / "tokenizers" / "broken.py").write_text(code)
    prepare = [sys.executable, "prepare.py"]
    done = run(*prepare, "--help")
    assert done.returncode == 0 and "bpe:SIZE" in done.stdout and "broken" in done.stdout
    done = run(*prepare, "my-texts", "--out", "fine", "--processes", "1")
    assert done.returncode == 0, done.stderr
    done = run(*prepare, "my-texts", "--out", "bad", "--tokenizer", "broken")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (home / "bad").exists()


def test_help_imports_no_library():
    """Nor does finding the schemes."""
    code = (
        "import sys, octavo.prepare\n"
        "heavy = {'numpy', 'numba', 'jax', 'tiktoken', 'rustbpe', 'sentencepiece'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from octavo.tokenizers import load\n"
        "assert [load.scheme(name).scheme for name in load.names()] == load.names()\n"
        "assert heavy & set(sys.modules) == {'numpy', 'numba'}, heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_dtypes():
    assert [dtype_for(n) for n in (256, 257, 65_536, 65_537)] == [
        np.uint8, np.uint16, np.uint16, np.uint32,
    ]  # fmt: skip
