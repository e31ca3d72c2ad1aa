"""the mean of their states."""

import jax.numpy as jnp

from octavo.model.units.learning import membership
from octavo.model.units.pools import Pool
from octavo.model.units.reductions import mean_by_unit


class Mean(Pool):
    """Weights are 1, with the slope of where units end (dynamic pooling, 2211.09761)."""

    def __call__(self, x, units, decision=None, layout=None):
        weight = jnp.ones_like(x[..., :1])
        if decision is not None and decision.count is not None:
            weight = membership(decision.count, layout.positions)[..., None].astype(x.dtype)
        return self.project(mean_by_unit(x, weight, units.unit_of, units.last.shape[1])[:, :, None])
