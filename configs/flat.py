"""Flat byte-level transformers.

flat: the default, a byte transformer. About 3.5 minutes on two CPU cores (21 kB/s), 1.85 bits/byte
on held-out text of the embedded corpus.

    python train.py flat

flat-100m: the same for a pod. On 16 v5e chips, 4.3 GiB a chip (compiled, not run).
flat-1b: the same for a larger pod.

    python prepare.py my-texts/ --out corpora/bytes
    python train.py flat-100m
    python -m octavo.launch.compile flat-100m --topology v5e-16

Presets for pods name their run directory, so that the same command on all hosts continues the run
after a preemption.
"""

from dataclasses import replace

from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig, ExecutionConfig, OptimizerConfig, TrainConfig

MINUTES = {"flat": 3.5}
"""On two CPU cores (docs/models.md)."""


def presets() -> dict[str, Config]:
    flat = Config()
    flat_100m = Config(
        model=ModelConfig(width=768, layers=12, heads=6, activation="silu", gated_mlp=True),
        data=DataConfig(source="corpora/bytes", length=4096, batch_size=256),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2000),
        train=TrainConfig(steps=100_000, z_loss=1e-4, checkpoint_every=1000),
        execution=ExecutionConfig("bfloat16"),
        workdir="runs/flat-100m",
    )
    flat_1b = replace(
        flat_100m,
        model=replace(flat_100m.model, width=2048, layers=20, heads=16),
        optimizer=replace(flat_100m.optimizer, learning_rate=4e-4),
        workdir="runs/flat-1b",
    )
    return {"flat": flat, "flat-100m": flat_100m, "flat-1b": flat_1b}
