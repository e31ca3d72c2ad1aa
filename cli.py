"""What the scripts share: arguments from types, and errors as one sentence and an exit code."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable

import tyro

from octavo.configs import presets
from octavo.configs.schema import Config, ConfigError
from octavo.data.errors import DataError
from octavo.training.errors import CheckpointError

DONE, FAILED, WRONG_USE, PREEMPTED = 0, 1, 2, 75
"""Exit codes. 75 is EX_TEMPFAIL: stopped by a signal with everything saved; run it again."""


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

    flags: booleans are flags without a value."""
    return tyro.cli(
        type_,
        prog=script,
        description=description,
        args=sys.argv[1:] if arguments is None else arguments,
        default=default,
        config=() if flags else (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )


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


def run(main: Callable[[], None]) -> None:
    """Run ``main`` and exit. Expected errors become one sentence on stderr, never a traceback."""
    threading.excepthook = _thread_failed
    try:
        main()
    except (ConfigError, DataError) as error:
        _exit(error, WRONG_USE)
    except (RunError, CheckpointError) as error:
        _exit(error, FAILED)
    except Preempted as error:
        _exit(error, PREEMPTED)
    except BrokenPipeError:  # the reader of our output went away, as with | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        _exit(f"{what}. Mend this, then run the same command again; saved work is kept.", FAILED)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    print(f"warning: a background thread failed: {failure.exc_value}", file=sys.stderr, flush=True)


def _exit(error: Exception | str, code: int) -> None:
    label = "stopped" if code == PREEMPTED else "error"
    print(f"{label}: {error}", file=sys.stderr, flush=True)
    if code == FAILED:
        # Threads of a run that failed would fail again, loudly, while Python shuts down.
        for child in multiprocessing.active_children():
            child.terminate()
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
