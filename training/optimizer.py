"""Optimizers and schedules, all from optax."""

import jax
import optax

from octavo.configs.schema import OptimizerConfig


def learning_rate(config: OptimizerConfig, peak: float, steps: int) -> optax.Schedule:
    """Learning rate at a step; see ``OptimizerConfig.schedule``."""
    warmup = min(config.warmup_steps, steps)
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
    """The configured optimizer. names: the logical axis names of every parameter, as a pytree
    (leaves are tuples, without the leading "layers" of stacked parameters)."""

    def is_names(leaf):
        return isinstance(leaf, tuple)

    def logical(names_of):
        return tuple(name for name in names_of if name != "layers")

    matrices = jax.tree.map(lambda n: len(logical(n)) >= 2, names, is_leaf=is_names)
    adamw = optax.adamw(
        learning_rate(config, config.learning_rate, steps),
        b1=config.beta1,
        b2=config.beta2,
        weight_decay=config.weight_decay,
        mask=matrices,
    )
    if config.name == "adamw":
        return adamw

    # Muon (Jordan et al. 2024) for what maps the residual stream to itself and back: matrices
    # inside the stack. Embeddings and heads keep AdamW, as the authors advise.
    def dimensions(names_of):
        if "layers" not in names_of or len(logical(names_of)) != 2:
            return None
        return optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)

    muon = optax.contrib.muon(
        learning_rate(config, config.muon_learning_rate, steps),
        beta=0.95,
        weight_decay=config.weight_decay,
        weight_decay_mask=matrices,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        adam_learning_rate=learning_rate(config, config.learning_rate, steps),
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=jax.tree.map(dimensions, names, is_leaf=is_names),
    )
    return muon
