"""Marks beside the ids: from text to batches, from subwords and from a small model's entropy."""

import dataclasses
import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import arguments_of, batch_of, defined, forward, random_text, run, shrink, words
from octavo.batch import Batch
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig, TrainConfig
from octavo.data.errors import DataError
from octavo.data.marks import SubwordMarks
from octavo.data.pipeline import BatchSource, make_plan
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.decoding import drafting
from octavo.decoding.sampling import Sampling, generate
from octavo.run import codec
from octavo.run.directory import MARKER
from octavo.run.marks import EntropyMarks, Rule, check_marks, line_breaks, read_rule
from octavo.run.opened import Run, open_run
from octavo.tokenizers.bytes import BOS, ByteTokenizer
from octavo.tokenizers.unigram import UnigramTokenizer
from octavo.train import train

TEXTS = [words(i, 300 + 40 * i) for i in range(8)] + [b"a\x02b\x10 end", random_text(1, 200)]


@pytest.fixture(scope="module")
def subwords():
    return UnigramTokenizer.train(TEXTS, 300)


@pytest.fixture(scope="module")
def marked(subwords, tmp_path_factory):
    folder = tmp_path_factory.mktemp("marked")
    (folder / "text").mkdir()
    for i, text in enumerate(TEXTS):
        (folder / "text" / f"{i}.txt").write_bytes(text)
    units = find_units([str(folder / "text")], "text", None)
    tokenizer = ByteTokenizer()
    mark = SubwordMarks(subwords, tokenizer)
    prepare(units, folder / "out", tokenizer, heldout=0, processes=2, mark=mark)
    return folder / "out"


def test_subword_marks(subwords):
    tokenizer = ByteTokenizer()
    mark = SubwordMarks(subwords, tokenizer)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        (marks,) = mark([text], [ids])
        cuts = np.flatnonzero(marks) + 1
        pieces = [tokenizer.decode(part) for part in np.split(ids, cuts)]
        assert [p for p in pieces if p] == [subwords.pieces[i] for i in subwords.encode(text)]


def test_marks_reach_the_batch(marked, subwords):
    corpus = Corpus(marked)
    assert corpus.marks["kind"] == "subwords"
    for packing in ("concat", "best_fit"):
        plan = make_plan(
            DataConfig(source=str(marked), length=128, batch_size=4, packing=packing), 0
        )
        source = BatchSource(plan, np.arange(4), steps=8)
        seen = 0
        mark = SubwordMarks(subwords, ByteTokenizer())
        expected = {
            ByteTokenizer().encode(text).tobytes(): mark([text], [ByteTokenizer().encode(text)])[0]
            for text in TEXTS
        }
        for step in range(8):
            batch = source[step]
            for row in range(4):
                for segment in range(1, batch["segment_ids"][row].max() + 1):
                    at = batch["segment_ids"][row] == segment
                    tokens, marks = batch["tokens"][row, at], batch["marks"][row, at]
                    if tokens[0] == BOS:
                        assert marks[0] == 0
                        tokens, marks = tokens[1:], marks[1:]
                    assert any(
                        np.array_equal(found[at.start() : at.start() + len(tokens)], marks)
                        for ids, found in expected.items()
                        for at in re.finditer(b"(?=" + re.escape(tokens.tobytes()) + b")", ids)
                    )
                    seen += int(marks.sum())
        assert seen > 100


@pytest.mark.parametrize("rise", [False, True], ids=["above", "rise"])
def test_entropy_marks(rise):
    """By the definition, from what was read so far, and the same one after another."""
    config = Config(model=ModelConfig(width=32, layers=2, heads=2), data=DataConfig(length=64))
    definition, params = defined(config)
    tokenizer = ByteTokenizer()
    mark = EntropyMarks(definition.bind, params, tokenizer, 64, Rule(5.2))
    text = tokenizer.encode(random_text(0, 60))
    (values,) = mark.entropies([text])
    batch = batch_of([random_text(0, 60)], 64)
    logits = forward(definition)(params, batch)[:, : len(text) + 1]
    p = np.asarray(jax.nn.softmax(logits[0]), np.float64)
    np.testing.assert_allclose(values, -(p * np.log(p)).sum(-1)[1:], rtol=1e-4)
    compared = values
    if rise:
        compared = np.diff(np.r_[-(p[0] * np.log(p[0])).sum(), values])
    threshold = float(np.median(compared)) + 1e-3
    mark = EntropyMarks(definition.bind, params, tokenizer, 64, Rule(threshold, rise))
    (marks,) = mark.of_documents([text])
    np.testing.assert_array_equal(marks, compared > threshold)
    one_by_one, cache, extend = [], mark.init_cache(1, 64), jax.jit(mark.extend)
    for id_ in np.append(BOS, text).tolist():
        found, cache = extend(params, np.array([[id_]], np.int32), cache, np.ones(1, np.int32))
        one_by_one.append(int(found[0, 0]))
    np.testing.assert_array_equal(one_by_one[1:], marks)
    # A long document: every id has context, and what comes later changes nothing.
    long = tokenizer.encode(random_text(1, 300))
    (whole,), (part,) = mark.entropies([long]), mark.entropies([long[:200]])
    np.testing.assert_allclose(whole[:200], part, rtol=1e-4)


@pytest.fixture(scope="module", params=[16, 15, 1])
def small(request):
    """A marker of rows shorter than the texts, its entropies as the windows are defined, and a
    threshold far from all of them."""
    mark = marker(request.param)
    encoded = [ByteTokenizer().encode(text) for text in LONG]
    apart(mark, encoded)
    return mark, encoded, mark.of_documents(encoded)


def marker(length: int, **rule) -> EntropyMarks:
    config = Config(model=ModelConfig(width=32, layers=2, heads=2), data=DataConfig(length=64))
    definition, params = defined(config)
    return EntropyMarks(definition.bind, params, ByteTokenizer(), length, Rule(0.0, **rule))


def apart(mark: EntropyMarks, encoded: list[np.ndarray]) -> None:
    """Give the marker a threshold far from all that is held against it."""
    middle = np.sort(np.concatenate(mark.compared(encoded)).astype(np.float64))
    middle = middle[len(middle) // 4 : -len(middle) // 4]
    gap = np.argmax(np.diff(middle))
    mark.rule = dataclasses.replace(mark.rule, threshold=float(middle[gap : gap + 2].mean()))
    assert np.diff(middle)[gap] > 1e-4


LONG = [
    random_text(3, 200), words(4, 97), b" " * 90 + b"x\n" + b"\n" * 30, bytes(range(256)),
    b"\xff\xfe\x80" * 30, b"", b"a",
]  # fmt: skip
"""Several times as long as a row of the small model, of bytes of every kind."""
SPEEDS = np.array([2, 3, 1, 3, 2, 0, 0, 3, 1])
"""Thirds of what is offered that each of them reads at a time, and one id."""


def test_entropies_are_those_of_windows(small):
    """By the definition: each id's from a pass over its window alone."""
    mark, encoded, _ = small
    (found,) = mark.entropies(encoded[:1])
    tokens = np.append(BOS, encoded[0])
    bound = mark.bind(mark.params)

    @jax.jit
    def read(part, count):
        return bound.extend(part, bound.init_cache(1, mark.length), valid=count)[0]

    for at in (0, 1, 7, 14, 15, 16, 23, 24, 31, 32, 100, 199):
        k = 0 if at < mark.length else (at - mark.length) // mark.step + 1
        part = tokens[k * mark.step : at + 1][None]
        assert mark.length // 2 < part.shape[1] <= mark.length or at < mark.length
        count = part.shape[1]
        part = np.pad(part, ((0, 0), (0, mark.length - count)))
        p = jax.nn.softmax(read(part, jnp.array([count]))[0, count - 1])
        p = np.asarray(p, np.float64)
        if at:
            np.testing.assert_allclose(found[at - 1], -(p * np.log(p)).sum(), rtol=1e-4)


@pytest.mark.parametrize("sizes", [(3, 1, 7), (200, 1, 1, 60)])
def test_marks_one_after_another_are_those_of_documents(small, sizes):
    """However many are read at a time, side by side with other documents, and if some of what was
    read is taken back."""
    check_one_after_another(*small, sizes)


def check_one_after_another(mark, encoded, expected, sizes):
    rows, longest = len(encoded), 1 + max(map(len, encoded))
    tokens = np.zeros((rows, longest + max(sizes)), np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[: 1 + len(ids)] = np.append(BOS, ids)
    lengths = np.array([1 + len(ids) for ids in encoded])
    cache, extend = mark.init_cache(rows, 8), jax.jit(mark.extend)
    read = np.zeros(rows, int)
    found = np.zeros_like(tokens)
    for size in itertools.cycle(sizes):
        part = np.stack([row[at : at + size] for row, at in zip(tokens, read, strict=True)])
        # Rows move on at different speeds; a long one must not take one id at a time.
        most = np.minimum(size, 1 + SPEEDS[:rows] * size // 3)
        valid = np.minimum(most, lengths - read).astype(np.int32)
        marks, _ = extend(mark.params, part, cache, np.minimum(size, lengths - read))
        for row, (at, count) in enumerate(zip(read, valid, strict=True)):
            found[row, at : at + count] = marks[row, :count]
        _, cache = extend(mark.params, part, cache, valid)
        read += valid
        if (read == lengths).all():
            break
    for row, ids in enumerate(encoded):
        np.testing.assert_array_equal(found[row, 1 : 1 + len(ids)], expected[row])


@pytest.mark.parametrize("rise, sizes", [(False, (90, 1)), (True, (3, 1, 7))])
def test_lines_that_stand_alone(rise, sizes):
    """A line's marks are those of a document of it alone, in one pass and one after another."""
    mark, plain = marker(16, rise=rise, reset=True), marker(16, rise=rise)
    texts = [*LONG, words(8, 40) + b"\n" + words(9, 60) + b"\r\n\n" + words(9, 60), b"\n"]
    encoded = [ByteTokenizer().encode(text) for text in texts]
    apart(mark, encoded)
    plain.rule = dataclasses.replace(plain.rule, threshold=mark.rule.threshold)
    lines = [re.findall(rb"[^\n]*\n|[^\n]+", text) for text in texts]
    of_lines = [
        np.concatenate([*plain.of_documents([ByteTokenizer().encode(line) for line in each])])
        if each else np.zeros(0, np.uint8)
        for each in lines
    ]  # fmt: skip
    marks = mark.of_documents(encoded)
    for found, expected in zip(marks, of_lines, strict=True):
        np.testing.assert_array_equal(found, expected)
    whole = plain.of_documents(encoded)
    assert any((a != b).any() for a, b in zip(marks, whole, strict=True))
    check_one_after_another(mark, encoded, marks, sizes)


def test_a_line_ends_with_an_id_that_holds_a_line_feed(subwords):
    assert np.flatnonzero(line_breaks(ByteTokenizer())).tolist() == [10]
    holds = [b"\n" in piece for piece in subwords.pieces]
    assert line_breaks(subwords).tolist() == [*holds, False]


@pytest.mark.parametrize(
    "text, rule",
    [
        ("1.5", Rule(1.5)),
        ('{"threshold": 1.5, "rise": true}', Rule(1.5, rise=True)),
        ('{"threshold": 1.5, "rise": false, "reset": true}', Rule(1.5, reset=True)),
    ],
)
def test_rules_that_are_kept(text, rule, tmp_path):
    """Of all revisions."""
    (tmp_path / "threshold.json").write_text(text)
    assert read_rule(tmp_path) == rule


class Echo:
    """In place of a model: its likeliest next id tells the newest eight marks of its window."""

    def __init__(self, params):
        pass

    def init_cache(self, rows, slots):
        return jnp.zeros(rows, jnp.int32)

    def extend(self, tokens, cache, marks, valid):
        told = []
        for i in range(tokens.shape[1]):
            cache = jnp.where(i < valid, (2 * cache + marks[:, i]) % 256, cache)
            told.append(50.0 * (jnp.arange(256) == cache[:, None]))
        return jnp.stack(told, axis=1), cache


def test_compression_goes_on_with_a_documents_marks(small):
    """Over windows of the model that are longer or shorter than the small one's."""
    mark, encoded, expected = small
    for length in (24, 9):
        config = Config(data=DataConfig(length=length))
        definition = SimpleNamespace(bind=Echo, apart=lambda params: params)
        predictor = codec.Predictor(Run(config, ByteTokenizer(), definition, {}, 0, None, mark))()
        p = next(predictor)
        marks = expected[0]
        for at, id_ in enumerate(encoded[0].tolist()):
            if at >= 4:  # the begin id ends a unit whatever its mark
                newest = sum(int(m) << i for i, m in enumerate(marks[:at][::-1][:4]))
                assert int(p.argmax()) % 16 == newest
            p = predictor.send(id_)


@pytest.mark.parametrize("small", [16], indirect=True)
def test_sampling_goes_by_a_documents_marks(small):
    """Greedy ids are those of the parallel pass with the marks of the whole text, with guesses
    among what is read and without."""
    mark, _, _ = small
    config = shrink(presets()["blt"])
    definition, params = defined(config)
    prompt = random_text(5, 20)
    for drafter in (None, drafting.Lookup(3)):
        pieces = generate(
            definition.bind, params, [ByteTokenizer().encode(prompt)], 40, drafter=drafter,
            sampling=Sampling(temperature=0), seed=0, bos_id=BOS, eos_id=-1, marker=mark,
        )  # fmt: skip
        ids = np.concatenate(list(pieces), axis=1)[0]
        text = np.append(np.frombuffer(prompt, np.uint8), ids)[:-1].astype(np.int32)
        (marks,) = mark.of_documents([text])
        length = 1 + len(text)
        row = lambda *values: np.append(*values).astype(np.int32)[None]  # noqa: E731
        ones, places = np.ones((1, length), np.int32), np.arange(length)[None]
        batch = Batch(row(BOS, text), ones, ones, places, ones, row(0, marks))
        best = forward(definition)(params, batch)[0].argmax(axis=-1)
        np.testing.assert_array_equal(best[len(prompt) :], ids)


def test_from_a_small_model_to_patches(corpus, tmp_path):
    """The whole way of the Byte Latent Transformer, by its commands."""
    small = Config(
        model=ModelConfig(width=32, layers=1, heads=2),
        data=DataConfig(source=corpus, length=64, batch_size=8),
        train=TrainConfig(steps=3, evaluation_bytes=0, sample_bytes=0),
    )
    entropy, out, patches = (str(tmp_path / name) for name in ("entropy", "marked", "patches"))
    done = run("train.py", "flat", *arguments_of(small, entropy))
    assert done.returncode == 0, done.stderr
    reset = ["--unit-bytes", "4", "--entropy-reset"]
    done = run("prepare.py", corpus, "--out", out, "--marks", entropy, *reset)
    assert done.returncode == 0 and "entropy of the next byte is above" in done.stdout, done.stderr
    manifest = json.loads((tmp_path / "marked" / "manifest.json").read_text())
    assert manifest["marks"]["kind"] == "entropy" and manifest["marks"]["reset"] is True
    marks = np.empty(5000, np.uint8)
    Corpus(out).read(0, 5000, np.empty(5000, np.uint8), marks)
    assert 0.2 < marks.mean() < 0.3
    # Another corpus, marked as the first one is: the two may be mixed.
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_bytes(words(7, 900))
    more = str(tmp_path / "also")
    done = run("prepare.py", str(tmp_path / "more"), "--out", more, "--marks", f"{out}/{MARKER}")
    assert done.returncode == 0, done.stderr
    check_marks(presets()["blt"].model, [Corpus(Path(out)), Corpus(Path(more))])
    command = ["blt", "--data.source", out, "--data.length", "64", "--train.steps", "3",
               "--train.evaluation-bytes", "500", "--train.sample-bytes", "0",
               "--model.layers", "1", "--model.width", "64", "--model.heads", "2",
               "--model.stages.0.width", "32", "--model.stages.0.heads", "2",
               "--model.stages.0.decoder-layers", "1", "--model.hash-rows", "64"]  # fmt: skip
    done = run("train.py", *command, "--workdir", patches)
    assert done.returncode == 0 and "held-out" in done.stdout, done.stderr
    opened = open_run(patches)
    assert opened.marker.rule.reset and opened.marker.rule == read_rule(Path(out) / MARKER)
    assert opened.decompress(opened.compress(words(3, 70))) == words(3, 70)


def test_without_marks_it_is_one_sentence(corpus, tmp_path):
    config = dataclasses.replace(presets()["blt"], data=DataConfig(source=corpus, length=64))
    with pytest.raises(DataError, match="has no marks"):
        train(dataclasses.replace(config, workdir=str(tmp_path / "no")))
    assert not (tmp_path / "no").exists()


def test_subword_marks_are_no_units(marked, tmp_path):
    """They look ahead; a model may only learn to predict them."""
    config = dataclasses.replace(presets()["blt"], data=DataConfig(source=str(marked), length=64))
    with pytest.raises(ConfigError, match="decides as it reads"):
        train(dataclasses.replace(config, workdir=str(tmp_path / "no")))
    assert not (tmp_path / "no").exists()


def described(folder, marks: dict, checksum: int | None = None, length: int = 64):
    """A corpus that says this of its marks, beside a marker with parameters of that checksum."""
    if checksum is not None:
        record = folder / MARKER / "checkpoints" / "3" / "meta" / "metadata"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"checksums": {"params": checksum}}))
        config = {"data": {"length": length}}
        (folder / MARKER / "config.json").write_text(json.dumps(config))
    return SimpleNamespace(folder=folder, marks=marks)


def test_a_mixture_is_marked_alike(tmp_path):
    entropy = {"kind": "entropy", "threshold": 1.5, "tokenizer": "bytes"}
    subwords = {"kind": "subwords", "tokenizer": "unigram", "fingerprint": "a"}
    first = described(tmp_path / "first", entropy, 7)
    by_marks, predicted = presets()["blt"].model, presets()["pooling-unigram"].model
    same = described(tmp_path / "same", dict(entropy), 7)
    for model in (by_marks, predicted, presets()["flat"].model):
        check_marks(model, [first, same])
    check_marks(
        predicted, [described(tmp_path / "a", subwords), described(tmp_path / "b", subwords)]
    )
    others = {
        "subwords": (subwords, None, 64),
        "threshold": (entropy | {"threshold": 1.6}, 7, 64),
        "model": (entropy, 8, 64),
        "rows": (entropy, 7, 128),
        "gone": (entropy, None, 64),
    }
    for name, about in others.items():
        other = described(tmp_path / name, *about)
        for model in (by_marks, predicted):
            with pytest.raises(ConfigError, match=name):
                check_marks(model, [first, other])
    with pytest.raises(ConfigError, match="c has none that a model decides as it reads"):
        check_marks(by_marks, [described(tmp_path / "c", subwords)])
    other = subwords | {"fingerprint": "b"}
    with pytest.raises(ConfigError, match="e and .*d were made differently"):
        check_marks(
            predicted, [described(tmp_path / "d", subwords), described(tmp_path / "e", other)]
        )
