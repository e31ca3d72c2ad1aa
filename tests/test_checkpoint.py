"""Saving where it cannot be saved, and what is kept."""

import dataclasses
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import arguments_of, metrics_of, run
from octavo.configs.checks import ConfigError
from octavo.configs.schema import MeshConfig
from octavo.run import checkpoint
from octavo.run.checkpoint import Checkpoints, checksum, load_params
from octavo.run.errors import CheckpointError
from octavo.run.sharding import make_mesh


def state_of(step: int, size: int = 8) -> dict:
    sharding = jax.sharding.NamedSharding(make_mesh(MeshConfig()), jax.P())
    state = {
        "step": jnp.int32(step),
        "params": {"w": jnp.arange(size, dtype=jnp.float32) + step},
        "opt": {"mu": jnp.ones(size)},
        "skipped": jnp.int32(0),
    }
    return jax.device_put(state, sharding)


META = {"model": {"width": 8}}


def saved(folder, steps, keep=2):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(state_of(step), {"plan": 1}, META)
    checkpoints.wait()
    return checkpoints


def abstract_of(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def test_newest_few_are_kept_and_come_back(tmp_path):
    checkpoints = saved(tmp_path, [3, 5, 8])
    assert sorted(checkpoints.manager.all_steps()) == [5, 8]
    state = checkpoints.restore(abstract_of(state_of(0)), {"plan": 1}, META, warn=pytest.fail)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(8)), strict=True):
        np.testing.assert_array_equal(a, b)
    items = {p.name for p in (tmp_path / "checkpoints" / "8").iterdir() if p.is_dir()}
    assert items == {"params", "opt", "data", "meta"}


def test_milestones_and_the_best_are_kept(tmp_path):
    checkpoints, scores = Checkpoints(tmp_path, 1, every=4), {1: 3.0, 2: 2.0, 3: float("nan")}
    for step in range(1, 8):
        better = checkpoints.offer(step, scores.get(step, 2.5))
        assert better == (step < 3)
        checkpoints.save(state_of(step), {"plan": 1}, META)
    checkpoints.wait()
    assert sorted(checkpoints.steps) == [2, 4, 7] and checkpoints.newest == 7


def test_differences_are_shown(tmp_path):
    checkpoints = saved(tmp_path, [1])
    abstract = abstract_of(state_of(0))
    with pytest.raises(ConfigError, match="another model .width: saved 8, asked for 16"):
        checkpoints.restore(abstract, {"plan": 1}, {"model": {"width": 16}}, warn=pytest.fail)
    with pytest.raises(ConfigError, match="plan: saved 1, asked for 2"):
        checkpoints.restore(abstract, {"plan": 2}, META, warn=pytest.fail)
    assert checkpoints.manager.all_steps() == [1]


def test_another_format_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    saved(tmp_path, [1]).close()
    monkeypatch.undo()
    checkpoints, abstract = Checkpoints(tmp_path, 1), abstract_of(state_of(0))
    for read in (
        lambda: checkpoints.restore(abstract, {"plan": 1}, META, warn=pytest.fail),
        lambda: load_params(tmp_path, abstract["params"]),
    ):
        with pytest.raises(ConfigError, match="have format 1, and this version of Octavo reads 2"):
            read()
    assert checkpoints.manager.all_steps() == [1]


def test_nothing_there(tmp_path):
    assert Checkpoints(tmp_path, 1).restore({}, {}, META, warn=pytest.fail) is None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_checksum_sees_every_bit(dtype):
    """And no sharding."""
    tree = {"a": jnp.arange(64).reshape(8, 8).astype(dtype), "b": jnp.float32(3)}
    expected = checksum(tree)
    mesh = make_mesh(MeshConfig())
    split = jax.device_put(tree["a"], jax.sharding.NamedSharding(mesh, jax.P(None, "fsdp")))
    assert checksum(tree | {"a": split}) == expected
    rng = np.random.default_rng(0)
    raw = np.asarray(tree["a"]).tobytes()
    for bit in rng.choice(8 * len(raw), 100, replace=False):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << (bit % 8)
        changed = np.frombuffer(bytes(flipped), tree["a"].dtype).reshape(8, 8)
        assert checksum(tree | {"a": jnp.asarray(changed)}) != expected
    assert checksum(tree | {"a": tree["a"][::-1]}) != expected


def test_full_disk(tiny, small_disk):
    """The run fails with one sentence; the checkpoints before are whole; with room it continues."""
    steps = dataclasses.replace(tiny.train, evaluation_bytes=0, sample_bytes=0, steps=40)
    config = dataclasses.replace(tiny, train=steps)
    arguments = arguments_of(config, small_disk / "run")
    done = run("train.py", "flat", *arguments, "--train.steps", "20")
    assert done.returncode == 0, done.stderr
    used = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(used.f_bavail * used.f_frsize - 60_000))
    arguments += ["--train.rewarm", "True"]
    done = run("train.py", "flat", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    # TensorStore's threads may print tracebacks of their own; ours never do.
    assert 'train.py", line' not in done.stderr
    said = re.search(r"error: .*No space left.*then run python .*train.py --workdir", done.stderr)
    assert said, done.stderr
    (small_disk / "ballast").unlink()
    done = run("train.py", "flat", *arguments)
    assert done.returncode == 0, done.stderr
    assert "continues at step" in done.stdout
    assert list(metrics_of(small_disk / "run")) == list(range(1, 41))


def test_load_params_needs_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="is no run directory"):
        load_params(tmp_path, {})
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has no complete checkpoint yet"):
        load_params(tmp_path, {})
