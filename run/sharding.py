"""The mesh, and the rules that lay parameters and batches over it."""

import math
from dataclasses import replace

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding

from octavo.configs.checks import ConfigError, nearest_divisors
from octavo.configs.model import ModelConfig
from octavo.configs.schema import MeshConfig
from octavo.model.axes import ACTIVATIONS, AXES, POSITIONS

TILE = 16
"""Rows of a tile of bfloat16 numbers on a TPU. Of weights whose shards have fewer, the compiler
makes gathers and reductions that all else waits for."""


def make_mesh(
    config: MeshConfig, devices: list | None = None, model: ModelConfig | None = None
) -> Mesh:
    """A mesh of all devices, for a model: where the config leaves it open, as many share a copy of
    the parameters as keep ``TILE`` rows of every width each. Raises ConfigError if the sizes do
    not multiply to the number of devices."""
    devices = jax.devices() if devices is None else devices
    sizes = {axis: getattr(config, axis) for axis in AXES}
    if config.replica is None:
        sizes["replica"] = 1 if -1 in sizes.values() else -1
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
    if config.replica is None and config.fsdp == -1 and model is not None:
        fsdp = _sharing(shape[1] // slices_of(devices) or 1, shape[2], model.widths)
        shape[:2] = shape[1] // fsdp, fsdp
    return Mesh(_arranged(devices, shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _sharing(devices: int, sequence: int, widths: tuple[int, ...]) -> int:
    """The most of these devices that ``TILE`` rows of every width are left to, if so many more
    split rows, and with them the widths."""

    def fits(parts: int) -> bool:
        return all(width % parts == 0 and width // parts >= TILE for width in widths)

    found = (n for n in range(devices, 1, -1) if devices % n == 0 and fits(n * sequence))
    return next(found, 1)


def meshes(config: MeshConfig, model: ModelConfig, devices: list) -> list[MeshConfig]:
    """Those that are worth a try beside a config's: of the devices that split neither rows nor
    products, shards of a tile at least, as many as can be, half as many, and so on down to an
    eighth; and a whole copy on each."""
    count = len(devices) // (max(config.sequence, 1) * max(config.tensor, 1))
    most = _sharing(count // slices_of(devices) or 1, config.sequence, model.widths)
    sizes = [most // part for part in (1, 2, 4, 8) if most % part == 0]
    return [
        replace(config, replica=count // fsdp, fsdp=fsdp)
        for fsdp in dict.fromkeys([*sizes, 1])
        if count % fsdp == 0
    ]


def slices_of(devices: list) -> int:
    """How many slices of TPUs, with a slower network between them, the devices are of."""
    tpus = [device for device in devices if device.platform == "tpu"]
    return len({getattr(device, "slice_index", 0) for device in tpus}) or 1


def _arranged(devices: list, shape: list[int]) -> np.ndarray:
    """The devices as neighbours along the axes of a mesh; slices apart, as replicas."""
    slices, (replica, *rest) = slices_of(devices), shape
    if slices > 1 and replica % slices:
        return np.array(devices).reshape(shape)
    if slices > 1:
        return mesh_utils.create_hybrid_device_mesh(
            (replica // slices, *rest), (slices, 1, 1, 1), devices, allow_split_physical_axes=True
        )
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def narrow(mesh: Mesh, model: ModelConfig) -> str | None:
    """A sentence of warning where a TPU's shards are narrower than ``TILE``, None elsewhere."""
    parts, least = mesh.shape["fsdp"] * mesh.shape["sequence"], min(model.widths)
    if mesh.devices.flat[0].platform != "tpu" or parts == 1 or least // parts >= TILE:
        return None
    return (
        f"{_sharing_in_words(mesh)} leaves a device {least // parts} rows of a width of {least}, "
        f"less than a tile of {TILE}: gathers and reductions will hold up the step. Leave "
        "mesh.replica and mesh.fsdp out, or take fewer for mesh.fsdp and more for mesh.replica."
    )


def _sharing_in_words(mesh: Mesh) -> str:
    """Of the devices that share the parameters."""
    fsdp, sequence = mesh.shape["fsdp"], mesh.shape["sequence"]
    return f"mesh.fsdp {fsdp}" + (f" x mesh.sequence {sequence}" if sequence > 1 else "")


def check_fits(mesh: Mesh, model: ModelConfig, rows: int, length: int) -> None:
    """Raise ConfigError unless the mesh divides the model and ``rows`` rows of a batch, each of
    ``length`` positions."""
    fsdp, sequence, tensor = (mesh.shape[axis] for axis in AXES[1:])
    batch, sharing = mesh.shape["replica"] * fsdp, fsdp * sequence
    by = "mesh.fsdp" if sequence == 1 else "mesh.fsdp x mesh.sequence"
    if rows % batch:
        fewer, more = rows // batch * batch, -(-rows // batch) * batch
        raise ConfigError(
            f"data.batch_size / train.accumulation {rows} is no multiple of mesh.replica x "
            f"mesh.fsdp {batch}: devices take as many rows each. Ask for "
            f"{f'{fewer} or {more}' if fewer else more} rows, or let N devices share each row with "
            "--mesh.sequence N."
        )
    checks = [
        ("mesh.sequence", sequence, "data.length", length),
        (by, sharing, "model.width", model.width),
        ("mesh.tensor", tensor, "model.heads", model.heads),
        ("mesh.tensor", tensor, "model.kv_heads", model.key_value_heads),
        ("mesh.tensor", tensor, "model.mlp_width", model.hidden_width),
    ]
    for i, stage in enumerate(model.stages):
        checks += [
            (by, sharing, f"model.stages.{i}.width", stage.width),
            ("mesh.tensor", tensor, f"model.stages.{i}.heads", stage.heads),
        ]
    for part_name, part, whole_name, whole in checks:
        if whole % part:
            raise ConfigError(
                f"{part_name} {part} does not divide {whole_name} {whole}; nearest that does: "
                f"{nearest_divisors(whole, min(part, whole))}."
            )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over every data-parallel axis, and their positions over the devices that share them."""
    return NamedSharding(mesh, ACTIVATIONS.spec(POSITIONS))


def local_rows(sharding: NamedSharding, shape: tuple[int, int]) -> np.ndarray:
    """The rows of a ``[rows, length]`` batch of which this process's devices hold any part, in
    order."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    rows = [np.arange(shape[0])[index[0]] for index in indices if index is not None]
    return np.unique(np.concatenate(rows))


def place_batch(
    sharding: NamedSharding, host_batch: dict[str, np.ndarray], rows: np.ndarray, batch_size: int
) -> dict[str, jax.Array]:
    """Global arrays from this host's rows, of which each device is given its positions."""

    def place(local: np.ndarray) -> jax.Array:
        def shard(index):
            return local[np.searchsorted(rows, np.arange(batch_size)[index[0]]), index[1]]

        return jax.make_array_from_callback((batch_size, local.shape[1]), sharding, shard)

    return {name: place(local) for name, local in host_batch.items()}
