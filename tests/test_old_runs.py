"""Runs that earlier revisions made open, score and continue as they did then.

tests/data/runs/README.md says how they were made. A revision that changes them on purpose keeps
them, and adds runs of its own."""

import json
import shutil

import pytest

from helpers import ROOT, metrics_of, run

RUNS = ROOT / "tests" / "data" / "runs"
TINY = [
    *("--data.length", "64", "--data.batch-size", "8"),
    *("--optimizer.warmup-steps", "4", "--train.steps", "20"),
    *("--train.checkpoint-every", "10", "--train.keep-checkpoints", "2"),
    *("--train.evaluation-bytes", "2000", "--train.sample-bytes", "0"),
    *("--model.width", "16", "--model.layers", "1", "--model.heads", "1"),
]
"""The command lines of the runs, on top of their presets."""
STAGE = [
    *("--model.stages.0.width", "16", "--model.stages.0.heads", "1"),
    *("--model.stages.0.encoder-layers", "1", "--model.stages.0.decoder-layers", "1"),
]
COMMANDS = {"flat": ["flat", *TINY], "hnet": ["hnet", *TINY, *STAGE]}


@pytest.fixture(params=COMMANDS)
def old(request, tmp_path):
    """A copy of an old run and its corpus."""
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    return tmp_path / request.param


def test_an_old_run_scores_what_it_did(old):
    out = old.parent / "score.json"
    done = run("evaluate.py", str(old), "--data", str(old.parent / "corpus"), "--json", str(out))
    assert done.returncode == 0, done.stderr
    recorded = json.loads((old / "results.json").read_text())["heldout/bits_per_byte"]
    score = json.loads(out.read_text())
    assert score["step"] == 20
    assert score["bits_per_byte"] == pytest.approx(recorded, rel=1e-4)


def test_an_old_run_continues_as_it_did(old):
    """From its checkpoint at step 10, through the same steps."""
    recorded = metrics_of(old)
    shutil.rmtree(old / "checkpoints" / "20")
    corpus = str(old.parent / "corpus")
    arguments = [*COMMANDS[old.name], "--data.source", corpus, "--workdir", str(old)]
    done = run("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "continues at step 10" in done.stdout
    now = metrics_of(old)
    assert now.keys() == recorded.keys() == set(range(1, 21))
    for step in range(11, 21):
        name = "train/bits_per_byte"
        assert now[step][name] == pytest.approx(recorded[step][name], rel=1e-3), step
