"""Subword schemes as four stages that combine freely:

splitter             x  vocabulary builder  x  segmenter       x  stream transform
parts/splitters.py      one file a scheme      parts/segment.py   parts/split_again.py
"""

import abc
import functools
import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import numpy as np

from octavo.tokenizers.interface import SubwordTokenizer, base64_bytes, base64_text, fingerprint_of
from octavo.tokenizers.parts import segment, splitters
from octavo.tokenizers.parts.presegment import Presegmented, ends
from octavo.tokenizers.parts.split_again import SplitAgain
from octavo.tokenizers.parts.tables import ends_of, joined, trie
from octavo.tokenizers.parts.text import Progress, Text, quiet

PATTERN = splitters.PATTERNS["cl100k"]
BYTES = [bytes([b]) for b in range(256)]


class PieceTokenizer(SubwordTokenizer):
    """Pre-tokens of a splitter, cut into pieces by a segmenter.

    vocabulary: byte strings; the first 256 are the single bytes. pattern: the regular expression
    that splits. segmenter: one of ``segment.NAMES``. scores: of each piece, for "likeliest".
    stochastok: share of the tokens of a training text that are tried to be split in two.
    presegmented: where words are cut before all that.

    Raises ValueError for a vocabulary that does not begin with the 256 single bytes, or has an
    entry that is empty or repeats; for an unknown segmenter; and for a pattern that is no regular
    expression.
    """

    fields = ("pattern", "vocabulary")
    optional = ("segmenter", "scores", "stochastok", "presegmented")
    options: ClassVar[dict[str, Callable[[str], Any]]] = {
        "splitter": str, "digits": str, "segmenter": str, "stochastok": float, "presegment": str,
    }  # fmt: skip
    splitter: ClassVar[str] = "cl100k"
    """Of a scheme, if nothing else is asked for; so are the two that follow."""
    segmenting: ClassVar[str] = "merges"
    splitting_again: ClassVar[float] = 0.0

    def __init__(
        self,
        vocabulary: list[bytes],
        pattern: str = PATTERN,
        *,
        segmenter: str = "merges",
        scores: list[float] | None = None,
        stochastok: float = 0.0,
        presegmented: Presegmented | None = None,
    ):
        if set(vocabulary[:256]) != set(BYTES):
            raise ValueError("a vocabulary of bytes starts with the 256 single bytes")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("the vocabulary holds the same byte string twice")
        if b"" in vocabulary:
            raise ValueError("the vocabulary holds an empty byte string")
        _check(segmenter, stochastok)
        if (segmenter == "likeliest") != (scores is not None):
            raise ValueError("the segmenter likeliest needs scores, and no other takes them")
        if scores is not None and not (
            len(scores) == len(vocabulary)
            and all(type(score) in (int, float) and abs(score) < 1e30 for score in scores)
        ):
            raise ValueError("there is a finite score for each piece")
        super().__init__(vocabulary)
        splitters.ends(b"", pattern)  # raises if it is no regular expression
        self.pattern, self.segmenter, self.scores = pattern, segmenter, scores
        self.stochastok, self.presegmented = stochastok, presegmented

    @property
    def name(self) -> str:
        return f"{self.scheme}-{self.vocab_size}"

    @functools.cached_property
    def fingerprint(self) -> str:
        plain = ("scheme", *PieceTokenizer.fields)
        rest = {k: v for k, v in self.to_json().items() if k not in plain}
        more = [json.dumps(rest, sort_keys=True).encode()] if rest else []
        return fingerprint_of(b"bpe string-rank", self.pattern.encode(), *self.pieces, *more)

    @classmethod
    def train(
        cls,
        documents: Iterable[bytes],
        vocab_size: int,
        *,
        splitter: str | None = None,
        digits: str = "pattern",
        segmenter: str | None = None,
        stochastok: float | None = None,
        presegment: str | Callable | None = None,
        progress: Progress = quiet,
        **own: Any,
    ) -> Self:
        """Learn ``vocab_size`` ids (at least 257, the document edge included) from documents.

        splitter, digits: of ``splitters.pattern``. presegment: a command, or a function, that cuts
        words (``parts/presegment.py``). own: what the scheme has besides. Bytes that are not UTF-8
        are left out of training; they still encode, byte by byte. Fewer ids come out when the text
        has no more to give. Raises ValueError if that cannot be.
        """
        if vocab_size < 257:
            raise ValueError(f"{cls.scheme} needs at least 257 ids, asked for {vocab_size}")
        if segmenter == "likeliest":
            raise ValueError(f"the segmenter likeliest needs scores, and {cls.scheme} learns none")
        pattern = splitters.pattern(splitter or cls.splitter, digits)
        how: dict[str, Any] = {
            "segmenter": segmenter or cls.segmenting,
            "stochastok": cls.splitting_again if stochastok is None else stochastok,
        }
        _check(**how)
        text = Text(documents, pattern, digits, presegment, progress)
        made: dict[str, Any] = {"pattern": pattern} | how | cls.build(text, vocab_size - 1, **own)
        return cls(**made, presegmented=text.presegmented)

    @classmethod
    @abc.abstractmethod
    def build(cls, text: Text, size: int, **own: Any) -> dict[str, Any]:
        """The vocabulary of ``size`` pieces of a text; and whatever else of the constructor's
        arguments the scheme decides."""

    def ends(self, data: bytes) -> np.ndarray:
        """Where pre-tokens end, uint8 ``[bytes]``."""
        return ends(data, self.pattern, self.presegmented)

    @functools.cached_property
    def _merges(self) -> segment.Merges:
        return segment.Merges(self.pieces, len(self.pieces))

    @functools.cached_property
    def _tree(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return trie(self.pieces)

    @functools.cached_property
    def _costs(self) -> np.ndarray:
        return np.full(len(self.pieces), -1.0) if self.scores is None else np.array(self.scores)

    def encode(self, data: bytes) -> np.ndarray:
        return self.segment(np.frombuffer(data, np.uint8), self.ends(data)).astype(self.dtype)

    def segment(self, data: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Ids, int32, of uint8 ``data`` whose pre-tokens end at ``ends``."""
        if self.segmenter == "merges":
            return self._merges.apply(data, ends)[0]
        if self.segmenter == "greedy":
            return segment.by_greed(data, ends, self._tree)
        return segment.by_path(data, ends, self._tree, self._costs)

    @functools.cached_property
    def _again(self) -> SplitAgain:
        return SplitAgain(self.pieces)

    def encode_training(self, data: bytes) -> np.ndarray:
        ids = self.encode(data)
        return self._again.split(ids, self.stochastok, data) if self.stochastok else ids

    def to_json(self) -> dict:
        found: dict[str, Any] = {
            "scheme": self.scheme,
            "pattern": self.pattern,
            "vocabulary": [base64_text(piece) for piece in self.pieces],
        }
        if self.segmenter != "merges":
            found["segmenter"] = self.segmenter
        if self.scores is not None:
            found["scores"] = self.scores
        if self.stochastok:
            found["stochastok"] = self.stochastok
        if self.presegmented:
            found["presegmented"] = self.presegmented.words
        return found

    @classmethod
    def from_json(cls, data: dict) -> Self:
        kinds = {"pattern": str, "vocabulary": list, "segmenter": str, "scores": list,
                 "stochastok": (int, float), "presegmented": dict}  # fmt: skip
        for name, kind in kinds.items():
            if name in data and not isinstance(data[name], kind):
                raise ValueError(f"{name} is no {getattr(kind, '__name__', 'number')}")
        given = {k: v for k, v in data.items() if k != "scheme"}
        if "presegmented" in given:
            given["presegmented"] = Presegmented(given["presegmented"])
        given["vocabulary"] = [base64_bytes(piece) for piece in given["vocabulary"]]
        return cls(**given)


def options_without(name: str) -> dict[str, Callable[[str], Any]]:
    """Those of ``PieceTokenizer`` but one that a scheme cannot have."""
    return {option: read for option, read in PieceTokenizer.options.items() if option != name}


def _check(segmenter: str, stochastok: float) -> None:
    if segmenter not in segment.NAMES:
        known = ", ".join(segment.NAMES)
        raise ValueError(f"a segmenter is one of {known}, not {segmenter!r:.40}")
    if not 0 <= stochastok < 1:
        raise ValueError(f"stochastok lies in [0, 1), not {stochastok}")


def by_merges(pieces: list[bytes], chunks: list[bytes]) -> list[np.ndarray]:
    """Ids of each chunk, int32, by merges of the pieces."""
    data, starts = joined(chunks)
    ids, counts = segment.Merges(pieces, len(pieces)).apply(data, ends_of(starts))
    return np.split(ids, np.cumsum(counts)[:-1]) if chunks else []
