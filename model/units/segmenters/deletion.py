"""at what a delete gate keeps (MrT5)."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.layers import ExactLinear, RMSNorm, parameter, take
from octavo.model.units.segmenters import Decision, Segmenter

GATE = -30.0
"""Score that the delete gate adds to a key it deletes entirely (MrT5, 2410.20771)."""


class DeleteGate(Segmenter):
    """A gate after the first layers says which positions go on (MrT5, Kallini et al. 2024,
    2410.20771). Training keeps all and hides the deleted ones softly, by what the gate adds to
    attention scores; evaluation leaves out those below half of ``GATE``."""

    needs = {"pool": ("last",), "unpool": ("repeat",)}
    supervisions = ("controller",)
    goes_last = True
    biases_keys = True

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        self.norm = RMSNorm(stage.width)
        self.out = ExactLinear(stage.width, 1, ("embed", None), rngs, stage.width**0.5)
        self.scale = stage.width**-0.5  # an update moves the gate by little, however wide
        self.bias = parameter(jnp.ones((1,)), None)

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        return 2 * length * stage.width

    def inner(self, decision, layout, at):
        positions = jnp.broadcast_to(layout.positions, decision.ends.shape)
        return take(positions, at), {"key_bias": take(decision.key_bias, at)}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        normed = self.norm(x.astype(jnp.float32))
        log_odds = self.out(normed)[..., 0] * self.scale + self.bias[...]
        ends, bias = log_odds > 0, GATE * jax.nn.sigmoid(-log_odds)
        return Decision(ends, log_odds, ends * 1.0, key_bias=bias), carry
