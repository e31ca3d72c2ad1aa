"""Continue text: python generate.py RUN --prompt TEXT --bytes N --temperature T

The prompt comes from --prompt, or from standard input without it: any bytes, which may end inside a
character. Text is printed as it is drawn, in UTF-8 whatever the locale; bytes that are no UTF-8 as
U+FFFD. --speculative drafts several bytes at a time and changes nothing but the speed.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from octavo import cli
from octavo.arguments import Range
from octavo.configs.checks import SEEDS, ConfigError
from octavo.storage import is_url

MOST_DRAFT = 256
"""Ids drafted a pass, at most: each costs room in the cache of every pass."""
MOST_BYTES = 1_000_000
"""Added at a time, at most: the cache has room for all of them."""


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, as train.py printed it."""
    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Text to continue. None: read it from standard input."""
    bytes: Annotated[int, Range(1, MOST_BYTES)] = 300
    """How much to add, at most; the model may end the document before, and a character that this
    would cut is left out."""
    temperature: float = 0.8
    """Flattens (above 1) or sharpens (below 1) the distribution; 0 takes the most likely."""
    top_k: Annotated[int, Range(0)] = 0
    """Draw among the k most likely. 0: all."""
    top_p: float = 1.0
    """Draw among the fewest most likely that hold this much probability."""
    min_p: float = 0.0
    """Drop what is less likely than this share of the most likely."""
    typical: float = 1.0
    """Draw among the most typical that hold this much probability (locally typical)."""
    seed: Annotated[int, Range(0, SEEDS - 1)] = 0
    """The same seed draws the same text."""
    valid_utf8: tyro.conf.FlagCreatePairsOff[bool] = False
    """Draw only what goes on with valid UTF-8, and end the text only behind a whole character. Of a
    prompt that is not valid, what follows its last damage counts."""
    samples: Annotated[int, Range(1, 4096)] = 1
    """How many continuations, drawn side by side; several are printed one after the other."""
    speculative: Annotated[str, tyro.conf.arg(metavar="WHO")] = "auto"
    """Who drafts what one pass then verifies; the text stays what it would be. own: the model
    itself, trained to (multi-token prediction, Toucan). auto: own, and lookup where six ids or more
    repeat; none for other models. none: an id at a time. lookup: what followed the same ids before.
    recycling: what the model thought likely after the same ids. exit:N: the first N blocks.
    RUN: a smaller model, by rejection sampling (another text of the same distribution)."""
    draft: Annotated[int, Range(1, MOST_DRAFT)] = 7
    """Ids drafted at a time, for those that are not trained for a number."""


def main() -> None:
    generate(cli.parse(Arguments, "generate.py", (__doc__ or "").split("\n\n")[1], flags=True))


def generate(arguments: Arguments) -> None:
    """Draw and print."""
    from octavo.decoding import sampling

    try:
        how = sampling.Sampling(
            arguments.temperature, arguments.top_k, arguments.top_p, arguments.min_p,
            arguments.typical,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    prompt = _prompt(arguments)

    from octavo.run.opened import open_run

    run = open_run(arguments.run)
    drafter, acceptance = drafter_for(arguments, run), sampling.Acceptance()
    if len(prompt) > run.most_prompt:
        print(
            f"of the prompt's {len(prompt):,} bytes, the last {run.most_prompt:,} are read.",
            file=sys.stderr,
        )
    texts = run.continuations(
        prompt, arguments.bytes, how, samples=arguments.samples, seed=arguments.seed,
        drafter=drafter, acceptance=acceptance, valid_utf8=arguments.valid_utf8,
    )  # fmt: skip
    for number, pieces in enumerate(texts, 1):
        if len(texts) > 1:
            _write(f"--- {number}\n")
        for piece in pieces:
            _write(piece)
        _write("\n")
    if drafter is not None:
        print(f"{type(drafter).__name__}: {acceptance}", file=sys.stderr)


def _prompt(arguments: Arguments) -> bytes:
    """The prompt as it was given, byte for byte."""
    if arguments.prompt is not None:
        return os.fsencode(arguments.prompt)
    if sys.stdin is None:
        raise ConfigError("standard input is closed: give the prompt with --prompt.")
    if sys.stdin.isatty():
        print("The prompt, then Ctrl-D on a line of its own:", file=sys.stderr, flush=True)
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise ConfigError(f"standard input cannot be read: {error.strerror}.") from error


def _write(text: str) -> None:
    """Print in UTF-8, whatever the locale says."""
    if sys.stdout is not None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def drafter_for(arguments: Arguments, run):
    """The drafter that --speculative names, or None. Raises ConfigError if there is none such, or
    it does not go with the run."""
    from octavo.decoding import drafting
    from octavo.run.marks import NoMarks
    from octavo.run.opened import open_run

    name, colon, number = arguments.speculative.partition(":")
    own = drafting.own_drafter(run.config.model)
    if arguments.speculative == "auto":
        return None if own is None else drafting.Mixed(own)
    if arguments.speculative == "own":
        if own is None:
            raise ConfigError(f"{arguments.run} was not trained to draft; try lookup.")
        return own
    if arguments.speculative in ("none", "lookup", "recycling"):
        kinds = {"lookup": drafting.Lookup, "recycling": drafting.Recycling}
        return None if name == "none" else kinds[name](arguments.draft)
    if name == "exit" and colon:
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ConfigError(f"--speculative exit:N takes a number of blocks, not {number!r}.")
        return drafting.EarlyExit(run.config.model, int(number), arguments.draft)
    if not is_url(arguments.speculative) and not Path(arguments.speculative).is_dir():
        raise ConfigError(
            "--speculative is auto, own, none, lookup, recycling, exit:N or a run directory, "
            f"not {arguments.speculative!r}."
        )
    small = open_run(arguments.speculative)
    if small.tokenizer.fingerprint != run.tokenizer.fingerprint:
        raise ConfigError(f"{arguments.speculative} and {arguments.run} have different tokenizers.")
    if not isinstance(small.marker, NoMarks):
        raise ConfigError(f"{arguments.speculative} needs marks of another model: it cannot draft.")
    return drafting.Smaller(small.definition.bind, small.apart, small.length, arguments.draft)


def cli_main() -> None:
    cli.run(main, prints=True)


if __name__ == "__main__":
    cli_main()
