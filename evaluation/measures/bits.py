"""Bits per UTF-8 byte; every byte and every end of document is predicted and paid for."""


def measure(run, documents: list[bytes], arguments=None, **scoring) -> list[dict]:
    """One row."""
    score = run.score(documents, **scoring)
    names = ("bits_per_byte", "bytes", "documents", "ids", "nats")
    return [{name: getattr(score, name) for name in names}]
