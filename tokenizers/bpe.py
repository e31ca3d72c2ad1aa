"""Byte-level BPE (Sennrich et al. 2016, 1508.07909; over bytes, Radford et al. 2019): the most
frequent pair of adjacent pieces inside pre-tokens becomes a piece, again and again.

Encoding merges any adjacent pair whose concatenation is in the vocabulary, lowest id first
("string-rank" semantics, as ``tiktoken``); for a vocabulary made by plain BPE that equals replaying
the merges.
"""

from typing import Any

from octavo.tokenizers.parts.merges import learned
from octavo.tokenizers.parts.pieces import PieceTokenizer
from octavo.tokenizers.parts.text import Text


class BPETokenizer(PieceTokenizer):
    """Ids from a list of byte strings in merge order; see the module docstring."""

    scheme = "bpe"
    usage = {"bpe:SIZE": "byte-level BPE of SIZE ids, trained on these sources first"}

    @property
    def name(self) -> str:
        return self.scheme

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        return {"vocabulary": learned(text.counts, size, text.progress)[0]}
