"""What the scripts share: arguments from types, and errors as one sentence and an exit code."""

import errno
import functools
import os
import platform
import shlex
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from octavo import machine, process

_STARTED = process.is_script(__file__)
if _STARTED:  # what is imported from here on takes a while, and a signal may come
    process.catch_signals()

import tyro

from octavo.arguments import check_numbers
from octavo.configs.checks import ConfigError
from octavo.data.errors import DataError, WorkerError
from octavo.files import FileError, shown
from octavo.process import DONE, FAILED, PREEMPTED, STALLED, WRONG_USE, Preempted
from octavo.run.errors import CheckpointError, StorageError
from octavo.training.errors import DeviceError, HostsError


class RunError(Exception):
    """The run cannot go on. The message says why and what to do."""


T = TypeVar("T")


def parse(
    type_: type[T],
    script: str,
    description: str | None,
    arguments: list[str] | None = None,
    default: T | None = None,
    flags: bool = False,
) -> T:
    """Arguments as an instance of ``type_``; exits with code 2 and the nearest valid choice.

    flags: booleans are flags without a value. Raises ConfigError for a number out of its range."""
    parsed: T = tyro.cli(  # pyright: ignore[reportAssignmentType]  (tyro's return follows default)
        type_,
        prog=script,
        description=description,
        args=sys.argv[1:] if arguments is None else arguments,
        default=default,
        config=() if flags else (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
    check_numbers(parsed)
    return parsed


_command = ""


def continue_with(workdir: Path) -> None:
    """From here on, ``workdir`` holds all that the command needs to go on: messages say how."""
    global _command
    if _STARTED:
        called = [] if Path(sys.argv[0]).name.startswith("octavo-") else ["python"]
        _command = shlex.join([*called, sys.argv[0], "--workdir", shown(str(workdir))])
        process.kept = f"What was finished is kept; {again()}."


def _going_on() -> str:
    return f"continue with: {_command}" if _command else "the same command continues"


def again() -> str:
    """What a person does to go on."""
    return f"run {_command}" if _command else "run the same command again"


def console(stderr: bool = False, quiet: bool = False):
    """A console of rich that prints what it is given as it is: names with [brackets] or :colons:,
    lines of any length."""
    from rich.console import Console as RichConsole

    class Console(RichConsole):
        def print(self, *what, **how):
            super().print(*(shown(x) if isinstance(x, str) else x for x in what), **how)

    return Console(
        stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
    )


def run(main: Callable[[], None], prints: bool = False) -> None:
    """Run ``main`` and exit. Whatever ends it becomes one sentence on stderr and an exit code;
    ``--debug``, or OCTAVO_DEBUG=1, shows the stack too.

    prints: what it prints is its work, and there is nothing to do when nobody reads it."""
    debug = bool(os.environ.get("OCTAVO_DEBUG"))
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        debug = True
    if not debug:  # what fails behind main's back is no reason for a stack
        threading.excepthook = sys.unraisablehook = _behind
        sys.excepthook = lambda kind, error, trace: _say_behind(repr(error))
    process.guard_streams(needed=prints)
    if not _STARTED:
        process.catch_signals()
    process.end_with_starter()
    machine.keep_programs()
    machine.keep_memory()
    try:
        print(version()) if "--version" in sys.argv[1:] else main()
        process.check_output()
        if process.peers:  # leave together, and not by the barriers of what may hang
            process.end("", DONE)
    except SystemExit:
        raise
    except BaseException as error:
        process.mute_signals()
        if debug:
            traceback.print_exc()
        said, code = _outcome(error)
        process.end(shown(said), code, error)


def version() -> str:
    """Of octavo, and of what it computes with. Nothing is imported for it."""
    from importlib import metadata

    root = Path(__file__).parent
    if (root / "pyproject.toml").is_file():  # a checkout, whichever octavo is installed
        import tomllib

        own = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    else:
        own = metadata.version("octavo")
    libraries = (f"{name} {metadata.version(name)}" for name in ("jax", "flax", "orbax-checkpoint"))
    return f"octavo {own} (Python {platform.python_version()}, {', '.join(libraries)})"


def sentence(error: BaseException) -> str:
    """What to say of an exception."""
    return shown(_outcome(error)[0])


def _outcome(error: BaseException) -> tuple[str, int]:
    """What to say of an exception, and the exit code."""
    if isinstance(error, ConfigError | DataError):
        return str(error), WRONG_USE
    if isinstance(error, StorageError):
        return f"{error} Mend this, then {again()}.", FAILED
    if isinstance(error, RunError | CheckpointError | FileError | DeviceError | WorkerError):
        return str(error), FAILED
    if isinstance(error, HostsError):
        return str(error), STALLED
    if isinstance(error, Preempted):
        return f"{error}; {_going_on()}.", PREEMPTED
    if isinstance(error, KeyboardInterrupt):
        return f"by {str(error) or 'Ctrl-C'}. {process.kept}", PREEMPTED
    if isinstance(error, process.NobodyReads):
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
        return f"{what}. Saved work is kept. Mend this, then {again()}.", FAILED
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


@functools.cache  # what many threads stumble over is said once
def _say_behind(what: str) -> None:
    process.warn(f"in the background: {what}")


def _behind(failure) -> None:
    _say_behind(repr(failure.exc_value))
