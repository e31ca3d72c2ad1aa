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


PROGRAM = """HloModule jit_step

%gathers (p: bf16[16,64]) -> bf16[2048,64] {
  %p = bf16[16,64]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[2048,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, dimensions={0}
}

%multiplies (a: bf16[64,64], b: bf16[64,64]) -> bf16[64,64] {
  %a = bf16[64,64]{1,0} parameter(0)
  %b = bf16[64,64]{1,0} parameter(1)
  ROOT %c = bf16[64,64]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf
}

%scatters (p: bf16[2048,64]) -> bf16[16,64] {
  %p = bf16[2048,64]{1,0} parameter(0)
  %all-reduce.2 = bf16[2048,64]{1,0} all-reduce(%p), channel_id=8, to_apply=%add
  ROOT %own = bf16[16,64]{1,0} dynamic-slice(%all-reduce.2), dynamic_slice_sizes={16,64}
}

%body (s: (s32[], bf16[64,64])) -> (s32[], bf16[64,64]) {
  %begun = bf16[2048,64]{1,0} fusion(%x), kind=kCustom, calls=%gathers
  %done = bf16[2048,64]{1,0} fusion(%x), kind=kCustom, calls=%gathers
  %m = bf16[64,64]{1,0} fusion(%x), calls=%multiplies, backend_config={"estimated_cycles":"1500000"}
  %n = f32[64]{0:T(128)} add(%x, %x), backend_config={"estimated_cycles":"300000"}
  %r = bf16[16,64]{1,0} fusion(%begun), kind=kCustom, calls=%scatters
}

%condition (s: (s32[], bf16[64,64])) -> pred[] {
  %twenty = s32[]{:T(128)} constant(20)
}

ENTRY %main (p: bf16[64,64]) -> bf16[64,64] {
  %w = (s32[], bf16[64,64]{1,0}) while(%t), condition=%condition, body=%body
  %y = bf16[64,64]{1,0:T(8,128)(2,1)} copy(%p), backend_config={"estimated_cycles":"150000"}
  %z = (f32[], /*index=1*/f32[100]{0:T(128)}) all-reduce(%q, %r), channel_id=9, to_apply=%add
}
"""


def test_what_a_compiled_program_costs(monkeypatch):
    """Trips of loops; a gather that stands twice is one; what all-reduces move counts twice."""
    found = loaded("pods", monkeypatch).estimate(PROGRAM, 197e12)
    assert found.milliseconds == pytest.approx({"products": 20, "elementwise": 4, "copies": 0.1})
    weights = 20 * 2048 * 64 * 2
    assert found.wire == {"asynchronous": weights, "synchronous": weights + 2 * 404}
