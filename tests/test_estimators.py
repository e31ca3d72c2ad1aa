"""Ways to learn where to cut that are no published system's of their own trunk: hinge, policy
gradient, coding rate; and ways to end units where nothing is drawn."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helpers import batch_of, defined, forward, random_text, shrink
from octavo.configs import presets
from octavo.model.units.segmentation import Layout
from octavo.model.units.segmenters.coding_rate import DISTORTION, WINDOW, CodingRate, gains
from octavo.model.units.segmenters.predicted import Predictor
from octavo.training.objective import hinge_nats, policy_nats

T = 24


def states(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def layout_of(positions):
    positions = jnp.asarray(positions)
    nothing = jnp.zeros_like(positions)
    return Layout(positions, jnp.cumsum(positions == 0, axis=1), nothing > 0, nothing)


TWO_DOCUMENTS = layout_of(np.r_[np.arange(10), np.arange(14)][None])


@pytest.mark.parametrize(
    ("ends", "loss", "slope"),
    [(40, 20, 0.2), (20, 0, 0), (17, 0, 0), (10, 6, -0.2)],
    ids=["more", "as many", "somewhat fewer", "too few"],
)
def test_hinge(ends, loss, slope):
    """100 positions, a fifth of them to end, and by a fifth fewer may: positions times the share
    that is too much or too little."""
    real = jnp.ones((1, 100), bool)

    def nats(k):
        return hinge_nats(jnp.full((1, 100), k / 100), real, None, (0.2,), 0.2)

    value, found = jax.value_and_grad(nats)(float(ends))
    np.testing.assert_allclose(value, loss, atol=1e-4)
    assert np.sign(np.round(found, 4)) == np.sign(slope)


def test_hinge_by_route():
    real, route = jnp.ones((1, 8), bool), jnp.array([[0, 0, 0, 0, 1, 1, 1, 1]])
    count = jnp.array([[1.0, 1, 0, 0, 1, 0, 0, 0]])
    found = hinge_nats(count, real, route, (0.25, 0.5), 0.2)
    np.testing.assert_allclose(found, 4 * (0.5 - 0.25) + 4 * (0.8 * 0.5 - 0.25), rtol=1e-6)


def cost_of(ends):
    """Nats of each of three predictions, any function of the ends up to there."""
    a, b, c = ends
    return np.array([1.0 + 2 * a, 0.5 + a * b, 3 - 2 * b + c + a * c])


def test_policy_gradient_is_that_of_the_expected_cost():
    """Its mean over all that may be drawn, of nats that count alike however far ahead; whatever
    the baseline."""
    log_odds, real = jnp.array([[0.3, -1.0, 0.8]]), jnp.ones((1, 3), bool)
    every = np.array(list(itertools.product([0, 1], repeat=3)))
    costs = np.array([cost_of(ends) for ends in every])

    def chance(log_odds):
        p = jax.nn.sigmoid(log_odds[0])
        return jnp.prod(jnp.where(every == 1, p, 1 - p), axis=1)

    wanted = jax.grad(lambda l: jnp.sum(chance(l) * costs.sum(1)))(log_odds)
    for value in (jnp.zeros((1, 3)), jnp.array([[4.0, 2.5, 1.0]])):
        total = 0
        for ends, nats, p in zip(every, costs, chance(log_odds), strict=True):

            def estimate(log_odds, ends=ends, nats=nats, value=value):
                return policy_nats(
                    log_odds, jnp.array([ends == 1]), value, jnp.array([nats]), real,
                    jnp.arange(3)[None], rate=0.0,
                )  # fmt: skip

            to_pay = np.cumsum(nats[::-1])[::-1]
            # Weights that sum to 1 are those of no rate at all.
            deviation = np.sqrt(np.mean((to_pay - np.asarray(value[0])) ** 2) + 1e-6)
            total += p * deviation * jax.grad(estimate)(log_odds)
        np.testing.assert_allclose(total, wanted, rtol=1e-4, atol=1e-5)


def test_policy_pays_within_a_document():
    """What comes in another document is nothing to a draw; the baseline learns what is to come."""
    nats = jnp.array([[1.0, 2, 4, 8, 16]])
    positions, real = jnp.array([[0, 1, 2, 0, 1]]), jnp.ones((1, 5), bool)

    def loss(value):
        zero = jnp.zeros((1, 5))
        return policy_nats(zero, zero > 0, value, nats, real, positions, rate=1.0)

    value, slope = jax.value_and_grad(loss)(jnp.zeros((1, 5)))
    assert value == 0  # what is logged as loss is not moved
    to_pay = np.array([1 + 1 + 1, 2 + 2, 4, 8 + 8, 16]) / 2
    deviation = np.sqrt(np.mean(to_pay**2))
    np.testing.assert_allclose(-slope[0], to_pay / deviation**2, rtol=1e-5)


def test_policy_learns_in_the_whole_model():
    """The predictor by its draws, and by nothing that flows through the pool."""
    config = shrink(presets()["pooling-policy"])
    definition, params = defined(config)
    batch = batch_of([random_text(0, 63)], 64)

    def loss(params):
        return jnp.sum(definition.bind(params)(batch, jnp.zeros((1, 64))).logits[..., 65])

    found = jax.jit(jax.grad(loss))(params)["trunk"]["segmenter"]
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(found))


def rate_of(z):
    """R(Z) of rows ``[n, d]``, of the published formula with n = WINDOW."""
    d = z.shape[1]
    return np.linalg.slogdet(np.eye(len(z)) + d / (WINDOW * DISTORTION) * z @ z.T)[1] / 2


def test_gains_are_those_of_the_coding_rate():
    x = np.asarray(states(0, (1, T, 6)), np.float64)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    found = np.asarray(gains(jnp.asarray(x, jnp.float32), TWO_DOCUMENTS.positions)[0])
    for t, at in enumerate(np.asarray(TWO_DOCUMENTS.positions[0])):
        first = t - min(at, WINDOW)
        wanted = rate_of(x[0, first : t + 1]) - (rate_of(x[0, first:t]) if t > first else 0)
        np.testing.assert_allclose(found[t], wanted, atol=2e-4)


def published(x, k):
    """ByteFlow's: the k positions of a row that add the most."""
    gain = np.asarray(gains(x, jnp.arange(x.shape[1])[None])[0])
    ends = np.zeros(len(gain), bool)
    ends[np.argsort(-gain)[:k]] = True
    return ends


def test_the_best_of_a_row_see_ahead_and_ours_do_not():
    """Other states at the row's end: the published choice moves earlier ends, ours none."""
    stage = dataclasses.replace(presets()["byteflow"].model.stages[0], width=8, heads=2)
    cut = CodingRate(stage, nnx.Rngs(params=0))
    layout = layout_of(np.arange(64)[None])
    leaked = 0
    for seed in range(4):
        one = states(seed, (1, 64, 8))
        other = one.at[:, 48:].set(one[:, 47:48])  # nothing new
        before, after = (cut.decide(x, layout, cut.init_carry(1))[0].ends for x in (one, other))
        np.testing.assert_array_equal(before[:, :48], after[:, :48])
        norm = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
        leaked += (published(norm(one), 13)[:48] != published(norm(other), 13)[:48]).any()
    assert leaked == 4


def test_coding_rate_keeps_the_rate():
    stage = dataclasses.replace(presets()["byteflow"].model.stages[0], width=8, heads=2)
    cut = CodingRate(stage, nnx.Rngs(params=0))
    layout = layout_of(np.arange(512)[None])
    decision, _ = cut.decide(states(0, (1, 512, 8)), layout, cut.init_carry(1))
    assert abs(float(decision.ends.mean()) - stage.rates[0]) < 0.03


def test_ways_to_evaluate():
    """By the sum, by a half, and drawn: the same each time, at the predictor's rate."""
    stage = dataclasses.replace(presets()["pooling-gumbel"].model.stages[0], width=8, heads=2)
    x, layout = states(0, (1, 2000, 8)), layout_of(np.arange(2000)[None])
    found = {}
    for how in ("sum", "threshold", "sampled"):
        predictor = Predictor(dataclasses.replace(stage, evaluation=how), nnx.Rngs(params=0))
        decision, _ = predictor.decide(x, layout, predictor.init_carry(1))
        found[how] = np.asarray(decision.ends[0])
    p = np.asarray(decision.probability[0])
    np.testing.assert_array_equal(found["threshold"], p > 0.5)
    for how in ("sum", "sampled"):
        assert abs(found[how].mean() - p.mean()) < 0.03
    assert (found["sum"] != found["sampled"]).any()


@pytest.mark.parametrize("how", ["threshold", "sampled"])
def test_ways_to_evaluate_step_by_step(how):
    """Scores in one pass are those of step by step, in which text is compressed."""
    config = shrink(presets()["pooling-gumbel"])
    stage = dataclasses.replace(config.model.stages[0], evaluation=how)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, stages=(stage,)))
    definition, params = defined(config)
    batch = batch_of([random_text(0, 40)], 41)
    whole = forward(definition)(params, batch)
    model = definition.bind(params)
    cache, steps = model.init_cache(1, 48), []
    step = jax.jit(lambda tokens, cache: definition.bind(params).extend(tokens, cache))
    for t in range(41):
        logits, cache = step(batch.tokens[:, t : t + 1], cache)
        steps.append(logits[:, 0])
    np.testing.assert_allclose(whole, jnp.stack(steps, axis=1), atol=1e-4)
