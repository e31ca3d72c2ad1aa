"""What a compiled TPU program does in a step, read from its text: cycles by kind of work, and the
bytes of its collectives, loops counted by their trips.

The compiler writes how many cycles it expects of each operation, but for its collectives and for
custom kernels. Of kernels, the products of splash attention are counted instead.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
PRODUCTS = {"convolution", "dot"}
MOVES = {
    "bitcast", "broadcast", "concatenate", "constant", "copy", "copy-done", "copy-start",
    "dynamic-slice", "dynamic-update-slice", "get-tuple-element", "iota", "pad", "parameter",
    "reshape", "slice", "slice-done", "slice-start", "transpose", "tuple",
}  # fmt: skip
"""Operations that compute nothing."""

_HEADER = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.-]+) = (\S.*?) ([a-z][a-z0-9-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d+[a-z0-9]*|pred)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%([\w.-]+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%([\w.-]+))")
_OPERAND = re.compile(r"%([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Instruction:
    name: str
    shape: str
    operation: str
    rest: str
    """Operands and attributes."""
    home: str
    """The computation that it is of."""

    def attribute(self, name: str) -> str | None:
        """A computation that it calls."""
        found = re.search(rf"\b{name}=%([\w.-]+)", self.rest)
        return found[1] if found else None

    @property
    def operands(self) -> list[str]:
        return _OPERAND.findall(self.rest.partition(")")[0])

    @property
    def index(self) -> int:
        """Which part of a tuple it gets."""
        return int(self.rest.rpartition("index=")[2].partition(",")[0])

    @property
    def cycles(self) -> int:
        found = _CYCLES.search(self.rest)
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Collective:
    kind: str
    times: int
    """In a step."""
    array_bytes: int
    """Of the whole array, each time."""
    synchronous: bool
    """Whether all else waits for it."""
    groups: str
    """Who takes part, as the program has it."""

    @property
    def bytes(self) -> int:
        """In a step: an all-reduce is a reduce-scatter and an all-gather."""
        return self.times * self.array_bytes * (2 if self.kind == "all-reduce" else 1)


@dataclass
class Program:
    """Sums over a step of one chip."""

    cycles: dict[str, int] = field(default_factory=dict)
    """Of "products" (fusions with a matrix product), "copies" (that compute nothing) and
    "elementwise" (all else)."""
    kernel_flops: float = 0.0
    """Of the products of attention kernels."""
    unknown_kernels: int = 0
    """Custom kernels of which nothing is known, times in a step."""
    collectives: list[Collective] = field(default_factory=list)
    arrays: list[tuple[int, str, str]] = field(default_factory=list)
    """Bytes, shape and origin of what the program makes in the chip's memory, largest first."""


def size_of(shape: str) -> int:
    """Bytes of a shape, of all parts of a tuple. Padding of tiles is not counted."""
    return sum(_bytes(kind, sizes) for kind, sizes, _ in _ARRAY.findall(shape))


def _bytes(kind: str, sizes: str) -> int:
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    return math.ceil(math.prod(int(n) for n in sizes.split(",") if n) * bits / 8)


def _parts(shape: str) -> list[str]:
    """The arrays of a shape, each as text."""
    return [found[0] for found in _ARRAY.finditer(shape)]


class _Reader:
    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry, current, home = "", [], ""
        for line in text.splitlines():
            if header := _HEADER.match(line):
                home = header[2]
                current = self.computations.setdefault(home, [])
                self.entry = home if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                current.append(Instruction(found[2], found[3], found[4], found[5], home))
        self._named = {
            name: {one.name: one for one in found} for name, found in self.computations.items()
        }

    def by_name(self, computation: str) -> dict[str, Instruction]:
        return self._named.get(computation, {})

    def made_of(self, one: Instruction) -> set[str]:
        """The operations of an instruction: of a fusion, what is fused."""
        if one.operation != "fusion":
            return {one.operation}
        return {
            operation
            for name in _CALLED.findall(one.rest)
            for inner in self.computations.get(name, [])
            for operation in self.made_of(inner)
        }

    def trips(self, loop: Instruction, outside: dict[str, Instruction]) -> int:
        """How often a loop's body runs: it counts up to a constant."""
        told = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if told:
            return int(told[1])
        condition = self.by_name(loop.attribute("condition") or "")
        for one in condition.values():
            if one.operation != "compare" or "direction=LT" not in one.rest:
                continue
            counter, limit = (condition.get(name) for name in one.operands[:2])
            start, end = self._carried(counter, loop, outside), self._value(limit)
            if end is None:
                end = self._carried(limit, loop, outside)
            if end is not None:
                return max(0, math.ceil((end - (start or 0)) / self._step(loop, counter)))
        return 1

    def _value(self, one: Instruction | None) -> int | None:
        if one is None or one.operation != "constant":
            return None
        found = re.match(r"(-?\d+)\)", one.rest)
        return int(found[1]) if found else None

    def _carried(
        self, one: Instruction | None, loop: Instruction, outside: dict[str, Instruction]
    ) -> int | None:
        """What a part of the loop's state is before the first trip."""
        if one is None or one.operation != "get-tuple-element":
            return None
        index = one.index
        state = outside.get((loop.operands or [""])[0])
        if state is None or state.operation != "tuple" or index >= len(state.operands):
            return None
        part = outside.get(state.operands[index])
        while part is not None and part.operation in ("copy", "bitcast"):
            part = outside.get(part.operands[0])
        return self._value(part)

    def _step(self, loop: Instruction, counter: Instruction | None) -> int:
        """By how much a trip takes the counter on."""
        body = self.by_name(loop.attribute("body") or "")
        root = self.computations.get(loop.attribute("body") or "", [])[-1:]
        if counter is None or not root or root[0].operation != "tuple":
            return 1
        index = counter.index
        added = body.get(root[0].operands[index]) if index < len(root[0].operands) else None
        if added is not None and added.operation == "add":
            values = [self._value(body.get(name)) for name in added.operands]
            return next((v for v in values if v), 1)
        return 1


def read(text: str) -> Program:
    """The program of ``Compiled.as_text()`` of the TPU compiler."""
    reader, found = _Reader(text), Program()
    seen: dict[tuple[str, str], Collective] = {}
    arrays: dict[str, tuple[int, str, str]] = {}
    for region, one, times in _walk(reader, reader.entry, 1, {}):
        for inner, asynchronous in _collectives(reader, one):
            channel = re.search(r"channel_id=(\d+)", inner.rest)
            key = region, channel[1] if channel else inner.name
            kind = next(kind for kind in COLLECTIVES if inner.operation.startswith(kind))
            # Of a sum from which each takes its part right away, no sum is given back.
            if kind == "all-reduce" and inner is not one:
                kind = "reduce-scatter" if "dynamic-slice" in reader.made_of(one) else kind
            # What goes on beside others' work stands in several places: where it begins, in what
            # is done meanwhile, and where it ends.
            waits = not asynchronous and (key not in seen or seen[key].synchronous)
            seen[key] = Collective(kind, times, _moved(reader, inner), waits, _groups(inner))
        if one.operation == "custom-call":
            _count_kernel(one, times, found)
        elif one.cycles:
            operations = reader.made_of(one)
            kind = "products" if operations & PRODUCTS else "elementwise"
            kind = "copies" if operations <= MOVES else kind
            found.cycles[kind] = found.cycles.get(kind, 0) + one.cycles * times
        if one.operation not in ("parameter", "get-tuple-element", "tuple", "bitcast", "while"):
            origin = _NAME.search(one.rest)
            for part in _parts(one.shape):
                if "S(" not in part:  # of the chip's other memories
                    shape = part.partition("{")[0]
                    about = size_of(part), shape, origin[1] if origin else one.operation
                    arrays.setdefault(shape, about)
    found.collectives = list(seen.values())
    found.arrays = sorted(arrays.values(), key=lambda about: -about[0])
    return found


def instructions(text: str, usual: Mapping[int, int]) -> Iterator[tuple[Instruction, int]]:
    """What runs in a step of any compiler's program, and how often. usual: of so many branches,
    which; else the first."""
    reader = _Reader(text)
    for _, one, times in _walk(reader, reader.entry, 1, usual):
        yield one, times


def _walk(
    reader: _Reader, computation: str, times: int, usual: Mapping[int, int]
) -> Iterator[tuple[str, Instruction, int]]:
    """What runs in a step, each with its loop or branch and how often it runs; of branches the
    usual or the first, that of the fewest units. What a fusion is made of is not entered."""
    for one in reader.computations.get(computation, []):
        yield computation, one, times
        if one.operation == "while":
            trips = reader.trips(one, reader.by_name(computation))
            yield from _walk(reader, one.attribute("body") or "", times * trips, usual)
        elif one.operation == "conditional":
            names = [
                name
                for listed, single in _BRANCHES.findall(one.rest)
                for name in (_OPERAND.findall(listed) if listed else [single])
            ]
            yield from _walk(reader, names[usual.get(len(names), 0)], times, usual)
        elif one.operation in ("call", "async-start"):
            for name in _CALLED.findall(one.rest):
                yield from _walk(reader, name, times, usual)


def _collectives(reader: _Reader, one: Instruction) -> Iterator[tuple[Instruction, bool]]:
    """The collectives of an instruction, and whether others' work goes on meanwhile."""
    if one.operation in COLLECTIVES:
        yield one, False
    elif one.operation.removesuffix("-start") in COLLECTIVES:
        yield one, True
    elif one.operation in ("fusion", "custom-call"):
        for name in _CALLED.findall(one.rest):
            beside = "async_collective_fusion" in name or "AsyncCollective" in one.rest
            for inner in reader.computations.get(name, []):
                for found, asynchronous in _collectives(reader, inner):
                    yield found, asynchronous or beside


def _moved(reader: _Reader, one: Instruction) -> int:
    """Bytes of the whole array: of what comes out, or of what goes in where less comes out."""
    if one.operation.endswith("-start"):  # its shape holds what goes in, what comes out, and flags
        return max(map(size_of, _parts(one.shape)), default=0)
    if one.operation != "reduce-scatter":
        return size_of(one.shape)
    beside = reader.by_name(one.home)
    return sum(size_of(beside[name].shape) for name in one.operands if name in beside)


def _groups(one: Instruction) -> str:
    found = re.search(
        r"(?:replica_groups|source_target_pairs)=(mesh\[[^]]*\] \{[^}]*\}|\{\{.*?\}\}"
        r"|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?|\{\})",
        one.rest,
    )
    return found[1] if found else ""


def group(groups: str, devices: int) -> list[int]:
    """Numbers of the devices, in the order of the mesh, that one group of a collective joins; of
    permutes, those that the first sends to in turn."""
    if groups.startswith("mesh["):
        sizes = [int(n) for n in re.findall(r"=(\d+)", groups.partition("]")[0])]
        names = re.findall(r"'([\w.]+)'=", groups.partition("]")[0])
        inside = re.findall(r"'([\w.]+)'", groups.partition("]")[2])
        grid = np.arange(math.prod(sizes)).reshape(sizes)
        return grid[tuple(slice(None) if name in inside else 0 for name in names)].ravel().tolist()
    if iota := re.match(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", groups):
        grid = np.arange(math.prod(map(int, iota[3].split(","))))
        grid = grid.reshape([int(n) for n in iota[3].split(",")])
        if iota[4]:
            grid = grid.transpose([int(n) for n in iota[4].split(",")])
        return grid.reshape(int(iota[1]), int(iota[2]))[0].tolist()
    lists = [[int(n) for n in found.split(",")] for found in re.findall(r"\{([\d,]+)\}", groups)]
    if len(lists) > 1 and all(len(pair) == 2 for pair in lists):
        # A permute's pairs; or groups of two: they join the same devices.
        to = {pair[0]: pair[1] for pair in lists}
        found, at = [], lists[0][0]
        while at is not None and at not in found:
            found.append(at)
            at = to.get(at)
        return found
    return lists[0] if lists else list(range(devices))


def _count_kernel(one: Instruction, times: int, found: Program) -> None:
    """The products of splash attention, in the blocks that it visits: by the grid of its mask, and
    the last array of heads that it gives."""
    if 'custom_call_target="tpu_custom_call"' not in one.rest:
        return
    products = next((n for kind, n in _SPLASH.items() if kind in one.name), None)
    heads = re.findall(r"bf16\[([\d,]+)\]", one.shape)
    grid = re.search(r"s8\[\d+,(\d+),(\d+)\]", one.rest)
    if products is None or not heads or not grid:
        found.unknown_kernels += times
        return
    sizes = [int(n) for n in heads[-1].split(",")]
    high, wide = int(grid[1]), int(grid[2])
    blocks = max(high, wide)
    # Of a window the grid has just the blocks that it reaches.
    visited = (blocks * blocks + blocks) / 2 if high == wide else high * wide
    block = sizes[-2] / blocks
    each = math.prod(sizes) / sizes[-2] * block * block * visited
    found.kernel_flops += times * products * 2 * each


_SPLASH = {"_fwd_": 2, "_dq_": 3, "_dkv_": 4}
"""Products of a kernel, of queries times keys times the size of a head."""
