"""Signals during a training, and a watchdog over it."""

import faulthandler
import signal
import threading
import time

import jax

from octavo import process
from octavo.training.hosts import Agreement

_STDERR = 2
"""Its descriptor: what a notebook has as sys.stderr is no file."""


class StopSignal:
    """Notes SIGTERM, SIGHUP and Ctrl-C once the loop runs. All hosts learn of it at the same step.

    Before the first step there is nothing to save, and a signal ends the run at once, as it does
    after ``close``. Signals come to the main thread: a training in another one is not stopped."""

    def __init__(self):
        self._received: int | None = None
        self._before: dict = {}
        self._hosts: Agreement | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._restore()

    def _catch(self) -> None:
        if jax.process_count() > 1:
            self._hosts = Agreement(lambda: self._received)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in process.SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
                self._before[number] = signal.signal(number, self._note)

    def _note(self, number, frame):
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt  # asked twice: at once
        self._received = self._received or number

    def requested(self, step: int) -> bool:
        """Whether to save after this step and stop."""
        if not self._before and not self._hosts:
            self._catch()
        if self._hosts:
            return self._hosts.reached(step)
        return self._received is not None

    @property
    def by_person(self) -> bool:
        """Whether it was Ctrl-C, after which there is time: other signals give seconds. The same on
        all hosts."""
        received = self._hosts.signals if self._hosts else {self._received}
        return received == {signal.SIGINT}

    def close(self) -> None:
        """All is saved: a signal ends what follows, also one that came since the last step."""
        self._restore()
        if self._received is not None:
            signal.raise_signal(self._received)

    def _restore(self) -> None:
        if self._hosts:
            self._hosts.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Watchdog:
    """Ends the process with code 70, and every thread's stack, when nothing moves for so long.

    ``seconds`` between two steps, batches of a score and the like; ``STARTING`` times as many for
    what compiles, reads a checkpoint or waits for other hosts. 0: never."""

    STARTING = 4

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._over = threading.Event()
        self.begin("starting")

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self.seconds:
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        if self.seconds:
            self._thread.join()  # or it would set off what is cancelled here once more
            faulthandler.cancel_dump_traceback_later()

    def begin(self, phase: str) -> None:
        """What comes now takes longer until it moves."""
        self._phase, self._limit = phase, self.STARTING * self.seconds
        self._moved = time.monotonic()

    def alive(self, phase: str = "training") -> None:
        self._phase, self._limit, self._moved = phase, self.seconds, time.monotonic()

    def _watch(self) -> None:
        tick = min(1.0, self.seconds / 4)
        while not self._over.wait(tick):
            # If code that holds the interpreter never returns, this thread cannot run either.
            faulthandler.dump_traceback_later(self._limit + 60, exit=True, file=_STDERR)
            if time.monotonic() - self._moved > self._limit:
                phase, limit = self._phase, self._limit
                process.within(10, lambda: faulthandler.dump_traceback(_STDERR))
                process.end(
                    f"{phase}: nothing moved for {limit:g} seconds (train.watchdog_seconds is "
                    f"{self.seconds:g}); the stacks of all threads are above. Saved work is kept; "
                    "run the same command again.",
                    process.STALLED,
                )
