"""A trace of some steps, for XProf or TensorBoard: train.profile."""

from pathlib import Path
from typing import Any

import jax

from octavo.configs.schema import profiled
from octavo.run.goodput import Clock
from octavo.training.screen import Screen


class Profile:
    """Traces the steps of ``train.profile`` on the first host, its devices and its Python, into
    ``profile`` of the run. No other step is slower. What cannot be traced ends no training."""

    def __init__(
        self, steps: str | None, folder: Path | None, first_step: int, clock: Clock, screen: Screen
    ):
        """folder: None: another host does it. first_step: that the run goes on from."""
        self._first, self._last = profiled(steps) if steps and folder else (0, 0)
        self._folder, self._clock, self._screen = folder, clock, screen
        self._traces = False
        if folder and 0 < self._last <= first_step and not folder.exists():
            screen.warn(f"steps {steps} are done already: nothing is profiled")
        self._first = max(self._first, first_step + 1)

    def before(self, step: int, state: dict) -> None:
        """To be told of every step."""
        if step == self._first <= self._last:
            with self._clock.during("profile"):
                jax.block_until_ready(state)  # the step before is none of it
                self._traces = self._try(jax.profiler.start_trace, self._folder)

    def after(self, step: int, state: Any) -> None:
        if self._traces and step == self._last:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Write what was traced, also of steps that a signal cut short."""
        if self._traces:
            self._traces = False
            with self._clock.during("profile"):
                if self._try(jax.profiler.stop_trace):
                    self._screen.log(f"profile    {self._folder}, for xprof or tensorboard")

    def _try(self, action, *arguments) -> bool:
        try:
            action(*arguments)
            return True
        except Exception as error:  # of the profiler, or of the disk
            first = (str(error).splitlines() or [repr(error)])[0][:200]
            self._screen.warn(f"no profile, but training goes on: {first}")
            return False
