"""What the TPU compiler says of a preset's training step on a pod, without the pod:

    python benchmarks/pods.py [PRESET] [--topology v5e-256] [--dotted.field VALUE ...]

Peak memory; estimated milliseconds of a step; bytes that collectives move; MFU. How they are
counted: ``estimate``. Estimates compare programs; they do not foretell a pod.
"""

import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.launch.compile import compile_step, topology_of
from octavo.model import flops
from octavo.settings import parse_config

CLOCK = 1.5e9
"""Cycles per second of a v5e."""
LINKS = 180e9
"""Bytes per second of a collective over two axes of a torus."""
KERNEL = 0.66
"""Share of the peak that the attention kernel reaches in the blocks that it visits."""
PASSES = (("_fwd_", 2), ("_dq_", 3), ("_dkv_", 4))
"""Products with scores that each attention kernel makes."""
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
MOVES = {
    "bitcast", "broadcast", "concatenate", "constant", "copy", "copy-done", "copy-start",
    "dynamic-slice", "dynamic-update-slice", "get-tuple-element", "iota", "pad", "parameter",
    "reshape", "slice", "slice-done", "slice-start", "transpose", "tuple",
}  # fmt: skip
"""Instructions that compute nothing."""
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Instruction:
    """A line of a compiled program."""

    name: str
    kind: str
    shape: str
    text: str

    def called(self, key: str) -> str:
        """The computation that it calls as ``key``, "" if there is none."""
        found = re.search(rf"\b{key}=?%?([\w.-]+)", self.text)
        return found[1] if found else ""

    @property
    def size(self) -> int:
        """Bytes of the result."""
        return sum(
            BYTES[kind] * _product(sides)
            for kind, sides in re.findall(r"\b(\w+)\[([\d,]*)\]", self.shape)
            if kind in BYTES
        )


def _product(sides: str) -> int:
    total = 1
    for side in filter(None, sides.split(",")):
        total *= int(side)
    return total


@dataclass
class Estimate:
    """Of a step on one chip. milliseconds: of "products", "elementwise", "copies", "attention".
    wire: bytes of collectives, "synchronous" and "asynchronous"."""

    milliseconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wire: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    largest: dict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    """Milliseconds by kind, operation of the model and shape."""


def computations(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each computation of a compiled program; "ENTRY" for its first."""
    found: dict[str, list[Instruction]] = {}
    line = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\(")
    for each in text.splitlines():
        if head := re.match(r"^(ENTRY )?%?([\w.-]+) \(", each):
            current = found["ENTRY" if head[1] else head[2]] = []
        elif match := line.match(each):
            current.append(Instruction(match[1], match[3], match[2], each))
    return found


def estimate(text: str, peak: float) -> Estimate:
    """Cycles that the compiler estimates of each fusion times the trips of the loops around it, at
    ``CLOCK``. Fusions with a matrix product are products, those that compute nothing copies, all
    others elementwise. Attention kernels, of which it says nothing: products of the blocks that
    they visit at ``KERNEL`` of the peak. Of branches, the first counts: the fewest units.

    wire: bytes of whole arrays, of all-reduces twice. A gather inside fusions is asynchronous (one,
    though it stands in several), and so is what has a start and a done; all else waits.
    """
    program, made, gathered = computations(text), Estimate(), set()

    def inside(i: Instruction) -> Iterator[Instruction]:
        for each in program.get(i.called("calls") if i.kind == "fusion" else "", ()):
            yield each
            yield from inside(each)

    def move(i: Instruction, times: float, fused: bool = False, scatters: bool = False) -> None:
        how = "synchronous"
        if i.kind.endswith("-start") or (fused and i.kind == "all-gather"):
            how, channel = "asynchronous", re.search(r"channel_id=\d+", i.text)
            if channel and channel[0] in gathered:
                return
            gathered.add(channel and channel[0])
        twice = i.kind.startswith("all-reduce") and not scatters
        made.wire[how] += times * i.size * (2 if twice else 1)

    def add(kind: str, i: Instruction, milliseconds: float) -> None:
        operation = re.search(r'op_name="([^"]*)"', i.text)
        made.milliseconds[kind] += milliseconds
        about = operation[1] if operation else i.name
        made.largest[kind, about, i.shape.partition("{")[0]] += milliseconds

    def walk(name: str, times: float) -> None:
        for i in program[name]:
            parts = list(inside(i)) or [i]
            kinds = {part.kind for part in parts}
            if i.kind == "while":
                walk(i.called("body"), times * _trips(program[i.called("condition")]))
            elif i.kind == "conditional":
                walk(i.called(r"(?:branch_computations=\{|true_computation)"), times)
            elif i.kind == "call":
                walk(i.called("to_apply"), times)
            elif 'custom_call_target="tpu_custom_call"' in i.text:
                add("attention", i, times * _attention(i) / peak / KERNEL * 1e3)
            for part in parts:
                if part.kind.removesuffix("-start") in COLLECTIVES:
                    fused = part is not i
                    move(part, times, fused, fused and "dynamic-slice" in kinds)
            if cycles := re.search(r'"estimated_cycles":"(\d+)"', i.text):
                kind = "products" if kinds & {"convolution", "dot"} else "elementwise"
                kind = "copies" if kinds <= MOVES else kind
                add(kind, i, times * int(cycles[1]) / CLOCK * 1e3)

    walk("ENTRY", 1)
    return made


def _trips(condition: list[Instruction]) -> int:
    """Of a loop that counts from 0 up to a constant."""
    found = [re.search(r" constant\((\d+)\)", i.text) for i in condition]
    return max((int(constant[1]) for constant in found if constant), default=1)


def _attention(i: Instruction) -> float:
    """FLOPs of an attention kernel in the blocks that it visits."""
    passes = next((count for name, count in PASSES if name in i.name), 0)
    sides = re.findall(r"bf16\[([\d,]+)\]", i.shape)[-1]
    length = int(sides.split(",")[-2])
    grid = re.search(r"s8\[\d+,(\d+),(\d+)\]", i.text)
    across, along = (int(grid[1]), int(grid[2])) if grid else (1, 1)
    blocks = max(across, along)
    visited = (blocks * blocks + blocks) / 2 if across == along else across * along
    return 2 * passes * _product(sides) * (length / blocks) ** 2 * visited / length


def main() -> None:
    arguments = sys.argv[1:]
    topology = topology_of(arguments, "v5e-256")
    config = parse_config("python benchmarks/pods.py", __doc__.splitlines()[0], arguments)
    began = time.perf_counter()
    compiled = compile_step(config, topology)
    seconds = time.perf_counter() - began
    peak = flops.peak_flops(compiled.device_kind)
    assert peak, compiled.device_kind
    found = estimate(compiled.text, peak)
    waits = found.wire["synchronous"] / LINKS * 1e3
    total = sum(found.milliseconds.values()) + waits
    table = Table("", f"{config.preset} on {topology}", show_header=True)
    mesh = "  ".join(f"{axis} {size}" for axis, size in compiled.mesh.items())
    table.add_row("mesh", mesh)
    table.add_row("compiled in", f"{seconds:.0f} s")
    table.add_row("peak memory", f"{compiled.peak_bytes / 2**30:.2f} GiB")
    for kind, spent in found.milliseconds.items():
        table.add_row(kind, f"{spent:.1f} ms")
    for how, moved in found.wire.items():
        table.add_row(f"{how} collectives", f"{moved / 1e9:.2f} GB")
    table.add_row("estimated step", f"{total:.1f} ms, {waits:.1f} of them synchronous collectives")
    table.add_row("estimated MFU", f"{compiled.useful_flops / peak / total * 1e3:.1%}")
    Console().print(table)
    largest = sorted(found.largest.items(), key=lambda each: -each[1])
    for (kind, about, shape), spent in largest[:12]:
        print(f"{spent:7.2f} ms  {kind:11}  {shape:28}  {about[-60:]}")


if __name__ == "__main__":
    cli.run(main)
