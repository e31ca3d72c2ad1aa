"""How a config is computed on a platform, where it leaves that open."""

from typing import Any

import jax
import jax.numpy as jnp

from octavo.configs.schema import Config
from octavo.model.layers import Execution, Filled

UNROLLED = {"cpu": 8, "gpu": 32}
"""Layers of a stack that are compiled one by one: there, a scan copies what it stacks."""
KEPT = 2 << 30
"""Bytes of a step's activations up to which all are kept on CPU."""
KEPT_INNER = 1 / 4
"""Of a TPU's memory, up to which it keeps what blocks compute inside."""
TPU_MEMORY = {
    "TPU v4": 31.25, "TPU v5 lite": 15.75, "TPU v5": 94.75, "TPU v6 lite": 31.25, "TPU7x": 94.75,
}  # fmt: skip
"""GiB that a program may use of each device, nearly."""
GPU_MEMORY = 60 << 30
"""Of a GPU that is not there."""
COMPILER: dict[str, dict] = {
    "gpu": {
        "xla_disable_hlo_passes": "fusion-dynamic-memcpy-rewriter,dynamic-slice-fusion-rewriter,"
        "dynamic-slice-fusion-rewriter-v2"
    },
    "tpu": {
        "xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000,
        "xla_enable_async_all_gather": True,
        "xla_tpu_enable_async_collective_fusion": True,
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
        "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
        "xla_tpu_overlap_compute_collective_tc": True,
    },
}
"""What the compiler is told, by platform.

GPU: to cut a slice of what is stacked is a kernel's work, not the host's: steps wait about a third
of a millisecond for each product that finds its slice by itself (docs/speed.md), and no CUDA graph
takes them.

TPU, the first: a product with sharded weights would be one for each shard, with permutes between,
where its other side takes 256 MiB: slices so narrow keep a TPU's units waiting, and the sum is
written as often. Gathered first, flat-100m on 16 chips is twice as fast (estimated). The others:
weights are gathered while others' work goes on, as a v5e does anyway; a v6e would wait for them."""


def execution_of(
    config: Config,
    platform: str,
    filled: tuple[Filled, ...] | None = None,
    devices: int = 1,
) -> Execution:
    """See ``ExecutionConfig`` and ``Execution``. devices: that rows and positions are split over.
    It goes by the config, the platform and the mesh, and on a GPU by what its memory holds: that
    moves losses by rounding at most."""
    how, scan = config.execution, config.execution.scan_layers
    remat = _remat(config, platform, devices) if how.remat == "auto" else how.remat
    if scan is None:
        scan = config.model.layers > UNROLLED.get(platform, 0)
    return Execution(
        platform, jnp.dtype(how.compute_dtype), how.attention, scan, remat, filled=filled
    )


def _remat(config: Config, platform: str, devices: int) -> str:
    size = jnp.dtype(config.execution.compute_dtype).itemsize
    if platform == "tpu":
        room = KEPT_INNER * tpu_memory(_device().device_kind)
        return "inner" if _kept(config, 2, 2, size) / devices < room else "full"
    room = KEPT
    if platform == "gpu":
        stats = jax.local_devices()[0].memory_stats() or {}
        # In bfloat16 a step takes 0.6 times what is counted here in float32 where it is flat, 1.5
        # times in an hourglass (by the compiler: flat-100m; hat, hnet, magnet, aunet-100m).
        share = (0.6 if config.model.stages else 1) if size == 2 else 0.5
        room = share * stats.get("bytes_limit", GPU_MEMORY) * devices
    return "none" if _kept(config, 10, 2, 4) < room else "full"


def tpu_memory(device_kind: str) -> float:
    """Bytes of one TPU, of the smallest where the device is none."""
    sizes = (size for kind, size in TPU_MEMORY.items() if device_kind.startswith(kind))
    return next(sizes, min(TPU_MEMORY.values())) * 2**30


def _device() -> Any:
    """One of those that the model is defined for: of the current mesh, or of this machine."""
    mesh: Any = jax.sharding.get_mesh()
    return jax.devices()[0] if mesh.empty else mesh.devices.flat[0]


def _kept(config: Config, vectors: int, hidden: int, size: int) -> float:
    """About how many bytes a step keeps for its backward pass if it keeps so many vectors of the
    width and of the MLP's, of each layer and position, in numbers of ``size`` bytes."""
    model = config.model
    rows, length, total = config.data.batch_size / config.train.accumulation, config.data.length, 0
    stacks = [
        model.coder(stage, stage.encoder_layers + stage.decoder_layers, "causal")
        for stage in model.stages
    ]
    for stack, share in zip(
        (*stacks, model), (*(s.capacity for s in model.stages), 1), strict=True
    ):
        total += length * stack.layers * (vectors * stack.width + hidden * stack.hidden_width)
        length *= share
    return size * rows * total


def recomputation(remat: str) -> float:
    """What rematerialization makes of training's FLOPs: the forward pass once more under "full";
    under "inner" what attention is made of and its projection, about a third of that; under "qkv"
    that projection, a quarter of the third."""
    return {"full": 4 / 3, "inner": 10 / 9, "qkv": 37 / 36}.get(remat, 1.0)
