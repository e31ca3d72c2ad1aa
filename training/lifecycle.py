"""Starting and stopping: several hosts, signals, a watchdog."""

import faulthandler
import signal

import jax
from jax.experimental import multihost_utils

INIT_TIMEOUT = 1800
"""Seconds that hosts wait for each other at the start; pods come up slowly after a preemption."""


def start_hosts(distributed: bool) -> None:
    """Join the other hosts, if there are any."""
    if distributed:
        jax.distributed.initialize(initialization_timeout=INIT_TIMEOUT)


class StopSignal:
    """Notes SIGTERM and SIGINT. All hosts learn of it at the same step."""

    def __init__(self):
        self._received: int | None = None
        signal.signal(signal.SIGINT, self._note)
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._note)
        # With several hosts, jax.distributed itself catches SIGTERM and agrees on a step.

    def _note(self, number, frame):
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt  # asked twice: at once
        self._received = number

    def requested(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received is not None


class Watchdog:
    """Prints every thread's stack whenever ``alive`` was not called for this many seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.alive()

    def alive(self) -> None:
        if self.seconds:
            faulthandler.dump_traceback_later(self.seconds, repeat=True)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
