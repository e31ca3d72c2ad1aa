"""weighed by the probability that they are its own (frontier)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import StageConfig
from octavo.model.layers import parameter, take
from octavo.model.units.pools import New, Pool
from octavo.model.units.reductions import sum_by_unit
from octavo.model.units.segmentation import Segmentation
from octavo.model.units.segmenters import Decision


class Soft(Pool):
    """``SoftSums``, whose open sums decoding carries on."""

    needs = {"segmenter": ("frontier",), "max_unit": range(2, 1 << 31)}

    def _make(self, stage: StageConfig, dtype, rngs: nnx.Rngs) -> None:
        self.soft = SoftSums(stage.width)

    def __call__(self, x, units, decision=None, layout=None):
        return self.project(self.soft(x, units, decision, layout)[:, :, None])

    def init_carry(self, batch: int) -> dict:
        return {"sums": jnp.zeros((batch, SoftSums.REACH + 1, self.stage.width + 1))}

    def extend(self, new: New, units, most, carry):
        sums = self._open_sums(new, most, carry)[:, : units.last.shape[1]]
        return self.project(self.soft.means(sums)[:, :, None])[:, :most]

    def settle(self, new: New, carry):
        sums = self._open_sums(new, new.x.shape[1], carry)
        shift = jax.vmap(lax.dynamic_slice_in_dim, (0, 0, None))
        ended = jnp.sum(new.boundary, axis=1)
        return {"sums": shift(sums, ended, SoftSums.REACH + 1)}

    def _open_sums(self, new: New, most: int, carry: dict):
        """``[B, most + REACH + 3, d + 1]``: of the open unit, those after it, and as many as the
        new positions may reach."""
        soft, M = self.soft, self.stage.max_unit
        values = soft.values(new.x, new.window[:, M - 2 : M], new.layout.positions)
        unit_of = jnp.cumsum(new.boundary, axis=1) - new.boundary
        counts = jnp.broadcast_to(new.real[..., None], (*new.real.shape, soft.REACH + 1))
        sums = soft.sums(values, new.decision, unit_of, most + soft.REACH + 3, counts)
        return sums.at[:, : soft.REACH + 1].add(carry["sums"])


class SoftSums(nnx.Module):
    """Positions weighed by the probability that they belong to a unit (MANTa, Godey et al. 2022,
    2212.07284, section 3.2): a softmax over units of a Gaussian around the position's place.
    Causal: a unit gathers what came up to its end. The paper's softmax is over all units; here it
    is over those within ``REACH``, so that decoding remembers a fixed number of open sums.

    Values are a depthwise convolution of the states over three positions.
    """

    REACH = 3
    FLOOR = 1e-2
    """Least variance: a place that is certain gives no gradient, and should not give a huge one."""

    def __init__(self, width: int):
        mix = jnp.zeros((3, width)).at[0].set(1.0)
        self.mix: Any = parameter(mix, None, "embed")

    def values(self, x: jax.Array, before: jax.Array, positions: jax.Array) -> Any:
        """x ``[B, T, d]`` and the two states before it, ``[B, 2, d]``; float32."""
        wide = jnp.concatenate([before, x], axis=1).astype(jnp.float32)
        T = x.shape[1]
        return sum(
            jnp.where((positions >= i)[..., None], wide[:, 2 - i : 2 - i + T], 0) * self.mix[i]
            for i in range(3)
        )

    def membership(self, decision: Decision) -> jax.Array:
        """Probability that a position belongs to its own unit and each of the next ``REACH``,
        ``[B, T, REACH + 1]``."""
        units = jnp.arange(-self.REACH, self.REACH + 1)
        distance = decision.offset[..., None] - units
        spread = jnp.maximum(decision.variance, self.FLOOR)[..., None]
        return jax.nn.softmax(-jnp.square(distance) / (2 * spread))[..., self.REACH :]

    def sums(self, values, decision, unit_of, count, counts) -> Any:
        """Weighed values, and in a last column weights, of units ``[B, count, d + 1]``. counts
        ``[B, T, REACH + 1]``: which shares count."""
        shares = jnp.where(counts, self.membership(decision), 0)

        def total(x) -> Any:
            return sum(
                sum_by_unit(x * shares[..., i : i + 1], unit_of + i, count)
                for i in range(self.REACH + 1)
            )

        # Apart: of positions, a column more would be one past a tile.
        return jnp.concatenate([total(values), total(jnp.ones_like(values[..., :1]))], axis=-1)

    @staticmethod
    def means(sums: jax.Array) -> jax.Array:
        return sums[..., :-1] / jnp.maximum(sums[..., -1:], 1)

    def __call__(self, x, units: Segmentation, decision: Decision, layout) -> jax.Array:
        """``[B, S, d]`` of states ``[B, T, d]``."""
        S = units.last.shape[1]
        ahead = units.unit_of[..., None] + jnp.arange(self.REACH + 1)
        inside = jnp.minimum(ahead, S - 1).reshape(len(ahead), -1)
        documents = take(units.layout.segment_ids, inside).reshape(ahead.shape)
        counts = (documents == layout.segment_ids[..., None]) & (ahead < S)
        values = self.values(x, jnp.zeros_like(x[:, :2]), layout.positions)
        return self.means(self.sums(values, decision, units.unit_of, S, counts))
