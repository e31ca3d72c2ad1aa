"""How often the next word is predicted whole, by how often it occurred in training (the measure of
Learn Your Tokens, Thawani et al. 2023, 2310.11628).

A word counts if greedy decoding from all the text before it gives exactly its bytes and then ends
it. Greedy decoding stays on the true path just as long as every most likely id is the true one, so
one parallel pass tells.
"""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from octavo.data.pipeline import parse_source
from octavo.data.shards import Corpus
from octavo.tokenizers.interface import Tokenizer

BANDS = ((0, 0), (1, 10), (11, 100), (101, 1000), (1001, None))
"""Occurrences in the training text, first and last."""

_WORD = re.compile(rb"[^\s]+")


def frequencies(documents: Iterable[bytes]) -> Counter:
    """How often each word (bytes between white space) occurs."""
    counts: Counter = Counter()
    for document in documents:
        counts.update(_WORD.findall(document))
    return counts


def word_hits(
    document: bytes, ids: np.ndarray, correct: np.ndarray, tokenizer: Tokenizer
) -> tuple[list[bytes], np.ndarray]:
    """The words of a document, and whether each was predicted.

    correct: booleans of the ids and the document's end (run/score.py). A word's ids are all
    that hold one of its bytes, marks inside and right behind it, and the id of the white space that
    ends it if that id is nothing else (or the document's end).
    """
    sizes = np.append(tokenizer.bytes_per_id()[ids], 1)  # the end of the document stands last
    stops = np.cumsum(sizes)
    starts = stops - sizes
    wrong = np.append(0, np.cumsum(~correct))
    spans = [match.span() for match in _WORD.finditer(document)]
    if not spans:
        return [], np.zeros(0, bool)
    begin, end = np.array(spans).T
    first = np.searchsorted(stops, begin, side="right")
    last = np.searchsorted(starts, end, side="left")
    # Marks at the end of the word, then its terminator.
    filled = np.flatnonzero(sizes > 0)
    after = filled[np.searchsorted(starts[filled], end, side="left").clip(0, len(filled) - 1)]
    ends_it = (starts[after] == end) & (sizes[after] == 1)
    last = np.where(ends_it, after + 1, last)
    return [document[a:b] for a, b in spans], wrong[last] == wrong[first]


def by_band(words: list[bytes], hits: np.ndarray, counts: Counter) -> list[dict]:
    """A row for all words and one for each band: ``band``, ``words``, ``accuracy``."""
    seen = np.array([counts[word] for word in words])
    rows = [("all", np.ones(len(words), bool))]
    for low, high in BANDS:
        name = (
            str(low)
            if low == high
            else f"{low} to {high}"
            if high is not None
            else f"{low} or more"
        )
        rows.append((name, (seen >= low) & (seen <= (np.inf if high is None else high))))
    return [
        {
            "band": name,
            "words": int(chosen.sum()),
            "accuracy": float(hits[chosen].mean()) if chosen.any() else None,
        }
        for name, chosen in rows
    ]


def measure(run, documents: list[bytes], arguments=None, **scoring) -> list[dict]:
    """``by_band`` of all words of the documents."""
    encoded = [run.tokenizer.encode(document) for document in documents]
    found = run.predictions(encoded, **scoring)
    words, hits = [], [np.zeros(0, bool)]
    for document, ids, one in zip(documents, encoded, found, strict=True):
        more, correct = word_hits(document, ids, one.correct, run.tokenizer)
        words += more
        hits.append(correct)
    trained = (Corpus(folder) for folder, _ in parse_source(run.config.data.source))
    counts = frequencies(text for corpus in trained for text in corpus.documents_in(0))
    return by_band(words, np.concatenate(hits), counts)
