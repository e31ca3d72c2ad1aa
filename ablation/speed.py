"""How fast arms train and decode, side by side in one process: everything is compiled first, then
they take turns, so that what else the machine does slows all of them alike."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from octavo.configs.schema import Config
from octavo.decoding import sampling
from octavo.run.directory import read_config
from octavo.run.mirror import fetched
from octavo.run.opened import Run, open_run
from octavo.training.evaluation import PROMPT
from octavo.training.trainer import Trainer

BATCHES = 4
"""Of an arm's own data, over and over: reading them is no part of a step."""
DECODED_BYTES = 256
"""Of a continuation, about: as many ids as stand for so many."""
_CHUNK = 32
_WARM = 2
"""Steps, and continuations, before any is timed: they compile."""


def measure_speed(
    runs: list[tuple[str, str | None, str | Path]],
    rounds: int = 3,
    seconds: float = 2.0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """What speed.json says: bytes per second of each arm in training and in decoding, one of each
    per round.

    runs: name and size of each arm, and one of its runs. In each round every arm trains for about
    so many seconds, and decodes for as many. say: is told how far it is. Raises as ``open_run`` and
    ``Trainer.of``.
    """
    arms = []
    for i, (arm, size, folder) in enumerate(runs, 1):
        name = arm if size is None else f"{arm} {size}"
        say(f"timing {i} of {len(runs)} arms: {name} is compiled, to train and to decode")
        arms.append((arm, size, *_ready(str(folder))))
    found = [
        {"arm": arm, "size": size, "train_bytes_per_second": [], "decode_bytes_per_second": []}
        for arm, size, _, _ in arms
    ]
    for i in range(rounds):
        say(f"timing round {i + 1} of {rounds}: all arms, in turn")
        order = range(len(arms)) if i % 2 == 0 else reversed(range(len(arms)))
        for k in order:
            _, _, train, decode = arms[k]
            found[k]["train_bytes_per_second"].append(_rate(train, seconds))
            found[k]["decode_bytes_per_second"].append(_rate(decode, seconds))
    return {"device": str(jax.devices()[0].device_kind), "rounds": rounds, "arms": found}


def _ready(folder: str) -> tuple[Callable[[], float], Callable[[], float]]:
    """What trains an arm for a step, and what decodes a continuation, both compiled: each returns
    bytes of text."""
    with fetched(folder, arrays=False) as here:
        config = read_config(here)
    trainer = Trainer.of(_alone(config))
    works = _training(trainer), _decoding(open_run(folder), trainer.bytes_per_id)
    for work in works:
        for _ in range(_WARM):
            work()
    return works


def _alone(config: Config) -> Config:
    """The same training without what it begins with, and without processes that read."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, init_from=None),
        data=dataclasses.replace(config.data, workers=0),
    )


def _training(trainer: Trainer) -> Callable[[], float]:
    """Steps from the beginning, on the arm's own data."""
    with jax.set_mesh(trainer.mesh):
        few = [trainer.place(batch) for batch in trainer.batches(steps=BATCHES)]
        state = trainer.fresh()
    batches = itertools.cycle(few)

    def step() -> float:
        nonlocal state
        with jax.set_mesh(trainer.mesh):
            state, metrics = trainer.step(state, next(batches))
            return float(metrics["bytes"])

    return step


def _decoding(run: Run, bytes_per_id: float) -> Callable[[], float]:
    """Continuations of one document, an id at a time: no drafter. An end of the document is an id
    like any other, so that each is as long."""
    tokenizer, seeds = run.tokenizer, itertools.count()
    count = math.ceil(DECODED_BYTES / bytes_per_id / _CHUNK) * _CHUNK
    prompt, sizes = tokenizer.encode(PROMPT.encode()), tokenizer.bytes_per_id()

    def decode() -> float:
        with jax.set_mesh(run.mesh):
            pieces = sampling.generate(
                run.definition.bind, run.params, [prompt], count, sampling=sampling.Sampling(),
                seed=next(seeds), bos_id=tokenizer.bos_id, eos_id=-1, marker=run.marker,
                context=run.length, chunk=_CHUNK,
            )  # fmt: skip
            return float(sum(sizes[piece[0]].sum() for piece in pieces))

    return decode


def _rate(work: Callable[[], float], seconds: float) -> float:
    """Bytes per second over about so many seconds."""
    began, size = time.perf_counter(), 0.0
    while True:
        size += work()
        if (elapsed := time.perf_counter() - began) >= seconds:
            return size / elapsed
