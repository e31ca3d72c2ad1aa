"""Compile a preset's training step for a TPU pod, on any machine:

    python -m octavo.launch.compile PRESET --topology v5e-16 [--dotted.field VALUE ...]

Tells memory per chip, FLOPs, collectives and a roofline estimate before anyone pays for a pod.
Needs the tpu-compile extra (libtpu), no TPU.
"""

import contextlib
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass

from octavo import cli, process
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config
from octavo.presentation import Option
from octavo.settings import parse_config, taken

# Cloud names (by TensorCores for v4 and v5p, by chips for the rest) to what libtpu calls them:
# topology, and accelerator type for its environment.
TOPOLOGIES = {
    "v5e-4": ("v5e:2x2", "v5litepod-4"),
    "v5e-16": ("v5e:4x4", "v5litepod-16"),
    "v5e-64": ("v5e:8x8", "v5litepod-64"),
    "v5e-256": ("v5e:16x16", "v5litepod-256"),
    "v6e-16": ("v6e:4x4", "v6e-16"),
    "v6e-256": ("v6e:16x16", "v6e-256"),
    "v5p-32": ("v5p:2x2x4", "v5p-32"),
    "v5p-128": ("v5p:4x4x4", "v5p-128"),
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one training step."""

    chips: int
    mesh: dict[str, int]
    warning: str | None
    """Of a mesh whose shards are narrow (``sharding.narrow``)."""
    device_kind: str
    useful_flops: float
    """Of a step and chip: forward and backward over the units of ``expected_units``, or over as
    many as rows have room for."""
    peak_bytes: int
    """Memory per chip at the worst moment."""
    argument_bytes: int
    """Memory per chip of state and batch."""
    collectives: dict[str, int]
    """How often each collective stands in the program (a loop's body counts once)."""
    text: str
    """The compiled program."""


def check_topology(topology: str) -> None:
    """Raise ConfigError unless it is a known one."""
    if topology not in TOPOLOGIES:
        raise ConfigError(f"no topology {topology!r}; known: {', '.join(TOPOLOGIES)}.")


def devices_of(topology: str) -> list:
    """The chips of a topology, to compile for. Raises as ``compile_step``."""
    check_topology(topology)
    name, accelerator = TOPOLOGIES[topology]
    # Before libtpu is loaded: no metadata server is asked which TPU this is, and as there is none,
    # several processes may compile.
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": accelerator,
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
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except jax.errors.JaxRuntimeError as error:
        raise cli.RunError(f"libtpu does not describe {topology}: {_first_line(error)}") from error


def compile_step(config: Config, topology: str) -> Compiled:
    """Compile the real training step of ``config`` ahead of time for a TPU topology, for data of
    bytes and marks of words.

    Raises ConfigError if the topology is unknown, libtpu is missing, the mesh does not fit, or the
    step needs more memory than a chip has, RunError if the compiler fails.
    """
    devices = devices_of(topology)
    import jax

    from octavo.model import flops
    from octavo.model.units.room import filled_at
    from octavo.run.sharding import narrow
    from octavo.tokenizers.words import WordTokenizer
    from octavo.training.trainer import Trainer

    model, length = config.model, config.data.length
    units = expected_units(model)
    filled = None if units is None else filled_at(model, length, units)
    trainer = Trainer.of(config, WordTokenizer(), devices=devices, filled=filled)
    with jax.set_mesh(trainer.mesh):
        try:
            compiled = trainer.step.lower(trainer.abstract, trainer.abstract_batch()).compile()
            memory = compiled.memory_analysis()
            with _without_stacks():
                text = compiled.as_text()
        except jax.errors.JaxRuntimeError as error:
            if "hbm" not in str(error).lower():
                raise cli.RunError(
                    f"the TPU compiler failed for {topology}: {_first_line(error)} Try another "
                    "--topology or --data.batch-size, or another version of libtpu."
                ) from error
            need = re.search(r"\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)", str(error))
            size = "needs {}iB of {}iB".format(*need.groups()) if need else str(error)
            raise ConfigError(
                f"the step does not fit a chip of {topology}: it {size} of memory. Try "
                "--execution.remat full, a smaller --data.batch-size, or more --train.accumulation."
            ) from error
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = re.findall(rf" ({kinds})(?:-start)?\(", text)
    positions = config.data.batch_size * length / len(devices)
    size = trainer.tokenizer.vocab_size
    return Compiled(
        chips=len(devices),
        mesh=dict(trainer.mesh.shape),
        warning=narrow(trainer.mesh, model),
        useful_flops=positions * flops.training_flops(model, size, length, units),
        device_kind=devices[0].device_kind,
        peak_bytes=memory.peak_memory_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        collectives=dict(Counter(found)),
        text=text,
    )


def expected_units(model: ModelConfig) -> tuple[float, ...] | None:
    """Units per position of a row at each level, if all learn to end them at a rate (that of other
    scripts, where there are several); None elsewhere: without text, nobody knows."""
    found, share = [], 1.0
    for stage in model.stages:
        if stage.supervision not in ("binomial", "hinge", "policy", "ratio", "controller", "kept"):
            return None
        share *= stage.rates[0]
        found.append(share)
    return tuple(found)


@contextlib.contextmanager
def _without_stacks():
    """While libtpu prints a program: it prints the C++ stack of what it raises, too."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0][:300].rstrip(".") + "."


def topology_of(arguments: list[str], default: str = "v5e-16") -> str:
    """Take the topology that ``--topology NAME`` or ``--topology=NAME`` asks for out of the
    arguments. Raises ConfigError if it is unknown."""
    topology = taken(arguments, "--topology")
    topology = default if topology is None else topology
    check_topology(topology)
    return topology


def main() -> None:
    arguments = sys.argv[1:]
    topology = topology_of(arguments)
    option = Option("--topology NAME", f"{', '.join(TOPOLOGIES)} (default: v5e-16)")
    about = "Compile a training step for a TPU pod, on this machine: memory, collectives, roofline."
    config = parse_config("python -m octavo.launch.compile", about, arguments, (option,))
    compiled = compile_step(config, topology)

    from octavo.brief import human
    from octavo.model import flops

    per_id = flops.training_flops(config.model, 256, config.data.length)
    step_flops = per_id * config.data.batch_size * config.data.length / compiled.chips
    print(f"preset       {config.preset} on {compiled.chips} x {compiled.device_kind}")
    print(f"mesh         {'  '.join(f'{axis} {size}' for axis, size in compiled.mesh.items())}")
    print(f"memory       {compiled.peak_bytes / 2**30:.2f} GiB per chip at the peak")
    print(f"             {compiled.argument_bytes / 2**30:.2f} GiB of it state and batch")
    print(f"compute      {human(step_flops)}FLOPs per chip and step, {human(per_id)}FLOPs per id")
    if peak := flops.peak_flops(compiled.device_kind):
        print(f"roofline     {step_flops / peak * 1e3:.1f} ms per step at the chip's peak")
    for kind, count in sorted(compiled.collectives.items()):
        print(f"collective   {kind} x {count}")
    if compiled.warning:
        process.warn(compiled.warning)


if __name__ == "__main__":
    cli.run(main)
