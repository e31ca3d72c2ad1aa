"""A byte model around the trunk of a flat run, parameters that are frozen for a while, and rows of
another vocabulary."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import metrics_of, random_text, words
from octavo.configs.checks import ConfigError
from octavo.configs.model import StageConfig
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.run.saved import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.fused import FusedTokenizer
from octavo.train import train
from octavo.training import byteify
from octavo.training.trainer import Trainer
from octavo.training.vocabularies import pieces, rows_of, sparsemax

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run

STAGE = StageConfig(
    segmenter="unit_mark", capacity=1.0, width=32, heads=2, pool="last", unpool="repeat"
)
TEXT = [words(i, 3000) for i in range(4)]
BPE = BPETokenizer.train([*TEXT, random_text(0, 2000)], 320)


def corpus_of(tokenizer, folder) -> str:
    (folder / "text").mkdir()
    for i, text in enumerate(TEXT):
        (folder / "text" / f"{i}.txt").write_bytes(text)
    units = find_units([str(folder / "text")], "text", None)
    prepare(units, folder / "shards", tokenizer, heldout=0.1, processes=1)
    return str(folder / "shards")


@pytest.fixture(scope="module")
def around(tiny, trained, tmp_path_factory):
    """A model of bytes around the trunk of a run, whose subwords are single bytes."""
    source = corpus_of(FusedTokenizer(ByteTokenizer()), tmp_path_factory.mktemp("fused"))
    return dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, stages=(STAGE,)),
        data=dataclasses.replace(tiny.data, source=source),
        train=dataclasses.replace(
            tiny.train, init_from=f"{trained[0]}@30", steps=6, checkpoint_every=3, sample_bytes=0,
            freeze=("trunk.inner.*",), freeze_steps=4,
        ),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(byteify, "STEPS", 40)
    monkeypatch.setattr(byteify, "LENGTH", 64)


def named(tree) -> dict[str, np.ndarray]:
    found = jax.tree.leaves_with_path(tree)
    return {".".join(str(key.key) for key in path): np.array(leaf) for path, leaf in found}


def test_the_trunk_goes_inside_and_is_frozen_for_a_while(around, trained):
    trainer = Trainer.of(around)
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh()
        old, new = named(load(trained[0], 30).params), named(state["params"])
        inside = {name: leaf for name, leaf in old.items() if name.startswith("trunk.")}
        inside = {name.replace("trunk.", "trunk.inner."): leaf for name, leaf in inside.items()}
        for name, leaf in (inside | {"trunk.unpool.norm.gain": old["norm.gain"]}).items():
            np.testing.assert_array_equal(new[name], leaf, err_msg=name)
        origin = trainer.meta["origin"]
        assert trainer.source is not None
        assert origin["explained"] > 0.3 and origin["spelled"] < 8, origin  # 9.0 of 513 ids
        assert 0 < origin["drawn"] <= origin["spelled"], origin
        assert any("fitted to its subwords" in line for line in trainer.source.said())
        for number, batch in enumerate(trainer.batches(0, 5), 1):
            state, metrics = trainer.step(state, trainer.place(batch))
            now = named(state["params"])
            moved = {name for name in now if (now[name] != new[name]).any()}
            assert "head.weight" in moved
            assert (moved >= {*inside}) if number > 4 else not moved & {*inside}
        counts = [leaf for path, leaf in jax.tree.leaves_with_path(state["opt"])
                  if ".count" in jax.tree_util.keystr(path)]  # fmt: skip
        assert sorted({int(count) for count in counts}) == [1, 5]  # what was frozen took one step


def test_killed_and_continued_while_frozen(around, tmp_path):
    """The trunk's first step comes after the checkpoint."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(dataclasses.replace(around, workdir=str(whole)))
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "6")
    lines = (again / "metrics.jsonl").read_text().splitlines()
    (again / "metrics.jsonl").write_text("\n".join(lines[:4]) + "\n")
    train(dataclasses.replace(around, workdir=str(again)))
    assert metrics_of(whole) == metrics_of(again)
    found = [json.loads((each / "checkpoints/6/meta/metadata").read_text())["checksums"]
             for each in (whole, again)]  # fmt: skip
    assert found[0] == found[1]


def test_what_cannot_be_frozen_is_said(around):
    def asked(**train):
        return dataclasses.replace(around, train=dataclasses.replace(around.train, **train))

    with pytest.raises(ConfigError, match="freeze nope: no parameter is called so"):
        Trainer.of(asked(freeze=("nope",))).optimizer.init({})
    with pytest.raises(ConfigError, match="there is nothing left to train"):
        Trainer.of(asked(freeze=("*",))).optimizer.init({})
    with pytest.raises(ConfigError, match="of no use without train.freeze"):
        asked(freeze=())
    with pytest.raises(ConfigError, match="gives the trunk inside, and no embedding"):
        Trainer.of(asked(init_embeddings="mean"))


def test_bytes_follow_as_their_subwords_do():
    """Rows of what was drawn; and after each byte of it, what follows by the head's probabilities,
    counted here by hand."""
    there = byteify.Subwords(FusedTokenizer(BPE), None, None, 0, 0)  # type: ignore[arg-type]
    spelled = there.spelled()
    tree = byteify.Tree.of(spelled)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, BPE.vocab_size, 500)
    order = rng.integers(0, 500, byteify.ROWS * byteify.LENGTH)
    rows = byteify.rows_of(spelled, tree, drawn, order, there.tokenizer.bos_id)
    p = rng.random(BPE.vocab_size)
    each = jnp.broadcast_to(jnp.asarray(p), (*rows["state"].shape, len(p)))
    follows = np.asarray(tree.follows(each, jnp.asarray(rows["beginning"])))
    for r in range(2):
        tokens, ended = rows["tokens"][r], [0, *np.flatnonzero(rows["subword"][r] >= 0)]
        assert tokens[0] == there.tokenizer.bos_id
        for begin, end in zip(ended, ended[1:], strict=False):
            id_ = int(drawn[rows["state"][r, begin]])
            assert rows["subword"][r, end] == id_
            np.testing.assert_array_equal(tokens[begin + 1 : end + 1], spelled[id_])
            for at in range(begin, end):
                known = spelled[id_][: at - begin].tolist()
                expected = np.zeros(there.tokenizer.vocab_size)
                for other, each in enumerate(spelled):
                    if each[: len(known)].tolist() == known:
                        expected[each[len(known)]] += p[other]
                found = np.zeros_like(expected)
                np.add.at(found, tree.child[rows["beginning"][r, at]], follows[r, at])
                np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-5)


def test_rows_of_another_vocabulary(tmp_path):
    old = BPETokenizer.train(TEXT[:2], 280)
    corpus = Corpus(corpus_of(BPE, tmp_path))
    there, here = pieces(old), pieces(BPE)
    mean, focus = (rows_of(old, BPE, how, (corpus,)).toarray() for how in ("mean", "focus"))
    for piece, id_ in here.items():
        if piece in there:
            for rows in (mean, focus):
                np.testing.assert_array_equal(rows[id_], np.eye(old.vocab_size)[there[piece]])
        else:
            spelled = np.bincount(old.encode(piece), minlength=old.vocab_size)
            np.testing.assert_allclose(mean[id_], spelled / spelled.sum(), rtol=1e-6)
    for rows in (mean, focus):
        assert rows[BPE.bos_id, old.bos_id] == 1
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-5)
        assert (rows >= 0).all()
    lacking = [id_ for piece, id_ in here.items() if piece not in there]
    assert (focus[lacking] != mean[lacking]).any()
    np.testing.assert_allclose(sparsemax(np.array([0.5, 0.3, -1.0])), [0.6, 0.4, 0])


def test_embeddings_of_another_tokenizer(tiny, trained, tmp_path):
    """The run's ids are bytes; what is longer begins as the mean of its bytes' rows, the head's
    too."""
    source = corpus_of(BPE, tmp_path)
    config = dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, source=source),
        train=dataclasses.replace(
            tiny.train, init_from=f"{trained[0]}@30", init_allow=("tokenizer",),
            init_embeddings="mean",
        ),
    )  # fmt: skip
    trainer = Trainer.of(config)
    with jax.set_mesh(trainer.mesh):
        new = named(trainer.fresh()["params"])
    old = named(load(trained[0], 30).params)
    id_ = pieces(BPE)[b"the"]
    spelled = list(b"the")
    np.testing.assert_allclose(
        new["embedding.rows"][id_], old["embedding.rows"][spelled].mean(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        new["head.weight"][:, id_], old["head.weight"][:, spelled].mean(axis=1), rtol=1e-5
    )
    edge = ByteTokenizer.eos_id
    np.testing.assert_array_equal(new["head.weight"][:, BPE.eos_id], old["head.weight"][:, edge])
    assert trainer.origin is not None and trainer.origin["fresh"] == []
