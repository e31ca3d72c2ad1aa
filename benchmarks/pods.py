"""The table of docs/pods.md: every preset for pods, compiled for a TPU pod, without the pod:

    python benchmarks/pods.py --out runs/pods [--presets flat-1b hnet-1b ...]

Compiles those of 100M for v5e-16 and larger ones for v5e-256, the flat ones also for other pods,
each in a process of its own; what the folder holds already is not compiled again. Takes one to ten
minutes a preset.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from octavo import cli
from octavo.brief import human
from octavo.configs import presets

HEAD = (
    "preset", "pod", "mesh", "remat", "GiB of a chip", "compute, ms", "exposed, ms", "step, ms",
    "bytes/s", "MFU", "compiled in",
)  # fmt: skip


ELSEWHERE = (
    ("v5p-128", ()), ("v6e-256", ()), ("2xv5e-256", ("--data.batch-size", "512")),
)  # fmt: skip
"""Pods for which the larger flat presets are compiled beside v5e-256, with what they need."""


@dataclass(frozen=True)
class Arguments:
    out: str
    """Folder of what was compiled."""
    presets: tuple[str, ...] = ()
    """None: all for pods."""


def pods(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """For which a preset is compiled, each with flags."""
    if name.endswith("-100m"):
        return [("v5e-16", ())]
    return [("v5e-256", ()), *(ELSEWHERE if name.startswith("flat-") else ())]


def row(about: dict) -> list[str]:
    """Of the table, from a report."""
    step, memory = about["step"], about["memory"]
    compute = sum(about["compute"]["seconds"].values())
    mesh = " × ".join(str(size) for size in about["mesh"].values())
    return [
        about["preset"], about["topology"], mesh, about["remat"],
        f"{memory['peak_bytes'] / 2**30:.1f} of {memory['hbm_bytes'] / 2**30:.1f}",
        f"{compute * 1e3:.0f}", f"{step['exposed_seconds'] * 1e3:.0f}",
        f"{step['seconds'] * 1e3:.0f}", human(step["bytes_per_second"]) + "B",
        f"{about['mfu']:.0%}", f"{about['compile_seconds']:.0f} s",
    ]  # fmt: skip


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    out, rows = Path(arguments.out), []
    out.mkdir(parents=True, exist_ok=True)
    names = arguments.presets or [n for n in presets() if n.endswith(("-100m", "-1b", "-7b"))]
    for name, (pod, flags) in ((n, each) for n in names for each in pods(n)):
        path = out / f"{name}@{pod}.json"
        if not path.exists():
            command = [sys.executable, "-m", "octavo.launch.compile", name, *flags]
            done = subprocess.run(
                [*command, "--topology", pod, "--json", str(path)], capture_output=True, text=True
            )
            if done.returncode:
                why = done.stderr.strip().splitlines()[-1]
                print(f"{name} on {pod}: {why}", file=sys.stderr)
                continue
        rows.append(row(json.loads(path.read_text())))
        print(" | ".join(rows[-1]), file=sys.stderr)
    for cells in (HEAD, ["---"] * len(HEAD), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    cli.run(main)
