"""Muon (Jordan et al. 2024) for the matrices inside the stack, scaled to AdamW's step size (Liu et
al. 2025, "Muon is Scalable"), so one learning rate serves both; embeddings and heads, those of
multi-token prediction included, keep AdamW."""

import jax
import optax

from octavo.configs.schema import OptimizerConfig
from octavo.training.optimizers import adamw

_STACKED = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)


def transforms(
    config: OptimizerConfig, rate: optax.Schedule
) -> dict[str, optax.GradientTransformation]:
    def dimensions(updates):
        return jax.tree.map(lambda _: _STACKED, updates)

    def to_adamw_size(updates, params):
        return jax.tree.map(lambda u: u * (0.2 * max(u.shape[1:]) ** 0.5), updates)

    muon = optax.chain(
        optax.contrib.scale_by_muon(beta=0.95, weight_dimension_numbers=dimensions),
        optax.stateless(to_adamw_size),
        adamw.decayed(config.weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    return adamw.transforms(config, rate) | {"muon": muon}
