"""Training step time beside plain PyTorch, interleaved in one run:

    python benchmarks/step_time.py [--width 128 --layers 4 --heads 4 --length 256 --batch 16]

Same shapes, same equations, AdamW, two threads. Ours runs as in training, with segment ids;
PyTorch runs its fast causal kernel without them. Needs PyTorch (pip install torch).
"""

import argparse
import statistics
import time

import jax
import numpy as np

from octavo import cli
from octavo.batch import Batch
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig
from octavo.model.layers import Filled
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.trainer import Trainer


def ours(config: Config, batch: dict, filled: tuple[Filled, ...] | None = None):
    """filled: what a plan would tell of the slots of units."""
    trainer = Trainer.of(config, ByteTokenizer(), filled=filled)
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh()

    def run():
        nonlocal state
        with jax.set_mesh(trainer.mesh):
            state, metrics = trainer.step(state, batch)
            jax.block_until_ready(metrics)

    return run


def theirs(config: Config, batch: dict):
    from torch_model import F, TorchLM, torch

    torch.set_num_threads(2)
    model = TorchLM(config.model, config.data.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    tokens, targets = (
        torch.from_numpy(batch[name].astype(np.int64)) for name in ("tokens", "targets")
    )

    def run():
        logits = model(tokens)
        loss = F.cross_entropy(logits.view(-1, 256), targets.view(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("width", 128), ("layers", 4), ("heads", 4), ("length", 256),
                        ("batch", 16), ("rounds", 20)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    config = Config(
        model=ModelConfig(width=a.width, layers=a.layers, heads=a.heads),
        data=DataConfig(length=a.length, batch_size=a.batch),
    )
    rng = np.random.default_rng(0)
    shape = (a.batch, a.length)
    kinds = Batch.dtypes(np.uint8, a.length)
    batch = {name: np.ones(shape, kind) for name, kind in kinds.items()}
    batch |= {name: rng.integers(0, 256, shape, np.uint8) for name in ("tokens", "targets")}
    batch["positions"] *= np.arange(a.length, dtype=np.uint16)
    runs = {"octavo": ours(config, batch), "pytorch": theirs(config, batch)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(a.rounds + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if round_ >= 2:  # compilation and caches
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(t) for name, t in times.items()}
    ratios = [o / p for o, p in zip(times["octavo"], times["pytorch"], strict=True)]
    for name, seconds in medians.items():
        print(f"{name:8} {seconds * 1e3:8.1f} ms   {a.batch * a.length / seconds / 1e3:8.1f} kB/s")
    print(f"octavo / pytorch: {statistics.median(ratios):.2f}  (below 1: Octavo is faster)")


if __name__ == "__main__":
    cli.run(main)
