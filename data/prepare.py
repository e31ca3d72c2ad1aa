"""Text to shards: one shard a unit and split, on all cores, continued where it stopped."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from octavo import files, process
from octavo.data import checked, copies
from octavo.data.errors import DataError, WorkerError
from octavo.data.manifest import (
    MANIFEST,
    MOST_LABELS,
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
from octavo.data.shards import Corpus, ShardWriter, has_index, too_many_labels, write_index
from octavo.data.sources import UNIT_BYTES, Unit, documents
from octavo.data.split import (
    TOLD,
    Rule,
    Sketches,
    expected,
    look_through,
    merged,
    rule_of,
    small,
    strata_of,
)
from octavo.tokenizers.interface import Tokenizer, fingerprint_of

_WARNINGS = 3
"""Sentences kept of a unit and kind; all are counted."""
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``of`` parts of a corpus, which machines prepare side by side: every
    ``of``-th unit."""

    number: int = 1
    of: int = 1

    def has(self, unit: int) -> bool:
        return unit % self.of == self.number - 1

    def units(self, count: int) -> list[int]:
        """Of so many: its own, then those of others."""
        return sorted(range(count), key=lambda unit: not self.has(unit))


WHOLE = Part()


@dataclass(frozen=True)
class Prepared:
    """What became of a corpus."""

    remade: int | None
    """Units that were made anew because their shards were missing or damaged; None: it was not
    finished before."""
    left_out: Counter
    """Files and records that gave no document, by kind."""
    earlier: bool = False
    """It was begun by an earlier revision, and keeps its split, without labels."""
    copies: int | None = None
    """Documents that are exact copies of another one; None: nobody counted."""
    waiting: Mapping[int, int] = field(default_factory=dict)
    """Units that are missing or damaged, by the number of their part. Some: it is not finished."""


@dataclass
class UnitReport:
    """What a finished unit gave."""

    warnings: list[str] = field(default_factory=list)
    train: Shard | None = None
    heldout: Shard | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    documents: int | None = None
    """Whose hashes lie beside the report; None: an earlier revision made it."""


Progress = Callable[[int, list[str]], None]
"""Told the number of finished units, and the warnings of the newest."""


class Splitting:
    """What is held out of some units, found out when it is first asked for.

    share: of bytes. folder: of the corpus; until that is finished, it keeps what was found of each
    unit, so that a later call need not look again. by_chance: decide by the checksums alone, as
    earlier revisions did and the embedded corpus does.
    """

    def __init__(
        self,
        units: list[Unit],
        share: float,
        folder: Path,
        processes: int = 1,
        progress: Progress = lambda units, warnings: None,
        by_chance: bool = False,
        part: Part = WHOLE,
        run: "Runner | None" = None,
    ):
        self.units, self.share, self.folder = units, share, folder
        self.progress, self.by_chance, self.part = progress, by_chance, part
        self.run = run or on_processes(processes)

    @cached_property
    def rule(self) -> Rule:
        """Raises DataError if the text is too small to hold any of it out."""
        if self.by_chance or not self.share:
            return Rule(self.share)
        strata = strata_of(self.units, self.share)
        chosen = small(self.units, strata, self.share)
        kept = None if (self.folder / MANIFEST).exists() else self.folder
        # Those of other parts last: by then they have mostly looked themselves.
        order = self.part.units(len(self.units))
        jobs = [(self.units[i], i, kept, strata[i]) for i in order if chosen[i]]
        if not jobs:
            return Rule(self.share)
        self.folder.mkdir(parents=True, exist_ok=True)
        found: dict[int, Sketches] = {}
        for done, (index, sketches) in enumerate(self.run(_look, jobs), 1):
            found[index] = sketches
            self.progress(done + len(self.units) - len(jobs), [])
        merged_strata = merged(found[i] for i in sorted(found))
        if sum(name.startswith(TOLD) for name in merged_strata) > MOST_LABELS:
            raise too_many_labels()
        rule = rule_of(merged_strata, self.share)
        documents = sum(sketch.documents for sketch in merged_strata.values())
        if documents and len(jobs) == len(self.units) and not expected(merged_strata, rule):
            size = sum(sketch.size for sketch in merged_strata.values())
            for path in self.folder.glob("look-*.json"):
                path.unlink()
            raise DataError(
                f"the text is too small to hold any of it out for the score ({documents:,} "
                f"documents of {size:,} bytes): add more, or hold out nothing with --heldout 0."
            )
        return rule


def _look(job) -> tuple[int, Sketches]:
    """The strata of a unit, remembered in the folder of the corpus if there is one."""
    unit, index, folder, names = job
    if folder is None:
        return index, look_through(unit, names)
    kept = folder / f"look-{index:05d}.json"
    key = fingerprint_of(repr((unit, unit.label_field, names, _stamps(unit))).encode())
    with contextlib.suppress(OSError, files.FileError):
        before = files.read_json(kept, _Look)
        if before.of == key:
            return index, before.strata
    found = look_through(unit, names)
    files.write_json(kept, dataclasses.asdict(_Look(key, found)))
    return index, found


@dataclass(frozen=True)
class _Look:
    of: str
    strata: Sketches


def prepare(
    units: list[Unit],
    out: Path,
    tokenizer: Tokenizer,
    *,
    heldout: float | Splitting,
    processes: int,
    mark: Marks | None = None,
    progress: Progress = lambda units, warnings: None,
    part: Part = WHOLE,
    run: "Runner | None" = None,
) -> Prepared:
    """Write a corpus to ``out``; run again after a stop, it redoes only unfinished units, and of a
    finished one those whose shards are missing or damaged.

    heldout: the share of bytes that is held out. mark: gives documents their marks, in one process.
    part: prepares only that; the last one finishes the corpus, which is the same for any parts.
    run: does the work; None: so many processes.
    Raises DataError if a source is no text, or ``out`` holds a corpus made in another way; OSError
    if something cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    _clean_halves(out, part)
    run, splitting = run or on_processes(1 if mark else processes), heldout
    if not isinstance(splitting, Splitting):
        splitting = Splitting(units, splitting, out, part=part, run=run)
    stamps = [_stamps(unit) for unit in units]
    recipe = _recipe(units, stamps, tokenizer, splitting, mark)
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        splitting = _as_begun(splitting, recipe, manifest.source)
        about = out, splitting, stamps, tokenizer, mark, manifest, recipe, run, progress
        return _mend(*about, part)
    begun = _begun(out, recipe)
    splitting, earlier = _as_begun(splitting, recipe, begun), begun != recipe
    jobs = _jobs(splitting, stamps, out, tokenizer, mark)
    files.write_json(out / RECIPE, begun)

    results: dict[int, UnitReport] = {}
    mine = [job for job in jobs if part.has(job[1])]
    for done, (index, result) in enumerate(run(_prepare_unit, mine), 1):
        results[index] = result
        progress(done, result.warnings)
    others = [(out, i) for i in range(len(jobs)) if not part.has(i)]
    found = dict(run(_report, others))
    waiting = Counter(i % part.of + 1 for i, result in found.items() if result is None)
    if waiting and not (out / MANIFEST).exists():  # else another part was the last one, too
        return Prepared(None, Counter(), earlier, waiting=waiting)
    mended = functools.partial(
        prepare, units, out, tokenizer,
        heldout=splitting, processes=processes, mark=mark, part=part, run=run,
    )  # fmt: skip
    if waiting:
        return mended()
    results |= {i: result for i, result in found.items() if result is not None}
    ordered = [results[i] for i in sorted(results)]
    shards: dict[SplitName, list[Shard]] = {
        split: [getattr(result, split) for result in ordered if getattr(result, split)]
        for split in SPLITS
    }
    left_out = sum((Counter(result.left_out) for result in ordered), Counter())
    if not shards["train"]:
        raise DataError("the sources hold no text to train on.")
    copied = None
    if all(result.documents is not None for result in ordered):
        try:
            copied = copies.count(out / _hashes(i) for i in sorted(results))
        except FileNotFoundError:
            if not (out / MANIFEST).exists():
                raise
            return mended()  # another part was the last one, too, and has taken them away
    source = {"units": len(units), **begun}
    if copied is not None and "split" in begun:  # others are as earlier revisions made them
        source["copies"] = copied
    write_index(out, "train", shards["train"], recipe["marks"])
    write_manifest(out, tokenizer, shards, source, recipe["marks"])
    _clean(out, WHOLE)
    return Prepared(None, left_out, earlier, copied)


def _recipe(
    units: list[Unit],
    stamps: list[list],
    tokenizer: Tokenizer,
    splitting: Splitting,
    mark: Marks | None,
) -> dict:
    """What the shards depend on; a continued run must agree with it."""
    recipe = {
        "tokenizer": tokenizer.fingerprint,
        "heldout": splitting.share,
        "marks": mark and mark.description,
        "units": fingerprint_of(repr([*zip(units, stamps, strict=True)]).encode()),
    }
    if not splitting.by_chance:
        labels = [(unit.labels, unit.label_field) for unit in units]
        recipe |= {"split": 2, "labels": fingerprint_of(repr(labels).encode())}
    return recipe


_NEW = ("split", "labels")
"""Of a recipe: what earlier revisions did not have, nor has what is split by chance."""


def _of_chance(recipe: dict) -> dict:
    return {name: value for name, value in recipe.items() if name not in _NEW}


def _as_begun(splitting: Splitting, recipe: dict, begun: dict) -> Splitting:
    """As the corpus was begun: one of an earlier revision goes on with its split, and without
    labels."""
    if "split" in begun or "split" not in recipe:
        return splitting
    units = [dataclasses.replace(unit, labels=(), label_field=None) for unit in splitting.units]
    return Splitting(units, splitting.share, splitting.folder, by_chance=True)


def _jobs(
    splitting: Splitting, stamps: list[list], out: Path, tokenizer: Tokenizer, mark: Marks | None
) -> list:
    return [
        (unit, i, stamp, out, tokenizer, splitting.rule, mark)
        for i, (unit, stamp) in enumerate(zip(splitting.units, stamps, strict=True))
    ]


def _begun(out: Path, recipe: dict) -> dict:
    """The recipe that an unfinished corpus was begun with, which must agree."""
    kept = out / RECIPE
    if not kept.exists():
        return recipe
    begun = files.read_json(
        kept, dict[str, Any], error=DataError, advice=f"Delete {out} or choose another --out."
    )
    if begun not in (recipe, _of_chance(recipe)):
        raise DataError(
            f"{out} holds a corpus begun from other sources, options or file versions. Delete it "
            "or choose another --out."
        )
    return begun


def _mend(
    out: Path,
    splitting: Splitting,
    stamps: list[list],
    tokenizer: Tokenizer,
    mark: Marks | None,
    manifest: Manifest,
    recipe: dict,
    run: "Runner",
    progress: Progress,
    part: Part,
) -> Prepared:
    """Make anew what is missing or damaged of a finished corpus, or of a part of it."""
    same = recipe if "split" in manifest.source else _of_chance(recipe)
    if manifest.source | same != manifest.source:
        raise DataError(
            f"{out} holds a finished corpus already, made from other sources, options or file "
            "versions. Choose another --out."
        )
    listed = [shard for split in manifest.splits.values() for shard in split.shards]
    names = [
        {f"{split}-{i:05d}.array_record" for split in SPLITS} for i in range(len(splitting.units))
    ]
    mine = {file for i, files_of in enumerate(names) if part.has(i) for file in files_of}
    bad = {shard.file for shard in listed if shard.file in mine and not _whole(out, shard)}
    again = []
    if bad:
        jobs = _jobs(splitting, stamps, out, tokenizer, mark)
        again = [job for job, files_of in zip(jobs, names, strict=True) if files_of & bad]
    before = {shard.file: shard for shard in listed}
    for done, (index, result) in enumerate(run(_prepare_unit, again), 1):
        for file in names[index] & set(before):
            made = [shard for shard in (result.train, result.heldout) if shard]
            if before[file] not in made:
                raise DataError(
                    f"the sources no longer give what {out / file} held. Restore the file, or "
                    "delete the folder and prepare it again."
                )
        progress(done, result.warnings)
    if not has_index(out, "train", manifest.splits["train"].shards):
        write_index(out, "train", manifest.splits["train"].shards, manifest.marks)
    _clean(out, part)
    return Prepared(len(again), Counter(), same != recipe, manifest.source.get("copies"))


def _whole(out: Path, shard: Shard) -> bool:
    path = out / shard.file
    return (
        path.is_file()
        and path.stat().st_size == shard.size
        and checked.checksum(path) == shard.crc32c
    )


def _clean(out: Path, part: Part) -> None:
    """Take away what only an unfinished corpus needs."""
    for pattern in (RECIPE, "unit-*.json", "unit-*.hashes", "look-*.json"):
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)
    _clean_halves(out, part)


def _clean_halves(out: Path, part: Part) -> None:
    """Take away files that processes which are gone left half-written; beside other parts, whose
    processes may run elsewhere, shards of this one."""
    for path in out.glob("*.partial"):
        owner, unit = path.name.split(".")[-2], re.match(r"\w+-(\d+)\.array_record", path.name)
        mine = part is WHOLE or (unit is not None and part.has(int(unit[1])))
        if mine and path.is_file() and not (owner.isdigit() and process.alive(int(owner))):
            path.unlink(missing_ok=True)


class Runner(Protocol):
    """Gives what is made of each job, in any order."""

    def __call__(self, work: Callable[[Any], T], jobs: list, /) -> Iterable[T]: ...


def on_processes(processes: int) -> Runner:
    """So many of this machine."""
    return functools.partial(_run, processes=processes)


def _run(work: Callable[[Any], T], jobs: list, processes: int) -> Iterable[T]:
    if processes <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # forking a process with threads can deadlock
    others = set(multiprocessing.active_children())
    with process.deaf(signal.SIGINT, signal.SIGHUP):  # the parent answers for them
        pool = concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=spawn, initializer=process.end_with_parent
        )
        futures = [pool.submit(work, job) for job in jobs]
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
    unit, index, stamps, out, tokenizer, rule, mark = job
    finished = _report((out, index))[1]
    if finished:
        return index, finished
    result, hashes = UnitReport(), []
    writers = {
        split: _Split(ShardWriter(out, f"{split}-{index:05d}.array_record", tokenizer, bool(mark)),
                      tokenizer, mark, split == "train")
        for split in SPLITS
    }  # fmt: skip
    counts: Counter = Counter()
    try:
        for document in documents(unit):
            if isinstance(document, Skipped):
                counts[document.kind] += 1
                if counts[document.kind] <= _WARNINGS:
                    result.warnings.append(document.reason)
            elif document:
                hashes.append(copies.hash_of(document))
                for split, part in zip(SPLITS, rule.split(unit, document), strict=True):
                    if part:
                        writers[split].add(part, document.label)
        for path, before, after in zip(unit.paths, stamps, _stamps(unit), strict=False):
            if before != after:  # the shards are not what the recipe says
                raise DataError(
                    f"{path} changed while it was read. Delete {out}: the same command prepares it "
                    "again."
                )
        for split in SPLITS:
            setattr(result, split, writers[split].close())
    except ValueError as error:  # of a tokenizer
        raise DataError(f"{', '.join(unit.paths):.200}: {error}.") from error
    finally:
        for split in SPLITS:
            writers[split].shard.discard()
    if counts.total() > len(result.warnings):
        more = counts.total() - len(result.warnings)
        result.warnings.append(f"and {more:,} more of the same part")
    result.left_out, result.documents = dict(counts), len(hashes)
    files.write(out / _hashes(index), copies.in_order(hashes))
    files.write_json(_report_file(out, index), dataclasses.asdict(result))
    return index, result


def _report_file(out: Path, index: int) -> Path:
    return out / f"unit-{index:05d}.json"


def _hashes(index: int) -> str:
    """Name of the file with the hashes of a unit's documents."""
    return f"unit-{index:05d}.hashes"


def _report(job: tuple[Path, int]) -> tuple[int, UnitReport | None]:
    """What a unit gave, if that is there and whole."""
    out, index = job
    try:
        result = files.read_json(_report_file(out, index), UnitReport)
    except (OSError, files.FileError):  # not whole: make the unit again
        return index, None
    shards = [shard for shard in (result.train, result.heldout) if shard]
    hashes = out / _hashes(index)
    whole = all(_whole(out, shard) for shard in shards) and (
        result.documents is None
        or (hashes.is_file() and hashes.stat().st_size == 8 * result.documents)
    )
    return index, result if whole else None


class _Split:
    """Documents of one split of a unit on their way to its shard; those that are marked wait until
    there are many, because a model marks them together."""

    def __init__(
        self, shard: ShardWriter, tokenizer: Tokenizer, mark: Marks | None, training: bool
    ):
        self.shard, self.mark = shard, mark
        self.encode = tokenizer.encode_training if training else tokenizer.encode
        self.waiting: list[bytes] = []
        self.labels: list[str | None] = []
        self.size = 0

    def add(self, document: bytes, label: str | None) -> None:
        if not self.mark:
            self.shard.add(self.encode(document), len(document), label=label)
            return
        self.waiting.append(document)
        self.labels.append(label)
        self.size += len(document)
        if self.size > 2 * UNIT_BYTES:
            self._flush()

    def _flush(self) -> None:
        assert self.mark is not None, "only what is marked waits"
        encoded = [self.encode(document) for document in self.waiting]
        marked = self.mark(self.waiting, encoded)
        columns = self.waiting, encoded, marked, self.labels
        for document, ids, marks, label in zip(*columns, strict=True):
            self.shard.add(ids, len(document), marks, label)
        self.waiting, self.labels, self.size = [], [], 0

    def close(self) -> Shard | None:
        """The finished shard; None if there was no document."""
        if self.waiting:
            self._flush()
        return self.shard.close() if self.shard.tokens else None
