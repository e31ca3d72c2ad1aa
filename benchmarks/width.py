"""Is the best learning rate the same at every width, with --optimizer.base-width and without?

    python benchmarks/width.py [--steps 150] [--seeds 2] [--layers 2]

Flat models of several widths, in heads of 32, on the text that comes with Python, each at several
peak learning rates: bits per byte over the last tenth of the steps, of text that no step before has
read, mean over seeds of the parameters. All read the same text in the same order. One program runs
every rate: an update is that at a rate of 1, times the rate.
"""

import argparse
import dataclasses
import math
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import optax

from octavo import cli
from octavo.configs import presets
from octavo.configs.schema import Config
from octavo.training.optimizer import make_optimizer
from octavo.training.trainer import Trainer

WIDTHS, BASE = (64, 128, 256), 64
RATES = (0.004, 0.008, 0.016, 0.032, 0.064)


class Swept(Trainer):
    """A training at a peak learning rate that is the last part of the optimizer's state."""

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        config, names = self.config, self.definition.names
        of_one = make_optimizer(config.optimizer, config.train.steps, names)

        def scaled(updates, rate, params=None):
            return jax.tree.map(lambda update: rate * update, updates), rate

        rated = optax.GradientTransformation(lambda params: jnp.ones(()), scaled)
        return optax.chain(of_one, rated)


def configuration(width: int, base: int | None, steps: int, layers: int) -> Config:
    flat = presets()["flat"]
    change = dataclasses.replace
    return change(
        flat,
        model=change(flat.model, width=width, heads=width // 32, layers=layers),
        data=change(flat.data, length=128, batch_size=8),
        optimizer=change(
            flat.optimizer, learning_rate=1.0, base_width=base, warmup_steps=steps // 10
        ),
        train=change(flat.train, steps=steps),
    )


def bits(trainer: Swept, batches: list, rate: float, seed: int) -> float:
    """Bits per byte over the last tenth of a training."""
    state = trainer.fresh(seed)
    state["opt"] = (*state["opt"][:-1], jax.device_put(np.float32(rate), state["step"].sharding))
    nats, size = 0.0, 0.0
    for i, batch in enumerate(batches):
        state, metrics = trainer.step(state, batch)
        if i >= len(batches) * 9 // 10:
            nats, size = nats + float(metrics["nats"]), size + float(metrics["bytes"])
    return nats / size / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2)
    a = parser.parse_args()
    arms = [(width, base) for base in (None, BASE) for width in WIDTHS if base != width]
    print("| width | base width | " + " | ".join(f"{rate:g}" for rate in RATES) + " | best |")
    print("|---" * (3 + len(RATES)) + "|", flush=True)
    for width, base in arms:
        trainer = Swept.of(configuration(width, base, a.steps, a.layers))
        with jax.set_mesh(trainer.mesh):
            batches = [trainer.place(batch) for batch in trainer.batches(steps=a.steps)]
            found = np.array(
                [[bits(trainer, batches, r, seed) for r in RATES] for seed in range(a.seeds)]
            )
        mean = found.mean(axis=0)
        best = RATES[int(mean.argmin())]
        cells = [f"{value:.3f}" for value in mean]
        print(f"| {width} | {base} | {' | '.join(cells)} | {best:g} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
