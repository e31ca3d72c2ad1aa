"""Score a checkpoint: python evaluate.py RUN [bits|words|noise|fairness] [--text FILE | --data DIR]

bits: bits per UTF-8 byte; every byte and every end of document is predicted and paid for. words:
how often the next word is predicted whole, by how often it occurred in training. noise: bits per
byte of the text with characters dropped, inserted, swapped, repeated or of other case. Without
--text or --data, of the held-out documents of the corpus the run was trained on. fairness: units
and bits that the same sentences cost in each language of --parallel DIR (a file LANGUAGE.txt each,
line by line the same), beside bytes, white space and a BPE, with a plot.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from octavo import cli
from octavo.configs.schema import ConfigError


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional]
    """Run directory, as train.py printed it."""
    what: Annotated[Literal["bits", "words", "noise", "fairness"], tyro.conf.Positional] = "bits"
    """What to measure."""
    text: str | None = None
    """Score this file, of any content, as one document."""
    data: str | None = None
    """Score the held-out documents of this prepared folder."""
    json: str | None = None
    """Write the scores to this file too."""
    parallel: str | None = None
    """Folder of parallel text, for fairness."""
    anchor: str = "eng"
    """The language that the others are held against."""
    tokenizer: str | None = None
    """A tokenizer.json to stand beside, for fairness. None: a BPE of 8,192 ids, trained on the
    run's own text."""
    plot: str | None = None
    """Where the plot of fairness goes (.svg, .png, .pdf). None: fairness.svg in the run."""
    sentences: int = 0
    """Sentences of each language, spread over the files. 0: all."""
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
    if (arguments.what == "fairness") != (arguments.parallel is not None):
        raise ConfigError("fairness needs --parallel DIR, and nothing else does.")
    documents = [_read(arguments.text)] if arguments.text else None
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be above 0, not {arguments.batch_size}.")

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from octavo.configs.room import room_of
    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus, heldout_documents
    from octavo.evaluation.parallel import read_parallel
    from octavo.evaluation.run import open_run

    run = open_run(arguments.run)
    length = run.config.data.length
    overlap = length // 2 if arguments.overlap is None else arguments.overlap
    if not 0 <= overlap < length:
        raise ConfigError(f"--overlap lies in [0, {length}), the row length, not {overlap}.")
    source = arguments.text or arguments.data or arguments.parallel or run.config.data.source
    if arguments.parallel:
        documents = read_parallel(arguments.parallel, arguments.sentences)
    elif documents is None:
        corpora = [Corpus(folder) for folder, _ in parse_source(source)]
        documents = heldout_documents(corpora, arguments.most_bytes)
        if not documents:
            raise ConfigError(f"{source} has no held-out documents; score a file with --text.")

    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("scoring")
        settings = {
            "length": length,
            "overlap": overlap,
            "batch_size": arguments.batch_size,
            "room": room_of(run.config.model, length),
            "progress": lambda done, of: bar.update(task, completed=done, total=of),
        }
        rows = MEASURES[arguments.what](run, documents, settings, arguments)

    about = {
        "run": str(arguments.run),
        "step": run.step,
        "source": source,
        "tokenizer": run.tokenizer.name,
        "length": length,
        "overlap": overlap,
    }
    table = Table(*rows[0], title=f"{arguments.run} at step {run.step}: {source}")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    Console().print(table)
    # One row is told as it is; several, as a list beside what they are of.
    values = (rows[0] if len(rows) == 1 else {arguments.what: rows}) | about
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(values, indent=1) + "\n")
    return values


def _shown(value) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else "" if value is None else f"{value}"


def _bits(run, documents: list[bytes], settings: dict, arguments=None) -> list[dict]:
    from octavo.evaluation.score import score

    result = score(
        run.definition.bind, run.params, documents, run.tokenizer, run.marker, run.mesh, **settings
    )
    return [
        {
            "bits_per_byte": result.bits_per_byte,
            "bytes": result.bytes,
            "documents": result.documents,
            "ids": result.ids,
            "nats": result.nats,
        }
    ]


def _words(run, documents: list[bytes], settings: dict, arguments=None) -> list[dict]:
    import numpy as np

    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus
    from octavo.evaluation.score import predictions
    from octavo.evaluation.words import by_band, frequencies, word_hits

    encoded = [run.tokenizer.encode(document) for document in documents]
    found = predictions(
        run.definition.bind, run.params, encoded, run.tokenizer, run.marker, run.mesh, **settings
    )
    words, hits = [], [np.zeros(0, bool)]
    for document, ids, one in zip(documents, encoded, found, strict=True):
        more, correct = word_hits(document, ids, one.correct, run.tokenizer)
        words += more
        hits.append(correct)
    trained = (Corpus(folder) for folder, _ in parse_source(run.config.data.source))
    counts = frequencies(text for corpus in trained for text in corpus.documents_in(0))
    return by_band(words, np.concatenate(hits), counts)


def _noise(run, documents: list[bytes], settings: dict, arguments=None) -> list[dict]:
    from octavo.evaluation.noise import KINDS, RATES, noisy

    clean = _bits(run, documents, settings)[0]["bits_per_byte"]
    rows = [{"noise": "none", "rate": 0.0, "bits_per_byte": clean, "more": 0.0}]
    for kind in KINDS:
        for rate in RATES:
            changed = [noisy(document, kind, rate, i) for i, document in enumerate(documents)]
            bits = _bits(run, [text for text in changed if text], settings)[0]["bits_per_byte"]
            rows.append({"noise": kind, "rate": rate, "bits_per_byte": bits, "more": bits - clean})
    return rows


def _fairness(run, texts: dict[str, list[bytes]], settings: dict, arguments) -> list[dict]:
    from octavo.evaluation import fairness

    name = Path(arguments.run).name
    bpe = _beside(run, arguments.tokenizer)
    rows = fairness.fairness(run, name, texts, arguments.anchor, bpe, settings)
    out = Path(arguments.plot or Path(arguments.run) / "fairness.svg")
    try:
        fairness.plot(rows, arguments.anchor, out)
    except ValueError as error:  # a suffix that no picture has
        raise ConfigError(f"--plot {out}: {error}.") from error
    print(f"the plot is in {out}")
    return rows


def _beside(run, file: str | None):
    """The subword tokenizer that a fairness report shows beside the run."""
    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus
    from octavo.tokenizers import load
    from octavo.tokenizers.bpe import BPETokenizer

    if file:
        try:
            return load.load(Path(file))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--tokenizer {file} cannot be read: {error}.") from error
    folders = [folder for folder, _ in parse_source(run.config.data.source)]
    texts = (text for folder in folders for text in Corpus(folder).documents_in(0))
    return BPETokenizer.train(itertools.islice(texts, 20_000), 8192)


MEASURES = {"bits": _bits, "words": _words, "noise": _noise, "fairness": _fairness}


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
