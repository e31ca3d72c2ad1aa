"""Flat byte-level transformers.

flat: the default, a byte transformer. About 3.5 minutes on two CPU cores (21 kB/s), 1.85 bits/byte
on held-out text of the embedded corpus.

    python train.py flat

flat-100m: the same for a pod. On 16 v5e chips, 4.3 GiB a chip (compiled, not run).
flat-1b: the same for a larger pod.

    python prepare.py my-texts/ --out corpora/bytes
    python train.py flat-100m
    python -m octavo.launch.compile flat-100m --topology v5e-16

On a host of eight H100, so that all is kept for the backward pass (docs/models.md, Sizes):

    python train.py flat-100m --train.accumulation 2

Presets for pods name their run directory, so that the same command on all hosts continues the run
after a preemption.
"""

from dataclasses import replace
from typing import Any

from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config, DataConfig, ExecutionConfig, OptimizerConfig, TrainConfig

MINUTES = {"flat": 3.5}
"""On two CPU cores (docs/models.md)."""


def around(
    flat: Config, name: str, stages: tuple[StageConfig, ...], widths: tuple[int, ...], layers: int,
    source: str | None = None, **model: Any,
) -> Config:  # fmt: skip
    """The preset ``name``: a flat one as an hourglass of these stages, with widths from bytes
    inwards in heads of 128, and so many layers in the trunk. source: of text, if not flat's."""
    *outer, inner = widths
    stages = tuple(
        replace(stage, width=width, heads=width // 128)
        for stage, width in zip(stages, outer, strict=True)
    )
    trunk = replace(
        flat.model, width=inner, heads=inner // 128, layers=layers, mlp_width=None, stages=stages,
        **model,
    )  # fmt: skip
    data = replace(flat.data, source=source or flat.data.source)
    return replace(flat, model=trunk, data=data, workdir=f"runs/{name}")


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
        model=replace(flat_100m.model, width=2048, layers=20, heads=16, mlp_width=5632),
        optimizer=replace(flat_100m.optimizer, learning_rate=4e-4),
        workdir="runs/flat-1b",
    )
    return {"flat": flat, "flat-100m": flat_100m, "flat-1b": flat_1b}
