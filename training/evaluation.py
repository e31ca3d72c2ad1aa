"""What held-out text costs while a model trains, what it writes, and how it cuts a text.

Only parameters are read, so no later loss changes, and what a step scores depends on nothing but
the step: a run that was killed scores where, and what, one that was not does.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from octavo.brief import beginning
from octavo.configs.schema import TrainConfig
from octavo.data.heldout import Held, shortened
from octavo.decoding.sampling import Sampling
from octavo.run.opened import Run
from octavo.run.score import Score, Units, by_label
from octavo.training.trainer import Trainer

PROMPT = "The "
TEMPERATURE = 0.7
SAMPLE_PIECES = 4
"""Of 32 ids each: what is drawn of a sample during training."""
CUT_BYTES = 400
MOST_LABELS = 64
"""More are not scored apart at each evaluation: where each file is a label, every document is."""
SHARE_STEPS = 6
"""Text of so many steps is scored at a time, at most. A pass forward is a third or a quarter of a
step, and windows that overlap by half make it twice the rows: the cost of three or four steps."""
PIECE_ROWS = 4
"""Documents are shortened to no less than so many rows, or most of it would be beginnings."""


@dataclass(frozen=True)
class Evaluation:
    """What was found at a step."""

    step: int
    score: Score
    labels: dict[str, dict]
    """As ``run.score.by_label`` gives it."""
    sample: dict[str, Any]
    """``prompt``, ``text`` with it, and ``cut``: see ``cut_of``."""
    seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        """For the row of the step."""
        low, high = self.score.interval or (math.nan, math.nan)
        values = {"heldout/bits_per_byte": self.score.bits_per_byte}
        if self.score.interval:
            values |= {"heldout/low": low, "heldout/high": high}
        if len(self.labels) <= MOST_LABELS:
            for name, of in self.labels.items():
                values[f"heldout/bits_per_byte/{name}"] = of["bits_per_byte"]
        return values | {"perf/evaluation_seconds": self.seconds}


def results_of(score: Score, labels: dict[str, dict], step: int) -> dict[str, Any]:
    """What results.json says of a score."""
    low, high = score.interval or (None, None)
    return {
        "heldout/bits_per_byte": score.bits_per_byte,
        "heldout/low": low,
        "heldout/high": high,
        "heldout/bytes": score.bytes,
        "heldout/documents": score.documents,
        "heldout/step": step,
        "heldout/by_label": labels,
    }


class Evaluator:
    """Scores a fixed text at some steps. All hosts take part."""

    def __init__(self, trainer: Trainer, held: list[Held], alive: Callable[[str], None]):
        """alive: is told what moves."""
        self.trainer, self.held, self._alive = trainer, held, alive
        self._last: Evaluation | None = None
        rows, length = trainer.shape
        row = length * trainer.bytes_per_id
        self.part = shortened(held, SHARE_STEPS * rows * row, PIECE_ROWS * row) if held else []
        """What is scored during training."""
        train = trainer.config.train
        self.every = every(train) if held else 0
        """Steps between two scores; 0: none."""

    def due(self, step: int) -> bool:
        """Whether text is scored after this step."""
        return bool(self.every) and (
            step % self.every == 0 or step == self.trainer.config.train.steps
        )

    def __call__(self, state: dict) -> Evaluation:
        began = time.perf_counter()
        run = self.trainer.run(state)
        score = self._score(run, self.part)
        sample: dict[str, Any] = {"prompt": "", "text": ""}
        if self.trainer.config.train.sample_bytes:
            sample = {"prompt": PROMPT, "text": self.sample(run, SAMPLE_PIECES)}
        sample["cut"] = cut_of(score, self.part)
        labels = by_label(score, self.part)
        seconds = time.perf_counter() - began
        self._last = Evaluation(run.step, score, labels, sample, seconds)
        return self._last

    def of_all(self, run: Run) -> Score:
        """The score of all the text: that of this step, if it was of all."""
        last = self._last
        if last and last.step == run.step and self.part is self.held:
            return last.score
        return self._score(run, self.held)

    def _score(self, run: Run, held: list[Held]) -> Score:
        # As many rows at a time as training has: no more memory.
        config = self.trainer.config
        return run.score(
            [one.text for one in held],
            batch_size=config.data.batch_size // config.train.accumulation,
            progress=lambda done, of: self._alive("scoring"),
        )

    def sample(self, run: Run, pieces: int | None = None) -> str:
        """What the model writes: the same draws each time. pieces: the first of it; None: all."""
        train = self.trainer.config.train
        how = Sampling(TEMPERATURE)
        [drawn] = run.continuations(PROMPT, train.sample_bytes, how, seed=train.seed)
        found = []
        for piece in itertools.islice(drawn, None if pieces is None else 1 + pieces):
            found.append(piece)
            self._alive("sampling")
        return "".join(found)


def every(train: TrainConfig) -> int:
    """Steps between two scores: as asked for, or as often as it costs a few percent at most."""
    if train.evaluate_every is not None:
        return train.evaluate_every
    return max(round(train.steps / 10), 100)


def cut_of(score: Score, held: list[Held]) -> dict[str, Any] | None:
    """How a scored document is cut, at its beginning (``shown``). The first document that is long
    enough, or the longest; None if none is UTF-8."""
    data, units = b"", None
    for one, found in zip(held, score.units, strict=True):
        start = beginning(one.text, CUT_BYTES)
        if len(start) > len(data) + 3:  # characters have up to four bytes
            with contextlib.suppress(UnicodeDecodeError):
                start.decode()
                data, units = start, found
    return None if units is None else shown(data, units)


def shown(text: bytes, units: Units) -> dict[str, Any]:
    """How the beginning ``text``, UTF-8, of a document is cut: ``text``, and by byte ``ends`` (a
    unit of the first level ends with it), ``surprisal`` (bits) and ``probability`` (that a learned
    segmenter gave an end; None without one)."""
    at = slice(0, len(text))
    return {
        "text": text.decode(),
        "ends": units.ends[at].tolist(),
        "surprisal": np.round(units.surprisal[at], 4).tolist(),
        "probability": [None if np.isnan(p) else round(float(p), 4) for p in units.probability[at]],
    }
