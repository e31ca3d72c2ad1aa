"""Byte-level BPE: trained with ``rustbpe``, encoded with ``tiktoken``.

The pieces are byte strings in merge order. The first 256 are the single bytes, so every byte string
can be encoded.

Encoding merges any adjacent pair whose concatenation is in the vocabulary, lowest id first
("string-rank" semantics); for a vocabulary made by plain BPE that equals replaying the merges.
"""

import base64
import functools
import re
from collections.abc import Iterable, Iterator

import numpy as np

from octavo.tokenizers.interface import SubwordTokenizer, base64_bytes, fingerprint_of, native

# Words with their leading space, runs of up to three digits, punctuation runs, line breaks, spaces.
# The shape of OpenAI's cl100k_base splitter.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_EDGE = "<|document|>"
_NO_TEXT = re.compile("[\udc80-\udcff]+")
"""Bytes that are not UTF-8, as surrogateescape reads them."""
_LONG_SPACE = re.compile(r"\s{100000}")
"""White space that the splitters of tiktoken and rustbpe would pile up on their stacks until those
are full: it is cut here first."""


class BPETokenizer(SubwordTokenizer):
    """Ids from a trained list of byte strings; see the module docstring.

    Raises ValueError if the first 256 entries are not the 256 single bytes, an entry is empty or
    repeats, or the pattern is no regular expression.
    """

    scheme = "bpe"
    usage = {"bpe:SIZE": "byte-level BPE of SIZE ids, trained on these sources first"}
    fields = ("pattern", "vocabulary")

    def __init__(self, vocabulary: list[bytes], pattern: str = PATTERN):
        import tiktoken

        if set(vocabulary[:256]) != {bytes([b]) for b in range(256)}:
            raise ValueError("a byte-level BPE vocabulary starts with the 256 single bytes")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("the vocabulary holds the same byte string twice")
        if b"" in vocabulary:
            raise ValueError("the vocabulary holds an empty byte string")
        super().__init__(vocabulary)
        self.pattern = pattern
        self._single = np.empty(256, self.dtype)
        self._single[[token[0] for token in vocabulary[:256]]] = np.arange(256)
        with native("the splitting pattern cannot be used"):
            self._encoding = tiktoken.Encoding(
                name="octavo-bpe",
                pat_str=pattern,
                mergeable_ranks={token: rank for rank, token in enumerate(vocabulary)},
                special_tokens={_EDGE: self.eos_id},
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(b"bpe string-rank", self.pattern.encode(), *self.pieces)

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
        trainer = rustbpe.Tokenizer()  # type: ignore[attr-defined]
        texts = (
            stretch
            for document in documents
            for stretch in _splittable(document.decode("utf-8", errors="ignore"))
        )
        with native("this text cannot be split for a byte-level BPE"):
            trainer.train_from_iterator(texts, vocab_size - 1, pattern=pattern)
        ranked = sorted(trainer.get_mergeable_ranks(), key=lambda item: item[1])
        return cls([bytes(token) for token, _ in ranked], pattern)

    def encode(self, data: bytes) -> np.ndarray:
        """Valid stretches as text, the rest as single bytes."""
        text = data.decode("utf-8", errors="surrogateescape")
        parts: list[np.ndarray] = []
        at = 0
        for match in _NO_TEXT.finditer(text):
            parts += self._encode_text(text[at : match.start()])
            parts.append(self._single[list(match[0].encode("utf-8", errors="surrogateescape"))])
            at = match.end()
        parts += self._encode_text(text[at:])
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def _encode_text(self, text: str) -> Iterator[np.ndarray]:
        for stretch in _splittable(text):
            with native("the splitting pattern cannot split this text"):
                yield np.asarray(self._encoding.encode_ordinary(stretch), self.dtype)

    def to_json(self) -> dict:
        return {
            "scheme": self.scheme,
            "pattern": self.pattern,
            "vocabulary": [base64.b64encode(token).decode() for token in self.pieces],
        }

    @classmethod
    def from_json(cls, data: dict) -> "BPETokenizer":
        vocabulary, pattern = data["vocabulary"], data["pattern"]
        if not isinstance(vocabulary, list) or not isinstance(pattern, str):
            raise ValueError("the vocabulary is a list and the pattern a string")
        return cls([base64_bytes(token) for token in vocabulary], pattern)


def _splittable(text: str) -> Iterator[str]:
    """``text`` in stretches that a splitting pattern can take; nearly always in one."""
    at = 0
    for match in _LONG_SPACE.finditer(text):
        yield text[at : match.end()]
        at = match.end()
    if at < len(text):
        yield text[at:]
