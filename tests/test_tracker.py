"""Metrics in an experiment tracker: a library that keeps or fails as it likes."""

import dataclasses
import importlib.util
import json
import math

import pytest

from helpers import arguments_of, run
from octavo import train
from octavo.configs.checks import ConfigError
from octavo.training.metrics import MetricsLog
from octavo.training.tracker import Tracker, check_tracker

FAKE = """
import json
calls, fails, next_step = [], (), 0
class Run:
    def __init__(self): self._next_step = next_step
    def log(self, values, step):
        if "log" in fails and step == 2: raise RuntimeError("no room\\nmore")
        calls.append(["log", step, values])
    def finish(self):
        if "finish" in fails: raise OSError("gone")
        calls.append(["finish"])
        print(json.dumps(calls))
def init(**how):
    if "init" in fails: raise ValueError("no key")
    print("noise")
    seed = how["config"]["train"]["seed"]
    calls.append(["init", how["project"], how["name"], how["resume"], seed])
    return Run()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """What stands in for trackio."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "trackio.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "library")
    monkeypatch.delitem(importlib.sys.modules, "trackio", raising=False)
    yield importlib.import_module("trackio")
    importlib.sys.modules.pop("trackio")


@pytest.fixture
def config(tiny):
    changed = dataclasses.replace(tiny.train, tracker="trackio", evaluation_bytes=0, sample_bytes=0)
    return dataclasses.replace(tiny, train=changed)


def test_a_run_goes_on_in_its_tracker(fake, config, tmp_path, capsys):
    """What is not finite stays out; what the tracker has is not sent twice."""
    workdir = tmp_path / "a run"
    workdir.mkdir()
    for first, known in ((0, 0), (2, 4)):
        fake.next_step = known
        log = MetricsLog(workdir, first, Tracker(config, workdir))
        for step in range(first + 1, 6):
            log.write(step, {"a": step / 2, "b": math.nan})
        log.close()
        log.close()  # as one does after a failure
    sent = [call for call in fake.calls if call[0] == "log"]
    assert sent == [["log", step, {"a": step / 2}] for step in (1, 2, 3, 4, 5, 4, 5)]
    first, second = [call for call in fake.calls if call[0] == "init"]
    assert first == second and first[1] == "octavo" and first[3:] == ["allow", 0]
    id = json.loads((workdir / "tracker.json").read_text())["trackio"]
    assert first[2] == f"a run-{id}"
    assert fake.calls.count(["finish"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("noise") == 2


@pytest.mark.parametrize("when", ["init", "log", "finish"])
def test_its_failure_is_one_warning(fake, config, tmp_path, capsys, when):
    fake.fails = (when,)
    log = MetricsLog(tmp_path, 0, Tracker(config, tmp_path))
    for step in (1, 2, 3):
        log.write(step, {"a": 1.0})
    log.close()
    assert capsys.readouterr().err.count("warning: no more metrics to trackio: ") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    logged = [call[1] for call in fake.calls if call[0] == "log"]
    assert logged == {"init": [], "log": [1], "finish": [1, 2, 3]}[when]


def test_training_with_a_tracker(fake, config, tmp_path):
    """It is told all that metrics.jsonl is, and waited for."""
    where = {"PYTHONPATH": str(tmp_path / "library")}
    done = run("train.py", "flat", *arguments_of(config, tmp_path / "run"), **where)
    assert done.returncode == 0 and "noise" not in done.stdout, done.stderr
    calls = json.loads(done.stderr.splitlines()[-1])
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [{"step": call[1]} | call[2] for call in calls[1:-1]] == list(map(json.loads, rows))
    assert len(rows) == 30 and calls[-1] == ["finish"]


def test_a_library_that_is_missing(config, tmp_path, monkeypatch):
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    (tmp_path / "wandb").mkdir()  # as wandb itself leaves one, which is no library
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    changed = dataclasses.replace(config.train, tracker="wandb")
    workdir = tmp_path / "run"
    with pytest.raises(ConfigError, match="the library wandb, which is not installed: pip install"):
        train.train(dataclasses.replace(config, train=changed, workdir=str(workdir)))
    assert not workdir.exists()
    check_tracker("none")
