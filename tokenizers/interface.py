"""What every tokenization scheme offers: an exact, reversible map between bytes and ids.

This folder has no ``__init__.py`` on purpose. A folder without one never shadows the Hugging Face
``tokenizers`` package, even when the repository root comes first on ``sys.path``.
"""

import abc
import base64
import binascii
import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

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
    unit_ends: int | None = None
    """The first of the ids that say that a unit ends with them, if the scheme has such."""


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
    optional: ClassVar[tuple[str, ...]] = ()
    """What it has besides where it is not as usual."""

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

    def encode_training(self, data: bytes) -> np.ndarray:
        """Ids that a training split gets: those of ``encode``, but for schemes that cut training
        text at random. The same text always gives the same."""
        return self.encode(data)

    @abc.abstractmethod
    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes that ``ids`` stand for. Raises ValueError for an id that stands for none."""

    @abc.abstractmethod
    def bytes_per_id(self) -> np.ndarray:
        """``[vocab_size]`` int32: how many bytes each id stands for (0 for special ids)."""

    @classmethod
    def fields_of(cls, data: dict) -> tuple[str, ...]:
        """``fields``; of a scheme with more than one kind of file, those of this kind."""
        return cls.fields

    def to_json(self) -> dict:
        """Everything needed to build the same tokenizer again: ``scheme`` and its ``fields``."""
        return {"scheme": self.scheme}

    @classmethod
    def from_json(cls, data: dict) -> Self:
        """The tokenizer that wrote ``data``, which has exactly its fields. Raises ValueError if
        none did."""
        return cls()


class TrainedTokenizer(Tokenizer):
    """A scheme that is trained: ``SCHEME:NUMBER[,OPTION=VALUE...]`` on the command line."""

    numbers: ClassVar[range] = range(257, (1 << 24) + 1)
    """What NUMBER may be: ids of the vocabulary, as a rule."""
    options: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    """Keyword arguments of ``train`` that the command line takes, and what reads their values."""
    asked: str = ""
    """NUMBER and options, as the command line had them; empty if there was no option."""

    @classmethod
    @abc.abstractmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int, **options: Any) -> Self:
        """Learn ``vocab_size`` ids (the document edge included) from documents. Raises ValueError
        if that cannot be."""

    @property
    def number(self) -> int:
        """The NUMBER that asks for as many ids."""
        return self.vocab_size

    @classmethod
    def read_argument(cls, argument: str) -> tuple[int, dict[str, Any]]:
        """``NUMBER[,OPTION=VALUE...]`` as arguments of ``train``. Raises ValueError for what is
        none."""
        digits, *parts = argument.split(",")
        number = int(digits) if re.fullmatch("[0-9]{1,9}", digits) else -1
        if number not in cls.numbers:
            what = "a size" if cls.numbers.start >= 257 else "a number"
            raise ValueError(
                f"{cls.scheme} takes {what} of at least {cls.numbers.start} and at most "
                f"{cls.numbers.stop - 1:,}, not {digits!r:.40}"
            )
        found: dict[str, Any] = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if name not in cls.options or not equals or not value:
                known = ", ".join(f"{option}=..." for option in cls.options) or "no option"
                raise ValueError(f"{cls.scheme} takes {known}, not {part!r:.40}")
            if name in found:
                raise ValueError(f"{name} is given twice")
            try:
                found[name] = cls.options[name](value)
            except ValueError as error:
                raise ValueError(f"{name} is no number: {value!r:.40}") from error
        return number, found


class SubwordTokenizer(TrainedTokenizer):
    """Ids are indices into ``pieces``, byte strings among which are the 256 single bytes; one more,
    after the last, marks the edge of a document (it is both the first input and the last
    target)."""

    def __init__(self, pieces: list[bytes]):
        self.pieces = pieces
        self.vocab_size = len(pieces) + 1
        self.bos_id = self.eos_id = len(pieces)

    def decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids).astype(np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"an id lies below {self.vocab_size}, found {ids.min()}..{ids.max()}")
        text, starts = self._joined
        sizes = starts[ids + 1] - starts[ids]
        # Where each byte lies among those of the pieces.
        at = np.repeat(starts[ids] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        return text[at].tobytes()

    @functools.cached_property
    def _joined(self) -> tuple[np.ndarray, np.ndarray]:
        """All pieces behind each other, uint8, and where each id's begin and the last ends."""
        starts = np.zeros(self.vocab_size + 1, np.int64)
        np.cumsum([*map(len, self.pieces), 0], out=starts[1:])
        return np.frombuffer(b"".join(self.pieces), np.uint8), starts

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


def digest_of(parts: Iterable[bytes]) -> str:
    """64 hex digits of a hash over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def fingerprint_of(*parts: bytes) -> str:
    """The first 16 hex digits of ``digest_of``."""
    return digest_of(parts)[:16]


def base64_text(data: bytes) -> str:
    """``data`` as a tokenizer file has it."""
    return base64.b64encode(data).decode()


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
