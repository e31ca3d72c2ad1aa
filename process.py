"""What every process of ours keeps to: it ends with one sentence and leaves no child behind, a
signal is never lost, and output that nobody reads stops no work."""

import contextlib
import errno
import io
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

DONE, FAILED, WRONG_USE, STALLED, PREEMPTED = 0, 1, 2, 70, 75
"""Exit codes. 70: nothing moved for too long, or another host was lost or did not come: what a
launcher may begin again a few times. 75 is EX_TEMPFAIL: stopped by a signal, nothing finished is
lost; run it again."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to stop."""

PATIENCE = 5.0
"""Seconds that the main thread has to answer a signal: it may be in a compiler, or waiting."""


class Preempted(Exception):
    """A signal asked to stop; all is saved."""


class Peers(Protocol):
    """The other hosts of a run, as far as an end concerns them."""

    def await_cause(self, error: BaseException) -> None:
        """If ``error`` may come of another host's end, wait until that is known, and end."""

    def farewell(self, error: BaseException | None, sentence: str, code: int) -> None:
        """Tell the others."""


peers: Peers | None = None
kept = "What was finished is kept; run the same command again."
"""Said to who interrupts. Training that is finished says so here."""

closing: Callable[[], None] | None = None
"""Puts the terminal in order, where something shows there: called before the last words."""

_ending = threading.Lock()


def end(sentence: str, code: int, error: BaseException | None = None) -> None:
    """Say it, tell the other hosts, end the children, and go at once: threads of what failed would
    fail again, loudly, while Python shuts down. The first call counts; any other waits for it."""
    mute_signals()
    if peers and error is not None:
        peers.await_cause(error)
    _ending.acquire()
    if closing is not None:
        within(1, closing)
    if others := peers:
        orderly = code == DONE or isinstance(error, Preempted)
        within(70 if orderly else 10, lambda: others.farewell(error, sentence, code))
    within(5, lambda: _say(sentence, code))
    for child in multiprocessing.active_children():
        child.kill()  # their files are whole or absent, and some do not listen to SIGTERM
    os._exit(code)


def mute_signals() -> None:
    """For a process that ends already. The thread of ``catch_signals`` still sees them."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)


def _say(sentence: str, code: int) -> None:
    with contextlib.suppress(Exception):  # nobody may be reading
        if sentence:
            label = "stopped" if code == PREEMPTED else "error"
            # Past a lock that a stack may hold. Names of files may be no UTF-8.
            os.write(2, f"{label}: {sentence}\n".encode(errors="backslashreplace"))
        sys.stdout.flush()


def warn(sentence: str) -> None:
    """A sentence on standard error, while the work goes on."""
    label = "warning:"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        label = f"\x1b[1;33m{label}\x1b[0m"
    print(label, sentence, file=sys.stderr, flush=True)


def within(seconds: float, action: Callable[[], None]) -> None:
    """Do it, but wait no longer: a full pipe or a dead host must not keep us."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)


def is_script(file: str) -> bool:
    """Whether this process is a command that lies beside ``file``, or is installed as one; not a
    child of one."""
    called = Path(sys.argv[0])
    beside = called.is_file() and called.resolve().parent == Path(file).resolve().parent
    here = beside or called.name.startswith("octavo-")
    return here and multiprocessing.parent_process() is None


def catch_signals() -> None:
    """SIGTERM, SIGHUP and Ctrl-C end the process, unless somebody asked for them to be ignored, as
    nohup does. No exception is raised, which could come anywhere and be lost there.

    Where the main thread does not answer, because it is in compiled code or waits, or Ctrl-C comes
    twice, another thread does."""
    _fill_descriptors()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    pipe, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_answer, args=(pipe,), daemon=True).start()


def interrupt(number, frame):
    """What a signal does, except in a loop that saves first."""
    stop(name_of(number))


def stop(by: str) -> None:
    """End, as a signal of this name asked."""
    end(f"by {by}. {kept}", PREEMPTED, KeyboardInterrupt(by))


def name_of(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _answer(pipe: int) -> None:
    deadline, asked, first = None, 0, 0
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if select.select([pipe], [], [], left)[0]:
            number = os.read(pipe, 1)[0]
            asked += number == signal.SIGINT
            first = first or number
            if asked < 2:
                # Whoever else handles a signal, as a training loop does, answers it in time.
                if deadline is None and signal.getsignal(number) is interrupt:
                    deadline = time.monotonic() + PATIENCE
                continue
        if _ending.locked():
            if asked < 2:
                return  # an end has its own limits
            os._exit(PREEMPTED)
        stop(name_of(first))


def end_with_parent() -> None:
    """For a child process: go when the parent goes, even if that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is no child process"

    def watch():
        parent.join()
        os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()


_STARTER = "OCTAVO_STARTED_BY"


def with_starter() -> dict[str, str]:
    """The environment of a command of ours that is to end when this process does."""
    return os.environ | {_STARTER: str(os.getpid())}


def end_with_starter() -> None:
    """For a command: as on SIGTERM, save and stop when the process of ours that started it is
    gone, even if that was killed."""
    starter = int(os.environ.pop(_STARTER, 0))

    def watch():
        while os.getppid() == starter:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    if starter:
        threading.Thread(target=watch, daemon=True).start()


_QUIET = "ignore:resource_tracker:UserWarning"
"""For the helper of multiprocessing that frees what a process left, and warns of each."""


def alive(number: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


class deaf:
    """Children started in this block never see these signals: who sent them to all of a group or a
    terminal means the parent, which decides. Here they arrive at the end of the block."""

    def __init__(self, *signals: signal.Signals):
        self.signals = signals

    def __enter__(self):
        if _QUIET not in sys.warnoptions:
            sys.warnoptions.append(_QUIET)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)

    def __exit__(self, *_):
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


class NobodyReads(Exception):
    """The reader of our output went away, as with | head, and output was all there was to do."""


_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET)
"""A pipe without a reader, a terminal that hung up."""


class Output(io.FileIO):
    """Standard output or error. What cannot be written is dropped, and said once.

    Not with ``needed``, when output is the work itself: then NobodyReads or OSError is raised."""

    def __init__(self, descriptor: int, name: str, needed: bool):
        super().__init__(descriptor, "wb", closefd=False)
        self.called, self.needed = name, needed
        self.failure: OSError | None = None

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            gone = error.errno in _GONE
            error = OSError(error.errno, error.strerror, self.called)
            if self.needed:
                raise NobodyReads if gone else error from error
            if self.failure is None:
                self.failure = error
                if self.called == "standard output":
                    why = "nobody reads it any more" if gone else error.strerror
                    warn(f"standard output: {why}; going on.")
            return len(data)

    def check(self) -> None:
        """Raises OSError if output was lost that somebody may miss."""
        if self.failure is not None and self.failure.errno not in _GONE:
            raise self.failure


def guard_streams(needed: bool) -> None:
    """Make standard output and error of ``Output``. needed: output is the work itself."""
    _fill_descriptors()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  (for the process's life)
    sys.stderr = _guarded(sys.stderr, 2, "standard error", needed=False)
    sys.stdout = _guarded(sys.stdout, 1, "standard output", needed=needed)


def _fill_descriptors() -> None:
    """Closed ones would be given to the next file that is opened."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _guarded(stream, descriptor: int, name: str, needed: bool):
    if stream is None:  # closed by whoever started us
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Output(descriptor, name, needed)),
        encoding=stream.encoding,
        errors="backslashreplace",
        # With PYTHONUNBUFFERED streams have no lines; what is below would hold their text back.
        line_buffering=stream.line_buffering or stream.write_through,
    )


def check_output() -> None:
    """Flush standard output. Raises OSError if some was lost, other than to a reader who left."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Output):
        raw.check()
