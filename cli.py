"""What the scripts share: arguments from types, and errors as one sentence and an exit code."""

import contextlib
import errno
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import tyro

from octavo.arguments import check_numbers
from octavo.configs import presets
from octavo.configs.schema import Config, ConfigError
from octavo.data.errors import DataError
from octavo.files import FileError
from octavo.training.errors import CheckpointError, StorageError

DONE, FAILED, WRONG_USE, PREEMPTED = 0, 1, 2, 75
"""Exit codes. 75 is EX_TEMPFAIL: stopped by a signal, nothing finished is lost; run it again."""


class RunError(Exception):
    """The run cannot go on. The message says why and what to do."""


class Preempted(Exception):
    """A signal asked to stop; all is saved."""


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
    check_numbers(parsed)
    return parsed


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


_elsewhere = ""


def continue_with(workdir: Path) -> None:
    """From here on, what was done lies in ``workdir``: messages say how to go on there."""
    global _elsewhere
    if not any(argument.startswith("--workdir") for argument in sys.argv):
        _elsewhere = f"{shlex.join(['python', *sys.argv])} --workdir {shlex.quote(str(workdir))}"


def _going_on() -> str:
    return f"continue with: {_elsewhere}" if _elsewhere else "the same command continues"


def _again() -> str:
    return f"run {_elsewhere}" if _elsewhere else "run the same command again"


def console(stderr: bool = False, quiet: bool = False):
    """A console of rich that prints what it is given as it is: names with [brackets] or :colons:,
    lines of any length."""
    from rich.console import Console

    return Console(
        stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
    )


def run(main: Callable[[], None]) -> None:
    """Run ``main`` and exit. Whatever ends it becomes one sentence on stderr and an exit code;
    ``--debug``, or OCTAVO_DEBUG=1, shows the stack too."""
    debug = bool(os.environ.get("OCTAVO_DEBUG"))
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        debug = True
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as under pythonw, or with it closed by the shell
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_failed
    # As Ctrl-C, unless somebody asked for them to be ignored, as nohup does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        main()
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        if debug:
            traceback.print_exc()
        _exit(*_outcome(error))


def _interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def _outcome(error: BaseException) -> tuple[str, int]:
    """What to say of an exception, and the exit code."""
    if isinstance(error, ConfigError | DataError):
        return str(error), WRONG_USE
    if isinstance(error, StorageError):
        return f"{error} Mend this, then {_again()}.", FAILED
    if isinstance(error, RunError | CheckpointError | FileError):
        return str(error), FAILED
    if isinstance(error, Preempted):
        return f"{error}; {_going_on()}.", PREEMPTED
    if isinstance(error, KeyboardInterrupt):
        by = str(error) or "Ctrl-C"
        return f"by {by}. What was finished is kept; {_again()}.", PREEMPTED
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
        return f"{what}. Saved work is kept. Mend this, then {_again()}.", FAILED
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
