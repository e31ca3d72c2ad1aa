"""Marks beside the ids: from text to batches, from subwords and from a small model's entropy."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from helpers import arguments_of, batch_of, defined, forward, random_text, run, words
from octavo.configs.schema import Config, DataConfig, ModelConfig, TrainConfig
from octavo.data.marks import SubwordMarks
from octavo.data.pipeline import BatchSource, make_plan
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.evaluation.marks import EntropyMarks
from octavo.tokenizers.bytes import BOS, ByteTokenizer
from octavo.tokenizers.unigram import UnigramTokenizer

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


def test_entropy_marks():
    """By the definition, from what was read so far, and the same one after another."""
    config = Config(model=ModelConfig(width=32, layers=2, heads=2), data=DataConfig(length=64))
    definition, params = defined(config)
    tokenizer = ByteTokenizer()
    mark = EntropyMarks(definition.bind, params, tokenizer, 64, threshold=5.2)
    text = tokenizer.encode(random_text(0, 60))
    (values,) = mark.entropies([text])
    batch = batch_of([random_text(0, 60)], 64)
    logits = forward(definition)(params, batch)[:, : len(text) + 1]
    p = np.asarray(jax.nn.softmax(logits[0]), np.float64)
    np.testing.assert_allclose(values, -(p * np.log(p)).sum(-1)[1:], rtol=1e-4)
    threshold = float(np.median(values)) + 1e-3
    mark = EntropyMarks(definition.bind, params, tokenizer, 64, threshold)
    (marks,) = mark.of_documents([text])
    np.testing.assert_array_equal(marks, values > threshold)
    one_by_one, cache, extend = [], mark.init_cache(1, 64), jax.jit(mark.extend)
    for id_ in np.append(BOS, text).tolist():
        found, cache = extend(params, np.array([[id_]], np.int32), cache, np.ones(1, np.int32))
        one_by_one.append(int(found[0, 0]))
    np.testing.assert_array_equal(one_by_one[1:], marks)
    # A long document: every id has context, and what comes later changes nothing.
    long = tokenizer.encode(random_text(1, 300))
    (whole,), (part,) = mark.entropies([long]), mark.entropies([long[:200]])
    np.testing.assert_allclose(whole[:200], part, rtol=1e-4)


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
    done = run("prepare.py", corpus, "--out", out, "--marks", entropy, "--unit-bytes", "4")
    assert done.returncode == 0 and "entropy of the next byte is above" in done.stdout, done.stderr
    manifest = json.loads((tmp_path / "marked" / "manifest.json").read_text())
    assert manifest["marks"]["kind"] == "entropy"
    marks = np.empty(5000, np.uint8)
    Corpus(out).read(0, 5000, np.empty(5000, np.uint8), marks)
    assert 0.2 < marks.mean() < 0.3
    command = ["blt", "--data.source", out, "--data.length", "64", "--train.steps", "3",
               "--train.evaluation-bytes", "500", "--train.sample-bytes", "0",
               "--model.layers", "1", "--model.stages.0.decoder-layers", "1",
               "--model.hash-rows", "64"]  # fmt: skip
    done = run("train.py", *command, "--workdir", patches)
    assert done.returncode == 0 and "held-out" in done.stdout, done.stderr
    (tmp_path / "text").write_bytes(words(3, 150))
    for script in (
        ("compress.py", patches, str(tmp_path / "text"), str(tmp_path / "packed")),
        ("compress.py", "--decompress", patches, str(tmp_path / "packed"), str(tmp_path / "back")),
    ):
        done = run(*script)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == words(3, 150)
    # Without the small model's marks it is one sentence.
    command[2] = corpus
    done = run("train.py", *command, "--workdir", str(tmp_path / "no"))
    assert done.returncode == 2 and "has no marks" in done.stderr


def test_subword_marks_are_no_units(marked, tmp_path):
    """They look ahead; a model may only learn to predict them."""
    config = dataclasses.replace(Config(), data=DataConfig(source=str(marked), length=64))
    done = run("train.py", "blt", *arguments_of(config, tmp_path)[:2],
               "--data.source", str(marked), "--data.length", "64")  # fmt: skip
    assert done.returncode == 2 and "decides as it reads" in done.stderr, done.stderr
