"""What training a config would spend, before anything is trained or compiled: units, and FLOPs per
byte of text, useful and paid."""

import copy
import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from octavo.batch import Batch
from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config
from octavo.data.pipeline import BatchSource
from octavo.data.plan import CHUNK, Order, Plan
from octavo.model.flops import forward_flops, training_flops
from octavo.model.layers import Filled
from octavo.model.lm import layout_of
from octavo.model.need import sizes
from octavo.model.units.hourglass import cut, spread
from octavo.model.units.pools import pool
from octavo.model.units.room import slots
from octavo.model.units.segmentation import Layout
from octavo.model.units.segmenters.predicted import routes_of
from octavo.run.execution import execution_of, recomputation
from octavo.run.size import parameters
from octavo.tokenizers.interface import Vocabulary

SAMPLE = 1 << 18
"""Ids of the rows that units are counted in, about."""
ROWS, PLACES = 64, 16
"""At least so many rows, from so many places of an epoch."""

FORESEEN = 0.75
"""Of the ends that a corpus marks, those that a predictor of them asks for (measured: a few hundred
steps of pooling-unigram)."""
SPIKES = 0.25
"""Share of positions at which a predictor of the model's own entropy asks for ends (measured: a few
hundred steps of pooling-entropy)."""


@dataclass(frozen=True)
class Cost:
    """FLOPs per UTF-8 byte of text, by the formulas of ``model/flops.py``. Useful: over the units
    that exist. Paid, in training: over as many slots as are computed, padding included and, under
    ``execution.remat`` "full", the forward pass once more. In inference: over as many units as rows
    have room for; it pads nothing."""

    train_useful: float
    train_paid: float
    infer_useful: float
    infer_paid: float
    parameters: int


def cost_of(config: Config, plan: Plan) -> Cost:
    """What the config costs on the plan's text. Raises ConfigError if the model cannot be."""
    model, length, tokenizer = config.model, config.data.length, plan.corpora[0].tokenizer
    size, units = tokenizer.vocab_size, expected_units(config, plan)
    ids, utf8_bytes = _row(plan)
    per_byte = ids / utf8_bytes
    again = recomputation(
        execution_of(config, jax.default_backend(), devices=jax.device_count()).remat
    )
    paid = training_flops(model, size, length, *_computed(config, plan)) * again
    return Cost(
        train_useful=per_byte * training_flops(model, size, length, units),
        train_paid=length / utf8_bytes * paid,
        infer_useful=per_byte * forward_flops(model, size, length, units=units),
        infer_paid=per_byte * forward_flops(model, size, length),
        parameters=parameters(model, tokenizer.vocabulary),
    )


def filled(config: Config, plan: Plan) -> tuple[Filled, ...]:
    """Of the slots of each stage's units, counted as ``expected_units``."""
    return _counted(config, plan)[1]


def _computed(config: Config, plan: Plan) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Units per position of a row that a step computes as a rule, at each level, and slots of the
    rows in which they see each other; on this machine's devices."""
    length, units, mixed = config.data.length, [], []
    rows = max(config.data.batch_size // config.train.accumulation // jax.device_count(), 1)
    stages = config.model.stages
    for stage, share, room in zip(
        stages, filled(config, plan), slots(config.model, length), strict=True
    ):
        innermost = len(units) == len(stages) - 1
        compiled = sizes(jax.default_backend(), share, rows, room, innermost)
        count, row = compiled[0] if compiled else (rows * room, room)
        units.append(count / rows / pool(stage.pool).per_unit(stage) / length)
        mixed.append(row / length)
    return tuple(units), tuple(mixed)


def expected_units(config: Config, plan: Plan) -> tuple[float, ...]:
    """Mean units per id at each level, of inner levels too per id of the row: what a run will log
    as ``units/L``.

    Counted in rows of the plan, with the bounds of the model. Rules cut as they do in training.
    What is held to a rate is taken to end units at random at that rate (of a script's own route,
    where it has one): training holds it there, after some steps. What learns marks of the corpus
    or the model's own entropy is held to no rate, and counts as it turned out elsewhere
    (``FORESEEN``, ``SPIKES``): that may be a tenth off.
    """
    return _counted(config, plan)[0]


def _counted(config: Config, plan: Plan) -> tuple[tuple[float, ...], tuple[Filled, ...]]:
    """``expected_units``, and ``filled``."""
    # However wide and deep the model is, its units are the same.
    size = {"width": 2, "heads": 1, "encoder_layers": 0, "decoder_layers": 0}
    stages = tuple(dataclasses.replace(stage, **size) for stage in config.model.stages)
    return _measured(ModelConfig(stages=stages), plan) if stages else ((), ())


@functools.lru_cache(maxsize=64)
def _measured(model: ModelConfig, plan: Plan) -> tuple[tuple[float, ...], tuple[Filled, ...]]:
    rows, vocabulary = _sample(plan), plan.corpora[0].tokenizer.vocabulary
    count, each = len(rows["tokens"]), max(1, min(32, SAMPLE // 8 // plan.length))
    parts = []
    for first in range(0, count, each):  # of one shape: the last ones are filled up
        fill = ((0, max(first + each - count, 0)), (0, 0))
        part = {name: np.pad(field[first : first + each], fill) for name, field in rows.items()}
        key = jax.random.fold_in(jax.random.key(0), first)
        parts.append(np.asarray(_units(part, key, model, vocabulary)))
    units, total, most = np.array(parts).swapaxes(0, 1)
    found = np.sum(units, axis=0) / np.sum(rows["loss_weights"])
    room = np.array(slots(model, plan.length))
    means, fullest = np.sum(total, axis=0) / count / room, np.max(most, axis=0) / room
    shares = zip(means.tolist(), fullest.tolist(), strict=True)
    return tuple(found.tolist()), tuple(Filled(*share) for share in shares)


@functools.partial(jax.jit, static_argnames=("model", "vocabulary"))
def _units(arrays: dict, key: jax.Array, model: ModelConfig, vocabulary: Vocabulary) -> jax.Array:
    """How many units end at each level of the rows; how many slots of theirs hold one, in all and
    in the fullest row."""
    batch = Batch(**arrays).widen()
    layout, found, used = layout_of(batch, model, vocabulary), [], []  # used: by row
    for level, stage in enumerate(model.stages):
        ends = _ends(stage, layout, batch.marks, jax.random.fold_in(key, level))
        units = cut(stage, ends, layout)
        found.append(jnp.sum(units.boundary))
        layout = spread(units.layout, pool(stage.pool).per_unit(stage))
        used.append(jnp.sum(layout.segment_ids > 0, axis=1))
    of_rows = jnp.array(used)
    return jnp.stack([jnp.array(found), of_rows.sum(1), of_rows.max(1)])


def _ends(stage: StageConfig, layout: Layout, marks: jax.Array, key: jax.Array) -> jax.Array:
    """Where a stage may be expected to ask for ends."""
    if stage.supervision == "none":
        return layout.ends
    drawn = jax.random.uniform(key, layout.scripts.shape)
    if stage.supervision == "marks":
        return (marks > 0) & (drawn < FORESEEN)
    if stage.supervision == "entropy":
        return drawn < SPIKES
    route = jnp.asarray(routes_of(stage.scripts))[layout.scripts]
    return drawn < jnp.asarray(stage.rates)[route]


@functools.lru_cache(maxsize=8)
def _sample(plan: Plan) -> dict[str, np.ndarray]:
    """Rows of an epoch of the plan, as the pipeline makes them."""
    near = copy.copy(plan)
    # Windows of one chunk: few bytes are read for a row.
    near.orders = [
        Order(order.strategy, CHUNK, *order.key, lanes=order.lanes) for order in plan.orders
    ]
    total, wanted = plan.rows_per_epoch, max(ROWS, SAMPLE // plan.length)
    if wanted < total:
        beginnings = np.linspace(0, total - wanted // PLACES, PLACES).astype(np.int64)
        rows = np.unique(beginnings[:, None] + np.arange(wanted // PLACES))
    else:
        rows = np.arange(total)
    return BatchSource(near, rows, 1)[0]


def _row(plan: Plan) -> tuple[float, float]:
    """Mean ids and UTF-8 bytes of a row, over all corpora as weighted; padding is none."""
    weights = np.array(plan.description["weights"])
    rows = np.array([order.total for order in plan.orders])
    ids, utf8_bytes = (
        float(np.sum(weights * np.array(of_corpora) / rows) / np.sum(weights))
        for of_corpora in ([c.tokens for c in plan.corpora], [c.utf8_bytes for c in plan.corpora])
    )
    return ids, utf8_bytes
