"""Marks for text that no corpus has marked: what a model that reads stored marks needs to score,
sample or compress.

A marker marks the ids of whole documents side by side (``of_documents``), and one after another
with a cache (``init_cache``, ``extend``).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from octavo.configs.room import Room, room_of
from octavo.evaluation.rows import over_documents, packed_rows
from octavo.model.batch import FIELDS, Batch
from octavo.tokenizers.interface import Tokenizer
from octavo.training.objective import entropy


class NoMarks:
    """For models whose segmenter reads the ids alone."""

    params: dict = {}

    def of_documents(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        return [np.zeros(len(ids), np.uint8) for ids in encoded]

    def init_cache(self, rows: int, slots: int) -> dict:
        return {}

    def extend(self, params, tokens, cache, valid):
        return jnp.zeros_like(tokens), cache


class EntropyMarks:
    """A unit ends with the ids after which a small model's next-id entropy is above a threshold
    (BLT, 2412.09871, section 2.3, "global constraint"): decided by the ids up to there.

    bind, params: the small model. length: its rows in training; each id is judged with at least
    half of that as context. threshold: nats. room: of its rows (see ``packed_rows``).
    """

    BATCH = 16

    def __init__(
        self,
        bind: Callable,
        params: dict,
        tokenizer: Tokenizer,
        length: int,
        threshold: float,
        room: Room | None = None,
    ):
        self.bind, self.params, self.tokenizer = bind, params, tokenizer
        self.length, self.threshold, self.room = length, threshold, room

        @jax.jit
        def entropies(params, rows):
            batch = Batch(**{name: rows[:, i] for i, name in enumerate(FIELDS)}).widen()
            return entropy(bind(params)(batch).logits)

        self._entropies = entropies

    @classmethod
    def with_rate(cls, run, documents: list[bytes], rate: float) -> "EntropyMarks":
        """The marker of an opened run whose threshold marks this share of the ids."""
        mark = cls.of_run(run, threshold=0.0)
        found = mark.entropies([run.tokenizer.encode(document) for document in documents])
        mark.threshold = float(np.quantile(np.concatenate(found), 1 - rate))
        return mark

    @classmethod
    def of_run(cls, run, threshold: float) -> "EntropyMarks":
        """The marker of an opened run."""
        length = run.config.data.length
        room = room_of(run.config.model, length)
        return cls(run.definition.bind, run.params, run.tokenizer, length, threshold, room)

    @property
    def description(self) -> dict:
        """What a manifest says of the marks."""
        return {"kind": "entropy", "threshold": self.threshold, "tokenizer": self.tokenizer.name}

    def __call__(self, documents: list[bytes], encoded: list[np.ndarray]) -> list[np.ndarray]:
        return self.of_documents(encoded)

    def entropies(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Entropy in nats after each id, float32, of documents without their ends."""
        rows, places = packed_rows(
            encoded, self.tokenizer, self.length, self.length // 2, room=self.room
        )

        def evaluate(part: np.ndarray):
            return (np.asarray(self._entropies(self.params, part)),)

        found = over_documents(evaluate, rows, places, len(encoded), self.BATCH)
        return [values[1:] for (values,) in found]  # the first: after the begin-of-document id

    def of_documents(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Marks of each id, uint8."""
        return [(values > self.threshold).astype(np.uint8) for values in self.entropies(encoded)]

    def init_cache(self, rows: int, slots: int) -> dict:
        return self.bind(self.params).init_cache(rows, slots)

    def extend(self, params, tokens, cache, valid):
        """Marks ``[B, N]`` of tokens that continue the cache, and the longer cache."""
        logits, cache = self.bind(params).extend(tokens, cache, valid=valid, context=self.length)
        return (entropy(logits) > self.threshold).astype(jnp.int32), cache
