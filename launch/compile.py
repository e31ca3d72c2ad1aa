"""Compile a training step for a TPU pod, on any machine, and say what it would take:

    python -m octavo.launch.compile PRESET --topology v5e-256 [--dotted.field VALUE ...]
    python -m octavo.launch.compile PRESET --topology v5e-256 --sweep

Memory per chip, FLOPs, collectives, and an estimate of the step, before anyone pays for a pod.
Needs the tpu-compile extra (libtpu), no TPU. docs/pods.md says how each number is made.
"""

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from octavo import cli, process, storage
from octavo.arguments import check_output
from octavo.brief import human
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config
from octavo.launch.estimate import Estimate, estimate
from octavo.launch.topologies import Topology, devices_of, examples, first_line, topology
from octavo.presentation import Option
from octavo.settings import parse_config, taken

LARGEST = 3
"""Arrays that are named."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one training step."""

    topology: Topology
    chips: int
    mesh: dict[str, int]
    remat: str
    """What it was taken to be, if it was left open."""
    warning: str | None
    """Of a mesh whose shards are narrow (``sharding.narrow``)."""
    device_kind: str
    tokenizer: str
    """Whose ids the step reads."""
    ids: float
    """Of a step, all chips together."""
    bytes_per_id: float | None
    """Of text; None where nobody knows."""
    useful_flops: float
    """Of a step and chip: forward and backward over the units of ``expected_units``, or over as
    many as rows have room for."""
    paid_flops: float
    """With padding and what is computed again."""
    recomputed_flops: float
    """What of it is computed again for the backward pass."""
    peak_bytes: int
    """Memory per chip at the worst moment."""
    argument_bytes: int
    """Memory per chip of state and batch."""
    seconds: float
    """That compiling took."""
    estimate: Estimate
    text: str
    """The compiled program."""

    @property
    def collectives(self) -> dict[str, int]:
        """How often each collective takes place in a step."""
        return {kind: about["times"] for kind, about in self.estimate.by_kind().items()}


def compile_step(config: Config, name: str, vocabulary: int | None = None) -> Compiled:
    """Compile the real training step of ``config`` ahead of time for a TPU topology: for the text
    of ``data.source`` or, where it is not prepared here, for bytes and marks of words. vocabulary:
    for subwords of so many ids instead.

    Raises ConfigError if the topology is unknown, libtpu is missing, the mesh does not fit, or the
    step needs more memory than a chip has, RunError if the compiler fails.
    """
    where = topology(name)
    devices = devices_of(where)
    import jax

    from octavo.model import flops
    from octavo.model.units.room import filled_at
    from octavo.run.sharding import narrow
    from octavo.training.trainer import Trainer

    model, length = config.model, config.data.length
    units = expected_units(model)
    filled = None if units is None else filled_at(model, length, units)
    tokenizer, bytes_per_id = _tokenizer(config, vocabulary)
    trainer = Trainer.of(config, tokenizer, devices=devices, filled=filled)
    began = time.perf_counter()
    with jax.set_mesh(trainer.mesh):
        try:
            compiled = trainer.step.lower(trainer.abstract, trainer.abstract_batch()).compile()
            seconds = time.perf_counter() - began
            memory = compiled.memory_analysis()
            with _without_stacks():
                text = compiled.as_text()
        except jax.errors.JaxRuntimeError as error:
            if "hbm" not in str(error).lower():
                raise cli.RunError(
                    f"the TPU compiler failed for {name}: {first_line(error)} Try another "
                    "--topology or --data.batch-size, or another version of libtpu."
                ) from error
            raise ConfigError(_too_big(str(error), config, trainer, name)) from error
    positions = config.data.batch_size * length
    each = flops.training_flops(model, tokenizer.vocab_size, length, units) / len(devices)
    again = 1 - 1 / trainer.definition.recomputation
    paid = trainer.paid_flops({}) / len(devices)
    return Compiled(
        topology=where,
        chips=len(devices),
        mesh=dict(trainer.mesh.shape),
        remat=trainer.definition.remat,
        warning=narrow(trainer.mesh, model),
        device_kind=devices[0].device_kind,
        tokenizer=tokenizer.name,
        ids=positions,
        bytes_per_id=bytes_per_id,
        useful_flops=positions * each,
        paid_flops=paid,
        recomputed_flops=paid * again,
        peak_bytes=memory.peak_memory_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        seconds=seconds,
        estimate=estimate(text, where, list(trainer.mesh.devices.flat)),
        text=text,
    )


def _tokenizer(config: Config, vocabulary: int | None):
    """Whose ids the step reads, and how many bytes an id stands for."""
    from octavo.run.size import ids_of
    from octavo.tokenizers.bpe import BPETokenizer

    if vocabulary is None:
        return ids_of(config.data.source, config.model)
    more = (b"\0" + i.to_bytes(3, "big") for i in range(vocabulary - 257))
    return BPETokenizer([*(bytes([b]) for b in range(256)), *more]), None


def _too_big(error: str, config: Config, trainer: Any, name: str) -> str:
    """What is said of a step that does not fit, with what would help and is not done yet."""
    need = re.search(r"\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)", error)
    size = "needs {}iB of {}iB".format(*need.groups()) if need else first_line(Exception(error))
    mesh, rows = trainer.mesh.shape, config.data.batch_size // config.train.accumulation
    ways = []
    if mesh["replica"] > 1:
        ways.append(f"--mesh.fsdp {mesh['replica'] * mesh['fsdp']}")
    if trainer.definition.remat != "full":
        ways.append("--execution.remat full")
    if rows > mesh["replica"] * mesh["fsdp"]:
        ways.append(f"--train.accumulation {2 * config.train.accumulation}")
        ways.append("a smaller --data.batch-size")
    ways += ["more chips", "a smaller model"] if not ways else []
    return (
        f"the step does not fit a chip of {name}: it {size} of memory. Try {' or '.join(ways)}; "
        "--sweep tries meshes."
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


def told(found: Compiled, config: Config) -> dict[str, Any]:
    """All that ``lines`` says, for a file. Times are seconds, rates per second; FLOPs and bytes are
    of one chip and step, but for ids and bytes of text per second, of all together."""
    from octavo.model import flops
    from octavo.run.execution import tpu_memory

    est, peak = found.estimate, flops.peak_flops(found.device_kind)
    step = est.seconds
    ids = found.ids / step
    return {
        "preset": config.preset,
        "topology": found.topology.name,
        "chips": found.chips,
        "slices": found.topology.slices,
        "device_kind": found.device_kind,
        "mesh": found.mesh,
        "remat": found.remat,
        "tokenizer": found.tokenizer,
        "compile_seconds": found.seconds,
        "memory": {
            "peak_bytes": found.peak_bytes,
            "argument_bytes": found.argument_bytes,
            "hbm_bytes": int(tpu_memory(found.device_kind)),
            "largest": [
                {"bytes": size, "shape": shape, "origin": origin}
                for size, shape, origin in est.program.arrays[:LARGEST]
            ],
        },
        "compute": {
            "useful_flops": found.useful_flops,
            "paid_flops": found.paid_flops,
            "recomputed_flops": found.recomputed_flops,
            "seconds": est.compute,
            "unknown_kernels": est.program.unknown_kernels,
        },
        "collectives": [
            {"kind": kind, **about} for kind, about in sorted(est.by_kind().items())
        ],
        "step": {
            "seconds": step,
            "communication_seconds": est.waited + est.beside,
            "exposed_seconds": est.exposed,
            "ids_per_second": ids,
            "bytes_per_second": found.bytes_per_id and ids * found.bytes_per_id,
            "steps": config.train.steps,
            "days": config.train.steps * step / 86_400,
        },
        "mfu": peak and found.useful_flops / (peak * step),
        "hfu": peak and found.paid_flops / (peak * step),
    }  # fmt: skip


def lines(about: dict[str, Any]) -> Iterator[str]:
    """The report, each line with what it is about first."""
    memory, compute, step = about["memory"], about["compute"], about["step"]
    yield f"preset       {about['preset']} on {about['topology']}: {about['chips']} x " \
          f"{about['device_kind']}"  # fmt: skip
    sizes = "  ".join(f"{axis} {size}" for axis, size in about["mesh"].items())
    yield f"mesh         {sizes}, remat {about['remat']}"
    yield f"text         ids of {about['tokenizer']}"
    yield (
        f"memory       {memory['peak_bytes'] / 2**30:.2f} GiB per chip at the peak, of "
        f"{memory['hbm_bytes'] / 2**30:.2f}; {memory['argument_bytes'] / 2**30:.2f} of it state "
        "and batch"
    )
    for one in memory["largest"]:
        yield f"memory       {one['bytes'] / 2**30:.2f} GiB {one['shape']} of {one['origin'][-60:]}"
    yield (
        f"compute      {human(compute['useful_flops'])}FLOPs useful per chip and step, "
        f"{human(compute['paid_flops'])}FLOPs paid, "
        f"{human(compute['recomputed_flops'])}FLOPs of it computed again"
    )
    spent = ", ".join(f"{kind} {s * 1e3:.1f} ms" for kind, s in compute["seconds"].items())
    yield f"compute      {spent}"
    if compute["unknown_kernels"]:
        yield f"compute      {compute['unknown_kernels']} custom kernels are not in the estimate"
    for one in about["collectives"]:
        yield (
            f"collective   {one['kind']} {one['bytes'] / 1e9:.3f} GB in {one['times']} times, "
            f"{one['synchronous_bytes'] / 1e9:.3f} GB of it synchronous, "
            f"{one['seconds'] * 1e3:.1f} ms"
        )
    rate = f"{human(step['ids_per_second'])}ids/s"
    if step["bytes_per_second"]:
        rate = f"{human(step['bytes_per_second'])}B/s"
    yield (
        f"step         {step['seconds'] * 1e3:.1f} ms, {step['exposed_seconds'] * 1e3:.1f} of them "
        f"for exposed communication; {rate}"
    )
    yield f"step         {step['steps']:,} of them take {step['days']:.2f} days"
    if about["mfu"]:
        yield f"MFU          {about['mfu']:.1%} ({about['hfu']:.1%} with padding and what is " \
              "computed again)"  # fmt: skip
    yield f"compiled     in {about['compile_seconds']:.0f} s; docs/pods.md: how it is estimated"


@dataclass(frozen=True)
class Tried:
    """A config of a sweep, the flags that make it, and what became of it."""

    flags: list[str]
    config: Config
    compiled: Compiled

    @property
    def seconds(self) -> float:
        return self.compiled.estimate.seconds


def sweep(config: Config, name: str, vocabulary: int | None, say=print) -> Tried:
    """Compile with other meshes; of the best, with other remat; of the best, with fewer rows at a
    time. What is tried is said by ``say``. Returns the fastest that fits. Raises ConfigError if
    none does."""
    from octavo.run.sharding import make_mesh, meshes

    devices = devices_of(topology(name))
    # What cannot be is told as that.
    asked = make_mesh(config.mesh, devices, config.model).shape
    found: list[Tried] = []

    def attempt(flags: list[str], changed: Config) -> None:
        shown = " ".join(flags) or "as it is"
        try:
            compiled = compile_step(changed, name, vocabulary)
        except (ConfigError, cli.RunError) as error:
            say(f"tried        {shown}: {cli.sentence(error)[:160]}")
            return
        found.append(Tried(flags, changed, compiled))
        say(
            f"tried        {shown}: {found[-1].seconds * 1e3:.1f} ms, "
            f"{compiled.peak_bytes / 2**30:.2f} GiB, MFU {told(compiled, changed)['mfu'] or 0:.1%}"
        )

    attempt([], config)
    for mesh in meshes(config.mesh, config.model, devices):
        if (mesh.replica, mesh.fsdp) != (asked["replica"], asked["fsdp"]):
            flags = [f"--mesh.replica {mesh.replica}", f"--mesh.fsdp {mesh.fsdp}"]
            attempt(flags, dataclasses.replace(config, mesh=mesh))
    if not found:
        raise ConfigError(f"no mesh of {name} holds this step; take more chips or smaller batches.")
    best = min(found, key=lambda each: each.seconds)
    for remat in ("none", "qkv", "inner", "full"):
        if remat != best.compiled.remat:
            how = dataclasses.replace(best.config.execution, remat=remat)
            changed = dataclasses.replace(best.config, execution=how)
            attempt([*best.flags, f"--execution.remat {remat}"], changed)
    best = min(found, key=lambda each: each.seconds)
    train, mesh = best.config.train, best.compiled.mesh
    rows = config.data.batch_size // train.accumulation // (mesh["replica"] * mesh["fsdp"])
    for times in (2, 4):
        if rows % times == 0:
            changed = dataclasses.replace(train, accumulation=times * train.accumulation)
            flags = [*best.flags, f"--train.accumulation {changed.accumulation}"]
            attempt(flags, dataclasses.replace(best.config, train=changed))
    return min(found, key=lambda each: each.seconds)


def main() -> None:
    arguments = sys.argv[1:]
    name = taken(arguments, "--topology") or "v5e-16"
    topology(name)
    out, count = taken(arguments, "--json"), taken(arguments, "--vocabulary")
    if count is not None and not (
        count.isascii() and count.isdigit() and len(count) < 10 and 257 <= int(count) <= 1 << 24
    ):
        raise ConfigError(f"--vocabulary is a number of ids from 257 up, not {count!r:.40}.")
    sweeping = "--sweep" in arguments
    arguments = [each for each in arguments if each != "--sweep"]
    options = (
        Option("--topology NAME", f"{', '.join(examples())} and the like (default: v5e-16)"),
        Option("--sweep", "try meshes, remat, fewer rows at a time; say which is fastest"),
        Option("--vocabulary INT", "for subwords of so many ids, without their corpus"),
        Option("--json FILE", "write the same as JSON"),
    )
    described = "Compile a training step for a TPU pod, on this machine, and say what it takes."
    config = parse_config("python -m octavo.launch.compile", described, arguments, options)
    if out is not None:
        check_output(out, "--json")
    import jax

    # Programs for devices that are not here cannot be read back.
    jax.config.update("jax_enable_compilation_cache", False)
    vocabulary = None if count is None else int(count)
    if sweeping:
        best = sweep(config, name, vocabulary)
        print(f"best         {' '.join(best.flags) or 'as it is'}")
        config, compiled = best.config, best.compiled
    else:
        compiled = compile_step(config, name, vocabulary)
    about = told(compiled, config)
    for line in lines(about):
        print(line)
    if compiled.warning:
        process.warn(compiled.warning)
    if out is not None:
        storage.write_json(out, about)


if __name__ == "__main__":
    cli.run(main)
