"""Prepare text: python prepare.py SOURCE ... --out DIR [--tokenizer NAME_OR_FILE]

A source is a text file, a folder (searched for files), a .jsonl or .jsonl.gz file, tfds:NAME (or
tfds:NAME:SPLIT, or tfds:FOLDER of a prepared dataset), a corpus that this made before (for another
tokenizer on the same documents), or stdlib, the text that comes with Python. Run again after an
interruption, the same command continues.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from octavo import cli
from octavo.configs.schema import ConfigError


@dataclass(frozen=True)
class Arguments:
    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Where the text is."""
    out: str
    """Folder for the shards and the manifest."""
    tokenizer: str = "bytes"
    """bytes; words (bytes, and an id that marks the ends of words) or words:unicode (by UAX 29
    alone); bpe:SIZE or unigram:SIZE to train one of SIZE ids on these sources first; or a
    tokenizer.json (of another corpus or a run)."""
    marks: str | None = None
    """Mark beside the ids where units end: RUN, a byte model, after whose bytes the next is hard to
    foresee; unigram:SIZE or a tokenizer.json, where its subwords end."""
    unit_bytes: float = 4.5
    """Mean bytes between the marks of a RUN: decides its threshold of entropy."""
    text_field: str = "text"
    """Field of JSONL records, or feature of a TFDS dataset, that holds the text."""
    tfds_dir: str | None = None
    """Where TFDS keeps its datasets. None: its default."""
    heldout: float = 0.01
    """Share of documents kept from training, chosen by their content. A prepared corpus keeps the
    split it has."""
    processes: int = os.cpu_count() or 1
    """Processes that work side by side."""
    training_bytes: int = 100_000_000
    """Text that a tokenizer is trained on, at most."""
    verify: bool = False
    """Check the finished shards in DIR against their checksums, and change nothing."""


def main() -> None:
    prepare(cli.parse(Arguments, "prepare.py", __doc__))


def prepare(arguments: Arguments) -> None:
    """Prepare or verify a corpus; prints progress and what came of it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from octavo.data import prepare as preparing
    from octavo.data import shards
    from octavo.data.sources import find_units

    console = Console(highlight=False, soft_wrap=True)
    out = Path(arguments.out)
    if arguments.verify:
        console.print(f"{shards.verify(out)} shards in {out} match their checksums.")
        return
    if not arguments.sources:
        raise ConfigError("name at least one SOURCE: a file, a folder, tfds:NAME or stdlib.")
    if not 0 <= arguments.heldout < 1:
        raise ConfigError(f"--heldout lies in [0, 1), not {arguments.heldout}.")
    if arguments.processes < 1:
        raise ConfigError(f"--processes must be above 0, not {arguments.processes}.")
    units = find_units(list(arguments.sources), arguments.text_field, arguments.tfds_dir)
    tokenizer = _tokenizer(arguments, arguments.tokenizer, "tokenizer.json", units, console)
    mark = _marks(arguments, tokenizer, units, console) if arguments.marks else None

    columns = ("preparing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(units))

        def progress(done: int, warnings: list[str]) -> None:
            bar.update(task, completed=done)
            for warning in warnings:
                console.print(f"skipped: {warning}")

        preparing.prepare(
            units, out, tokenizer,
            heldout=arguments.heldout, processes=arguments.processes, mark=mark,
            progress=progress,
        )  # fmt: skip
    for name, split in shards.read_manifest(out)["splits"].items():
        console.print(
            f"{name:8} {split['documents']:>10,} documents {split['utf8_bytes']:>16,} bytes "
            f"{split['tokens']:>16,} ids in {len(split['shards'])} shards"
        )
    console.print(f"the corpus is in {out}: python train.py --data.source {out}")


def _training_text(arguments: Arguments, units: list, most_bytes: int):
    """Documents of the training split, up to ``most_bytes``."""
    from octavo.data.prepare import split_of
    from octavo.data.sources import Skipped, documents

    read = 0
    for unit in units:
        for document in documents(unit):
            if isinstance(document, Skipped):
                continue
            if split_of(unit, document, arguments.heldout) == "train":
                yield document
                read += len(document)
                if read >= most_bytes:
                    return


def _tokenizer(arguments: Arguments, name: str, kept_as: str, units: list, console):
    from octavo.tokenizers import load
    from octavo.tokenizers.bpe import BPETokenizer
    from octavo.tokenizers.bytes import ByteTokenizer
    from octavo.tokenizers.unigram import UnigramTokenizer
    from octavo.tokenizers.words import WordTokenizer

    plain = {"bytes": ByteTokenizer, "words": WordTokenizer}
    if name in plain:
        return plain[name]()
    if name == "words:unicode":
        return WordTokenizer("unicode")
    scheme, _, size = name.partition(":")
    trained = {"bpe": BPETokenizer, "unigram": UnigramTokenizer}
    if scheme not in trained:
        try:
            return load.load(Path(name))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{name} is neither bytes, words, words:unicode, bpe:SIZE or unigram:SIZE, nor a "
                f"tokenizer file: {error}."
            ) from error
    kept = Path(arguments.out) / kept_as
    if kept.exists():  # a run that was stopped trained it already
        return load.load(kept)
    if not size.isdigit() or int(size) < 257:
        raise ConfigError(f"{scheme}:SIZE takes a size of at least 257, not {size!r}.")
    console.print(f"training {scheme} of {size} ids ...")
    text = _training_text(arguments, units, arguments.training_bytes)
    try:
        tokenizer = trained[scheme].train(text, int(size))
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    kept.parent.mkdir(parents=True, exist_ok=True)
    load.save(tokenizer, kept)
    return tokenizer


def _marks(arguments: Arguments, tokenizer, units: list, console):
    """What gives documents their marks."""
    from octavo.data.marks import SubwordMarks

    if not (Path(arguments.marks) / "config.json").is_file():
        subwords = _tokenizer(arguments, arguments.marks, "subwords.json", units, console)
        return SubwordMarks(subwords, tokenizer)
    from octavo.evaluation.marks import EntropyMarks
    from octavo.evaluation.run import keep_marker, open_run
    from octavo.files import read_json

    run = open_run(arguments.marks)
    if run.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"{arguments.marks} reads {run.tokenizer.name}, the corpus is of {tokenizer.name}; "
            "give both the same tokenizer."
        )
    if not arguments.unit_bytes > 1:
        raise ConfigError(f"--unit-bytes must be above 1, not {arguments.unit_bytes}.")
    chosen = Path(arguments.marks) / "threshold.json"
    if chosen.is_file():  # the marker of another corpus: marks as there
        mark = EntropyMarks(
            run.definition.bind, run.params, run.tokenizer, run.config.data.length,
            read_json(chosen, float, error=ConfigError),
        )  # fmt: skip
    else:
        console.print("choosing the threshold of entropy ...")
        sample = list(_training_text(arguments, units, 500_000))
        mark = EntropyMarks.with_rate(run, sample, 1 / arguments.unit_bytes)
    console.print(f"a unit ends where the entropy of the next byte is above {mark.threshold:.3f}")
    keep_marker(Path(arguments.marks), mark.threshold, Path(arguments.out))
    return mark


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
