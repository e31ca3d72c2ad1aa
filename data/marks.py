"""Marks beside the ids of a corpus: 1 where a unit ends with the id."""

from typing import Protocol

import numpy as np

from octavo.tokenizers.interface import Tokenizer


class Marks(Protocol):
    """What marks documents while they are prepared."""

    @property
    def description(self) -> dict:
        """``kind``: "entropy" (decided by what was read so far) or "subwords" (not), and more."""
        ...

    def __call__(self, documents: list[bytes], encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Marks, 0 or 1, of each document's ids."""
        ...


class SubwordMarks:
    """Marks the ids of ``tokenizer`` at which a subword of another tokenizer ends. The choice of
    subwords looks ahead: targets for a predictor, not units for a model."""

    def __init__(self, subwords: Tokenizer, tokenizer: Tokenizer):
        self.subwords = subwords
        self.subword_sizes, self.sizes = subwords.bytes_per_id(), tokenizer.bytes_per_id()

    @property
    def description(self) -> dict:
        return {
            "kind": "subwords",
            "tokenizer": self.subwords.name,
            "fingerprint": self.subwords.fingerprint,
        }

    def __call__(self, documents: list[bytes], encoded: list[np.ndarray]) -> list[np.ndarray]:
        marks = []
        for document, ids in zip(documents, encoded, strict=True):
            ends = np.cumsum(self.subword_sizes[self.subwords.encode(document)])
            marks.append(np.zeros(len(ids), np.uint8))
            marks[-1][np.searchsorted(np.cumsum(self.sizes[ids]), ends)] = 1
        return marks
