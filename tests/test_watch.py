"""What is seen of a run while it trains: scores, samples, the screen, and its record."""

import dataclasses
import fcntl
import io
import json
import math
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from helpers import ROOT, arguments_of, metrics_of, run
from octavo import train
from octavo.brief import beginning
from octavo.configs.checks import ConfigError
from octavo.configs.schema import TrainConfig
from octavo.data.heldout import Held, shortened
from octavo.process import Preempted
from octavo.run.opened import open_run
from octavo.run.score import Score, by_label
from octavo.training import screen
from octavo.training.evaluation import every
from octavo.training.lifecycle import StopSignal
from octavo.training.optimizer import learning_rate
from octavo.training.screen import Screen, Standing

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


class Terminal:
    """A command in a terminal of its own, and what it shows there."""

    def __init__(self, script: str, *arguments: str, width: int = 100):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *arguments],
            stdin=slave, stdout=slave, stderr=slave,
            env=os.environ | {
                "XLA_FLAGS": flags, "TERM": "xterm", "PYTHONIOENCODING": "utf-8",
                "COLUMNS": str(width), "LINES": "24",  # a worker of pytest has its own
            },
        )  # fmt: skip
        os.close(slave)
        self.master, self.shown = master, b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self):
        while True:
            try:
                self.shown += os.read(self.master, 1 << 16)
            except OSError:  # its last process has ended
                return

    def wait(self) -> int:
        code = self.process.wait(300)
        self._reading.join()
        os.close(self.master)
        return code

    @property
    def lines(self) -> list[str]:
        """What stays of each line, once all is written."""
        rows, at = [""], 0
        for text, code in re.findall(
            r"([^\n\x1b]+)|(\n|\x1b\[[0-9;?]*[A-Za-z])", self.shown.decode()
        ):
            if code == "\n":
                at += 1
                rows += [""] * (at == len(rows))
            elif code == "\x1b[1A":
                at -= 1
            elif code == "\x1b[2K":
                rows[at] = ""
            rows[at] += text.replace("\r", "")
        return rows


@pytest.fixture(scope="module")
def watched(tiny, tmp_path_factory):
    """A run that is scored every 7 steps: stopped in its terminal by Ctrl-C, and continued in a
    pipe. Its folder, the terminal, what it left when it stopped, and what the pipe got."""
    workdir = tmp_path_factory.mktemp("watched")
    arguments = [
        "flat", *arguments_of(tiny, workdir), "--train.evaluate-every", "7",
        "--train.keep-every", "7", "--train.keep-best", "True", "--train.keep-checkpoints", "1",
    ]  # fmt: skip
    terminal = Terminal("train.py", *arguments)
    while b"at step 7" not in terminal.shown and terminal.process.poll() is None:
        time.sleep(0.005)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 75, terminal.shown
    left = json.loads((workdir / "results.json").read_text())
    done = run("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    return workdir, terminal, left, done.stdout


def test_scores_change_no_loss(watched, trained):
    """Nor does stopping between two of them."""
    with_scores, without = metrics_of(watched[0]), metrics_of(trained[0])
    scored = [step for step, row in with_scores.items() if "heldout/bits_per_byte" in row]
    assert scored == [7, 14, 21, 28, 30]
    for step, row in without.items():
        found = {k: v for k, v in with_scores[step].items() if not k.startswith("heldout/")}
        assert found == {k: v for k, v in row.items() if not k.startswith("heldout/")}
    last = {k: v for k, v in with_scores[30].items() if k.startswith("heldout/")}
    assert last == {k: v for k, v in without[30].items() if k.startswith("heldout/")}


def test_scores_are_those_of_the_checkpoints(watched):
    """Milestones, which stay, score as it was said, and cut the text as it was said."""
    workdir, rows = watched[0], metrics_of(watched[0])
    samples = [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]
    assert [one["step"] for one in samples] == [7, 14, 21, 28, 30]
    results = json.loads((workdir / "results.json").read_text())
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"7", "14", "21", "28", "30"}
    best = min((row["heldout/bits_per_byte"], step) for step, row in rows.items()
               if "heldout/bits_per_byte" in row)  # fmt: skip
    assert results["best"] == {"step": best[1], "bits_per_byte": best[0]}
    for sample in (samples[1], samples[-1]):
        cut, step = sample["cut"], sample["step"]
        opened = open_run(workdir, step=step)
        assert sample["text"] == opened.generate("The ", 20, temperature=0.7)
        data = cut["text"].encode()
        assert 60 < len(data) <= 400
        assert len(cut["ends"]) == len(cut["surprisal"]) == len(cut["probability"]) == len(data)
        assert all(cut["ends"]) and set(cut["probability"]) == {None}
        bits = opened.score(data).surprisal[0]
        np.testing.assert_allclose(cut["surprisal"][:60], bits[:60], atol=1e-3)


def test_metrics_count(watched, tiny):
    rows, length = metrics_of(watched[0]), tiny.data.length * tiny.data.batch_size
    flops = rows[1]["train/flops"]
    rate = learning_rate(tiny.optimizer, tiny.train.steps)
    for step, row in rows.items():
        assert row["train/flops"] == pytest.approx(step * flops)
        assert row["train/flops_useful"] <= row["train/flops"]
        assert 0.9 * step * length < row["train/bytes"] <= step * length
        assert row["optimizer/learning_rate"] == pytest.approx(float(rate(step - 1)))
    text = (watched[0] / "metrics.jsonl").read_text().splitlines()
    whole = [json.loads(line) for line in text]
    seconds = [row["perf/seconds"] for row in whole]
    assert seconds == sorted(seconds) and all(row["perf/host_memory_bytes"] > 1e7 for row in whole)


def test_a_stopped_run_has_a_score(watched):
    """And a finished one all that a table needs."""
    workdir, _, left, _ = watched
    assert left["finished"] is False and left["stopped"] is True and 7 <= left["step"] < 14
    assert left["heldout/step"] == 7
    rows = metrics_of(workdir)
    assert left["heldout/bits_per_byte"] == rows[7]["heldout/bits_per_byte"]
    results = json.loads((workdir / "results.json").read_text())
    assert results["finished"] and results["stopped"] is False
    assert results["step"] == results["heldout/step"] == 30
    for name in ("bytes", "flops", "flops_useful"):
        assert results[name] == rows[30][f"train/{name}"]
    low, high = results["heldout/low"], results["heldout/high"]
    assert low < results["heldout/bits_per_byte"] < high
    assert 1900 < results["heldout/bytes"] <= 2000 and results["heldout/documents"] > 1
    assert results["parameters"] == 41_184 and results["seed"] == 0 and results["device"] == "cpu"
    assert results["versions"].keys() >= {"python", "jax", "octavo"}
    assert results["data"][0]["fingerprint"] and results["data"][0]["bytes"] > 0
    assert re.fullmatch("[0-9a-f]{40}", results["commit"] or "0" * 40)
    assert "--train.evaluate-every 7" in results["command"]
    assert results["seconds"] > results["evaluation_seconds"] > 0 < results["bytes_per_second"]
    assert (workdir / "report.html").is_file()


def test_the_terminal(watched):
    """A line that lives, below what was said; nothing of it stays, nor does a hidden cursor."""
    _, terminal, _, _ = watched
    text = terminal.shown.decode()
    live = re.findall(r"━[^\n]*?step \d+/30  [\d.]+ bits/byte [^\n]*?left", text)
    assert any("held-out" in line and "B/s" in line for line in live), text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0
    lines = terminal.lines
    assert not any("━" in line for line in lines), lines
    assert any(line.startswith("held-out ") and "at step 7" in line for line in lines)
    assert lines[-2].startswith("stopped: step ")


def test_the_pipe(watched):
    """Plain lines; the end says what came of it and where it is."""
    workdir, _, _, text = watched
    assert "\x1b" not in text and "━" not in text
    assert re.search(r"^step 30/30 +[\d.]+ bits/byte", text, re.MULTILINE)
    for said in (
        r"^held-out +\d\.\d{3} bits/byte \(\d\.\d{3} to \d\.\d{3}\) at step 14$",
        r"^held-out +\d\.\d{3} bits/byte \(\d\.\d{3} to \d\.\d{3}\), of [\d.]+ kB in \d+ documents",
        r"^training +\d\.\d{3} bits/byte",
        r"^spent .*FLOPs useful$",
        rf"^scores +{workdir}/results.json$",
        rf"^page +{workdir}/report.html$",
        rf"^commands +python .*evaluate.py {workdir}$",
        rf"python .*train.py --workdir {workdir} --train.steps 60 --train.rewarm True$",
    ):
        assert re.search(said, text, re.MULTILINE), said


def standing(step: int) -> Standing:
    return Standing(step, 2.0, 2.1, 1.95, 21_000.0, 0.41, 3e-3, 0.5, 65.0, 5e8)


def test_lines_in_a_file_are_few(monkeypatch):
    """Ten as they are due, then one in ten seconds; and the last."""
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    shown = Screen(Console(file=out), 1000, 10)
    for step in range(1, 1001):
        now[0] += 0.25
        shown.show(standing(step))
    shown.warn("odd")
    steps = [int(n) for n in re.findall(r"^step +(\d+)/1000", out.getvalue(), re.MULTILINE)]
    assert steps == [*range(10, 101, 10), *range(140, 1000, 40), 1000]
    assert out.getvalue().endswith("\nwarning: odd\n") and out.getvalue().isascii()


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_the_live_line_fits(width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    console.print(Screen(console, 1000, 10)._line(standing(500)))
    (line,) = out.getvalue().splitlines()
    assert len(line.rstrip()) <= width
    told = {30: ["0/1000"], 60: ["2.100 bits/byte", "1.950"], 80: ["1:05 left"],
            200: ["MFU 41%", "lr 0.003", "500 MB", "now 2.000", "21 kB/s"]}[width]  # fmt: skip
    assert all(part in line for part in told), line


def score_of(nats, sizes) -> Score:
    nats, sizes = np.array(nats, float), np.array(sizes)
    return Score(float(nats.sum()), int(sizes.sum()), len(nats), 0, nats, sizes, [])


def test_the_interval_is_a_bootstrap():
    rng = np.random.default_rng(3)
    sizes = rng.integers(100, 5000, 40)
    nats = sizes * rng.normal(1.4, 0.2, 40)
    score = score_of(nats, sizes)
    drawn = rng.integers(0, 40, (20_000, 40))
    bits = nats[drawn].sum(1) / sizes[drawn].sum(1) / math.log(2)
    np.testing.assert_allclose(score.interval, np.quantile(bits, [0.025, 0.975]), atol=0.01)
    assert score.interval == score_of(nats, sizes).interval
    assert score_of([5.0], [4]).interval is None  # one says nothing of the others
    assert score_of([5.0, 0.1], [4, 0]).interval is None
    assert score_of([5.0, float("nan")], [4, 4]).interval is None
    assert score_of([5.0, 6.0, 0.1], [4, 4, 0]).interval is not None


def test_scores_by_label():
    score = score_of([1, 2, 3, 4], [2, 2, 3, 3])

    def of(*whose):
        return by_label(score, [Held(b"", corpus, label) for corpus, label in whose])

    assert of(*[("a", None)] * 4) == of(*[("a", "x")] * 4) == {}
    found = of(("a", "x"), ("a", "x"), ("a", "y"), ("a", None))
    assert found.keys() == {"x", "y"} and found["x"]["documents"] == 2
    assert found["x"]["bits_per_byte"] == pytest.approx(3 / 4 / math.log(2))
    assert found["y"] == {
        "bits_per_byte": pytest.approx(1 / math.log(2)), "low": None, "high": None,
        "bytes": 3, "documents": 1,
    }  # fmt: skip
    found = of(("a", "x"), ("a", "y"), ("b", None), ("b", None))
    assert list(found) == ["a", "a/x", "a/y", "b"] and found["b"]["bytes"] == 6


def test_text_that_is_scored_during_training():
    """Beginnings of all documents or, of many, of some; of each label; no character is cut."""

    def text(size):
        return ("é" * size).encode()[: size - size % 2]

    few = [Held(text(size), "a", None) for size in (100, 5000, 7000, 20)]
    assert shortened(few, 20_000, 100) is few
    found = shortened(few, 4000, 100)
    assert [len(one.text) for one in found] == [100, 1940, 1940, 20]
    assert all(one.text.decode() for one in found)
    many = [Held(text(1000), "a", f"{i // 50}") for i in range(200)] + [Held(text(900), "b", None)]
    found = shortened(many, 5000, 1000)
    assert {(one.corpus, one.label) for one in found} == {(one.corpus, one.label) for one in many}
    assert len(found) == 5 and sum(len(one.text) for one in found) <= 5000
    single = [Held(text(1000), "a", str(i)) for i in range(100)]
    assert [one.label for one in shortened(single, 5000, 1000)] == ["0", "20", "40", "60", "80"]
    assert beginning(b"abc", 9) == b"abc" and beginning(b"\x80" * 9, 5) == b"\x80" * 5


@pytest.mark.parametrize("way", ["Ctrl-C", "another"])
def test_a_run_that_a_person_stops_early_is_scored(way, tiny, tmp_path, monkeypatch):
    """Once all is saved, and beside the log; other signals leave no time."""
    monkeypatch.setattr(StopSignal, "requested", lambda self, step: step == 2)
    monkeypatch.setattr(StopSignal, "by_person", way == "Ctrl-C")
    settings = dataclasses.replace(tiny.train, sample_bytes=0)
    config = dataclasses.replace(tiny, train=settings, workdir=str(tmp_path))
    with pytest.raises(Preempted, match="step 2 is saved"):
        train.train(config)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["step"] == 2 and results["stopped"] and not results["finished"]
    assert "stopped at step 2 of 30" in (tmp_path / "report.html").read_text()
    assert ("heldout/bits_per_byte" in results) == (way == "Ctrl-C")
    assert (results["evaluation_seconds"] > 0) == (way == "Ctrl-C")
    assert not any("heldout/bits_per_byte" in row for row in metrics_of(tmp_path).values())


def test_when_text_is_scored():
    asked = {(30, None): 100, (1000, None): 100, (50_000, None): 5000, (30, 7): 7, (30, 0): 0}
    for (steps, wanted), found in asked.items():
        assert every(TrainConfig(steps=steps, evaluate_every=wanted)) == found
    with pytest.raises(ConfigError, match="keep_best needs scores, but train.evaluate_every is 0"):
        TrainConfig(evaluate_every=0, keep_best=True)
    with pytest.raises(ConfigError, match="train.evaluate_every is 0 or more, not -1"):
        dataclasses.replace(TrainConfig(), evaluate_every=-1)
