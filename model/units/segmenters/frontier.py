"""where the expected number of frontiers passes a half (MANTa)."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.layers import ExactLinear, RMSNorm, parameter
from octavo.model.units.learning import UNIT, accumulated, passing
from octavo.model.units.segmenters import Decision, Segmenter


class Frontier(Segmenter):
    """Frontier probabilities (MANTa, Godey et al. 2022, 2212.07284, section 3.1), made causal: p[t]
    is the probability that a unit ends with t, from a state that attends to what came before. The
    unit a position is in has the mean and variance of a Poisson-binomial variable, here of the
    positions before it; a unit ends where the mean, this position counted, passes a half.

    spread unit: an end that has been decided is certain, so that only what came since is not. With
    the paper's sum over all that came before, a place is spread over more and more units, however
    sure each frontier is: over nine at byte 512, of a predictor that is not trained yet."""

    supervisions = ("binomial",)
    uses = ("capacity", "spread")

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        self.spread = stage.spread
        self.norm = RMSNorm(stage.width)
        self.out = ExactLinear(stage.width, 1, ("embed", None), rngs)
        self.bias = parameter(jax.scipy.special.logit(jnp.array(stage.rates)), None)

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        return 2 * length * stage.width

    def init_carry(self, batch: int) -> dict:
        return {"mean": jnp.zeros(batch, jnp.int32), "variance": jnp.zeros(batch, jnp.int32)}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        log_odds = self.out(self.norm(x.astype(jnp.float32)))[..., 0] + self.bias[...]
        p = jax.nn.sigmoid(log_odds)
        ends, offset, slope, mean_after = passing(p, layout.positions, carry["mean"], valid)
        spread, spread_slope, spread_after = accumulated(
            p * (1 - p), layout.positions, carry["variance"], valid,
            ends if self.spread == "unit" else None,
        )  # fmt: skip
        decision = Decision(
            ends, log_odds, p, offset=offset + slope, variance=spread / UNIT + spread_slope
        )
        return decision, {"mean": mean_after, "variance": spread_after}
