"""R-grams (Ekgren et al. 2018, 1808.04670): recursive pair replacement over raw text, without
words, down to a count."""

from typing import Any

from octavo.tokenizers.parts.merges import learned
from octavo.tokenizers.parts.pieces import PieceTokenizer
from octavo.tokenizers.parts.text import Text

LEAST = 2
"""Occurrences below which no pair is replaced."""


class RGramsTokenizer(PieceTokenizer):
    """BPE over lines."""

    scheme = "rgrams"
    usage = {"rgrams:SIZE": "merges across words, over lines (R-grams)"}
    splitter = "lines"

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        return {"vocabulary": learned(text.counts, size, text.progress, LEAST)[0]}
