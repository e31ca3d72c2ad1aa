"""Train a language model: python train.py [PRESET] [--dotted.field VALUE ...] [--workdir DIR]

The same command on an existing run directory continues that run. Exit codes: 0 done, 1 failed,
2 wrong use, 70 nothing moved for too long, 75 stopped by a signal with everything saved.
"""

import contextlib
import sys
import time
import types

from octavo import cli, process
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config
from octavo.files import shown, write, write_json


def main() -> None:
    preset, config = cli.parse_config("train.py", "Train a language model on bytes.")
    train(config, preset)


def train(config: Config, preset: str = "custom") -> dict:
    """Run ``config`` to its last step; returns the final scores, and the folder as "workdir".

    preset: names a new folder. Raises ConfigError or DataError for what cannot work,
    CheckpointError if saving or restoring fails, RunError if the run diverges or its scoring fails,
    Preempted if a signal stopped it.
    """
    from octavo.training.lifecycle import StopSignal, Watchdog

    if not isinstance(config, Config):
        raise ConfigError(f"train takes a Config, as presets() has them, not {config!r:.60}.")
    with (
        Watchdog(config.train.watchdog_seconds) as watchdog,
        StopSignal() as stop,
        contextlib.ExitStack() as held,  # the mesh, and the lock of the folder
    ):
        return _train(config, preset, watchdog, stop, held)


def _train(config: Config, preset: str, watchdog, stop, held: contextlib.ExitStack) -> dict:
    import jax  # here, so that --help and wrong flags answer at once

    from octavo.data.shards import heldout_documents
    from octavo.run import mirror
    from octavo.run.checkpoint import Checkpoints, all_finite, record_of
    from octavo.run.identity import changes
    from octavo.training import folder
    from octavo.training.hosts import start_hosts
    from octavo.training.metrics import human
    from octavo.training.report import Reporter, decided
    from octavo.training.trainer import Trainer

    start_hosts(config.train.distributed)
    leader = jax.process_index() == 0
    console = cli.console(quiet=not leader)

    # Devices, data and model: shapes only, nothing allocated yet.
    record = record_of(mirror.folder(config.workdir)) if config.workdir else None
    trainer = Trainer.of(config, record=record)
    held.enter_context(jax.set_mesh(trainer.mesh))
    plan, scored = trainer.plan, config.train.evaluation_bytes
    heldout = heldout_documents(plan.corpora, scored) if scored else []
    if scored and not heldout:
        console.print("warning: no text was held out, so there will be no score; prepare the "
                      "corpus again with a larger --heldout")  # fmt: skip

    # The folder: ours alone, the same for all hosts, and what it holds.
    workdir = folder.claim(config, preset, held)
    cli.continue_with(workdir)
    folder.check_hosts_agree(config, plan.description)
    record = record_of(workdir)  # now that nobody else adds to it
    allowed = folder.given_up(workdir, config)
    begun = record is None and folder.unsaved_start(workdir, config, allowed)
    trainer = trainer.continuing(record)

    # Continue the run that is there, or start one.
    checkpoints = Checkpoints(workdir, config.train.keep_checkpoints)
    state = checkpoints.restore(
        trainer.abstract, plan.description, trainer.meta, console.print, allowed
    )
    if state is None:
        state = trainer.fresh()
    first_step, steps = int(state["step"]), config.train.steps
    if leader:
        folder.describe(workdir, trainer)

    # Say what was decided.
    if record is not None:
        for change in changes(record.config, config):
            console.print(f"changed    {change}")
    if trainer.replanned:
        console.print(f"schedule   {trainer.replanned.sentence(config)}")
    told = " (starts again: nothing was saved yet)" if begun else ""
    if record is not None:
        told = f" (continues at step {first_step})"
    console.print(f"run        {workdir}{told}")
    for line in decided(trainer, preset):
        console.print(line)

    # The loop. Metrics of a step are read while the next one runs.
    reporter = Reporter(trainer, console, workdir if leader else None, first_step)

    def report(step: int, *about) -> None:
        reporter(step, *about)
        if reporter.in_a_row >= config.train.give_up_after:
            checkpoints.wait()
            raise cli.RunError(
                f"{reporter.in_a_row} steps in a row up to step {step} were not finite. "
                + folder.give_up(workdir, checkpoints, config, step, reporter.in_a_row)
            )
        watchdog.alive()

    stream = trainer.batches(first_step)
    pending, due, sound = None, False, True
    for step in range(first_step + 1, steps + 1):
        began = time.perf_counter()
        batch = trainer.place(next(stream))
        data_wait = time.perf_counter() - began
        state, metrics = trainer.step(state, batch)
        if pending:
            report(*pending)
        pending = (step, metrics, data_wait)
        stopping = stop.requested(step)
        due |= step % config.train.checkpoint_every == 0
        if stopping or due or step == steps:
            report(*pending)
            pending = None
            # What made a step fail, or would make the next one, is not kept: it waits.
            sound = not reporter.in_a_row and all_finite(state["params"])
            if sound:
                checkpoints.save(state, plan.description, trainer.meta)
                (workdir / folder.DIVERGED).unlink(missing_ok=True)
                due = False
        if stopping:
            checkpoints.wait()
            saved = f"step {checkpoints.newest}" if checkpoints.newest else "nothing"
            raise cli.Preempted(f"{saved} is saved in {workdir}")
    watchdog.begin("saving")
    checkpoints.wait()
    if not sound or reporter.skipped > (steps - first_step) / 2:
        raise cli.RunError(
            f"{reporter.skipped} of {steps - first_step} steps were not finite and were skipped"
            f"{'' if sound else ', and what the last one left is not kept'}. "
            + folder.give_up(workdir, checkpoints, config, steps, reporter.in_a_row)
        )
    checkpoints.close()
    reporter.close()
    saved = f"training is finished and saved in {workdir}"
    process.kept = f"But {saved}; {cli.again()} to score it."
    stop.close()

    # What came of it, which cannot lose what training gave.
    run = trainer.run(state, workdir.name)
    results: dict[str, float] = {"step": int(state["step"])}
    try:
        watchdog.begin("scoring")
        if heldout:
            console.print("scoring held-out text ...")
            score = run.score(
                heldout, batch_size=config.data.batch_size,
                progress=lambda done, of: watchdog.alive("scoring"),
            )  # fmt: skip
            results["heldout/bits_per_byte"] = score.bits_per_byte
            console.print(
                f"held-out   {score.bits_per_byte:.3f} bits/byte over {human(score.bytes)}B in "
                f"{score.documents} documents"
            )
        if config.train.sample_bytes:
            watchdog.begin("sampling")
            text = run.generate(
                "The ", config.train.sample_bytes, temperature=0.7, seed=config.train.seed
            )
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
    return results | {"workdir": shown(str(workdir))}


def cli_main() -> None:
    cli.run(main)


class _Train(types.ModuleType):
    """This module can be called: the name ``octavo.train`` is both it and the function."""

    def __call__(self, config: Config, preset: str = "custom") -> dict:
        return train(config, preset)


sys.modules[__name__].__class__ = _Train

if __name__ == "__main__":
    cli_main()
