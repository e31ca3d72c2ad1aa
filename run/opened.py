"""A run in Python: ``octavo.open_run``."""

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import jax
import numpy as np

from octavo.configs.checks import SEEDS
from octavo.decoding import sampling
from octavo.decoding.by_bytes import ROWS
from octavo.model.drafter import Drafter
from octavo.run import codec
from octavo.run.by_bytes import Exact, exact, exact_continuations
from octavo.run.continuations import Continuation, continuations
from octavo.run.marks import EntropyMarks, NoMarks, marker_for
from octavo.run.mirror import fetched
from octavo.run.samples import Asked, Rule, Sample, begun, draw
from octavo.run.samples import samples as drawn
from octavo.run.saved import Saved, load
from octavo.run.score import Predictions, Score, Units, logits, over_bytes, predictions, score

Text = str | bytes
"""A string stands for its UTF-8 bytes."""
_TEXTS = (str, bytes, bytearray, memoryview)


@dataclass(frozen=True, eq=False, repr=False)
class Run(Saved):
    """A trained model, ready to use. Every call computes on the run's own mesh of devices and
    leaves the caller's as it was."""

    marker: NoMarks | EntropyMarks = field(default_factory=NoMarks)
    """What marks the ends of units, for a model that reads marks."""
    name: str = "run"

    def __repr__(self) -> str:
        parameters = self.definition.parameters / 1e6
        kind = self.tokenizer.name
        return f"<Run {self.name} at step {self.step}: {parameters:.2f}M parameters, {kind}>"

    def logits(self, text: Text) -> np.ndarray:
        """Float32 ``[ids + 1, vocabulary]`` of a text as one document: the distribution before each
        id, and before the end. In a text longer than a row of training, each id has what its window
        of the score holds before it: half a row or more."""
        return logits(self, self.tokenizer.encode(as_bytes(text)))

    def predictions(self, documents: list[np.ndarray], **how) -> list[Predictions]:
        """What each id of encoded documents costs, and where units end; ``how`` as in ``score``."""
        return predictions(self, documents, **how)

    def score(
        self,
        text: Text | Sequence[Text],
        *,
        overlap: int | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Score:
        """Bits per byte, and the bits of each byte, of a document or of several.

        overlap: ids that the windows of a document longer than a row repeat as context; None: half
        a row. batch_size: rows at a time, which never change the score. progress is called with the
        rows that are done, and how many there are. Raises ValueError if there is no text at all, or
        a number is out of its range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is 1 or more, not {batch_size}.")
        texts: Sequence[Any] = [text] if isinstance(text, _TEXTS) else text
        how = {"overlap": overlap, "batch_size": batch_size, "progress": progress}
        return score(self, list(map(as_bytes, texts)), **how)

    def exact(
        self,
        texts: Sequence[Text],
        *,
        heads: int = ROWS,
        overlap: int | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Exact:
        """What documents cost by all ids that spell each, with their ends.

        heads: beginnings of each document that are followed at a time: more miss less of the sum.
        overlap: as in ``score``. batch_size: documents side by side, each with a row of the cache
        for each head. progress: is called with the bytes that are done, and how many there are.
        Raises ConfigError if the tokenizer's ids do not each stand for bytes of their own.
        """
        how = {"rows": heads, "overlap": overlap, "batch_size": batch_size, "progress": progress}
        return exact(self, list(map(as_bytes, texts)), **how)

    def costs(
        self,
        pairs: Sequence[tuple[Text, Text]],
        *,
        exact: bool = False,
        heads: int = ROWS,
        overlap: int | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Continuation]:
        """What the bytes of each pair's second text cost behind the first, as the beginning of a
        document: nats, and whether greedy decoding gives just them (``run.continuations``).

        exact: by all ids that spell the second text and the end of the first; heads: as in
        ``exact``. batch_size: rows at a time, of exact, pairs. overlap: as in ``score``. progress:
        is called with the pairs that are done, and how many there are. Raises ConfigError as
        ``exact``.
        """
        each = [(as_bytes(first), as_bytes(second)) for first, second in pairs]
        how = {"overlap": overlap, "batch_size": batch_size, "progress": progress}
        if exact:
            return exact_continuations(self, each, rows=heads, **how)
        return continuations(self, each, **how)

    def units(self, text: Text) -> Units:
        """How the model cuts a text: spans of bytes, and for a learned segmenter the probability of
        an end behind each byte."""
        data = as_bytes(text)
        ids = self.tokenizer.encode(data)
        (found,) = predictions(self, [ids])
        return over_bytes(ids, found, self.tokenizer, len(data))

    def generate(
        self,
        prompt: Text = "",
        bytes: int = 300,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical: float = 1.0,
        seed: int = 0,
        stop: Text | Sequence[Text] = (),
        drafter: Drafter | None = None,
        valid_utf8: bool = False,
        regex: str | None = None,
    ) -> str:
        """The prompt and up to so many bytes of what follows it; fewer if the model ends the
        document, or one of the stop strings comes, which is left out. The filters are those of
        ``decoding.sampling.Sampling``; a drafter changes nothing but the speed. valid_utf8: draw
        only what goes on with valid UTF-8, and end the document only behind a whole character (of a
        prompt that is no valid UTF-8, what follows its last damage counts). regex: draw only what
        goes on with a text that matches all of this pattern (decoding/regex.py), and end the
        document only there; of characters with valid_utf8, else of bytes. Raises ValueError for
        values out of range; ConfigError for a pattern that cannot be followed, or if valid_utf8 or
        regex is asked of a tokenizer whose ids do not each stand for bytes of their own."""
        how = sampling.Sampling(temperature, top_k, top_p, min_p, typical)
        [pieces] = self.continuations(
            prompt, bytes, how, seed=seed, stop=stop, drafter=drafter, valid_utf8=valid_utf8,
            regex=regex,
        )  # fmt: skip
        return "".join(pieces)

    def continuations(
        self,
        prompt: Text,
        bytes: int,
        how: sampling.Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        stop: Text | Sequence[Text] = (),
        drafter: Drafter | None = None,
        acceptance: sampling.Acceptance | None = None,
        valid_utf8: bool = False,
        regex: str | None = None,
    ) -> list[sampling.Shown]:
        """As ``generate``, several drawn side by side: of each the text, in pieces as they come."""
        asked = self._asked(bytes, how, samples, seed, stop, drafter, valid_utf8, regex)
        rows = begun(self, as_bytes(prompt), 0, asked)
        texts = draw(self, rows, asked, acceptance=acceptance)
        return [sampling.Shown(as_bytes(prompt), text) for text in texts]

    def samples(
        self,
        prompts: Sequence[Text],
        bytes: int,
        how: sampling.Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        stop: Text | Sequence[Text] = (),
        drafter: Drafter | None = None,
        valid_utf8: bool = False,
        regex: str | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Iterator[Sample]:
        """As ``generate``, several continuations of several prompts, in order: of each what was
        drawn, why it ended, its log-probability and its units. batch_size: rows drawn at a time;
        progress is called with the samples that are done, and how many there are."""
        asked = self._asked(bytes, how, samples, seed, stop, drafter, valid_utf8, regex)
        if batch_size < 1:
            raise ValueError(f"batch_size is 1 or more, not {batch_size}.")
        data = list(map(as_bytes, prompts))
        return drawn(self, data, asked, batch_size=batch_size, progress=progress)

    def _asked(
        self, bytes: int, how: sampling.Sampling, samples: int, seed: int,
        stop: Text | Sequence[Text], drafter: Drafter | None, valid_utf8: bool, regex: str | None,
    ) -> Asked:  # fmt: skip
        if bytes < 0:
            raise ValueError(f"bytes is 0 or more, not {bytes}.")
        if not 0 <= seed < SEEDS:
            raise ValueError(f"seed lies in [0, {SEEDS - 1}], not {seed}.")
        each: Sequence[Any] = [stop] if isinstance(stop, _TEXTS) else stop
        ends = tuple(map(as_bytes, each))
        if not all(ends):
            raise ValueError("a stop string has a byte at least.")
        about = valid_utf8, regex
        if about not in self._rules:
            self._rules[about] = Rule.of(self.tokenizer, *about)
        return Asked(bytes, how, samples, seed, ends, drafter, self._rules[about])

    @cached_property
    def _rules(self) -> dict[tuple[bool, str | None], Rule | None]:
        """By what was asked."""
        return {}

    @property
    def most_prompt(self) -> int:
        """Bytes of a prompt that are read, the last ones: two rows of training or 2,048, whichever
        is more. One pass reads them, and needs room for their square."""
        return max(2 * self.length, 2048)

    def compress(
        self,
        text: Text,
        progress: Callable[[int], None] = lambda done: None,
        *,
        exact: bool = False,
    ) -> bytes:
        """The text in as many bytes as its score says; only this checkpoint gives it back. progress
        is called with the ids that are done. exact: as ``exact`` says, byte by byte. Raises
        CodecError as ``run.codec.compress``; ConfigError if there is no exact score."""
        with jax.set_mesh(self.mesh):
            model = self._byte_predictor if exact else self._predictor
            return codec.compress(model, as_bytes(text), progress)

    def decompress(self, data: bytes, progress: Callable[[int], None] = lambda done: None) -> bytes:
        """What ``compress`` was given. Raises CodecError for anything that it did not make."""
        exact = data.startswith(codec.BytePredictor.magic)
        with jax.set_mesh(self.mesh):
            model = self._byte_predictor if exact else self._predictor
            return codec.decompress(model, data, progress)

    @cached_property
    def _predictor(self) -> codec.Predictor:
        return codec.Predictor(self)

    @cached_property
    def _byte_predictor(self) -> codec.BytePredictor:
        return codec.BytePredictor(self)


def as_bytes(text: Text) -> bytes:
    """A string as UTF-8, what came of no UTF-8 as the bytes it was. Raises TypeError for what is no
    text: of a number, Python would make so many zeros."""
    if not isinstance(text, _TEXTS):
        raise TypeError(f"a text is a string or bytes, not {text!r:.60}.")
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)


def open_run(
    path: str | os.PathLike, step: int | None = None, ends: str | None = None,
    length: int | None = None,
) -> Run:  # fmt: skip
    """The run in a directory that train.py wrote, finished or not.

    step: of an older checkpoint; None: the newest. ends: how a predictor that draws in training is
    to end units ("sum", "threshold", "sampled"); None: as the run is configured. length: positions
    of a row; None: as in training. Raises ConfigError if there is no run, or no checkpoint of that
    step, or its settings are not those it was trained with, or the model takes no such rows;
    CheckpointError if what is there cannot be read.
    """
    step = None if step is None else operator.index(step)
    with fetched(os.fspath(path), step) as folder:
        saved = load(folder, step, ends, length)
        marker = marker_for(saved.config.model, saved.tokenizer, folder)
        name = os.path.basename(os.path.realpath(folder))
    about = {part.name: getattr(saved, part.name) for part in fields(saved)}
    return Run(**about, marker=marker, name=name)
