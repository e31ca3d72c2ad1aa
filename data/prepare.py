"""Text to shards: one shard a unit and split, on all cores, continued where it stopped."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import google_crc32c

from octavo import process
from octavo.data.errors import DataError, WorkerError
from octavo.data.marks import Marks
from octavo.data.shards import MANIFEST, SPLITS, Shard, write_manifest, write_shard
from octavo.data.sources import Skipped, Unit, documents
from octavo.tokenizers.interface import Tokenizer, fingerprint_of


def split_of(unit: Unit, document: bytes, heldout: float) -> str:
    """Where a document goes: by its content, so that copies never lie on both sides; documents of
    a prepared corpus stay where they are, so that tokenizers are compared on the same split."""
    if unit.kind == "corpus":
        return unit.paths[1]
    return "heldout" if google_crc32c.value(document) < heldout * 2**32 else "train"


def prepare(
    units: list[Unit],
    out: Path,
    tokenizer: Tokenizer,
    *,
    heldout: float,
    processes: int,
    mark: Marks | None = None,
    progress: Callable[[int, list[str]], None] = lambda units, warnings: None,
) -> None:
    """Write a corpus to ``out``; run again after a stop, it redoes only unfinished units.

    mark: gives documents their marks, in one process. progress is called with the number of
    finished units and the warnings of the newest. Raises DataError if a source is no text, or
    ``out`` holds a corpus made in another way.
    """
    out.mkdir(parents=True, exist_ok=True)
    # What the shards depend on; a continued run must agree with it.
    recipe = {
        "tokenizer": tokenizer.fingerprint,
        "heldout": heldout,
        "marks": mark and mark.description,
        "units": fingerprint_of(repr([(unit, _stamps(unit)) for unit in units]).encode()),
    }
    if (out / MANIFEST).exists():
        raise DataError(f"{out} holds a finished corpus already. Choose another --out.")
    recipe_file = out / "recipe.json"
    if recipe_file.exists() and json.loads(recipe_file.read_text()) != recipe:
        raise DataError(
            f"{out} holds a corpus begun from other sources, options or file versions. Delete it "
            "or choose another --out."
        )
    recipe_file.write_text(json.dumps(recipe))

    jobs = [(unit, i, out, tokenizer, heldout, mark) for i, unit in enumerate(units)]
    results: dict[int, dict] = {}
    for done, (index, result) in enumerate(_run(jobs, 1 if mark else processes), 1):
        results[index] = result
        progress(done, result["warnings"])
    shards = {
        split: [Shard(**results[i][split]) for i in sorted(results) if results[i].get(split)]
        for split in SPLITS
    }
    if not shards["train"]:
        raise DataError("the sources hold no text to train on.")
    write_manifest(out, tokenizer, shards, {"units": len(units), **recipe}, recipe["marks"])
    for path in [recipe_file, *out.glob("unit-*.json")]:
        path.unlink()


def _run(jobs: list, processes: int) -> Iterable[tuple[int, dict]]:
    if processes <= 1 or len(jobs) == 1:
        yield from map(_prepare_unit, jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # forking a process with threads can deadlock
    others = set(multiprocessing.active_children())
    with process.deaf(signal.SIGINT, signal.SIGHUP):  # the parent answers for them
        pool = concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=spawn, initializer=process.end_with_parent
        )
        futures = [pool.submit(_prepare_unit, job) for job in jobs]
    with pool:
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException as error:
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()  # a unit is whole or not there
            pool.shutdown(cancel_futures=True)
            if isinstance(error, concurrent.futures.BrokenExecutor):
                raise WorkerError.killed("--processes") from error
            raise


def _stamps(unit: Unit) -> list:
    if unit.kind not in ("text", "jsonl"):
        return []
    return [(s.st_size, s.st_mtime_ns) for s in map(os.stat, unit.paths)]


def _prepare_unit(job) -> tuple[int, dict]:
    unit, index, out, tokenizer, heldout, mark = job
    report = out / f"unit-{index:05d}.json"
    if report.exists():
        return index, json.loads(report.read_text())
    texts: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    warnings = []
    for document in documents(unit):
        if isinstance(document, Skipped):
            warnings.append(document.reason)
        elif document:
            split = split_of(unit, document, heldout)
            texts[split].append(document)
    result: dict = {"warnings": warnings}
    for split in SPLITS:
        if texts[split]:
            ids = [tokenizer.encode(document) for document in texts[split]]
            marks = mark(texts[split], ids) if mark else None
            file, size = f"{split}-{index:05d}.array_record", sum(map(len, texts[split]))
            shard = write_shard(out, file, ids, tokenizer.eos_id, size, marks)
            result[split] = dataclasses.asdict(shard)
    partial = report.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    os.replace(partial, report)
    return index, result
