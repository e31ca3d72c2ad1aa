"""Analytic FLOPs against what the compiler counts in an unscanned small model."""

import dataclasses

import jax
import pytest

from helpers import batch_of, random_text
from octavo.configs import presets
from octavo.configs.learned import STAGES
from octavo.configs.schema import ExecutionConfig
from octavo.model.flops import forward_flops, peak_flops, training_flops
from octavo.run.definition import define
from octavo.tokenizers.words import WORDS


def test_of_every_preset(preset):
    model = dataclasses.replace(
        preset.model,
        width=256,
        stages=tuple(dataclasses.replace(s, width=128, max_unit=8) for s in preset.model.stages),
    )
    how = ExecutionConfig(scan_layers=False, remat="none")
    config = dataclasses.replace(preset, model=model, execution=how)
    definition = define(config, WORDS, "cpu")
    # Rows so short that attention, of which the compiler counts the hidden half too, is little.
    batch = batch_of([random_text(0, 63), random_text(1, 63)], 64)
    forward = jax.jit(lambda params, batch: definition.bind(params)(batch).logits)
    counted = forward.lower(definition.abstract, batch).cost_analysis()["flops"]
    expected = forward_flops(model, 256, 64) * 128
    assert 0.95 < counted / expected < 1.15


@pytest.mark.parametrize("size", ["", "-100m", "-1b"], ids=["laptop", "100m", "1b"])
def test_sizes_match(size):
    """Every size of a learned system trains at about the flat model's FLOPs per byte."""
    known = presets()
    flat = known[f"flat{size}"]
    wanted = training_flops(flat.model, 256, flat.data.length)
    for name in STAGES:
        config = known[name + size]
        found = training_flops(config.model, 256, config.data.length)
        assert 0.9 < found / wanted < 1.2 if not size else 0.95 < found / wanted < 1.05, name


@pytest.mark.parametrize(("kind", "peak"), [("TPU v5 lite", 197e12), ("cpu", None)])
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
