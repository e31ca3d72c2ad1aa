"""Look at units: python view.py RUN [RUN ...] --text FILE --out PAGE.html

Writes one page, without anything from the network, that shows a text as each run cuts it, side by
side: units in colours, and on hover the probability of an end and the surprisal of every byte.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import tyro

from octavo import cli, storage
from octavo.arguments import Range, check_output, read_file
from octavo.configs.checks import ConfigError
from octavo.storage import is_url


@dataclass(frozen=True)
class Arguments:
    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run directories, as train.py printed them."""
    text: str | None = None
    """The text. None: the beginning of what the first run held out."""
    out: str = "units.html"
    """The page."""
    most_bytes: Annotated[int, Range(1, 1_000_000)] = 4000
    """Show this much of the text, at most; no character is cut."""


def main() -> None:
    view(cli.parse(Arguments, "view.py", (__doc__ or "").split("\n\n")[1]))


def view(arguments: Arguments) -> None:
    """Score the text with each run and write the page."""
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
    check_output(arguments.out, "--out", arguments.text, *arguments.runs)
    text = None if arguments.text is None else read_file(arguments.text, "--text")

    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus, heldout_documents
    from octavo.evaluation import viewer
    from octavo.run.opened import open_run

    views, text = [], text or b""
    for folder, path in zip(arguments.runs, paths, strict=True):
        run = open_run(folder)
        if arguments.text is None and not text:
            folders = [where for where, _ in parse_source(run.config.data.source)]
            check_output(arguments.out, "--out", *folders)
            documents = heldout_documents(
                [Corpus(where) for where in folders], arguments.most_bytes
            )
            text = b"\n".join(documents)
        text = viewer.beginning(text, arguments.most_bytes)
        if not text:
            raise ConfigError("there is no text to show: name a file with --text.")
        alike = sum(other.name == path.name for other in paths) > 1
        units = run.units(text)
        views.append((folder if alike else path.name, units))
        print(f"{folder}: {units.surprisal.sum() / len(text):.3f} bits/byte")
    storage.write(arguments.out, viewer.page(text, views))
    print(f"the page is {arguments.out}")


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
