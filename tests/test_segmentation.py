"""Units of a row against plain loops: where they end, what may be seen, what is pooled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helpers import random_text, shrink
from octavo.batch import Batch
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, RopeScaling, StageConfig
from octavo.model.check import check, check_used
from octavo.model.layers import starts_of, take
from octavo.model.units.pools import pool as pool_of
from octavo.model.units.reductions import interleave
from octavo.model.units.room import row_units
from octavo.model.units.segmentation import bounded, segment
from octavo.model.units.segmenters import segmenter
from octavo.model.units.unpools import unpool as unpool_of
from octavo.run.definition import define
from octavo.tokenizers.bytes import BOS
from octavo.tokenizers.interface import Vocabulary
from octavo.tokenizers.words import MARK, WORDS


def test_a_worked_example():
    """The example of dynamic pooling (2211.09761): groups {0,1,2}, {3,4}, {5} and an open one."""
    boundary = jnp.array([[0, 0, 1, 0, 1, 1, 0, 0]], bool)
    units = segment(boundary, jnp.ones((1, 8), int), 6)
    assert units.unit_of.tolist() == [[0, 0, 0, 1, 1, 2, 3, 3]]
    assert units.available.tolist() == [[0, 0, 1, 1, 2, 3, 3, 3]]
    assert units.since.tolist() == [[0, 1, 0, 1, 0, 0, 1, 2]]
    assert units.last[0, :4].tolist() == [2, 4, 5, 7]
    assert units.layout.positions[0].tolist() == [0, 1, 2, 3, 0, 0]
    assert units.layout.segment_ids[0].tolist() == [1, 1, 1, 1, 0, 0]


def test_documents_do_not_share_units():
    boundary = jnp.array([[0, 1, 0, 0, 1, 0, 1, 0, 0]], bool)
    documents = jnp.array([[1, 1, 1, 2, 2, 2, 3, 3, 0]])
    units = segment(boundary, documents, 9)
    assert units.unit_of.tolist() == [[0, 0, 1, 2, 2, 3, 4, 5, 6]]
    # Nothing of another document is ever available.
    assert units.available.tolist() == [[0, 1, 1, 0, 3, 3, 5, 5, 0]]
    assert units.layout.segment_ids[0].tolist() == [1, 1, 2, 2, 3, 3, 0, 0, 0]
    assert units.layout.positions[0, :6].tolist() == [0, 1, 0, 1, 0, 1]


def test_a_row_with_too_many_units():
    """What fits is as without the limit; the rest sees the newest unit that was kept."""
    rng = np.random.default_rng(0)
    boundary = jnp.asarray(rng.random((4, 40)) < 0.5)
    documents = jnp.ones((4, 40), int)
    whole, cut = (segment(boundary, documents, n) for n in (41, 6))
    assert (cut.available <= 5).all() and (cut.unit_of <= 5).all()
    fits = np.asarray(whole.available) <= 5
    np.testing.assert_array_equal(cut.available[fits], whole.available[fits])
    assert (np.asarray(cut.available)[~fits] == 5).all()
    assert not np.asarray(cut.boundary)[~fits].any()


def by_hand(ends, documents, stage):
    """The boundaries of one row, one position after the other."""
    boundary, granted = np.zeros(len(ends), bool), np.zeros(len(ends), bool)
    for t in range(len(ends)):
        if t == 0 or documents[t] != documents[t - 1]:
            start, used, since = t, 0, 0
        budget = 2 + int(np.floor(np.float32(stage.capacity) * np.float32(t - start + 1)))
        granted[t] = ends[t] and used < budget
        used += granted[t]
        boundary[t] = granted[t] or since % stage.max_unit == stage.max_unit - 1
        since = 0 if granted[t] else since + 1
    return boundary, granted


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_bounds(rate):
    """No document uses more than its share, no unit is too long; also when continued in parts."""
    rng = np.random.default_rng(1)
    stage = StageConfig(capacity=0.25, max_unit=7)
    ends = rng.random((5, 60)) < rate
    documents = np.sort(rng.integers(1, 4, (5, 60)), axis=1)
    starts = np.asarray(starts_of(jnp.asarray(documents)))
    t = np.arange(60)[None]
    positions = t - np.maximum.accumulate(np.where(starts, t, 0), axis=1)
    none = jnp.zeros(5, jnp.int32)
    found = bounded(jnp.asarray(ends), stage, positions, none, none, jnp.asarray(starts))
    for row in range(5):
        expected = by_hand(ends[row], documents[row], stage)
        np.testing.assert_array_equal(found[0][row], expected[0])
        np.testing.assert_array_equal(found[1][row], expected[1])
        # The newest document, continued after 20 of its positions, with what was counted so far.
        alone, granted = by_hand(ends[row], np.ones(60), stage)
        newest = np.flatnonzero(granted[:20])
        used, since = len(newest), 20 - (newest[-1] + 1 if len(newest) else 0)
        rest, _ = bounded(
            jnp.asarray(ends[row : row + 1, 20:]), stage, 20 + jnp.arange(40)[None],
            jnp.array([used]), jnp.array([since]), jnp.zeros((1, 40), bool),
        )  # fmt: skip
        np.testing.assert_array_equal(rest[0], alone[20:])


def test_rules():
    text = bytes([BOS]) + b"a  b\tc-d \xc3\xa9\xc3\xa9 x9" + bytes([MARK]) + b"y"
    ids = np.frombuffer(text, np.uint8).astype(np.int64)
    before = np.append(-1, ids[:-1])

    def ended(kind):
        rule = segmenter(kind).rule
        ends = rule(ids, before, WORDS)
        np.testing.assert_array_equal(rule(jnp.asarray(ids), before, WORDS), ends)
        cuts = [0, *(np.flatnonzero(ends) + 1).tolist(), len(text)]
        return [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]

    bos, mark = bytes([BOS]), bytes([MARK])
    assert ended("whitespace") == [
        bos, b"a ", b" b\t", b"c-d ", "éé ".encode(), b"x9" + mark + b"y",
    ]  # fmt: skip
    # SpaceByte: the first of a run of bytes that are no letter, digit or continuation.
    assert ended("spacelike") == [
        bos, b"a ", b" b\t", b"c-", b"d ", b"\xc3\xa9\xc3", b"\xa9 ", b"x9" + mark, b"y",
    ]  # fmt: skip
    assert ended("unit_mark") == [bos, text[1:-1], b"y"]
    assert ended("stride") == [bos, text[1:]]


@pytest.mark.parametrize("name", ["megabyte", "blt"])
def test_the_begin_id_is_the_tokenizers(name):
    """In one pass and step by step; the begin id of bytes is an ordinary id of subwords."""
    config = shrink(presets()[name])
    definition = define(config, Vocabulary(301, bos_id=300, eos_id=300), "cpu")
    params = definition.init(jax.random.key(0))
    tokens = jnp.array([[300, 7, BOS, 9, 10, BOS, 300, 8, BOS, 11]])
    documents = jnp.array([[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    positions = jnp.array([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]])
    none = jnp.zeros_like(tokens)
    batch = Batch(tokens, tokens, documents, positions, documents, none)

    @jax.jit
    def both(params):
        model = definition.bind(params)
        found = model(batch)
        alone, _ = model.extend(tokens[:, :6], model.init_cache(1, 16))
        return found.logits, found.levels[0].decision.ends[0], alone

    logits, opened, alone = both(params)
    assert np.flatnonzero(opened).tolist() == [0, 6]
    np.testing.assert_allclose(alone, logits[:, :6], atol=1e-4)


def example(stage, seed=0, length=24):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, length, stage.width)).astype(np.float32)
    boundary = jnp.asarray(rng.random((2, length)) < 0.3)
    documents = jnp.asarray(np.sort(rng.integers(1, 3, (2, length)), axis=1))
    return x, segment(boundary, documents, length + 2)


def in_unit(units, row, k):
    return np.flatnonzero(np.asarray(units.unit_of[row]) == k)


@pytest.mark.parametrize("kind", ["mean", "last", "cross", "concat"])
def test_pools(kind):
    stage = StageConfig(
        width=8, heads=2, pool=kind, slots=2 if kind == "cross" else 1, max_unit=4,
        segmenter="stride" if kind == "concat" else "whitespace",
        unpool="cross" if kind == "cross" else "repeat",
        encoder_layers=0,
    )  # fmt: skip
    pool = pool_of(stage.pool)(stage, 16, jnp.float32, nnx.Rngs(params=0))
    x, units = example(stage)
    found = nnx.jit(lambda pool, x: pool(x, units))(pool, jnp.asarray(x))
    for row in range(2):
        for k in range(int(units.unit_of[row, -1]) + 1):
            at = in_unit(units, row, k)
            if kind == "mean":
                expected = pool.enter(pool.norm(x[row, at].mean(0)))
            elif kind == "last":
                expected = pool.enter(pool.norm(x[row, at[-1]]))
            elif kind == "concat":
                pieces = np.zeros((4, 4), np.float32)
                pieces[4 - len(at[-4:]) :] = pool.enter(pool.norm(x[row, at[-4:]]))
                expected = pieces.reshape(-1)
            else:
                expected = pool.enter(pool.norm(cross_by_hand(pool.cross, x[row, at])))
            np.testing.assert_allclose(found[row, k, 0], expected, atol=1e-4)


def cross_by_hand(cross, x):
    """BLT's cross-attention of the queries of one unit to its own positions."""
    start = cross.start(x.max(0)).reshape(cross.slots, -1)
    heads = lambda y: np.asarray(y).reshape(len(y), cross.heads, -1)  # noqa: E731
    q, k, v = (
        heads(cross.query(cross.query_norm(start))),
        heads(cross.key(cross.norm(x))),
        heads(cross.value(cross.norm(x))),
    )
    scores = np.einsum("shd,thd->sht", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("sht,thd->shd", weights, v).reshape(cross.slots, -1)
    return (start + cross.out(mixed)).reshape(-1)


@pytest.mark.parametrize("kind", ["repeat", "at_end", "multilinear", "split", "prefix"])
def test_unpools(kind):
    stage = StageConfig(
        width=8, heads=2, max_unit=4, segmenter="stride", unpool=kind, encoder_layers=0,
        pool="concat",
    )  # fmt: skip
    unpool = unpool_of(stage.unpool)(stage, 16, jnp.float32, nnx.Rngs(params=1))
    x, units = example(stage, seed=2)
    z = np.random.default_rng(3).normal(size=(2, units.last.shape[1], 1, 16)).astype(np.float32)
    memory = jnp.concatenate([unpool.before_any(2), unpool.memory(jnp.asarray(z))], axis=1)
    found = unpool(jnp.asarray(x), memory, units.available, units.boundary, units.since)
    for row in range(2):
        for t in range(x.shape[1]):
            unit, since = int(units.available[row, t]), int(units.since[row, t])
            vectors = np.asarray(unpool.null[...])
            if unit:
                normed = unpool.norm(z[row, unit - 1, 0])
                parts = normed.reshape(4, 4) if kind == "split" else normed[None]
                vectors = np.asarray(unpool.leave(parts)).reshape(-1, 8)
            ends, own = bool(units.boundary[row, t]), x[row, t]
            expected = {
                "repeat": own + vectors[0],
                "at_end": own + ends * vectors[0],
                "multilinear": own + vectors[0] + vectors[(1 + since % 16) % len(vectors)],
                "split": own * (not ends) + vectors[min(since, len(vectors) - 1)],
                "prefix": vectors[-1] if ends else own,
            }[kind]
            np.testing.assert_allclose(found[row, t], expected, atol=1e-5)


def test_padding_widens_and_cuts():
    """SpaceByte adds zeros in front, and reads the last coordinates."""
    stage = StageConfig(width=8, heads=2, projection="pad", unpool="at_end")
    pool = pool_of(stage.pool)(stage, 12, jnp.float32, nnx.Rngs(params=0))
    x, units = example(stage)
    wide = pool(jnp.asarray(x), units)
    assert wide.shape[-1] == 12 and not wide[..., :4].any()
    unpool = unpool_of(stage.unpool)(stage, 12, jnp.float32, nnx.Rngs(params=0))
    np.testing.assert_array_equal(unpool.memory(wide)[:, :, 0], take(x, units.last))


def test_interleaving():
    x = jnp.arange(6.0).reshape(1, 6, 1)
    group = jnp.array([[0, 0, 1, 1, 1, 3]])
    extra = 100 + jnp.arange(8.0).reshape(1, 4, 2, 1)
    both, x_at, extra_at = interleave(x, group, extra)
    assert both[0, :, 0].tolist() == [0, 1, 100, 101, 2, 3, 4, 102, 103, 104, 105, 5, 106, 107]
    np.testing.assert_array_equal(take(both, x_at), x)
    np.testing.assert_array_equal(take(both, extra_at.reshape(1, -1))[0, :, 0], extra.flatten())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "heads 5 does not divide"),
        ({"segmenter": "predicted"}, "binomial or hinge or policy or marks or entropy, not none"),
        ({"supervision": "marks"}, "is none, not marks"),
        ({"slots": 2}, "slots above 1"),
        ({"pool": "prefix"}, "prefix needs encoder_scope unit"),
        ({"encoder_scope": "unit"}, "looks ahead inside a unit"),
        ({"encoder_scope": "unit", "pool": "mean", "unpool": "prefix"}, "pool prefix or last"),
        ({"pool": "concat"}, "concat needs segmenter stride"),
        ({"unpool": "split"}, "split needs segmenter stride"),
        ({"unpool": "cross", "decoder_layers": 0}, "cross needs decoder_layers"),
        ({"capacity": 0}, "capacity must be above 0"),
        ({"encoder_layers": -1}, "encoder_layers is 0 or more"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        check(ModelConfig(stages=(StageConfig(**changes),)), 256)


def test_levels_that_do_not_fit():
    stage = StageConfig()
    with pytest.raises(ConfigError, match="only the first of model.stages reads bytes"):
        check(ModelConfig(stages=(stage, stage)), 256)
    wide = dataclasses.replace(stage, width=256, projection="pad")
    with pytest.raises(ConfigError, match="widen inwards"):
        check(ModelConfig(stages=(wide,)), 256)
    many = StageConfig(projection="pad", unpool="multilinear")
    with pytest.raises(ConfigError, match="unpool multilinear needs more: take linear"):
        check(ModelConfig(stages=(many,)), 256)
    split = StageConfig(segmenter="stride", max_unit=3, unpool="split")
    with pytest.raises(
        ConfigError, match="max_unit 3 to divide the inner width 128; nearest: 2 or 4"
    ):
        check(ModelConfig(stages=(split,)), 256)


def test_rows_have_room():
    """A whole row of text at the share a stage allows fits its units."""
    for length in (64, 256, 512, 4096):
        stage = StageConfig(capacity=0.25, max_unit=16)
        assert row_units(stage, length) % 8 == 0
        ends = jnp.asarray(np.frombuffer(random_text(0, length), np.uint8) % 2 == 0)[None]
        none = jnp.zeros(1, jnp.int32)
        fresh = jnp.zeros((1, length), bool).at[0, 0].set(True)
        places = jnp.arange(length)[None]
        boundary, _ = jax.jit(bounded, static_argnums=1)(ends, stage, places, none, none, fresh)
        assert int(boundary.sum()) <= row_units(stage, length) - 2


@pytest.mark.parametrize(
    ("preset", "stage", "model", "said"),
    [
        ("pooling-space", {"rates": (0.3,)}, {}, "stage.rates does nothing with segmenter white"),
        ("pooling-space", {"segmenter": "stride"}, {}, "stage.capacity .* leave it at 0.25"),
        ("words", {"window": 8}, {}, "stage.window does nothing with no causal encoder or dec"),
        ("hnet-delta", {"window": 8}, {}, "stage.window does nothing with mixers gated_delta"),
        ("flat", {}, {"hash_rows": 8}, "model.hash_rows does nothing with embedding table"),
        ("flat", {}, {"mixers": ("gated_delta",), "window": 8}, "model.window does nothing with"),
        (
            "flat",
            {},
            {"mixers": ("gated_delta",), "rope_scaling": RopeScaling(2.0)},
            "model.rope_scaling.factor does nothing with mixers gated_delta; leave it at 1.0",
        ),
        (
            "flat",
            {},
            {"rope_scaling": RopeScaling(original_length=9)},
            "model.rope_scaling.original_length does nothing with factor 1",
        ),
        ("flat", {}, {"mixers": ("gated_delta",), "rope_base": 8.0}, "rope_base does nothing"),
        ("hybrid", {}, {"window": 8, "kv_heads": 2, "qk_norm": False}, None),
        ("pooling-space", {"window": 8}, {"mixers": ("gated_delta",), "qk_norm": False}, None),
        ("mtp-heads", {}, {"mixers": ("gated_delta",), "window": 8}, None),
    ],
)
def test_a_setting_that_does_nothing(preset, stage, model, said):
    config = presets()[preset].model
    stages = tuple(dataclasses.replace(one, **stage) for one in config.stages[:1])
    config = dataclasses.replace(config, stages=stages + config.stages[1:], **model)
    check(config, 512)
    if said is None:
        check_used(config)
    else:
        with pytest.raises(ConfigError, match=said):
            check_used(config)


@pytest.mark.parametrize("preset", presets())
def test_presets_set_nothing_that_does_nothing(preset):
    check_used(presets()[preset].model)
