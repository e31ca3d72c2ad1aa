"""Run a command, and begin it again when it was stopped or lost a machine:

    python -m octavo.launch.again octavo-train flat-1b --workdir gs://bucket/runs/flat-1b ...

Again: on 75 (stopped by a signal, all saved), 70 (nothing moved, or a host was lost) and death by a
signal (128 and more, of which 255 is what ssh says of a lost host). Never on 0, 1, 2 and the like.
A signal to this process is passed on, and is the end: whoever sent it gets the command's exit code.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from octavo import process, storage


class Signals:
    """What this process is sent, one by one; none is lost, whenever it comes."""

    def __init__(self):
        self._pipe, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in (*process.SIGNALS, signal.SIGCHLD):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
                signal.signal(number, lambda number, frame: None)

    def wait(self, seconds: float | None = None) -> list[int]:
        """Wait for a signal, or the end of a child, for so long at most. Gives the signals."""
        if not select.select([self._pipe], [], [], seconds)[0]:
            return []
        return [number for number in os.read(self._pipe, 1000) if number != signal.SIGCHLD]

    def within(self, seconds: float) -> bool:
        """Whether a signal comes within so long, whatever children do."""
        end = time.monotonic() + seconds
        while True:
            left = max(end - time.monotonic(), 0)
            if self.wait(left):
                return True
            if not left:
                return False


def code_of(job: subprocess.Popen) -> int:
    """The exit code of a process that ended, as shells say it."""
    return job.returncode if job.returncode >= 0 else 128 - job.returncode


def newest(run: str) -> int:
    """The step of the newest checkpoint of a run; -1 if none can be seen from here."""
    found: list[int] = []

    def look() -> None:
        if storage.is_url(run):
            fs, place = storage.opened(run)
            names = [str(name) for name in fs.ls(f"{place}/checkpoints", detail=False)]
        else:
            names = os.listdir(os.path.join(run, "checkpoints"))
        last = [name.rstrip("/").rpartition("/")[2] for name in names]
        found.extend(int(name) for name in last if name.isdecimal())

    def look_quietly() -> None:
        try:
            look()
        except Exception:  # whatever the library of a store makes of it
            pass

    process.within(storage.ANSWER_SECONDS, look_quietly)
    return max(found, default=-1)


def again(command: list[str], times: int, pause: float, ends: Sequence[int] = ()) -> int:
    """Run a command to an end that is none to begin again after; returns its exit code.

    times: beginnings in a row without a new checkpoint in its ``--workdir``; without one, or where
    it cannot be seen from here, all beginnings. pause: seconds before the first of those, twice as
    many before the second, and so on. ends: further codes to end at."""
    run = next((b for a, b in zip(command, command[1:], strict=False) if a == "--workdir"), "")
    run = next((a.partition("=")[2] for a in command if a.startswith("--workdir=")), run)
    signals, best, idle = Signals(), newest(run), 0
    while True:
        try:  # in a group of its own: Ctrl-C of a terminal comes by us, and once
            job = subprocess.Popen(command, process_group=0)
        except OSError as error:
            print(f"error: {command[0]}: {error.strerror}.", file=sys.stderr)
            return 127
        asked = False
        while job.poll() is None:
            for number in signals.wait():
                asked = True
                job.send_signal(number)
        code = code_of(job)
        stopped = code in (process.STALLED, process.PREEMPTED) or code >= 128
        if asked or code in ends or not stopped:
            return code
        now = newest(run)
        best, idle = (now, 0) if now > best else (best, idle + 1)
        said = f"again: exit code {code}"
        said += f"; step {best} is saved" if best >= 0 else "; no checkpoint is seen"
        said += f", and {idle} in a row brought no new one" if idle else ""
        if idle > times:
            print(f"{said}: given up.", file=sys.stderr)
            return code
        print(f"{said}: again in {idle * pause:g} seconds.", file=sys.stderr, flush=True)
        if signals.within(idle * pause):
            return code


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m octavo.launch.again",
        description="Run a command, and begin it again when it was stopped or lost a machine.",
        epilog="Exit codes 70, 75 and from 128 on begin it again, unless a signal came to this "
        "process, which passes it on.",
    )
    parser.add_argument(
        "--times", type=int, default=5,
        help="beginnings in a row without a new checkpoint in the command's --workdir; where that "
        "is not seen from here, all beginnings (default: 5)",
    )  # fmt: skip
    parser.add_argument(
        "--pause", type=float, default=10, metavar="SECONDS",
        help="before the first of them, twice as long before the second, and so on (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--except", type=int, nargs=1, action="extend", default=[], dest="ends", metavar="CODE",
        help="end at this one, too: 75 where what runs this begins again by itself",
    )  # fmt: skip
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    given = parser.parse_args()
    if given.command[:1] == ["--"]:
        del given.command[0]
    if not given.command:
        parser.error("there is no command")
    sys.exit(again(given.command, given.times, given.pause, given.ends))


if __name__ == "__main__":
    main()
