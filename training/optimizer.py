"""Optimizers and schedules, all from optax."""

import jax
import optax

from octavo.configs.schema import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate at a step; see ``OptimizerConfig.schedule``."""
    peak, warmup = config.learning_rate, min(config.warmup_steps, steps)
    if config.schedule == "cosine":
        # A run shorter than its warm-up still needs one step to fall in.
        after = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=0.1)
    else:
        decay = max(round(config.decay_fraction * steps), 1)
        after = optax.schedules.linear_schedule(
            peak, 0.0, decay, transition_begin=max(steps - warmup - decay, 0)
        )
    # The first update already moves: step 0 of n warm-up steps has 1/n of the peak.
    start = optax.schedules.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
    return optax.schedules.join_schedules([start, after], [warmup])


def make_optimizer(
    config: OptimizerConfig, steps: int, names: dict
) -> optax.GradientTransformation:
    """The configured optimizer for parameters with these logical axis names (tuples, in the
    parameters' tree).

    Matrices decay, vectors do not. muon (Jordan et al. 2024) moves the matrices inside the stack,
    scaled to AdamW's step size (Liu et al. 2025, "Muon is Scalable"), so one learning rate serves
    both; embeddings and heads, those of multi-token prediction included, keep AdamW.
    """
    rate = learning_rate(config, steps)

    def label(logical: tuple) -> str:
        stacked = logical[:1] == ("layers",)
        if len(logical) - stacked < 2:
            return "vector"
        inside = stacked and "vocab" not in logical
        return "muon" if inside and config.name == "muon" else "matrix"

    def adamw(weight_decay: float) -> optax.GradientTransformation:
        return optax.adamw(rate, b1=config.beta1, b2=config.beta2, weight_decay=weight_decay)

    stacked_matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)

    def dimensions(updates):
        return jax.tree.map(lambda _: stacked_matrix, updates)

    def to_adamw_size(updates, params):
        return jax.tree.map(lambda u: u * (0.2 * max(u.shape[1:]) ** 0.5), updates)

    muon = optax.chain(
        optax.contrib.scale_by_muon(beta=0.95, weight_dimension_numbers=dimensions),
        optax.stateless(to_adamw_size),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    labels = jax.tree.map(label, names, is_leaf=lambda leaf: isinstance(leaf, tuple))
    by_label = {"matrix": adamw(config.weight_decay), "vector": adamw(0.0)}
    if config.name == "muon":
        by_label["muon"] = muon
    return optax.partition(by_label, labels)
