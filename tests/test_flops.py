"""Analytic FLOPs against what the compiler counts in an unscanned small model."""

import dataclasses

import jax
import pytest

from helpers import batch_of, random_text
from octavo.model.flops import forward_flops, peak_flops
from octavo.training.state import define


def test_of_every_preset(preset):
    model = dataclasses.replace(
        preset.model,
        width=256,
        scan_layers=False,
        remat="none",
        stages=tuple(dataclasses.replace(s, width=128, max_unit=8) for s in preset.model.stages),
    )
    config = dataclasses.replace(preset, model=model)
    definition = define(config, 256, "cpu")
    # Rows so short that attention, of which the compiler counts the hidden half too, is little.
    batch = batch_of([random_text(0, 63), random_text(1, 63)], 64)
    forward = jax.jit(lambda params, batch: definition.bind(params)(batch).logits)
    counted = forward.lower(definition.abstract, batch).compile().cost_analysis()["flops"]
    expected = forward_flops(model, 256, 64) * 128
    assert 0.95 < counted / expected < 1.15


@pytest.mark.parametrize(("kind", "peak"), [("TPU v5 lite", 197e12), ("cpu", None)])
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
