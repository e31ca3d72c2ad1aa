"""What a training says: what was decided at its start, and how each step went."""

import math
from collections.abc import Iterator
from pathlib import Path

import jax
from rich.console import Console

from octavo.model import flops
from octavo.training.metrics import MetricsLog, Progress, human, of_parts
from octavo.training.tracker import Tracker
from octavo.training.trainer import Trainer


def decided(trainer: Trainer, preset: str) -> Iterator[str]:
    """Model, devices and data, a line each."""
    config, mesh, plan, definition = (
        trainer.config, trainer.mesh, trainer.plan, trainer.definition
    )  # fmt: skip
    steps = config.train.steps
    yield (
        f"model      {preset}, {human(definition.parameters)}parameters, "
        f"{definition.backend} attention, {config.execution.compute_dtype}"
    )
    yield (
        f"compute    {human(trainer.flops_per_id / trainer.bytes_per_id)}FLOPs per byte, "
        f"{mesh.size} x {mesh.devices.flat[0].device_kind}, "
        f"mesh {'  '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}"
    )
    yield (
        f"data       {human(sum(c.utf8_bytes for c in plan.corpora))}B of text, "
        f"{trainer.tokenizer.name}, plan {plan.fingerprint}"
    )
    yield (
        f"step       {human(math.prod(trainer.shape) * trainer.bytes_per_id)}B; {steps} steps are "
        f"{steps * config.data.batch_size / plan.rows_per_epoch:.2f} epochs"
    )


class Reporter:
    """Tells of each step, on the screen and in the log, and counts what was skipped."""

    def __init__(self, trainer: Trainer, console: Console, workdir: Path | None, first_step: int):
        """workdir: of the log; None: another host writes it."""
        self.skipped = self.in_a_row = 0
        self._trainer, self._console = trainer, console
        train = trainer.config.train
        self._progress = Progress(console, first_step, train.steps, train.log_every)
        self._log = None
        if workdir is not None:
            tracker = None if train.tracker == "none" else Tracker(trainer.config, workdir)
            self._log = MetricsLog(workdir, first_step, tracker)
        self._peak = flops.peak_flops(trainer.mesh.devices.flat[0].device_kind)

    def __call__(self, step: int, metrics: dict[str, jax.Array], data_wait: float) -> None:
        """data_wait: seconds that the step waited for its batch."""
        trainer = self._trainer
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        parts = of_parts(values)
        bits = values["nats"] / math.log(2) / max(values["bytes"], 1)
        speed = self._progress.update(step, bits, values["grad_norm"], values["bytes"])
        if self._log:
            achieved = speed / trainer.bytes_per_id * trainer.flops_per_id / trainer.mesh.size
            self._log.write(step, {
                "train/bits_per_byte": bits,
                "train/loss": values["loss"],
                "train/skipped_in_a_row": values["skipped"],
                "optimizer/grad_norm": values["grad_norm"],
                "perf/bytes_per_second": speed,
                "perf/data_wait_seconds": data_wait,
                **parts,
                **({"perf/mfu": achieved / self._peak} if self._peak else {}),
            })  # fmt: skip
        if step % trainer.config.train.log_every == 0:
            for name, share in parts.items():
                if name.startswith("collapsed/") and share > 0.5:
                    self._console.print(
                        f"warning: {name} {share:.0%}: nearly all or no positions end a unit; "
                        "raise the stage's supervision-weight"
                    )
        self.in_a_row = int(values["skipped"])
        self.skipped += self.in_a_row > 0

    def close(self) -> None:
        if self._log:
            self._log.close()
