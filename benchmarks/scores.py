"""Held-out bits per byte of presets that trained for the same FLOPs, one after another:

    python benchmarks/scores.py [PRESET ...] [--steps N] [--seeds S] [--out DIR]

The first preset trains for N steps; each other for as many as cost the same (the formula of
model/flops.py). Runs stay in DIR: the same command again continues them. One score is one seed:
differences within the spread between seeds say nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs import presets
from octavo.model import flops
from octavo.training.trainer import plan_of

PRESETS = ("flat", "words", "hat", "megabyte", "spacebyte", "pooling-space", "manta", "hnet")
TRAIN = Path(__file__).parents[1] / "train.py"


def cost_of(name: str) -> tuple[float, float]:
    """FLOPs and bytes of one step."""
    config = presets()[name]
    ids = config.data.batch_size * config.data.length
    plan = plan_of(config)
    vocab_size = plan.corpora[0].tokenizer.vocab_size
    each = flops.training_flops(config.model, vocab_size, config.data.length)
    return ids * each, ids * plan.bytes_per_id()


def score_of(name: str, steps: int, seed: int, out: Path) -> float:
    """Held-out bits per byte after ``steps`` of training."""
    workdir = out / f"{name}-{steps}-{seed}"
    arguments = {"steps": steps, "seed": seed, "evaluation-bytes": 300_000, "sample-bytes": 0}
    flags = [part for k, v in arguments.items() for part in (f"--train.{k}", str(v))]
    command = [sys.executable, str(TRAIN), name, *flags, "--workdir", str(workdir)]
    if code := subprocess.run(command).returncode:
        sys.exit(code)  # it said why
    return json.loads((workdir / "results.json").read_text())["heldout/bits_per_byte"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/scores"))
    a = parser.parse_args()
    if unknown := set(a.presets) - presets().keys():
        parser.error(f"no preset {', '.join(sorted(unknown))}; there are {', '.join(presets())}")
    costs = {name: cost_of(name) for name in a.presets}
    budget = a.steps * costs[a.presets[0]][0]
    table = Table("preset", "steps", "MB of text", "bits/byte", "seeds")
    for name, (cost, size) in costs.items():
        steps = round(budget / cost)
        found = [score_of(name, steps, seed, a.out) for seed in range(a.seeds)]
        told = " ".join(f"{bits:.3f}" for bits in found)
        mean = statistics.mean(found)
        table.add_row(name, str(steps), f"{steps * size / 1e6:.1f}", f"{mean:.3f}", told)
        Console().print(table)


if __name__ == "__main__":
    cli.run(main)
