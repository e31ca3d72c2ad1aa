"""Bits per byte of the text with characters dropped, inserted, swapped, repeated or of other case:
what a model loses when its units break.

Each kind changes characters at a rate, chosen by a seed; characters that are no UTF-8 are left.
"""

import numpy as np

KEPT = True
KINDS = ("drop", "insert", "swap", "repeat", "case")
RATES = (0.02, 0.1)


def noisy(document: bytes, kind: str, rate: float, seed: int) -> bytes:
    """The document with about ``rate`` of its characters dropped, followed by a random letter that
    occurs in it, swapped with the next, doubled, or with their case turned. Raises ValueError for
    an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"unknown noise {kind!r}; known: {', '.join(KINDS)}")
    text = list(document.decode("utf-8", errors="surrogateescape"))
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(rng.random(len(text)) < rate)
    letters = sorted({c for c in text if c.isalpha()}) or ["e"]
    for i in chosen.tolist():
        if kind == "drop":
            text[i] = ""
        elif kind == "insert":
            text[i] += letters[rng.integers(len(letters))]
        elif kind == "swap" and i + 1 < len(text):
            text[i], text[i + 1] = text[i + 1], text[i]
        elif kind == "repeat":
            text[i] *= 2
        elif kind == "case" and len(text[i].swapcase()) == 1:
            text[i] = text[i].swapcase()
    return "".join(text).encode("utf-8", errors="surrogateescape")


def variants(documents: list[bytes]) -> list[tuple[str, float, list[bytes]]]:
    """Each kind of noise and each rate, with the documents changed so, without what nothing is left
    of."""
    found = []
    for kind in KINDS:
        for rate in RATES:
            changed = [noisy(document, kind, rate, i) for i, document in enumerate(documents)]
            found.append((kind, rate, [text for text in changed if text]))
    return found


def row(kind: str, rate: float, bits: float | None, clean: float) -> dict:
    """Bits per byte of a variant, None if nothing is left of it, and how many ``more`` than of the
    text as it is."""
    more = None if bits is None else bits - clean
    return {"noise": kind, "rate": rate, "bits_per_byte": bits, "more": more}


def measure(run, documents: list[bytes], arguments=None, **scoring) -> list[dict]:
    """A row for the text as it is, and one for each of the ``variants``."""
    clean = run.score(documents, **scoring).bits_per_byte
    rows = [row("none", 0.0, clean, clean)]
    for kind, rate, texts in variants(documents):
        bits = run.score(texts, **scoring).bits_per_byte if texts else None
        rows.append(row(kind, rate, bits, clean))
    return rows
