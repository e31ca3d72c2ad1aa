"""Compress a text with a checkpoint: python compress.py RUN FILE OUT

and back: python compress.py --decompress RUN OUT FILE. The size is what the score in bits per byte
promises; the coder loses nothing, so the bytes come back.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from octavo import cli, storage
from octavo.arguments import check_output, read_file
from octavo.configs.checks import ConfigError


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, as train.py printed it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File to read."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """File to write."""
    exact: tyro.conf.FlagCreatePairsOff[bool] = False
    """Code bytes by all ids that spell them (evaluate.py --exact), not the tokenizer's ids. A file
    says how it was written."""
    decompress: tyro.conf.FlagCreatePairsOff[bool] = False
    """Give the text back from what compress.py wrote."""


def main() -> None:
    compress(cli.parse(Arguments, "compress.py", __doc__, flags=True))


def compress(arguments: Arguments) -> None:
    """Compress or decompress; prints what came of it."""
    out = check_output(arguments.out, "", arguments.source, arguments.run)
    if arguments.exact and arguments.decompress:
        raise ConfigError("--exact is for compressing.")
    data = read_file(arguments.source, "")

    from rich.progress import Progress

    from octavo.run.errors import CodecError
    from octavo.run.opened import open_run

    run = open_run(arguments.run)
    errors = cli.console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        total = None
        if not arguments.decompress:
            total = len(data if arguments.exact else run.tokenizer.encode(data)) + 1
        task = bar.add_task("bytes" if arguments.exact else "ids", total=total)

        def progress(done: int) -> None:
            if done % 64 == 0:
                bar.update(task, completed=done)

        try:
            if arguments.decompress:
                made = run.decompress(data, progress)
            else:
                made = run.compress(data, progress, exact=arguments.exact)
        except CodecError as error:
            verb = "decompressed" if arguments.decompress else "compressed"
            raise ConfigError(f"{arguments.source} cannot be {verb}: {error}.") from error
    storage.write(out, made)
    text, packed = (made, data) if arguments.decompress else (data, made)
    rate = f", {8 * len(packed) / len(text):.3f} bits per byte" if text else ""
    cli.console().print(f"{len(data):,} bytes to {len(made):,} in {out}{rate}")


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
