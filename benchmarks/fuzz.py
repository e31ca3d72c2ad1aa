"""Generated arguments and mutilated files, thrown at every command for a while:

    python benchmarks/fuzz.py [--seconds 600] [--seed N] [--only evaluate,run ...]

Makes a small run first. Prints every case that ends in another way than documented, and the
command that runs it again, with its stack. A worker runs them one after another; one that dies is a
case too, and the next goes on.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from octavo import cli

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
KINDS = ("evaluate", "generate", "compress", "view", "rates", "schemes", "prepare", "train")
MUTILATIONS = ("run", "corpus", "packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join((*KINDS, *MUTILATIONS)))
    parser.add_argument("--case", type=int, help="run this one alone, and show its stack")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # workspace, first case
    given = parser.parse_args()
    if given.worker:
        work(given, Path(given.worker[0]), int(given.worker[1]))
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder)
        prepare(prepared)
        if given.case is not None:
            work(given, prepared, given.case)
        else:
            drive(given, prepared)


def prepare(folder: Path) -> None:
    """A corpus and a run of a few steps, made by the commands."""
    for i in range(20):
        (folder / f"{i}.txt").write_text(f"the quick brown fox {i} jumps over the lazy dog\n" * 9)
    texts = [str(folder / f"{i}.txt") for i in range(20)]
    source = str(folder / "corpus")
    for script, arguments in (
        ("prepare", [*texts, "--out", source, "--heldout", "0.2"]),
        ("train", ["flat", "--data.source", source, "--workdir", str(folder / "run"),
                   "--model.width", "32", "--model.layers", "2", "--model.heads", "2",
                   "--data.length", "64", "--data.batch-size", "8", "--train.steps", "4"]),
    ):  # fmt: skip
        command = [sys.executable, str(ROOT / f"{script}.py"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def drive(given, prepared: Path) -> None:
    """Start workers until the time is over; say what each reports."""
    until, number, failures = time.monotonic() + given.seconds, 0, 0
    while time.monotonic() < until:
        worker = subprocess.Popen(
            [sys.executable, __file__, "--seed", str(given.seed), "--only", given.only,
             "--seconds", str(until - time.monotonic()), "--worker", str(prepared), str(number)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        for line in worker.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "begins":
                number, _, case = rest.partition(" ")
                number = int(number)
            elif word == "FAILS":
                failures += 1
                tell(given, number, case, rest)
        if worker.wait():
            failures += 1
            tell(given, number, case, f"the process dies ({worker.returncode})")
        number += 1
    print(f"{number} cases, {failures} failures")
    sys.exit(bool(failures))


def tell(given, number: int, case: str, complaint: str) -> None:
    print(f"{case}\n  {complaint}")
    print(
        f"  python benchmarks/fuzz.py --seed {given.seed} --only {given.only} --case {number}",
        flush=True,
    )


def work(given, prepared: Path, number: int) -> None:
    """Cases from ``number`` on, until the time is over, or that one alone."""
    import fuzzing

    # A case that asks for all memory gets an error, not the machine.
    most = int(0.6 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if given.case is not None:
        os.environ["OCTAVO_DEBUG"] = "1"
    only = given.only.split(",")
    case_of = fuzzing.cases(
        given.seed,
        tuple(kind for kind in only if kind in KINDS),
        tuple(kind for kind in only if kind in MUTILATIONS),
    )
    until = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fuzzing.workspace(folder, prepared / "run", prepared / "corpus")
        while given.case is not None or time.monotonic() < until:
            with fuzzing.cleaned(folder):
                case = case_of(number, folder)
                print("begins", number, case, flush=True)
                if complaint := fuzzing.complaint(case, folder):
                    print("FAILS", ascii(complaint), flush=True)
                    if complaint.startswith("takes longer"):
                        sys.exit()  # what hangs may hold locks
            if given.case is not None:
                return
            number += 1


if __name__ == "__main__":
    cli.run(main)
