"""Text that was held out of training, to be scored."""

from dataclasses import dataclass

from octavo.data.errors import DataError
from octavo.data.shards import Corpus


@dataclass(frozen=True)
class Held:
    """A held-out document."""

    text: bytes
    corpus: str
    """Name of the corpus's folder."""
    label: str | None
    """Its language or source, where that is known."""


def heldout_documents(corpora: list[Corpus], most_bytes: int) -> list[Held]:
    """Whole held-out documents of each corpus in turn, in order, until ``most_bytes``; 0: all.
    Raises DataError if none of the corpora has such a split at all."""
    if not any("heldout" in corpus.split_documents for corpus in corpora):
        folders = ", ".join(str(corpus.folder) for corpus in corpora)
        raise DataError(
            f"{folders}: no text was held out, so there is nothing to score. Train without a score "
            "(--train.evaluation-bytes 0), or prepare it again with --heldout 0.01."
        )
    found: list[Held] = []
    for corpus in corpora:
        size = 0
        if not corpus.split_documents.get("heldout", 0):
            continue
        for document in Corpus(corpus.folder, "heldout").documents_in(0):
            found.append(Held(document, corpus.folder.name, None))
            size += len(document)
            if most_bytes and size >= most_bytes:
                break
    return found
