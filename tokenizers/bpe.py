"""Byte-level BPE: trained with ``rustbpe``, encoded with ``tiktoken``.

The vocabulary is a list of byte strings in merge order; ids are its indices. The first 256 are the
single bytes, so every byte string can be encoded. One more id after the last marks the edge of a
document (it is both the first input and the last target).

Encoding merges any adjacent pair whose concatenation is in the vocabulary, lowest id first
("string-rank" semantics); for a vocabulary made by plain BPE that equals replaying the merges.
"""

import base64
from collections.abc import Iterable

import numpy as np

from octavo.tokenizers.interface import dtype_for, fingerprint_of

# Words with their leading space, runs of up to three digits, punctuation runs, line breaks, spaces.
# The shape of OpenAI's cl100k_base splitter.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_EDGE = "<|document|>"


class BPETokenizer:
    """Ids from a trained list of byte strings; see the module docstring.

    Raises ValueError if the first 256 entries are not the 256 single bytes, or an entry repeats.
    """

    name = "bpe"

    def __init__(self, vocabulary: list[bytes], pattern: str = PATTERN):
        import tiktoken

        if set(vocabulary[:256]) != {bytes([b]) for b in range(256)}:
            raise ValueError("a byte-level BPE vocabulary starts with the 256 single bytes")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("the vocabulary holds the same byte string twice")
        self.vocabulary = vocabulary
        self.pattern = pattern
        self.vocab_size = len(vocabulary) + 1
        self.bos_id = self.eos_id = len(vocabulary)
        self.dtype = dtype_for(self.vocab_size)
        self.fingerprint = fingerprint_of(b"bpe string-rank", pattern.encode(), *vocabulary)
        self._encoding = tiktoken.Encoding(
            name="octavo-bpe",
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(vocabulary)},
            special_tokens={_EDGE: self.eos_id},
        )

    @classmethod
    def train(
        cls, documents: Iterable[bytes], vocab_size: int, pattern: str = PATTERN
    ) -> "BPETokenizer":
        """Learn ``vocab_size`` ids (at least 257, the document edge included) from documents.

        Bytes that are not UTF-8 are left out of training; they still encode, byte by byte.
        Fewer ids come out when the text has no more pairs to merge.
        """
        import rustbpe

        if vocab_size < 257:
            raise ValueError(f"a byte-level BPE needs at least 257 ids, asked for {vocab_size}")
        trainer = rustbpe.Tokenizer()
        texts = (document.decode("utf-8", errors="ignore") for document in documents)
        trainer.train_from_iterator(texts, vocab_size - 1, pattern=pattern)
        ranked = sorted(trainer.get_mergeable_ranks(), key=lambda item: item[1])
        return cls([bytes(token) for token, _ in ranked], pattern)

    def encode(self, data: bytes) -> np.ndarray:
        try:
            ids = self._encoding.encode_ordinary(data.decode("utf-8"))
        except UnicodeDecodeError:
            ids = self._encode_mixed(data)
        return np.asarray(ids, self.dtype)

    def _encode_mixed(self, data: bytes) -> list[int]:
        """Valid stretches as text, the rest as single bytes."""
        single = {token[0]: i for i, token in enumerate(self.vocabulary[:256])}
        ids: list[int] = []
        while data:
            try:
                return ids + self._encoding.encode_ordinary(data.decode("utf-8"))
            except UnicodeDecodeError as error:
                ids += self._encoding.encode_ordinary(data[: error.start].decode("utf-8"))
                ids += [single[b] for b in data[error.start : error.end]]
                data = data[error.end :]
        return ids

    def decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"an id lies below {self.vocab_size}, found {ids.min()}..{ids.max()}")
        return b"".join(self.vocabulary[i] for i in ids.tolist() if i != self.eos_id)

    def bytes_per_id(self) -> np.ndarray:
        return np.array([len(token) for token in self.vocabulary] + [0], np.int32)

    def to_json(self) -> dict:
        return {
            "scheme": self.name,
            "pattern": self.pattern,
            "vocabulary": [base64.b64encode(token).decode() for token in self.vocabulary],
        }

    @classmethod
    def from_json(cls, data: dict) -> "BPETokenizer":
        return cls([base64.b64decode(token) for token in data["vocabulary"]], data["pattern"])
