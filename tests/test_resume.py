"""A run killed at any moment and resumed equals one that was not, bit for bit."""

import dataclasses
import random
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import ROOT, arguments_of, metrics_of, run, saved_params, start
from octavo.configs.checks import ConfigError
from octavo.run.errors import CheckpointError
from octavo.settings import parse_config
from octavo.train import train

pytestmark = pytest.mark.xdist_group("resume")  # one worker, one run to compare with

PREEMPTED = 75


@pytest.fixture(scope="module")
def config(tiny):
    train = dataclasses.replace(
        tiny.train, steps=60, checkpoint_every=10, evaluation_bytes=0, sample_bytes=0
    )
    return dataclasses.replace(tiny, train=train)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that nobody stopped: its folder, metrics and parameters."""
    workdir = tmp_path_factory.mktemp("whole")
    done = run("train.py", "flat", *arguments_of(config, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, metrics_of(workdir), saved_params(workdir)


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(whole[0], tmp_path / "run")


def reached(workdir: Path, step: int) -> bool:
    log = workdir / "metrics.jsonl"
    return log.exists() and log.read_bytes().count(b"\n") >= step


def writing(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*tmp*"))


def newest_of(workdir: Path) -> Path:
    steps = (p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    return max(steps, key=lambda p: int(p.name))


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.0005)
    assert process.poll() is None, "the run ended before it could be stopped"


def check_equal(workdir, config, whole):
    _, metrics, params = whole
    assert metrics_of(workdir) == metrics
    for a, b in zip(saved_params(workdir), params, strict=True):
        np.testing.assert_array_equal(a, b)


def test_killed_many_times(config, whole, tmp_path):
    """SIGKILL before the first step, between checkpoints, and during the writing of one."""
    chance = random.Random(0)
    moments = [
        lambda: (tmp_path / "config.json").exists(),
        lambda: writing(tmp_path),
        lambda: reached(tmp_path, 31) and writing(tmp_path),
        lambda: reached(tmp_path, chance.randint(40, 55)),
    ]
    for moment in moments:
        process = start("train.py", "flat", *arguments_of(config, tmp_path))
        wait_for(moment, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = run("train.py", "flat", *arguments_of(config, tmp_path))
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path, config, whole)


def test_sigterm_saves_and_says_so(config, whole, tmp_path):
    process = start("train.py", "flat", *arguments_of(config, tmp_path))
    wait_for(lambda: reached(tmp_path, 13), process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == PREEMPTED
    goes_on = f"continue with: python {shlex.quote(str(ROOT / 'train.py'))} --workdir {tmp_path}."
    assert stderr.endswith(f"is saved in {tmp_path}; {goes_on}\n")
    assert int(newest_of(tmp_path).name) == len(metrics_of(tmp_path)) >= 13
    done = run("train.py", "--workdir", str(tmp_path))  # as it says: with the run's own settings
    assert done.returncode == 0 and "changed" not in done.stdout, done.stderr
    check_equal(tmp_path, config, whole)


def test_damaged_checkpoint_falls_back_loudly(config, whole, finished):
    """A bit flipped in the newest checkpoint's arrays: the one before is used, and it is said.
    Nor are damaged parameters evaluated."""
    newest = newest_of(finished)
    arrays = max(
        (p for p in (newest / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    whole_file = arrays.read_bytes()

    def read_with(at):
        data = bytearray(whole_file)
        data[at] ^= 0x10
        arrays.write_bytes(data)
        saved_params(finished)

    # Some bytes of such a file belong to nothing.
    with pytest.raises(CheckpointError, match=str(newest)):
        for at in range(len(whole_file) // 2, len(whole_file), 1000):
            read_with(at)
    done = run("train.py", "flat", *arguments_of(config, finished))
    assert done.returncode == 0, done.stderr
    assert f"{newest} cannot be read" in done.stdout and "set aside" in done.stdout
    assert newest.with_name(f"{newest.name}.damaged").exists()
    check_equal(finished, config, whole)


def again(config, workdir, *more):
    """The same command, in this process."""
    train(parse_config("train.py", "", ["flat", *arguments_of(config, workdir), *more]))


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize("name", ["meta", "opt"])
def test_missing_file_in_checkpoint_falls_back(config, whole, finished, name):
    newest = newest_of(finished)
    empty(newest / name)
    done = run("train.py", "flat", *arguments_of(config, finished))
    assert done.returncode == 0, done.stderr
    assert f"{newest} cannot be read" in done.stdout
    check_equal(finished, config, whole)


def test_no_readable_checkpoint_is_one_sentence(config, finished):
    empty(finished / "checkpoints")
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        again(config, finished)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model.heads", "4"], "another model (heads: saved 2, asked for 4)"),
        (["--data.batch-size", "16"], "another data plan (batch_size: saved 8, asked for 16)"),
        (["--train.seed", "1"], "seed: saved 0, asked for 1"),
        (["--data.packing", "best_fit"], "packing: saved 'concat', asked for 'best_fit'"),
    ],
)
def test_a_changed_run_is_refused(config, finished, change, said):
    before = sorted(finished.rglob("*"))
    with pytest.raises(ConfigError, match=re.escape(said)):
        again(config, finished, *change)
    assert sorted(finished.rglob("*")) == before


def test_finished_run_stays(config, finished):
    """Asked for again, a finished run does nothing; asked for more steps, it goes on."""
    before = metrics_of(finished)
    assert run("train.py", "flat", *arguments_of(config, finished)).returncode == 0
    assert metrics_of(finished) == before
    more = [*arguments_of(config, finished), "--train.steps", "63", "--train.rewarm", "True"]
    done = run("train.py", "flat", *more)
    assert done.returncode == 0 and "train.steps: saved 60, asked for 63" in done.stdout
    after = metrics_of(finished)
    assert list(after) == list(range(1, 64)) and {s: after[s] for s in before} == before
