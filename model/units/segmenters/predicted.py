"""an MLP on each position's state (dynamic pooling; MAGNET with ``scripts``)."""

import difflib

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.checks import ConfigError
from octavo.configs.model import StageConfig
from octavo.model.layers import EXACT, ExactLinear, RMSNorm, parameter
from octavo.model.units.learning import passing
from octavo.model.units.segmenters import Decision, Segmenter
from octavo.tokenizers.unicode import scripts

TEMPERATURE = 0.5
"""Of the relaxed Bernoulli (dynamic pooling, 2211.09761)."""


class Predictor(Segmenter):
    """An MLP on the encoder's states gives the log-odds that a unit ends here (dynamic pooling,
    Nawrot et al. 2023, 2211.09761, section 3.3).

    With a prior on the rate, training draws relaxed Bernoulli variables with a straight-through
    threshold. Evaluation draws nothing: a unit ends where the sum of probabilities passes a half
    (``passing``), which keeps the rate that was trained, whether or not the predictor is yet sure
    of itself, and ends units at its certain places. With ``scripts``, each writing system has its
    own MLP and prior (MAGNET, Ahia et al. 2024, 2407.08818). Raises ConfigError for a script that
    Unicode does not know.
    """

    uses = ("capacity", "predictor_width", "scripts")
    supervisions = ("binomial", "marks", "entropy")

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
        self.route_of = routes_of(stage.scripts)

    @classmethod
    def refuse(cls, stage: StageConfig) -> str | None:
        if stage.scripts and stage.supervision != "binomial":
            return "stage.scripts needs segmenter predicted and supervision binomial."
        return None

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        hidden = len(stage.rates) * (stage.predictor_width or 4 * stage.width)
        return 2 * length * (stage.width * hidden + hidden)

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
