"""The screen: on a terminal a line that lives, below what has been said; in a file or a pipe plain
lines, and not many."""

import contextlib
import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from octavo import process
from octavo.brief import clock, human
from octavo.files import shown

FIRST_LINES, SECONDS = 10, 10.0
"""So many lines of progress come as they are due; from then on, one in so many seconds."""
REFRESH = 0.1
"""Seconds between two looks of the live line."""
BAR, SHORT_BAR, NARROW = 16, 8, 80
"""Cells of the bar, and of that in a terminal narrower than so many."""


@dataclass(frozen=True)
class Standing:
    """Where the run stands after a step."""

    step: int
    bits_per_byte: float
    """Of the step."""
    smoothed: float
    """Of the last fifty or so."""
    heldout: float | None
    """When it was last scored."""
    speed: float
    """Bytes per second."""
    mfu: float | None
    learning_rate: float
    grad_norm: float
    left: float
    """Seconds."""
    memory: float
    """Bytes, of the devices where they say it, else of the process."""


class Screen:
    """Says what happens, in the order in which it does, and shows where the run stands."""

    def __init__(self, console: Console, steps: int, log_every: int):
        """log_every: steps between two lines of progress."""
        self._console, self._steps, self._every = console, steps, log_every
        self._lines, self._said, self._shown = 0, -SECONDS, -REFRESH
        self._live: Live | None = None
        self._lives = console.is_terminal and not (
            console.quiet or console.is_dumb_terminal or console.is_jupyter
        )

    def log(self, text: str) -> None:
        self._console.print(text)

    def warn(self, sentence: str) -> None:
        self._console.print(Text(f"warning: {shown(sentence)}", style="bold yellow"))

    def show(self, at: Standing) -> None:
        """A finished step."""
        now, last = time.monotonic(), at.step == self._steps
        due = self._lines < FIRST_LINES or now - self._said >= SECONDS
        if last or (at.step % self._every == 0 and due):
            self.log(self._plain(at))
            self._lines, self._said = self._lines + 1, now
        if self._lives and (last or now - self._shown >= REFRESH):
            self._refresh(at)
            self._shown = now

    def close(self) -> None:
        """The live line goes; what was said stays."""
        live, self._live = self._live, None
        process.closing = None
        if live is not None:
            live.stop()

    def _plain(self, at: Standing) -> str:
        return (
            f"step {at.step:>{len(str(self._steps))}}/{self._steps}   {at.bits_per_byte:6.3f} "
            f"bits/byte   {human(at.speed)}B/s   grad {at.grad_norm:5.2f}   {clock(at.left)} left"
        )

    def _refresh(self, at: Standing) -> None:
        line = self._line(at)
        if self._live is None:
            # No thread of its own, which would write on where this process ends.
            self._live = Live(line, console=self._console, auto_refresh=False, transient=True,
                              redirect_stdout=False)  # fmt: skip
            self._live.start(refresh=True)
            self._console.show_cursor()  # or a killed run left none
            process.closing = self.close
        else:
            self._live.update(line, refresh=True)

    def _line(self, at: Standing) -> Table:
        """One row of the terminal: what is least important is left out where there is no room."""
        told = [  # in order; the rank says what goes last
            (0, f"step {at.step}/{self._steps}"),
            (1, f"{at.smoothed:.3f} bits/byte"),
            (5, f"now {at.bits_per_byte:.3f}"),
            (2, "" if at.heldout is None else f"held-out {at.heldout:.3f}"),
            (4, f"{human(at.speed)}B/s"),
            (6, "" if at.mfu is None else f"MFU {at.mfu:.0%}"),
            (7, f"lr {at.learning_rate:.2g}"),
            (3, f"{clock(at.left)} left"),
            (8, f"{human(at.memory)}B"),
        ]
        bar = SHORT_BAR if self._console.width < NARROW else BAR
        room, kept = self._console.width - bar - 2, {}
        for rank, text in sorted((rank, text) for rank, text in told if text):
            room -= len(text) + 2
            if room < 0:
                break
            kept[rank] = text
        shown = [kept[rank] for rank, _ in told if rank in kept]
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(self._steps, at.step, width=bar), Text("  ".join(shown), no_wrap=True)
        )
        return grid


@contextlib.contextmanager
def opened(console: Console, steps: int, log_every: int):
    """A screen that is closed however what is done with it ends."""
    screen = Screen(console, steps, log_every)
    try:
        yield screen
    finally:
        screen.close()
