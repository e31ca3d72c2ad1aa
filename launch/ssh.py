"""Train one run on all hosts of a list, a process each, which has all GPUs (or CPUs) of its host:

    python -m octavo.launch.again python -m octavo.launch.ssh HOSTS \\
        .venv/bin/octavo-train flat-1b --train.distributed True --workdir /shared/runs/flat-1b

HOSTS is a file: a line is [user@]name or an alias of ssh's config, host 0 first; # begins a
comment. ssh reaches them without a password, and on each the command is run in the same folder as
here.

Ctrl-C, TERM and HUP are passed on to all, which save and stop. Where one host ends otherwise than
well, so do the others, by themselves or told to. The exit code is the highest of all: 255 is of
ssh, where a host was lost or its command died by a signal. What a host still runs of this when it
is begun again is ended first.
"""

import argparse
import hashlib
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from octavo.launch.again import Signals, code_of

_SSH = (
    "ssh", "-n", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
    "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
)  # fmt: skip
"""No questions; a host that does not answer for a minute is lost."""

_ALIVE = (
    'p=$(cat "$f" 2> /dev/null) && grep -qzx "OCTAVO_LAUNCHED=$m" "/proc/$p/environ" 2> /dev/null'
)
"""Whether what was begun still runs: by its number, and as numbers come again, by its mark."""


def hosts_of(file: str) -> list[str]:
    """Raises OSError, or UnicodeDecodeError."""
    lines = [line.partition("#")[0].split() for line in Path(file).read_text().splitlines()]
    return [words[0] for words in lines if words]


class Hosts:
    """One command on all hosts."""

    def __init__(self, names: list[str], command: list[str], folder: str, address: str):
        self.names, self._command, self._folder = names, shlex.join(command), folder
        self._address = address
        self._mark = "octavo-" + hashlib.sha256(repr((names, command)).encode()).hexdigest()[:12]

    def run(self, index: int, log: Path) -> subprocess.Popen:
        """Begin on a host; what it says goes behind what is in the file."""
        script = (
            f"i=0; while {_ALIVE}; do [ $i = 0 ] && kill -TERM $p; [ $i -ge 60 ] && kill -KILL $p; "
            f"i=$((i + 1)); sleep 1; done; cd {shlex.quote(self._folder)} && echo $$ > $f && exec "
            f"env OCTAVO_LAUNCHED=$m JAX_COORDINATOR_ADDRESS={shlex.quote(self._address)} "
            f"JAX_NUM_PROCESSES={len(self.names)} JAX_PROCESS_ID={index} {self._command}"
        )
        with log.open("ab") as out:
            if index:
                return self._there(index, script, stdout=out, stderr=out)
        job = self._there(index, script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        subprocess.Popen(["tee", "-a", log], stdin=job.stdout, process_group=0)  # host 0: here, too
        return job

    def stop(self, index: int, number: int) -> subprocess.Popen:
        """Send a signal to the command on a host. Ends with 0 if it runs there."""
        quiet = subprocess.DEVNULL
        return self._there(index, f"{_ALIVE} && kill -{number} $p", stdout=quiet, stderr=quiet)

    def _there(self, index: int, script: str, **streams) -> subprocess.Popen:
        mark = f"{self._mark}-{index}"
        script = f"m={mark} f=$HOME/.{mark}; {script}"
        # In groups of their own: Ctrl-C of a terminal comes by us.
        return subprocess.Popen([*_SSH, self.names[index], script], process_group=0, **streams)


def run(hosts: Hosts, logs: Path, grace: float) -> int:
    """To the end of all; returns the highest exit code."""
    logs.mkdir(parents=True, exist_ok=True)
    signals = Signals()
    jobs = [
        hosts.run(i, logs / f"{i}-{name.rpartition('@')[2]}.log")
        for i, name in enumerate(hosts.names)
    ]
    last, stops, over = 0, {}, None  # the last signal, who took it, when the others must go
    while None in (codes := [job.poll() for job in jobs]):
        if any(codes) and over is None:
            over = time.monotonic() + grace
        asked = signals.wait(None if over is None and not stops else 1)
        if over is not None and time.monotonic() >= over:
            over, asked = float("inf"), [signal.SIGTERM, *asked]
        for number in asked:
            last = number
            stops |= {i: hosts.stop(i, number) for i, code in enumerate(codes) if code is None}
        for i, stop in stops.items():
            if stop.poll() and codes[i] is None:  # it was not there yet
                stops[i] = hosts.stop(i, last)
    for stop in stops.values():
        stop.wait()
    for i, job in enumerate(jobs):
        if job.returncode:
            print(f"host {i} ({hosts.names[i]}): exit code {code_of(job)}", file=sys.stderr)
    return max(map(code_of, jobs))


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m octavo.launch.ssh", description=(__doc__ or "").partition(":")[0] + "."
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("logs"), metavar="DIR",
        help="a file for each host; host 0 is seen here, too (default: logs)",
    )  # fmt: skip
    parser.add_argument(
        "--coordinator", metavar="NAME",
        help="how the others reach host 0 (default: as in HOSTS)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8476, help="of host 0 (default: 8476)")
    parser.add_argument(
        "--folder", default=str(Path.cwd()), metavar="DIR",
        help="where the command is run on each host (default: this one)",
    )  # fmt: skip
    parser.add_argument(
        "--grace", type=float, default=120, metavar="SECONDS",
        help="for the others to end by themselves when one has (default: 120)",
    )  # fmt: skip
    parser.add_argument("hosts", metavar="HOSTS", help="a file of names, host 0 first")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    given = parser.parse_args()
    try:
        names = hosts_of(given.hosts)
    except OSError as error:
        parser.error(f"{given.hosts}: {error.strerror}")
    except UnicodeDecodeError:
        parser.error(f"{given.hosts} is no text")
    if given.command[:1] == ["--"]:
        del given.command[0]
    if not names or not given.command:
        parser.error("there is no command" if names else f"{given.hosts} names no host")
    coordinator = given.coordinator or names[0].rpartition("@")[2]
    hosts = Hosts(names, given.command, given.folder, f"{coordinator}:{given.port}")
    sys.exit(run(hosts, given.logs, given.grace))


if __name__ == "__main__":
    main()
