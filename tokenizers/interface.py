"""What every tokenization scheme offers: an exact, reversible map between bytes and ids.

This folder has no ``__init__.py`` on purpose. A folder without one never shadows the Hugging Face
``tokenizers`` package, even when the repository root comes first on ``sys.path``.
"""

import abc
import base64
import binascii
import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np


@dataclass(frozen=True)
class Vocabulary:
    """What a model knows of the ids it reads."""

    size: int
    bos_id: int
    """The input before the first id of a document."""
    eos_id: int
    are_bytes: bool = False
    """Whether ids below 256 are the bytes they stand for."""
    unit_mark: int | None = None
    """The id that says that a unit ended before it, if the scheme has one."""


class Tokenizer(abc.ABC):
    """A lossless segmentation of byte strings into ids, and the record of its scheme.

    ``decode(encode(data)) == data`` holds for every byte string, UTF-8 or not.

    A scheme is a file of this folder with a subclass that has the file's name as its ``scheme``.
    Libraries that take long to import are imported where they are used.
    """

    scheme: ClassVar[str]
    usage: ClassVar[dict[str, str]]
    """What prepare.py takes for it on the command line, ``SCHEME`` or ``SCHEME:ARGUMENT``, each
    with a line of help. Literals: they are read without running the file."""
    fields: ClassVar[tuple[str, ...]] = ()
    """What ``to_json`` has beside ``scheme``."""

    vocab_size: int
    bos_id: int
    """The input before the first id of a document."""
    eos_id: int
    """The id that ends a document. It stands for no byte, and it is predicted and paid for."""

    @classmethod
    def from_argument(cls, argument: str | None) -> Self:
        """What ``SCHEME:argument`` names on the command line, ``SCHEME`` if it is None. Raises
        ValueError if there is no such tokenizer."""
        if argument is not None:
            raise ValueError(f"{cls.scheme} takes no argument, found {argument!r:.40}")
        return cls()

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.scheme

    @property
    def vocabulary(self) -> Vocabulary:
        """What a model knows of the ids."""
        return Vocabulary(self.vocab_size, self.bos_id, self.eos_id)

    @property
    def dtype(self) -> np.dtype:
        """The narrowest unsigned integer type that holds every id; shards are stored in it."""
        return dtype_for(self.vocab_size)

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits that change whenever any id would mean other bytes."""

    @abc.abstractmethod
    def encode(self, data: bytes) -> np.ndarray:
        """Ids of ``data``, ``[tokens]`` of ``dtype``, without the end of document."""

    @abc.abstractmethod
    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes that ``ids`` stand for. Raises ValueError for an id that stands for none."""

    @abc.abstractmethod
    def bytes_per_id(self) -> np.ndarray:
        """``[vocab_size]`` int32: how many bytes each id stands for (0 for special ids)."""

    def to_json(self) -> dict:
        """Everything needed to build the same tokenizer again: ``scheme`` and its ``fields``."""
        return {"scheme": self.scheme}

    @classmethod
    def from_json(cls, data: dict) -> Self:
        """The tokenizer that wrote ``data``, which has exactly its fields. Raises ValueError if
        none did."""
        return cls()


class SubwordTokenizer(Tokenizer):
    """A scheme that is trained, ``SCHEME:SIZE`` on the command line. Ids are indices into
    ``pieces``, byte strings among which are the 256 single bytes; one more, after the last, marks
    the edge of a document (it is both the first input and the last target)."""

    def __init__(self, pieces: list[bytes]):
        self.pieces = pieces
        self.vocab_size = len(pieces) + 1
        self.bos_id = self.eos_id = len(pieces)

    @classmethod
    @abc.abstractmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int) -> Self:
        """Learn ``vocab_size`` ids (at least 257, the document edge included) from documents.
        Raises ValueError if that cannot be."""

    def decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"an id lies below {self.vocab_size}, found {ids.min()}..{ids.max()}")
        return b"".join(self.pieces[i] for i in ids.tolist() if i != self.eos_id)

    def bytes_per_id(self) -> np.ndarray:
        return np.array([len(piece) for piece in self.pieces] + [0], np.int32)


def check_lossless(tokenizer: Tokenizer, data: bytes) -> None:
    """Raise ValueError unless the tokenizer keeps what a scheme owes, of ``data``."""
    lacking = [name for name in ("vocab_size", "bos_id", "eos_id") if not hasattr(tokenizer, name)]
    if lacking:
        raise ValueError(f"tokenizers/{tokenizer.scheme}.py lacks {', '.join(lacking)}")
    ids = np.asarray(tokenizer.encode(data))
    used = [*ids.tolist(), tokenizer.bos_id, tokenizer.eos_id]
    wrong = None
    if not 0 <= min(used) <= max(used) < tokenizer.vocab_size:
        wrong = f"ids lie below vocab_size {tokenizer.vocab_size}, found {min(used)}..{max(used)}"
    elif tokenizer.eos_id in ids:
        wrong = f"encode gives eos_id {tokenizer.eos_id}, which only ends documents"
    elif tokenizer.decode(ids) != data:
        wrong = "decode(encode(data)) is not data"
    elif tokenizer.bytes_per_id()[ids].sum() != len(data):
        wrong = "bytes_per_id of encode(data) does not sum to its bytes"
    if wrong:
        raise ValueError(f"tokenizers/{tokenizer.scheme}.py loses text: {wrong}")


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrowest unsigned integer type for ids below ``vocab_size``."""
    for dtype in (np.uint8, np.uint16):
        if vocab_size - 1 <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.uint32)


def fingerprint_of(*parts: bytes) -> str:
    """16 hex digits of a hash over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


def base64_bytes(text: object) -> bytes:
    """What ``text`` of a tokenizer file stands for. Raises ValueError if it is no base64."""
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{text!r:.40} is no base64") from error


@contextlib.contextmanager
def native(sentence: str) -> Iterator[None]:
    """Raises ValueError, ``sentence`` and the reason, where a library written in Rust panics: its
    exception is no ``Exception``, and would pass every handler."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{sentence}: {first[:200]}") from error
