"""What every tokenization scheme offers: an exact, reversible map between bytes and ids.

This folder has no ``__init__.py`` on purpose. A folder without one never shadows the Hugging Face
``tokenizers`` package, even when the repository root comes first on ``sys.path``.
"""

import base64
import binascii
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class Tokenizer(Protocol):
    """A lossless segmentation of byte strings into ids.

    ``decode(encode(data)) == data`` holds for every byte string, UTF-8 or not.
    """

    name: str
    vocab_size: int
    bos_id: int
    """The input before the first id of a document."""
    eos_id: int
    """The id that ends a document. It stands for no byte, and it is predicted and paid for."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What a model knows of the ids."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """The narrowest unsigned integer type that holds every id; shards are stored in it."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever any id would mean other bytes."""
        ...

    def encode(self, data: bytes) -> np.ndarray:
        """Ids of ``data``, ``[tokens]`` of ``dtype``, without the end of document."""
        ...

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes that ``ids`` stand for. Raises ValueError for an id that stands for none."""
        ...

    def bytes_per_id(self) -> np.ndarray:
        """``[vocab_size]`` int32: how many bytes each id stands for (0 for special ids)."""
        ...

    def to_json(self) -> dict:
        """Everything needed to build the same tokenizer again."""
        ...


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
