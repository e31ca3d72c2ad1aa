"""Objectives: from a model's outputs and a batch to a loss.

An objective returns sums, not means, with what to divide by, so that a batch may be split into any
parts (accumulation, devices) and give the same loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from octavo.batch import Batch
from octavo.configs.schema import Config
from octavo.model.entropy import cross_entropy, entropy
from octavo.model.lm import Output
from octavo.model.mtp import mtp, targets_ahead


def objective(
    output: Output,
    batch: Batch,
    bytes_per_id: jax.Array,
    config: Config,
    integral: jax.Array | float = 0.0,
    predicted: tuple[jax.Array, jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum over targets of cross-entropy, plus ``z_loss`` x log-normalizer squared (PaLM, Chowdhery
    et al. 2022), plus what learned segmenters are held to, plus ``mtp.weight`` x cross-entropy of
    further ids; and the sums ``nats``, ``targets``, UTF-8 ``bytes``, ``mtp_nats/K`` and
    ``mtp_targets/K`` of the K-th next id, for each learned level ``positions``, ``ends`` and
    ``collapsed`` positions, and the model's own statistics.

    integral: of the controller of a delete gate. predicted: ``nats_ahead`` of all predictions
    beyond the next id, stacked.
    """
    nats, log_normalizer = cross_entropy(output.logits, batch.targets)
    weights = batch.loss_weights
    sums = {
        "nats": jnp.sum(nats * weights),
        "targets": jnp.sum(weights),
        "bytes": jnp.sum(bytes_per_id[batch.targets] * weights),
    } | {name: value.astype(jnp.float32) for name, value in output.statistics.items()}
    loss = sums["nats"]
    if config.train.z_loss:
        loss += config.train.z_loss * jnp.sum(jnp.square(log_normalizer) * weights)
    if predicted is not None:
        settings, (ahead, ahead_nats, targets) = config.model.mtp, predicted
        kind = mtp(settings.kind)
        assert kind is not None, "nothing predicts further ahead"
        # An extra position stands for as many positions as lie between two of them.
        loss += settings.weight * (settings.every if kind.extra else 1) * jnp.sum(ahead_nats)
        for k in range(kind.shortest, settings.count):
            sums[f"mtp_nats/{k + 1}"] = jnp.sum(jnp.where(ahead == k, ahead_nats, 0))
            sums[f"mtp_targets/{k + 1}"] = jnp.sum(jnp.where(ahead == k, targets, 0))
    for i, (stage, level) in enumerate(zip(config.model.stages, output.levels, strict=True)):
        if level.end_log_odds is not None:
            foreseen = boundary_nats(level.end_log_odds, level.boundary)
            sums[f"foreseen_nats/{i}"] = jnp.sum(foreseen * level.real)
            loss += sums[f"foreseen_nats/{i}"]
        if stage.supervision == "none":
            continue
        cut = rates(level.decision.ends, level.real, min(stage.rates))
        sums |= {f"{name}/{i}": value for name, value in cut.items()}
        held = SUPERVISIONS[stage.supervision](stage, level, cut, output, batch, integral)
        sums[f"boundary_loss/{i}"] = held
        loss += stage.supervision_weight * held
    return loss, sums


def nats_ahead(
    batch: Batch, ahead: jax.Array, places: np.ndarray | None, logits: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``ahead``, and sums of cross-entropy and of targets of what lies that far after the next id,
    in the same document; ``ByteLM.predict_ahead`` calls it."""
    targets, weights = targets_ahead(batch, ahead, places)
    nats, _ = cross_entropy(logits, targets)
    return ahead, jnp.sum(nats * weights), jnp.sum(weights)


def rates(ends: jax.Array, real: jax.Array, least: float) -> dict[str, jax.Array]:
    """Sums of ``positions`` that are real, of ``ends`` among them, and of ``collapsed``: positions
    in rows where ends are a tenth as frequent as the ``least`` rate, or hardly ever missing."""
    n = jnp.sum(real, axis=1)
    k = jnp.sum(ends & real, axis=1)
    rate = k / jnp.maximum(n, 1)
    gone = (rate < least / 10) | (rate > 0.9)
    return {
        "positions": jnp.sum(n).astype(jnp.float32),
        "ends": jnp.sum(k).astype(jnp.float32),
        "collapsed": jnp.sum(jnp.where(gone, n, 0)).astype(jnp.float32),
    }


def binomial_nats(
    count: jax.Array, real: jax.Array, route: jax.Array | None, rates: tuple[float, ...]
) -> jax.Array:
    """Minus the log-probability of each row's number of ends, given a binomial prior, summed over
    rows and routes (dynamic pooling, 2211.09761, equation 6; MAGNET, 2407.08818).

    count ``[B, T]``: ends, with an estimator's gradient; real ``[B, T]``: booleans; route
    ``[B, T]``: which of ``rates`` is the prior (None: the first). The published loss is this over
    the positions: here positions divide the sum of everything.
    """
    n, k = _by_route(count, real, route, len(rates))
    rate = jnp.array(rates)
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return -jnp.sum(ways + k * jnp.log(rate) + (n - k) * jnp.log1p(-rate))


def hinge_nats(
    count: jax.Array, real: jax.Array, route: jax.Array | None, rates: tuple[float, ...],
    margin: float,
) -> jax.Array:  # fmt: skip
    """How far each row's share of ends lies above its rate, or below ``1 - margin`` of it, summed
    over rows and routes by their positions; between the two nothing is lost (FLEXITOKENS, Owodunni
    et al. 2025, 2507.12720, equation 5, whose margin is a number of standard deviations).

    Arguments as in ``binomial_nats``.
    """
    n, k = _by_route(count, real, route, len(rates))
    share, rate = k / jnp.maximum(n, 1), jnp.array(rates)
    over, short = share - rate, (1 - margin) * rate - share
    return jnp.sum(n * (jax.nn.relu(over) + jax.nn.relu(short)))


def _by_route(count, real, route, routes: int):
    """Positions and counts of each row and route, ``[B, K]``."""
    route = jnp.zeros_like(real, jnp.int32) if route is None else route
    of_route = (route[..., None] == jnp.arange(routes)) & real[..., None]
    n = jnp.sum(of_route, axis=1).astype(jnp.float32)
    return n, jnp.sum(jnp.where(of_route, count[..., None], 0), axis=1)


def policy_nats(
    log_odds: jax.Array, ends: jax.Array, value: jax.Array, nats: jax.Array, real: jax.Array,
    positions: jax.Array, rate: float,
) -> jax.Array:  # fmt: skip
    """Zero, with the gradient in the log-odds of the nats to come, as far as they depend on which
    ends were drawn: REINFORCE (Williams 1992) with a learned baseline; and with that of the
    baseline's squared error. All ``[B, T]``.

    What is still to be paid at a position is a mean of the nats from there on in its document, of
    which further ones count less: half as much after some 1.4 units. ``value`` foresees it before
    the end is drawn, so that only the difference, over its deviation in the batch (in each part,
    with accumulation), speaks for or against the draw.
    """
    nats = jax.lax.stop_gradient(jnp.where(real, nats, 0))
    follows = jnp.pad(positions[:, 1:] > 0, ((0, 0), (0, 1)))
    keep = jnp.where(follows, 1 - rate / 2, 0.0)
    share = rate / 2 or 1.0  # so that all weights sum to 1

    def join(later, now):
        return later[0] * now[0], now[1] + now[0] * later[1]

    to_pay = jax.lax.associative_scan(join, (keep, nats), reverse=True, axis=1)[1]
    missed = jnp.where(real, to_pay * share - value, 0)
    n = jnp.maximum(jnp.sum(real), 1)
    deviation = jnp.sqrt(jnp.sum(jnp.square(missed)) / n + 1e-6)
    missed = missed / jax.lax.stop_gradient(deviation)
    drawn = -boundary_nats(log_odds, ends)
    learned = jnp.sum(jax.lax.stop_gradient(missed) * drawn) + jnp.sum(jnp.square(missed)) / 2
    return learned - jax.lax.stop_gradient(learned)


def ratio_loss(ends: jax.Array, p: jax.Array, real: jax.Array, rate: float) -> jax.Array:
    """H-Net's ratio loss (2507.07955, equation 10) with N = 1 / rate, over all of a batch (of each
    part, with accumulation): 1 where both the share of ends and their mean probability are the
    rate. No gradient flows through the ends."""
    n = jnp.maximum(jnp.sum(real), 1)
    F = jnp.sum(ends & real) / n
    G = jnp.sum(jnp.where(real, p, 0)) / n
    N = 1 / rate
    return N / (N - 1) * ((N - 1) * F * G + (1 - F) * (1 - G))


PROPORTIONAL, INTEGRAL = 0.5, 5e-5


def deletion_weight(kept_share: jax.Array, rate: float, integral: jax.Array) -> jax.Array:
    """Weight of deletion by a controller (MrT5, 2410.20771, section 3.3): more while more than
    ``rate`` of the positions are kept; ``integral``, from earlier steps, removes what is left.

    The paper smooths the proportional part over steps and keeps the weight above 0, which serves a
    pretrained model. From scratch that delay makes the gate shut and open entirely, in turns; here
    the proportional part is this step's, and the weight may fall below 0.
    """
    return jax.lax.stop_gradient(PROPORTIONAL * (kept_share - rate)) + integral


def boundary_nats(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of boundary log-odds, ``[B, T]``. (The official code of dynamic pooling
    puts a probability where the log-odds belong; see docs/models.md.)"""
    return jnp.logaddexp(0, jnp.where(target, -logits, logits))


def entropy_spikes(logits: jax.Array, positions: jax.Array) -> jax.Array:
    """Where the next id is harder to foresee than the two before it were (dynamic pooling,
    2211.09761, section 3.3.3): booleans ``[B, T]``. What would lie before the document counts as
    easier. No gradient flows through it."""
    found = entropy(jax.lax.stop_gradient(logits))
    true = jnp.ones_like(positions, bool)
    for back in (1, 2):
        before = jnp.pad(found, ((0, 0), (back, 0)))[:, : found.shape[1]]
        true &= (found > before) | (positions < back)
    return true


def _binomial(stage, level, cut, output, batch, integral):
    found = level.decision
    return binomial_nats(found.count, level.real, found.route, stage.rates)


def _hinge(stage, level, cut, output, batch, integral):
    found = level.decision
    return hinge_nats(found.count, level.real, found.route, stage.rates, stage.margin)


def _policy(stage, level, cut, output, batch, integral):
    found = level.decision
    nats, _ = cross_entropy(output.logits, batch.targets)
    learned = policy_nats(
        found.log_odds, found.ends, found.value, nats * batch.loss_weights, level.real,
        batch.positions, min(stage.rates),
    )  # fmt: skip
    return learned + binomial_nats(found.probability, level.real, found.route, stage.rates)


def _kept(stage, level, cut, output, batch, integral):
    return jnp.zeros(())


def _ratio(stage, level, cut, output, batch, integral):
    found = level.decision
    mean = ratio_loss(found.ends, found.probability, level.real, stage.rates[0])
    return mean * jnp.sum(batch.loss_weights)


def _controller(stage, level, cut, output, batch, integral):
    share = cut["ends"] / jnp.maximum(cut["positions"], 1)
    weight = deletion_weight(share, stage.rates[0], integral)
    return weight * jnp.sum(level.decision.key_bias * level.real)


def _marks(stage, level, cut, output, batch, integral):
    return jnp.sum(boundary_nats(level.decision.log_odds, batch.marks > 0) * batch.loss_weights)


def _entropy(stage, level, cut, output, batch, integral):
    target = entropy_spikes(output.logits, batch.positions)
    return jnp.sum(boundary_nats(level.decision.log_odds, target) * batch.loss_weights)


SUPERVISIONS = {
    "binomial": _binomial,
    "hinge": _hinge,
    "policy": _policy,
    "kept": _kept,
    "ratio": _ratio,
    "controller": _controller,
    "marks": _marks,
    "entropy": _entropy,
}
"""What a learned segmenter is held to, by name: the sum over the batch of a level's loss, given its
stage, how it cut, and what the step knows."""
