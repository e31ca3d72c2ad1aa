"""Score a checkpoint: python evaluate.py RUN [--text FILE | --data DIR] [--json OUT]

Bits per UTF-8 byte: every byte and every end of document is predicted and paid for. Without --text
or --data, the held-out documents of the corpus the run was trained on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from octavo import cli
from octavo.configs.schema import ConfigError


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional]
    """Run directory, as train.py printed it."""
    text: str | None = None
    """Score this file, of any content, as one document."""
    data: str | None = None
    """Score the held-out documents of this prepared folder."""
    json: str | None = None
    """Write the scores to this file too."""
    overlap: int | None = None
    """A document longer than a row is scored in windows that repeat this many ids as context.
    None: half a row."""
    batch_size: int = 16
    """Rows at a time; never changes the score."""
    most_bytes: int = 0
    """Stop after this many bytes of held-out documents. 0: all."""


def main() -> None:
    arguments = cli.parse(Arguments, "evaluate.py", __doc__.split("\n\n")[1])
    evaluate(arguments)


def evaluate(arguments: Arguments) -> dict:
    """Score, print a table, and return what ``--json`` writes."""
    if arguments.text and arguments.data:
        raise ConfigError("give --text or --data, not both.")
    documents = [_read(arguments.text)] if arguments.text else None
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be above 0, not {arguments.batch_size}.")

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus, heldout_documents
    from octavo.evaluation.run import open_run
    from octavo.evaluation.score import score

    run = open_run(arguments.run)
    length = run.config.data.length
    overlap = length // 2 if arguments.overlap is None else arguments.overlap
    if not 0 <= overlap < length:
        raise ConfigError(f"--overlap lies in [0, {length}), the row length, not {overlap}.")
    source = arguments.text or arguments.data or run.config.data.source
    if documents is None:
        corpora = [Corpus(folder) for folder, _ in parse_source(source)]
        documents = heldout_documents(corpora, arguments.most_bytes)
        if not documents:
            raise ConfigError(f"{source} has no held-out documents; score a file with --text.")

    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("scoring")
        result = score(
            run.definition.bind, run.params, documents, run.tokenizer, run.mesh,
            length=length, overlap=overlap, batch_size=arguments.batch_size,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )  # fmt: skip

    values = {
        "bits_per_byte": result.bits_per_byte,
        "bytes": result.bytes,
        "documents": result.documents,
        "ids": result.ids,
        "nats": result.nats,
        "run": str(arguments.run),
        "step": run.step,
        "source": source,
        "tokenizer": run.tokenizer.name,
        "length": length,
        "overlap": overlap,
    }
    table = Table("", "value", title=f"{arguments.run} at step {run.step}", show_header=False)
    for name, value in values.items():
        table.add_row(name, f"{value:,.4f}" if isinstance(value, float) else f"{value}")
    Console().print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(values, indent=1) + "\n")
    return values


def _read(file: str) -> bytes:
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"--text {file} cannot be read: {error.strerror}.") from error
    if not data:
        raise ConfigError(f"--text {file} is empty; there is nothing to score.")
    return data


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
