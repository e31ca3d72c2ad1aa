"""Flat byte-level transformers.

flat: the default. 0.85M parameters; about 3.5 minutes on two CPU cores (21 kB/s), 1.85 bits/byte
on held-out text of the embedded corpus.

    python train.py flat

flat-100m: 85M parameters for a pod. On 16 v5e chips, 4.3 GiB a chip (compiled, not run).

    python prepare.py my-texts/ --out corpora/bytes
    python train.py flat-100m
    python -m octavo.launch.compile flat-100m --topology v5e-16

flat-1b: 1.0B parameters.
"""

from dataclasses import replace

from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig, ExecutionConfig, OptimizerConfig, TrainConfig


def presets() -> dict[str, Config]:
    flat = Config()
    flat_100m = Config(
        model=ModelConfig(width=768, layers=12, heads=6, activation="silu", gated_mlp=True),
        data=DataConfig(source="corpora/bytes", length=4096, batch_size=256),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2000),
        train=TrainConfig(steps=100_000, z_loss=1e-4, checkpoint_every=1000),
        execution=ExecutionConfig("bfloat16"),
    )
    flat_1b = replace(
        flat_100m,
        model=replace(flat_100m.model, width=2048, layers=20, heads=16),
        optimizer=replace(flat_100m.optimizer, learning_rate=4e-4),
    )
    return {"flat": flat, "flat-100m": flat_100m, "flat-1b": flat_1b}
