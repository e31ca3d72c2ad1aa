"""Ids that training hardly reached: counted, told by planted embeddings, prompted."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import run
from octavo.configs.checks import ConfigError
from octavo.data.shards import Corpus
from octavo.evaluation.measures import undertrained
from octavo.model.embeddings.one_hot import OneHot
from octavo.model.embeddings.table import Table
from octavo.run.score import Predictions
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer

BYTES = [bytes([b]) for b in range(256)]


def counted(folder: str) -> Counter:
    """Ids of the training text, ends of documents among them."""
    corpus = Corpus(folder)
    counts = Counter(i for one in corpus.documents_in(0) for i in ByteTokenizer().encode(one))
    counts[ByteTokenizer.eos_id] += corpus.documents
    return counts


def test_counts(corpus, monkeypatch):
    monkeypatch.setattr(undertrained, "CHUNK", 100_000)
    told = []
    found = undertrained.counts_in([Corpus(corpus)] * 2, lambda *at: told.append(at))
    assert found.shape == (2, 256) and (found[0] == found[1]).all()
    counts = counted(corpus)
    assert found[0].tolist() == [counts[i] for i in range(256)]
    assert told[-1] == (found.sum(), found.sum()) and len(told) > 2


def test_what_encoding_gives_back():
    """ "a b" is cut before the space, and half a character is never encoded as text."""
    tokenizer = BPETokenizer([*BYTES, b"ab", b"a b", "é".encode(), "日".encode()[:2]])
    kinds = [undertrained.kind(tokenizer, i) for i in range(256, 260)]
    assert kinds == ["reachable", "unreachable", "reachable", "partial"]
    assert undertrained.kind(ByteTokenizer(), 0xF5) == "reachable"


@pytest.mark.parametrize("most", [24, 63, 511])
@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(), BPETokenizer([*BYTES, b"in", b"put", b"hra", b"Out"])]
)
def test_prompts(tokenizer, most):
    id_ = 0xF5  # in none of the texts around it
    for ids, due in undertrained.prompts_of(tokenizer, id_, most):
        assert ids[due].tolist() == [id_] * len(due) and due[-1] == len(ids) - 1
        if most > 50:
            assert len(ids) <= most
            # Something to repeat stands before.
            assert (ids == id_).sum() >= 2 and due[0] > np.flatnonzero(ids == id_)[0]
    if most == 511:
        (echo, _), _, (same, due) = undertrained.prompts_of(tokenizer, id_, most)
        assert (same == id_).sum() == 50 and len(due) == 3
        assert tokenizer.decode(echo).startswith(b"This device") and (echo == id_).sum() >= 30


def test_distance_by_hand():
    rows = np.array([[1.0, 0], [1, 1], [0, 2], [-3, 0]])
    found = undertrained.cosine_distance(rows, np.array([0]))
    np.testing.assert_allclose(found, [0, 1 - 0.5**0.5, 1, 2], atol=1e-12)


def test_correlation():
    from scipy.stats import spearmanr

    one, other = np.array([1.0, 2, 2, 5, 3]), np.array([0, 7, 7, 9, 1])
    found = undertrained.correlation(one, other)
    assert found == pytest.approx(spearmanr(one, other).statistic)
    assert undertrained.correlation(one, np.zeros(5)) is None


def fake(corpus: str, known: set[int], kind=Table, tied=False) -> SimpleNamespace:
    """A run whose outputs are near one direction where the training text has no such id, and which
    repeats the ids that it knows."""
    rng, counts = np.random.default_rng(0), counted(corpus)
    direction = rng.standard_normal(16)
    never = np.array([counts[i] == 0 for i in range(256)])[:, None]
    output = np.where(never, direction + 0.1 * rng.standard_normal((256, 16)), 0)
    output += np.where(never, 0, rng.standard_normal((256, 16)) - direction)
    inputs = np.ones((256, 16)) * np.arange(256)[:, None]
    params = {"embedding": {"rows": output if tied else inputs}, "head": {"weight": output.T}}

    def predictions(encoded, **how):
        empty = np.zeros(0)
        return [
            Predictions(np.where(np.isin(ids, list(known)), 0.01, 9.0), empty, empty, empty, empty)
            for ids in encoded
        ]

    return SimpleNamespace(
        tokenizer=ByteTokenizer(), length=64, step=10, params=params, predictions=predictions,
        definition=SimpleNamespace(embedding=kind), name="fake",
        config=SimpleNamespace(
            model=SimpleNamespace(tied_embeddings=tied, embedding="one_hot"),
            data=SimpleNamespace(source=corpus, batch_size=8, length=64),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
def test_planted(corpus, tied):
    counts = counted(corpus)
    (row,) = undertrained.measure(
        fake(corpus, {0xF5, *b"abcdefghijklmnopqrstuvwxyz "}, tied=tied), []
    )
    usable = [i for i in range(256) if i not in ByteTokenizer.special]
    never = {i for i in usable if not counts[i]}
    assert row["ids"] == 253 and row["never"] == len(never) == row["reference"]
    assert row["least"] == 0 and row["prompted"] == 20
    worst = row["by_id"]
    assert {int(i) for i in worst} <= never
    distances = [one["distance"] for one in worst.values()]
    assert distances == sorted(distances) and distances[-1] < 0.1
    assert row["spearman_distance"] > 0.5
    assert (row["spearman_norm"] is None) == tied
    # It repeats common ids, and of those that never occur, one.
    assert row["common_repeated"] > 0.9
    told = worst.get(str(0xF5))
    assert row["verified"] == 20 - (told is not None)
    assert told is None or told["verdict"] == "rejected"
    assert next(iter(worst.values()))["bytes"].startswith("\\x")


def test_trained_on_by_share(corpus, monkeypatch):
    """What training reads is divided among the corpora by their weights, whatever their size."""
    it = fake(corpus, set())
    it.step = 1
    monkeypatch.setattr(undertrained, "FEW", 30)  # of 512 ids: fewer than letters of one word
    (once,) = undertrained.measure(it, [])
    it.config.data.source = f"{corpus}:3,{corpus}:1"
    (twice,) = undertrained.measure(it, [])
    assert once["hardly"] == twice["hardly"] > once["never"] == twice["never"]


def test_no_table(corpus):
    with pytest.raises(ConfigError, match="model.embedding one_hot has none"):
        undertrained.measure(fake(corpus, set(), kind=OneHot), [])


@pytest.mark.parametrize(
    "probability, told",
    [(0.95, "rejected"), (0.5, "weakly rejected"), (0.05, "weakly verified"), (1e-4, "verified")],
)
def test_verdicts(probability, told):
    assert undertrained.verdict(probability) == told


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path):
    out = tmp_path / "out.json"
    done = run("evaluate.py", str(trained[0]), "undertrained", "--json", str(out))
    assert done.returncode == 0 and "by id" in done.stdout, done.stderr
    row = json.loads(out.read_text())
    assert row["never"] > 200 and row["spearman_distance"] > 0.3 and "source" not in row
    assert all(one["occurs"] == 0 for one in row["by_id"].values())
    done = run("evaluate.py", str(trained[0]), "undertrained", "--most-bytes", "9")
    assert done.returncode == 2 and "leave out --text" in done.stderr
