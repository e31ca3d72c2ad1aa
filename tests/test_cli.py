"""Wrong use: one clear sentence with the nearest valid choice, exit code 2, no traceback."""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from helpers import ROOT, arguments_of, metrics_of, run, words
from octavo import cli, compress, evaluate, generate, rates, schemes, view
from octavo.arguments import check_output, read_file
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, to_json
from octavo.data.errors import DataError
from octavo.run.opened import Run

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flatt"], "no preset 'flatt'. Did you mean flat? Presets: "),
        (["flat", "--train.stepz", "3"], "--train.steps"),
        (["--train.steps", "many"], "invalid literal for int() with base 10: 'many'"),
        (["--train.steps", "1.5"], "invalid literal for int()"),
        (["--train.steps"], "Missing value for argument '--train.steps'"),
        (["--model.activation", "relu"], "Expected one of ('relu2', 'gelu', 'silu')"),
        (["--model.heads", "5"], "model.heads 5 does not divide model.width 128; nearest that "
         "does: 4 or 8"),
        (["--model.heads", "128"], "even head size"),
        (["--model.kv-heads", "3"], "model.kv_heads 3 does not divide model.heads 4"),
        (["--train.accumulation", "3"], "does not divide data.batch_size 16; nearest that does: "
         "2 or 4"),
        (["--mesh.tensor", "3"], "3 does not divide the 1 devices; nearest that does: 1"),
        (["--mesh.fsdp", "0"], "mesh sizes are positive"),
        (["--data.length", "17000000"], "data.length is at most 16777216"),
        (["--data.length", "65535", "--data.batch-size", "65536"], "ask for fewer rows"),
        (["--data.workers", "100000"], "data.workers is at most 1024"),
        (["--data.source", "a\udce9"], "data.source 'a\\udce9' is no UTF-8"),
        (["--model.heads", "2147483647"], "does not divide model.width"),
        (["--model.width", "2147483646", "--model.heads", "1"], "model.width is at most 1048576"),
        (["--model.layers", "2147483647"], "model.layers is at most 4096"),
        (["--train.z-loss", "1e300"], "train.z_loss is at most 3e+38"),
        (["--train.sample-bytes", "2147483647"], "train.sample_bytes is at most 1000000"),
        (["--optimizer.learning-rate", "-1"], "optimizer.learning_rate must be above 0"),
        (["--model.embedding", "one_hot"], "one_hot needs model.width of at least 256"),
        (["--execution.attention", "splash"], "splash runs on tpu, not on cpu; use auto"),
        (["--data.source", "nowhere"], "nowhere is not a prepared corpus: make one with"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_use_of_train(arguments, said, tmp_path):
    done = run("train.py", *arguments, "--workdir", str(tmp_path / "run"))
    text = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in text and "Traceback" not in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "script",
    ["train.py", "evaluate.py", "generate.py", "prepare.py", "compress.py", "view.py", "rates.py",
     "schemes.py", "export.py"],
)  # fmt: skip
def test_help(script):
    done = run(script, "--help")
    assert done.returncode == 0 and "usage:" in done.stdout


def test_every_field_has_help():
    """tyro reads field docstrings; a field without one would show no help."""
    done = run("train.py", "words", "--help", "all", COLUMNS="100")  # one column of panels

    def check(config, prefix="--"):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            flag = prefix + field.name.replace("_", "-")
            if field.name == "preset":
                assert f"{flag} " not in done.stdout
                continue
            if field.name == "stages":
                check(value[0], f"{flag}.0.")
            elif dataclasses.is_dataclass(value):
                check(value, f"{flag}.")
            else:
                parts = done.stdout.split(f"{flag} ", 1)
                assert len(parts) == 2, flag
                assert "(default:" in parts[1].split(" --", 1)[0], flag

    check(presets()["words"])


def test_what_a_run_leaves(trained, tiny):
    workdir, shown = trained
    metrics = metrics_of(workdir)
    assert list(metrics) == list(range(1, 31))
    assert 7.5 < metrics[1]["train/bits_per_byte"] < 8.5 > metrics[30]["train/bits_per_byte"] + 1
    for text in ("bits/byte", "B/s", "left", "held-out", "sample", f"the run is in {workdir}",
                 "FLOPs per byte", "reference attention", "mesh replica 1"):  # fmt: skip
        assert text in shown, text
    results = json.loads((workdir / "results.json").read_text())
    assert 0 < results["heldout/bits_per_byte"] < 8
    resolved = json.loads((workdir / "config.json").read_text())
    assert resolved["model"] == to_json(tiny.model)
    assert list((workdir / "tensorboard").iterdir())


def test_evaluate(trained, tiny, tmp_path):
    workdir, _ = trained
    out = tmp_path / "scores.json"
    done = run("evaluate.py", str(workdir), "--most-bytes", "2000", "--json", str(out))
    assert done.returncode == 0, done.stderr
    heldout = json.loads(out.read_text())
    final = json.loads((workdir / "results.json").read_text())["heldout/bits_per_byte"]
    assert abs(heldout["bits_per_byte"] - final) < 1e-6 and "bits_per_byte" in done.stdout
    # Any file at all, whole; rows at a time never matter, less context costs bits.
    text = words(0, 3000) + bytes(range(256))
    (tmp_path / "any.bin").write_bytes(text)
    scores = []
    for extra in (["--batch-size", "3"], ["--batch-size", "7"], ["--overlap", "0"]):
        done = run("evaluate.py", str(workdir), "--text", str(tmp_path / "any.bin"),
                   "--again", "--json", str(out), *extra)  # fmt: skip
        assert done.returncode == 0, done.stderr
        scores.append(json.loads(out.read_text()))
    assert all(s["bytes"] == len(text) and s["documents"] == 1 for s in scores)
    assert abs(scores[0]["nats"] - scores[1]["nats"]) < 1e-3 < scores[2]["nats"] - scores[0]["nats"]


def test_evaluate_wrong_use(trained, tmp_path):
    workdir, _ = trained
    (tmp_path / "empty.txt").write_bytes(b"")
    for arguments, said in (
        ([str(tmp_path)], "is no run directory: it has no config.json"),
        ([str(workdir), "--text", "nope.txt"], "--text nope.txt cannot be read"),
        ([str(workdir), "--text", str(tmp_path / "empty.txt")], "is empty"),
        ([str(workdir), "--text", "a", "--data", "b"], "not both"),
        ([str(workdir), "--overlap", "64"], "--overlap lies in [0, 64)"),
        ([str(workdir), "--data", str(tmp_path)], "is not a prepared corpus"),
    ):
        with pytest.raises((ConfigError, DataError), match=re.escape(said)):
            evaluate.evaluate(cli.parse(evaluate.Arguments, "evaluate.py", "", arguments))
    done = run("evaluate.py", str(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is no run directory: it has no config.json" in done.stderr


def test_evaluate_with_another_run(trained, tmp_path, monkeypatch):
    """Another run is opened before anything is scored; a run beside itself changes nothing."""
    (tmp_path / "text").write_bytes(b"the quick fox")
    asked = [str(trained[0]), "--exact", "--text", str(tmp_path / "text"), "--with"]
    out = tmp_path / "scores.json"
    done = run("evaluate.py", *asked, str(trained[0]), "--json", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for name in ("other", "ensemble"):
        assert abs(found[f"{name}_bits_per_byte"] - found["exact_bits_per_byte"]) < 1e-5
    done = run("evaluate.py", *asked, str(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path} is no run directory" in done.stderr
    monkeypatch.setattr(Run, "score", lambda *_, **how: pytest.fail("it scores before it looks"))
    with pytest.raises(ConfigError, match="nowhere is no run directory"):
        evaluate.evaluate(cli.parse(evaluate.Arguments, "", "", [*asked, "nowhere"], flags=True))


def test_generate(trained):
    workdir, _ = trained
    arguments = [str(workdir), "--prompt", "the qu", "--bytes", "40"]
    first = run("generate.py", *arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("the qu")
    assert len(first.stdout) <= 6 + 40 + 1
    assert run("generate.py", *arguments, "--seed", "1").stdout != first.stdout
    drafted = run("generate.py", *arguments, "--speculative", "lookup")
    assert drafted.stdout == first.stdout and "Lookup: " in drafted.stderr
    several = run("generate.py", *arguments, "--samples", "3", "--temperature", "0")
    parts = several.stdout.split("--- ")[1:]
    assert len(parts) == 3 and len({part[2:] for part in parts}) == 1
    hot = [str(workdir), "--prompt", "tr\udcc3", "--bytes", "40", "--temperature", "9"]
    assert "\ufffd" in run("generate.py", *hot).stdout
    valid = run("generate.py", *hot, "--valid-utf8").stdout
    assert valid.startswith("tr") and len(valid) > 3 and "\ufffd" not in valid
    for arguments, said in (
        ([str(workdir), "--temperature", "-1"], "--temperature is 0 or more, not -1.0"),
        ([str(workdir), "--bytes", "0"], "--bytes lies in [1, 1000000], not 0"),
        ([str(workdir), "--speculative", "magic"], "--speculative is auto, own, none, lookup"),
        ([str(workdir), "--speculative", "own"], "was not trained to draft"),
        ([str(workdir), "--speculative", str(workdir / "checkpoints")], "is no run directory"),
        (["nowhere"], "is no run directory"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            asked = cli.parse(generate.Arguments, "generate.py", "", [*arguments, "--prompt", "x"])
            generate.generate(asked)


def test_generate_is_exact_at_the_edges_of_text(trained):
    """A prompt that ends inside a character, in a locale without it; control bytes stay."""
    asked = [sys.executable, str(ROOT / "generate.py"), str(trained[0]), "--bytes", "6"]
    environment = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"}
    for prompt, more, whole in (
        ("\u65e5 a\0\x1b".encode() + b"\xff tr\xc3", [], "\u65e5 a\0\x1b\ufffd tr"),
        (b"", ["--samples", "2"], "--- 1\n"),
    ):
        done = subprocess.run(
            [*asked, *more], input=prompt, capture_output=True, check=True, env=environment
        )
        assert done.stdout.decode().startswith(whole) and done.stdout.endswith(b"\n")


def test_generate_of_a_long_prompt(trained):
    """What one pass cannot read is not read, and said; all of it is printed."""
    prompt = "\u00e9" * 5000
    done = run("generate.py", str(trained[0]), "--prompt", prompt, "--bytes", "3")
    assert done.returncode == 0 and done.stdout.startswith(prompt), done.stderr
    assert "of the prompt's 10,000 bytes, the last 2,048 are read." in done.stderr


def test_prompt_from_a_terminal(monkeypatch, capsys):
    keyboard = SimpleNamespace(isatty=lambda: True, buffer=io.BytesIO(b"tr\xc3\n"))
    monkeypatch.setattr(sys, "stdin", keyboard)
    assert generate._prompt(generate.Arguments("run")) == b"tr\xc3\n"
    assert "Ctrl-D" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="give the prompt with --prompt"):
        generate._prompt(generate.Arguments("run"))
    assert generate._prompt(generate.Arguments("run", prompt="tr\udcc3")) == b"tr\xc3"


def test_run_that_diverges_fails(tiny, tmp_path):
    """A learning rate that makes everything infinite: exit code 1 and a reason, nothing saved."""
    wild = dataclasses.replace(
        tiny,
        optimizer=dataclasses.replace(tiny.optimizer, learning_rate=1e30, clip_norm=0.0),
        train=dataclasses.replace(tiny.train, give_up_after=3, checkpoint_every=1000, steps=200),
    )
    done = run("train.py", "flat", *arguments_of(wild, tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 steps in a row" in done.stderr and "were not finite" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert json.loads((tmp_path / "results.json").read_text())["stopped"] is True
    assert "gave up at step" in (tmp_path / "report.html").read_text()


def test_presets_are_found_by_name():
    found = presets()
    assert {"flat", "flat-100m"} <= found.keys()
    assert all(isinstance(config, Config) for config in found.values())


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        (evaluate, ["--most-bytes", "-5"], "--most-bytes lies in [0, "),
        (evaluate, ["--sentences", "-5"], "--sentences lies in [0, "),
        (evaluate, ["--batch-size", "1000000000"], "--batch-size lies in [1, 65536]"),
        (evaluate, ["--overlap", "-1"], "--overlap lies in [0, "),
        (generate, ["--draft", "100000"], "--draft lies in [1, 256], not 100000."),
        (generate, ["--seed", "9" * 20], "--seed lies in [0, 4294967295], not 9999"),
        (generate, ["--seed", "-1"], "--seed lies in [0, "),
        (generate, ["--samples", "0"], "--samples lies in [1, "),
        (generate, ["--bytes", "9" * 4000], "--bytes lies in [1, "),
        (generate, ["--top-k", "-1"], "--top-k lies in [0, "),
        (generate, ["--temperature", "nan"], "--temperature must be a finite number, not nan."),
        (generate, ["--temperature", "inf"], "--temperature must be a finite number"),
        (generate, ["--min-p", "-inf"], "--min-p must be a finite number"),
        (view, ["--most-bytes", "0"], "--most-bytes lies in [1, "),
        (rates, ["--rate", "nan"], "--rate must be a finite number"),
        (schemes, ["--most-bytes", "0"], "--most-bytes lies in [1, "),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_numbers_out_of_range(script, arguments, said):
    with pytest.raises(ConfigError) as raised:
        cli.parse(script.Arguments, "x.py", "", ["run", *arguments])
    assert said in str(raised.value) and len(str(raised.value)) < 120


def test_outputs_are_refused_before_any_work(tmp_path):
    """Nothing is opened: there is not even a run."""
    (tmp_path / "text").write_text("text")
    (tmp_path / "hard").hardlink_to(tmp_path / "text")
    (tmp_path / "soft").symlink_to(tmp_path / "text")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "fixed").mkdir()
    (tmp_path / "fixed" / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "fifo")
    text, folder = str(tmp_path / "text"), str(tmp_path / "fixed")
    for name, said in (
        ("nowhere/x", "there is no folder"), ("fixed", "it is a folder"), ("fifo", "it is a pipe"),
        ("text", "is what this command reads"), ("hard", "is what this"), ("soft", "is what this"),
        ("fixed/config.json", "is what this"), ("fixed/checkpoints", "is what this"),
        ("loop", "cannot be written: Too many levels"), ("x" * 250, "cannot be written: File name"),
        ("", "it is a folder"), ("text/x", "cannot be written: Not a directory"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            check_output(str(tmp_path / name), "--json", text, folder, "x" * 5000)
    before = sorted(tmp_path.rglob("*"))
    assert check_output(str(tmp_path / "fixed" / "scores.json"), "--json", text, folder)
    assert sorted(tmp_path.rglob("*")) == before
    for script, arguments, said in (
        (evaluate, ["--json", str(tmp_path / "nowhere" / "x")], "there is no folder"),
        (view, [folder, "--out", text, "--text", text], "is what this command reads"),
        (compress, ["fixed", text, text], "is what this command reads"),
    ):
        asked = cli.parse(script.Arguments, "x.py", "", arguments if script != evaluate else [
            "fixed", *arguments])  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            getattr(script, script.__name__.removeprefix("octavo."))(asked)
    for arguments, said in (
        (["fairness", "--parallel", folder, "--plot", str(tmp_path / "x.xyz")], "no kind of pict"),
        (["--plot", "x.svg"], "--plot is for fairness alone"),
        (["--anchor", "deu"], "--anchor is for fairness alone"),
        (["--text", text, "--most-bytes", "5"], "--most-bytes is of held-out documents"),
        (["fairness", "--parallel", folder, "--text", text], "give one of --text"),
    ):
        asked = cli.parse(evaluate.Arguments, "x.py", "", [folder, *arguments])
        with pytest.raises(ConfigError, match=said):
            evaluate.evaluate(asked)


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, said in (
        ("fifo", "it is a pipe, not a file"), ("", "it is a folder"), ("none", "No such file"),
        ("x" * 300, "File name too long"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"--text .*cannot be read: {said}"):
            read_file(str(tmp_path / name), "--text")
