"""Score a checkpoint: python evaluate.py RUN [MEASURE] [--text FILE]

Without --text or --data, of the held-out documents of the corpus the run was trained on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import tyro

from octavo import cli, storage
from octavo.arguments import Range, check_output, read_file
from octavo.configs.checks import ConfigError
from octavo.evaluation import measures

if TYPE_CHECKING:
    Measure: TypeAlias = str
else:
    Measure = Literal[measures.NAMES]


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, as train.py printed it."""
    what: Annotated[Measure, tyro.conf.Positional] = "bits"
    """What to measure."""
    text: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Score this file, of any content, as one document."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Score the held-out documents of this prepared folder."""
    json: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Write the scores to this file too."""
    parallel: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of parallel text, for fairness."""
    anchor: str = "eng"
    """The language that the others are held against."""
    tokenizer: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """A tokenizer.json to stand beside, for fairness. None: a BPE of 8,192 ids, trained on the
    run's own text."""
    plot: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Where the plot of fairness goes (.svg, .png, .pdf). None: fairness.svg in the run."""
    certificate: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Where what certify compresses goes. None: certificate in the run."""
    sentences: Annotated[int, Range(0)] = 0
    """Sentences of each language, spread over the files. 0: all."""
    ends: Literal["sum", "threshold", "sampled"] | None = None
    """How a predictor that draws ends in training ends units (model.stages.evaluation). None: as
    the run was configured."""
    exact: tyro.conf.FlagCreatePairsOff[bool] = False
    """Of bits, also by all ids that spell the text, not only the tokenizer's own; of tasks,
    instead."""
    heads: Annotated[int | None, Range(1, 4096)] = None
    """Of --exact: beginnings of each document that are followed at a time; more miss less of the
    sum. None: 16."""
    other: Annotated[str | None, tyro.conf.arg(name="with", metavar="RUN")] = None
    """Of --exact: score also this run, of any tokenizer, and the mean of the two distributions of
    each byte."""
    tasks: Annotated[str | None, tyro.conf.arg(metavar="A,B")] = None
    """Of tasks: their names."""
    limit: Annotated[int | None, Range(1)] = None
    """Of tasks: ask so many documents of each, the first. None: all."""
    num_fewshot: Annotated[int | None, Range(0)] = None
    """Of tasks: how many examples stand before each question. None: as the task says."""
    include_path: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Of tasks: a folder of tasks of yours (YAML files)."""
    overlap: Annotated[int | None, Range(0)] = None
    """A document longer than a row is scored in windows that repeat this many ids as context.
    None: half a row."""
    batch_size: Annotated[int, Range(1, 65_536)] = 16
    """Rows at a time; never changes the score. Of --exact, documents side by side, each with
    --heads rows."""
    most_bytes: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Score so many bytes of each corpus's held-out documents, spread over its labels. 0: all. Of
    certify, bytes in all; 0: 2,048."""


def main() -> None:
    description = " ".join((measures.sentences(), *(__doc__ or "").split("\n\n")[1:]))
    evaluate(cli.parse(Arguments, "evaluate.py", description, flags=True))


def evaluate(arguments: Arguments) -> dict:
    """Score, print a table, and return what ``--json`` writes."""
    measure = measures.load(arguments.what)
    parallel, choose = getattr(measure, "PARALLEL", False), getattr(measure, "choose", None)
    reads_text = getattr(measure, "TEXTS", True)
    _check(arguments, measure, parallel, reads_text)
    documents = None
    if arguments.text is not None:
        documents = [read_file(arguments.text, "--text")]
        if not documents[0]:
            raise ConfigError(f"--text {arguments.text} is empty; there is nothing to score.")

    from rich.progress import Progress

    from octavo.data.heldout import Held, heldout_documents
    from octavo.data.pipeline import folders_of, parse_source
    from octavo.data.shards import Corpus
    from octavo.evaluation.parallel import read_parallel
    from octavo.run.opened import open_run

    asked_ends: dict[str, Any] = {} if arguments.ends is None else {"ends": arguments.ends}
    run = open_run(arguments.run, **asked_ends)
    length = run.length
    overlap = length // 2 if arguments.overlap is None else arguments.overlap
    if not 0 <= overlap < length:
        raise ConfigError(f"--overlap lies in [0, {length}), the row length, not {overlap}.")
    source = arguments.text or arguments.data or arguments.parallel or run.config.data.source
    held, of = [Held(text, source, None) for text in documents or ()], None
    if arguments.parallel:
        documents = read_parallel(arguments.parallel, arguments.sentences)
    elif documents is None and reads_text:
        if arguments.json is not None:
            check_output(arguments.json, "--json", *folders_of(source))
        corpora = [Corpus(part) for part, _ in parse_source(source)]
        held = heldout_documents(corpora, 0 if choose else arguments.most_bytes)
        split = [c.of_split("heldout") for c in corpora if "heldout" in c.split_documents]
        of = sum(corpus.utf8_bytes for corpus in split)

    if not arguments.parallel and reads_text:
        held = choose(held, arguments.most_bytes) if choose else held
        if not held:
            raise ConfigError(f"{source} has no held-out documents; score a file with --text.")
        documents = [one.text for one in held]
    asked = held if getattr(measure, "HELD", False) else documents or []
    errors = cli.console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("scoring")
        rows = measure.measure(
            run, asked, arguments, overlap=overlap, batch_size=arguments.batch_size,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )  # fmt: skip

    if not rows:
        raise ConfigError(f"{arguments.what} has no row to show of {source}.")
    about = {
        "run": str(arguments.run),
        "step": run.step,
        **({"source": source} if reads_text else {}),
        "tokenizer": run.tokenizer.name,
        "length": length,
        "overlap": overlap,
    } | asked_ends
    title = f"{arguments.run} at step {run.step}: {source if reads_text else arguments.what}"
    if arguments.ends is not None:
        title += f", units ended by {arguments.ends}"
    if of is not None:
        title += f", {sum(len(one) for one in documents or ()):,} of the {of:,} bytes held out"
    _show(title, rows, cli.console())
    # One row is told as it is; several, as a list beside what they are of.
    values = (rows[0] if len(rows) == 1 else {arguments.what: rows}) | about
    if arguments.json is not None:
        storage.write_json(arguments.json, values)
    return values


def _show(title: str, rows: list[dict], console) -> None:
    """The table of the rows, and one for each value of a row that is rows itself, by name."""
    from octavo.evaluation.table import show

    apart = {name: of for row in rows for name, of in row.items() if isinstance(of, dict)}
    show(title, [{k: v for k, v in row.items() if k not in apart} for row in rows], console)
    for name, of in apart.items():
        key = name.removeprefix("by_")
        show(name.replace("_", " "), [{key: each} | row for each, row in of.items()], console)
    if "chance" in rows[0]:
        console.print(
            "low, high: 95% interval (Wilson); chance: of a model that gives bytes the same"
        )
    elif "low" in rows[0]:
        console.print(
            "low, high: 95% interval, by a bootstrap over documents"
            if rows[0]["low"] is not None
            else "no interval: one document does not say how others would score"
        )


def _check(arguments: Arguments, measure, parallel: bool, reads_text: bool) -> None:
    """Raise ConfigError for arguments that do not go together, or outputs that cannot be written,
    before anything is scored."""
    if parallel != (arguments.parallel is not None):
        raise ConfigError("fairness needs --parallel DIR, and nothing else does.")
    for name in ("parallel", "tokenizer", "plot", "certificate"):
        storage.refuse(getattr(arguments, name) or "", f"--{name}")
    if sum(x is not None for x in (arguments.text, arguments.data, arguments.parallel)) > 1:
        raise ConfigError("give one of --text, --data and --parallel, not both.")
    if not reads_text and (arguments.text, arguments.data, arguments.most_bytes) != (None, None, 0):
        raise ConfigError(
            f"{arguments.what} scores no text of yours; leave out --text, --data and --most-bytes."
        )
    whole = arguments.text is not None and not hasattr(measure, "choose")
    if arguments.most_bytes and (whole or parallel):
        raise ConfigError("--most-bytes is of held-out documents; a file is scored whole.")
    for name in ("anchor", "tokenizer", "plot", "sentences"):
        if not parallel and getattr(arguments, name) != getattr(Arguments, name):
            raise ConfigError(f"--{name} is for fairness alone.")
    if arguments.certificate is not None and arguments.what != "certify":
        raise ConfigError("--certificate is for certify alone.")
    texts = Path(arguments.parallel).glob("*.txt") if arguments.parallel else ()
    inputs = (arguments.run, arguments.text, arguments.data, arguments.tokenizer, *texts)
    if arguments.json is not None:
        check_output(arguments.json, "--json", *inputs)
    if arguments.exact and arguments.what not in ("bits", "tasks"):
        raise ConfigError("--exact is for bits and tasks alone.")
    if arguments.other is not None and arguments.what != "bits":
        raise ConfigError("--with is for bits alone.")
    for name, value in (("heads", arguments.heads), ("with", arguments.other)):
        if value is not None and not arguments.exact:
            raise ConfigError(f"--{name} is for --exact alone.")
    for name in ("tasks", "limit", "num_fewshot", "include_path"):
        if getattr(arguments, name) is not None and arguments.what != "tasks":
            raise ConfigError(f"--{name.replace('_', '-')} is for tasks alone.")
    if hasattr(measure, "check"):
        measure.check(arguments, inputs)


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
