"""Train a language model: python train.py [PRESET] [--dotted.field VALUE ...] [--workdir RUN]

A run that RUN holds is continued, with its own settings where no flag says otherwise. Exit codes:
0 done, 1 failed, 2 wrong use, 70 nothing moved for too long or a host was lost, 75 stopped by a
signal with everything saved.
"""

import contextlib
import sys
import types
from dataclasses import replace
from pathlib import Path

from octavo import cli, process
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config
from octavo.files import shown, write
from octavo.settings import parse_config


def main() -> None:
    about = "Train a language model, or continue the run that RUN holds, with its own settings."
    train(parse_config("train.py", about))


def train(config: Config, preset: str | None = None) -> dict:
    """Run ``config`` to its last step; returns the final scores, and the folder as "workdir".

    preset: names a new folder; None: the config's. Raises ConfigError or DataError for what cannot
    work, CheckpointError if saving or restoring fails, RunError if the run diverges or its scoring
    fails, Preempted if a signal stopped it.
    """
    from octavo.training.lifecycle import StopSignal, Watchdog

    if not isinstance(config, Config):
        raise ConfigError(f"train takes a Config, as presets() has them, not {config!r:.60}.")
    config = replace(config, preset=preset or config.preset or "custom")
    with (
        Watchdog(config.train.watchdog_seconds) as watchdog,
        StopSignal() as stop,
        contextlib.ExitStack() as held,  # the mesh, and the lock of the folder
    ):
        return _train(config, watchdog, stop, held)


def _train(config: Config, watchdog, stop, held: contextlib.ExitStack) -> dict:
    import jax  # here, so that --help and wrong flags answer at once

    from octavo.data.heldout import heldout_documents
    from octavo.run import mirror
    from octavo.run.checkpoint import Checkpoints, all_finite, check_settings, record_of
    from octavo.run.directory import DIVERGED, PROFILE, SAMPLE
    from octavo.run.goodput import Clock
    from octavo.run.identity import changes
    from octavo.run.sharding import narrow
    from octavo.training import folder, initial
    from octavo.training.evaluation import Evaluator
    from octavo.training.health import check_devices
    from octavo.training.hosts import start_hosts
    from octavo.training.profile import Profile
    from octavo.training.provenance import provenance
    from octavo.training.report import Reporter, decided, printable, scored
    from octavo.training.screen import opened
    from octavo.training.tracker import check_tracker
    from octavo.training.trainer import Trainer

    clock = Clock()
    folder.check_named(config)
    check_tracker(config.train.tracker)
    start_hosts(config.train.distributed)
    check_devices()
    leader = jax.process_index() == 0
    settings, steps = config.train, config.train.steps
    screen = held.enter_context(opened(cli.console(quiet=not leader), steps, settings.log_every))

    # Devices, data and model: shapes only, nothing allocated yet.
    record = record_of(mirror.folder(config.workdir)) if config.workdir else None
    config = initial.resolved(config, record)
    trainer = Trainer.of(config, record=record)
    held.enter_context(jax.set_mesh(trainer.mesh))
    plan, most = trainer.plan, settings.evaluation_bytes
    heldout = heldout_documents(plan.corpora, most) if most else []
    if most and not heldout:
        if settings.keep_best:
            raise ConfigError("train.keep_best needs scores, but no text was held out.")
        screen.warn(
            "no text was held out, so there will be no score; prepare the corpus again with a "
            "larger --heldout"
        )

    # The folder: ours alone, the same for all hosts, and what it holds.
    workdir = folder.claim(config, held)
    folder.check_hosts_agree(config, plan.description, trainer.origin)
    record = record_of(workdir)  # now that nobody else adds to it
    allowed = folder.given_up(workdir, config)
    begun = None if record else folder.unsaved_start(workdir, config, allowed)
    checkpoints = Checkpoints(workdir, settings.keep_checkpoints, settings.keep_every)
    if record:  # that it is another run is said before what more steps of it would do
        check_settings(record, trainer.meta, checkpoints.folder, allowed)
    trainer = trainer.continuing(record)

    # Continue the run that is there, or start one.
    with clock.during("restore"):
        state = checkpoints.restore(
            trainer.abstract, plan.description, trainer.meta, screen.warn, allowed
        )
        if state is None:
            state = trainer.fresh(say=screen.log)
        first_step = int(state["step"])
    if leader:
        folder.describe(workdir, trainer)
    cli.continue_with(workdir)

    # Say what was decided.
    evaluator = Evaluator(trainer, heldout, watchdog.alive)
    for change in changes(record.config if record else begun, config):
        screen.log(f"changed    {change}")
    if trainer.replanned:
        screen.log(f"schedule   {trainer.replanned.sentence(config)}")
    told = " (starts again: nothing was saved yet)" if begun else ""
    if record is not None:
        told = f" (continues at step {first_step})"
    screen.log(f"run        {workdir}{told}")
    for line in (*decided(trainer), *scored(evaluator)):
        screen.log(line)
    if sentence := narrow(trainer.mesh, config.model):
        screen.warn(sentence)

    # The loop. Metrics of a step are read while the next one runs.
    about = provenance(trainer)
    kept_by = workdir if leader else None
    reporter = Reporter(trainer, screen, kept_by, first_step, about, _page, clock)
    held.callback(reporter.close)
    profile = Profile(settings.profile, kept_by and workdir / PROFILE, first_step, clock, screen)
    held.callback(profile.close)
    if settings.keep_best:
        for at, bits in reporter.history.scores:
            if at in checkpoints.steps:
                checkpoints.offer(at, bits)

    def report(step: int, *about) -> None:
        reporter(step, *about)
        if reporter.in_a_row >= settings.give_up_after:
            checkpoints.wait()
            how = folder.give_up(workdir, checkpoints, config, step, reporter.in_a_row)
            with contextlib.suppress(OSError):
                reporter.leave(stopped=True)
            raise cli.RunError(
                f"{reporter.in_a_row} steps in a row up to step {step} were not finite. {how}"
            )
        watchdog.alive()

    def evaluate(state: dict):
        watchdog.begin("scoring")
        jax.block_until_ready(state["step"])  # its time is none of the score's
        try:
            with clock.during("score"):
                return evaluator(state)
        except Exception as error:
            if jax.process_count() > 1:  # the others wait
                raise
            screen.warn(f"no score, but training goes on: {cli.sentence(error)}")

    stream = trainer.batches(first_step)
    pending, due, sound = None, False, True
    clock.begin("step")
    for step in range(first_step + 1, steps + 1):
        profile.before(step, state)
        with clock.during("data"):
            batch = trainer.place(next(stream))
        with clock.during("compile" if step == first_step + 1 else "step"):
            state, metrics = trainer.step(state, batch)
        profile.after(step, state)
        if pending:
            report(*pending)
        pending = (step, metrics)
        stopping = stop.requested(step)
        due |= step % settings.checkpoint_every == 0
        due |= bool(settings.keep_every) and step % settings.keep_every == 0
        if stopping or due or evaluator.due(step) or step == steps:
            found = evaluate(state) if evaluator.due(step) else None
            report(*pending, found)
            pending = None
            if found and settings.keep_best:
                due |= checkpoints.offer(step, found.score.bits_per_byte)
            # What made a step fail, or would make the next one, is not kept: it waits.
            if stopping or due or step == steps:
                sound = not reporter.in_a_row and all_finite(state["params"])
                if sound:
                    with clock.during("save"):
                        checkpoints.save(state, plan.description, trainer.meta)
                    reporter.keep_time()
                    (workdir / DIVERGED).unlink(missing_ok=True)
                    due = False
            if found and sound:
                reporter.leave()
        if stopping:
            with clock.during("save"):
                checkpoints.wait()
            saved = f"step {checkpoints.newest}" if checkpoints.newest else "nothing"
            if sound:
                if heldout and stop.by_person and not reporter.scored:
                    screen.log("scoring what was learned so far; Ctrl-C again ends at once")
                    reporter.take(evaluate(state))
                reporter.leave(stopped=True)
            raise cli.Preempted(f"{saved} is saved in {workdir}")
    watchdog.begin("saving")
    with clock.during("save"):
        checkpoints.wait()
    if not sound or reporter.skipped > (steps - first_step) / 2:
        how = folder.give_up(workdir, checkpoints, config, steps, reporter.in_a_row)
        with contextlib.suppress(OSError):
            reporter.leave(stopped=True)
        raise cli.RunError(
            f"{reporter.skipped} of {steps - first_step} steps were not finite and were skipped"
            f"{'' if sound else ', and what the last one left is not kept'}. {how}"
        )
    checkpoints.close()
    reporter.close()
    screen.close()
    saved = f"training is finished and saved in {workdir}"
    process.kept = f"But {saved}; {cli.again()} to score it."
    stop.close()

    # What came of it, which cannot lose what training gave.
    clock.begin("score")
    run = trainer.run(state, workdir.name)
    try:
        if heldout:
            watchdog.begin("scoring")
            screen.log("scoring held-out text ...")
            reporter.final(evaluator, run)
        if settings.sample_bytes:
            watchdog.begin("sampling")
            text = evaluator.sample(run)
            lines = printable(text.replace("\t", "    ")).replace("\n", "\n           ")
            screen.log(f"\nsample     {lines}\n")
            if leader:
                write(workdir / SAMPLE, text)
        results = reporter.leave(finished=True)
    except Exception as error:
        failed = cli.sentence(error)
        with contextlib.suppress(OSError):  # it may be why
            reporter.leave(finished=True, failed=failed)
        raise cli.RunError(f"{saved}; scoring failed: {failed}") from error
    for line in (*reporter.summary(), "", *reporter.left_behind(workdir)):
        screen.log(line)
    screen.log(f"\nthe run is in {workdir}")
    return results | {"workdir": shown(str(workdir))}


def _page(workdirs: list[Path], out: Path) -> None:
    from octavo.evaluation.report import write_report

    write_report(workdirs, out)


def cli_main() -> None:
    cli.run(main)


class _Train(types.ModuleType):
    """This module can be called: the name ``octavo.train`` is both it and the function."""

    def __call__(self, config: Config, preset: str | None = None) -> dict:
        return train(config, preset)


sys.modules[__name__].__class__ = _Train

if __name__ == "__main__":
    cli_main()
