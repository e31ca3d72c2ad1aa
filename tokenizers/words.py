"""Bytes with the ends of words marked: a splitter that looks ahead, made honest.

Between two words stands the mark, 0x17 ("end of block"), an id like any other: a model predicts and
pays for it, and where it comes a word has ended, decided by what was read so far. It is the word
symbol of HAT (Neitemeier et al. 2025, 2501.10322). A model may put marks anywhere: decoding drops
them.
"""

import dataclasses

import numpy as np

from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Vocabulary, fingerprint_of

MARK = 0x17
MOST_BYTES = 64
"""A longer word is cut, by bytes."""


class WordTokenizer(ByteTokenizer):
    """The ids of ``ByteTokenizer``, and a mark after every word but the last of a document.

    rule: "hat" (words with a leading space and trailing punctuation) or "unicode" (UAX 29).
    """

    scheme = "words"
    usage = {
        "words": "bytes, and an id that marks the ends of words",
        "words:unicode": "the same, of words by Unicode (UAX 29) alone",
    }
    fields = ("rule",)
    special = (*ByteTokenizer.special, MARK)

    def __init__(self, rule: str = "hat"):
        if rule not in ("hat", "unicode"):
            raise ValueError(f"words are split by hat or unicode, not {rule!r:.40}")
        self.rule = rule

    @classmethod
    def from_argument(cls, argument: str | None) -> "WordTokenizer":
        return cls() if argument is None else cls(argument)

    @property
    def name(self) -> str:
        return f"words-{self.rule}"

    @property
    def vocabulary(self) -> Vocabulary:
        return dataclasses.replace(super().vocabulary, unit_mark=MARK)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(super().fingerprint.encode(), bytes([MOST_BYTES]))

    def encode(self, data: bytes) -> np.ndarray:
        from octavo.tokenizers.unicode.words import hat_ends, word_ends

        text = np.frombuffer(data, np.uint8)
        ends = hat_ends(text, MOST_BYTES) if self.rule == "hat" else word_ends(text)
        escaped = super().encode(data)
        if not len(text):
            return escaped
        # Where each byte lies among the ids: behind its escape, if it has one.
        size = 1 + np.isin(text, self.special) if len(escaped) > len(text) else np.ones_like(text)
        ends[-1] = 0
        last = np.cumsum(size, dtype=np.int64)[ends > 0]
        out = np.empty(len(escaped) + len(last), np.uint8)
        marked = last + np.arange(len(last))
        keep = np.ones(len(out), bool)
        keep[marked] = False
        out[marked] = MARK
        out[keep] = escaped
        return out

    def to_json(self) -> dict:
        return {"scheme": self.scheme, "rule": self.rule}

    @classmethod
    def from_json(cls, data: dict) -> "WordTokenizer":
        return cls(data["rule"])


WORDS = WordTokenizer().vocabulary
"""Of a model that reads bytes and the marks of words."""
