"""Continue text: python generate.py RUN --prompt TEXT --bytes N --temperature T

The prompt comes from --prompt, or from standard input without it. Text is printed as it is drawn.
--speculative drafts several bytes at a time and changes nothing but the speed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from octavo import cli
from octavo.configs.schema import ConfigError


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional]
    """Run directory, as train.py printed it."""
    prompt: str | None = None
    """Text to continue. None: read it from standard input."""
    bytes: int = 300
    """How much to add, at most; the model may end the document before."""
    temperature: float = 0.8
    """Flattens (above 1) or sharpens (below 1) the distribution; 0 takes the most likely."""
    top_k: int = 0
    """Draw among the k most likely. 0: all."""
    top_p: float = 1.0
    """Draw among the fewest most likely that hold this much probability."""
    min_p: float = 0.0
    """Drop what is less likely than this share of the most likely."""
    typical: float = 1.0
    """Draw among the most typical that hold this much probability (locally typical)."""
    seed: int = 0
    """The same seed draws the same text."""
    samples: int = 1
    """How many continuations, drawn side by side; several are printed one after the other."""
    speculative: str = "auto"
    """Who drafts what one pass then verifies; the text stays what it would be. own: the model
    itself, trained to (multi-token prediction, Toucan). auto: own, and lookup where six ids or more
    repeat; none for other models. none: an id at a time. lookup: what followed the same ids before.
    recycling: what the model thought likely after the same ids. exit:N: the first N blocks.
    RUN: a smaller model, by rejection sampling (another text of the same distribution)."""
    draft: int = 7
    """Ids drafted at a time, for those that are not trained for a number."""


def main() -> None:
    generate(cli.parse(Arguments, "generate.py", __doc__.split("\n\n")[1]))


def generate(arguments: Arguments) -> None:
    """Draw and print."""
    from octavo.model import sampling

    try:
        how = sampling.Sampling(
            arguments.temperature, arguments.top_k, arguments.top_p, arguments.min_p,
            arguments.typical,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    for name in ("bytes", "samples", "draft"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} must be above 0, not {getattr(arguments, name)}.")
    if arguments.prompt is None:
        prompt = sys.stdin.buffer.read()
    else:
        prompt = arguments.prompt.encode("utf-8", errors="surrogateescape")

    from octavo.evaluation.run import open_run

    run = open_run(arguments.run)
    drafter, acceptance = drafter_for(arguments, run), sampling.Acceptance()
    pieces = sampling.generate(
        run.definition.bind, run.params, [run.tokenizer.encode(prompt)] * arguments.samples,
        arguments.bytes, sampling=how, seed=arguments.seed, bos_id=run.tokenizer.bos_id,
        eos_id=run.tokenizer.eos_id, marker=run.marker, context=run.config.data.length,
        drafter=drafter, acceptance=acceptance,
    )  # fmt: skip
    shown = prompt.decode("utf-8", errors="replace")
    if arguments.samples == 1:
        print(shown, end="", flush=True)
        for text in sampling.plain_text(pieces, run.tokenizer, most_bytes=arguments.bytes):
            print(text, end="", flush=True)
        print()
    else:
        drawn = list(pieces)
        for row in range(arguments.samples):
            text = sampling.plain_text(iter(drawn), run.tokenizer, row, arguments.bytes)
            print(f"--- {row + 1}\n{shown}{''.join(text)}")
    if drafter is not None:
        print(f"{type(drafter).__name__}: {acceptance}", file=sys.stderr)


def drafter_for(arguments: Arguments, run):
    """The drafter that --speculative names, or None. Raises ConfigError if there is none such, or
    it does not go with the run."""
    from octavo.evaluation.marks import NoMarks
    from octavo.evaluation.run import open_run
    from octavo.model import drafting

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
        if not number.isdigit():
            raise ConfigError(f"--speculative exit:N takes a number of blocks, not {number!r}.")
        return drafting.EarlyExit(run.config.model, int(number), arguments.draft)
    if not Path(arguments.speculative).is_dir():
        raise ConfigError(
            "--speculative is auto, own, none, lookup, recycling, exit:N or a run directory, "
            f"not {arguments.speculative!r}."
        )
    small = open_run(arguments.speculative)
    if small.tokenizer.fingerprint != run.tokenizer.fingerprint:
        raise ConfigError(f"{arguments.speculative} and {arguments.run} have different tokenizers.")
    if not isinstance(small.marker, NoMarks):
        raise ConfigError(f"{arguments.speculative} needs marks of another model: it cannot draft.")
    return drafting.Smaller(
        small.definition.bind, small.params, small.config.data.length, arguments.draft
    )


def cli_main() -> None:
    cli.run(main, prints=True)


if __name__ == "__main__":
    cli_main()
