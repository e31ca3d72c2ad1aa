"""Score a checkpoint: python evaluate.py RUN [bits|words|noise|fairness] [--text FILE | --data DIR]

bits: bits per UTF-8 byte; every byte and every end of document is predicted and paid for. words:
how often the next word is predicted whole, by how often it occurred in training. noise: bits per
byte of the text with characters dropped, inserted, swapped, repeated or of other case. Without
--text or --data, of the held-out documents of the corpus the run was trained on. fairness: units
and bits that the same sentences cost in each language of --parallel DIR (a file LANGUAGE.txt each,
line by line the same), beside bytes, white space and a BPE, with a plot.
"""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from octavo import cli, files
from octavo.arguments import Range, check_output, read_file
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
    sentences: Annotated[int, Range(0)] = 0
    """Sentences of each language, spread over the files. 0: all."""
    overlap: Annotated[int | None, Range(0)] = None
    """A document longer than a row is scored in windows that repeat this many ids as context.
    None: half a row."""
    batch_size: Annotated[int, Range(1, 65_536)] = 16
    """Rows at a time; never changes the score."""
    most_bytes: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Stop after this many bytes of held-out documents. 0: all."""


def main() -> None:
    arguments = cli.parse(Arguments, "evaluate.py", __doc__.split("\n\n")[1])
    evaluate(arguments)


def evaluate(arguments: Arguments) -> dict:
    """Score, print a table, and return what ``--json`` writes."""
    _check(arguments)
    documents = None
    if arguments.text is not None:
        documents = [read_file(arguments.text, "--text")]
        if not documents[0]:
            raise ConfigError(f"--text {arguments.text} is empty; there is nothing to score.")

    from rich.progress import Progress

    from octavo.configs.room import room_of
    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus, heldout_documents
    from octavo.evaluation.parallel import read_parallel
    from octavo.evaluation.table import show
    from octavo.run.opened import open_run

    run = open_run(arguments.run)
    length = run.config.data.length
    overlap = length // 2 if arguments.overlap is None else arguments.overlap
    if not 0 <= overlap < length:
        raise ConfigError(f"--overlap lies in [0, {length}), the row length, not {overlap}.")
    source = arguments.text or arguments.data or arguments.parallel or run.config.data.source
    if arguments.parallel:
        documents = read_parallel(arguments.parallel, arguments.sentences)
    elif documents is None:
        folders = [folder for folder, _ in parse_source(source)]
        if arguments.json is not None:
            check_output(arguments.json, "--json", *folders)
        corpora = [Corpus(folder) for folder in folders]
        documents = heldout_documents(corpora, arguments.most_bytes)
        if not documents:
            raise ConfigError(f"{source} has no held-out documents; score a file with --text.")

    errors = cli.console(stderr=True)
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
    show(f"{arguments.run} at step {run.step}: {source}", rows, cli.console())
    # One row is told as it is; several, as a list beside what they are of.
    values = (rows[0] if len(rows) == 1 else {arguments.what: rows}) | about
    if arguments.json is not None:
        files.write_json(arguments.json, values)
    return values


def _check(arguments: Arguments) -> None:
    """Raise ConfigError for arguments that do not go together, or outputs that cannot be written,
    before anything is scored."""
    of_fairness = arguments.what == "fairness"
    if of_fairness != (arguments.parallel is not None):
        raise ConfigError("fairness needs --parallel DIR, and nothing else does.")
    if sum(x is not None for x in (arguments.text, arguments.data, arguments.parallel)) > 1:
        raise ConfigError("give one of --text, --data and --parallel, not both.")
    if arguments.most_bytes and (arguments.text is not None or of_fairness):
        raise ConfigError("--most-bytes is of held-out documents; a file is scored whole.")
    for name in ("tokenizer", "plot", "sentences"):
        if not of_fairness and getattr(arguments, name):
            raise ConfigError(f"--{name} is for fairness alone.")
    parallel = Path(arguments.parallel).glob("*.txt") if arguments.parallel else ()
    inputs = (arguments.run, arguments.text, arguments.data, arguments.tokenizer, *parallel)
    if arguments.json is not None:
        check_output(arguments.json, "--json", *inputs)
    if of_fairness and Path(arguments.run).is_dir():
        from octavo.evaluation import fairness

        plot = check_output(str(_plot(arguments)), "--plot", *inputs, arguments.json)
        if plot.suffix[1:].lower() not in fairness.picture_kinds():
            known = ", ".join(sorted(fairness.picture_kinds()))
            raise ConfigError(f"--plot {plot} ends in no kind of picture: {known}.")


def _plot(arguments: Arguments) -> Path:
    if arguments.plot is None:
        return Path(arguments.run) / "fairness.svg"
    return Path(arguments.plot)


def _bits(run, documents: list[bytes], settings: dict, arguments=None) -> list[dict]:
    from octavo.run.score import score

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
    from octavo.evaluation.words import by_band, frequencies, word_hits
    from octavo.run.score import predictions

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
            changed = [text for text in changed if text]
            row = {"noise": kind, "rate": rate, "bits_per_byte": None, "more": None}
            if changed:  # of a short text, nothing may be left
                bits = _bits(run, changed, settings)[0]["bits_per_byte"]
                row |= {"bits_per_byte": bits, "more": bits - clean}
            rows.append(row)
    return rows


def _fairness(run, texts: dict[str, list[bytes]], settings: dict, arguments) -> list[dict]:
    from octavo.evaluation import fairness

    name = Path(os.path.realpath(arguments.run)).name
    bpe = _beside(run, arguments.tokenizer)
    rows = fairness.fairness(run, name, texts, arguments.anchor, bpe, settings)
    out = _plot(arguments)
    fairness.plot(rows, arguments.anchor, out)
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
            files.check_regular(file)
            return load.load(Path(file))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--tokenizer {file} cannot be read: {error}.") from error
    folders = [folder for folder, _ in parse_source(run.config.data.source)]
    texts = (text for folder in folders for text in Corpus(folder).documents_in(0))
    try:
        return BPETokenizer.train(itertools.islice(texts, 20_000), 8192)
    except ValueError as error:
        raise ConfigError(f"no BPE comes of the run's text: {error}. Give --tokenizer.") from error


MEASURES = {"bits": _bits, "words": _words, "noise": _noise, "fairness": _fairness}


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
