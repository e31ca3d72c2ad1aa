"""What a command trains: a preset or a run's own settings, a file's on top, and flags on top."""

import dataclasses
import json
import shutil

import pytest

from helpers import POD_SIZES, run
from octavo.configs import families, presets
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, from_json, to_json
from octavo.presentation import TOPICS
from octavo.run import checkpoint
from octavo.run.checkpoint import Record
from octavo.run.errors import CheckpointError
from octavo.settings import parse_config
from octavo.training import folder


def parsed(*arguments: object) -> Config:
    return parse_config("train.py", "", [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path):
    """The folder of a run of hnet with settings of its own; there is no checkpoint yet."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = parsed("hnet", "--model.width", 64, "--model.heads", 2, "--model.stages.0.width", 32,
                    "--model.stages.0.heads", 1, "--train.steps", 77)  # fmt: skip
    (workdir / "config.json").write_text(json.dumps(to_json(config)))
    return workdir, dataclasses.replace(config, workdir=str(workdir))


def test_a_run_goes_on_with_its_own_settings(saved):
    workdir, config = saved
    assert parsed("--workdir", workdir) == parsed(f"--workdir={workdir}") == config
    assert parsed("hnet", "--workdir", workdir) == config  # its own preset changes nothing
    longer = parsed("--workdir", workdir, "--train.steps", 99)
    assert longer.train.steps == 99 and longer.model == config.model
    # Another preset is another run, which is refused where they are compared.
    other = parsed("flat", "--workdir", workdir)
    assert other.model == Config().model
    with pytest.raises(ConfigError, match="was begun with another model"):
        folder.unsaved_start(workdir, other, ())
    assert parsed("--workdir", workdir / "none").preset == "flat"


def test_a_rate_that_has_risen_is_not_asked_to_again(saved, monkeypatch):
    """More steps than those for which it was asked to ask anew."""
    workdir, config = saved
    risen = dataclasses.replace(config, train=dataclasses.replace(config.train, rewarm=True))
    (workdir / "config.json").write_text(json.dumps(to_json(risen)))
    for made, asks in ((None, True), (50, True), (77, False)):
        train = dataclasses.replace(risen.train, steps=made or 1)
        meta = {"config": to_json(dataclasses.replace(risen, train=train))}
        record = Record(40, {}, meta) if made else None
        monkeypatch.setattr(checkpoint, "record_of", lambda folder, found=record: found)
        assert parsed("--workdir", workdir, "--train.steps", 99).train.rewarm == asks


def test_settings_of_a_run_that_cannot_be_read(saved):
    workdir, _ = saved
    (workdir / "config.json").write_text('{"model"')
    with pytest.raises(CheckpointError, match="is damaged.*Name its PRESET and flags again"):
        parsed("--workdir", workdir)
    assert parsed("hnet", "--workdir", workdir).model == presets()["hnet"].model


def test_a_file_goes_on_top_of_a_preset(saved, tmp_path):
    workdir, config = saved
    toml = tmp_path / "own.toml"
    toml.write_text(
        'preset = "hnet"\n[model]\nwidth = 64\nheads = 2\n[[model.stages]]\nwidth = 32\nheads = 1\n'
        "[train]\nsteps = 77\n[data]\nbatch-size = 4\n"
    )
    asked = parsed("--config", toml, "--data.batch-size", 8)
    assert dataclasses.replace(asked, workdir=str(workdir)) == config
    assert parsed("--config", toml).data.batch_size == 4
    over = parsed("megabyte", f"--config={toml}")  # the file's fields override the preset's
    assert over.model.stages[0].segmenter == "stride" and over.model.width == 64
    # The settings of a run, elsewhere: its folder is not meant.
    copied = parsed("--config", workdir / "config.json", "--train.seed", 3)
    assert copied.workdir is None and copied.model == config.model and copied.train.seed == 3
    # On top of those of the run that is continued.
    short = tmp_path / "short.toml"
    short.write_text("[train]\nsteps = 5\n")
    assert parsed("--workdir", workdir, "--config", short).model == config.model
    both = parsed("--config", workdir / "config.json", f"--config={short}")  # one on the other
    assert both.model == config.model and both.train.steps == 5
    assert parsed("--config", short, "--config", workdir / "config.json").train.steps == 77
    began = json.loads((workdir / "config.json").read_text())
    began["train"] |= {"init_from": "runs/a", "init_allow": ["tokenizer"], "freeze": ["head.*"]}
    (tmp_path / "began.json").write_text(json.dumps(began))
    train = parsed("--config", tmp_path / "began.json").train
    assert (train.init_from, train.init_allow) == ("runs/a", ("tokenizer",))
    train = parsed("--config", tmp_path / "began.json", "--train.init-from", "runs/b").train
    assert (train.init_from, train.init_allow, train.freeze) == ("runs/b", (), ())
    short.write_text(" " * (1 << 23))
    with pytest.raises(ConfigError, match="has 8,388,608 bytes: too many for settings"):
        parsed("--config", short)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[model]\nwidht = 3", "there is no setting model.widht. Did you mean model.width?"),
        ("steps = 3", "no setting steps. Did you mean train.steps?"),
        ("[[model.stages]]\nslot = 1", "model.stages.0.slot. Did you mean model.stages.0.slots?"),
        ('[model]\nwidth = "x"', "model.width: Input should be a valid integer, not 'x'"),
        ("model = 3", "model: Input should be an object, not 3"),
        ("[optimizer]\nlearning_rate = inf", "learning_rate must be a finite number"),
        ("[train]\nsteps = 2024-01-01", "train.steps: Input should be a valid integer"),
        ("[model", "is neither JSON nor TOML"),
        ('preset = "hnett"', "no preset 'hnett'. Did you mean hnet?"),
        ('{"model": {"width": 0.5}}', "model.width: Input should be a valid integer"),
        ("{", "own: EOF while parsing an object"),
        ("workdir = 3", "workdir: Input should be a valid string"),
        ("\ufeff[train]\nsteps = 0", "train.steps must be above 0, not 0"),
        ("[train]\nlog-every = 3\nlog_every = 4", "log-every is there twice"),
    ],
)
def test_files_that_are_wrong(text, said, tmp_path):
    (tmp_path / "own").write_text(text)
    with pytest.raises(ConfigError) as refused:
        parsed("--config", tmp_path / "own")
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_dial_gives_the_same_for_the_same_command(tmp_path):
    """Also on the run that it made, whose model is that large already."""
    asked = ["hnet", "--model.size", "3m", "--model.layers", "2", "--workdir", tmp_path]
    first = parsed(*asked)
    assert first.model.width > presets()["hnet"].model.width and first.model.layers == 2
    (tmp_path / "config.json").write_text(json.dumps(to_json(first)))
    assert parsed(*asked) == parsed("--workdir", tmp_path) == first
    assert from_json(to_json(first)) == first


def test_help_is_short_and_tells_of_more():
    short = run("train.py", "--help", COLUMNS="100").stdout
    assert len(short.splitlines()) < 45 and all(topic in short for topic in TOPICS)
    flags = [line.split()[0] for line in short.splitlines() if line.startswith("--")]
    known = {"--workdir", "--config", "--model.size", "--list", "--help", "--version", "--debug"}
    for flag in set(flags) - known:
        section, name = flag.removeprefix("--").replace("-", "_").split(".")
        assert hasattr(getattr(Config(), section), name), flag
    assert "--data.packing" not in short
    for topic, has, lacks in (("data", "--data.packing", "--train.z-loss"),
                              ("train", "--train.z-loss", "--data.packing")):  # fmt: skip
        told = run("train.py", "hnet", "--help", topic).stdout
        assert has in told and lacks not in told
    wrong = run("train.py", "--help", "nonsense")
    assert wrong.returncode == 2 and "there are model, data" in wrong.stderr
    compiles = run("launch/compile.py", "--help").stdout
    assert "--topology NAME" in compiles and "v5e-256" in compiles


def test_every_preset_is_listed():
    listed = run("train.py", "--list").stdout
    lines = {line.split()[0]: line for line in listed.splitlines() if line}
    for name, config in presets().items():
        assert config.data.source in lines[name] and " M " in lines[name], name
    assert " 3.5 " in lines["flat"] and "et al" not in listed
    assert all(family.about.keys() == family.presets.keys() for family in families())


@pytest.mark.parametrize("script", ["train.py", "prepare.py", "generate.py", "launch/compile.py"])
def test_version(script):
    done = run(script, "--version")
    assert done.returncode == 0 and done.stdout.startswith("octavo 0."), done.stderr


def test_presets_for_pods_name_their_folder():
    for name, config in presets().items():
        pods = name.endswith(POD_SIZES)
        assert config.workdir == (f"runs/{name}" if pods else None)


def test_several_hosts_need_a_folder_that_all_see(tmp_path, monkeypatch):
    train = dataclasses.replace(Config().train, distributed=True)
    config = dataclasses.replace(Config(), train=train)
    with pytest.raises(ConfigError, match="name it with --workdir RUN"):
        folder.check_named(config)
    named = dataclasses.replace(config, workdir=str(tmp_path))
    folder.check_named(named)
    monkeypatch.setattr(folder.jax, "process_index", lambda: 1)
    monkeypatch.setattr(folder, "from_leader", lambda value: str(tmp_path / "there"))
    monkeypatch.setattr(folder, "SEEN_WITHIN", 0.0)
    with pytest.raises(ConfigError, match="host 1 does not see the run directory .*there of the"):
        folder.claim(named, None)
    shutil.rmtree(tmp_path)
