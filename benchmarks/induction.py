"""Does predicting several bytes at a time teach a small model to copy from its context?

    python benchmarks/induction.py [--steps 750] [--seeds 3]

The experiment of Gloeckle et al. 2024 (2404.19737, section 4.1) on made-up text. A document mixes
common words with two names: six to eight random letters each, fresh for every document. No other
word begins with the same two letters as a name; so, where a name comes again, its letters from the
third on follow from the context, and from nothing else. Accuracy counts those letters alone, on
unseen documents, by the next byte's head (guessing gives about 4%); bits per byte count everything.

n heads stand on a trunk of one block less, so the path to the next byte has the same parameters for
every n, and n = 1 is plain next-byte training. All share the documents of a seed, their order and
every other setting. The learning rate stays constant after its warm-up: each column of the table is
what a run of that many steps gives. Mean and standard deviation over seeds; FLOPs are those of
training, relative to n = 1.
"""

import argparse
import math

import jax
import numpy as np

from octavo import cli
from octavo.batch import FIELDS
from octavo.configs.model import ModelConfig, MTPConfig
from octavo.configs.schema import Config, DataConfig, OptimizerConfig, TrainConfig
from octavo.model import flops
from octavo.run.rows import packed_rows
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.trainer import Trainer

COMMON = b"""
the of and to in is was for on that with as it at by from his her they this had not but are or an
which one you were all she there would their we him been has when who will more no if out so up
""".split()
NAMES, SHARE = 2, 0.5
"""Names of a document; share of its words that are names."""
HEADS = (1, 2, 4, 8)
HELDOUT = 512
"""Unseen documents, the same for every method and seed."""
PARTS = 5
"""Measured after each of so many equal parts of the steps."""
TOKENIZER = ByteTokenizer()


def document(rng: np.random.Generator, size: int) -> tuple[bytes, np.ndarray]:
    """A text of ``size`` bytes, and which of them only the context tells (booleans)."""
    beginnings, names = {word[:2] for word in COMMON}, []
    while len(names) < NAMES:
        name = bytes(rng.integers(ord("a"), ord("z") + 1, rng.integers(6, 9), np.uint8))
        if name[:2] not in beginnings:
            beginnings.add(name[:2])
            names.append(name)
    text, told, seen = b"", [], set()
    while len(text) < size:
        named = rng.random() < SHARE
        words = names if named else COMMON
        word = words[rng.integers(len(words))]
        text += word + b" "
        told += [named and word in seen and i >= 2 for i in range(len(word))] + [False]
        seen.add(word)
    return text[:size], np.array(told[:size])


def documents(rng: np.random.Generator, count: int, size: int) -> tuple[list, np.ndarray]:
    """Encoded documents, and which of all their bytes only the context tells."""
    texts, told = zip(*(document(rng, size) for _ in range(count)), strict=True)
    return [TOKENIZER.encode(text) for text in texts], np.concatenate(told)


def configuration(heads: int, steps: int) -> Config:
    """The heads are the last of three blocks."""
    return Config(
        model=ModelConfig(width=64, layers=2, mtp=MTPConfig("heads", count=heads)),
        data=DataConfig(length=128, batch_size=16),
        optimizer=OptimizerConfig(learning_rate=3e-3, decay_fraction=0.0),
        train=TrainConfig(steps=steps),
    )


def curves(config: Config, seeds: int, counted: list[int]) -> np.ndarray:
    """Accuracy and bits per byte after ``counted`` steps, ``[seeds, counts, 2]``."""
    trainer = Trainer.of(config, TOKENIZER)
    rows, length = trainer.shape
    # The end of a document fills its row.
    heldout, told = documents(np.random.default_rng(1000), HELDOUT, length - 1)

    def measure(state: dict) -> tuple[float, float]:
        found = trainer.run(state).predictions(heldout, overlap=0, batch_size=rows)
        correct = np.concatenate([one.correct[:-1] for one in found])
        nats = sum(float(one.nats.sum(dtype=np.float64)) for one in found)
        return float(correct[told].mean()), nats / math.log(2) / len(told)

    def curve(seed: int) -> list[tuple[float, float]]:
        rng = np.random.default_rng(seed)
        state, found = trainer.fresh(seed), []
        for i in range(1, config.train.steps + 1):
            packed, _ = packed_rows(documents(rng, rows, length - 1)[0], TOKENIZER, length, 0)
            arrays = {name: packed[:, f] for f, name in enumerate(FIELDS)}
            state, _ = trainer.step(state, arrays)
            if i in counted:
                found.append(measure(state))
                print(
                    f"n {config.model.mtp.count}  seed {seed}  step {i}  "
                    f"accuracy {found[-1][0]:.1%}  {found[-1][1]:.3f} bits/byte", flush=True,
                )  # fmt: skip
        return found

    with jax.set_mesh(trainer.mesh):
        return np.array([curve(seed) for seed in range(seeds)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--seeds", type=int, default=3)
    a = parser.parse_args()
    counted = [a.steps * part // PARTS for part in range(1, PARTS + 1)]
    configs = {n: configuration(n, a.steps) for n in HEADS}
    costs = {
        n: flops.training_flops(config.model, TOKENIZER.vocab_size, config.data.length)
        for n, config in configs.items()
    }
    found = {n: curves(config, a.seeds, counted) for n, config in configs.items()}
    columns = [f"{count} steps" for count in counted]
    print("\n| heads | FLOPs | " + " | ".join(columns) + " | bits/byte |")
    print("|---" * (3 + len(columns)) + "|")
    for n, curve in found.items():
        mean, std = curve.mean(0), curve.std(0, ddof=int(a.seeds > 1))
        cells = [f"{m:.1%} ± {s:.1%}" for m, s in zip(mean[:, 0], std[:, 0], strict=True)]
        last = f"{mean[-1, 1]:.3f} ± {std[-1, 1]:.3f}"
        print(f"| {n} | {costs[n] / costs[1]:.1f}x | " + " | ".join(cells) + f" | {last} |")


if __name__ == "__main__":
    cli.run(main)
