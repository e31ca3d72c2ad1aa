"""Bits per UTF-8 byte; every byte and every end of document is predicted and paid for."""

from octavo.data.heldout import Held
from octavo.run.score import by_label

HELD = True


def measure(run, documents: list[Held], arguments=None, **scoring) -> list[dict]:
    """One row, with both ends of the 95% interval (None: of one document there is none) and, where
    there are several languages, sources or corpora, ``by_label``."""
    score = run.score([one.text for one in documents], **scoring)
    names = ("bits_per_byte", "bytes", "documents", "ids", "nats")
    low, high = score.interval or (None, None)
    row = {name: getattr(score, name) for name in names} | {"low": low, "high": high}
    labels = by_label(score, documents)
    return [row | ({"by_label": labels} if labels else {})]
