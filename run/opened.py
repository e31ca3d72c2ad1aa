"""A run in Python: ``octavo.open_run``."""

import codecs
import itertools
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from octavo.configs.checks import SEEDS
from octavo.decoding import sampling, utf8
from octavo.decoding.by_bytes import ROWS
from octavo.model.drafter import Drafter
from octavo.run import codec
from octavo.run.by_bytes import Exact, continued, exact, exact_continuations
from octavo.run.continuations import Continuation, continuations
from octavo.run.marks import EntropyMarks, NoMarks, marker_for
from octavo.run.mirror import fetched
from octavo.run.saved import Saved, load
from octavo.run.score import Predictions, Score, Units, logits, over_bytes, predictions, score
from octavo.tokenizers.interface import SubwordTokenizer

T = TypeVar("T")
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
        drafter: Drafter | None = None,
        valid_utf8: bool = False,
    ) -> str:
        """The prompt and up to so many bytes of what follows it; fewer if the model ends the
        document. The filters are those of ``decoding.sampling.Sampling``; a drafter changes nothing
        but the speed. valid_utf8: draw only what goes on with valid UTF-8, and end the document
        only behind a whole character (of a prompt that is no valid UTF-8, what follows its last
        damage counts). Raises ValueError for values out of range; ConfigError if valid_utf8 is
        asked of a tokenizer whose ids do not each stand for bytes of their own."""
        how = sampling.Sampling(temperature, top_k, top_p, min_p, typical)
        [pieces] = self.continuations(
            prompt, bytes, how, seed=seed, drafter=drafter, valid_utf8=valid_utf8
        )
        return "".join(pieces)

    def continuations(
        self,
        prompt: Text,
        bytes: int,
        how: sampling.Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        drafter: Drafter | None = None,
        acceptance: sampling.Acceptance | None = None,
        valid_utf8: bool = False,
    ) -> list[Iterator[str]]:
        """As ``generate``, several drawn side by side: of each the text, in pieces as they come."""
        if bytes < 0:
            raise ValueError(f"bytes is 0 or more, not {bytes}.")
        if not 0 <= seed < SEEDS:
            raise ValueError(f"seed lies in [0, {SEEDS - 1}], not {seed}.")
        data, tokenizer = as_bytes(prompt), self.tokenizer
        # A mark may follow every byte.
        count = bytes * (1 if tokenizer.vocabulary.unit_mark is None else 2)
        table = self._utf8_table if valid_utf8 else None
        begun = self._begun(self._newest(data), how, samples, seed, valid_utf8)
        automaton = None
        if table is not None:
            states = [utf8.state_after(data + (more or b"")) for _, more in begun]
            automaton = utf8.Automaton(table, np.array(states, np.int32))
        pieces = sampling.generate(
            self.definition.bind, self.apart, [ids for ids, _ in begun], count,
            sampling=how, seed=seed, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
            marker=self.marker, context=self.length, drafter=drafter, acceptance=acceptance,
            automaton=automaton,
        )  # fmt: skip
        texts = itertools.tee(_each_on(self.mesh, pieces), samples)
        found = []
        for row, (each, (_, more)) in enumerate(zip(texts, begun, strict=True)):
            shown = b"" if more is None else more[:bytes]
            left = 0 if more is None else bytes - len(shown)
            found.append(sampling.plain_text(each, tokenizer, row, left, data + shown))
        return found

    def completions(
        self,
        prompts: Sequence[Text],
        bytes: int,
        how: sampling.Sampling,
        *,
        stops: Sequence[Text] = (),
        seed: int = 0,
    ) -> list[str]:
        """What prompts of any lengths are continued by, drawn side by side: of each, the text up to
        the first of the ``stops``, the end of the document, or so many bytes."""
        tokenizer, ends = self.tokenizer, [as_bytes(stop) for stop in stops if stop]
        count = bytes * (1 if tokenizer.vocabulary.unit_mark is None else 2)
        newest = [self._newest(as_bytes(prompt)) for prompt in prompts]
        begun = [self._begun(prompt, how, 1, seed, False)[0] for prompt in newest]
        pieces = sampling.generate(
            self.definition.bind, self.apart, [ids for ids, _ in begun], count, sampling=how,
            seed=seed, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, marker=self.marker,
            context=self.length,
        )  # fmt: skip
        drawn, found = np.zeros((len(prompts), 0), np.int32), [("", False)] * len(prompts)
        for piece in _each_on(self.mesh, pieces):
            drawn = np.concatenate([drawn, piece], axis=1)
            found = [
                ("", True) if more is None else self._until(more, ids, ends, bytes)
                for (_, more), ids in zip(begun, drawn, strict=True)
            ]
            if all(over for _, over in found):
                break
        return [text for text, _ in found]

    def _until(
        self, begun: bytes, ids: np.ndarray, stops: list[bytes], most: int
    ) -> tuple[str, bool]:
        """The text of what was begun and drawn, as far as it counts, and whether it ended."""
        ended = np.flatnonzero(ids == self.tokenizer.eos_id)
        data = begun + self.tokenizer.decode(ids[: ended[0]] if len(ended) else ids)
        at = [place for stop in stops if (place := data[:most].find(stop)) >= 0]
        data = data[: min(at, default=most)]
        over = bool(at) or len(ended) > 0 or len(data) == most
        # A character that the last byte allowed cuts is left out.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(data, final=bool(at) or len(data) < most), over

    def _begun(
        self, prompt: bytes, how: sampling.Sampling, samples: int, seed: int, valid_utf8: bool
    ) -> list[tuple[np.ndarray, bytes | None]]:
        """Of each sample the ids to go on from, and what of their bytes follows the prompt (None:
        nothing does, the document ends)."""
        tokenizer = self.tokenizer
        own = tokenizer.encode(prompt)
        if not (prompt and isinstance(tokenizer, SubwordTokenizer)):
            return [(own, b"")] * samples
        ways = continued(self, prompt)
        if valid_utf8:
            ways = _valid(ways, utf8.state_after(prompt))
        with jax.set_mesh(self.mesh):
            log_p = sampling.filtered(jnp.log(jnp.array([p for _, _, p in ways])), how)
            key = jax.random.fold_in(jax.random.key(seed), samples)
            drawn = jax.random.categorical(key, log_p, shape=(samples,))
        found = [ways[i] for i in np.asarray(drawn).tolist()]
        ended = tokenizer.eos_id
        return [(own, None) if ids[-1] == ended else (ids, more) for ids, more, _ in found]

    @cached_property
    def _utf8_table(self) -> np.ndarray:
        return utf8.table_of(self.tokenizer)

    @property
    def most_prompt(self) -> int:
        """Bytes of a prompt that are read, the last ones: two rows of training or 2,048, whichever
        is more. One pass reads them, and needs room for their square."""
        return max(2 * self.length, 2048)

    def _newest(self, prompt: bytes) -> bytes:
        """What is read of a prompt, from the beginning of a character."""
        newest = prompt[-self.most_prompt :]
        if len(newest) == len(prompt):
            return prompt
        inside = next((i for i, byte in enumerate(newest[:4]) if byte & 0xC0 != 0x80), 0)
        return newest[inside:]

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


def _valid(
    ways: list[tuple[np.ndarray, bytes, float]], state: int
) -> list[tuple[np.ndarray, bytes, float]]:
    """Of what a prompt may go on with, that which is valid UTF-8 behind its state; the end of the
    document, where no character is begun. Their shares of the probability."""
    left = [
        way for way in ways
        if utf8.follow(state, way[1]) >= 0 and (way[1] or state == utf8.WHOLE)
    ]  # fmt: skip
    total = sum(p for _, _, p in left)
    return [(ids, more, p / total) for ids, more, p in left]


def _each_on(mesh: Mesh | None, values: Iterator[T]) -> Iterator[T]:
    """Each of the values made with the mesh current, which it no longer is where they are used."""
    while True:
        with jax.set_mesh(mesh):
            found = list(itertools.islice(values, 1))
        if not found:
            return
        yield found[0]


def open_run(path: str | os.PathLike, step: int | None = None, ends: str | None = None) -> Run:
    """The run in a directory that train.py wrote, finished or not.

    step: of an older checkpoint; None: the newest. ends: how a predictor that draws in training is
    to end units ("sum", "threshold", "sampled"); None: as the run is configured. Raises ConfigError
    if there is no run, or no checkpoint of that step, or its settings are not those it was trained
    with; CheckpointError if what is there cannot be read.
    """
    step = None if step is None else operator.index(step)
    with fetched(os.fspath(path), step) as folder:
        saved = load(folder, step, ends)
        marker = marker_for(saved.config.model, saved.tokenizer, folder)
        name = os.path.basename(os.path.realpath(folder))
    about = {part.name: getattr(saved, part.name) for part in fields(saved)}
    return Run(**about, marker=marker, name=name)
