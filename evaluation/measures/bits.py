"""Bits per UTF-8 byte; every byte and every end of document is predicted and paid for.

With --exact also by all ids that spell the text (decoding/by_bytes.py), ``exact_bits_per_byte``:
what the model gives the bytes, whatever the tokenizer makes of them, and its interval. Where there
were more ways to spell it than --heads, the sum of those that were followed alone is
``exact_at_most``; neither is told above what the tokenizer's own ids cost. ``off_canonical`` is the
share of the probability that these miss, an id: 1 - (P(its ids) / P(text)) ** (1 / ids). ``reads``
is how many ids the model read for it, a byte. With --with RUN also ``other_bits_per_byte`` of that
run, by the bytes too, and ``ensemble_bits_per_byte`` of the mean of both distributions of each next
byte.
"""

import dataclasses
import math

import numpy as np

from octavo.data.heldout import Held
from octavo.decoding.by_bytes import ROWS
from octavo.run.by_bytes import ensemble
from octavo.run.opened import open_run
from octavo.run.score import by_label

HELD = KEPT = True


def measure(run, documents: list[Held], arguments=None, **scoring) -> list[dict]:
    """One row, with both ends of the 95% interval (None: of one document there is none) and, where
    there are several languages, sources or corpora, ``by_label``."""
    texts = [one.text for one in documents]
    other = None
    if arguments is not None and arguments.other is not None:
        other = open_run(arguments.other)  # before anything is scored: it may not be there
    score = run.score(texts, **scoring)
    names = ("bits_per_byte", "bytes", "documents", "ids", "nats")
    low, high = score.interval or (None, None)
    row = {name: getattr(score, name) for name in names} | {"low": low, "high": high}
    labels = by_label(score, documents)
    if arguments is not None and arguments.exact:
        found = run.exact(texts, heads=arguments.heads or ROWS, **scoring)
        # The tokenizer's own ids are one way to spell a text: all ways cost no more.
        nats = np.minimum(found.nats, score.document_nats)
        at_most = np.minimum(found.at_most, score.document_nats)
        exact = dataclasses.replace(score, nats=float(nats.sum()), document_nats=nats)
        low, high = exact.interval or (None, None)
        row |= {
            "exact_bits_per_byte": exact.bits_per_byte,
            "exact_low": low,
            "exact_high": high,
            "exact_at_most": float(at_most.sum()) / math.log(2) / score.bytes,
            "off_canonical": -math.expm1((exact.nats - score.nats) / score.ids),
            "reads": found.reads / score.bytes,
        }
        if other is not None:
            how = {name: value for name, value in scoring.items() if name != "overlap"}
            nats = ensemble([run, other], texts, rows=arguments.heads or ROWS, **how).sum(1)
            _, alone, both = nats / math.log(2) / score.bytes
            row |= {"other_bits_per_byte": alone, "ensemble_bits_per_byte": both}
        for name, label in by_label(exact, documents).items():
            labels[name]["exact_bits_per_byte"] = label["bits_per_byte"]
    if arguments is not None:
        row["document_nats"] = score.document_nats.tolist()
    return [row | ({"by_label": labels} if labels else {})]
