"""an MLP on each position's state (dynamic pooling; MAGNET with ``scripts``)."""

import difflib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.checks import ConfigError
from octavo.configs.model import StageConfig
from octavo.model.layers import EXACT, ExactLinear, RMSNorm, parameter, product
from octavo.model.routed import routed
from octavo.model.units.learning import passing
from octavo.model.units.segmenters import Decision, Segmenter
from octavo.tokenizers.unicode import scripts

DRAWN = ("binomial", "hinge", "policy")
"""Supervisions under which training draws ends."""
TEMPERATURE = 0.5
"""Of the relaxed Bernoulli (dynamic pooling, 2211.09761)."""


class Predictor(Segmenter):
    """An MLP on the encoder's states gives the log-odds that a unit ends here (dynamic pooling,
    Nawrot et al. 2023, 2211.09761, section 3.3).

    Held to a rate, training draws relaxed Bernoulli variables with a straight-through threshold;
    under policy, the draw has no gradient of its own. Evaluation draws nothing by default: a unit
    ends where the sum of probabilities passes a half (``passing``), which keeps the rate that was
    trained, whether or not the predictor is yet sure of itself, and ends units at its certain
    places; ``stage.evaluation`` has other ways. With ``scripts``, each writing system has its
    own MLP and prior (MAGNET, Ahia et al. 2024, 2407.08818). Raises ConfigError for a script that
    Unicode does not know.
    """

    uses = ("capacity", "predictor_width", "predictor_released", "scripts", "evaluation")
    supervisions = ("binomial", "hinge", "policy", "marks", "entropy")

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        d, K = stage.width, len(stage.rates)
        hidden = stage.predictor_width or 4 * d
        self.sampled = stage.supervision in DRAWN
        self.evaluation = stage.evaluation
        self.norm = RMSNorm(d)
        self.up = ExactLinear(d, K * hidden, ("embed", "mlp"), rngs)
        self.down = parameter(
            jax.random.normal(rngs.params(), (K, hidden)) * hidden**-0.5, None, None
        )
        # One axis, so that it does not decay.
        hidden_bias = parameter(jnp.zeros(K * hidden), "mlp") if stage.predictor_released else None
        self.hidden_bias: Any = hidden_bias
        # Starts at the rates it is to have.
        self.bias = parameter(jax.scipy.special.logit(jnp.array(stage.rates)), None)
        self.route_of = routes_of(stage.scripts)
        # Foresees nothing at first.
        policy = stage.supervision == "policy"
        self.value: Any = ExactLinear(d, 1, ("embed", None), rngs, 0.0) if policy else None
        self.value_bias: Any = parameter(jnp.zeros(1), None) if policy else None

    @classmethod
    def refuse(cls, stage: StageConfig) -> str | None:
        if stage.scripts and stage.supervision not in DRAWN:
            return f"stage.scripts needs segmenter predicted and supervision {' or '.join(DRAWN)}."
        return None

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        hidden = stage.predictor_width or 4 * stage.width
        return 2 * length * (stage.width * hidden + hidden)

    def init_carry(self, batch: int) -> dict:
        return {"sum": jnp.zeros(batch, jnp.int32)} if self._sums else {}

    @property
    def _sums(self) -> bool:
        return self.sampled and self.evaluation == "sum"

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        """x ``[B, T, d]``; noise ``[B, T]``: standard logistic, or None."""
        d, K = x.shape[-1], len(self.bias[...])
        route = jnp.array(self.route_of)[layout.scripts]
        up = self.up.weight[...].reshape(d, K, -1).swapaxes(0, 1)
        params = (up, self.down[...], self.bias[...])
        if self.hidden_bias is not None:
            params += (self.hidden_bias[...].reshape(K, -1),)
        normed = self.norm(x.astype(jnp.float32))
        log_odds = routed(_log_odds, normed, route, params)
        if not self.sampled:
            return Decision(log_odds > 0, log_odds, route=route), carry
        if noise is None and not self._sums:
            drawn = _noise(layout.positions) if self.evaluation == "sampled" else 0.0
            ends = log_odds + drawn > 0
            return Decision(ends, log_odds, ends * 1.0, route), carry
        if noise is None:
            p = jax.nn.sigmoid(log_odds)
            ends, _, _, after = passing(p, layout.positions, carry["sum"], valid)
            return Decision(ends, log_odds, ends * 1.0, route), {"sum": after}
        ends = log_odds + noise > 0
        if self.value is not None:
            value = self.value(lax.stop_gradient(normed))[..., 0] + self.value_bias[...]
            return Decision(ends, log_odds, ends * 1.0, route, value), carry
        soft = jax.nn.sigmoid((log_odds + noise) / TEMPERATURE)
        return Decision(ends, log_odds, ends + (soft - lax.stop_gradient(soft)), route), carry


def _noise(positions: jax.Array) -> jax.Array:
    """Standard logistic, of each place in a document: the same in one pass and step by step."""
    key = jax.random.key(0)
    each = jax.vmap(lambda at: jax.random.logistic(jax.random.fold_in(key, at)))
    return each(positions.reshape(-1)).reshape(positions.shape)


def _log_odds(x: jax.Array, params: tuple) -> jax.Array:
    """``[b, d]`` to ``[b]``, by the MLP of one route: up ``[d, hidden]``, down ``[hidden]``, bias
    and, as released, the hidden bias ``[hidden]``."""
    up, down, bias, *hidden_bias = params
    if hidden_bias:
        hidden = jax.nn.gelu(product(x, up, EXACT) + hidden_bias[0], approximate=False)
    else:
        hidden = jax.nn.gelu(product(x, up, EXACT))
    return jnp.matmul(hidden, down, precision=EXACT) + bias


def routes_of(grouped: tuple[str, ...]) -> tuple[int, ...]:
    """The route of each script: 1 + the index of the name that it is part of, 0 for all others."""
    names = scripts.names()
    routes = [0] * len(names)
    for i, group in enumerate(grouped, 1):
        for name in group.split("+"):
            if name not in names[1:]:
                near = difflib.get_close_matches(name, names[1:], 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"stage.scripts: no script {name!r}.{hint}")
            routes[names.index(name)] = i
    return tuple(routes)
