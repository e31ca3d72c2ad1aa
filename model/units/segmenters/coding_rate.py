"""where the coding rate of the states has grown by another equal share (ByteFlow)."""

import jax
import jax.numpy as jnp
from jax import lax

from octavo.configs.model import StageConfig
from octavo.model.layers import back_by
from octavo.model.units.learning import UNIT, accumulated, passing
from octavo.model.units.segmenters import Decision, Segmenter

WINDOW = 8
"""Earlier positions beside which a state's gain is measured."""
DISTORTION = 0.5
"""Squared error allowed in a state of length 1."""


class CodingRate(Segmenter):
    """The marginal coding rate of a state, beside those before it, says how much it adds that they
    do not tell (ByteFlow, Deng et al. 2026, 2603.03583: the gain of R(Z) = 1/2 log det(I + d / (n
    e^2) Z Z^T)). There, the k positions of a row that add the most end units: which they are
    depends on all of the row, so that the model sees ahead. Here a unit ends where the gains since
    the document's start, over their mean so far, pass another whole unit: it depends on what came
    before, and keeps the rate. Gains are beside the last ``WINDOW`` states, of length 1; none has a
    gradient, as there."""

    supervisions = ("kept",)

    def __init__(self, stage: StageConfig, rngs):
        self.width, self.rate = stage.width, stage.rates[0]

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        return 2 * length * WINDOW * stage.width

    def init_carry(self, batch: int) -> dict:
        nothing = jnp.zeros(batch, jnp.int32)
        before = jnp.zeros((batch, WINDOW, self.width))
        return {"before": before, "gained": nothing, "sum": nothing}

    def decide(self, x, layout, carry, valid=None, noise=None) -> tuple[Decision, dict]:
        x = lax.stop_gradient(x.astype(jnp.float32))
        x = x * lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-12)
        known = jnp.concatenate([carry["before"], x], axis=1)
        places = jnp.concatenate(
            [layout.positions[:, :1] - jnp.arange(WINDOW, 0, -1), layout.positions], axis=1
        )
        # Coarse: what rounds otherwise, in one pass or in steps, should not move an end.
        gain = jnp.round(gains(known, places)[:, WINDOW:] * 256) / 256
        whole, _, gained = accumulated(gain, layout.positions, carry["gained"], valid)
        # A gain of the rate's own size is counted first, so that the mean is never of nothing.
        mean = (whole / UNIT + gain + 1) / (layout.positions + 2)
        p = jnp.clip(self.rate * gain / mean, 0, 1)
        ends, _, _, after = passing(p, layout.positions, carry["sum"], valid)
        ends |= layout.positions == 0
        if valid is None:
            return Decision(ends), carry
        last = jax.vmap(lambda row, at: lax.dynamic_slice_in_dim(row, at, WINDOW))(known, valid)
        return Decision(ends), {"before": last, "gained": gained, "sum": after}


def gains(x: jax.Array, positions: jax.Array) -> jax.Array:
    """How much each state x ``[B, T, d]`` adds to the coding rate of the ``WINDOW`` before it in
    its document, in nats, ``[B, T]``."""
    alpha = x.shape[-1] / (WINDOW * DISTORTION)
    # products[j - 1][t]: of the states at t and t - j; 0 where that is another document.
    products = [jnp.sum(x * back_by(x, positions, j), axis=-1) for j in range(1, WINDOW + 1)]
    # Of I + alpha G, with G of the states before, newest first; a state that is not there adds
    # nothing to it.
    matrix = [[jnp.zeros(())] * WINDOW for _ in range(WINDOW)]
    for i in range(WINDOW):
        matrix[i][i] = 1 + alpha * (positions > i)
        for j in range(i + 1, WINDOW):
            matrix[i][j] = alpha * back_by(products[j - i - 1], positions, i + 1)
    vector = [alpha * product for product in products]
    # By elimination, of which the last corner is what the state's own length leaves.
    left = 1 + alpha
    for i in range(WINDOW):
        pivot = matrix[i][i]
        left -= vector[i] ** 2 / pivot
        for j in range(i + 1, WINDOW):
            share = matrix[i][j] / pivot
            vector[j] = vector[j] - share * vector[i]
            for k in range(j, WINDOW):
                matrix[j][k] = matrix[j][k] - share * matrix[i][k]
    return jnp.log(jnp.maximum(left, 1.0)) / 2
