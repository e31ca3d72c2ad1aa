"""Look at units: python view.py RUN [RUN ...] --text FILE --out PAGE.html

Writes one page, without anything from the network, that shows a text as each run cuts it, side by
side: units in colours, and on hover the probability of an end and the surprisal of every byte.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from octavo import cli
from octavo.configs.schema import ConfigError


@dataclass(frozen=True)
class Arguments:
    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run directories, as train.py printed them."""
    text: str | None = None
    """The text. None: the beginning of what the first run held out."""
    out: str = "units.html"
    """The page."""
    most_bytes: int = 4000
    """Show this much of the text."""


def main() -> None:
    view(cli.parse(Arguments, "view.py", __doc__.split("\n\n")[1]))


def view(arguments: Arguments) -> None:
    """Score the text with each run and write the page."""
    if not arguments.runs:
        raise ConfigError("name at least one RUN.")
    if arguments.most_bytes < 1:
        raise ConfigError(f"--most-bytes must be above 0, not {arguments.most_bytes}.")

    from octavo.data.pipeline import parse_source
    from octavo.data.shards import Corpus, heldout_documents
    from octavo.evaluation import viewer
    from octavo.evaluation.run import open_run

    text = None
    if arguments.text:
        try:
            text = Path(arguments.text).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"--text {arguments.text} cannot be read: {error.strerror}."
            ) from error
    views = []
    for folder in arguments.runs:
        run = open_run(folder)
        if text is None:
            corpora = [Corpus(where) for where, _ in parse_source(run.config.data.source)]
            text = b"\n".join(heldout_documents(corpora, arguments.most_bytes))
        text = text[: arguments.most_bytes]
        if not text:
            raise ConfigError("there is no text to show: name a file with --text.")
        length = run.config.data.length
        settings = {"length": length, "overlap": length // 2, "batch_size": 4}
        views.append(viewer.view(run, Path(folder).name, text, settings))
        print(f"{folder}: {views[-1].bits.sum() / len(text):.3f} bits/byte")
    Path(arguments.out).write_text(viewer.page(text, views), encoding="utf-8")
    print(f"the page is {arguments.out}")


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
