"""Several checkpoints in one table: what their folders hold is not computed again."""

import csv
import json
import shutil

import numpy as np
import pytest

from helpers import words
from octavo import cli, evaluate
from octavo.configs.checks import ConfigError
from octavo.run.opened import Run, open_run

pytestmark = pytest.mark.xdist_group("trained")


@pytest.fixture
def it(trained, tmp_path):
    """A copy of a run, without scores."""
    there = shutil.copytree(trained[0], tmp_path / "it")
    shutil.rmtree(there / "scores", ignore_errors=True)
    return there


def asked(*arguments):
    given = [str(argument) for argument in arguments]
    return evaluate.evaluate(cli.parse(evaluate.Arguments, "evaluate.py", "", given, flags=True))


def test_table(it, tmp_path, capsys):
    """Of runs and steps, as each alone; a run that is none is said, and the others are scored."""
    outs = [tmp_path / f"out.{kind}" for kind in ("json", "csv", "md")]
    flags = zip(("--json", "--csv", "--markdown"), outs, strict=True)
    more = ("--most-bytes", 12000, *(part for pair in flags for part in pair))
    with pytest.raises(cli.RunError, match=r"scored: \S*it at step 11, nowhere\. The"):
        asked(it, "nowhere", "--step", "20", "11", "last", *more)
    shown, said = capsys.readouterr()
    assert "nowhere is no run directory" in said and "it has no checkpoint of step 11" in said
    assert "2 checkpoints: " in shown and "vs_first" in shown
    found = json.loads(outs[0].read_text())
    assert [one["step"] for one in found] == [20, 30]
    alone = asked(it, "--most-bytes", 12000)
    assert isinstance(alone, dict) and "vs_first" not in alone
    assert found[1] == alone | {name: found[1][name] for name in ("vs_first", "vs_low", "vs_high")}
    # Paired: documents differ far more than checkpoints do.
    gain = found[1]["bits_per_byte"] - found[0]["bits_per_byte"]
    assert found[1]["vs_first"] == pytest.approx(gain) and gain < 0
    assert found[1]["vs_low"] <= gain <= found[1]["vs_high"]
    rows = list(csv.DictReader(outs[1].open()))
    assert [float(row["nats"]) for row in rows] == [one["nats"] for one in found]
    lines = outs[2].read_text().splitlines()
    assert lines[0].startswith("| run | step | bits_per_byte |") and len(lines) == 4
    every = asked(it, "--step", "all", "--most-bytes", 12000)
    assert [one["step"] for one in every] == [10, 20, 30]
    with pytest.raises(cli.RunError, match="none of these"):
        asked("nowhere", "nor-there")


def test_what_is_held_is_not_computed_again(it, tmp_path, monkeypatch, capsys):
    """Until the text, the settings or the checkpoint change; damage is computed again."""
    text, (calls, score) = tmp_path / "text", ([], Run.score)
    text.write_bytes(words(3, 500))

    def counted(run, *given, **how):
        calls.append(run.step)
        return score(run, *given, **how)

    monkeypatch.setattr(Run, "score", counted)
    first = asked(it, "--text", text)
    assert asked(it, "--text", text) == first and len(calls) == 1
    assert asked(it, "--text", text, "--batch-size", 3) == first and len(calls) == 1
    moved = it.rename(tmp_path / "moved")
    assert asked(moved, "--text", text, "bits")["nats"] == first["nats"] and len(calls) == 1
    assert asked(moved, "--text", text, "--again")["nats"] == first["nats"] and len(calls) == 2

    [kept] = (moved / "scores").iterdir()
    for wrong in (b'{"about', b"[]", kept.read_bytes().replace(b'"step": 30', b'"step": 31')):
        kept.write_bytes(wrong)
        assert asked(moved, "--text", text)["nats"] == first["nats"]
        assert f"{kept} is damaged: it is computed again" in capsys.readouterr().err
    assert len(calls) == 5

    for more in (["--overlap", 0], ["--length", 32], ["--step", 10]):
        assert asked(moved, "--text", text, *more)["nats"] != first["nats"]
    assert len(calls) == 8 and asked(moved, "--text", text, "--length", 32)["length"] == 32
    text.write_bytes(words(4, 500))
    assert asked(moved, "--text", text)["nats"] != first["nats"] and len(calls) == 9
    # Of another checkpoint under the same step.
    shutil.rmtree(moved / "checkpoints" / "30")
    shutil.copytree(moved / "checkpoints" / "20", moved / "checkpoints" / "30")
    text.write_bytes(words(3, 500))
    assert asked(moved, "--text", text)["nats"] != first["nats"] and len(calls) == 10


def test_a_folder_that_takes_nothing(it, tmp_path, capsys):
    text = tmp_path / "text"
    text.write_bytes(words(3, 500))
    (it / "scores").write_text("a file")
    found = asked(it, "--text", text)
    assert found == asked(it, "--text", text)
    assert "the score is not kept in" in capsys.readouterr().err


def test_rows_of_another_length(it):
    """More context costs less, where the model uses it; a row of half the length, what a window
    of such a row says."""
    text = words(3, 300)
    short, usual = (open_run(it, length=length) for length in (16, None))
    assert (short.length, usual.length) == (16, 64)
    np.testing.assert_allclose(short.score(text[:15]).nats, usual.score(text[:15]).nats, rtol=1e-5)
    assert short.score(text).nats != usual.score(text).nats


def test_what_makes_no_sense(it):
    for arguments, said in (
        ((it, it, "wrods"), "wrods is no run, and no measure: is it words"),
        ((it, "--step", "ten"), "--step takes numbers, all or last, not 'ten'"),
        ((it, it, "certify", "--certificate", "x"), "--certificate is of one run"),
        ((it, "certify", "--length", 32), "--length is not for certify"),
        ((it, "undertrained", "--length", 32), "--length is not for undertrained"),
        ((it, "--length", 32, "--overlap", 32), r"--overlap lies in \[0, 32\)"),
        ((it, "--csv", it / "config.json"), "is what this command reads"),
    ):
        with pytest.raises(ConfigError, match=said):
            asked(*arguments)
