"""Bytes per second of drawing text and of the codec, beside plain PyTorch with cached keys:

    python benchmarks/decoding.py [--width 128 --layers 4 --heads 4]

Same shapes, same equations, the most likely byte each time, two threads, in turns. Short and long
contexts, one row and sixteen; and the codec, a byte at a time beside PyTorch's step alone. The
ratio of time is the median over rounds. Needs PyTorch (pip install torch).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig
from octavo.decoding.sampling import Sampling, generate
from octavo.run.opened import Run
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.trainer import Trainer

CASES = ((1, 32), (16, 32), (1, 1500), (16, 1500))
"""Rows, and bytes of the prompt."""


def drawing(run: Run, prompt: np.ndarray, count: int) -> Callable[[], float]:
    """Seconds that the last ``count`` bytes take. (The first piece reads the prompt.)"""

    def measure() -> float:
        with jax.set_mesh(run.mesh):
            pieces = generate(
                run.definition.bind, run.apart, list(prompt), count + 1, sampling=Sampling(0),
                seed=0, bos_id=run.tokenizer.bos_id, eos_id=-1, marker=run.marker,
                context=run.length, chunk=count // 2,
            )  # fmt: skip
            next(pieces)
            began = time.perf_counter()
            next(pieces)
            return (time.perf_counter() - began) * count / (count // 2)

    return measure


def their_drawing(model, prompt: np.ndarray, count: int) -> Callable[[], float]:
    from torch_model import torch

    rows, length = prompt.shape

    def measure() -> float:
        with torch.inference_mode():
            # What the prompt's keys are makes no difference to the time.
            cache = model.init_cache(rows, length + count)
            tokens = torch.from_numpy(prompt[:, -1:].astype(np.int64))
            began = time.perf_counter()
            for i in range(count):
                tokens = model.extend(tokens, cache, length + i).argmax(-1, keepdim=True)
            return time.perf_counter() - began

    return measure


def coding(run: Run, text: bytes) -> Callable[[], float]:
    def measure() -> float:
        began = time.perf_counter()
        run.compress(text)
        return time.perf_counter() - began

    return measure


def their_steps(model, length: int, text: bytes) -> Callable[[], float]:
    """What their codec would need at least: the windows of ours, their probabilities as arrays."""
    from torch_model import torch

    def measure() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            at = length
            for byte in text:
                if at == length:  # the context of a window is read at once: not counted
                    cache, at = model.init_cache(1, length), length // 2 * (at > 0)
                model.extend(torch.tensor([[byte]]), cache, at).softmax(-1).numpy()
                at += 1
        return time.perf_counter() - began

    return measure


def main() -> None:
    from torch_model import TorchLM, torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("width", 128), ("layers", 4), ("heads", 4), ("count", 256),
                        ("rounds", 5)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(2)
    config = Config(
        model=ModelConfig(width=a.width, layers=a.layers, heads=a.heads),
        data=DataConfig(length=2048, batch_size=1),
    )
    trainer = Trainer.of(config, ByteTokenizer())
    with jax.set_mesh(trainer.mesh):
        run = trainer.run(trainer.fresh())
    model = TorchLM(config.model, config.data.length)
    rng = np.random.default_rng(0)
    contenders = {}
    for rows, length in CASES:
        prompt = rng.integers(97, 123, (rows, length), np.int32)
        contenders[f"drawing, {rows} x {length:,} + {a.count}"] = rows * a.count, (
            drawing(run, prompt, a.count), their_drawing(model, prompt, a.count),
        )  # fmt: skip
    text = rng.integers(97, 123, 2 * a.count, np.uint8).tobytes()
    contenders["codec"] = len(text), (
        coding(run, text), their_steps(model, config.data.length, text),
    )  # fmt: skip
    table = Table("", "octavo, bytes/s", "pytorch, bytes/s", "octavo / pytorch, time")
    for name, (size, both) in contenders.items():
        for one in both:
            one()  # compiles
        times = np.array([[one() for one in both] for _ in range(a.rounds)])
        table.add_row(
            name, *(f"{size / statistics.median(t):,.0f}" for t in times.T),
            f"{statistics.median(times[:, 0] / times[:, 1]):.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
