"""Tokenizers of other libraries, run by them, as exact maps of any bytes."""

import abc
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import numpy as np

from octavo.tokenizers.interface import SubwordTokenizer

PROBES = (
    "a", " a", "a ", "a  b", "A", " ", "  ", "\n", "\n\n", " \n", "\r\n", "\r", "\t", "\x0b",
    "\x0c", "\x00", "\x1f", "\x7f", "\x85", "\xa0", "\xad", "\u3000", "\u2028", "\ufeff", "\u200b",
    "\u2581", "\u2581a", "\u2585", "\u0120", "\u010a", "e\u0301", "\xe9", "\u1e9b\u0323",
    "\uac00", "\u1100\u1161", "\ufb01", "\uff21", "\uff11", "\u2460", "\xb2", "\xdf", "\u0130",
    "I", "\u017f", "'s", "'LL", " 's", "don't", "1", "12", "1234567", "3.14", "##a", "@@", "</w>",
    "\u4e2d\u6587", "\u65e5", "\u05e9\u05c1", "\u0643\u0651", "\u0e01\u0e33", "\U0001f469",
    "\U0001f469\u200d\U0001f4bb", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\U00013080", "\u0378",
    "\ufdd0", "\ufffd", "\U0010ffff", "<unk>", "<s>", "</s>", "<pad>", "[UNK]", "[CLS]", "[MASK]",
    "<|endoftext|>", "<|im_start|>", "<0x41>", "_", "#", "``", "''", "...", " .", " ,", "\\n",
    "\udcff", "\udcc0\udc80", "\udced\udca0\udc80", "\udcf4\udc90\udc80\udc80", "a\udce2\udc96b",
)  # fmt: skip
"""What a tokenizer must give back, and any two of it: each kind of character that normalizers
change or drop, spellings of special ids, and bytes that are not UTF-8 (as surrogates)."""


class LibraryTokenizer(SubwordTokenizer):
    """Subwords that a library finds in text, ``_run``.

    Bytes that are not UTF-8, and the characters ``reserved``, are spelled with the ids of single
    bytes; so is any text that the library does not give back as it was.

    pieces: bytes of each id; none for ids that stand for no text. spelling: the id of each single
    byte. probes: text that must come back, beside ``PROBES``. Raises ValueError with the first that
    does not.
    """

    def __init__(
        self,
        pieces: list[bytes],
        spelling: dict[int, int],
        reserved: str = "",
        probes: Iterable[str] = (),
    ):
        super().__init__(pieces)
        for byte in range(256):
            if byte not in spelling:
                raise ValueError(
                    f"it loses text: no id stands for the byte {bytes([byte])!r} alone"
                )
        self._spelling = [spelling[byte] for byte in range(256)]
        self._spelled = re.compile(f"([\udc80-\udcff{reserved}]+)")
        alone = [*PROBES, *probes]
        pairs = map("".join, itertools.product(PROBES, PROBES))
        for part, spelled in itertools.chain.from_iterable(map(self._parts, (*alone, *pairs))):
            if not spelled and (back := self._spell_out(self._run(part))) != part.encode():
                found = back.decode("utf-8", errors="replace")
                raise ValueError(f"it loses text: {part!a:.80} comes back as {found!a:.80}")

    @abc.abstractmethod
    def _run(self, text: str) -> list[int]:
        """Ids of text without ``reserved`` characters, by the library."""

    @property
    def name(self) -> str:
        return f"{self.scheme}-{self.vocab_size}"

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Text, and whether it is spelled."""
        for i, part in enumerate(self._spelled.split(text)):
            if part:
                yield part, bool(i % 2)

    def _spell_out(self, ids: list[int]) -> bytes:
        return b"".join([self.pieces[i] for i in ids])

    def encode(self, data: bytes) -> np.ndarray:
        ids: list[int] = []
        for part, spelled in self._parts(data.decode("utf-8", errors="surrogateescape")):
            of = part.encode("utf-8", errors="surrogateescape")
            found = [] if spelled else self._run(part)
            if self._spell_out(found) != of:
                found = [self._spelling[byte] for byte in of]
            ids += found
        return np.array(ids, self.dtype)

    @classmethod
    def read_argument(cls, argument: str) -> NoReturn:
        raise ValueError(f"{cls.scheme} tokenizers are read from files, not trained")

    @classmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int, **options: Any) -> NoReturn:
        cls.read_argument("")
