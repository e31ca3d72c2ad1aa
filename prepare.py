"""Prepare text: python prepare.py SOURCE ... --out DIR [--tokenizer NAME_OR_FILE]

A source is a file of text, of JSON lines, of a JSON array, of Parquet or of Arrow, compressed
(gzip, zstd, bz2, xz) or not, whatever its name; a folder, searched for such files; tfds:NAME (or
tfds:NAME:SPLIT, or tfds:FOLDER of a prepared dataset); a corpus that this made before (for another
tokenizer on the same documents); a URL of one of these (gs://, s3:// and the like); or stdlib, the
text that comes with Python. What is left out is said. Run again after an interruption, the same
command continues; on a finished corpus, it makes anew what is missing or damaged.

Documents keep a label, by which held-out text is scored and data.source may mix: the name of their
file, unless told otherwise. docs/data.md says more.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from octavo import cli, process
from octavo.configs.checks import ConfigError, check_name
from octavo.storage import is_url
from octavo.tokenizers import load

_USAGES = load.usages()
_TRAINED = "bpe:SIZE or another scheme of subwords"
_SCHEMES = "\n".join(f"{usage}: {line};" for usage, line in _USAGES.items())
_OPTIONS = (
    "splitter (cl100k, gpt2, o200k, llama3, whitespace, lines, none), digits (pattern, none, "
    "single, left, right), segmenter (merges, greedy, fewest), stochastok (share of tokens that "
    "training text splits), presegment (a command that cuts words), transition (of superbpe), "
    "constraint (of bytespan: monotonic, combined)"
)


@dataclass(frozen=True)
class Arguments:
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE ...")]
    """Where the text is."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Folder for the shards and the manifest, or its URL (gs://, s3:// and the like)."""
    tokenizer: Annotated[
        str,
        tyro.conf.arg(
            help=f"How text becomes ids:\n{_SCHEMES}\n"
            "or a FILE: tokenizer.json of a run or of Hugging Face, *.tiktoken, sentencepiece's "
            f".model; it must keep text as it is. After SIZE may follow ,OPTION=VALUE: {_OPTIONS}.",
            metavar="SCHEME",
        ),
    ] = "bytes"
    marks: Annotated[
        str | None,
        tyro.conf.arg(
            help="Mark beside the ids where units end: RUN, a byte model, after whose bytes the "
            f"next is hard to foresee; {_TRAINED} or a tokenizer.json, where its subwords end.",
            metavar="RUN",
        ),
    ] = None
    unit_bytes: float = 4.5
    """Mean bytes between the marks of a RUN: decides its threshold of entropy."""
    entropy_rise: bool = False
    """A RUN marks where entropy rises by more than a threshold, not where it is above one (BLT's
    monotonic constraint)."""
    entropy_reset: bool = False
    """A RUN marks each line as if nothing stood before it (as BLT's largest run does): entropy
    falls where text repeats."""
    text_field: str = "text"
    """Field of JSON records, column of Parquet or Arrow files, or feature of a TFDS dataset, that
    holds the text; meta.text is the field text of the object or struct meta."""
    label_field: str | None = None
    """The same for the label of a record, its language or source."""
    label: Literal["file", "folder"] | None = None
    """What labels the documents of files that do not tell it: the file's name, or the first folder
    in which the files differ. None: the name, or what more than 64 files have in common."""
    skip_bad: bool = False
    """Leave out and count records that cannot be read or have no text, rather than stop at the
    first."""
    tfds_dir: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Where TFDS keeps its datasets. None: its default."""
    heldout: float = 0.01
    """Share of the bytes of each label or file that is kept from training, chosen by content; of
    a small one, a piece at least. A prepared corpus keeps the split it has. 0: nothing."""
    processes: int = os.cpu_count() or 1
    """Processes that work side by side."""
    part: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Prepare the I-th of N parts, as on N machines that share DIR: the last one finishes the
    corpus, the same as of one machine. Into a URL: when all are there, the same command without it
    finishes."""
    beam: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Prepare by an Apache Beam pipeline with these options of Beam's, as runner=FlinkRunner
    flink_master=HOST:8081, instead of processes: on machines that share sources and DIR."""
    training_bytes: int = 100_000_000
    """Text that a tokenizer is trained on, at most."""
    verify: bool = False
    """Check the finished shards in DIR against their checksums, and change nothing."""


def main() -> None:
    prepare(cli.parse(Arguments, "prepare.py", __doc__, flags=True))


def prepare(arguments: Arguments) -> None:
    """Prepare or verify a corpus; prints progress and what came of it."""
    named = (arguments.out, arguments.marks or "", *arguments.sources)
    if arguments.verify or not any(map(is_url, named)):
        _prepare(arguments)
        return
    if arguments.beam and any(map(is_url, (*arguments.sources, arguments.out))):
        raise ConfigError(
            "--beam reads and writes folders that all its machines share, not URLs: mount the "
            "storage there, and name the folders."
        )
    from octavo.data import remote
    from octavo.run.mirror import fetched

    if any(out.rstrip("/") == arguments.out.rstrip("/") for out in arguments.sources):
        raise ConfigError(f"--out {arguments.out} is a source too; choose another folder.")
    with contextlib.ExitStack() as held:
        # Places on this machine; what is said names them as they were named.
        sources = held.enter_context(remote.text(arguments.sources))
        marks = arguments.marks and str(held.enter_context(fetched(arguments.marks)))
        out = held.enter_context(remote.prepared(arguments.out, arguments.part is not None))
        here = dataclasses.replace(arguments, sources=tuple(sources), marks=marks, out=str(out))
        _prepare(here)
        if is_url(arguments.out):
            cli.console().print(f"putting it to {arguments.out} ...")


def _prepare(arguments: Arguments) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from octavo.data import prepare as preparing
    from octavo.data import remote
    from octavo.data.beam import on_beam
    from octavo.data.folders import Survey
    from octavo.data.manifest import read_manifest
    from octavo.data.shards import verify
    from octavo.data.sources import find_units

    console = cli.console()
    out = Path(arguments.out)
    if arguments.verify:
        number = remote.verify(arguments.out) if is_url(arguments.out) else verify(out)
        console.print(f"{number} shards in {arguments.out} match their checksums.")
        return
    _check(arguments)
    part, run = _part(arguments.part), None
    if arguments.beam:
        run = on_beam(arguments.beam, out)
    survey = Survey()
    units = find_units(
        list(arguments.sources), arguments.text_field, arguments.tfds_dir, survey,
        label=arguments.label, label_field=arguments.label_field, skip_bad=arguments.skip_bad,
    )  # fmt: skip
    said = [sentence for sentence, kind in survey.left_out if kind != "hidden"]
    for line in (*survey.notes, *(f"skipped: {sentence}" for sentence in said[:_MOST_SAID])):
        console.print(line)
    if len(said) > _MOST_SAID:
        console.print(f"skipped: {len(said) - _MOST_SAID:,} more")
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        looking = bar.add_task("looking", total=len(units), visible=False)
        splitting = preparing.Splitting(
            units, arguments.heldout, out, arguments.processes,
            lambda done, _: bar.update(looking, completed=done, visible=True),
            part=part, run=run,
        )  # fmt: skip
        tokenizer = _tokenizer(arguments, arguments.tokenizer, "tokenizer.json", splitting, console)
        _check_tokenizer(tokenizer, units)
        mark = None
        if arguments.marks is not None:
            mark = _marks(arguments, arguments.marks, tokenizer, splitting, console)
        task = bar.add_task("preparing", total=sum(map(part.has, range(len(units)))))
        warned = 0

        def progress(done: int, warnings: list[str]) -> None:
            nonlocal warned
            bar.update(task, completed=done)
            for warning in warnings[: max(_MOST_SAID - warned, 0)]:
                console.print(f"skipped: {warning}")
            warned += len(warnings)

        prepared = preparing.prepare(
            units, out, tokenizer,
            heldout=splitting, processes=arguments.processes, mark=mark, progress=progress,
            part=part, run=run,
        )  # fmt: skip
    if prepared.waiting:
        console.print(f"part {arguments.part} of {out} is finished. Missing or damaged:")
        for number, missing in sorted(prepared.waiting.items()):
            console.print(f"  {missing:,} units of part {number}/{part.of}")
        return
    if prepared.remade is not None:
        again = f"{prepared.remade} of its parts were missing or damaged and are made anew"
        console.print(
            f"{out} was finished already: {again if prepared.remade else 'all is whole'}."
        )
    if prepared.earlier:
        told = "of an earlier revision: it keeps the split it has, and its documents no labels"
        if arguments.label or arguments.label_field:
            raise ConfigError(f"{out} is {told}. Choose another --out to have labels.")
        console.print(f"{out} is {told}. Another --out has both.")
    if survey.read:
        console.print(f"read     {_files(survey.read)}")
    if prepared.copies:
        console.print(f"copies   {prepared.copies:,} documents are exact copies of others")
    if left_out := survey.counted() + prepared.left_out:
        console.print(f"left out {left_out.total():,}: {_counted(left_out)}")
    splits = read_manifest(out).splits
    for name, split in splits.items():
        console.print(
            f"{name:8} {split.documents:>10,} documents {split.utf8_bytes:>16,} bytes "
            f"{split.tokens:>16,} ids in {len(split.shards)} shards"
        )
    for line in _by_label(splits):
        console.print(line)
    if arguments.heldout and not splits["heldout"].documents:
        process.warn(
            "no document was held out, so there will be no score; prepare into another folder, "
            "with a larger --heldout"
        )
    console.print(f"the corpus is in {out}: python train.py --data.source {out}")


_MOST_SAID = 20
"""Files left out that are named; all are counted."""


def _by_label(splits) -> Iterator[str]:
    """How much of what was held out."""
    from octavo.data.manifest import by_label

    train, heldout = (by_label(splits[name].shards) for name in ("train", "heldout"))
    names = [name for name in {**train, **heldout} if name is not None]
    nothing = (0, 0)
    if len(names) < 2 or not splits["heldout"].documents:
        return
    names.sort(key=lambda name: -train.get(name, nothing)[1])
    yield "held out of each label:"
    for name in names[:_MOST_LABELS]:
        documents, size = heldout.get(name, nothing)
        whole = size + train.get(name, nothing)[1]
        yield (
            f"  {name:24} {documents:>8,} documents {size:>14,} bytes, "
            f"{size / whole if whole else 0:.2%} of {whole:,}"
        )
    if more := names[_MOST_LABELS:]:
        documents, size = (sum(heldout.get(name, nothing)[i] for name in more) for i in (0, 1))
        yield f"  {f'{len(more):,} more':24} {documents:>8,} documents {size:>14,} bytes"
    if without := [name for name in names if name not in heldout]:
        yield (
            f"  nothing of {len(without):,} that are too small: {', '.join(without[:5])}"
            f"{' ...' if without[5:] else ''}"
        )


_MOST_LABELS = 24
"""That are told of."""


def _counted(kinds) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))


def _files(kinds) -> str:
    """What was read, as "2 files of JSON lines, 1 of text"."""
    (first, count), *others = sorted(kinds.items())
    told = [f"{count:,} file{'s' * (count > 1)} of {first}"]
    return ", ".join(told + [f"{count:,} of {kind}" for kind, count in others])


def _check(arguments: Arguments) -> None:
    """Raises ConfigError for an argument that cannot work."""
    if not arguments.sources:
        raise ConfigError("name at least one SOURCE: a file, a folder, tfds:NAME or stdlib.")
    if arguments.label is not None and arguments.label_field is not None:
        raise ConfigError("give one of --label and --label-field, not both.")
    if not 0 <= arguments.heldout < 1:
        raise ConfigError(f"--heldout lies in [0, 1), not {arguments.heldout}.")
    if arguments.processes < 1:
        raise ConfigError(f"--processes must be above 0, not {arguments.processes}.")
    if arguments.processes > 1024:
        raise ConfigError(f"--processes is at most 1024, not {arguments.processes}.")
    if not 1 < arguments.unit_bytes <= 65_536:
        raise ConfigError(
            f"--unit-bytes must be above 1 and at most 65,536, not {arguments.unit_bytes}."
        )
    if not 0 < arguments.training_bytes <= 1 << 50:
        raise ConfigError(
            f"--training-bytes must be above 0 and at most 2^50, not {arguments.training_bytes}."
        )
    marks = Path(arguments.marks or "")
    marker = (marks / "threshold.json").is_file()  # of another corpus, which marks as there
    marked_by_run = bool(arguments.marks) and (marks / "config.json").is_file() and not marker
    if arguments.unit_bytes != Arguments.unit_bytes and not marked_by_run:
        raise ConfigError("--unit-bytes is for --marks RUN alone.")
    for flag in ("entropy_rise", "entropy_reset"):
        if getattr(arguments, flag) and not marked_by_run:
            raise ConfigError(f"--{flag.replace('_', '-')} is for --marks RUN alone.")
    if arguments.beam and (arguments.marks or arguments.part):
        raise ConfigError("--beam goes with neither --marks nor --part.")
    check_name("--out", arguments.out)
    if Path(arguments.out).exists() and not Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out} is no folder.")
    if os.path.realpath(arguments.out) in map(os.path.realpath, arguments.sources):
        raise ConfigError(f"--out {arguments.out} is a source too; choose another folder.")


def _part(named: str | None):
    """The part that I/N names. Raises ConfigError."""
    from octavo.data.prepare import WHOLE, Part

    if named is None:
        return WHOLE
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", named)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--part is I/N, the I-th of N parts, as 1/4; not {named}.")
    return Part(int(found[1]), int(found[2]))


def _training_text(splitting, most_bytes: int):
    """Documents of the training split, with their labels, up to ``most_bytes``."""
    from octavo.data.records import Skipped
    from octavo.data.sources import documents
    from octavo.tokenizers.parts.text import Labelled

    read = 0
    for unit in splitting.units:
        for document in documents(unit):
            if isinstance(document, Skipped):
                continue
            text, _ = splitting.rule.split(unit, document)
            if text:
                yield Labelled.of(text, document.label)
                read += len(text)
                if read >= most_bytes:
                    return


def _tokenizer(arguments: Arguments, name: str, kept_as: str, splitting, console):
    """The tokenizer that the command line names: SCHEME, SCHEME:ARGUMENT or a file."""
    from octavo.tokenizers.interface import TrainedTokenizer

    if scheme := _scheme(name):
        _, colon, argument = name.partition(":")
        if issubclass(scheme, TrainedTokenizer):
            kept = Path(arguments.out) / kept_as
            return _trained(arguments, scheme, argument, kept, splitting, console)
        try:
            return scheme.from_argument(argument if colon else None)
        except ValueError as error:
            raise ConfigError(f"{name} names no tokenizer: {error}.") from error
    if not Path(name).is_file():  # a pipe would be waited for
        known = ", ".join(_USAGES)
        what = "there is no such file"
        if Path(name).is_dir():
            what = "it is a folder; name a file in it"
            if (Path(name) / "tokenizer.json").is_file():
                what += f": {Path(name) / 'tokenizer.json'}"
        raise ConfigError(f"{name} is neither {known}, nor a tokenizer file: {what}.")
    try:
        return load.load(Path(name))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{error}.") from error


def _check_tokenizer(tokenizer, units: list) -> None:
    """Raises ConfigError for a scheme, perhaps a new one, that loses the beginning of the text."""
    from octavo.data.sources import documents
    from octavo.tokenizers.interface import check_lossless

    first = (document for unit in units for document in documents(unit) if document)
    try:
        check_lossless(tokenizer, next(first, b"")[:10_000])
    except ValueError as error:
        raise ConfigError(f"{error}.") from error


def _scheme(name: str):
    """The class of the scheme that SCHEME or SCHEME:ARGUMENT names; None if there is none."""
    scheme = name.partition(":")[0]
    if scheme not in load.names():
        return None
    try:
        return load.scheme(scheme)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error


def _trained(arguments: Arguments, scheme, argument: str, kept: Path, splitting, console):
    """A tokenizer of a scheme, trained on the sources; or the one that an earlier call kept."""
    from octavo.data.manifest import MANIFEST, RECIPE
    from octavo.tokenizers.interface import TrainedTokenizer

    try:
        number, options = scheme.read_argument(argument)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    asked = argument if options else ""
    before = None
    if kept.exists():  # a run that was stopped trained it already
        try:
            before = load.load(kept)
        except ValueError as error:
            raise ConfigError(f"{error}. Delete it: the same command trains it again.") from error
        if isinstance(before, TrainedTokenizer) and before.scheme == scheme.scheme:
            if before.asked == asked and (options or before.number == number):
                return before
    console.print(f"training {scheme.scheme} of {argument.partition(',')[0]} ...")
    if "model" in options:
        options["model"] = _surprisal(options["model"])
    try:
        with _reported(scheme) as told:
            text = _training_text(splitting, arguments.training_bytes)
            tokenizer = scheme.train(text, number, **options, **told)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    tokenizer.asked = asked
    if before and before.fingerprint != tokenizer.fingerprint:
        if any((kept.parent / file).exists() for file in (MANIFEST, RECIPE)):
            raise ConfigError(
                f"{kept.parent} holds a corpus of {before.name} of {before.vocab_size} ids, not of "
                f"{scheme.scheme}:{argument}. Choose another --out."
            )
    kept.parent.mkdir(parents=True, exist_ok=True)
    load.save(tokenizer, kept)
    return tokenizer


@contextlib.contextmanager
def _reported(scheme):
    """Arguments of ``train`` that show how far it is, if it tells."""
    import inspect

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    errors = cli.console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("training")

        def progress(what: str, done: int, of: int) -> None:
            said = f"{what} {done:,}" + (f" of {of:,}" if of else " bytes")
            bar.update(task, description=said, completed=done, total=of or None)

        tells = "progress" in inspect.signature(scheme.train).parameters
        yield {"progress": progress} if tells else {}


def _surprisal(name: str):
    """What gives the surprisal of each byte of a document: a run of bytes."""
    import numpy as np

    from octavo.run.opened import open_run

    run = open_run(name)
    if not run.tokenizer.vocabulary.are_bytes:
        raise ConfigError(f"{name} reads {run.tokenizer.name}; a span of bytes needs a byte model.")
    return lambda document: run.score([document]).surprisal[0] if document else np.zeros(0)


def _marks(arguments: Arguments, name: str, tokenizer, splitting, console):
    """What gives documents their marks."""
    from octavo.data.marks import SubwordMarks
    from octavo.tokenizers.interface import SubwordTokenizer

    if not (Path(name) / "config.json").is_file():
        scheme = _scheme(name)
        if not (scheme and issubclass(scheme, SubwordTokenizer) or Path(name).is_file()):
            raise ConfigError(
                f"--marks {name} is neither a run directory (it has no config.json), nor "
                f"{_TRAINED}, nor a tokenizer file."
            )
        subwords = _tokenizer(arguments, name, "subwords.json", splitting, console)
        return SubwordMarks(subwords, tokenizer)
    from octavo.run.directory import THRESHOLD
    from octavo.run.marks import EntropyMarks, keep_marker, read_rule
    from octavo.run.opened import open_run

    run = open_run(name)
    if run.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"{name} reads {run.tokenizer.name}, the corpus is of {tokenizer.name}; "
            "give both the same tokenizer."
        )
    if (Path(name) / THRESHOLD).is_file():  # the marker of another corpus: marks as there
        mark = EntropyMarks.of_run(run, read_rule(Path(name)))
    else:
        console.print("choosing the threshold of entropy ...")
        sample: list[bytes] = [*_training_text(splitting, 500_000)]
        rise, reset = arguments.entropy_rise, arguments.entropy_reset
        mark = EntropyMarks.with_rate(run, sample, 1 / arguments.unit_bytes, rise, reset)
    rule = mark.rule
    how = "rises by more than" if rule.rise else "is above"
    lines = ", each line by itself" if rule.reset else ""
    console.print(
        f"a unit ends where the entropy of the next byte {how} {rule.threshold:.3f}{lines}"
    )
    keep_marker(Path(name), mark, Path(arguments.out))
    return mark


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
