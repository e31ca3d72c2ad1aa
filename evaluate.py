"""Score checkpoints: python evaluate.py RUN [RUN ...] [MEASURE] [--text FILE]

Without --text or --data, of the held-out documents of the corpus each run was trained on. Of
several runs, or steps, one table; a run that cannot be scored is said, and the others are. What a
run's folder holds of the same text, settings and code is not computed again.
"""

import contextlib
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from octavo import cli, process, storage
from octavo.arguments import Range, check_outputs
from octavo.configs.checks import ConfigError
from octavo.evaluation import measures
from octavo.evaluation.table import csv_text, markdown_text

if TYPE_CHECKING:
    from octavo.evaluation.scoring import Scored


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, as train.py printed it."""
    more: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MEASURE")
    ] = ()
    """Further runs, and last what to measure: bits, unless the last is the name of a measure. (A
    run in a folder of such a name is ./NAME.)"""
    step: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|all|last ...")] = ()
    """Score the checkpoints of these steps; all: of all that there are; last: the newest, as
    without."""
    length: Annotated[int | None, Range(2, 1 << 24)] = None
    """Score in rows of so many ids. None: as in training."""
    text: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Score this file, of any content, as one document."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Score the held-out documents of this prepared folder."""
    json: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Write the scores to this file too: of several runs or steps, a list."""
    csv: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Write the table as CSV."""
    markdown: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Write the table as Markdown."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compute what the runs' folders hold, too, and put it there anew."""
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
    """Score about so many bytes of each corpus's held-out documents, spread over its labels;
    without labels, whole documents until there are as many. 0: all. Of certify, bytes in all; 0:
    2,048."""

    @property
    def what(self) -> str:
        """The measure."""
        return self.more[-1] if self.more and self.more[-1] in measures.NAMES else "bits"

    @property
    def runs(self) -> tuple[str, ...]:
        """All that are named."""
        named = self.more and self.more[-1] in measures.NAMES
        return (self.run, *(self.more[:-1] if named else self.more))

    @property
    def outputs(self) -> dict[str, str | None]:
        """Files to write, by their flags."""
        return {"--json": self.json, "--csv": self.csv, "--markdown": self.markdown}


def main() -> None:
    description = " ".join((*(__doc__ or "").split("\n\n")[1:], measures.sentences()))
    evaluate(cli.parse(Arguments, "evaluate.py", description, flags=True))


def evaluate(arguments: Arguments) -> dict | list[dict]:
    """Score, print a table, and return what ``--json`` writes: of one checkpoint what the measure
    says of it, of several runs or steps a list. Raises RunError behind all that if some could not
    be scored."""
    measure = measures.load(arguments.what)
    each = [replace(arguments, run=run, more=(arguments.what,)) for run in arguments.runs]
    many = len(each) > 1 or len(arguments.step) > 1 or "all" in arguments.step
    _check_runs(arguments)
    for one in each:
        _check(one, measure)

    from rich.progress import Progress

    from octavo.evaluation import scoring

    texts: dict[str, Any] = {}

    def text_of(source: str):
        if source not in texts:
            texts[source] = scoring.text_from(arguments, measure, source)
        return texts[source]

    if given := arguments.text or arguments.data or arguments.parallel:
        text_of(given)
    scored: list[Scored] = []
    failed: list[str] = []
    errors, console = cli.console(stderr=True), cli.console()
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        runs = bar.add_task("runs", total=len(each), visible=many)
        task = bar.add_task("scoring")

        def progress(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        @contextlib.contextmanager
        def said(what: str) -> Iterator[None]:
            """Where there are others, what goes wrong with one is said, and they are scored."""
            try:
                yield
            except (process.Preempted, process.NobodyReads):
                raise
            except Exception as error:
                if not many:
                    raise
                failed.append(what)
                errors.print(f"{what}: {cli.sentence(error)}")

        for one in each:
            steps: list[int | None] = []
            with said(one.run):
                steps = _steps(one)
            for step in steps:
                with said(one.run if step is None else f"{one.run} at step {step}"):
                    scored.append(scoring.score(one, measure, step, text_of, progress))
            bar.update(runs, advance=1)
            if len(each) > 1:
                _forget()
    if not scored:
        raise cli.RunError("none of these could be scored.")
    scoring.compare(scored)
    _show(scored, arguments.what, many, console)
    # One row is told as it is; several, as a list beside what they are of.
    told = [
        (one.rows[0] if len(one.rows) == 1 else {arguments.what: one.rows})
        | one.values
        | one.beside
        for one in scored
    ]
    values = told if many else told[0]
    if arguments.json is not None:
        storage.write_json(arguments.json, values)
    if arguments.csv is not None:
        storage.write(arguments.csv, csv_text(scoring.records(scored)))
    if arguments.markdown is not None:
        storage.write(arguments.markdown, markdown_text(scoring.tables(scored, True)))
    if failed:
        raise cli.RunError(f"could not be scored: {', '.join(failed)}. The others were.")
    return values


def _steps(arguments: Arguments) -> list[int | None]:
    """The steps of a run that are asked for; None: the newest."""
    from octavo.run.checkpoint import saved_steps
    from octavo.run.mirror import fetched
    from octavo.run.saved import read

    there: list[int] = []
    if "all" in arguments.step or not storage.is_url(arguments.run):
        with fetched(arguments.run, arrays=False) as folder:
            read(folder)  # what is no run is said once, and not for each step
            there = saved_steps(folder)[::-1]
    found: list[int | None] = []
    for name in arguments.step or ("last",):
        each = there if name == "all" else [None if name == "last" else int(name)]
        found += each
    return list(dict.fromkeys(found))


def _forget() -> None:
    """Programs of the runs so far: what is compiled for one fits no other."""
    import jax

    jax.clear_caches()


def _show(scored: "list[Scored]", measure: str, many: bool, console) -> None:
    from octavo.evaluation import scoring
    from octavo.evaluation.table import show

    first, reads_text = scored[0], "source" in scored[0].values
    sources = {one.values.get("source", "") for one in scored}
    what = first.values["source"] if reads_text and len(sources) == 1 else "each its own text"
    title = f"{first.values['run']} at step {first.values['step']}"
    title = f"{len(scored)} checkpoints" if len(scored) > 1 else title
    title += f": {what if reads_text else measure}"
    if "ends" in first.values:
        title += f", units ended by {first.values['ends']}"
    if "asked" in first.values:
        title += f", {first.values['asked']}"
    if first.text.of is not None and len(sources) == 1:
        size = sum(len(one.text) for one in first.text.held)
        title += f", {size:,} of the {first.text.of:,} bytes held out"
    for name, rows in scoring.tables(scored, many).items():
        show(name.replace("_", " ") if name else title, rows, console)
    if "chance" in first.rows[0]:
        console.print(
            "low, high: 95% interval (Wilson); chance: of a model that gives bytes the same"
        )
    elif "low" in first.rows[0]:
        console.print(
            "low, high: 95% interval, by a bootstrap over documents"
            if first.rows[0]["low"] is not None
            else "no interval: one document does not say how others would score"
        )
    if any(one.beside for one in scored):
        console.print("vs first: bits per byte above the first row's, of the same documents")


def _check_runs(arguments: Arguments) -> None:
    """Raise ConfigError for what cannot be asked of any run, or of several."""
    for name in arguments.step:
        number = name.isascii() and name.isdigit() and len(name) < 19
        if not number and name not in ("all", "last"):
            raise ConfigError(f"--step takes numbers, all or last, not {name!r:.40}.")
    if len(arguments.runs) > 1:
        last = arguments.runs[-1]
        near = difflib.get_close_matches(last, measures.NAMES, 1, 0.75)
        if near and not Path(last).exists():
            raise ConfigError(
                f"{last} is no run, and no measure: is it {near[0]}? Measures: "
                f"{', '.join(measures.NAMES)}."
            )
        for name in ("plot", "certificate"):
            if getattr(arguments, name) is not None:
                raise ConfigError(f"--{name} is of one run; leave it out, and each gets its own.")


def _check(arguments: Arguments, measure: ModuleType) -> None:
    """Raise ConfigError for arguments that do not go together, or outputs that cannot be written,
    before anything is scored."""
    parallel, reads_text = getattr(measure, "PARALLEL", False), getattr(measure, "TEXTS", True)
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
    check_outputs(arguments.outputs, *inputs)
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
