"""Train a language model: python train.py [PRESET] [--dotted.field VALUE ...] [--workdir DIR]

The same command on an existing run directory continues that run. Exit codes: 0 done, 1 failed,
2 wrong use, 70 nothing moved for too long, 75 stopped by a signal with everything saved.
"""

import contextlib
import dataclasses
import math
import time
from pathlib import Path

from octavo import cli, process
from octavo.configs.schema import Config, to_json
from octavo.files import write, write_json


def main() -> None:
    preset, config = cli.parse_config("train.py", "Train a language model on bytes.")
    train(config, preset)


def train(config: Config, preset: str = "custom") -> dict:
    """Run ``config`` to its last step; returns the final scores.

    Raises ConfigError or DataError for what cannot work, CheckpointError if saving or restoring
    fails, RunError if the run diverges or its scoring fails, Preempted if a signal stopped it.
    """
    from octavo.training.lifecycle import StopSignal, Watchdog

    with (
        Watchdog(config.train.watchdog_seconds) as watchdog,
        StopSignal() as stop,
        contextlib.ExitStack() as held,  # the lock of the folder
    ):
        return _train(config, preset, watchdog, stop, held)


def _train(config: Config, preset: str, watchdog, stop, held: contextlib.ExitStack) -> dict:
    import jax  # here, so that --help and wrong flags answer at once

    from octavo.configs.room import room_of
    from octavo.data.pipeline import batches, make_plan
    from octavo.data.plan import Plan
    from octavo.data.shards import heldout_documents
    from octavo.decoding.sampling import Sampling, generate, plain_text
    from octavo.model import flops
    from octavo.run import sharding
    from octavo.run.checkpoint import Checkpoints, all_finite, newest_record
    from octavo.run.definition import define
    from octavo.run.directory import CONFIG, MARKER
    from octavo.run.identity import changes
    from octavo.run.opened import check_marks, keep_marker, marker_for
    from octavo.run.score import score
    from octavo.training import folder
    from octavo.training.hosts import start_hosts
    from octavo.training.metrics import MetricsLog, Progress, human, of_parts
    from octavo.training.optimizer import make_optimizer, replan
    from octavo.training.state import abstract_state, fresh_state
    from octavo.training.step import make_step

    start_hosts(config.train.distributed)
    leader = jax.process_index() == 0
    console = cli.console(quiet=not leader)

    # Devices.
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_fits(mesh, config.model, config.data.batch_size // config.train.accumulation)

    # Data: what every row of every step holds.
    record = newest_record(Path(config.workdir)) if config.workdir else None
    version = Plan.VERSION if record is None else record.data.get("version")
    room = room_of(config.model, config.data.length)
    plan = make_plan(config.data, config.train.seed, config.model.needs_marks, room, version)
    check_marks(config.model, plan.corpora)
    tokenizer, marked_by = plan.corpora[0].tokenizer, plan.corpora[0].folder
    marker = marker_for(config.model, tokenizer, marked_by)
    scored = config.train.evaluation_bytes
    heldout = heldout_documents(plan.corpora, scored) if scored else []
    if scored and not heldout:
        console.print("warning: no text was held out, so there will be no score; prepare the "
                      "corpus again with a larger --heldout")  # fmt: skip
    jax.set_mesh(mesh)  # after the marker, which may be a model on a mesh of its own
    rows_over_mesh = sharding.batch_sharding(mesh)
    shape = (config.data.batch_size, config.data.length)
    rows = sharding.local_rows(rows_over_mesh, shape)

    # Model: shapes only, nothing allocated yet.
    definition = define(config, tokenizer.vocabulary, jax.devices()[0].platform)

    # The folder: ours alone, the same for all hosts, and what it holds.
    workdir = folder.claim(config, preset, held)
    cli.continue_with(workdir)
    folder.check_hosts_agree(config, plan.description)
    record = newest_record(workdir)  # now that nobody else adds to it
    allowed = folder.given_up(workdir, config)
    begun = record is None and folder.unsaved_start(workdir, config, allowed)
    replanned = replan(config, record)
    optimizer = make_optimizer(config.optimizer, config.train.steps, definition.names, replanned)
    abstract = abstract_state(definition, optimizer, mesh)

    # Continue the run that is there, or start one.
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints)
    meta = {
        "model": to_json(config.model),
        "config": to_json(config),
        "tokenizer": tokenizer.fingerprint,
        "schedule": replanned and dataclasses.asdict(replanned),
    }
    state = checkpoints.restore(abstract, plan.description, meta, console.print, allowed)
    if state is None:
        state = fresh_state(definition, optimizer, abstract, config.train.seed)
    first_step = int(state["step"])
    if leader:
        write_json(workdir / CONFIG, to_json(config))
        write_json(workdir / "tokenizer.json", tokenizer.to_json())
        if (marked_by / MARKER).is_dir():
            keep_marker(marked_by / MARKER, None, workdir)

    # Say what was decided.
    bytes_per_id = plan.bytes_per_id()
    flops_per_id = flops.training_flops(config.model, tokenizer.vocab_size, config.data.length)
    peak = flops.peak_flops(jax.devices()[0].device_kind)
    told = " (starts again: nothing was saved yet)" if begun else ""
    if record is not None:
        told = f" (continues at step {first_step})"
    for line in (
        *(f"changed    {change}" for change in changes(record and record.config, config)),
        *([f"schedule   {replanned.told(config)}"] if replanned else ()),
        f"run        {workdir}{told}",
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

    skips = in_a_row = 0

    def report(step: int, metrics: dict, data_wait: float) -> None:
        nonlocal skips, in_a_row
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
        in_a_row = int(values["skipped"])
        skips += in_a_row > 0
        if in_a_row >= config.train.give_up_after:
            checkpoints.wait()
            raise cli.RunError(
                f"{in_a_row} steps in a row up to step {step} were not finite. "
                + folder.give_up(workdir, checkpoints, config, step, in_a_row)
            )
        watchdog.alive()

    pending, due, sound = None, False, True
    for step in range(first_step + 1, config.train.steps + 1):
        began = time.perf_counter()
        batch = sharding.place_batch(rows_over_mesh, next(stream), rows, shape[0])
        data_wait = time.perf_counter() - began
        state, metrics = step_function(state, batch)
        if pending:
            report(*pending)
        pending = (step, metrics, data_wait)
        stopping = stop.requested(step)
        due |= step % config.train.checkpoint_every == 0
        if stopping or due or step == config.train.steps:
            report(*pending)
            pending = None
            # What made a step fail, or would make the next one, is not kept: it waits.
            sound = not in_a_row and all_finite(state["params"])
            if sound:
                checkpoints.save(state, plan.description, meta)
                (workdir / folder.DIVERGED).unlink(missing_ok=True)
                due = False
        if stopping:
            checkpoints.wait()
            saved = f"step {checkpoints.newest}" if checkpoints.newest else "nothing"
            raise cli.Preempted(f"{saved} is saved in {workdir}")
    watchdog.begin("saving")
    checkpoints.wait()
    if not sound or skips > (config.train.steps - first_step) / 2:
        raise cli.RunError(
            f"{skips} of {config.train.steps - first_step} steps were not finite and were skipped"
            f"{'' if sound else ', and what the last one left is not kept'}. "
            + folder.give_up(workdir, checkpoints, config, config.train.steps, in_a_row)
        )
    checkpoints.close()
    if log:
        log.close()
    saved = f"training is finished and saved in {workdir}"
    process.kept = f"But {saved}; {cli.again()} to score it."
    stop.close()

    # What came of it, which cannot lose what training gave.
    results = {"step": int(state["step"])}
    try:
        watchdog.begin("scoring")
        if heldout:
            console.print("scoring held-out text ...")
            result = score(
                definition.bind, state["params"], heldout, tokenizer, marker, mesh,
                length=config.data.length, overlap=config.data.length // 2,
                batch_size=config.data.batch_size, room=room,
                progress=lambda done, of: watchdog.alive("scoring"),
            )  # fmt: skip
            results["heldout/bits_per_byte"] = result.bits_per_byte
            console.print(
                f"held-out   {result.bits_per_byte:.3f} bits/byte over {human(result.bytes)}B in "
                f"{result.documents} documents"
            )
        if config.train.sample_bytes:
            watchdog.begin("sampling")
            pieces = generate(
                definition.bind, state["params"], [tokenizer.encode(b"The ")],
                config.train.sample_bytes, sampling=Sampling(0.7), seed=config.train.seed,
                bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, marker=marker,
                context=config.data.length,
            )  # fmt: skip
            text = "The " + "".join(plain_text(pieces, tokenizer))
            console.print("\nsample     " + text.replace("\n", "\n           "))
            if leader:
                write(workdir / "sample.txt", text)
        if leader:
            write_json(workdir / "results.json", results)
    except Exception as error:
        failed = cli.sentence(error)
        if leader:
            with contextlib.suppress(OSError):  # it may be why
                write_json(workdir / "results.json", results | {"failed": failed})
        raise cli.RunError(f"{saved}; scoring failed: {failed}") from error
    console.print(f"\nthe run is in {workdir}")
    return results


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
