"""Look at runs: python view.py RUN [RUN ...] --report, or --text FILE --out PAGE.html

Writes one page, without anything from the network. With --report: how the runs learned, what they
wrote and cut on the way, and what they are, made of their files alone. Otherwise a text as each run
cuts it, side by side: units in colours, and on hover the probability of an end and the surprisal of
every byte.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import tyro

from octavo import cli, storage
from octavo.arguments import Range, check_output, read_file
from octavo.brief import beginning
from octavo.configs.checks import ConfigError
from octavo.storage import is_url

if TYPE_CHECKING:
    from octavo.run.score import Units


@dataclass(frozen=True)
class Arguments:
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run directories, as train.py printed them."""
    report: tyro.conf.FlagCreatePairsOff[bool] = False
    """Curves, scores, samples and settings, instead of one text; with --text, both."""
    text: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """The text. None: the beginning of what the first run held out."""
    out: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """The page. None: units.html; a report of one run goes to RUN/report.html, of several to
    report.html."""
    most_bytes: Annotated[int, Range(1, 1_000_000)] = 4000
    """Show this much of the text, at most; no character is cut."""


def main() -> None:
    view(cli.parse(Arguments, "view.py", (__doc__ or "").split("\n\n")[1], flags=True))


def view(arguments: Arguments) -> None:
    """Write the page; score the text with each run, where there is one."""
    if not arguments.runs:
        raise ConfigError("name at least one RUN.")
    paths = [
        PurePosixPath(folder if is_url(folder) else os.path.realpath(folder))
        for folder in arguments.runs
    ]
    for folder, path in zip(arguments.runs, paths, strict=True):
        if paths.count(path) > 1:
            raise ConfigError(f"{folder} is named twice.")
        if not is_url(folder) and not Path(folder).is_dir():
            raise ConfigError(f"{folder} is no run directory: there is no such folder.")
    out = arguments.out or _place(arguments)
    check_output(out, "--out", arguments.text, *arguments.runs)
    text = None if arguments.text is None else read_file(arguments.text, "--text")

    from octavo.evaluation import viewer

    if not arguments.report:
        storage.write(out, viewer.page(*_units(arguments, paths, out, text)))
    else:
        storage.write(out, _report(arguments, paths, out, text))
    print(f"the page is {out}")


def _report(arguments: Arguments, paths: list[PurePosixPath], out: str, text: bytes | None) -> str:
    from octavo.evaluation.folder import Cut, check_run
    from octavo.evaluation.report import page
    from octavo.run.mirror import fetched

    with contextlib.ExitStack() as held:
        here = [held.enter_context(fetched(name, arrays=False)) for name in arguments.runs]
        for name, path in zip(arguments.runs, here, strict=True):
            check_run(name, path)
        cuts = []
        if text is not None:
            text, views = _units(arguments, paths, out, text)
            cuts = [Cut(name, text, u.surprisal, u.ends, u.probability) for name, u in views]
        return page(here, cuts)


def _place(arguments: Arguments) -> str:
    if not arguments.report:
        return "units.html"
    from octavo.run.directory import REPORT

    folder = arguments.runs[0] if len(arguments.runs) == 1 else ""
    return os.path.join(folder, REPORT)


def _units(
    arguments: Arguments, paths: list[PurePosixPath], out: str, text: bytes | None
) -> tuple[bytes, list[tuple[str, "Units"]]]:
    """The text that is shown, and how each run, by its name, cuts it. text: None: what was held
    out."""
    from octavo.data.heldout import heldout_documents
    from octavo.data.pipeline import folders_of, parse_source
    from octavo.data.shards import Corpus
    from octavo.run.opened import open_run

    views, text = [], text or b""
    for folder, path in zip(arguments.runs, paths, strict=True):
        run = open_run(folder)
        if arguments.text is None and not text:
            source = run.config.data.source
            check_output(out, "--out", *folders_of(source))
            corpora = [Corpus(part) for part, _ in parse_source(source)]
            documents = heldout_documents(corpora, arguments.most_bytes)
            text = b"\n".join(one.text for one in documents)
        text = beginning(text, arguments.most_bytes)
        if not text:
            raise ConfigError("there is no text to show: name a file with --text.")
        alike = sum(other.name == path.name for other in paths) > 1
        units = run.units(text)
        views.append((folder if alike else path.name, units))
        print(f"{folder}: {units.surprisal.sum() / len(text):.3f} bits/byte")
    return text, views


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
