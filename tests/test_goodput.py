"""Where the time of a run went, how it is said, and that the chips were asked first."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from helpers import ROOT
from octavo import cli, process, train
from octavo.configs.checks import ConfigError
from octavo.configs.schema import TrainConfig, profiled
from octavo.launch.report import report
from octavo.run.goodput import Clock, account
from octavo.training import health
from octavo.training.errors import DeviceError
from octavo.training.trainer import Trainer


def line(began: float, first: int, at: int, host: float = 1.0, **seconds: float) -> bytes:
    row = {"began": began, "from": first, "step": at, "seconds": seconds}
    return json.dumps(row | {"host_memory_bytes": host}).encode()


KILLED = [
    line(100, 0, 0, start=3.0),
    line(100, 0, 10, 5.0, start=3.0, compile=7.0, step=20.0, data=1.0, save=2.0),
    line(100, 0, 16, 9.0, start=3.0, compile=7.0, step=32.0, data=2.0, save=2.0),
    b'{"began": 100, "from": 0, "st', b"", b"[]", b"null", b'{"began": 1, "from": 0}',
    b'{"began": 1, "from": 0, "step": 1, "seconds": {"step": null}}',
    line(150, 10, 10, start=1.0, restore=2.0),
    line(150, 10, 20, start=1.0, restore=2.0, compile=1.0, step=20.0, score=6.0),
]  # fmt: skip


def test_what_a_kill_lost():
    """All that came after the step that the next start went on from; nothing before."""
    found = account(KILLED)
    assert found is not None and found.starts == 2 and found.first_step == 0
    assert found.seconds == pytest.approx({
        "step": 40, "compile": 8, "restore": 2, "data": 1, "save": 2, "score": 6, "profile": 0,
        "start": 4, "lost": 13,
    })  # fmt: skip
    assert found.total == 76 and found.goodput == pytest.approx(40 / 76)
    assert found.away == 150 - 146 and found.peaks == {"host_memory_bytes": 9.0}
    assert account([b"", b"{"]) is None


def test_steps_lost_twice():
    """Where the checkpoint of the second start was damaged, a third goes on from before it."""
    found = account([*KILLED, line(200, 0, 0, start=1.0), line(200, 0, 20, start=1.0, step=41.0)])
    assert found is not None and found.seconds["step"] == 41
    assert found.seconds["lost"] == 36 + 26 and found.seconds["compile"] == 8


def test_a_clock_that_was_killed(tmp_path, monkeypatch, capsys):
    """The next one adds the steps that it had logged since its last line."""
    path = tmp_path / "goodput.jsonl"
    first = Clock()
    first.write(0, {})  # nowhere yet
    first.open(path, 0, {})
    with first.during("data"):
        assert first.spent("data") > 0 == first.spent("save")
    first.write(4, {})
    with path.open("a") as file:
        file.write('{"cut sh')
    Clock().open(path, 4, {3: 9.0, 5: 2.0, 6: 0.5})
    rows = [json.loads(each) for each in path.read_text().splitlines() if each.endswith("}")]
    assert [row["step"] for row in rows] == [4, 6] and rows[0]["began"] == rows[1]["began"]
    assert rows[1]["seconds"]["step"] == pytest.approx(rows[0]["seconds"]["step"] + 2.5)
    first.open(tmp_path / "gone" / "goodput.jsonl", 4, {})
    first.write(5, {})
    first.write(6, {})
    assert capsys.readouterr().err.count("no more is kept of where the time goes") == 1


def test_a_run_that_died_and_went_on(tiny, tmp_path, monkeypatch):
    """It tells of both starts, and its death cut no trace short."""
    place, placed = Trainer.place, itertools.count(1)

    def fails(self, batch):
        if next(placed) == 16:
            raise OSError("the disk of the data is gone")
        return place(self, batch)

    settings = dataclasses.replace(
        tiny.train, steps=18, checkpoint_every=6, evaluation_bytes=500, sample_bytes=0
    )
    config = dataclasses.replace(tiny, train=settings, workdir=str(tmp_path))
    asked = dataclasses.replace(config, train=dataclasses.replace(settings, profile="14:17"))
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "place", fails)
        with pytest.raises(OSError, match="is gone"):
            train.train(asked)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    train.train(config)

    found, lines = report("it", tmp_path)
    assert found["status"] == "finished at step 18" and found["starts"] == 2
    seconds = found["seconds"]
    assert min(seconds[name] for name in ("step", "compile", "save", "score", "restore")) > 0
    assert seconds["lost"] > 0 == seconds["profile"] and 0 < found["goodput"] < 1
    times = found["step_seconds"]
    assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert 0 <= found["data_wait"] < 1 and found["bytes_per_second"] > 0
    assert any(line.startswith("goodput ") and "in 2 starts" in line for line in lines)


def reported(*arguments: str) -> subprocess.CompletedProcess:
    """The command, where JAX cannot be imported."""
    code = (
        "import sys; sys.modules['jax'] = sys.modules['jaxlib'] = None\n"
        "from octavo import cli\nfrom octavo.launch import report\ncli.run(report.main)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_report_of_any_folder(tmp_path):
    """Of a run of an earlier revision, a damaged one, an empty one, and of none."""
    old, out = ROOT / "tests" / "data" / "runs" / "flat", tmp_path / "out.json"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{}")
    rows = [{"step": i, "train/bytes": 100 * i, "perf/step_seconds": 0.1 * i} for i in (1, 2, 3)]
    lines = [json.dumps(row | {"perf/mfu": 0.25}) for row in rows]
    (damaged / "metrics.jsonl").write_text("\n".join([lines[0], '{"st', *lines[1:], '{"step": 4']))
    (damaged / "goodput.jsonl").write_bytes(b"\n".join(KILLED))
    done = reported(str(old), str(damaged), "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f"warning: {damaged}: 1 of the lines of metrics.jsonl hold no step and are left out, the "
        "first of them line 2\n"
    )
    assert done.stdout.count("not known") == 2 and "2 starts, 0:04 away; lost 17.1%" in done.stdout
    assert "p50 0.2 s" in done.stdout and "max 0.3 s (step 3)" in done.stdout
    first, second = json.loads(out.read_text())
    assert first["step"] == 20 and "goodput" not in first
    assert second["bytes_per_second"] == pytest.approx(500) and second["mfu"] == 0.25
    (damaged / "metrics.jsonl").write_text("")
    for folder, code, said in (
        (damaged, 1, "has logged no step yet"),
        (tmp_path, 2, "is no run directory: it has no config.json"),
    ):
        done = reported(str(folder))
        assert done.returncode == code and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("steps", ["", "20", "20:", ":5", "0:5", "7:6", "a:b", "1:2:3", "-1:5"])
def test_ranges_that_are_none(steps):
    with pytest.raises(ConfigError, match="train.profile is FIRST:LAST"):
        TrainConfig(profile=steps)


def test_ranges_that_are_some():
    assert profiled("20:25") == (20, 25) and profiled("3:3") == (3, 3)
    with pytest.raises(ConfigError, match="ends after the last step, 20"):
        TrainConfig(steps=20, profile="20:21")


def chips(monkeypatch, fault) -> None:
    """Device 3 answers with what ``fault`` makes of its product."""
    right, third = health._square, jax.local_devices()[3]
    monkeypatch.setattr(
        health, "_square", lambda x: fault(right(x)) if x.device == third else right(x)
    )


def test_a_chip_that_computes_wrongly(tiny, tmp_path, monkeypatch):
    """It is named before anything else is done; so is one that fails."""
    health.check_devices()
    config = dataclasses.replace(tiny, workdir=str(tmp_path / "run"))
    chips(monkeypatch, lambda x: x.at[5, 7].add(1))
    with pytest.raises(DeviceError) as raised:
        train.train(config)
    said, code = cli._outcome(raised.value)
    assert code == process.FAILED and not (tmp_path / "run").exists()
    assert said.startswith(f"device {jax.local_devices()[3]} of host 0 (")
    assert "1 of 262144 numbers are wrong" in said
    chips(monkeypatch, lambda x: 1 / 0)
    with pytest.raises(DeviceError, match=":3 of host 0 .*: division by zero"):
        health.check_devices()


def test_links_that_sum_wrongly(monkeypatch):
    right = jnp.sum
    monkeypatch.setattr(health.jnp, "sum", lambda x: right(x) + 1)
    with pytest.raises(DeviceError, match="sum over all 8 devices .* 8 of 8 numbers are wrong"):
        health.check_devices()


def test_a_chip_that_does_not_answer(monkeypatch):
    def end(sentence, code):
        raise InterruptedError(code, sentence)

    for_ever, third = threading.Event(), jax.local_devices()[3]
    monkeypatch.setattr(health, "PATIENCE", 0.1)
    monkeypatch.setattr(process, "end", end)
    chips(monkeypatch, lambda x: for_ever.wait())
    monkeypatch.setattr(jax, "local_devices", lambda: [third])
    with pytest.raises(InterruptedError) as raised:
        health.check_devices()
    for_ever.set()
    assert raised.value.errno == process.STALLED == 70
    said = raised.value.strerror
    assert said.startswith(f"device {third} of host 0 (")
    assert "does not answer within 0.1 seconds" in said
