"""Text to shards: one shard a unit and split, on all cores, continued where it stopped."""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from octavo import files, process
from octavo.data import checked
from octavo.data.errors import DataError, WorkerError
from octavo.data.manifest import (
    MANIFEST,
    RECIPE,
    SPLITS,
    Manifest,
    Shard,
    SplitName,
    read_manifest,
    write_manifest,
)
from octavo.data.marks import Marks
from octavo.data.records import Skipped
from octavo.data.shards import Corpus, ShardWriter
from octavo.data.sources import UNIT_BYTES, Unit, documents
from octavo.tokenizers.interface import Tokenizer, fingerprint_of

_WARNINGS = 20
"""Sentences kept of a unit; all are counted."""


@dataclass(frozen=True)
class Prepared:
    """What became of a corpus."""

    remade: int | None
    """Units that were made anew because their shards were missing or damaged; None: it was not
    finished before."""
    left_out: Counter
    """Files and records that gave no document, by kind."""


@dataclass
class UnitReport:
    """What a finished unit gave."""

    warnings: list[str] = field(default_factory=list)
    train: Shard | None = None
    heldout: Shard | None = None
    left_out: dict[str, int] = field(default_factory=dict)


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
) -> Prepared:
    """Write a corpus to ``out``; run again after a stop, it redoes only unfinished units, and of a
    finished one those whose shards are missing or damaged.

    mark: gives documents their marks, in one process. progress is called with the number of
    finished units and the warnings of the newest. Raises DataError if a source is no text, or
    ``out`` holds a corpus made in another way; OSError if something cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    _clean_halves(out)
    # What the shards depend on; a continued run must agree with it.
    recipe = {
        "tokenizer": tokenizer.fingerprint,
        "heldout": heldout,
        "marks": mark and mark.description,
        "units": fingerprint_of(repr([(unit, _stamps(unit)) for unit in units]).encode()),
    }
    jobs = [(unit, i, out, tokenizer, heldout, mark) for i, unit in enumerate(units)]
    processes = 1 if mark else processes
    if (out / MANIFEST).exists():
        return _mend(jobs, read_manifest(out), recipe, processes, progress)
    _check_recipe(out, recipe)

    results: dict[int, UnitReport] = {}
    for done, (index, result) in enumerate(_run(jobs, processes), 1):
        results[index] = result
        progress(done, result.warnings)
    ordered = [results[i] for i in sorted(results)]
    shards: dict[SplitName, list[Shard]] = {
        split: [getattr(result, split) for result in ordered if getattr(result, split)]
        for split in SPLITS
    }
    left_out = sum((Counter(result.left_out) for result in ordered), Counter())
    if not shards["train"]:
        raise DataError("the sources hold no text to train on.")
    write_manifest(out, tokenizer, shards, {"units": len(units), **recipe}, recipe["marks"])
    _clean(out)
    return Prepared(None, left_out)


def _check_recipe(out: Path, recipe: dict) -> None:
    """Keep what the shards depend on, or compare it with what was kept."""
    kept = out / RECIPE
    if not kept.exists():
        files.write_json(kept, recipe)
        return
    begun = files.read_json(
        kept, dict[str, Any], error=DataError, advice=f"Delete {out} or choose another --out."
    )
    if begun != recipe:
        raise DataError(
            f"{out} holds a corpus begun from other sources, options or file versions. Delete it "
            "or choose another --out."
        )


def _mend(
    jobs: list, manifest: Manifest, recipe: dict, processes: int, progress: Callable
) -> Prepared:
    """Make anew what is missing or damaged of a finished corpus."""
    out = jobs[0][2]
    if manifest.source | recipe != manifest.source:
        raise DataError(
            f"{out} holds a finished corpus already, made from other sources, options or file "
            "versions. Choose another --out."
        )
    listed = [shard for split in manifest.splits.values() for shard in split.shards]
    bad = {shard.file for shard in listed if not _whole(out, shard)}
    names = {i: {f"{split}-{i:05d}.array_record" for split in SPLITS} for _, i, *_ in jobs}
    again = [job for job in jobs if names[job[1]] & bad]
    expected = {shard.file: shard for shard in listed}
    for done, (index, result) in enumerate(_run(again, processes), 1):
        for file in names[index] & set(expected):
            made = [shard for shard in (result.train, result.heldout) if shard]
            if expected[file] not in made:
                raise DataError(
                    f"the sources no longer give what {out / file} held. Restore the file, or "
                    "delete the folder and prepare it again."
                )
        progress(done, result.warnings)
    _clean(out)
    return Prepared(len(again), Counter())


def _whole(out: Path, shard: Shard) -> bool:
    path = out / shard.file
    return (
        path.is_file()
        and path.stat().st_size == shard.size
        and checked.checksum(path) == shard.crc32c
    )


def _clean(out: Path) -> None:
    """Take away what only an unfinished corpus needs."""
    for path in [out / RECIPE, *out.glob("unit-*.json")]:
        path.unlink(missing_ok=True)
    _clean_halves(out)


def _clean_halves(out: Path) -> None:
    """Take away files that processes which are gone left half-written."""
    for path in out.glob("*.partial"):
        owner = path.name.split(".")[-2]
        if path.is_file() and not (owner.isdigit() and process.alive(int(owner))):
            path.unlink(missing_ok=True)


def _run(jobs: list, processes: int) -> Iterable[tuple[int, UnitReport]]:
    if processes <= 1 or len(jobs) <= 1:
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
    if unit.kind == "corpus":
        return [Corpus(*unit.paths).fingerprint]
    if unit.kind in ("tfds", "stdlib"):
        return []
    return [(s.st_size, s.st_mtime_ns) for s in map(os.stat, unit.paths)]


def _prepare_unit(job) -> tuple[int, UnitReport]:
    unit, index, out, tokenizer, heldout, mark = job
    report = out / f"unit-{index:05d}.json"
    finished = _finished(out, report)
    if finished:
        return index, finished
    result = UnitReport()
    writers = {
        split: _Split(ShardWriter(out, f"{split}-{index:05d}.array_record", tokenizer, bool(mark)),
                      tokenizer, mark)
        for split in SPLITS
    }  # fmt: skip
    counts: Counter = Counter()
    try:
        for document in documents(unit):
            if isinstance(document, Skipped):
                counts[document.kind] += 1
                if counts.total() <= _WARNINGS:
                    result.warnings.append(document.reason)
            elif document:
                writers[split_of(unit, document, heldout)].add(document)
        for split in SPLITS:
            setattr(result, split, writers[split].close())
    except ValueError as error:  # of a tokenizer
        raise DataError(f"{', '.join(unit.paths):.200}: {error}.") from error
    finally:
        for split in SPLITS:
            writers[split].shard.discard()
    if counts.total() > _WARNINGS:
        result.warnings.append(f"and {counts.total() - _WARNINGS:,} more of the same part")
    result.left_out = dict(counts)
    files.write_json(report, dataclasses.asdict(result))
    return index, result


def _finished(out: Path, report: Path) -> UnitReport | None:
    """What a unit gave, if its shards are there and whole."""
    if not report.exists():
        return None
    try:
        result = files.read_json(report, UnitReport)
    except files.FileError:  # not whole: make the unit again
        return None
    shards = [shard for shard in (result.train, result.heldout) if shard]
    return result if all(_whole(out, shard) for shard in shards) else None


class _Split:
    """Documents of one split of a unit on their way to its shard; those that are marked wait until
    there are many, because a model marks them together."""

    def __init__(self, shard: ShardWriter, tokenizer: Tokenizer, mark: Marks | None):
        self.shard, self.tokenizer, self.mark = shard, tokenizer, mark
        self.waiting: list[bytes] = []
        self.size = 0

    def add(self, document: bytes) -> None:
        if not self.mark:
            self.shard.add(self.tokenizer.encode(document), len(document))
            return
        self.waiting.append(document)
        self.size += len(document)
        if self.size > 2 * UNIT_BYTES:
            self._flush()

    def _flush(self) -> None:
        assert self.mark is not None, "only what is marked waits"
        encoded = [self.tokenizer.encode(document) for document in self.waiting]
        marked = self.mark(self.waiting, encoded)
        for document, ids, marks in zip(self.waiting, encoded, marked, strict=True):
            self.shard.add(ids, len(document), marks)
        self.waiting, self.size = [], 0

    def close(self) -> Shard | None:
        """The finished shard; None if there was no document."""
        if self.waiting:
            self._flush()
        return self.shard.close() if self.shard.tokens else None
