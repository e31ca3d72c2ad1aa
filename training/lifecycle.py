"""Starting and stopping: several hosts, signals, a watchdog."""

import faulthandler
import os
import signal

import jax
from jax.experimental import multihost_utils

from octavo.configs.schema import ConfigError

INIT_TIMEOUT = 1800
"""Seconds that hosts wait for each other at the start; pods come up slowly after a preemption."""


def start_hosts(distributed: bool) -> None:
    """Join the other hosts, if there are any. Raises ConfigError if they cannot be found."""
    if not distributed:
        return
    try:
        told = {
            name: int(os.environ[f"JAX_{name.upper()}"])
            for name in ("num_processes", "process_id")
            if f"JAX_{name.upper()}" in os.environ
        }
        # The address is read from JAX_COORDINATOR_ADDRESS by JAX itself.
        jax.distributed.initialize(**told, initialization_timeout=INIT_TIMEOUT)
    except ValueError as error:
        raise ConfigError(
            f"train.distributed: the other hosts were not found ({error}). Set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each."
        ) from error


class StopSignal:
    """Notes SIGTERM and SIGINT. All hosts learn of it at the same step."""

    def __init__(self):
        self._received: int | None = None
        # With several hosts, jax.distributed itself catches SIGTERM and agrees on a step.
        caught = [signal.SIGINT] + [signal.SIGTERM] * (jax.process_count() == 1)
        self._before = {number: signal.signal(number, self._note) for number in caught}

    def _note(self, number, frame):
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt  # asked twice: at once
        self._received = number

    def close(self) -> None:
        """Signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
