"""How long a compiled step would take on a chip: an estimate, to compare programs by.

Compute: the compiler's cycles at the chip's clock; attention kernels at ``KERNEL`` of the peak.
Collectives: their bytes over the links of the axes of the torus that their group spans, all-reduces
twice; of groups across slices, over the network of a host. What is synchronous is waited for; of
the rest, what takes longer than all compute together.
"""

import math
from dataclasses import dataclass
from typing import Any

from octavo.launch.program import Collective, Program, group, read
from octavo.launch.topologies import NETWORK, Topology

KERNEL = 0.66
"""Share of the peak that the attention kernel reaches in the blocks that it visits."""


@dataclass(frozen=True)
class Estimate:
    """Of a step on one chip, in seconds."""

    program: Program
    compute: dict[str, float]
    """By kind of work: "products", "attention", "elementwise", "copies"."""
    times: tuple[float, ...]
    """That each of ``program.collectives`` takes."""

    @property
    def waited(self) -> float:
        """Of synchronous collectives."""
        return sum(t for t, one in self._each() if one.synchronous)

    @property
    def beside(self) -> float:
        """Of asynchronous ones."""
        return sum(t for t, one in self._each() if not one.synchronous)

    @property
    def exposed(self) -> float:
        return self.waited + max(0.0, self.beside - sum(self.compute.values()))

    @property
    def seconds(self) -> float:
        """A whole step."""
        return sum(self.compute.values()) + self.exposed

    def by_kind(self) -> dict[str, dict[str, Any]]:
        """Times, bytes and seconds of each kind of collective."""
        found: dict[str, dict[str, Any]] = {}
        for seconds, one in self._each():
            sums = found.setdefault(
                one.kind, {"times": 0, "bytes": 0, "synchronous_bytes": 0, "seconds": 0.0}
            )
            sums["times"] += one.times
            sums["bytes"] += one.bytes
            sums["synchronous_bytes"] += one.bytes if one.synchronous else 0
            sums["seconds"] += seconds
        return found

    def _each(self) -> list[tuple[float, Collective]]:
        return list(zip(self.times, self.program.collectives, strict=True))


def estimate(text: str, where: Topology, devices: list) -> Estimate:
    """Of a compiled program. devices: in the order of the mesh."""
    from octavo.model import flops

    program, chip = read(text), where.generation
    peak = flops.peak_flops(devices[0].device_kind) or math.inf
    compute = {
        kind: program.cycles.get(kind, 0) / (chip.clock * 1e9)
        for kind in ("products", "elementwise", "copies")
    }
    compute["attention"] = program.kernel_flops / (peak * KERNEL)
    times = tuple(_seconds(one, where, devices) for one in program.collectives)
    return Estimate(program, compute, times)


def _seconds(one: Collective, where: Topology, devices: list) -> float:
    from octavo.run.sharding import slices_of

    members = [devices[i] for i in group(one.groups, len(devices))]
    count, chip = len(members), where.generation
    if slices_of(members) > 1:
        return one.bytes / (NETWORK / chip.host * 1e9)
    if one.kind == "collective-permute":  # one way only
        return one.bytes / (chip.link / 2 * 1e9)
    axes = sum(len({device.coords[axis] for device in members}) > 1 for axis in range(3))
    return one.bytes * (count - 1) / count / (chip.link * max(axes, 1) * 1e9)
