"""Continue text: python generate.py RUN --prompt TEXT --bytes N --temperature T

The prompt comes from --prompt, or from standard input without it: any bytes, which may end inside a
character; several come from --prompts. Text is printed as it is drawn, in UTF-8 whatever the
locale; bytes that are no UTF-8 as U+FFFD. --jsonl says more of each text. --speculative drafts
several bytes at a time and changes nothing but the speed.
"""

import base64
import binascii
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from octavo import cli, files, storage
from octavo.arguments import Range, check_output, read_file
from octavo.configs.checks import SEEDS, ConfigError
from octavo.storage import is_url

if TYPE_CHECKING:
    from octavo.decoding.sampling import Sampling
    from octavo.run.opened import Run
    from octavo.run.samples import Sample

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
    prompts: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Continue each of the prompts of a file: of a .jsonl file, objects with "prompt" (or
    "prompt_base64", for any bytes), one a line; of any other, its lines."""
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
    regex: Annotated[str | None, tyro.conf.arg(metavar="PATTERN")] = None
    """Draw only what goes on with a text that matches all of this pattern of Python's re, and end
    the text only there; what --bytes or --stop cut need not match. Of bytes; with --valid-utf8, of
    characters. References, look-around and anchors inside are refused."""
    stop: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TEXT")
    ] = ()  # fmt: skip
    """End each text before the first of these that is drawn; may be given several times."""
    samples: Annotated[int, Range(1, 4096)] = 1
    """How many continuations of each prompt, drawn side by side; several are printed one after the
    other."""
    jsonl: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Write a line of JSON for each text to OUT (-: standard output), and print none: prompt, text,
    bytes, finish (stop, end, length), log_probability and sampling_log_probability (nats), ids,
    units. Text that is no UTF-8 is also given as prompt_base64 and text_base64."""
    batch_size: Annotated[int, Range(1, 65_536)] = 64
    """Of --prompts and --jsonl: texts drawn side by side."""
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
    _check(arguments)
    prompts = [_prompt(arguments)] if arguments.prompts is None else _prompts(arguments.prompts)

    from octavo.run.opened import open_run

    run = open_run(arguments.run)
    drafter, acceptance = drafter_for(arguments, run), sampling.Acceptance()
    for prompt in prompts:
        if len(prompt) > run.most_prompt:
            print(
                f"of the prompt's {len(prompt):,} bytes, the last {run.most_prompt:,} are read.",
                file=sys.stderr,
            )
    about: dict[str, Any] = {
        "samples": arguments.samples, "seed": arguments.seed, "drafter": drafter,
        "stop": [os.fsencode(one) for one in arguments.stop],
        "valid_utf8": arguments.valid_utf8, "regex": arguments.regex,
    }  # fmt: skip
    if arguments.prompts is not None or arguments.jsonl is not None:
        _many(arguments, run, prompts, how, about)
        return
    [prompt] = prompts
    texts = run.continuations(prompt, arguments.bytes, how, acceptance=acceptance, **about)
    for number, pieces in enumerate(texts, 1):
        if len(texts) > 1:
            _write(f"--- {number}\n")
        for piece in pieces:
            _write(piece)
        _write("\n")
    _say_cut(arguments, sum(pieces.finish == "length" for pieces in texts), len(texts))
    if drafter is not None:
        print(f"{type(drafter).__name__}: {acceptance}", file=sys.stderr)


def _many(
    arguments: Arguments, run: "Run", prompts: list[bytes], how: "Sampling", about: dict
) -> None:
    """Draw batch by batch, and print, or write lines of JSON."""
    from rich.progress import Progress

    errors = cli.console(stderr=True)
    lines: list[str] = []
    cut = 0
    quiet = not errors.is_terminal or arguments.jsonl in (None, "-")
    with Progress(console=errors, transient=True, disable=quiet) as bar:
        task = bar.add_task("drawing", total=len(prompts) * arguments.samples)
        found = run.samples(
            prompts, arguments.bytes, how, batch_size=arguments.batch_size, **about,
            progress=lambda done, of: bar.update(task, completed=done),
        )  # fmt: skip
        for number, sample in enumerate(found):
            cut += sample.finish == "length"
            of_prompt, each = (1 + i for i in divmod(number, arguments.samples))
            name = f"{of_prompt}.{each}" if arguments.samples > 1 else f"{of_prompt}"
            if arguments.jsonl is None:
                _write(f"--- {name}\n{(sample.prompt + sample.data).decode(errors='replace')}\n")
                continue
            line = files.json_text({"number": of_prompt, "sample": each} | _told(sample)) + "\n"
            if arguments.jsonl == "-":
                _write(line)
            lines.append(line)
    if arguments.jsonl not in (None, "-"):
        storage.write(arguments.jsonl, "".join(lines))
    _say_cut(arguments, cut, len(prompts) * arguments.samples)


def _say_cut(arguments: Arguments, cut: int, of: int) -> None:
    if arguments.regex is not None and cut:
        print(
            f"{cut} of {of} texts were cut at --bytes {arguments.bytes}: they need not match the "
            "pattern whole.",
            file=sys.stderr,
        )


def _told(sample: "Sample") -> dict[str, Any]:
    """What a line of JSON says of a sample."""
    return {
        **_text("prompt", sample.prompt),
        **_text("text", sample.data),
        "bytes": len(sample.data),
        "finish": sample.finish,
        "log_probability": sample.log_p,
        "sampling_log_probability": sample.drawn_log_p,
        "ids": sample.ids,
        "units": sample.units,
    }


def _text(name: str, data: bytes) -> dict[str, str]:
    """Bytes as text, and in base64 too if they are no UTF-8: then U+FFFD stands for some."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        return {name: text, f"{name}_base64": base64.b64encode(data).decode()}


def _check(arguments: Arguments) -> None:
    """Raise ConfigError for what does not go together, or cannot be written."""
    if arguments.prompt is not None and arguments.prompts is not None:
        raise ConfigError("give one of --prompt and --prompts, not both.")
    if not all(arguments.stop):
        raise ConfigError("--stop takes a text of a byte at least.")
    if arguments.jsonl not in (None, "-"):
        check_output(arguments.jsonl, "--jsonl", arguments.run, arguments.prompts)


def _prompts(path: str) -> list[bytes]:
    """The prompts of a file."""
    data = read_file(path, "--prompts")
    lines = data.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines  # which the last line's end made
    if not lines:
        raise ConfigError(f"--prompts {path} is empty; there is nothing to continue.")
    if not path.endswith(".jsonl"):
        return [line.removesuffix(b"\r") for line in lines]
    return list(_of_json(path, lines))


def _of_json(path: str, lines: list[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"--prompts {path}, line {number}"
        found = files.parse_json(line, name=where, error=ConfigError, fault="")
        about = found if isinstance(found, dict) else {}
        text, coded = about.get("prompt"), about.get("prompt_base64")
        try:
            if isinstance(coded, str):
                yield base64.b64decode(coded, validate=True)
                continue
            if isinstance(text, str):
                yield text.encode("utf-8", "surrogateescape")
                continue
        except (binascii.Error, ValueError) as error:
            raise ConfigError(f"{where}: the prompt is no text: {error}.") from error
        raise ConfigError(
            f'{where} is no prompt: each line is an object with "prompt", a text, or '
            '"prompt_base64".'
        )


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
