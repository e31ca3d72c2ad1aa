"""Analytic FLOPs against what the compiler counts in an unscanned small model, and what of them a
run counts as useful."""

import dataclasses
import io
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from rich.console import Console

from helpers import batch_of, random_text
from octavo.configs import pods, presets
from octavo.configs.learned import STAGES
from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import ExecutionConfig
from octavo.model import flops
from octavo.model.flops import forward_flops, peak_flops, training_flops
from octavo.model.units.pools import pool
from octavo.model.units.room import row_units
from octavo.run.definition import define
from octavo.run.goodput import Clock
from octavo.tokenizers.words import WORDS
from octavo.training.report import Reporter
from octavo.training.screen import Screen
from octavo.training.trainer import Trainer

POOLED = StageConfig(max_unit=8, width=32, heads=2)
"""Units of white space: one position each, or two."""


def test_of_every_preset(preset):
    model = dataclasses.replace(
        preset.model,
        width=256,
        # Of so few positions, all routes are computed.
        stages=tuple(
            dataclasses.replace(s, width=128, max_unit=8, scripts=(), rates=s.rates[:1])
            for s in preset.model.stages
        ),
    )
    how = ExecutionConfig(scan_layers=False, remat="none")
    config = dataclasses.replace(preset, model=model, execution=how)
    definition = define(config, WORDS, "cpu")
    # Rows so short that attention, of which the compiler counts the hidden half too, is little.
    batch = batch_of([random_text(0, 63), random_text(1, 63)], 64)
    forward = jax.jit(lambda params, batch: definition.bind(params)(batch).logits)
    counted = forward.lower(definition.abstract, batch).cost_analysis()["flops"]
    expected = forward_flops(model, 256, 64) * 128
    # Vectors of words are positions, too: more of attention is hidden.
    most = 1.16 if any(stage.slots > 1 for stage in model.stages) else 1.15
    assert 0.95 < counted / expected < most


LEAST = {"hnet": 0.85, "mrt5-1b": 0.94}
"""Of hnet a window takes some, and a layer of mrt5-1b is a tenth of it all."""


@pytest.mark.parametrize("size", ["", "-100m", "-1b"], ids=["laptop", "100m", "1b"])
def test_sizes_match(size):
    """Every size of a learned system trains at about the flat model's FLOPs per byte."""
    known = presets()
    flat = known[f"flat{size}"]
    wanted = training_flops(flat.model, 256, flat.data.length)
    for name in (*STAGES, *(pods.LAYERS["100m"] if size else ())):
        config = known[name + size]
        found = training_flops(config.model, 256, config.data.length)
        least = LEAST.get(name + size, 0.95 if size else 0.9)
        assert least < found / wanted < (1.05 if size else 1.2), name


def test_rows_that_are_full_of_units_waste_nothing(preset):
    model, length = preset.model, preset.data.length
    units, places = [], length
    for stage in model.stages:
        units.append(row_units(stage, places) / length)
        places = row_units(stage, places) * pool(stage.pool).per_unit(stage)
    for training in (False, True):
        paid = forward_flops(model, 256, length, training)
        assert forward_flops(model, 256, length, training, tuple(units)) == pytest.approx(paid)
        if not units or training and model.stages[-1].segmenter == "deletion":
            continue  # in training, a delete gate drops nothing
        assert forward_flops(model, 256, length, training, tuple(u / 2 for u in units)) < paid


@pytest.mark.parametrize("slots", [1, 2])
def test_units_are_counted_by_hand(slots):
    """What more units cost: projections and attention of the trunk over them, quadratic in the row,
    and the steps between the widths."""
    prefix = {"pool": "prefix", "unpool": "prefix", "encoder_scope": "unit"}
    stage = replace(POOLED, slots=slots, max_unit=200, **prefix, decoder_scope="unit")
    model = ModelConfig(width=64, heads=4, layers=3, stages=(stage,))

    def trunk(units):
        n = units * slots
        block = 2 * n * (4 * 64 * 64 + 2 * 64 * 4 * 64) + 4 * n * (n + 1) / 2 * 64
        return 3 * block + 2 * 2 * n * 32 * 64

    def coders(units):  # whose rows hold the vectors of units, too
        inside, ahead = 100 + slots * units, 100 + (slots - 1) * units
        each = 2 * (4 * 32 * 32 + 2 * 32 * 4 * 32)
        return each * (inside + ahead) + 4 * 32 * (inside**2 + ahead * (ahead + 1) / 2)

    less, more = (forward_flops(model, 256, 100, units=(each,)) * 100 for each in (0.1, 0.255))
    expected = trunk(25.5) + coders(25.5) - trunk(10) - coders(10)
    assert more - less == pytest.approx(expected)


def test_inner_units_are_per_position_of_the_row():
    stage = replace(POOLED, segmenter="stride", max_unit=2)
    model = ModelConfig(width=64, heads=4, layers=3, stages=(POOLED, stage))
    few, many = (forward_flops(model, 256, 64, units=(0.5, each)) for each in (1 / 64, 0.25))
    # 15 more positions for the trunk, and between its width and the stage's.
    trunk = 15 * 3 * 2 * 12 * 64 * 64 + 3 * 4 * 64 * (16 * 17 - 2) / 2
    assert (many - few) * 64 == pytest.approx(trunk + 15 * 2 * 2 * 32 * 64)


def test_a_row_without_units_and_a_fraction_of_one():
    for mixers in (("attention",), ("gated_delta",)):
        model = ModelConfig(mixers=mixers, layers=1, stages=(POOLED,))
        found = [training_flops(model, 256, 64, (each,)) for each in (0.0, 0.01, 0.3)]
        assert 0 < found[0] < found[1] < found[2]


def test_a_delete_gate_drops_nothing_in_training():
    model = presets()["mrt5"].model
    assert training_flops(model, 256, 512, (0.1,)) == training_flops(model, 256, 512)
    assert forward_flops(model, 256, 512, units=(0.1,)) < 0.7 * forward_flops(model, 256, 512)


@pytest.fixture
def pooled(tiny):
    """A run whose rows have far more room than units."""
    model = replace(tiny.model, stages=(POOLED,))
    return Trainer.of(replace(tiny, model=model), devices=jax.devices()[:2])


def reporter(trainer, workdir, step):
    screen = Screen(Console(file=io.StringIO()), 30, 10)
    return Reporter(trainer, screen, workdir, step, {}, lambda runs, page: None, Clock())


def sums(targets, units, skipped=0.0):
    """What a step says."""
    found = {"nats": 2.0 * targets, "bytes": targets, "targets": targets, "loss": 2.0}
    found |= {"units/0": units, "merged/0": 0.0, "computed/0": 300.0, "mixed/0": 400.0}
    found |= {"grad_norm": 1.0, "skipped": skipped}
    return {name: np.float32(value) for name, value in found.items()}


def logged(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_counts_the_units_it_had(pooled, tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "peak_flops", lambda kind: 1e15)
    report = reporter(pooled, tmp_path, 0)
    report(1, sums(500, 100))
    report(2, sums(512, 30))
    report(3, sums(512, 30, skipped=1))  # whose update was not made
    size, model = pooled.tokenizer.vocab_size, pooled.config.model
    useful = [500 * training_flops(model, size, 64, (0.2,))]
    useful += [useful[0] + 512 * training_flops(model, size, 64, (30 / 512,))] * 2
    rows = logged(tmp_path)
    assert [row["train/flops_useful"] for row in rows] == pytest.approx(useful)
    paid = 512 * training_flops(model, size, 64, (300 / 512,), (400 / 512,))
    assert pooled.paid_flops({}) == pytest.approx(512 * training_flops(model, size, 64))
    assert [row["train/flops"] for row in rows] == pytest.approx([paid, 2 * paid, 3 * paid])
    assert 0 < rows[0]["perf/mfu"] < rows[0]["perf/hfu"]  # the clock cancels
    assert rows[0]["perf/mfu"] / rows[0]["perf/hfu"] == pytest.approx(useful[0] / paid)
    assert report.results(False)["flops_useful"] == pytest.approx(useful[-1])


def test_counts_go_on_where_the_log_ends(pooled, tmp_path):
    report = reporter(pooled, tmp_path, 0)
    for step in (1, 2):
        report(step, sums(512, 100))
    assert reporter(pooled, tmp_path, 2).flops_useful == report.flops_useful
    # Revisions before did not count, but said how many units there were; or not even that.
    size, model, path = pooled.tokenizer.vocab_size, pooled.config.model, tmp_path / "metrics.jsonl"
    for gone, units in (("train/flops_useful", (100 / 512,)), ("units/0", None)):
        rows = [{k: v for k, v in row.items() if k != gone} for row in logged(tmp_path)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        expected = 2 * 512 * training_flops(model, size, 64, units)
        assert reporter(pooled, tmp_path, 2).flops_useful == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU7x", 1153e12), ("cpu", None)],
)
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
