"""Training speed of presets, side by side in one run:

    python benchmarks/models.py [PRESET ...]

Whole steps on this machine in bytes per second, relative to the first, with parameters and FLOPs
per byte. Contenders take turns; the median of each counts.
"""

import statistics
import sys
import time

import jax
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.training.expected import cost_of
from octavo.training.trainer import Trainer

PRESETS = ("flat", "words", "hat", "megabyte", "spacebyte", "pooling-space", "aunet", "lobef")
ROUNDS = 10


def contender(name: str):
    """``step()`` runs one step and waits; and what to say of the preset."""
    config = presets().get(name)
    if config is None:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(presets())}.")
    trainer = Trainer.of(config)
    stream = trainer.batches(steps=10**6)
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh()

    def step() -> float:
        nonlocal state
        with jax.set_mesh(trainer.mesh):
            state, metrics = trainer.step(state, trainer.place(next(stream)))
            return float(metrics["bytes"])

    cost = cost_of(trainer.config, trainer.plan)
    return step, cost.parameters, cost.train_paid, cost.train_useful


def main() -> None:
    names = sys.argv[1:] or PRESETS
    contenders = {name: contender(name) for name in names}
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for step, *_ in contenders.values():
        step()  # compiles
    for _ in range(ROUNDS):
        for name, (step, *_) in contenders.items():
            began = time.perf_counter()
            size = step()
            speeds[name].append(size / (time.perf_counter() - began))
    table = Table("preset", "parameters", "MFLOPs/byte", "useful", "kB/s", f"of {names[0]}")
    base = statistics.median(speeds[names[0]])
    for name, (_, parameters, *per_byte) in contenders.items():
        speed = statistics.median(speeds[name])
        table.add_row(
            name, f"{parameters / 1e6:.2f} M", *(f"{each / 1e6:.2f}" for each in per_byte),
            f"{speed / 1e3:.1f}", f"{speed / base:.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
