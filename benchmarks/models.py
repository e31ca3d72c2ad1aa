"""Training speed of presets, side by side in one run:

    python benchmarks/models.py [PRESET ...]

Whole steps on this machine in bytes per second, relative to the first, with parameters and FLOPs
per byte. Contenders take turns; the median of each counts.
"""

import statistics
import sys
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs import presets
from octavo.configs.schema import ConfigError
from octavo.data.pipeline import batches, make_plan
from octavo.model import flops
from octavo.run.definition import define
from octavo.run.sharding import batch_sharding, make_mesh, place_batch
from octavo.training.optimizer import make_optimizer
from octavo.training.state import abstract_state, fresh_state
from octavo.training.step import make_step

PRESETS = ("flat", "words", "hat", "megabyte", "spacebyte", "pooling-space", "aunet", "lobef")
ROUNDS = 10


def contender(name: str):
    """``step()`` runs one step and waits; and what to say of the preset."""
    config = presets().get(name)
    if config is None:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(presets())}.")
    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    plan = make_plan(config.data, 0, config.model.needs_marks)
    tokenizer = plan.corpora[0].tokenizer
    definition = define(config, tokenizer.vocabulary, jax.devices()[0].platform)
    optimizer = make_optimizer(config.optimizer, config.train.steps, definition.names)
    abstract = abstract_state(definition, optimizer, mesh)
    state = fresh_state(definition, optimizer, abstract, 0)
    run = make_step(config, definition, optimizer, abstract, tokenizer.bytes_per_id())
    rows = np.arange(config.data.batch_size)
    stream = batches(plan, rows, first_step=0, steps=10**6, workers=0)

    def step() -> float:
        nonlocal state
        state, metrics = run(
            state, place_batch(batch_sharding(mesh), next(stream), rows, len(rows))
        )
        return float(metrics["bytes"])

    per_byte = flops.training_flops(config.model, 256, config.data.length) / plan.bytes_per_id()
    return step, definition.parameters, per_byte


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
    table = Table("preset", "parameters", "MFLOPs/byte", "kB/s", f"of {names[0]}")
    base = statistics.median(speeds[names[0]])
    for name, (_, parameters, per_byte) in contenders.items():
        speed = statistics.median(speeds[name])
        table.add_row(
            name, f"{parameters / 1e6:.2f} M", f"{per_byte / 1e6:.2f}", f"{speed / 1e3:.1f}",
            f"{speed / base:.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
