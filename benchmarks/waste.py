"""FLOPs of the slots that a step computes over those of the units that there are:

    python benchmarks/waste.py [PRESET ...] [--steps 60] [--length 4096 --batch-size 2 --source DIR]

Of every preset of one size, on its own corpus or one that is named; the last half of the steps
counts, once learned segmenters are near their rates. What the backward pass computes again is left
out. merged: of the ends that were asked for, those that had no room.
"""

import argparse
import dataclasses
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs import presets
from octavo.configs.schema import Config
from octavo.training.metrics import of_parts
from octavo.training.trainer import Trainer


def counted(config: Config, steps: int) -> dict[str, float]:
    """Paid over useful FLOPs, paid over useful slots of the trunk, and the share of merged ends."""
    trainer = Trainer.of(config)
    last, stages = len(config.model.stages) - 1, config.model.stages
    total = dict.fromkeys(("paid", "useful", "slots", "units", "merged"), 0.0)
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh()
        for i, batch in enumerate(trainer.batches(steps=steps)):
            state, metrics = trainer.step(state, trainer.place(batch))
            if i < steps // 2:
                continue
            values = {name: float(value) for name, value in metrics.items()}
            total["paid"] += trainer.paid_flops(values) / trainer.definition.recomputation
            total["useful"] += trainer.useful_flops(values["targets"], of_parts(values))
            total["slots"] += values.get(f"computed/{last}", 0)
            total["units"] += values.get(f"units/{last}", 0)
            total["merged"] += sum(values[f"merged/{level}"] for level in range(len(stages)))
    return {
        "waste": total["paid"] / total["useful"],
        "slots": total["slots"] / max(total["units"], 1),
        "merged": total["merged"] / max(total["units"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--steps", type=int, default=60)
    for name in ("length", "batch-size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--source")
    a = parser.parse_args()
    own: dict[str, Any] = {"length": a.length, "batch_size": a.batch_size, "source": a.source}
    own = {name: value for name, value in own.items() if value is not None}
    names = a.presets or [n for n in presets() if not n.endswith(("-100m", "-1b"))]
    table = Table("preset", "rows", "paid / useful FLOPs", "slots / unit", "merged")
    for name in names:
        config = presets()[name]
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **own))
        found = counted(config, a.steps)
        rows = f"{config.data.batch_size} x {config.data.length}"
        table.add_row(name, rows, f"{found['waste']:.3f}", f"{found['slots']:.2f}",
                      f"{found['merged']:.2%}")  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
