"""Blocks of N bytes, counted from the beginning of the document: a control arm that knows nothing
of language.

The most frequent blocks of the training text are pieces; any other is spelled byte by byte.
"""

import functools
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from octavo.tokenizers.interface import SubwordTokenizer, base64_bytes, base64_text, fingerprint_of
from octavo.tokenizers.parts.counts import Counts
from octavo.tokenizers.parts.pieces import BYTES
from octavo.tokenizers.parts.segment import by_greed
from octavo.tokenizers.parts.tables import trie

MOST_IDS = 1 << 16


class BlocksTokenizer(SubwordTokenizer):
    """block: its bytes. vocabulary: the blocks."""

    scheme = "blocks"
    usage = {"blocks:N": "blocks of N bytes, the most frequent 65,279 of them (a control)"}
    fields = ("block", "vocabulary")
    numbers = range(2, 17)

    def __init__(self, block: int, vocabulary: list[bytes]):
        if type(block) is not int or block not in self.numbers:
            raise ValueError(f"a block has 2 to 16 bytes, not {block!r:.40}")
        if any(len(piece) != block for piece in vocabulary):
            raise ValueError(f"a block of the vocabulary has not {block} bytes")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("the vocabulary holds the same block twice")
        super().__init__([*BYTES, *vocabulary])
        self.block = block

    @property
    def name(self) -> str:
        return f"blocks-{self.block}"

    @property
    def number(self) -> int:
        return self.block

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(b"blocks", bytes([self.block]), *self.pieces)

    @classmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int, **options: Any) -> Self:
        """Blocks of ``vocab_size`` bytes."""
        cls(vocab_size, [])
        counts = Counts()
        for document in documents:
            whole = np.frombuffer(document, np.uint8)[: len(document) // vocab_size * vocab_size]
            counts.add(whole, _ends(len(whole), vocab_size))
        found = counts.counted().most_common(MOST_IDS - 257)
        return cls(vocab_size, [block for block, _ in found])

    @functools.cached_property
    def _tree(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return trie(self.pieces)

    def encode(self, data: bytes) -> np.ndarray:
        text = np.frombuffer(data, np.uint8)
        return by_greed(text, _ends(len(text), self.block), self._tree).astype(self.dtype)

    def to_json(self) -> dict:
        blocks = [base64_text(piece) for piece in self.pieces[256:]]
        return {"scheme": self.scheme, "block": self.block, "vocabulary": blocks}

    @classmethod
    def from_json(cls, data: dict) -> Self:
        if not isinstance(data["vocabulary"], list):
            raise ValueError("the vocabulary is a list")
        return cls(data["block"], [base64_bytes(piece) for piece in data["vocabulary"]])


def _ends(size: int, block: int) -> np.ndarray:
    """1 at the last byte of each block of so many bytes, uint8 ``[size]``."""
    ends = np.zeros(size, np.uint8)
    ends[block - 1 :: block] = 1
    return ends
