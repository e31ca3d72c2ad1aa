"""Flat byte-level transformers.

flat: the default, 0.9M parameters, minutes on a laptop CPU.

    python train.py flat
"""

from octavo.configs.schema import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def presets() -> dict[str, Config]:
    flat = Config()
    flat_100m = Config(
        model=ModelConfig(width=768, layers=12, heads=6, activation="silu", gated_mlp=True),
        data=DataConfig(source="data/corpus", length=4096, batch_size=256),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2000),
        train=TrainConfig(
            steps=100_000, compute_dtype="bfloat16", z_loss=1e-4, checkpoint_every=1000
        ),
    )
    return {"flat": flat, "flat-100m": flat_100m}
