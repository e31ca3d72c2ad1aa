"""Learned segmenters against their published formulas, plain loops and finite differences."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helpers import batch_of, defined, forward, of_preset, random_text, shrink
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, StageConfig
from octavo.model.check import check, check_used
from octavo.model.kernels import MaskSpec, attention
from octavo.model.units.learning import UNIT, membership, passing
from octavo.model.units.pools.soft import SoftSums
from octavo.model.units.reductions import mean_by_unit
from octavo.model.units.segmentation import Layout, segment
from octavo.model.units.segmenters.deletion import DeleteGate
from octavo.model.units.segmenters.frontier import Frontier
from octavo.model.units.segmenters.predicted import Predictor
from octavo.model.units.segmenters.routing import Router
from octavo.model.units.unpools.smooth import Smooth
from octavo.tokenizers.unicode.scripts import names, scripts_of
from octavo.training.objective import binomial_nats, deletion_weight, rates, ratio_loss

LEARNED = ["pooling-gumbel", "magnet", "manta", "hnet", "hnet-2stage", "mrt5", "toucan"]


def layout_of(positions, scripts=None):
    positions = jnp.asarray(positions)
    segment_ids = jnp.cumsum(positions == 0, axis=1)
    scripts = jnp.zeros_like(positions) if scripts is None else jnp.asarray(scripts)
    return Layout(positions, segment_ids, jnp.zeros_like(positions, bool), scripts)


def states(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


ONE_ROW = layout_of(np.arange(24)[None])
TWO_DOCUMENTS = layout_of(np.r_[np.arange(10), np.arange(14)][None])


@pytest.mark.parametrize(
    ("k", "loss", "slope"),
    [(0, 0.22314, -5.4302), (50, 0.04414, -0.8284), (102.4, 0.00610, 0.0037),
     (150, 0.03085, 0.5072), (512, 1.60944, 8.2028)],
)  # fmt: skip
def test_binomial_prior(k, loss, slope):
    """Values of the official loss, which divides by the positions, and its slope in the count."""
    real = jnp.ones((1, 512), bool)

    def nats(k):
        return binomial_nats(jnp.full((1, 512), k / 512), real, None, (0.2,))

    value, found = jax.value_and_grad(nats)(float(k))
    assert math.isclose(value / 512, loss, abs_tol=1e-4)
    assert math.isclose(found, slope, abs_tol=2e-3)


def test_binomial_prior_by_route():
    """Each route of each row has its own count and prior; padding counts for nothing."""
    rng = np.random.default_rng(0)
    count = jnp.asarray(rng.integers(0, 2, (3, 40)), jnp.float32)
    route = jnp.asarray(rng.integers(0, 2, (3, 40)))
    real = jnp.asarray(np.arange(40)[None] < np.array([[40], [25], [0]]))
    expected = 0.0
    for row in range(3):
        for r, rate in enumerate((0.1, 0.4)):
            mine = np.asarray(real[row] & (route[row] == r))
            n, k = int(mine.sum()), int(count[row][mine].sum())
            p = math.comb(n, k) * rate**k * (1 - rate) ** (n - k)
            expected -= math.log(p)
    assert math.isclose(binomial_nats(count, real, route, (0.1, 0.4)), expected, rel_tol=1e-4)


def test_gradient_of_the_pooled_mean():
    """The gradient that the official pooling gives an end: all bytes behind it move to the unit
    after. dL/dc[t] = <G, h[t] - mean> / size of its unit, dL/de[j] = sum of dL/dc[t] over t > j."""
    ends = jnp.array([[0, 0, 1, 0, 1, 1, 0, 0]], bool)
    units = segment(ends, jnp.ones_like(ends, jnp.int32), 6)
    h, G = states(0, (1, 8, 5)), states(1, (1, 6, 5))
    positions = jnp.arange(8)[None]

    def pooled(count):
        weight = membership(count, positions)[..., None]
        return jnp.sum(G * mean_by_unit(h, weight, units.unit_of, 6))

    found = jax.grad(pooled)(ends.astype(jnp.float32))[0]
    d_c = np.zeros(8)
    for t, k in enumerate(np.asarray(units.unit_of[0])):
        mine = np.flatnonzero(np.asarray(units.unit_of[0]) == k)
        mean = np.asarray(h[0])[mine].mean(0)
        d_c[t] = np.asarray(G[0, k]) @ (np.asarray(h[0, t]) - mean) / len(mine)
    np.testing.assert_allclose(found, [d_c[j + 1 :].sum() for j in range(8)], atol=1e-5)


def test_model_gives_ends_that_gradient():
    """The whole model hands it on: with a loss of predictions alone, the predictor learns."""
    config = shrink(presets()["pooling-gumbel"])
    definition, params = defined(config)
    batch = batch_of([random_text(0, 63)], 64)

    def loss(params):
        return jnp.sum(definition.bind(params)(batch, jnp.zeros((1, 64))).logits[..., 65])

    found = jax.jit(jax.grad(loss))(params)["trunk"]["segmenter"]
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(found))


def test_relaxed_bernoulli():
    """Ends are drawn with the predictor's probability; counts are exactly 0 or 1, with the slope
    of the relaxed variable."""
    stage = dataclasses.replace(presets()["pooling-gumbel"].model.stages[0], width=8, heads=2)
    predictor = Predictor(stage, nnx.Rngs(params=0))
    x = states(0, (1, 24, 8))
    noise = jax.random.logistic(jax.random.key(0), (4000, 1, 24))
    decide = jax.jit(jax.vmap(lambda noise: predictor.decide(x, ONE_ROW, {}, noise=noise)[0]))
    found = decide(noise)
    assert set(np.unique(found.count)) <= {0.0, 1.0}
    np.testing.assert_array_equal(found.count == 1, found.ends)
    np.testing.assert_allclose(found.ends.mean(0), found.probability[0], atol=0.03)
    drawn = lambda x: predictor.decide(x, ONE_ROW, {}, noise=noise[0])[0].count.sum()  # noqa: E731
    slope = jax.jit(jax.grad(drawn))(x)

    def soft(x):
        odds = predictor.decide(x, ONE_ROW, predictor.init_carry(1))[0].log_odds
        return jax.nn.sigmoid((odds + noise[0]) / 0.5).sum()

    np.testing.assert_allclose(slope, jax.jit(jax.grad(soft))(x), rtol=1e-5)


def test_evaluation_keeps_the_rate():
    """Without noise, as many units end as the probabilities add up to, however flat they are, and a
    sure predictor is followed."""
    flat = jnp.full((2, 1000), 0.1).at[1].set(0.003)
    positions = jnp.broadcast_to(jnp.arange(1000), flat.shape)
    ends, *_ = passing(flat, positions, jnp.zeros(2, jnp.int32), None)
    np.testing.assert_allclose(ends.sum(1), [100, 3], atol=1)
    sure = jnp.asarray(np.random.default_rng(0).integers(0, 2, (1, 1000)), jnp.float32)
    ends, *_ = passing(sure, positions[:1], jnp.zeros(1, jnp.int32), None)
    np.testing.assert_array_equal(ends, sure > 0)


@pytest.mark.parametrize("scripts", [(), ("latin",)])
def test_the_predictor_as_released(scripts):
    """w2 . GELU(W1 x + b1) + b2 of the normed state, by each script's own, in float64."""
    stage = dataclasses.replace(
        presets()["pooling-gumbel"].model.stages[0], width=8, heads=2, predictor_released=True,
        scripts=scripts, rates=(0.2, 0.4)[: 1 + len(scripts)],
    )  # fmt: skip
    predictor, K = Predictor(stage, nnx.Rngs(params=0)), 1 + len(scripts)
    bias = np.random.default_rng(0).normal(size=K * 32).astype(np.float32)
    predictor.hidden_bias[...] = jnp.asarray(bias)
    x = np.asarray(states(0, (1, 24, 8)), np.float64)
    which = np.zeros((1, 24), int)
    which[0, 12:] = names().index("latin")
    layout = layout_of(np.arange(24)[None], which)
    found = predictor.decide(jnp.asarray(x, jnp.float32), layout, predictor.init_carry(1))[0]
    normed = np.asarray(predictor.norm(jnp.asarray(x, jnp.float32)), np.float64)
    up = np.asarray(predictor.up.weight[...], np.float64).reshape(8, K, 32)
    gelu = np.vectorize(lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2)
    for t in range(24):
        k = int(bool(scripts) and t >= 12)
        hidden = gelu(normed[0, t] @ up[:, k] + bias.reshape(K, 32)[k])
        odds = hidden @ np.asarray(predictor.down[...])[k] + float(predictor.bias[...][k])
        np.testing.assert_allclose(float(found.log_odds[0, t]), odds, rtol=2e-5, atol=2e-6)


def test_the_predictor_as_released_learns():
    """All of it; and what is not asked for has no parameters."""
    config = shrink(presets()["magnet"])
    plain = defined(config)[1]["trunk"]["segmenter"]
    assert "hidden_bias" not in plain
    stages = tuple(dataclasses.replace(s, predictor_released=True) for s in config.model.stages)
    model = dataclasses.replace(config.model, stages=stages)
    check_used(model)
    definition, params = defined(dataclasses.replace(config, model=model))
    # One axis: a vector, which does not decay.
    assert definition.names["trunk"]["segmenter"]["hidden_bias"] == ("mlp",)
    batch = batch_of([random_text(0, 63)], 64)

    def loss(params):
        return jnp.sum(definition.bind(params)(batch, jnp.zeros((1, 64))).logits[..., 65])

    found = jax.jit(jax.grad(loss))(params)["trunk"]["segmenter"]
    assert float(jnp.abs(found["hidden_bias"]).max()) > 0


def test_predictors_by_script():
    """Each position is judged by its script's own parameters, at first at its script's rate."""
    stage = dataclasses.replace(
        presets()["magnet"].model.stages[0], width=8, heads=2,
        scripts=("latin", "han+hangul"), rates=(0.5, 0.2, 0.05),
    )  # fmt: skip
    predictor = Predictor(stage, nnx.Rngs(params=0))
    scripts = np.zeros((1, 24), int)
    for at, name in ((6, "latin"), (12, "hangul"), (18, "greek")):
        scripts[0, at:] = names().index(name)
    layout = layout_of(np.arange(24)[None], scripts)
    found, _ = predictor.decide(jnp.zeros((1, 24, 8)), layout, predictor.init_carry(1))
    np.testing.assert_array_equal(found.route[0], np.repeat([0, 1, 2, 0], 6))
    np.testing.assert_allclose(found.probability[0], np.repeat([0.5, 0.2, 0.05, 0.5], 6), rtol=1e-5)
    with pytest.raises(ConfigError, match="no script 'latim'. Did you mean latin"):
        Predictor(dataclasses.replace(stage, scripts=("latim", "han")), nnx.Rngs(params=0))


def test_scripts_in_the_model():
    """The model routes every byte by the newest script up to it, in packed rows."""
    config = shrink(presets()["magnet"])
    definition, params = defined(config)
    texts = ["1 a\u0431\u0432 \u65e5\u672c 2\ud55c".encode() + b"\xe6", "\u03b1\u03b2 x".encode()]
    batch = batch_of(texts, 64)
    seen = []
    model = definition.bind(params)
    model.trunk.segmenter.decide = lambda x, layout, *rest, **more: seen.append(layout) or stop()

    def stop():
        raise StopIteration

    with pytest.raises(StopIteration):
        model(batch)
    at = 0
    for text in texts:
        # The first position reads the begin of the document.
        found = seen[0].scripts[0, at : at + len(text) + 1]
        np.testing.assert_array_equal(found, np.append(0, scripts_of(text)))
        at += len(text) + 1


@pytest.mark.parametrize("layout", [ONE_ROW, TWO_DOCUMENTS], ids=["one", "packed"])
def test_cosine_routing(layout):
    stage = dataclasses.replace(presets()["hnet"].model.stages[0], width=8, heads=2)
    router = Router(stage, nnx.Rngs(params=0))
    router.query[...] = states(5, (8, 8))
    x = states(0, (1, 24, 8))
    found, _ = router.decide(x, layout, router.init_carry(1))
    query, key = np.asarray(x[0] @ router.query[...]), np.asarray(x[0])
    for t in range(24):
        expected = 1.0
        if layout.positions[0, t] > 0:
            cosine = query[t - 1] @ key[t]
            cosine /= np.linalg.norm(query[t - 1]) * np.linalg.norm(key[t])
            expected = (1 - cosine) / 2
        assert bool(found.ends[0, t]) == (expected > 0.5)
        assert math.isclose(found.probability[0, t], expected, abs_tol=2e-4)


def test_ratio_loss():
    def loss(ends, p):
        real = jnp.ones((1, 10), bool)
        return ratio_loss(jnp.arange(10)[None] < ends, jnp.full((1, 10), p), real, 0.2)

    assert math.isclose(loss(2, 0.2), 1, rel_tol=1e-6)
    assert math.isclose(loss(1, 0.4), 0.875, rel_tol=1e-6)  # no minimum there, as published
    assert jax.grad(loss, 1)(4, 0.2) > 0 > jax.grad(loss, 1)(1, 0.2)


def test_smoothing():
    """The scan is the published recursion, from whatever was there before."""
    stage = presets()["hnet"].model.stages[0]
    unpool = Smooth(stage, stage.width, jnp.float32, nnx.Rngs(params=0))
    made, before = states(0, (2, 9, 1, 4)), states(1, (2, 1, 4))
    p = jnp.asarray(np.random.default_rng(2).uniform(0.01, 0.99, (2, 9)), jnp.float32)
    p = p.at[0, 4].set(1)  # a document begins
    found, current = unpool.averaged(made, p, before), before
    for k in range(9):
        share = p[:, k, None, None]
        current = share * made[:, k] + (1 - share) * current
        np.testing.assert_allclose(found[:, k], current, atol=1e-5)


def test_confidence_is_worth_one():
    """The straight-through multiplier changes no value, and has the probability's slope: up where
    an end was decided, down elsewhere."""
    stage = dataclasses.replace(presets()["hnet"].model.stages[0], width=4, heads=2)
    unpool = Smooth(stage, 4, jnp.float32, nnx.Rngs(params=0))
    memory, x = states(0, (1, 3, 1, 4)), states(1, (1, 2, 4))
    boundary, reads = jnp.array([[True, False]]), jnp.array([[1, 2]])

    def out(p):
        return unpool(x, memory, reads, boundary, reads, p)

    p = jnp.array([[0.7, 0.2]])
    np.testing.assert_array_equal(out(p), memory[:, 1:, 0])
    slope = jax.grad(lambda p: jnp.sum(out(p)))(p)
    np.testing.assert_allclose(slope[0], [memory[0, 1].sum(), -memory[0, 2].sum()], rtol=1e-5)


def frontier(seed=0, scale=3.0):
    """Of the paper's variance, a sum over the document."""
    stage = dataclasses.replace(presets()["manta"].model.stages[0], width=8, heads=2)
    stage = dataclasses.replace(stage, spread="document")
    segmenter = Frontier(stage, nnx.Rngs(params=seed))
    segmenter.out.weight[...] *= scale
    return segmenter


@pytest.mark.parametrize("layout", [ONE_ROW, TWO_DOCUMENTS], ids=["one", "packed"])
def test_soft_pool(layout):
    """Ends, places and pooled units against the formulas, unit by unit."""
    segmenter, pool, x = frontier(), SoftSums(8), states(3, (1, 24, 8))
    pool.mix[...] = states(4, (3, 8))
    decision, _ = segmenter.decide(x, layout, segmenter.init_carry(1))
    p = np.round(np.asarray(decision.probability[0], np.float64) * UNIT) / UNIT
    spread = np.asarray(decision.probability[0], np.float64)
    spread = np.round(spread * (1 - spread) * UNIT) / UNIT
    units = segment(decision.ends, layout.segment_ids, 16)
    found = np.asarray(pool(x, units, decision, layout)[0])
    positions = np.asarray(layout.positions[0])
    base = 0
    for start in np.flatnonzero(positions == 0):
        size = np.append(np.flatnonzero(positions == 0), 24)
        size = size[size > start][0] - start
        here = slice(start, start + size)
        mean, variance = np.cumsum(p[here]) - p[here], np.cumsum(spread[here]) - spread[here]
        units_in = np.floor(mean + p[here] + 0.5)
        ends = np.diff(units_in, prepend=0) > 0
        np.testing.assert_array_equal(decision.ends[0, here], ends)
        own = np.floor(mean + 0.5)
        h = np.asarray(x[0, here])
        mix = np.asarray(pool.mix[...])
        value = sum(mix[i] * np.pad(h, ((i, 0), (0, 0)))[:size] for i in range(3))
        for k, end in enumerate(np.flatnonzero(ends)):
            total, weight = 0, 0
            for t in range(end + 1):
                near = own[t] + np.arange(-pool.REACH, pool.REACH + 1)
                scores = np.exp(-((mean[t] - near) ** 2) / (2 * max(variance[t], pool.FLOOR)))
                share = scores[near == k].sum() / scores.sum() if k >= own[t] else 0
                total, weight = total + share * value[t], weight + share
            np.testing.assert_allclose(found[base + k], total / max(weight, 1), atol=1e-4)
        base += int(ends.sum()) + (not ends[-1])  # and a unit left open


@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0], ids=["untrained", "unsure", "sure"])
def test_soft_pool_is_the_full_softmax_over_a_whole_row(scale):
    """With the variance of the open unit, a softmax over all units of a row of 512 is that over the
    few that are kept, at the row's end as at its start."""
    stage = dataclasses.replace(presets()["manta"].model.stages[0], width=8, heads=2)
    stage = dataclasses.replace(stage, spread="unit")
    segmenter, pool, x = Frontier(stage, nnx.Rngs(params=0)), SoftSums(8), states(3, (1, 512, 8))
    segmenter.out.weight[...] *= scale
    layout = layout_of(np.arange(512)[None])
    decision, _ = segmenter.decide(x, layout, segmenter.init_carry(1))
    units = segment(decision.ends, layout.segment_ids, 400)
    found = np.asarray(pool(x, units, decision, layout)[0])
    p = np.asarray(decision.probability[0], np.float64)
    ends = np.flatnonzero(decision.ends[0])
    own = np.searchsorted(ends, np.arange(512))
    mean = np.cumsum(p) - p
    total = np.cumsum(p * (1 - p)) - p * (1 - p)
    opened = np.r_[0, ends + 1][own]
    variance = np.maximum(total - total[opened], pool.FLOOR)
    scores = -((mean[:, None] - np.arange(len(ends) + 10)) ** 2) / (2 * variance[:, None])
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    h = np.asarray(x[0], np.float64)
    for k, end in enumerate(ends):
        # A unit that has ended takes no more.
        share = np.where((own <= k) & (np.arange(512) <= end), shares[:, k], 0)
        wanted = share @ h / max(share.sum(), 1)
        np.testing.assert_allclose(found[k], wanted, atol=2e-2)


def test_gradient_of_the_soft_pool():
    """Slopes of the frontier probabilities through membership, against finite differences in
    double precision of the same formula."""
    segmenter, pool, x = frontier(), SoftSums(8), states(3, (1, 24, 8))
    decision, _ = segmenter.decide(x, ONE_ROW, segmenter.init_carry(1))
    units = segment(decision.ends, ONE_ROW.segment_ids, 16)
    G = states(6, (1, 16, 8))

    def loss(bias):
        segmenter = frontier()
        segmenter.bias[...] = bias
        found, _ = segmenter.decide(x, ONE_ROW, segmenter.init_carry(1))
        # Decisions stay as they were: only the soft path is asked.
        found = dataclasses.replace(found, ends=decision.ends)
        return jnp.sum(G * pool(x, units, found, ONE_ROW))

    start = segmenter.bias[...]
    slope = float(jax.jit(jax.grad(loss))(start)[0])

    def by_hand(shift):
        odds = np.asarray(decision.log_odds[0], np.float64) + shift
        p = 1 / (1 + np.exp(-odds))
        mean, variance = np.cumsum(p) - p, np.cumsum(p * (1 - p)) - p * (1 - p)
        own = np.asarray(units.unit_of[0])
        near = own[:, None] + np.arange(-pool.REACH, pool.REACH + 1)
        scores = -((mean[:, None] - near) ** 2) / (2 * np.maximum(variance, pool.FLOOR)[:, None])
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        value = np.asarray(x[0], np.float64)  # the convolution starts as the identity
        out = 0
        for k in range(own[-1] + 1):  # units that exist
            mass = np.where((near == k) & (near >= own[:, None]), shares, 0).sum(1)
            out += np.asarray(G[0, k]) @ ((mass @ value) / max(mass.sum(), 1))
        return out

    assert math.isclose(by_hand(0), float(loss(start)), rel_tol=2e-2, abs_tol=2e-2)
    assert math.isclose(slope, (by_hand(1e-5) - by_hand(-1e-5)) / 2e-5, rel_tol=3e-2)


def test_softmax_plus_one_with_biased_keys():
    """Values and gradients against the formula, exp(x) / (1 + sum exp x)."""
    q, k, v = (states(i, (2, 150, 2, 8)) for i in range(3))
    bias, G = states(3, (2, 150)) * 5, states(4, (2, 150, 2, 8))

    def plain(q, k, v, bias):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5 + bias[:, None, None]
        seen = jnp.where(jnp.tril(jnp.ones((150, 150), bool)), jnp.exp(scores), 0)
        weights = seen / (1 + seen.sum(-1, keepdims=True))
        return jnp.sum(G * jnp.einsum("bhqk,bkhd->bqhd", weights, v))

    def ours(q, k, v, bias):
        return jnp.sum(G * attention(q, k, v, MaskSpec(key_bias=bias, plus_one=True)))

    np.testing.assert_allclose(ours(q, k, v, bias), plain(q, k, v, bias), rtol=1e-4)
    slopes = (jax.jit(jax.grad(f, (0, 1, 2, 3)))(q, k, v, bias) for f in (ours, plain))
    for a, b in zip(*slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_soft_deletion_equals_hard_deletion():
    """With gates that are all open or all shut, training's hidden positions are those that
    evaluation leaves out."""
    config = shrink(presets()["mrt5"])
    definition, params = defined(config)
    gate = params["trunk"]["segmenter"]
    gate["out"]["weight"] = gate["out"]["weight"] * 1e4
    batch = batch_of([random_text(0, 63), random_text(1, 40), random_text(2, 20)], 64)
    hard = jax.jit(lambda p, b: definition.bind(p)(b))(params, batch)
    soft = jax.jit(lambda p, b: definition.bind(p)(b, jnp.zeros((2, 64))))(params, batch)
    share = float(hard.levels[0].decision.ends.mean())
    assert 0.2 < share < 0.8 and int(hard.statistics["merged/0"]) == 0
    # A cut for length keeps a deleted position, which training goes on hiding.
    np.testing.assert_allclose(hard.logits, soft.logits, atol=1e-4)


def test_delete_gate():
    stage = dataclasses.replace(presets()["mrt5"].model.stages[0], width=8, heads=2)
    gate = DeleteGate(stage, nnx.Rngs(params=0))
    found, _ = gate.decide(states(0, (1, 24, 8)) * 3, ONE_ROW, {})
    np.testing.assert_allclose(
        found.key_bias, -30 / (1 + np.exp(np.asarray(found.log_odds, np.float64))), rtol=1e-4
    )
    np.testing.assert_array_equal(found.ends, found.key_bias > -15)


def test_controller():
    """Deletion weighs more the more is kept, and the other way round; no slope flows through it."""
    weigh = lambda share: deletion_weight(share, 0.5, 0.01)  # noqa: E731
    np.testing.assert_allclose([weigh(0.9), weigh(0.5), weigh(0.3)], [0.21, 0.01, -0.09], rtol=1e-5)
    assert jax.grad(weigh)(0.9) == 0


def test_collapse_is_told():
    real = jnp.ones((4, 100), bool).at[3, 50:].set(False)
    ends = jnp.arange(100)[None] < jnp.array([[0], [20], [95], [25]])
    found = rates(ends, real, 0.2)
    assert (found["positions"], found["ends"], found["collapsed"]) == (350, 140, 200)


@pytest.mark.parametrize("name", [of_preset(name) for name in LEARNED])
def test_noise(name):
    """Evaluation gives the same each time; training differs by its noise, where a system has it;
    and with noise, too, no prediction sees its byte or what follows."""
    definition, params = defined(shrink(presets()[name]))
    text, other = random_text(0, 63), random_text(1, 63)
    batch = batch_of([text], 64)
    first, second = (forward(definition)(params, batch) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    noise = jax.random.logistic(jax.random.key(0), (1, 64))
    run = jax.jit(lambda batch, noise: definition.bind(params)(batch, noise).logits)
    first = run(batch, noise)
    differs = bool(jnp.any(first != run(batch, -3 * noise)))
    assert differs == (name in ("pooling-gumbel", "magnet", "toucan"))
    for t in (0, 3, 17, 30, 45, 62):
        changed = batch_of([text[:t] + bytes([text[t] ^ 0x11]) + other[t + 1 :]], 64)
        np.testing.assert_array_equal(first[0, : t + 1], run(changed, noise)[0, : t + 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"supervision": "ratio"}, "supervision of stage.segmenter predicted is binomial"),
        ({"rates": (0.2, 0.1)}, "rates has one rate for other scripts.*: 1, not 2"),
        ({"rates": (1.5,)}, "lie between 0 and 1"),
        ({"pool": "soft"}, "needs segmenter frontier"),
        ({"unpool": "smooth"}, "needs segmenter routing"),
        ({"predict_ends": True}, "needs unpool prefix"),
        ({"segmenter": "deletion", "supervision": "controller", "pool": "mean"}, "pool last"),
        ({"segmenter": "whitespace"}, "is none, not binomial"),
    ],
)  # fmt: skip
def test_impossible_stages(changes, message):
    stage = StageConfig(segmenter="predicted", supervision="binomial")
    with pytest.raises(ConfigError, match=message):
        check(ModelConfig(stages=(dataclasses.replace(stage, **changes),)), 256)
