"""Train a language model: python train.py [PRESET] [--dotted.field VALUE ...] [--workdir DIR]

The same command on an existing run directory continues that run. Exit codes: 0 done, 1 failed,
2 wrong use, 75 stopped by a signal with everything saved.
"""

import json
import math
import time
from pathlib import Path

from octavo import cli
from octavo.configs.schema import Config, to_json


def main() -> None:
    preset, config = cli.parse_config("train.py", "Train a language model on bytes.")
    train(config, preset)


def train(config: Config, preset: str = "custom") -> dict:
    """Run ``config`` to its last step; returns the final scores.

    Raises ConfigError or DataError for what cannot work, CheckpointError if saving or restoring
    fails, RunError if the run diverges, Preempted if a signal stopped it.
    """
    import jax  # here, so that --help and wrong flags answer at once
    from rich.console import Console

    from octavo.data.pipeline import batches, make_plan
    from octavo.data.shards import heldout_documents
    from octavo.evaluation.run import MARKER, check_marks, keep_marker, marker_for
    from octavo.evaluation.score import score
    from octavo.model import flops
    from octavo.model.sampling import Sampling, generate, plain_text
    from octavo.training import sharding
    from octavo.training.checkpoint import Checkpoints, differences
    from octavo.training.lifecycle import StopSignal, Watchdog, start_hosts
    from octavo.training.metrics import MetricsLog, Progress, human, of_parts
    from octavo.training.optimizer import make_optimizer
    from octavo.training.state import abstract_state, define, fresh_state
    from octavo.training.step import make_step

    watchdog = Watchdog(config.train.watchdog_seconds)
    start_hosts(config.train.distributed)
    stop = StopSignal()
    leader = jax.process_index() == 0
    console = Console(quiet=not leader, highlight=False, soft_wrap=True)

    # Devices.
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_fits(mesh, config.model, config.data.batch_size // config.train.accumulation)

    # Data: what every row of every step holds.
    plan = make_plan(config.data, config.train.seed, config.model.needs_marks)
    check_marks(config.model, plan.corpora)
    tokenizer, marked_by = plan.corpora[0].tokenizer, plan.corpora[0].folder
    marker = marker_for(config.model, tokenizer, marked_by)
    jax.set_mesh(mesh)  # after the marker, which may be a model on a mesh of its own
    rows_over_mesh = sharding.batch_sharding(mesh)
    shape = (config.data.batch_size, config.data.length)
    rows = sharding.local_rows(rows_over_mesh, shape)

    # Model and optimizer: shapes only, nothing allocated yet.
    definition = define(config, tokenizer.vocab_size, jax.devices()[0].platform, tokenizer.bos_id)
    optimizer = make_optimizer(config.optimizer, config.train.steps, definition.names)
    abstract = abstract_state(definition, optimizer, mesh)

    # Continue the run that is there, or start one.
    workdir = Path(config.workdir or f"runs/{preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints)
    meta = {"model": to_json(config.model), "config": to_json(config)}
    state = checkpoints.restore(abstract, plan.description, meta, warn=console.print)
    resumed = state is not None
    if not resumed:
        state = fresh_state(definition, optimizer, abstract, config.train.seed)
    first_step = int(state["step"])
    resolved = workdir / "config.json"
    changes = differences(json.loads(resolved.read_text()), to_json(config)) if resumed else []
    if leader:
        resolved.write_text(json.dumps(to_json(config), indent=1))
        (workdir / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()))
        if (marked_by / MARKER).is_dir():
            keep_marker(marked_by / MARKER, None, workdir)

    # Say what was decided.
    bytes_per_id = plan.bytes_per_id()
    flops_per_id = flops.training_flops(config.model, tokenizer.vocab_size, config.data.length)
    peak = flops.peak_flops(jax.devices()[0].device_kind)
    for line in (
        *(f"changed    {change}" for change in changes),
        f"run        {workdir}" + (f" (continues at step {first_step})" if resumed else ""),
        f"model      {preset}, {human(definition.parameters)}parameters, "
        f"{definition.backend} attention, {config.train.compute_dtype}",
        f"compute    {human(flops_per_id / bytes_per_id)}FLOPs per byte, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, "
        f"mesh {'  '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}",
        f"data       {human(sum(c.utf8_bytes for c in plan.corpora))}B of text, "
        f"{tokenizer.name}, plan {plan.fingerprint}",
        f"step       {human(math.prod(shape) * bytes_per_id)}B; {config.train.steps} steps are "
        f"{config.train.steps * config.data.batch_size / plan.rows_per_epoch:.2f} epochs",
    ):
        console.print(line)

    # The loop. Metrics of a step are read while the next one runs.
    step_function = make_step(config, definition, optimizer, abstract, tokenizer.bytes_per_id())
    stream = batches(
        plan, rows, first_step=first_step, steps=config.train.steps, workers=config.data.workers
    )
    log = MetricsLog(workdir, first_step) if leader else None
    progress = Progress(console, first_step, config.train.steps, config.train.log_every)

    def report(step: int, metrics: dict, data_wait: float) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        cut = of_parts(values)
        bits = values["nats"] / math.log(2) / max(values["bytes"], 1)
        speed = progress.update(step, bits, values["grad_norm"], values["bytes"])
        if log:
            achieved = speed / bytes_per_id * flops_per_id / jax.device_count()
            log.write(step, {
                "train/bits_per_byte": bits,
                "train/loss": values["loss"],
                "train/skipped_in_a_row": values["skipped"],
                "optimizer/grad_norm": values["grad_norm"],
                "perf/bytes_per_second": speed,
                "perf/data_wait_seconds": data_wait,
                **cut,
                **({"perf/mfu": achieved / peak} if peak else {}),
            })  # fmt: skip
        if step % config.train.log_every == 0:
            for name in (k for k in cut if k.startswith("collapsed/") and cut[k] > 0.5):
                console.print(f"warning: {name} {cut[name]:.0%}: nearly all or no positions end a "
                              "unit; raise the stage's supervision-weight")  # fmt: skip
        if values["skipped"] >= config.train.give_up_after:
            raise cli.RunError(
                f"{values['skipped']:.0f} steps in a row up to step {step} were not finite. Lower "
                "--optimizer.learning-rate; the same command continues from the last checkpoint."
            )
        watchdog.alive()

    pending = None
    for step in range(first_step + 1, config.train.steps + 1):
        began = time.perf_counter()
        batch = sharding.place_batch(rows_over_mesh, next(stream), rows, shape[0])
        data_wait = time.perf_counter() - began
        state, metrics = step_function(state, batch)
        if pending:
            report(*pending)
        pending = (step, metrics, data_wait)
        stopping = stop.requested(step)
        if stopping or step % config.train.checkpoint_every == 0 or step == config.train.steps:
            report(*pending)
            pending = None
            checkpoints.save(state, plan.description, meta)
        if stopping:
            checkpoints.wait()
            raise cli.Preempted(f"step {step} is saved in {workdir}; the same command continues.")
    checkpoints.wait()
    checkpoints.close()
    stop.close()  # all is saved: a signal may end what follows

    # What came of it.
    results = {"step": config.train.steps}
    if config.train.evaluation_bytes:
        console.print("scoring held-out text ...")
        heldout = heldout_documents(plan.corpora, config.train.evaluation_bytes)
        if heldout:
            result = score(
                definition.bind, state["params"], heldout, tokenizer, marker, mesh,
                length=config.data.length, overlap=config.data.length // 2,
                batch_size=config.data.batch_size,
                progress=lambda done, of: watchdog.alive(),
            )  # fmt: skip
            results["heldout/bits_per_byte"] = result.bits_per_byte
            console.print(
                f"held-out   {result.bits_per_byte:.3f} bits/byte over {human(result.bytes)}B in "
                f"{result.documents} documents"
            )
    if config.train.sample_bytes:
        pieces = generate(
            definition.bind, state["params"], [tokenizer.encode(b"The ")],
            config.train.sample_bytes, sampling=Sampling(0.7), seed=config.train.seed,
            bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, marker=marker,
            context=config.data.length,
        )  # fmt: skip
        text = "The " + "".join(plain_text(pieces, tokenizer))
        console.print("\nsample     " + text.replace("\n", "\n           "), markup=False)
        if leader:
            (workdir / "sample.txt").write_text(text)
    if leader:
        (workdir / "results.json").write_text(json.dumps(results, indent=1))
        log.close()
    watchdog.stop()
    console.print(f"\nthe run is in {workdir}")
    return results


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
