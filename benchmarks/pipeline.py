"""Host batches per second on one core, side by side over the same shards:

    python benchmarks/pipeline.py

Ours (concat and best fit), a plain Grain pipeline (ConcatThenSplit, then batch), and a bare copy of
random crops from a memory map. MB of text for a second of the core's time; every contender runs in
turn, several rounds.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs.schema import DataConfig
from octavo.data.pipeline import batches, make_plan
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units, stdlib_documents
from octavo.tokenizers.bytes import ByteTokenizer

BATCH_BYTES = 1 << 18
ROUNDS, ROUND_SECONDS = 5, 1.0


def ours(folder: str, packing: str, length: int) -> Iterator:
    config = DataConfig(
        source=folder, length=length, batch_size=BATCH_BYTES // length, packing=packing
    )
    rows = np.arange(config.batch_size)
    return batches(make_plan(config, 0), rows, first_step=0, steps=10**6, workers=0)


class Documents(grain.sources.RandomAccessDataSource):
    """One document per element, as plain Grain pipelines read them."""

    def __init__(self, folder: str):
        self.corpus = Corpus(folder)
        self.edges = np.append(0, self.corpus.document_ends())

    def __len__(self):
        return len(self.edges) - 1

    def __getitem__(self, i):
        ids = np.empty(self.edges[i + 1] - self.edges[i], self.corpus.dtype)
        self.corpus.read(int(self.edges[i]), int(self.edges[i + 1]), ids)
        return {"tokens": ids}


def plain_grain(folder: str, length: int) -> Iterator:
    documents = grain.MapDataset.source(Documents(folder)).shuffle(0).repeat().to_iter_dataset()
    packed = grain.experimental.ConcatThenSplitIterDataset(
        documents, length_struct={"tokens": length}
    )
    return iter(packed.batch(BATCH_BYTES // length))


def bare_copy(folder: str, length: int) -> Iterator:
    text = np.memmap(next(Path(folder).glob("train-*")), np.uint8)
    rng = np.random.default_rng(0)
    batch = np.empty((BATCH_BYTES // length, length + 1), np.uint8)
    while True:
        for row, start in enumerate(rng.integers(0, len(text) - length - 1, len(batch))):
            batch[row] = text[start : start + length + 1]
        yield batch


def measure(streams: dict[str, Iterator]) -> dict[str, float]:
    for stream in streams.values():
        next(stream)
    speeds: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(ROUNDS):
        for name, stream in streams.items():
            began, count = time.process_time(), 0
            while (elapsed := time.process_time() - began) < ROUND_SECONDS:
                next(stream)
                count += 1
            speeds[name].append(count * BATCH_BYTES / elapsed / 1e6)
    return {name: statistics.median(values) for name, values in speeds.items()}


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # threads started from here inherit it
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(Path(temporary) / "corpus")
        text = Path(temporary) / "text"
        text.mkdir()
        documents = list(stdlib_documents())
        for i in range(25 * len(documents)):  # about 60 MB, from bytes to tens of kilobytes each
            (text / f"{i:06}.txt").write_bytes(documents[i % len(documents)])
        units = find_units([str(text)], "text", None)
        prepare(units, Path(folder), ByteTokenizer(), heldout=0, processes=1)
        table = Table("contender", "length", "MB/s", "of a bare copy", "x plain Grain")
        for length in (512, 4096):
            speeds = measure({
                "octavo, concat": ours(folder, "concat", length),
                "octavo, best fit": ours(folder, "best_fit", length),
                "plain Grain": plain_grain(folder, length),
                "bare copy": bare_copy(folder, length),
            })  # fmt: skip
            for name, speed in speeds.items():
                table.add_row(
                    name, str(length), f"{speed:,.0f}", f"{speed / speeds['bare copy']:.0%}",
                    f"{speed / speeds['plain Grain']:.1f}",
                )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
