"""Multi-token prediction: what each kind predicts, sees and costs, on trunks of every sort."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import batch_of, defined, forward, random_text, shrink
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, MTPConfig
from octavo.configs.schema import Config
from octavo.model.check import check
from octavo.model.entropy import cross_entropy
from octavo.model.mtp import distances, targets_ahead, uses_extra
from octavo.training.metrics import of_parts
from octavo.training.objective import nats_ahead, objective

LENGTH, COUNT = 64, 4
KINDS = ("heads", "linear", "modules", "registers", "lookahead")
TRUNKS = ("flat", "words", "megabyte", "blt", "hnet", "mrt5")


def predicting(trunk: str, kind: str, **changes) -> Config:
    config = shrink(presets()[trunk])
    mtp = MTPConfig(kind, **{"count": COUNT, "every": 4} | changes)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, mtp=mtp))


def offsets(config: Config) -> list:
    """What ``distances`` may draw."""
    if config.model.mtp.kind == "registers":
        return [jnp.array([k]) for k in range(COUNT)]
    return [distances(config.model, jax.random.key(0))]


@functools.cache
def _logits_ahead(config):
    definition, params = defined(config)

    def run(batch, ahead):
        model = definition.bind(params)
        output = model(batch, None, ahead)
        return model.predict_ahead(batch, output, ahead, lambda k, places, logits: (k, logits))

    return jax.jit(run)


def logits_ahead(config, batch, ahead):
    """How far, and logits ``[B, P, V]``, of each prediction further ahead."""
    return zip(*map(np.asarray, _logits_ahead(config)(batch, ahead)), strict=True)


def places_of(config) -> np.ndarray:
    """Where further ids are predicted, ``[P]``."""
    every = config.model.mtp.every if uses_extra(config.model) else 1
    return np.arange(every - 1, LENGTH, every)


# Extra positions go through each trunk in its own way; the others only read its states.
COMBINATIONS = [
    (kind, trunk)
    for kind in KINDS
    for trunk in (TRUNKS if kind in ("registers", "lookahead") else ("flat", "hnet"))
]


@pytest.mark.parametrize(("kind", "trunk"), COMBINATIONS)
def test_causality(kind, trunk):
    """Changing byte t and all behind it leaves every prediction of bytes up to t, of any head, as
    it was; behind another document, too, which sees nothing of it. And what may be seen, is."""
    config = predicting(trunk, kind)
    before, text = random_text(2, 20), random_text(3, LENGTH - 22)
    start, at = len(before) + 1, (0, 1, 6, 13, 20, 30)
    changed = [text[:t] + bytes([text[t] ^ 0x11]) + random_text(4, len(text))[t + 1 :] for t in at]
    batch = batch_of([part for row in (text, *changed) for part in (before, row)], LENGTH)
    assert len(batch.tokens) == 1 + len(at)
    # Position p of the second document predicts byte p + k, from bytes before p; a module is fed
    # the bytes before p + k.
    p = places_of(config) - start
    for ahead in offsets(config):
        for k, (first, *others) in logits_ahead(config, batch, ahead):
            sees = p + (k if kind == "modules" else 0)
            for t, other in zip(at, others, strict=True):
                np.testing.assert_array_equal(first[sees <= t], other[sees <= t])
                behind = (sees > t) & (p + k < len(text)) & (p >= 0)
                assert (first[behind] != other[behind]).any(-1).mean() > 0.9


@pytest.mark.parametrize("trunk", ["flat", "hnet"])
@pytest.mark.parametrize("kind", ["registers", "lookahead"])
def test_extra_positions_change_nothing(kind, trunk):
    """Ordinary predictions are those of a model without, and owe extra positions no gradient."""
    config = predicting(trunk, kind)
    definition, params = defined(config)
    batch = batch_of([random_text(5, 30), random_text(6, LENGTH - 32)], LENGTH)
    plain = forward(definition)(params, batch)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_of(params, ahead):
        logits = definition.bind(params)(batch, None, ahead).logits
        return jnp.sum(cross_entropy(logits, batch.targets)[0]), logits

    for ahead in offsets(config):
        gradient, logits = gradient_of(params, ahead)
        np.testing.assert_allclose(logits, plain, atol=2e-5)
        assert not np.any(gradient["mtp"]["vectors"])


def test_targets_stay_in_their_document():
    batch = batch_of([random_text(i, n) for i, n in enumerate((5, 1, 30, 9))], LENGTH)
    for ahead in range(COUNT):
        for places in (None, np.arange(3, LENGTH, 4)):
            targets, weights = targets_ahead(batch, jnp.int32(ahead), places)
            for i, p in enumerate(range(LENGTH) if places is None else places):
                q = p + ahead
                inside = q < LENGTH and batch.segment_ids[0, p] == batch.segment_ids[0, q] > 0
                assert bool(weights[0, i]) == bool(inside), (ahead, p)
                if inside:
                    assert targets[0, i] == batch.targets[0, q]


@pytest.mark.parametrize(
    ("kind", "trunk"),
    [*((kind, "flat") for kind in KINDS), ("lookahead", "words")],
)
def test_losses_are_the_sum_of_all_heads(kind, trunk):
    """One head at a time gives the loss and the gradient of all at once."""
    config = predicting(trunk, kind, weight=0.7)
    definition, params = defined(config)
    batch = batch_of([random_text(5, 30), random_text(6, LENGTH - 32)], LENGTH)
    ahead, sizes = offsets(config)[-1], jnp.ones(256)

    def lean(params):
        model = definition.bind(params)
        output = model(batch, None, ahead)
        further = model.predict_ahead(batch, output, ahead, functools.partial(nats_ahead, batch))
        return objective(output, batch, sizes, config, predicted=further)

    def at_once(params):
        model = definition.bind(params)
        output = model(batch, None, ahead)
        aheads, logits = model.predict_ahead(batch, output, ahead, lambda k, _, logits: (k, logits))
        places = np.arange(3, LENGTH, 4) if uses_extra(config.model) else None
        total = objective(output, batch, sizes, config)[0]
        for k, own in zip(aheads, logits, strict=True):
            targets, weights = targets_ahead(batch, k, places)
            nats = jnp.sum(cross_entropy(own, targets)[0] * weights)
            total += 0.7 * (4 if uses_extra(config.model) else 1) * nats
        return total

    (loss, sums), gradient = jax.jit(jax.value_and_grad(lean, has_aux=True))(params)
    expected, expected_gradient = jax.jit(jax.value_and_grad(at_once))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected_gradient)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    told = {name for name in of_parts(jax.device_get(sums)) if name.startswith("mtp_nats")}
    first = COUNT if kind == "registers" else 2  # of registers, the one that was drawn
    assert told == {f"mtp_nats/{k}" for k in range(first, COUNT + 1)}


def test_modules_by_the_formula():
    """h_k = block(M [norm h_{k-1}; norm of the embedding of id t + k]), each with one output."""
    config = predicting("flat", "modules")
    definition, params = defined(config)
    batch = batch_of([random_text(7, LENGTH - 1)], LENGTH)
    rms = lambda x: x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)  # noqa: E731

    @jax.jit
    def by_hand(params):
        model = definition.bind(params)
        h = model(batch).states
        embedded, joins = model.embedding(batch.tokens, batch.positions), params["mtp"]["joins"]
        ((apply, layers),) = model.mtp.stack.applied(batch.positions, batch.segment_ids)
        expected = []
        for k in range(1, COUNT):
            own = jax.tree.map(lambda leaf, k=k: leaf[k - 1], joins)
            following = jnp.roll(embedded, -k, axis=1)
            both = [
                rms(h) * own["state_norm"]["gain"],
                rms(following) * own["id_norm"]["gain"],
            ]
            joined = jnp.concatenate(both, -1) @ own["both"]["weight"]
            h = apply(jax.tree.map(lambda leaf, k=k: leaf[k - 1], layers), joined)
            expected.append(model.logits(h))
        return expected

    logits = [logits for _, logits in logits_ahead(config, batch, None)]
    for k, (found, expected) in enumerate(zip(logits, by_hand(params), strict=True), 1):
        np.testing.assert_allclose(found[:, :-k], expected[:, :-k], atol=1e-3, rtol=1e-3)


def test_registers_draw_every_distance():
    model = predicting("flat", "registers").model
    drawn = [int(distances(model, jax.random.key(i))[0]) for i in range(400)]
    counts = np.bincount(drawn, minlength=COUNT)
    assert len(counts) == COUNT and (np.abs(counts - 100) < 5 * np.sqrt(75)).all()


def test_a_register_one_ahead_predicts_the_next_id_from_the_same_text():
    """With distance 1 it stands where the position before it stands, and sees the same: given that
    position's embedding, it gives that position's prediction."""
    config = predicting("flat", "registers", every=1)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, layers=1))
    definition, params = defined(config)
    text = b"a" * (LENGTH - 1)  # every position but the first has the same embedding
    batch = batch_of([text], LENGTH)
    model = definition.bind(params)
    vector = model.embedding(batch.tokens, batch.positions)[0, 5]
    params = params | {"mtp": {"vectors": vector[None]}}
    output = definition.bind(params)(batch, None, jnp.array([0]))
    # It sees that position besides itself: one key more, of the same value, for each.
    q = np.asarray(model.logits(output.extra_states)[0])
    assert q.shape == output.logits.shape[1:]
    assert np.corrcoef(q[5:].ravel(), np.asarray(output.logits[0, 5:]).ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"mtp": MTPConfig("registers", every=7)}, "does not divide data.length"),
        ({"mtp": dict(kind="modules", count=1)}, "2 or more"),
        ({"mtp": dict(kind="heads", count=0)}, "above 0"),
    ],
)
def test_wrong_settings(model, message):
    with pytest.raises(ConfigError, match=message):
        mtp = model["mtp"]
        mtp = MTPConfig(**mtp) if isinstance(mtp, dict) else mtp
        check(ModelConfig(mtp=mtp), 256)


@pytest.mark.parametrize("changes", [{"decoder_layers": 0}, {"slots": 2}], ids=str)
def test_extra_positions_need_a_decoder(changes):
    stage = dataclasses.replace(presets()["words"].model.stages[0], **changes)
    with pytest.raises(ConfigError, match="mtp.kind lookahead needs"):
        check(ModelConfig(stages=(stage,), mtp=MTPConfig("lookahead")), 256)
