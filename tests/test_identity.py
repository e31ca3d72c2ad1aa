"""A run is what it was: compared when it is continued and when it is scored, owned by one."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import ROOT, arguments_of, metrics_of, run, start
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, MeshConfig, identity, to_json
from octavo.files import FileError, read_json, write_json
from octavo.run import checkpoint
from octavo.run.checkpoint import Checkpoints, record_of, saved_steps
from octavo.run.errors import CheckpointError, StorageError
from octavo.run.identity import changes
from octavo.run.sharding import make_mesh
from octavo.training import folder
from octavo.training.optimizer import Replanned, learning_rate, replan

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


def changed(config: Config, **sections) -> Config:
    return dataclasses.replace(
        config, **{n: dataclasses.replace(getattr(config, n), **v) for n, v in sections.items()}
    )


def content(path):
    """Every file of a folder."""
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of a finished run of 30 steps."""
    return shutil.copytree(trained[0], tmp_path / "run")


# What is refused, and what is said.


def state_at(step: int) -> dict:
    sharding = jax.sharding.NamedSharding(make_mesh(MeshConfig()), jax.P())
    state = {"step": jnp.int32(step), "params": {"w": jnp.ones(4)}, "opt": {}}
    return jax.device_put(state | {"skipped": jnp.int32(0)}, sharding)


def meta_of(config: Config) -> dict:
    return {"model": to_json(config.model), "config": to_json(config), "schedule": None}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of step 3 with the settings of the default preset."""
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save(state_at(3), {"seed": 0}, meta_of(Config()))
    checkpoints.wait()
    return checkpoints


def restored(checkpoints, config=None, **rest):
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(0)
    )
    meta = meta_of(config or Config())
    return checkpoints.restore(abstract, {"seed": 0}, meta, warn=pytest.fail, **rest)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"optimizer": {"name": "muon"}},
         "another optimizer (optimizer.name: saved 'adamw', asked for 'muon')"),
        ({"optimizer": {"learning_rate": 1e-4}}, "optimizer.learning_rate: saved 0.003"),
        ({"optimizer": {"warmup_steps": 7}}, "optimizer.warmup_steps: saved 50, asked for 7"),
        ({"train": {"z_loss": 0.1}}, "train.z_loss: saved 0.0, asked for 0.1"),
        ({"model": {"rope_base": 500.0}}, "another model (rope_base: saved 10000.0, asked for 500"),
        ({"data": {"length": 512}}, "data.length: saved 256, asked for 512"),
    ],
)  # fmt: skip
def test_another_run_is_refused_untouched(saved, tmp_path, sections, said):
    before = content(tmp_path)
    with pytest.raises(ConfigError) as refused:
        restored(saved, changed(Config(), **sections))
    assert said in str(refused.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "sections",
    [
        {"execution": {"remat": "none", "attention": "reference", "scan_layers": False}},
        {"train": {"accumulation": 2, "log_every": 1, "steps": 9}},
        {"mesh": {"tensor": 2}},
        {"data": {"workers": 3}},
    ],
)
def test_how_it_is_computed_may_change(saved, sections):
    config = changed(Config(), **sections)
    assert restored(saved, config) is not None
    name = next(iter(sections))
    field, value = next(iter(sections[name].items()))
    said = changes(record_of(saved.folder.parent).config, config)
    assert any(line.startswith(f"{name}.{field}: saved") and str(value) in line for line in said)


def rewrite(path, change):
    """Change the record of a checkpoint, its checksum included."""
    meta_file, data = (
        path / "meta" / "metadata",
        json.loads((path / "data" / "metadata").read_text()),
    )
    meta = json.loads(meta_file.read_text())
    change(meta)
    meta["crc32c"] = checkpoint._record_checksum(data, meta)
    meta_file.write_text(json.dumps(meta))


def test_settings_newer_than_a_run_have_their_defaults(saved):
    def older(meta):
        for name in ("qk_norm", "mtp", "hash_rows"):
            del meta["config"]["model"][name], meta["model"][name]
        del meta["config"]["optimizer"]["clip_norm"], meta["schedule"]

    rewrite(saved.folder / "3", older)
    assert restored(saved) is not None
    with pytest.raises(ConfigError, match="qk_norm: saved True, asked for False"):
        restored(saved, changed(Config(), model={"qk_norm": False}))


def test_settings_of_a_later_version_are_refused(saved):
    rewrite(saved.folder / "3", lambda meta: meta["config"]["model"].update(flux=3))
    with pytest.raises(ConfigError, match="of another version: model.flux"):
        restored(saved)


def test_a_flipped_bit_in_the_record_is_damage(saved, tmp_path):
    """And no other run: the record carries a checksum."""
    path = saved.folder / "3" / "meta" / "metadata"
    path.write_text(path.read_text().replace('"heads": 4', '"heads": 2'))
    assert record_of(tmp_path) is None
    said = []
    abstract = jax.eval_shape(lambda: state_at(0))
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        saved.restore(abstract, {"seed": 0}, meta_of(Config()), warn=said.append)
    assert "checksum of its record" in said[0] and (saved.folder / "3.damaged").exists()


@pytest.mark.parametrize(
    "fault",
    [
        PermissionError(13, "Permission denied", "somewhere"),
        OSError(5, "Input/output error"),
        ValueError("UNAVAILABLE: the server is busy"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_fault_of_the_storage_is_no_damage(saved, tmp_path, monkeypatch, fault):
    def fails(*_, **__):
        raise fault

    before = content(tmp_path)
    monkeypatch.setattr(saved.manager, "restore", fails)
    with pytest.raises(StorageError, match="Nothing was changed"):
        restored(saved)
    monkeypatch.undo()
    assert content(tmp_path) == before and restored(saved) is not None


def test_another_state_of_the_same_settings_is_refused(saved, tmp_path):
    """As of a revision that keeps other arrays: no damage."""
    before = content(tmp_path)
    abstract = jax.eval_shape(lambda: state_at(0) | {"params": {"w": jnp.ones(5)}})
    with pytest.raises(ConfigError, match="other arrays than this version"):
        saved.restore(abstract, {"seed": 0}, meta_of(Config()), warn=pytest.fail)
    assert content(tmp_path) == before


def test_what_is_not_identity_is_known():
    """A new setting is part of a run's identity unless somebody says that it is not."""
    same = identity(Config())
    everything = to_json(Config())
    assert set(everything["optimizer"]) == set(same["optimizer"])
    assert set(everything["model"]) == set(same["model"])


# The learning rate of a run that goes on for longer.


def rate(config, replanned, step):
    return float(learning_rate(config.optimizer, config.train.steps, replanned)(step))


def test_more_steps_never_jump(saved, tmp_path):
    record = dataclasses.replace(record_of(tmp_path), step=1000)
    assert replan(Config(), record) is None
    longer = changed(Config(), train={"steps": 2000, "rewarm": True})
    replanned = replan(longer, record)
    assert replanned == Replanned(1000, 0.0, rewarm=True)
    rates = [rate(longer, replanned, step) for step in range(1000, 2000)]
    peak, warmup = longer.optimizer.learning_rate, longer.optimizer.warmup_steps
    assert max(np.abs(np.diff(rates))) <= peak / warmup * 1.01
    np.testing.assert_allclose(max(rates), peak, rtol=1e-6)
    assert "from 0 at step 1000 to 0.003 within 50 steps" in replanned.sentence(longer)
    # Continued once more, at the same number of steps, it stays as it was laid out.
    meta = meta_of(longer) | {"schedule": dataclasses.asdict(replanned)}
    assert replan(longer, dataclasses.replace(record, meta=meta, step=1500)) == replanned
    # Nor does what an earlier revision laid out, which always rose.
    meta = meta_of(longer) | {"schedule": {"step": 1000, "rate": 0.0}}
    assert replan(longer, dataclasses.replace(record, meta=meta, step=1500)) == replanned
    with pytest.raises(ConfigError, match="train.steps 12: the run has done 1000 already"):
        replan(changed(Config(), train={"steps": 12}), record)
    # A lower peak, after it diverged, lowers what it had come down to.
    lower = changed(longer, optimizer={"learning_rate": 1e-3}, train={"rewarm": False})
    meta = meta_of(longer) | {"schedule": {"step": 1000, "rate": 6e-4, "rewarm": False}}
    record = dataclasses.replace(record, meta=meta, step=1500)
    assert replan(lower, record).rate == pytest.approx(2e-4)
    lower = changed(lower, train={"steps": 3000})
    assert rate(lower, replan(lower, record), 1500) <= 2.001e-4


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
@pytest.mark.parametrize("step", [20, 600, 850, 999])
def test_what_has_decayed_rises_only_if_asked(saved, tmp_path, schedule, step):
    """20: in the warm-up, 600: wsd holds its peak, 850 and 999: it decays. cosine always does."""
    config = changed(Config(), optimizer={"schedule": schedule})
    record = dataclasses.replace(record_of(tmp_path), step=step, meta=meta_of(config))
    longer = changed(config, train={"steps": 2000})
    replanned = replan(longer, record)
    before, peak = rate(config, None, step), config.optimizer.learning_rate
    rates = np.array([rate(longer, replanned, at) for at in range(step, 2000, 10)])
    np.testing.assert_allclose(rates[0], before, rtol=1e-4)
    if step == 20 or (schedule, step) == ("wsd", 600):  # not begun: only the end lies elsewhere
        plan = [rate(longer, None, at) for at in range(step, 2000, 10)]
        np.testing.assert_allclose(rates, plan, rtol=1e-5)
        return
    assert max(rates) <= before * 1.0001 and rates[-1] < 0.3 * before
    assert "--train.rewarm True" in replanned.sentence(longer)
    asked = changed(longer, train={"rewarm": True})
    risen = [rate(asked, replan(asked, record), at) for at in range(step, 2000, 10)]
    np.testing.assert_allclose(risen[0], before, atol=peak / 40)
    assert max(risen) > 1.05 * before


def test_a_rate_that_is_nothing_is_not_continued_with(saved, tmp_path):
    record = dataclasses.replace(record_of(tmp_path), step=1000)
    longer = changed(Config(), train={"steps": 1500})
    with pytest.raises(ConfigError, match="has decayed to 0 at step 1000.*up to step 700: --train"):
        replan(longer, record)
    # A schedule without a decay goes on as it was.
    config = changed(Config(), optimizer={"decay_fraction": 0.0})
    record = dataclasses.replace(record, meta=meta_of(config))
    longer = changed(config, train={"steps": 1500})
    assert rate(longer, replan(longer, record), 1200) == pytest.approx(0.003)


def test_folders_that_hold_no_run(corpus, tmp_path):
    """Nor shall they; what a killed run was writing goes."""
    before = sorted(Path(corpus).iterdir())
    (tmp_path / "file").touch()
    for place, said in (
        (corpus, "is a prepared corpus; name a folder"), (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "cannot be made: Not a directory"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said), folder.owned(Path(place)):
            pass
    assert sorted(Path(corpus).iterdir()) == before
    for name in ("results.json.12.partial", "mine.12.partial"):
        (tmp_path / name).touch()
    with folder.owned(tmp_path):
        assert {p.name for p in tmp_path.glob("*.partial")} == {"mine.12.partial"}


def test_what_is_not_finite_is_seen_before_it_is_saved():
    tree = {"a": jnp.ones((3, 4)), "b": {"c": jnp.arange(3)}}
    assert checkpoint.all_finite(tree)
    for bad in (jnp.inf, -jnp.inf, jnp.nan):
        assert not checkpoint.all_finite(tree | {"a": tree["a"].at[2, 1].set(bad)})


# Whose folder it is, and what it holds.


HOLDS = """
import pathlib, sys
from octavo.training import folder
with folder.owned(pathlib.Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_one_owner_at_a_time(tmp_path):
    """Named in the refusal, and gone with its process, however that ends."""
    path = tmp_path / "new" / "run"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDS, path], cwd=ROOT, **pipes) as holder:
        assert holder.stdout.readline() == "ready\n"
        said = f"in use: process {holder.pid} on .* trains there since 20"
        with pytest.raises(ConfigError, match=said), folder.owned(path):
            pass
        holder.kill()
    with folder.owned(path):
        assert (path / "lock").exists()
    assert not (path / "lock").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"), folder.owned(tmp_path / "file"):
        pass


def test_a_full_disk_does_not_take_the_lock_away(small_disk):
    """Who holds it cannot be said, but one training owns the folder all the same."""
    free = os.statvfs(small_disk)
    (small_disk / "run").mkdir()
    (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
    refused = pytest.raises(ConfigError, match="in use: another process trains there")
    with folder.owned(small_disk / "run"), refused, folder.owned(small_disk / "run"):
        pass


def test_names_never_collide(tmp_path):
    made = {folder.new_folder("flat", tmp_path) for _ in range(20)}
    assert len(made) == 20 and all(path.is_dir() for path in made)


def test_a_name_that_is_no_utf8_is_refused():
    with pytest.raises(ConfigError, match="workdir .* is no UTF-8; name another folder"):
        Config(workdir="a\udce9")


def test_a_folder_that_holds_a_run_is_not_a_new_one(tmp_path):
    config = Config()
    assert not folder.unsaved_start(tmp_path, config, ())
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 12}\n{"st')
    with pytest.raises(CheckpointError, match="neither its config.json nor a checkpoint"):
        folder.unsaved_start(tmp_path, config, ())
    write_json(tmp_path / "config.json", to_json(config))
    assert folder.unsaved_start(tmp_path, config, ())
    with pytest.raises(ConfigError, match="was begun with another model"):
        folder.unsaved_start(tmp_path, changed(config, model={"heads": 2}), ())
    metrics.write_text('{"step": 501}\n')
    with pytest.raises(CheckpointError, match="metrics of 501 steps, but its checkpoints are gone"):
        folder.unsaved_start(tmp_path, config, ())
    (tmp_path / "config.json").write_text("")
    with pytest.raises(CheckpointError, match="config.json is damaged"):
        folder.unsaved_start(tmp_path, config, ())


@pytest.mark.parametrize("name", folder.MADE)
def test_anything_of_a_run_is_enough(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=f"holds {name} of a run, but neither its config"):
        folder.unsaved_start(tmp_path, Config(), ())


def test_what_says_that_a_run_diverged_is_checked(tmp_path):
    config = changed(Config(), optimizer={"learning_rate": 1e-4})
    write_json(tmp_path / "diverged.json", {"step": 3, "learning_rate": 1})
    assert folder.given_up(tmp_path, config) == ("optimizer.learning_rate",)
    for text in ("{}", '{"step": 3}', '{"step": 3, "learning_rate": "1"}', "[]"):
        (tmp_path / "diverged.json").write_text(text)
        with pytest.raises(CheckpointError, match="diverged.json is damaged"):
            folder.given_up(tmp_path, config)


def test_only_numbers_are_checkpoints(tmp_path):
    for name in ("20", "3", "\u00b2", "\u0663", "4.damaged", "-1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert saved_steps(tmp_path) == [20, 3]


def test_set_aside_is_not_a_new_run(saved):
    saved.set_aside(3, "damaged")
    with pytest.raises(CheckpointError, match=r"kept as \*.damaged"):
        restored(saved)


# From the command line.


def test_changed_settings_at_the_command_line(tiny, finished):
    before = content(finished)
    for change, said in (
        (
            ["--optimizer.name", "muon", "--train.steps", "12"],
            "optimizer.name: saved 'adamw', asked for 'muon'",
        ),
        (["--train.steps", "12"], "the run has done 30 already. Ask for 30 or more."),
        (["--train.steps", "33"], "decayed to 0 at step 30: more steps would change nothing."),
    ):
        done = run("train.py", "flat", *arguments_of(tiny, finished), *change)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert content(finished) == before
    done = run(
        "train.py", "--workdir", str(finished), "--train.steps", "33", "--train.rewarm", "True",
        "--execution.remat", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "execution.remat: saved 'auto', asked for 'none'" in done.stdout
    assert "train.steps: saved 30, asked for 33" in done.stdout
    assert "learning rate laid out anew over 33 steps: from 0 at step 30" in done.stdout
    assert json.loads((finished / "results.json").read_text())["step"] == 33
    assert list(metrics_of(finished)) == list(range(1, 34))


@pytest.mark.parametrize("name", ["rope_base", "activation", "window"])
def test_an_edited_config_is_not_scored(finished, name):
    from octavo.run.opened import open_run

    path = finished / "config.json"
    edited = json.loads(path.read_text())
    edited["model"][name] = {"rope_base": 500.0, "activation": "silu", "window": 8}[name]
    write_json(path, edited)
    with pytest.raises(
        ConfigError, match=f"was not trained as its config.json says.*{name}: saved"
    ):
        open_run(finished)
    path.write_text("")
    with pytest.raises(CheckpointError, match="config.json is damaged"):
        open_run(finished)


def test_a_run_that_diverged_goes_on_at_a_lower_rate(tiny, tmp_path):
    """The parameters that a single step ruined are not kept as a checkpoint to go on from."""
    workdir, train = tmp_path / "run", dataclasses.replace(tiny.train, evaluation_bytes=0)
    config = dataclasses.replace(tiny, train=dataclasses.replace(train, checkpoint_every=1))
    high = changed(config, optimizer={"learning_rate": 1e6})
    done = run("train.py", "flat", *arguments_of(high, workdir))
    assert done.returncode == 1
    assert "20 steps in a row up to step 21 were not finite" in done.stderr
    assert "it is 1e+06): with that alone changed, the run goes on from its start" in done.stderr
    done = run("train.py", "flat", *arguments_of(config, workdir))
    assert done.returncode == 0, done.stderr
    assert metrics_of(workdir)[30]["train/bits_per_byte"] < 7.5
    assert not (workdir / "diverged.json").exists()
    # Not once it went on: then its rate is part of what it is.
    lower = changed(config, optimizer={"learning_rate": 1e-4})
    done = run("train.py", "flat", *arguments_of(lower, workdir))
    assert done.returncode == 2 and "optimizer.learning_rate: saved 0.003" in done.stderr


def test_a_run_that_skipped_its_steps_failed(tiny, tmp_path):
    config = changed(tiny, optimizer={"learning_rate": 1e38}, train={"steps": 8})
    done = run("train.py", "flat", *arguments_of(config, tmp_path / "run"))
    assert done.returncode == 1 and "7 of 8 steps were not finite" in done.stderr
    left = json.loads((tmp_path / "run" / "results.json").read_text())
    assert not left["finished"] and left["stopped"]


def test_default_names_of_the_same_second(tiny, tmp_path):
    flags = arguments_of(changed(tiny, train={"steps": 2, "sample_bytes": 0}), "x")[2:]
    processes = [start("train.py", "flat", *flags, cwd=tmp_path) for _ in range(2)]
    for process in processes:
        assert process.wait(300) == 0, process.communicate()
    with contextlib.ExitStack() as pipes:
        for process in processes:
            pipes.enter_context(process)
    assert len(list((tmp_path / "runs").iterdir())) == 2


# Files.


def test_json_is_whole_or_absent_and_checked(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": float("nan"), "y": [1.5, float("inf")]})
    assert json.loads(path.read_text()) == {"x": None, "y": [1.5, None]}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    for text in ("", "[" * 100_000, "nul", '{"model": 3}', '{"flux": 1}', "\udc80", '{"data": {'
                 '"source": null}}', '{"model": {"activation": "tanh"}}'):  # fmt: skip
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(FileError, match="a.json is damaged, or of another version: "):
            read_json(path, Config)
