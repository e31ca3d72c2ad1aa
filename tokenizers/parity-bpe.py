"""Parity-aware BPE (Foroutan et al. 2025, 2508.04796): each merge is the most frequent pair of the
language that is worst off, so that none pays for being rare in the training text.

Languages are the labels of documents. The one worst off has the fewest bytes per token of the
training text so far; where no pair is left in it, it is the next one's turn.

The released code measures tokens of a parallel development text, or, with a ratio for each
language, symbols of the training text, of which all begin as pre-tokens; it stops when the
language worst off has no pair that occurs twice, and of equally frequent pairs takes the greater
string. Its variants that begin with merges for all, or that let no language win too often in a row,
are not here.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.parts.merges import Merger, learn
from octavo.tokenizers.parts.pieces import BYTES
from octavo.tokenizers.parts.text import Text

MOST_LANGUAGES = 128


class ParityBPETokenizer(BPETokenizer):
    """BPE with merges chosen language by language. languages: bytes per token of each, in the
    training text."""

    scheme = "parity-bpe"
    usage = {"parity-bpe:SIZE": "BPE whose merges are for the language worst off, by label"}
    optional = (*BPETokenizer.optional, "languages")

    def __init__(self, *args: Any, languages: dict[str, float] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.languages = {} if languages is None else languages
        known = isinstance(languages, dict | None)
        if not known or any(type(value) not in (int, float) for value in self.languages.values()):
            raise ValueError(f"languages has a number for each, not {languages!r:.40}")

    @property
    def name(self) -> str:
        return f"{self.scheme}-{self.vocab_size}"

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        labels = sorted(label for label, kinds in text.by_label.items() if kinds)
        if len(labels) > MOST_LANGUAGES:
            raise ValueError(
                f"parity-bpe takes at most {MOST_LANGUAGES} languages, found {len(labels):,} labels"
            )
        counts = [text.by_label[label] for label in labels]
        of = np.repeat(np.arange(len(labels)), [*map(len, counts)])
        weights = itertools.chain.from_iterable(each.values() for each in counts)
        merger, pieces = Merger([*itertools.chain(*counts)], weights, of), [*BYTES]
        sizes = merger.tokens.copy()

        def worst_first(merger: Merger) -> Iterable[int]:
            return np.argsort(sizes / np.maximum(merger.tokens, 1), kind="stable").tolist()

        learn(merger, pieces, size, language=worst_first, progress=text.progress)
        reached = (sizes / np.maximum(merger.tokens, 1)).tolist()
        return {
            "vocabulary": pieces,
            "languages": {k: round(v, 3) for k, v in zip(labels, reached, strict=False) if k},
        }

    def to_json(self) -> dict:
        return super().to_json() | ({"languages": self.languages} if self.languages else {})
