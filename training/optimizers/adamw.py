"""AdamW (Loshchilov & Hutter 2019): matrices decay, vectors do not."""

import jax
import optax

from octavo.configs.schema import OptimizerConfig

VECTORS = (
    "null", "prefix", "vectors", "latent", "mix", "query_taps", "key_taps", "value_taps",
)  # fmt: skip
"""Arrays of several vectors that are learned as they are: of null units, prefixes, registers,
queries; taps of depthwise convolutions."""


def transforms(
    config: OptimizerConfig, rate: optax.Schedule
) -> dict[str, optax.GradientTransformation]:
    def adamw(weight_decay: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_adam(b1=config.beta1, b2=config.beta2),
            decayed(weight_decay),
            optax.scale_by_learning_rate(rate),
        )

    return {"matrix": adamw(config.weight_decay), "vector": adamw(0.0)}


def decayed(weight_decay: float) -> optax.GradientTransformation:
    """What decoupled decay adds, but of ``VECTORS``."""

    def decay(path, update, value):
        return update if path[-1].key in VECTORS else update + weight_decay * value

    return optax.stateless(lambda *trees: jax.tree.map_with_path(decay, *trees))
