"""Measure ways to cut text: python schemes.py TEXT ... --of bytes corpora/bpe runs/hnet --out DIR

No score, and no checkpoint but where the units of one are asked for: bytes per token, words, parts
of characters, languages, vocabularies, numbers, morphemes, speed; each on the same text, with
intervals. DIR gets a page that shows the text as all cut it, the numbers and the vocabularies.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from octavo import cli, files, storage
from octavo.arguments import Range, check_output
from octavo.configs.checks import ConfigError
from octavo.evaluation.intrinsic import PAGE, TABLE, VALUES


@dataclass(frozen=True)
class Arguments:
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT ...")] = ()
    """Files and folders, as prepare.py takes them; of a prepared corpus, what it held out. None:
    the parallel text."""
    of: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SCHEME ...")] = ()
    """What cuts: schemes that need no training (bytes, words, ...), tokenizer files, prepared
    corpora, run directories."""
    reference: Annotated[str | None, tyro.conf.arg(metavar="SCHEME")] = None
    """The one of them whose length the others' are held against. None: the first."""
    parallel: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of parallel text, a file LANGUAGE.txt each, for the premiums of languages."""
    anchor: str = "eng"
    """The language that the others are held against."""
    morphemes: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Words with their morphemes: lines word, tab, morphemes with spaces between, and, if it is
    known, tab and lemma."""
    most_bytes: Annotated[int, Range(1, 1 << 40)] = 1_000_000
    """Read so much text of each label, at most."""
    out: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the page, the numbers (JSON and CSV) and the vocabularies. None: the table is
    printed, and that is all."""


def main() -> None:
    measure(cli.parse(Arguments, "schemes.py", __doc__))


def measure(arguments: Arguments) -> None:
    """Measure, print the table, write the folder."""
    _check(arguments)

    from rich.text import Text

    from octavo.evaluation.intrinsic import cuts, page, probes, text
    from octavo.evaluation.intrinsic.report import report, table, values
    from octavo.evaluation.parallel import read_parallel
    from octavo.evaluation.table import show

    gold = [] if arguments.morphemes is None else probes.read_morphemes(arguments.morphemes)
    parallel = None if arguments.parallel is None else read_parallel(arguments.parallel)
    if parallel and arguments.anchor not in parallel:
        raise ConfigError(f"no language {arguments.anchor!r}; there are {', '.join(parallel)}.")
    if arguments.texts:
        texts = text.read(arguments.texts, arguments.most_bytes)
    else:
        texts = [
            text.Text(line, name) for name, lines in (parallel or {}).items() for line in lines
        ]
    schemes = cuts.named(arguments.of)
    names = [scheme.name for scheme in schemes]
    reference = names[0] if arguments.reference is None else arguments.reference
    if reference not in names:
        raise ConfigError(f"--reference {reference} is none of {', '.join(names)}.")

    with cli.console(stderr=True).status("") as status:
        found = report(
            schemes, texts, names.index(reference), parallel, arguments.anchor, gold,
            lambda doing: status.update(Text(doing)),
        )  # fmt: skip
    size = sum(len(one.data) for one in texts)
    about = f"{len(texts):,} documents, {size:,} bytes; length is relative to {reference}"
    rows = [
        {"scheme": one.about["name"]} | {name: m.value for name, m in one.about["measures"].items()}
        for one in found
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    show(about, [{name: row.get(name) for name in columns} for row in rows], cli.console())
    if arguments.out is None:
        return
    out = Path(arguments.out)
    out.mkdir(exist_ok=True)
    told = {
        "texts": list(arguments.texts), "parallel": arguments.parallel,
        "morphemes": arguments.morphemes, "documents": len(texts), "bytes": size,
        "reference": reference, "anchor": arguments.anchor if parallel else None,
    }  # fmt: skip
    files.write_json(out / VALUES, told | {"schemes": values(found)})
    files.write(out / TABLE, table(found))
    for name, made in page.pages(found, texts, about).items():
        files.write(out / name, made)
    print(f"the page is {out / PAGE}")


def _check(arguments: Arguments) -> None:
    """Raise ConfigError for what cannot work, before anything is read."""
    if not arguments.of:
        raise ConfigError("name what cuts the text with --of: bytes, words, a corpus, a run.")
    if not arguments.texts and arguments.parallel is None:
        raise ConfigError("name a TEXT, or parallel text with --parallel.")
    if arguments.parallel is None and arguments.anchor != Arguments.anchor:
        raise ConfigError("--anchor is of --parallel, which is not given.")
    inputs = (*arguments.texts, arguments.parallel, arguments.morphemes, arguments.out)
    for name in filter(None, inputs):
        storage.refuse(name, "")
    if arguments.out is not None:
        _check_out(arguments)


def _check_out(arguments: Arguments) -> None:
    out, inputs = Path(arguments.out or ""), (*arguments.texts, *arguments.of, arguments.parallel)
    if any(one and os.path.realpath(one) == os.path.realpath(out) for one in inputs):
        raise ConfigError(f"--out {out} is what this command reads; name another folder.")
    if os.path.lexists(out):
        if not out.is_dir():
            raise ConfigError(f"--out {out} is no folder.")
        for name in (PAGE, VALUES, TABLE):
            check_output(str(out / name), "--out", *inputs, arguments.morphemes)
    else:
        check_output(str(out), "--out")


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
