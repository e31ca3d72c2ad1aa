"""What a config would cost, before it is trained: against what runs count and log."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from helpers import POD_SIZES, SomeMarks, of_preset, random_text, shrink, words
from octavo.batch import Batch
from octavo.configs import presets
from octavo.configs.learned import RATES, SCRIPTS
from octavo.configs.model import StageConfig
from octavo.data.prepare import prepare
from octavo.data.sources import find_units
from octavo.model.flops import forward_flops, training_flops
from octavo.model.need import sizes
from octavo.model.units.room import slots
from octavo.model.units.segmenters import segmenter
from octavo.run.definition import define
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.unicode import scripts
from octavo.tokenizers.words import WordTokenizer
from octavo.training import expected
from octavo.training.expected import cost_of, expected_units, filled
from octavo.training.metrics import of_parts
from octavo.training.trainer import Trainer, plan_of

LAPTOP = {n: c for n, c in presets().items() if not n.endswith(POD_SIZES)}
RULED = [
    name
    for name, config in LAPTOP.items()
    if config.model.stages and all(s.supervision == "none" for s in config.model.stages)
]
CYRILLIC = " Съешь же ещё этих мягких французских булок, да выпей чаю." * 40


class Marks(SomeMarks):
    """Stored with a corpus, as if by a small model."""

    description = {"kind": "entropy", "threshold": 1.0, "tokenizer": "bytes"}

    def __call__(self, documents, encoded):
        return self.of_documents(encoded)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Text of words and of two scripts, as bytes (with marks), and as words."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "text").mkdir()
    for i in range(200):
        text = words(i, 300 + 9 * i) + (CYRILLIC if i % 3 else "").encode() + random_text(i, 400)
        (folder / "text" / f"{i:03}.txt").write_bytes(text)
    units = find_units([str(folder / "text")], "text", None)
    prepare(units, folder / "bytes", ByteTokenizer(), heldout=0, processes=1, mark=Marks())
    prepare(units, folder / "words", WordTokenizer(), heldout=0, processes=1)
    return folder


@pytest.fixture(autouse=True)
def small_sample(monkeypatch):
    """Far from all rows of the corpora."""
    monkeypatch.setattr(expected, "SAMPLE", 1 << 16)


def tiny(name, corpora, **data):
    """A preset in the size of tests, on the corpora."""
    config = shrink(LAPTOP[name])
    of_words = config.model.stages and segmenter(config.model.stages[0].segmenter).reads_unit_marks
    source = str(corpora / ("words" if of_words else "bytes"))
    changed = {"source": source, "length": 128, "batch_size": 16} | data
    return replace(config, data=replace(config.data, **changed))


def batches(plan, steps):
    source = expected.BatchSource(plan, np.arange(plan.batch_size), steps)
    return (Batch(**source[step]).widen() for step in range(steps))


def logged(config, plan, steps):
    """The units that a run of so many steps logs, means over them."""
    definition = define(config, plan.corpora[0].tokenizer.vocabulary, "cpu")
    forward = jax.jit(lambda params, batch: definition.bind(params)(batch).statistics)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), definition.abstract)
    totals: dict = {}
    for batch in batches(plan, steps):
        sums = forward(params, batch) | {"targets": np.sum(batch.loss_weights)}
        totals = {name: totals.get(name, 0) + float(value) for name, value in sums.items()}
    parts = of_parts(totals)
    return [parts[f"units/{level}"] for level in range(len(config.model.stages))]


@pytest.mark.parametrize("name", [of_preset(name) for name in RULED])
def test_units_of_a_rule_are_those_that_a_run_logs(name, corpora):
    config = tiny(name, corpora)
    plan = plan_of(config)
    assert expected_units(config, plan) == pytest.approx(logged(config, plan, 60), rel=0.02)


def test_padding_has_no_units_and_is_no_text(corpora, tmp_path):
    """Rows that fit no two documents."""
    (tmp_path / "text").mkdir()
    for i in range(100):
        (tmp_path / "text" / f"{i}.txt").write_bytes(words(i, 300))
    units = find_units([str(tmp_path / "text")], "text", None)
    prepare(units, tmp_path / "out", ByteTokenizer(), heldout=0, processes=1)
    how = {"source": str(tmp_path / "out"), "length": 512, "packing": "best_fit"}
    config = tiny("pooling-space", corpora, **how)
    plan = plan_of(config)
    assert np.mean([np.mean(batch.loss_weights) for batch in batches(plan, 6)]) < 0.6
    assert expected_units(config, plan) == pytest.approx(logged(config, plan, 6), rel=0.02)
    cost = cost_of(config, plan)
    assert cost.train_paid > 1.4 * cost.train_useful  # what works on bytes pays for padding


@pytest.mark.parametrize("name", ["pooling-gumbel", "manta", "hnet", "hnet-2stage", "mrt5"])
def test_learned_units_are_those_of_the_prior(name, corpora):
    config = tiny(name, corpora)
    config = replace(config, model=replace(config.model, stages=LAPTOP[name].model.stages))
    rates = [stage.rates[0] for stage in config.model.stages]
    assert expected_units(config, plan_of(config)) == pytest.approx(np.cumprod(rates), rel=0.02)


def test_a_script_has_its_own_rate(corpora):
    """And half of the text is of one that is cut less than others."""
    config = tiny("magnet", corpora)
    config = replace(config, model=replace(config.model, stages=LAPTOP["magnet"].model.stages))
    plan = plan_of(config)
    text = b"".join(path.read_bytes() for path in (corpora / "text").iterdir())
    rate_of = dict(zip(SCRIPTS, RATES[1:], strict=True))
    rates = np.array([rate_of.get(name, RATES[0]) for name in scripts.names()])
    here = scripts.scripts_of(text)
    assert 0.2 < np.mean(here == scripts.names().index("cyrillic")) < 0.8
    assert expected_units(config, plan) == pytest.approx([rates[here].mean()], rel=0.02)


def test_what_learns_from_marks_cuts_at_most_of_them(corpora):
    config = tiny("pooling-unigram", corpora)
    plan = plan_of(config)
    share = np.mean([np.mean(batch.marks[batch.loss_weights > 0]) for batch in batches(plan, 60)])
    wanted = pytest.approx([expected.FORESEEN * share], rel=0.02)
    assert expected_units(config, plan) == wanted


def test_bounds_of_the_model_count(corpora):
    config = tiny("pooling-gumbel", corpora, length=1024)

    def units(**changes):
        stage = replace(LAPTOP["pooling-gumbel"].model.stages[0], **changes)
        changed = replace(config, model=replace(config.model, stages=(stage,)))
        return expected_units(changed, plan_of(changed))[0]

    # A unit for every 16 positions, or part of them, up to the next end.
    assert units(rates=(0.02,), max_unit=16) == pytest.approx(0.02 / (1 - 0.98**16), rel=0.05)
    assert units(rates=(0.5,), capacity=0.1) == pytest.approx(0.1, rel=0.05)


def test_the_size_of_a_model_changes_no_unit(corpora):
    """And is no reason to count again."""
    config = tiny("pooling-space", corpora)
    plan = plan_of(config)
    before = expected_units(config, plan)
    (stage,) = config.model.stages
    wide = replace(config.model, width=256, stages=(replace(stage, width=128, heads=8),))
    misses = expected._measured.cache_info().misses
    assert expected_units(replace(config, model=wide), plan) == before
    assert expected._measured.cache_info().misses == misses


@pytest.mark.parametrize("name", ["flat", "words", "hat"])
@pytest.mark.parametrize("packing", ["concat", "best_fit"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_costs_are_those_that_a_run_counts(name, packing, remat, corpora):
    """Of all the text: what its steps pay and use, over its bytes."""
    config = tiny(name, corpora, packing=packing)
    config = replace(config, execution=replace(config.execution, remat=remat))
    trainer = Trainer.of(config, devices=jax.devices()[:1])
    plan, cost = trainer.plan, cost_of(config, trainer.plan)
    steps, (corpus,) = plan.rows_per_epoch / plan.batch_size, plan.corpora
    (rows, length), computed = trainer.shape, {}
    each = rows // jax.device_count()  # of a device
    shares = zip(slots(config.model, length), filled(config, plan), strict=True)
    for level, (room, share) in enumerate(shares):
        (count, row), *_ = sizes("cpu", share, each, room, True)
        computed |= {f"computed/{level}": rows / each * count, f"mixed/{level}": rows * row}
    paid = steps * trainer.paid_flops(computed)
    assert cost.train_paid * corpus.utf8_bytes == pytest.approx(paid, rel=1e-9)
    units = {f"units/{i}": each for i, each in enumerate(expected_units(config, plan))}
    useful = trainer.useful_flops(corpus.tokens, units)
    assert cost.train_useful * corpus.utf8_bytes == pytest.approx(useful, rel=1e-9)
    assert cost.infer_useful == pytest.approx(cost.train_useful / 3)
    # What scores computes all slots.
    forward = forward_flops(config.model, trainer.tokenizer.vocab_size, length)
    assert cost.infer_paid == pytest.approx(forward * corpus.tokens / corpus.utf8_bytes)
    assert cost.parameters == trainer.definition.parameters
    assert (cost.infer_paid > 1.1 * cost.infer_useful) == (name != "flat")


def test_inference_predicts_nothing_further(corpora):
    config = tiny("mtp-heads", corpora)
    cost = cost_of(config, plan_of(config))
    assert cost.train_useful > 3.5 * cost.infer_useful


def test_a_mixture_counts_by_its_weights(corpora, tmp_path):
    """Rows of a corpus whose ids are words hold more bytes than of one whose are not."""
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.txt").write_bytes(b"x" * 2000 + b" y" * 500)
    units = find_units([str(tmp_path / "text")], "text", None)
    prepare(units, tmp_path / "other", ByteTokenizer(), heldout=0, processes=1)
    stage = StageConfig(segmenter="whitespace", max_unit=8, width=16, heads=1, capacity=0.6)

    def units_of(source):
        config = tiny("pooling-space", corpora, source=source)
        config = replace(config, model=replace(config.model, stages=(stage,)))
        return expected_units(config, plan_of(config))[0]

    first, second = str(corpora / "bytes"), str(tmp_path / "other")
    alone = units_of(first), units_of(second)
    assert not math.isclose(*alone, rel_tol=0.1)
    mixed = units_of(f"{first}:3,{second}:1")
    assert mixed == pytest.approx((3 * alone[0] + alone[1]) / 4, rel=0.03)


def test_no_batch_is_compiled_for(corpora, monkeypatch):
    """Planning reads rows and counts; no model is made."""
    config = tiny("spacebyte", corpora)
    plan = plan_of(config)
    monkeypatch.setattr("octavo.model.lm.ByteLM.__init__", None)
    assert 0 < expected_units(config, plan)[0] < 1
    assert training_flops(config.model, 256, 128, expected_units(config, plan)) > 0
