"""Certificates: what a score promises is compressed, restored, and can be checked by others; a
model that looks ahead is caught."""

import dataclasses
import hashlib
import json
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import octavo
from helpers import opened, run, shrink, start, words
from octavo import cli, evaluate
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.data.heldout import Held, heldout_documents
from octavo.data.shards import Corpus
from octavo.evaluation.measures import certify
from octavo.model.units.segmenters.whitespace import WhiteSpace
from octavo.run import codec
from octavo.run.opened import Run
from octavo.training.trainer import Trainer

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


def certified(it, pieces, folder):
    nats = it.score([one.text for one in pieces]).document_nats
    return certify.certify(it, "the run", pieces, nats, folder)


@pytest.fixture(scope="module")
def it(tiny):
    return opened(tiny)


PIECES = [Held(words(i, 150), "corpus", label) for i, label in enumerate("ab")]


def restore(command: str, cwd: Path) -> tuple[int, str]:
    """What a person does with the decoder's command: its exit code, and what went wrong."""
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", "compress.py")
    process = start(script, *arguments, cwd=cwd)
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def test_certificate_that_others_check(trained, tmp_path):
    out = tmp_path / "rows.json"
    folder = tmp_path / "it is here"
    done = run(
        "evaluate.py", str(trained[0]), "certify", "--most-bytes", "400", "--certificate",
        str(folder), "--json", str(out),
    )  # fmt: skip
    assert done.returncode == 0 and "it proves the score" in done.stdout, done.stderr
    assert "of the" in done.stdout and "bytes held out" in done.stdout
    about = json.loads((folder / "certificate.json").read_text())
    assert about["decoder"] in done.stdout
    assert about["proves"] is True and about["why"] is None and about["step"] == 30
    assert len(about["pieces"]) == 4 and 300 < about["bytes"] <= 400
    for piece in about["pieces"]:
        for kind, name in (("sha256", "file"), ("compressed_sha256", "compressed")):
            data = (folder / piece[name]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == piece[kind]
        assert (folder / piece["file"]).stat().st_size == piece["bytes"]
        size = (folder / piece["compressed"]).stat().st_size
        assert size == piece["compressed_bytes"]
        assert size - codec.HEADER == pytest.approx(piece["bits"] / 8, rel=0.01, abs=5)
    assert about["overhead_bytes"] == 4 * codec.HEADER
    assert about["bits_per_byte_file"] == 8 * about["compressed_bytes"] / about["bytes"]
    pieces = [(folder / f"{i}.txt").read_bytes() for i in range(4)]
    score = octavo.open_run(trained[0]).score(pieces).bits_per_byte
    assert about["bits_per_byte_score"] == pytest.approx(score, rel=1e-5)
    rows = json.loads(out.read_text())["certify"]
    assert [row["piece"] for row in rows] == ["0.txt", "1.txt", "2.txt", "3.txt", "all"]
    assert rows[4]["payload_bytes"] == about["compressed_bytes"] - about["overhead_bytes"]

    code, said = restore(about["decoder"], tmp_path)
    assert code == 0, said
    assert (tmp_path / "restored.txt").read_bytes() == pieces[0]
    damaged = bytearray((folder / "0.oct").read_bytes())
    damaged[codec.HEADER + 3] ^= 1
    (folder / "0.oct").write_bytes(damaged)
    code, said = restore(about["decoder"], tmp_path)
    assert code == 2 and "0.oct cannot be decompressed" in said


def test_a_file_in_the_place_of_a_run(trained, tmp_path):
    """Where nothing else is said, in the run; what lay there of a larger one is gone."""
    text, folder = tmp_path / "text", trained[0] / "certificate"
    text.write_bytes(words(7, 90) + b"\xff")
    folder.mkdir()
    for name in ("3.txt", "3.oct"):
        (folder / name).write_bytes(b"of another time")
    asked = cli.parse(evaluate.Arguments, "x.py", "", [str(trained[0]), "certify", "--text",
                                                      str(text), "--most-bytes", "60"])  # fmt: skip
    rows = evaluate.evaluate(asked)["certify"]
    assert [row["bytes"] for row in rows] == [60, 60] and rows[1]["proves"]
    assert sorted(path.name for path in folder.iterdir()) == ["0.oct", "0.txt", "certificate.json"]
    assert (folder / "0.txt").read_bytes() == text.read_bytes()[:60]
    found = certify.read_certificate(folder)
    assert found and found["run"] == str(trained[0])
    (folder / "certificate.json").write_text(json.dumps(found | {"format": 2}))
    assert certify.read_certificate(folder) is None
    (folder / "certificate.json").write_text('{"format": 1, "pie')
    assert certify.read_certificate(folder) is None
    assert certify.read_certificate(tmp_path) is None


def test_a_model_whose_units_look_ahead_is_caught(tiny, tmp_path, monkeypatch):
    """Planted: units end where the next byte, which no decoder has, is one of some. Compressed, it
    comes back, but in more bytes than the score says."""

    def rule(cls, ids, before, vocabulary):
        following = jnp.pad(ids[:, 1:], ((0, 0), (0, 1)))
        return (following % 4 == 0) | (ids == vocabulary.bos_id)

    monkeypatch.setattr(WhiteSpace, "rule", classmethod(rule))
    model = shrink(presets()["spacebyte"]).model
    stages = tuple(
        dataclasses.replace(stage, segmenter="whitespace", capacity=0.6, width=32)
        for stage in model.stages
    )
    config = dataclasses.replace(
        tiny,
        model=dataclasses.replace(model, width=32, layers=1, stages=stages),
        train=dataclasses.replace(tiny.train, steps=40),
    )
    trainer = Trainer.of(config, devices=jax.devices()[:1])
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh()
        for batch in trainer.batches():
            state, _ = trainer.step(state, trainer.place(batch))
    leaking = trainer.run(state)
    held = heldout_documents([Corpus(tiny.data.source)], 0)
    about = certified(leaking, certify.choose(held, 800), tmp_path / "certificate")
    assert not about["proves"] and all(piece["restored"] for piece in about["pieces"])
    assert "a model that looks ahead" in about["why"] and "times as many" in about["why"]
    assert about["bits_per_byte_file"] > 1.1 * about["bits_per_byte_score"]
    assert not certify.rows(about)[-1]["proves"]


def test_files_that_do_not_give_the_text_back(it, tmp_path, monkeypatch):
    """What lies on the disk is what is restored."""
    about = certified(it, PIECES, tmp_path)
    assert about["proves"] and [piece["label"] for piece in about["pieces"]] == ["a", "b"]
    compress = Run.compress

    def damaged(self, text, progress):
        packed = bytearray(compress(self, text))
        packed[codec.HEADER + 3] ^= 1
        return bytes(packed)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "compress", damaged)
        about = certified(it, PIECES, tmp_path)
    assert not about["proves"] and about["why"].startswith("0.oct cannot be restored: ")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "decompress", lambda self, data, progress: b"another text")
        about = certified(it, PIECES, tmp_path)
    assert not about["proves"] and about["why"] == "0.oct gives another text back."
    assert not any(piece["restored"] for piece in about["pieces"])
    # A score that is too good, or too bad, for what compresses.
    nats = it.score([one.text for one in PIECES]).document_nats
    for share, said in ((0.9, "looks ahead"), (1.1, "not that of what compresses")):
        about = certify.certify(it, "r", PIECES, nats * share, tmp_path)
        assert not about["proves"] and said in about["why"]
    # One file alone.
    about = certify.certify(it, "r", PIECES, nats * [1, 0.9], tmp_path)
    assert not about["proves"] and about["why"].startswith("1 of 2 files")


def test_a_model_without_probabilities(it, tmp_path):
    params = jax.tree.map(lambda x: x * np.nan, it.params)
    about = certified(dataclasses.replace(it, params=params), PIECES, tmp_path)
    assert not about["proves"] and "0.txt cannot be compressed: the model predi" in about["why"]
    assert about["compressed_bytes"] is None and not (tmp_path / "0.oct").exists()
    assert certify.rows(about)[-1]["payload_bytes"] is None
    assert json.loads((tmp_path / "certificate.json").read_text())["bits_per_byte_score"] is None


def test_progress_is_told(it, tmp_path):
    told = []
    nats = it.score([PIECES[0].text]).document_nats
    certify.certify(it, "r", PIECES[:1], nats, tmp_path, lambda done, of: told.append((done, of)))
    assert len(told) > 10 and told == sorted(told) and told[-1] == (302, 302)


def test_pieces():
    """Of as many labels as there are, spread, and no longer than asked for."""

    def held(*sizes, labels=None):
        labels = labels or [None] * len(sizes)
        return [Held(b"x" * size, "c", label) for size, label in zip(sizes, labels, strict=True)]

    def chosen(documents, most):
        return [(len(one.text), one.label) for one in certify.choose(documents, most)]

    assert chosen(held(900), 0) == [(900, None)]
    assert chosen(held(9000), 0) == [(2048, None)]
    assert chosen(held(*[900] * 20), 400) == [(100, None)] * 4
    many = held(*[900] * 100, labels=[f"{i}" for i in range(100)])
    assert chosen(many, 400) == [(100, "0"), (100, "25"), (100, "50"), (100, "75")]
    uneven = held(*[900] * 12, labels=["a"] * 10 + ["b", "c"])
    assert {label for _, label in chosen(uneven, 400)} == {"a", "b", "c"}
    assert len(chosen(uneven, 400)) == 4
    short = held(*[9] * 12, labels=["a"] * 10 + ["b", "c"])
    assert sorted({label for _, label in chosen(short, 400)}) == ["a", "b", "c"]
    assert chosen(held(0, 5), 400) == [(5, None)]
    assert certify.choose(held(0), 400) == []


def test_what_cannot_work_is_refused_first(trained, tmp_path):
    file, folder = tmp_path / "0.txt", str(tmp_path)
    file.write_bytes(b"some text")
    it = str(trained[0])
    for arguments, said in (
        ([it, "bits", "--certificate", folder], "--certificate is for certify alone"),
        ([it, "certify", "--certificate", "s3://b/c"], "s3://b/c is no file or folder of this"),
        ([it, "certify", "--certificate", str(file)], "0.txt is a file; name a folder"),
        ([it, "certify", "--certificate", str(tmp_path / "no" / "no")], "there is no folder"),
        ([it, "certify", "--certificate", f"{it}/checkpoints"], "is what this command reads"),
        ([it, "certify", "--overlap", "3"], "--overlap is not for certify"),
        ([it, "certify", "--text", str(file), "--certificate", folder], "what this command reads"),
        ([it, "certify", "--parallel", folder], "fairness needs --parallel"),
        (["s3://bucket/run", "certify"], "name a folder with --certificate"),
    ):
        asked = cli.parse(evaluate.Arguments, "x.py", "", arguments)
        with pytest.raises(ConfigError, match=said):
            evaluate.evaluate(asked)
    assert file.read_bytes() == b"some text" and [p.name for p in tmp_path.iterdir()] == ["0.txt"]
