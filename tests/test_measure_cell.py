"""What is measured of a cell is what the measures say one by one, and speeds are taken side by
side."""

import dataclasses
import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

import octavo
from helpers import batch_of, of_preset, opened, random_text, shrink, words
from octavo.ablation import corpora, measure, speed
from octavo.brief import beginning
from octavo.configs import presets
from octavo.data.errors import DataError
from octavo.data.heldout import Held, shortened
from octavo.evaluation.measures import bits, capacity, fairness, noise
from octavo.evaluation.measures import words as words_measure
from octavo.evaluation.measures.certify import choose
from octavo.model import flops
from octavo.run.score import Predictions
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.trainer import Trainer

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run

MOST = 3000
PARALLEL = {
    "eng": [words(i, 30 + i) for i in range(6)],
    "ell": ["\u03b1\u03b2\u03b3 \u03b4\u03b5".encode() * (1 + i % 3) for i in range(6)],
}


@pytest.fixture(scope="module")
def text(tiny):
    """What is scored: text.json, and the documents."""
    source = tiny.data.source
    about = corpora.text_json(source, MOST)
    # As a corpus of several languages has it.
    for i, one in enumerate(about["documents"]):
        one["label"], one["script"] = f"label {i % 2}", ("latin", "greek")[i % 2]
    return about, corpora.scored(source, MOST)


@pytest.fixture(scope="module")
def cell(trained, text, tmp_path_factory):
    """A run, its folder, and what was measured."""
    folder = tmp_path_factory.mktemp("cell")
    shutil.copy(trained[0] / "metrics.jsonl", folder)
    it = octavo.open_run(trained[0])
    how = {"path": str(trained[0]), "noise_bytes": 500, "certify_bytes": 200}
    return it, folder, measure.measure(it, *text, folder, PARALLEL, **how)


def test_it_is_what_the_measures_say(cell, text):
    it, folder, found = cell
    about, held = text
    documents = [one.text for one in held]
    score = it.score(documents)
    assert found["documents"]["nats"] == pytest.approx(score.document_nats, rel=1e-5)
    assert found["documents"]["bytes"] == [len(one) for one in documents]
    assert found["bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-6)
    assert found["low"] < found["bits_per_byte"] < found["high"]
    assert found["step"] == 30 and found["fingerprint"] == about["fingerprint"]
    named = [Held(one.text, "c", f"label {i % 2}") for i, one in enumerate(held)]
    (row,) = bits.measure(it, named)
    assert found["by_label"].keys() == row["by_label"].keys() == {"label 0", "label 1"}
    for name, told in row["by_label"].items():
        assert found["by_label"][name] == pytest.approx(told, rel=1e-5)
    assert found["by_script"]["latin"] == found["by_label"]["label 0"]
    # All words of the training text were counted, not some.
    for mine, told in zip(found["bands"], words_measure.measure(it, documents), strict=True):
        assert mine == pytest.approx(told, rel=1e-5)
    assert found["next_word_accuracy"] == found["bands"][0]["accuracy"]
    some = [one.text for one in shortened(held, 500, measure.NOISE_PIECE)]
    for mine, told in zip(found["noise"], noise.measure(it, some), strict=True):
        assert mine == pytest.approx(told, rel=1e-4, abs=1e-5)
    for mine, told in zip(
        found["fairness"]["languages"],
        fairness.by_language("x", PARALLEL, lambda lines: fairness.units_of(it, lines, {}), "eng"),
        strict=False,
    ):
        assert mine == {name: pytest.approx(told[name], rel=1e-5) for name in mine}
    assert [row["language"] for row in found["fairness"]["languages"]] == ["eng", "ell"]
    per = [row["units_per_sentence"] for row in found["fairness"]["languages"]]
    assert found["fairness"]["premium"] == max(per) / min(per)
    assert found["seconds"].keys() == {"score", "noise", "certify", "fairness"}


def test_costs_and_cuts_and_the_certificate(cell, text, trained):
    it, folder, found = cell
    documents = [one.text for one in text[1]]
    assert found["bytes_per_unit"] == 1 and found["units"] == {} and found["collapsed"] is None
    assert found["units_by_script"] == {"latin": 1, "greek": 1}
    size = sum(map(len, documents))
    assert found["ids_per_byte"] == (size + len(documents)) / size
    each = flops.forward_flops(it.config.model, 256, 64)
    assert found["inference"] == {
        "flops_per_byte_useful": pytest.approx(each * found["ids_per_byte"]),
        "flops_per_byte_paid": pytest.approx(each * found["ids_per_byte"]),
        "parameter_bytes": 4 * it.definition.parameters,
    }
    assert len(found["cuts"]) == 3 and len({cut["label"] for cut in found["cuts"]}) == 2
    for cut in found["cuts"]:
        assert any(beginning(one, 400).decode() == cut["text"] for one in documents)
        n = len(cut["text"].encode())
        assert n == len(cut["ends"]) == len(cut["surprisal"]) == len(cut["probability"])
    certificate = json.loads((folder / "certificate" / "certificate.json").read_text())
    assert found["certificate"] == certificate and certificate["proves"]
    assert certificate["decoder"].split()[3] == str(trained[0])
    pieces = choose([Held(one, "corpus", f"{i % 2}") for i, one in enumerate(documents)], 200)
    for piece, told in zip(pieces, certificate["pieces"], strict=True):
        assert hashlib.sha256(piece.text).hexdigest() == told["sha256"]
        assert it.score(piece.text).nats / np.log(2) == pytest.approx(told["bits"], rel=1e-5)


def test_what_was_measured_is_read_again(cell, tmp_path):
    _, folder, found = cell
    assert measure.read_measured(folder) == json.loads(json.dumps(found))
    assert measure.read_measured(tmp_path) is None
    whole = (folder / "measured.json").read_text()
    for torn in (whole[: len(whole) // 2], "", json.dumps(found | {"format": 0}), "[1]"):
        (tmp_path / "measured.json").write_text(torn)
        assert measure.read_measured(tmp_path) is None


def test_another_text_is_refused(cell, text, tmp_path):
    it, about, held = cell[0], *text
    other = [Held(held[0].text + b"!", held[0].corpus, None), *held[1:]]
    with pytest.raises(DataError, match=r"document 0 that the study scores \(label label 0\) is"):
        measure.measure(it, about, other, tmp_path, None)
    with pytest.raises(DataError, match=f"the study scores {len(held)} documents, but .* has 1 "):
        measure.measure(it, about, held[:1], tmp_path, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [of_preset(n) for n in ("spacebyte", "aunet", "hnet-2stage")])
def test_units_of_all_levels(name):
    """As the model counts them over rows that hold each document whole; but it may end a unit of
    units with the last one of a document, which is still open."""
    it = opened(shrink(presets()[name]))
    documents = [random_text(i, 20 + 7 * i) for i in range(4)]
    batch = batch_of(documents, it.length, it.tokenizer)
    output = jax.jit(lambda params, batch: it.definition.bind(params)(batch))(it.params, batch)
    found = it.predictions([it.tokenizer.encode(document) for document in documents])
    levels = len(it.config.model.stages)
    counted = [float(output.statistics[f"units/{level}"]) for level in range(levels)]
    targets = float(batch.loss_weights.sum())
    mine = [each * targets for each in capacity.units_per_id(found, levels)]
    assert mine[0] == pytest.approx(counted[0])
    if levels == 2:
        assert 0 < mine[1] < mine[0]
        assert counted[1] - len(documents) <= round(mine[1]) <= counted[1]
    for one in found:
        assert (one.ends == (one.levels[1:] > 0)).all()


def predicted(levels) -> Predictions:
    n = len(levels)
    return Predictions(np.zeros(n), np.ones(n, bool), np.ones(n - 1, bool), np.ones(n - 1),
                       np.array(levels, np.int8))  # fmt: skip


def test_units_that_collapsed(tmp_path):
    """In the text that is scored, or in most rows at the end of training."""
    config, two = presets()["hnet"], presets()["hnet-2stage"]
    (rate,) = config.model.stages[0].rates
    metrics = tmp_path / "metrics.jsonl"
    assert measure._collapsed(config, (rate,), metrics) is None
    assert "hardly any unit ends" in str(measure._collapsed(config, (rate / 11,), metrics))
    told = measure._collapsed(config, (0.95,), metrics)
    assert told == (
        f"units of level 0 end at 95.0% of its positions, and {rate:.1%} is asked: nearly every "
        "position is a unit."
    )
    # Of units of units: as a share of those.
    assert measure._collapsed(two, (0.3, 0.1), metrics) is None
    assert "level 1 end at 96.7%" in str(measure._collapsed(two, (0.3, 0.29), metrics))
    # What no loss holds to a rate may cut as it does.
    assert measure._collapsed(presets()["megabyte"], (0.95,), metrics) is None
    rows = [{"step": i, "collapsed/0": 1.0 if i > 90 else 0.0} for i in range(1, 101)]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = measure._collapsed(config, (rate,), metrics)
    assert told is not None and told.startswith("at the end of training, 100% of positions")
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows[:90]))
    assert measure._collapsed(config, (rate,), metrics) is None
    every = [predicted([1, 0, 2, 0]), predicted([1, 1])]
    assert capacity.units_per_id(every, 2) == (4 / 6, 1 / 6)


def test_cuts_of_many_kinds():
    """Of labels and writing systems as many as there are; no text that is too short or none."""
    long, short = b"a" * 500, b"a" * 20
    documents = [long, long, long, short, b"\xff" * 500, long, long]
    labels, scripts = "aabbcbd", ["latin"] * 6 + ["greek"]
    held = [Held(one, "c", label) for one, label in zip(documents, labels, strict=True)]
    assert measure._shown(documents, held, scripts) == [0, 2, 6]
    assert measure._shown([short, long, short], held, scripts) == [0, 1, 2]


def test_speed_side_by_side(trained, tiny):
    found = speed.measure_speed([("a", None, trained[0])], rounds=1, seconds=0)
    assert found["device"] == "cpu" and found["rounds"] == 1
    (arm,) = found["arms"]
    assert (arm["arm"], arm["size"]) == ("a", None)
    for name in ("train_bytes_per_second", "decode_bytes_per_second"):
        assert len(arm[name]) == 1 and arm[name][0] > 0


def test_arms_take_turns(monkeypatch):
    """All are ready before any is timed; each trains and decodes in each round."""
    told = []

    def ready(folder):
        told.append(folder)
        return lambda: told.append(f"{folder}+") or 100.0, lambda: told.append(f"{folder}-") or 1.0

    now = iter(range(1000))
    monkeypatch.setattr(speed, "_ready", ready)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: float(next(now)))
    found = speed.measure_speed([("a", None, "x"), ("b", "1m", "y")], rounds=2, seconds=2)
    assert told == ["x", "y", *["x+"] * 2, *["x-"] * 2, *["y+"] * 2, *["y-"] * 2,
                    *["y+"] * 2, *["y-"] * 2, *["x+"] * 2, *["x-"] * 2]  # fmt: skip
    assert found["arms"][1] == {
        "arm": "b", "size": "1m",
        "train_bytes_per_second": [100, 100], "decode_bytes_per_second": [1, 1],
    }  # fmt: skip


def test_what_is_timed(tiny, trained):
    """A step of all bytes of a batch; a continuation of as many bytes as asked for, whatever ends
    of documents are drawn in it."""
    step = speed._training(Trainer.of(tiny))
    assert 0 < step() <= 8 * 64
    it = octavo.open_run(trained[0])
    written = [speed._decoding(it, each)() for each in (1.0, 4.0)]
    assert 200 < written[0] <= 256 and 40 < written[1] <= 64

    class Ending(ByteTokenizer):
        eos_id = ord(" ")

    ending = dataclasses.replace(it, tokenizer=Ending())
    assert speed._decoding(ending, 4.0)() == written[1]
