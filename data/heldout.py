"""Held-out text, as it is scored: all of it, or some of each label."""

from dataclasses import dataclass

from octavo.brief import beginning
from octavo.data.errors import DataError
from octavo.data.plan import permutation
from octavo.data.shards import Corpus
from octavo.data.stdlib import name_of

_SHORTEST = 64
"""Bytes: a piece is not cut shorter."""
_PARTS = 4
_LEAST = 2048
"""Where not all is scored, a document is cut to a quarter of what its label gives, or so many
bytes if that is more: so that a label is not one document."""


@dataclass(frozen=True)
class Held:
    """A document that was held out, or the beginning of one."""

    text: bytes
    corpus: str
    """Name of the corpus's folder, as in ``data.source``."""
    label: str | None
    """Its language or source where that is known, else what its file is called; None: unknown, as
    in corpora of earlier revisions."""


def heldout_documents(corpora: list[Corpus], most_bytes: int) -> list[Held]:
    """Documents held out of each corpus, up to ``most_bytes`` of each; 0: all.

    Where that is not all, it is spread evenly over the corpus's labels (what a label does not have,
    the others give); within a label, documents are drawn evenly and long ones are cut at a line end
    or between characters, so that each label has a piece in a small sample. A corpus without labels
    gives whole documents in order.

    Raises DataError if none of the corpora has such a split at all.
    """
    if not any("heldout" in corpus.split_documents for corpus in corpora):
        folders = ", ".join(str(corpus.folder) for corpus in corpora)
        raise DataError(
            f"{folders}: no text was held out, so there is nothing to score. Train without a score "
            "(--train.evaluation-bytes 0), or prepare it again with --heldout 0.01."
        )
    found: list[Held] = []
    for corpus in corpora:
        if corpus.split_documents.get("heldout", 0):
            found += _held(corpus.of_split("heldout"), most_bytes)
    return found


def _held(corpus: Corpus, most_bytes: int) -> list[Held]:
    name, labels = name_of(corpus.folder), corpus.by_label()
    if None in labels or not most_bytes or corpus.utf8_bytes <= most_bytes:
        found, size = [], 0
        for document in corpus.documents_in(0):
            found.append(Held(bytes(document), name, document.label))
            size += len(document)
            if most_bytes and size >= most_bytes:
                break
        return found
    sizes = {str(label): size for label, (_, size) in labels.items()}
    pieces: dict[int, Held] = {}
    for label, share in _shares(sizes, most_bytes).items():
        documents = labels[label][0]
        longest = max(share // min(_PARTS, documents), min(_LEAST, share))
        for number in permutation(documents, 0).tolist():
            i = corpus.document_of(label, number)
            text = _beginning(bytes(*corpus.documents_in(i, i + 1)), min(longest, share))
            pieces[i] = Held(text, name, label)
            share -= len(text)
            if share < _SHORTEST:
                break
    return [pieces[i] for i in sorted(pieces)]


def _shares(sizes: dict, most_bytes: int) -> dict:
    """Bytes for each label: as many for each, unless it has fewer."""
    shares, left = {}, most_bytes
    for n, (label, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[label] = max(min(size, left // (len(sizes) - n)), _SHORTEST)
        left = max(left - shares[label], 0)
    return shares


def _beginning(text: bytes, size: int) -> bytes:
    """The beginning of a text, of at most so many bytes: to the end of a line if one lies in the
    second half of it, else of a character."""
    if len(text) <= size:
        return text
    line = text.rfind(b"\n", size // 2, size) + 1
    return text[:line] if line else beginning(text, size)


def shortened(held: list[Held], most: float, least: float) -> list[Held]:
    """Documents cut down to ``most`` bytes in all: the beginnings of all of them or, where those
    would be shorter than ``least`` bytes, of some, evenly spaced; of each label one or more, unless
    there are too many labels for that.
    """
    if sum(len(one.text) for one in held) <= most:
        return held
    groups: dict[tuple, list[Held]] = {}
    for one in held:
        groups.setdefault((one.corpus, one.label), []).append(one)
    pieces = max(1, int(most / least))
    chosen = []
    for group in _spaced(list(groups.values()), pieces):
        chosen += _spaced(group, max(1, pieces * len(group) // len(held)))
    limit = _limit([len(one.text) for one in chosen], most)
    return [Held(beginning(one.text, limit), one.corpus, one.label) for one in chosen]


def _spaced(values: list, most: int) -> list:
    """So many of them at most, evenly spaced."""
    count = min(most, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def _limit(sizes: list[int], most: float) -> int:
    """To which size those that are larger are cut, so that all come to ``most``."""
    left, sizes = most, sorted(sizes)
    for i, size in enumerate(sizes):
        if size * (len(sizes) - i) > left:
            return max(1, int(left / (len(sizes) - i)))
        left -= size
    return sizes[-1]
