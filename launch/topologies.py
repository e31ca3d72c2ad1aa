"""TPU topologies by their names in the cloud, to compile for where there are none."""

import math
import os
import re
from dataclasses import dataclass

from octavo import cli
from octavo.configs.checks import ConfigError

TWO = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
THREE = {
    4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8",
    512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16", 4096: "16x16x16",
}  # fmt: skip
"""Chips, and how they are arranged."""


@dataclass(frozen=True)
class Generation:
    """A kind of TPU. Figures of a device as JAX counts them: a chip, or half of one (7x)."""

    shapes: dict[int, str]
    per_name: int
    """TensorCores for a chip, where names count these; else 1."""
    accelerator: str
    """What the metadata of a machine calls it."""
    link: float
    """GB/s that a device sends along one axis of the torus, both ways together."""
    clock: float
    """GHz: of the peak, four units of 128 x 128 (v6e: 256 x 256) a core."""
    host: int
    """Devices of a host."""


GENERATIONS = {
    "v4": Generation(THREE, 2, "v4", 90, 1.05, 4),
    "v5e": Generation(TWO, 1, "v5litepod", 90, 1.5, 4),
    "v5p": Generation(THREE, 2, "v5p", 180, 1.75, 4),
    "v6e": Generation(TWO, 1, "v6e", 180, 1.75, 4),
    "tpu7x": Generation(THREE, 1, "tpu7x", 180, 1.9, 8),
}
NETWORK = 25
"""GB/s that a host sends to other slices, nearly: its network cards'."""


@dataclass(frozen=True)
class Topology:
    name: str
    generation: Generation
    shape: str
    """As libtpu has it."""
    slices: int = 1

    @property
    def accelerator(self) -> str:
        chips = math.prod(int(n) for n in self.shape.partition(":")[2].split("x"))
        return f"{self.generation.accelerator}-{chips * self.generation.per_name}"


def topology(name: str) -> Topology:
    """``v5e-256``, ``2xv5e-256`` (two slices) or, as libtpu has it, ``v5e:16x16``. Names of v4 and
    v5p count TensorCores, two a chip; the others count chips. Raises ConfigError if there is none.
    """
    found = re.fullmatch(r"(?:([1-9]\d{0,2})x)?([a-z0-9]+)([-:])(\d{1,5}(?:x\d{1,3}){0,2})", name)
    kind = GENERATIONS.get(found[2]) if found else None
    if not found or kind is None:
        raise ConfigError(
            f"no topology {name!r:.40}; known: {', '.join(examples())} and other sizes, 2xv5e-256 "
            "for two slices."
        )
    slices = int(found[1] or 1)
    if found[3] == ":":
        return Topology(name, kind, f"{found[2]}:{found[4]}", slices)
    sizes = {chips * kind.per_name: shape for chips, shape in kind.shapes.items()}
    shape = sizes.get(int(found[4])) if found[4].isdigit() else None
    if shape is None:
        known = ", ".join(f"{found[2]}-{size}" for size in sizes)
        raise ConfigError(f"no topology {name!r:.40}; known: {known}.")
    return Topology(name, kind, f"{found[2]}:{shape}", slices)


def examples() -> tuple[str, ...]:
    return "v4-128", "v5e-16", "v5e-256", "v5p-128", "v6e-256", "tpu7x-64"


def devices_of(where: Topology) -> list:
    """Its devices, to compile for. Raises ConfigError if libtpu is missing, RunError if it does
    not describe the topology."""
    # Before libtpu is loaded: no metadata server is asked which TPU this is, and as there is none,
    # several processes may compile.
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": where.accelerator,
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    import jax
    from jax.experimental import topologies

    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "compiling for TPU needs libtpu: pip install -e '.[tpu-compile]'."
        ) from error
    how: dict = {"num_slices": where.slices} if where.slices > 1 else {}
    if where.shape.startswith("v4"):
        how["chip_config_name"] = "megacore"  # two cores as one device, as on the machines
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=where.shape, **how)
        return list(found.devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise cli.RunError(f"libtpu does not describe {where.name}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a compiler says, without the pages that follow."""
    return (str(error).strip().splitlines() or [repr(error)])[0][:300].rstrip(".") + "."
