"""Nothing waits for ever, and nothing is lost when the machine misbehaves."""

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import google_crc32c
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from octavo import cli, process, train
from octavo.cli import RunError
from octavo.data.errors import WorkerError
from octavo.data.pipeline import batches, make_plan
from octavo.training import lifecycle
from octavo.training.metrics import MetricsLog


def metrics(folder) -> list[dict]:
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def events(folder) -> list[event_pb2.Event]:
    """What TensorBoard reads of an event file, checksums included."""
    (file,) = (folder / "tensorboard").iterdir()
    data, found = file.read_bytes(), []

    def part(size):
        nonlocal data
        content, crc, data = data[:size], data[size : size + 4], data[size + 4 :]
        value = google_crc32c.value(content)
        masked = (((value >> 15) | (value << 17)) + 0xA282EAD8) % 2**32
        assert struct.unpack("<I", crc) == (masked,)
        return content

    while data:
        (size,) = struct.unpack("<Q", part(8))
        found.append(event_pb2.Event.FromString(part(size)))
    return found


def test_metrics_are_json_and_events_are_read(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 1.5, "norm": float("nan")})
    log.write(2, {"loss": float("-inf"), "norm": 2.0})
    log.close()
    assert metrics(tmp_path) == [
        {"step": 1, "loss": 1.5, "norm": None, "nonfinite": ["norm"]},
        {"step": 2, "loss": None, "norm": 2.0, "nonfinite": ["loss"]},
    ]
    first, *rest = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    scalars = [(e.step, v.tag, v.simple_value) for e in rest for v in e.summary.value]
    assert scalars == [(1, "loss", 1.5), (2, "norm", 2.0)]


def test_metrics_after_a_kill(tmp_path):
    """Damage costs the damaged lines, and no other up to the step that is continued from."""
    lines = ['{"step": 1, "loss": NaN}', '{"st', "[1]", "null", '{"step": 2}', '{"step": 4}', '{"s']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    MetricsLog(tmp_path, 3).close()
    assert metrics(tmp_path) == [{"step": 1, "loss": None}, {"step": 2}]
    assert events(tmp_path)[1].step == 4  # what TensorBoard saw from here on comes again
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}


class Full:
    """A file on a full disk, after so many bytes."""

    def __init__(self, name, room):
        self.name, self.room = name, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)

    def flush(self):
        pass

    def close(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_events_end_nothing(tmp_path, capsys):
    log = MetricsLog(tmp_path, 0)
    log._events._file = Full("events", 500)
    for step in range(1, 100):
        log.write(step, {"loss": 1.0})
    log.close()
    assert len(metrics(tmp_path)) == 99
    assert capsys.readouterr().err.count("no more TensorBoard events: events: No space left") == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tensorboard").write_text("a file where the folder should be")
    log = MetricsLog(tmp_path / "other", 0)
    log.write(1, {"loss": 1.0})
    assert "no more TensorBoard events" in capsys.readouterr().err
    log._file = Full("metrics", 0)
    with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl"):
        log.write(2, {"loss": 1.0})


def script(body: str, before: str = "", **more) -> subprocess.Popen:
    """A command of ours whose main is ``body``. It prints "ready" on stderr when it likes.
    before: what a shell does first."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"""
import ctypes, os, signal, sys, threading, time
from octavo import cli, process
process.PATIENCE = 0.3
def ready():
    os.write(2, b"ready\\n")
def blocked():
    "Compiled code that no signal interrupts."
    signal.pthread_sigmask(signal.SIG_BLOCK, process.SIGNALS)
    ready()
    ctypes.CDLL(None).sleep(600)
def main():
{lines}
"""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    prints = settings.pop("prints", False)
    call = [sys.executable, "-c", f"{text}\ncli.run(main, prints={prints})"]
    return subprocess.Popen(["sh", "-c", f'{before} exec "$@"', "sh", *call], **settings)


def ended(process, *signals) -> tuple[int, str]:
    """Exit code and what was said, after these signals."""
    if signals:
        assert process.stderr.readline() == "ready\n"
    for number in signals:
        process.send_signal(number)
        time.sleep(0.1)
    said = process.communicate(timeout=40)[1]
    return process.returncode, said


BY = "stopped: by {}. What was finished is kept; run the same command again.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_one_line(number):
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    swallows = "ready()\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass"
    assert ended(script(swallows), number) == (75, BY.format(name))


def test_signals_where_the_main_thread_does_not_answer():
    assert ended(script("blocked()"), signal.SIGTERM) == (75, BY.format("SIGTERM"))
    # A loop that saves first is not hurried, unless it is asked twice.
    loop = "signal.signal(signal.SIGINT, lambda *_: None)\n"
    saves = script(f"{loop}ready()\ntime.sleep(0.8)\nprint('saved', file=sys.stderr)")
    assert ended(saves, signal.SIGINT) == (0, "saved\n")
    twice = ended(script(f"{loop}blocked()"), signal.SIGINT, signal.SIGINT)
    assert twice == (75, BY.format("Ctrl-C"))


def test_nohup_stays():
    ignored = script("ready()\ntime.sleep(0.5)", before="trap '' HUP;")
    assert ended(ignored, signal.SIGHUP) == (0, "")


SPEAKS = (
    "for i in range(3):\n    print(i, flush=True)\n    time.sleep(0.1)\nopen({!r}, 'w').close()"
)


@pytest.mark.parametrize(
    ("output", "prints", "code", "said", "finished"),
    [
        ("gone", False, 0, "warning: standard output: nobody reads it any more", True),
        ("full", False, 1, "error: standard output: No space left", True),
        ("closed", False, 0, "", True),
        ("gone", True, 0, "", False),
        ("full", True, 1, "error: standard output: No space left", False),
    ],
)
def test_output_that_cannot_be_written(output, prints, code, said, finished, tmp_path):
    done = tmp_path / "done"
    read, write = os.pipe()
    os.close(read)
    stdout = {"gone": write, "full": os.open("/dev/full", os.O_WRONLY), "closed": None}[output]
    before = "exec >&-;" if output == "closed" else ""
    spoken = ended(script(SPEAKS.format(str(done)), before, stdout=stdout, prints=prints))
    assert spoken[0] == code and said in spoken[1] and bool(spoken[1]) == bool(said)
    assert done.exists() == finished
    if output == "closed":
        assert done.read_bytes() == b""  # it did not become the standard output


def test_a_line_is_written_when_it_is_said(monkeypatch):
    """Also where streams are to be unbuffered, as in a container."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    kill = "print('said', file=sys.stderr)\nos.kill(os.getpid(), signal.SIGKILL)"
    assert ended(script(kill)) == (-signal.SIGKILL, "said\n")


def test_watchdog_ends_the_process():
    code, said = ended(
        script(
            "from octavo.training.lifecycle import Watchdog\n"
            "with Watchdog(0.2) as watchdog:\n"
            "    for _ in range(10):\n"
            "        watchdog.alive()\n"
            "        time.sleep(0.1)\n"
            "    time.sleep(60)"
        )
    )
    assert code == process.STALLED == 70
    assert "most recent call first" in said  # the stacks
    assert "error: training: nothing moved for 0.2 seconds" in said


def test_watchdog_at_the_start():
    code, said = ended(
        script(
            "from octavo.training.lifecycle import Watchdog\n"
            "with Watchdog(0.1):\n"
            "    time.sleep(0.2)\n"
            "with Watchdog(0):\n"
            "    time.sleep(0.2)\n"
            "with Watchdog(0.1):\n"
            "    time.sleep(60)"
        )
    )
    assert code == 70 and "error: starting: nothing moved for 0.4 seconds" in said


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


WORK = """
from octavo.configs.schema import DataConfig
from octavo.data.pipeline import batches, make_plan
import multiprocessing, numpy as np
plan = make_plan(DataConfig(source={!r}, length=64, batch_size=8), 0)
stream = batches(plan, np.arange(8), first_step=0, steps=10**6, workers=2)
next(stream)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
ready()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_data_workers_end_with_their_parent(corpus, number):
    trainer = script(WORK.format(corpus))
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(workers) == 2 and not any(map(gone, workers))
    for worker in workers:  # as all of a group get it: the trainer decides
        os.kill(worker, signal.SIGTERM)
    code, said = ended(trainer, number)
    assert code == (75 if number == signal.SIGTERM else -9)
    assert said == (BY.format("SIGTERM") if number == signal.SIGTERM else "")
    wait_until(lambda: all(map(gone, workers)))


def test_killed_data_worker_is_an_error(tiny):
    plan = make_plan(tiny.data, 0)
    before = set(multiprocessing.active_children())
    stream = batches(plan, np.arange(8), first_step=0, steps=10**6, workers=1)
    next(stream)
    time.sleep(1)  # killed within a lock of multiprocessing, it would leave it locked
    for worker in set(multiprocessing.active_children()) - before:
        worker.kill()
    with pytest.raises(WorkerError, match="a worker process was killed"):
        for _ in range(1000):
            next(stream)


PREPARE = """
from pathlib import Path
from types import SimpleNamespace
from octavo.data.prepare import _prepare_unit, _run
from octavo.data.sources import Unit
from octavo.data.split import Rule
from octavo.tokenizers.bytes import ByteTokenizer
import multiprocessing
def tell():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    time.sleep(1)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    ready()
threading.Thread(target=tell, daemon=True).start()
out = Path({!r})
unit = Unit("text", (str(out / "fifo"),))
jobs = [(unit, i, (), out, ByteTokenizer(), Rule(0.0), None) for i in range(4)]
list(_run(_prepare_unit, jobs, 2))
"""


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM", "worker"])
def test_preparing_workers(way, tmp_path):
    """They wait for a pipe that nobody fills, until the parent, or one of them, ends."""
    os.mkfifo(tmp_path / "fifo")
    parent = script(PREPARE.format(str(tmp_path)))
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and not any(map(gone, workers))
    if way == "worker":
        os.kill(workers[0], signal.SIGKILL)
        code, said = ended(parent)
        assert code == 1 and "error: a worker process was killed" in said, said
        assert "Traceback" not in said
    else:
        code, said = ended(parent, signal.Signals[way])
        expected = (75, BY.format(way)) if way == "SIGTERM" else (-9, "")
        assert (code, said) == expected
    wait_until(lambda: all(map(gone, workers)))


def test_scoring_cannot_lose_the_training(tiny, tmp_path, monkeypatch, capsys):
    def fails(*arguments, **options):
        raise MemoryError("a very long document")

    monkeypatch.setattr("octavo.run.opened.score", fails)
    monkeypatch.setattr("octavo.evaluation.report.write_report", fails)
    steps = dataclasses.replace(tiny.train, steps=2)
    config = dataclasses.replace(tiny, train=steps, workdir=str(tmp_path / "run"))
    with pytest.raises(RunError) as raised:
        train.train(config)
    said = str(raised.value)
    warned = capsys.readouterr().out
    assert "warning: no score, but training goes on: there is not enough memory" in warned
    assert "warning: no page of the run: MemoryError" in warned
    assert f"training is finished and saved in {tmp_path / 'run'}; scoring failed: " in said
    assert "a very long document" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["step"] == 2 and "a very long document" in results["failed"]
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()


def test_signal_while_the_last_step_is_saved():
    """It is noted until all is saved, and then says so."""
    code, said = ended(
        script(
            "from octavo.training.lifecycle import StopSignal\n"
            "with StopSignal() as stop:\n"
            "    assert not stop.requested(1)\n"
            "    ready()\n"
            "    time.sleep(0.5)\n"
            "    assert stop.requested(2)\n"
            "    process.kept = 'All is saved.'\n"
            "    stop.close()\n"
            "    time.sleep(60)"
        ),
        signal.SIGHUP,
    )
    assert (code, said) == (75, "stopped: by SIGHUP. All is saved.\n")


def test_a_watchdog_that_is_over_ends_nothing(monkeypatch):
    """Its thread may be about to set off the last resort, which ends the process a minute later."""
    calls = []

    def armed(*_, **__):
        time.sleep(0.05)
        calls.append("armed")

    monkeypatch.setattr(lifecycle.faulthandler, "dump_traceback_later", armed)
    monkeypatch.setattr(
        lifecycle.faulthandler, "cancel_dump_traceback_later", lambda: calls.append("cancelled")
    )
    for _ in range(4):
        with lifecycle.Watchdog(0.2):
            time.sleep(0.08)
    time.sleep(0.2)
    assert "armed" in calls and calls[-1] == "cancelled"


def test_what_many_threads_stumble_over_is_said_once(capsys):
    """As TensorStore's do on a full disk, where the sentence that matters comes last."""
    for error in (OSError("one"), OSError("one"), ValueError("two"), OSError("one")):
        cli._behind(SimpleNamespace(exc_value=error))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning: in the background: OSError('one')",
        "warning: in the background: ValueError('two')",
    ]
