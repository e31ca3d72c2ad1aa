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
    """bytes; bpe:SIZE to train a byte-level BPE of SIZE ids on these sources first; or a
    tokenizer.json (of another corpus or a run)."""
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
    """Text that a BPE is trained on, at most."""
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
    tokenizer = _tokenizer(arguments, units, console)

    columns = ("preparing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(units))

        def progress(done: int, warnings: list[str]) -> None:
            bar.update(task, completed=done)
            for warning in warnings:
                console.print(f"skipped: {warning}")

        preparing.prepare(
            units, out, tokenizer,
            heldout=arguments.heldout, processes=arguments.processes, progress=progress,
        )  # fmt: skip
    for name, split in shards.read_manifest(out)["splits"].items():
        console.print(
            f"{name:8} {split['documents']:>10,} documents {split['utf8_bytes']:>16,} bytes "
            f"{split['tokens']:>16,} ids in {len(split['shards'])} shards"
        )
    console.print(f"the corpus is in {out}: python train.py --data.source {out}")


def _tokenizer(arguments: Arguments, units: list, console):
    from octavo.data.prepare import split_of
    from octavo.data.sources import Skipped, documents
    from octavo.tokenizers import load
    from octavo.tokenizers.bpe import BPETokenizer
    from octavo.tokenizers.bytes import ByteTokenizer

    name = arguments.tokenizer
    if name == "bytes":
        return ByteTokenizer()
    if not name.startswith("bpe:"):
        try:
            return load.load(Path(name))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--tokenizer {name} is neither bytes, nor bpe:SIZE, nor a tokenizer file: {error}."
            ) from error
    kept = Path(arguments.out) / "tokenizer.json"
    if kept.exists():  # a run that was stopped trained it already
        return load.load(kept)
    size = name.removeprefix("bpe:")
    if not size.isdigit() or int(size) < 257:
        raise ConfigError(f"--tokenizer bpe:SIZE takes a size of at least 257, not {size!r}.")

    def text():
        read = 0
        for unit in units:
            for document in documents(unit):
                split = split_of(unit, document, arguments.heldout)
                if isinstance(document, Skipped) or split != "train":
                    continue
                yield document
                read += len(document)
                if read >= arguments.training_bytes:
                    return

    console.print(f"training a byte-level BPE of {size} ids ...")
    tokenizer = BPETokenizer.train(text(), int(size))
    kept.parent.mkdir(parents=True, exist_ok=True)
    load.save(tokenizer, kept)
    return tokenizer


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
