"""A checkpoint as a compressor: its predictions drive an arithmetic coder, and drive it back.

What a score says must come true here. The windows are those of the score (run/rows.py); the
model is stepped id by id with its caches, so the decoder, which has read only what it decoded,
gives the very same probabilities. That holds on the same machine with the same library versions:
another may round differently, which the checksum of the text then tells.
"""

import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import constriction
import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np

from octavo.configs.checks import ConfigError
from octavo.decoding.by_bytes import END, ROWS, Heads, answer, readings
from octavo.run.by_bytes import Reader
from octavo.run.errors import CodecError

if TYPE_CHECKING:
    from octavo.run.opened import Run

HEADER = 16
"""Bytes before the coder's: magic, checksums of the parameters and of the text, number of ids, or
of bytes and the end."""


class Predictor:
    """Probabilities of each next id of one document, given the ids before it. Compiled once, for
    any number of documents."""

    magic = b"OCT2"

    def __init__(self, run: "Run"):
        self.run, self.overlap = run, run.length // 2
        self.end, self.encode, self.decode = (
            run.tokenizer.eos_id, run.tokenizer.encode, run.tokenizer.decode,
        )  # fmt: skip
        length, bind, marker = run.length, run.definition.bind, run.marker

        @functools.partial(jax.jit, donate_argnums=(1, 2))
        def extend(params, cache, marked, tokens, marks, valid):
            """Of tokens and marks ``[1, N]``, the newest token has no mark yet."""
            newest = valid[:, None] - 1
            id_ = jnp.take_along_axis(tokens, newest, axis=1)
            mark, marked = marker.extend(params[1], id_, marked, jnp.ones_like(valid))
            marks = marks.at[0, newest[0, 0]].set(mark[0, 0])
            logits, cache = bind(params[0]).extend(tokens, cache, marks, valid)
            last = jnp.take_along_axis(logits, newest[..., None], axis=1)[0, 0]
            return jax.nn.softmax(last), mark[0, 0], cache, marked

        self._extend = extend
        self._empty = jax.jit(lambda: bind(run.params).init_cache(1, length))
        self._unmarked = jax.jit(lambda: marker.init_cache(1, length))

    def __call__(self) -> Generator[np.ndarray, int, None]:
        """A generator of probabilities, float32 ``[V]``; ``send`` it each id."""
        length, tokenizer = self.run.length, self.run.tokenizer
        params = (self.run.apart, self.run.marker.params)
        known, marks, marked = [tokenizer.bos_id], [], self._unmarked()
        while True:  # a window of the model; the marks are those of the document
            cache, context = self._empty(), min(len(known), self.overlap + 1)
            given = np.zeros((2, 1, self.overlap + 1), np.int32)
            given[0, 0, :context] = known[-context:]
            given[1, 0, : context - 1] = marks[len(marks) - context + 1 :]
            valid = np.array([context], np.int32)
            for _ in range(length - context + 1):
                p, mark, cache, marked = self._extend(params, cache, marked, *given, valid)
                marks.append(int(mark))
                known.append((yield np.asarray(p)))
                given, valid = np.array([[[known[-1]]], [[0]]], np.int32), np.ones(1, np.int32)


class BytePredictor:
    """The same of each next byte, by all ids that spell the text (decoding/by_bytes.py)."""

    magic = b"OCB1"
    end = END

    def __init__(self, run: "Run"):
        self.run, self._ways, self._read = run, readings(run.tokenizer), Reader(run, ROWS)

    @staticmethod
    def encode(text: bytes) -> np.ndarray:
        return np.frombuffer(text, np.uint8)

    @staticmethod
    def decode(symbols: np.ndarray) -> bytes:
        return symbols.astype(np.uint8).tobytes()

    def __call__(self) -> Generator[np.ndarray, int, None]:
        """A generator of probabilities, float32 ``[257]``; ``send`` it each byte, or ``END``."""
        heads = Heads(self._ways, range(ROWS))
        work = heads.begin([self.run.tokenizer.bos_id])
        while True:
            try:
                answer(self._read, work)
            except ConfigError as error:
                raise CodecError(str(error).rstrip(".")) from error
            byte = yield heads.distribution().astype(np.float32)
            work = heads.feed(byte)


def checkpoint_checksum(params: dict) -> int:
    """CRC-32C of the parameters."""
    crc = google_crc32c.Checksum()
    for leaf in jax.tree.leaves(params):
        crc.update(np.asarray(leaf).tobytes())
    return int.from_bytes(crc.digest(), "big")


_STREAM: Any = constriction.stream  # type: ignore[attr-defined]
_CATEGORICAL = _STREAM.model.Categorical(perfect=False)


def compress(
    model: Predictor | BytePredictor,
    text: bytes,
    progress: Callable[[int], None] = lambda done: None,
) -> bytes:
    """The text as a file that ``decompress`` reads. progress is called with ids done so far. Raises
    CodecError if the text is too long, or the model predicts what are no probabilities."""
    run = model.run
    targets = np.append(model.encode(text).astype(np.int32), model.end)
    if len(targets) >= 1 << 32:
        raise CodecError("it is too long: its ids are counted with 32 bits")
    coder = _STREAM.queue.RangeEncoder()
    predictor = model()
    p = next(predictor)
    for done, id_ in enumerate(targets.tolist(), 1):
        coder.encode(np.array([id_], np.int32), _CATEGORICAL, _checked(p))
        progress(done)
        if done < len(targets):
            p = predictor.send(id_)
    about = checkpoint_checksum(run.params), google_crc32c.value(text), len(targets)
    header = model.magic + b"".join(value.to_bytes(4, "big") for value in about)
    return header + coder.get_compressed().astype("<u4").tobytes()


def decompress(
    model: Predictor | BytePredictor,
    data: bytes,
    progress: Callable[[int], None] = lambda done: None,
) -> bytes:
    """The text that ``compress`` was given. Raises CodecError if the file is none of its own, was
    made with other parameters, or does not decode to the text it was made from."""
    if len(data) < HEADER or not data.startswith(model.magic) or len(data) % 4:
        raise CodecError("it was not made by compress.py, or was cut off")
    run = model.run
    made_with, text_sum, count = (int.from_bytes(data[at : at + 4], "big") for at in (4, 8, 12))
    if made_with != checkpoint_checksum(run.params):
        raise CodecError("it was made with another checkpoint; name the run that made it")
    words = np.frombuffer(data[HEADER:], "<u4").astype(np.uint32)
    coder = _STREAM.queue.RangeDecoder(words)
    # What is read is written again: a whole file comes out as it is, bit for bit.
    again = _STREAM.queue.RangeEncoder()
    predictor = model()
    p = next(predictor)
    ids: list[int] = []
    # The end of the document stands last, and nowhere else: a damaged file is soon known.
    while True:
        try:
            id_ = int(coder.decode(_CATEGORICAL, _checked(p))[0])
        except (AssertionError, ValueError) as error:  # of words that no encoder writes
            raise CodecError(_DAMAGED) from error
        if (id_ == model.end) != (len(ids) + 1 == count):
            raise CodecError(_DAMAGED)
        again.encode(np.array([id_], np.int32), _CATEGORICAL, p[None])
        if again.num_words() > len(words) + _SPARE:
            raise CodecError(_DAMAGED)
        if id_ == model.end:
            break
        ids.append(id_)
        p = predictor.send(id_)
        progress(len(ids))
    text = model.decode(np.array(ids, np.int64))
    if google_crc32c.value(text) != text_sum:
        raise CodecError(
            "the text does not match its checksum: the file is damaged, or was made on a machine "
            "that rounds differently"
        )
    if not np.array_equal(again.get_compressed(), words):
        raise CodecError("it is damaged: its text is whole, but other bytes follow it or differ")
    return text


_DAMAGED = "it is damaged: its text and its length do not agree"
_SPARE = 2
"""Words that a coder may be ahead of what it was given."""


def _checked(p: np.ndarray) -> np.ndarray:
    """Probabilities ``[1, V]`` as the coder takes them."""
    if not np.isfinite(p).all():
        raise CodecError("the model predicts no probabilities: its parameters are not finite")
    return p[None]
