"""What the scripts share: arguments from types, files to read and write, and errors as one sentence
and an exit code."""

import contextlib
import errno
import math
import multiprocessing
import os
import signal
import stat
import sys
import threading
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from octavo import files
from octavo.configs import presets
from octavo.configs.schema import MOST, Config, ConfigError
from octavo.data.errors import DataError
from octavo.files import FileError
from octavo.training.errors import CheckpointError

DONE, FAILED, WRONG_USE, PREEMPTED = 0, 1, 2, 75
"""Exit codes. 75 is EX_TEMPFAIL: stopped by a signal, nothing finished is lost; run it again."""


class RunError(Exception):
    """The run cannot go on. The message says why and what to do."""


class Preempted(Exception):
    """A signal asked to stop; all is saved."""


@dataclass(frozen=True)
class Range:
    """What a number among the arguments may be, both ends included: ``Annotated[int, Range(1)]``.
    Numbers without one are finite, and fit 64 bits."""

    least: int = -(2**63)
    most: int = MOST


_ANY = Range(most=2**63 - 1)


def parse(
    type_,
    script: str,
    description: str,
    arguments: list[str] | None = None,
    default=None,
    flags: bool = False,
):
    """Arguments as an instance of ``type_``; exits with code 2 and the nearest valid choice.

    flags: booleans are flags without a value. Raises ConfigError for a number out of its range."""
    parsed = tyro.cli(
        type_,
        prog=script,
        description=description,
        args=sys.argv[1:] if arguments is None else arguments,
        default=default,
        config=() if flags else (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
    for name, hint in typing.get_type_hints(type_, include_extras=True).items():
        ranges = [found for found in getattr(hint, "__metadata__", ()) if isinstance(found, Range)]
        _check_number(name, getattr(parsed, name), *(ranges or [_ANY]))
    return parsed


def _check_number(name: str, value: object, allowed: Range) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{flag} must be a finite number, not {value}.")
    if not allowed.least <= value <= allowed.most:
        raise ConfigError(f"{flag} lies in [{allowed.least}, {allowed.most}], not {value!s:.40}.")


def parse_config(script: str, description: str, arguments: list[str] | None = None):
    """``[PRESET] [--dotted.field VALUE ...]`` as (preset name, config)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    known = presets()
    name = "flat"
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"no preset {name!r}.{hint} Presets: {', '.join(known)}.")
    description += f" Presets: {', '.join(known)}."
    usage = f"{script} {name}"
    return name, parse(Config, usage, description, arguments, known[name])


def read_file(path: str, name: str) -> bytes:
    """All of a file that a person named; ``name`` says as what. Raises ConfigError if there is
    none, or it is something else."""
    try:
        kind = _kind(Path(path))
        if kind == "a file":
            return Path(path).read_bytes()
    except OSError as error:
        kind = error.strerror or str(error)
    what = kind if not kind.startswith("a ") else f"it is {kind}; name a file"
    raise ConfigError(f"{name} {path} cannot be read: {what}.".strip())


def check_output(path: str, name: str, *inputs: str | Path | None) -> Path:
    """The file that a person wants written. Raises ConfigError, before any work, if writing it
    could only fail, or would overwrite one of the inputs: files, or folders of runs and corpora."""
    out, shown = Path(path), f"{name} {path}".strip()
    try:
        kind = _kind(out) if out.exists() else "a file"
        if kind != "a file":
            raise ConfigError(f"{shown} cannot be written: it is {kind}; name a file.")
        if not out.parent.is_dir():
            raise ConfigError(f"there is no folder {out.parent} to write {out.name} to.")
        if any(_holds(Path(one), out) for one in inputs if one):
            raise ConfigError(f"{shown} is what this command reads; name another file.")
        files.probe(out)
    except OSError as error:
        raise ConfigError(f"{shown} cannot be written: {error.strerror}.") from error
    return out


def _kind(path: Path) -> str:
    """What lies at a path, in words."""
    mode = path.stat().st_mode
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe (FIFO)",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


_PARTS = (
    "config.json", "tokenizer.json", "metrics.jsonl", "results.json", "sample.txt", "checkpoints",
    "tensorboard", "marker", "manifest.json", "subwords.json",
)  # fmt: skip
"""What runs and corpora consist of, beside shards."""


def _holds(one: Path, out: Path) -> bool:
    """Whether an input is the very file ``out``, or a folder that it is a part of."""
    if not one.exists():
        return False
    if not one.is_dir():
        return out.exists() and one.samefile(out)
    at, folder = Path(os.path.realpath(out)), os.path.realpath(one)
    if not at.is_relative_to(folder):
        return False
    inside = at.relative_to(folder)
    return inside.parts[0] in _PARTS or inside.suffix == ".array_record"


def console(stderr: bool = False):
    """A console of rich that prints what it is given as it is: names with [brackets] or :colons:,
    lines of any length."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def run(main: Callable[[], None]) -> None:
    """Run ``main`` and exit. Whatever ends it becomes one sentence on stderr and an exit code;
    ``--debug``, or OCTAVO_DEBUG=1, shows the stack too."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as under pythonw, or with it closed by the shell
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_failed
    # As Ctrl-C, unless somebody asked for them to be ignored, as nohup does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if failed := outcome_of(main):
        _exit(*failed)


def outcome_of(main: Callable[[], None]) -> tuple[str, int] | None:
    """Run ``main``. None if it came to its end, else what to say and the exit code. Raises only the
    SystemExit of the parser of arguments, which has said it all."""
    debug = bool(os.environ.get("OCTAVO_DEBUG"))
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        debug = True
    try:
        main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return _outcome(error)
    return None


def _interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def _outcome(error: BaseException) -> tuple[str, int]:
    """What to say of an exception, and the exit code."""
    if isinstance(error, ConfigError | DataError):
        return str(error), WRONG_USE
    if isinstance(error, RunError | CheckpointError | FileError):
        return str(error), FAILED
    if isinstance(error, Preempted):
        return str(error), PREEMPTED
    if isinstance(error, KeyboardInterrupt):
        by = str(error) or "Ctrl-C"
        return f"by {by}. What was finished is kept; run the same command again.", PREEMPTED
    if isinstance(error, BrokenPipeError):  # the reader of our output went away, as with | head
        return "", DONE
    first = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in first or "out of memory" in first:
        return (
            f"there is not enough memory ({first or 'MemoryError'}). Ask for less at a time: a "
            "smaller batch or shorter rows, more --train.accumulation, or fewer processes."
        ), FAILED
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{error.filename!s:.80}: {error.strerror}. Name another file.", WRONG_USE
    if isinstance(error, OSError) and error.errno:
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        return f"{what}. Mend this, then run the same command again; saved work is kept.", FAILED
    kind = type(error).__name__
    return (
        f"{kind}: {first or 'no message'} ({_where(error)}). This should not happen; --debug shows "
        "the stack. Saved work is kept."
    ), FAILED


def _where(error: BaseException) -> str:
    """The innermost line of our own that an exception came through."""
    own = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(own)] or frames
    if not ours:
        return "nowhere"
    name = Path(ours[-1].filename)
    shown = name.relative_to(own) if name.is_relative_to(own) else name.name
    return f"{shown}, line {ours[-1].lineno}"


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    print(f"warning: a background thread failed: {failure.exc_value}", file=sys.stderr, flush=True)


def _exit(sentence: str, code: int) -> None:
    """Say it, end the children, and go at once: threads of what failed would fail again, loudly,
    while Python shuts down."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # already ending
    with contextlib.suppress(OSError, ValueError):  # nobody may be reading
        sys.stdout.flush()
        if sentence:
            label = "stopped" if code == PREEMPTED else "error"
            print(f"{label}: {sentence}", file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(code)
