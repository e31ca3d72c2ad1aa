"""How often the next word is predicted whole, by how often it occurred in training (the measure of
Learn Your Tokens, Thawani et al. 2023, 2310.11628).

A word counts if greedy decoding from all the text before it gives exactly its bytes and then ends
it. Greedy decoding stays on the true path just as long as every most likely id is the true one, so
one parallel pass tells. Beside it stands what the words' own bytes cost.
"""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from octavo.data.pipeline import parse_source
from octavo.data.shards import Corpus
from octavo.run.score import Predictions, over_bytes
from octavo.tokenizers.interface import Tokenizer

KEPT = READS_CORPORA = True
BANDS = ((0, 0), (1, 10), (11, 100), (101, 1000), (1001, None))
"""Occurrences in the training text, first and last."""

_WORD = re.compile(rb"[^\s]+")


def frequencies(documents: Iterable[bytes]) -> Counter:
    """How often each word (bytes between white space) occurs."""
    counts: Counter = Counter()
    for document in documents:
        counts.update(_WORD.findall(document))
    return counts


def _spans(document: bytes) -> np.ndarray:
    """``[words, 2]``: first byte of each word, and the one behind it."""
    found = [match.span() for match in _WORD.finditer(document)]
    return np.array(found, int).reshape(-1, 2)


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
    begin, end = spans = _spans(document).T
    first = np.searchsorted(stops, begin, side="right")
    last = np.searchsorted(starts, end, side="left")
    # Marks at the end of the word, then its terminator.
    filled = np.flatnonzero(sizes > 0)
    after = filled[np.searchsorted(starts[filled], end, side="left").clip(0, len(filled) - 1)]
    ends_it = (starts[after] == end) & (sizes[after] == 1)
    last = np.where(ends_it, after + 1, last)
    return [document[a:b] for a, b in spans.T.tolist()], wrong[last] == wrong[first]


def word_bits(document: bytes, surprisal: np.ndarray) -> np.ndarray:
    """Bits of the bytes of each word of a document, of ``surprisal`` (bits of each byte)."""
    upto = np.append(0, np.cumsum(surprisal))
    begin, end = _spans(document).T
    return upto[end] - upto[begin]


def by_band(words: list[bytes], hits: np.ndarray, bits: np.ndarray, counts: Counter) -> list[dict]:
    """A row for all words and one for each band: ``band``, ``words``, ``accuracy``,
    ``bits_per_byte`` and ``bytes`` of the words themselves, without the white space between.

    hits: whether each was predicted. bits: of each. counts: how often each occurred."""
    sizes = np.array([len(word) for word in words])
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
            "bits_per_byte": float(bits[chosen].sum() / size) if size else None,
            "bytes": size,
        }
        for name, chosen in rows
        for size in [int(sizes[chosen].sum())]
    ]


def bands(
    documents: list[bytes], encoded: list[np.ndarray], found: list[Predictions],
    tokenizer: Tokenizer, counts: Counter,
) -> list[dict]:  # fmt: skip
    """``by_band`` of all words of documents, by what was predicted of their ids."""
    words, hits, bits = [], [np.zeros(0, bool)], [np.zeros(0)]
    for document, ids, one in zip(documents, encoded, found, strict=True):
        more, correct = word_hits(document, ids, one.correct, tokenizer)
        words += more
        hits.append(correct)
        surprisal = over_bytes(ids, one, tokenizer, len(document)).surprisal
        bits.append(word_bits(document, surprisal))
    return by_band(words, np.concatenate(hits), np.concatenate(bits), counts)


def measure(run, documents: list[bytes], arguments=None, **scoring) -> list[dict]:
    """``by_band`` of all words of the documents."""
    encoded = [run.tokenizer.encode(document) for document in documents]
    found = run.predictions(encoded, **scoring)
    trained = (Corpus(folder) for folder, _ in parse_source(run.config.data.source))
    counts = frequencies(text for corpus in trained for text in corpus.documents_in(0))
    return bands(documents, encoded, found, run.tokenizer, counts)
