"""AdamW (Loshchilov & Hutter 2019): matrices decay, vectors do not."""

import optax

from octavo.configs.schema import OptimizerConfig


def transforms(
    config: OptimizerConfig, rate: optax.Schedule
) -> dict[str, optax.GradientTransformation]:
    def adamw(weight_decay: float) -> optax.GradientTransformation:
        return optax.adamw(rate, b1=config.beta1, b2=config.beta2, weight_decay=weight_decay)

    return {"matrix": adamw(config.weight_decay), "vector": adamw(0.0)}
