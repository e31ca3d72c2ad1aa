"""Learned segmenters: modules that decide, from an encoder's states, where units end.

Every one decides at position t from positions up to t. ``decide`` serves the parallel pass, where
documents lie packed in a row (a position of 0 starts one), and stepwise decoding, where it takes up
what ``carry`` remembers. Decisions are float32, products included, whatever the model computes in
and runs on. Noise is an input, of training only.

Letters: B batch, T positions, d width, K routes.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ConfigError, StageConfig
from octavo.model.layers import EXACT, ExactLinear, RMSNorm, parameter
from octavo.tokenizers.unicode import scripts

TEMPERATURE = 0.5
"""Of the relaxed Bernoulli (dynamic pooling, 2211.09761)."""
GATE = -30.0
"""Score that the delete gate adds to a key it deletes entirely (MrT5, 2410.20771)."""
UNIT = 1 << 12
"""Fixed point of accumulated probabilities: sums are exact, however a row is cut into steps."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decision:
    """What a segmenter decides, ``[B, T]``."""

    ends: jax.Array
    """Booleans: a unit should end here."""
    log_odds: jax.Array | None = None
    """Of an end, before any noise."""
    count: jax.Array | None = None
    """How many ends are counted here, float32: as ``ends``, or the probability where the sum of
    probabilities decides; with the estimator's gradient."""
    route: jax.Array | None = None
    """Which predictor decided, from 0."""
    offset: jax.Array | None = None
    """Where the position lies from the middle of its unit, in units (soft frontiers)."""
    variance: jax.Array | None = None
    """Of that place (soft frontiers)."""
    key_bias: jax.Array | None = None
    """What the inner trunk adds to attention scores of this position (delete gate)."""

    @property
    def probability(self) -> jax.Array | None:
        return None if self.log_odds is None else jax.nn.sigmoid(self.log_odds)


def within_document(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Sums of x ``[B, T]`` over earlier positions of the same document, itself not counted; of
    those in the row. Exact for integers."""
    before = jnp.cumsum(x, axis=1) - x
    t = jnp.arange(x.shape[1])[None]
    start = lax.cummax(jnp.where(positions == 0, t, 0), axis=1)
    return before - jnp.take_along_axis(before, start, axis=1)


def membership(count: jax.Array, positions: jax.Array) -> jax.Array:
    """The weight of each position in its unit, ``[B, T]``: exactly 1, but with a slope. More ends
    before it move a position out of its unit, towards the next (the gradient of dynamic pooling's
    official code)."""
    ends_before = within_document(count, positions)
    return 1 + (ends_before - lax.stop_gradient(ends_before))


class Predictor(nnx.Module):
    """An MLP on the encoder's states gives the log-odds that a unit ends here (dynamic pooling,
    Nawrot et al. 2023, 2211.09761, section 3.3).

    With a prior on the rate, training draws relaxed Bernoulli variables with a straight-through
    threshold. Evaluation draws nothing: a unit ends where the sum of probabilities passes a half
    (``passing``), which keeps the rate that was trained, whether or not the predictor is yet sure
    of itself, and ends units at its certain places. With ``scripts``, each writing system has its
    own MLP and prior (MAGNET, Ahia et al. 2024, 2407.08818). Raises ConfigError for a script that
    Unicode does not know.
    """

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        d, K = stage.width, len(stage.rates)
        hidden = stage.predictor_width or 4 * d
        self.sampled = stage.supervision == "binomial"
        self.norm = RMSNorm(d)
        self.up = ExactLinear(d, K * hidden, ("embed", "mlp"), rngs)
        self.down = parameter(
            jax.random.normal(rngs.params(), (K, hidden)) * hidden**-0.5, None, None
        )
        # Starts at the rates it is to have.
        self.bias = parameter(jax.scipy.special.logit(jnp.array(stage.rates)), None)
        self.route_of = _routes(stage.scripts)

    def init_carry(self, batch: int) -> dict:
        return {"sum": jnp.zeros(batch, jnp.int32)} if self.sampled else {}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        """x ``[B, T, d]``; noise ``[B, T]``: standard logistic, or None."""
        K = self.bias[...].shape[0]
        hidden = jax.nn.gelu(self.up(self.norm(x.astype(jnp.float32))))
        hidden = hidden.reshape(*x.shape[:2], K, -1)
        odds = jnp.einsum("btkh,kh->btk", hidden, self.down[...], precision=EXACT)
        odds = odds + self.bias[...]
        route = jnp.array(self.route_of)[layout.scripts]
        log_odds = jnp.take_along_axis(odds, route[..., None], axis=-1)[..., 0]
        if not self.sampled:
            return Decision(log_odds > 0, log_odds, route=route), carry
        if noise is None:
            p = jax.nn.sigmoid(log_odds)
            ends, _, _, after = passing(p, layout.positions, carry["sum"], valid)
            return Decision(ends, log_odds, ends * 1.0, route), {"sum": after}
        ends = log_odds + noise > 0
        soft = jax.nn.sigmoid((log_odds + noise) / TEMPERATURE)
        return Decision(ends, log_odds, ends + (soft - lax.stop_gradient(soft)), route), carry


def _routes(grouped: tuple[str, ...]) -> tuple[int, ...]:
    """The route of each script: 1 + the index of the name that it is part of, 0 for all others."""
    names = scripts.names()
    routes = [0] * len(names)
    for i, group in enumerate(grouped, 1):
        for name in group.split("+"):
            if name not in names[1:]:
                import difflib

                near = difflib.get_close_matches(name, names[1:], 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"stage.scripts: no script {name!r}.{hint}")
            routes[names.index(name)] = i
    return tuple(routes)


class Router(nnx.Module):
    """Cosine routing (H-Net, Hwang et al. 2025, 2507.07955, equation 4): a unit opens where a state
    is unlike the one before it. The state of the opening position stands for its unit, which is
    therefore complete at once: here, the opening position is the unit's end."""

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        d = stage.width
        self.query = parameter(jnp.eye(d), "embed", None)
        self.key = parameter(jnp.eye(d), "embed", None)
        self.width = d

    def init_carry(self, batch: int) -> dict:
        return {"previous": jnp.zeros((batch, self.width), jnp.float32)}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        wide = x.astype(jnp.float32)
        before = jnp.concatenate([carry["previous"][:, None], wide[:, :-1]], axis=1)
        query = jnp.matmul(before, self.query[...], precision=EXACT)
        key = jnp.matmul(wide, self.key[...], precision=EXACT)
        lengths = jnp.sum(query * query, -1) * jnp.sum(key * key, -1)
        cosine = jnp.sum(query * key, -1) * lax.rsqrt(jnp.maximum(lengths, 1e-12))
        p = jnp.clip((1 - cosine) / 2, 0, 1)
        p = jnp.where(layout.positions == 0, 1, p)
        ends = p > 0.5
        safe = jnp.clip(p, 1e-4, 1 - 1e-4)
        decision = Decision(ends, jnp.log(safe) - jnp.log1p(-safe), ends * 1.0)
        return decision, {"previous": _last(wide, valid, carry["previous"])}


class Frontier(nnx.Module):
    """Frontier probabilities (MANTa, Godey et al. 2022, 2212.07284, section 3.1), made causal: p[t]
    is the probability that a unit ends with t, from a state that attends to what came before. The
    unit a position is in has the mean and variance of a Poisson-binomial variable, here of the
    positions before it; a unit ends where the mean, this position counted, passes a half."""

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        self.norm = RMSNorm(stage.width)
        self.out = ExactLinear(stage.width, 1, ("embed", None), rngs)
        self.bias = parameter(jax.scipy.special.logit(jnp.array(stage.rates)), None)

    def init_carry(self, batch: int) -> dict:
        return {"mean": jnp.zeros(batch, jnp.int32), "variance": jnp.zeros(batch, jnp.int32)}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        log_odds = self.out(self.norm(x.astype(jnp.float32)))[..., 0] + self.bias[...]
        p = jax.nn.sigmoid(log_odds)
        ends, offset, slope, mean_after = passing(p, layout.positions, carry["mean"], valid)
        spread, spread_slope, spread_after = _accumulated(
            p * (1 - p), layout.positions, carry["variance"], valid
        )
        decision = Decision(
            ends, log_odds, p, offset=offset + slope, variance=spread / UNIT + spread_slope
        )
        return decision, {"mean": mean_after, "variance": spread_after}


def passing(
    p: jax.Array, positions: jax.Array, start: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Where the sum of p ``[B, T]`` over a document, this position counted, passes a half (and one
    and a half, and so on): booleans; how far from a whole number the sum before it is, and a zero
    with that sum's slope; and the sum over all ``valid`` positions, in fixed point. start ``[B]``:
    the sum before the row."""
    mean, slope, after = _accumulated(p, positions, start, valid)
    unit = (mean + UNIT // 2) // UNIT
    ends = (mean + _fixed(p) + UNIT // 2) // UNIT > unit
    return ends, (mean - unit * UNIT) / UNIT, slope, after


def _fixed(x: jax.Array) -> jax.Array:
    return jnp.round(lax.stop_gradient(x) * UNIT).astype(jnp.int32)


def _accumulated(p, positions, start, valid):
    """Sum of p ``[B, T]`` over the positions of the document before each: in fixed point, and a
    zero that has its gradient; and the sum in fixed point over all ``valid`` positions.

    start ``[B]``: what came before the row, in fixed point.
    """
    steps = _fixed(p)
    # A row that takes up a document has no start of one before its first positions.
    taken_up = lax.cummax(jnp.where(positions == 0, 1, 0), axis=1) == 0
    whole = within_document(steps, positions) + jnp.where(taken_up, start[:, None], 0)
    soft = within_document(p, positions)
    slope = soft - lax.stop_gradient(soft)
    if valid is None:
        return whole, slope, start
    counted = jnp.where(jnp.arange(p.shape[1])[None] < valid[:, None], steps, 0)
    return whole, slope, start + jnp.sum(counted, axis=1)


class DeleteGate(nnx.Module):
    """A gate after the first layers says which positions go on (MrT5, Kallini et al. 2024,
    2410.20771). Training keeps all and hides the deleted ones softly, by what the gate adds to
    attention scores; evaluation leaves out those below half of ``GATE``."""

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        self.norm = RMSNorm(stage.width)
        self.out = ExactLinear(stage.width, 1, ("embed", None), rngs, stage.width**0.5)
        self.scale = stage.width**-0.5  # an update moves the gate by little, however wide
        self.bias = parameter(jnp.ones((1,)), None)

    def init_carry(self, batch: int) -> dict:
        return {}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        normed = self.norm(x.astype(jnp.float32))
        log_odds = self.out(normed)[..., 0] * self.scale + self.bias[...]
        ends, bias = log_odds > 0, GATE * jax.nn.sigmoid(-log_odds)
        return Decision(ends, log_odds, ends * 1.0, key_bias=bias), carry


def _last(x, valid, otherwise):
    """``x[b, valid[b] - 1]``, or ``otherwise`` where valid is 0."""
    if valid is None:
        return otherwise
    last = jnp.take_along_axis(x, jnp.maximum(valid - 1, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where(valid[:, None] > 0, last, otherwise)


SEGMENTERS = {
    "predicted": Predictor,
    "routing": Router,
    "frontier": Frontier,
    "deletion": DeleteGate,
}
