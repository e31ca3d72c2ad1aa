"""Kill a run at random moments until it is done, and compare it with one that was left alone:

    python benchmarks/kills.py --kills 200 [--hosts 2] [--seed 0] [--out DIR]

Every loss and every parameter must be equal, bit for bit. With several hosts, processes on this
machine joined over loopback, one of them is killed and the others must end by themselves or, where
they had not met yet, go on when it comes again. Prints one line a kill, and exits with 1 if
anything differs or anything is left running.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from octavo import cli

ROOT = Path(__file__).parents[1]
ENDS_WITHIN = 90
"""Seconds in which the other hosts end when one is gone."""
FLAGS = (
    "--model.width 32 --model.layers 2 --model.heads 2 --data.length 64 --data.batch-size 8 "
    "--optimizer.warmup-steps 4 --train.evaluation-bytes 0 --train.sample-bytes 0 "
    "--train.checkpoint-every 20"
).split()


def free_address() -> str:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("localhost", 0))
        return f"localhost:{found.getsockname()[1]}"


def start(workdir: Path, steps: int, hosts: int, index: int, address: str) -> subprocess.Popen:
    flags = [*FLAGS, "--train.steps", str(steps), "--workdir", str(workdir)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    if hosts > 1:
        flags += ["--train.distributed", "True"]
        environment |= {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(hosts),
            "JAX_PROCESS_ID": str(index),
        }
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "flat", *flags],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def begin(workdir: Path, steps: int, hosts: int) -> tuple[list[subprocess.Popen], str]:
    """All hosts, and where they meet."""
    address = free_address()
    return [start(workdir, steps, hosts, i, address) for i in range(hosts)], address


def running(processes: list[subprocess.Popen], seconds: float) -> list[subprocess.Popen]:
    """Those that still run after so long."""
    deadline = time.monotonic() + seconds
    while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [p for p in processes if p.poll() is None]


def reached(workdir: Path) -> int:
    """Steps that are logged."""
    log = workdir / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def losses(workdir: Path) -> dict[int, float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["train/loss"] for row in rows}


def parameters(workdir: Path) -> list[np.ndarray]:
    import jax

    from octavo.run.opened import open_run

    return [np.asarray(leaf) for leaf in jax.tree.leaves(open_run(workdir).params)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="0: 40 a kill")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    steps = given.steps or 40 * given.kills
    out = given.out or Path(tempfile.mkdtemp(prefix="octavo-kills-"))
    chance, wrong = random.Random(given.seed), 0

    began = time.monotonic()
    whole, _ = begin(out / "whole", steps, given.hosts)
    while not reached(out / "whole"):
        time.sleep(0.01)
    start_up = time.monotonic() - began
    errors = [process.communicate()[1] for process in whole]
    assert all(process.returncode == 0 for process in whole), errors
    print(f"left alone: {steps} steps, the first after {start_up:.1f} s")

    for kill in range(1, given.kills + 1):
        processes, address = begin(out / "killed", steps, given.hosts)
        # Some while it starts, most after so many steps, and a little later.
        if chance.random() < 0.25:
            time.sleep(chance.uniform(0, start_up))
        else:
            goal = reached(out / "killed") + chance.randint(1, 60)
            while reached(out / "killed") < goal and all(p.poll() is None for p in processes):
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.1))
        victim = chance.randrange(given.hosts)
        processes[victim].send_signal(signal.SIGKILL)
        said = ""
        if running(processes, ENDS_WITHIN):
            # They had not met: the others wait for it, and all go on when it comes again.
            before = reached(out / "killed")
            processes.append(start(out / "killed", steps, given.hosts, victim, address))
            deadline = time.monotonic() + ENDS_WITHIN
            while reached(out / "killed") == before and time.monotonic() < deadline:
                time.sleep(0.1)
            said = "  (waited, and went on when it came again)"
            if reached(out / "killed") == before:
                said, wrong = f"  STILL RUNNING after {ENDS_WITHIN} s", wrong + 1
            processes[-1].send_signal(signal.SIGKILL)
            if left := running(processes, ENDS_WITHIN):
                said, wrong = f"{said}  LEFT RUNNING", wrong + 1
                for process in left:
                    process.kill()
        for process in processes:
            text = process.communicate()[1]
            if "Traceback" in text or "***" in text:
                said, wrong = f"{said}  SAID {text.strip().splitlines()[-1]!r}", wrong + 1
        print(f"kill {kill}: host {victim}, step {reached(out / 'killed')}{said}", flush=True)

    last, _ = begin(out / "killed", steps, given.hosts)
    errors = [process.communicate()[1] for process in last]
    assert all(process.returncode == 0 for process in last), errors
    same = losses(out / "whole") == losses(out / "killed")
    pairs = zip(parameters(out / "whole"), parameters(out / "killed"), strict=True)
    equal = all(np.array_equal(a, b) for a, b in pairs)
    aside = list((out / "killed" / "checkpoints").glob("*.damaged"))
    print(f"losses {'equal' if same else 'DIFFER'}, parameters {'equal' if equal else 'DIFFER'}, "
          f"{len(aside)} checkpoints set aside, {wrong} other faults")  # fmt: skip
    if not same or not equal or aside or wrong:
        raise cli.RunError("the run that was killed is not the one that was left alone.")


if __name__ == "__main__":
    cli.run(main)
