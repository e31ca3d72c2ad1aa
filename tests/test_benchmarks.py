"""Benchmarks end as the commands do: in one sentence, with an exit code."""

import dataclasses
import importlib.util
import math
import sys
from pathlib import Path

import jax
import pytest

from helpers import batch_of, words
from octavo import cli
from octavo.configs.checks import ConfigError
from octavo.data.errors import DataError
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.trainer import Trainer

BENCHMARKS = {path.stem: path for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py")}


def loaded(name: str, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS[name].parent)
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_go_through_the_one_boundary():
    for path in BENCHMARKS.values():
        text = path.read_text(encoding="utf-8")
        if "__main__" in text:
            assert "    cli.run(main)\n" in text, path


@pytest.mark.parametrize("preset", ["magnet", "blt", "flat-100m"])
def test_a_missing_corpus(preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="corpora"):
        loaded("models", monkeypatch).contender(preset)


def test_an_unknown_preset(monkeypatch):
    with pytest.raises(ConfigError, match="no preset 'flot'; there are flat,"):
        loaded("models", monkeypatch).contender("flot")


@pytest.mark.parametrize("name", ["step_time", "loss_vs_torch", "magnet_vs_torch"])
def test_without_pytorch(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch_model", raising=False)
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(ConfigError, match="needs PyTorch") as failed:
        loaded(name, monkeypatch).main()
    assert cli._outcome(failed.value) == (str(failed.value), cli.WRONG_USE)


def test_a_sweep_of_rates_is_of_trainings_at_these_rates(monkeypatch):
    """One program for all of them, and each what the trainer would do at that rate."""
    width = loaded("width", monkeypatch)
    config = width.configuration(32, 16, steps=4, layers=1)
    batch = batch_of([words(i, 127) for i in range(8)], 128)._asdict()
    swept = width.Swept.of(config, ByteTokenizer(), devices=jax.devices()[:1])
    for rate in (0.01, 0.1):
        optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
        changed = dataclasses.replace(config, optimizer=optimizer)
        plain = Trainer.of(changed, ByteTokenizer(), devices=jax.devices()[:1])
        with jax.set_mesh(plain.mesh):
            found = width.bits(swept, [batch] * 4, rate, seed=1)
            state = plain.fresh(1)
            for _ in range(4):
                state, metrics = plain.step(state, batch)
        expected = float(metrics["nats"] / metrics["bytes"]) / math.log(2)
        assert found == pytest.approx(expected, rel=1e-4)
