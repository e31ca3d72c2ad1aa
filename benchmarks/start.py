"""What it takes to start on a corpus of many documents, by one process or several at once:

    python benchmarks/start.py --documents 1_000_000_000 --processes 4

The corpus is invented: a manifest, an index of documents, and shards that are holes in files, as a
start reads nothing of them. Of each process: seconds to open and to plan it, memory that is its own
(the mapped index is shared), and bytes of the plan that a worker process is sent. What is not in
the page cache is read from disk: the index is 4 bytes a document.
"""

import multiprocessing
import pickle
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs.schema import DataConfig
from octavo.data.index import write
from octavo.data.manifest import Shard, write_manifest
from octavo.data.pipeline import make_plan
from octavo.data.shards import index_about, index_file
from octavo.tokenizers.bytes import ByteTokenizer


@dataclass(frozen=True)
class Arguments:
    documents: int = 1_000_000
    mean: int = 500
    """Ids of a document."""
    shard_ids: int = 64 << 20
    length: int = 4096
    processes: int = 1
    folder: Path | None = None
    """Where the corpus lies, or is made; None: it is temporary."""


def invent(arguments: Arguments, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, arguments.shard_ids // arguments.mean)

    def lengths(i: int) -> np.ndarray:
        size = min(each, arguments.documents - i * each)
        rng = np.random.default_rng(i)
        return rng.integers(1, 2 * arguments.mean, size, dtype=np.uint32)

    shards = []
    for i in range(-(-arguments.documents // each)):
        here = lengths(i)
        tokens = int(here.sum(dtype=np.int64))
        shards.append(Shard(f"train-{i:05}.array_record", tokens, f"{i:08x}", len(here), tokens,
                            tokens - len(here)))  # fmt: skip
        with open(folder / shards[-1].file, "wb") as file:
            file.truncate(tokens)
    about = index_about(tuple(shards))
    nothing = np.zeros(0, np.uint16)
    write(folder / index_file("train"), *about, ((lengths(i), nothing) for i in range(len(shards))))
    write_manifest(folder, ByteTokenizer(), {"train": shards}, {}, None)


def start(folder: Path, packing: str, length: int, results) -> None:
    config = DataConfig(source=str(folder), length=length, batch_size=256, packing=packing)
    began = time.perf_counter()
    plan = make_plan(config, 0)
    plan.orders[0].strategy.chunk(int(plan.orders[0].window(0, 0, 0).chunks[0]))
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    own = int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) >> 10
    mapped = int(re.findall(r"RssFile:\s+(\d+)", status)[0]) >> 10
    results.put((seconds, own, mapped, len(pickle.dumps(plan)) / 1e6, plan.rows_per_epoch))


def main() -> None:
    arguments = tyro.cli(Arguments)
    spawn = multiprocessing.get_context("spawn")
    table = Table("packing", "start", "s (slowest)", "MiB own", "MiB mapped", "MB sent", "rows")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "manifest.json").exists():
            began = time.perf_counter()
            invent(arguments, folder)
            Console().print(f"invented in {time.perf_counter() - began:.0f} s")
        for packing in ("concat", "best_fit"):
            for which in ("first", "second"):
                results = spawn.Queue()
                about = folder, packing, arguments.length, results
                running = [spawn.Process(target=start, args=about)
                           for _ in range(arguments.processes)]  # fmt: skip
                for process in running:
                    process.start()
                found = [results.get() for _ in running]
                for process in running:
                    process.join()
                worst = np.max(found, axis=0)
                table.add_row(packing, which, f"{worst[0]:.2f}", *(f"{x:,.0f}" for x in worst[1:3]),
                              f"{worst[3]:.2f}", f"{worst[4]:,.0f}")  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
