"""What XLA makes of a training step for an H200, on a machine that has no GPU:

    pip install 'octavo[cuda12]'
    python benchmarks/gpu_programs.py [PRESET ...] [--rows 16]

PRESET is flat, hat, ... of 100M. Memory, and what a step launches in the usual case: kernels,
products, attention, loops, branches, and slices that the host cuts for a product or a copy (about a
third of a millisecond each, docs/speed.md). Nothing is run and nothing is tuned, so it says no
milliseconds.
"""

import argparse
import collections
import os

from octavo import cli
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.launch.program import instructions

PRESETS = ("flat", "hat", "magnet", "hnet")
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 151397597184 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } device_description_str: "NVIDIA H200"
"""
FREE = {
    "parameter", "get-tuple-element", "tuple", "constant", "bitcast", "call", "async-start",
    "async-done", "fusion-done",
}  # fmt: skip
"""Operations that launch nothing themselves."""
CONTROL = {"while": "loops", "conditional": "branches"}
MARKS = {
    '"name":"dynamic_slice_fusion"': "slices", "__cudnn": "attention", "__cublas": "products",
}  # fmt: skip
"""What an operation is, by what its text holds."""
USUAL = {4: 1}
"""Of so many branches the one that is taken as a rule: of attention, that of a few documents. Else
the first."""


def devices():
    import jax
    from jax.experimental import topologies

    jax.devices()  # finds the plugins
    try:
        found = topologies.get_topology_desc(
            "1x1x1", platform="cuda", target_config=H200, topology="1x1x1"
        )
    except NotImplementedError as error:
        raise ConfigError("this needs XLA's compiler for CUDA: pip install 'octavo[cuda12]'.") \
            from error  # fmt: skip
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    # There is no cuDNN to ask for its version, and no card for its generation.
    cudnn.check_cudnn_version = lambda: 91000
    cudnn.check_compute_capability = lambda _: True
    return found.devices


def launched(text: str) -> collections.Counter[str]:
    """How often a step does what, by the text of its compiled program."""
    found: collections.Counter[str] = collections.Counter()
    for one, times in instructions(text, USUAL):
        if one.operation in FREE:
            continue
        by_text = (what for mark, what in MARKS.items() if mark in one.rest)
        found[CONTROL.get(one.operation) or next(by_text, "kernels")] += times
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=4096)
    a = parser.parse_args()
    names = [name.removesuffix("-100m") for name in a.presets]
    if unknown := [name for name in names if f"{name}-100m" not in presets()]:
        known = (name for name in presets() if name.endswith("-100m"))
        raise ConfigError(f"no preset {unknown[0]}-100m; there are {', '.join(known)}.")
    os.environ["JAX_PLATFORMS"] = "cpu"
    # A program without a GPU cannot be read again.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    import jax
    from gpu import UNIT, config_of, tokenizer_of

    from octavo.model.units.room import filled_at
    from octavo.training.trainer import Trainer

    on = devices()
    what = ("kernels", "products", "attention", "loops", "branches", "slices")
    print(f"{'':14}{'remat':>6}{'GiB':>7}" + "".join(f"{name:>11}" for name in what))
    for name in names:
        config = config_of(name, a.rows, a.length, small=False)
        filled = None
        if config.model.stages:
            filled = filled_at(config.model, a.length, (1 / UNIT,) * len(config.model.stages))
        trainer = Trainer.of(config, tokenizer_of(config), devices=on, filled=filled)
        with jax.set_mesh(trainer.mesh):
            step = trainer.step.lower(trainer.abstract, trainer.abstract_batch()).compile()
        memory = step.memory_analysis()
        size = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30
        found = launched(step.as_text())
        counts = "".join(f"{found[each]:11}" for each in what)
        print(f"{name + '-100m':14}{trainer.definition.remat:>6}{size:7.1f}{counts}", flush=True)


if __name__ == "__main__":
    cli.run(main)
