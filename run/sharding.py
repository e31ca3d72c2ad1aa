"""The mesh, and the rules that lay parameters and batches over it."""

import dataclasses
import math
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from octavo.configs.checks import ConfigError, nearest_divisors
from octavo.configs.model import ModelConfig
from octavo.configs.schema import MeshConfig
from octavo.model.layers import BATCH_AXES

AXES = ("replica", "fsdp", "tensor")


@dataclass(frozen=True)
class ShardingRules:
    """Which mesh axis splits each logical axis of the parameters. None: every device has it all."""

    layers: str | None = None
    embed: str | None = "fsdp"
    heads: str | None = "tensor"
    kv_heads: str | None = "tensor"
    mlp: str | None = "tensor"
    vocab: str | None = None

    def spec(self, names: tuple[str | None, ...]) -> jax.P:
        return jax.P(*(name and getattr(self, name) for name in names))


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """A mesh of all devices. Raises ConfigError if the sizes do not multiply to their number."""
    devices = jax.devices() if devices is None else devices
    sizes = dataclasses.asdict(config)
    fixed = math.prod(size for size in sizes.values() if size > 0)
    asked = ", ".join(f"mesh.{name} {size}" for name, size in sizes.items())
    if len(devices) % fixed:
        raise ConfigError(
            f"{asked}: {fixed} does not divide the {len(devices)} devices; nearest that does: "
            f"{nearest_divisors(len(devices), min(fixed, len(devices)))}."
        )
    shape = [size if size > 0 else len(devices) // fixed for size in sizes.values()]
    if math.prod(shape) != len(devices):
        raise ConfigError(
            f"{asked} make {math.prod(shape)} devices, but there are {len(devices)}; "
            "set one axis to -1 to take all that are left."
        )
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_fits(mesh: Mesh, model: ModelConfig, rows: int) -> None:
    """Raise ConfigError unless the mesh divides the model and ``rows`` rows of a batch."""
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    batch = mesh.shape["replica"] * fsdp
    checks = [
        ("mesh.replica x mesh.fsdp", batch, "data.batch_size / train.accumulation", rows),
        ("mesh.fsdp", fsdp, "model.width", model.width),
        ("mesh.tensor", tensor, "model.heads", model.heads),
        ("mesh.tensor", tensor, "model.kv_heads", model.key_value_heads),
        ("mesh.tensor", tensor, "model.mlp_width", model.hidden_width),
    ]
    for i, stage in enumerate(model.stages):
        checks += [
            ("mesh.fsdp", fsdp, f"model.stages.{i}.width", stage.width),
            ("mesh.tensor", tensor, f"model.stages.{i}.heads", stage.heads),
        ]
    for part_name, part, whole_name, whole in checks:
        if whole % part:
            raise ConfigError(
                f"{part_name} {part} does not divide {whole_name} {whole}; nearest that does: "
                f"{nearest_divisors(whole, min(part, whole))}."
            )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over every data-parallel axis."""
    return NamedSharding(mesh, jax.P(BATCH_AXES))


def local_rows(sharding: NamedSharding, shape: tuple[int, int]) -> np.ndarray:
    """The rows of a ``[rows, length]`` batch that this process's devices hold, in order."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    rows = [np.arange(shape[0])[index[0]] for index in indices if index is not None]
    return np.unique(np.concatenate(rows))


def place_batch(
    sharding: NamedSharding, host_batch: dict[str, np.ndarray], rows: np.ndarray, batch_size: int
) -> dict[str, jax.Array]:
    """Global arrays from this host's rows."""

    def place(local: np.ndarray) -> jax.Array:
        def shard(index):
            return local[np.searchsorted(rows, np.arange(batch_size)[index[0]])]

        return jax.make_array_from_callback((batch_size, local.shape[1]), sharding, shard)

    return {name: place(local) for name, local in host_batch.items()}
