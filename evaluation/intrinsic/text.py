"""The text that schemes are measured on: documents with their labels, characters and words."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octavo.brief import beginning
from octavo.configs.checks import ConfigError
from octavo.data.manifest import read_manifest
from octavo.data.records import Document, Skipped
from octavo.data.sources import Unit, documents, find_units
from octavo.tokenizers.unicode.words import word_ends


@dataclass(frozen=True)
class Text:
    """A document, and its language or source: "" where that is unknown."""

    data: bytes
    label: str

    @functools.cached_property
    def characters(self) -> np.ndarray:
        """``[characters + 1]`` int64: the first byte of each, and the end of the text."""
        return character_starts(self.data)

    @functools.cached_property
    def words(self) -> np.ndarray:
        """``[words, 2]`` int64, as ``word_spans``."""
        return word_spans(self.data)


def points(data: bytes) -> np.ndarray:
    """Code points of a text, uint32; a byte that is no UTF-8 is one of its own, above 0xDC00."""
    text = data.decode("utf-8", "surrogateescape")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def character_starts(data: bytes) -> np.ndarray:
    """``Text.characters`` of a text."""
    found = points(data)
    alone = (found >= 0xDC80) & (found <= 0xDCFF)
    sizes = 1 + (found >= 0x80).astype(np.int64) + (found >= 0x800) + (found >= 0x10000)
    return np.append(0, np.cumsum(np.where(alone, 1, sizes)))


def word_spans(data: bytes) -> np.ndarray:
    """``[words, 2]`` int64: the first byte of each word, and the one behind it.

    A word is what Unicode (UAX 29) has as one and holds a letter or a digit. Of scripts without
    spaces these are characters with what combines with them, but for Katakana; of Tibetan,
    syllables.
    """
    edges = np.append(0, np.flatnonzero(word_ends(np.frombuffer(data, np.uint8))) + 1)
    found, starts = points(data), character_starts(data)
    values, which = np.unique(found, return_inverse=True)
    counts = np.array([chr(point).isalnum() for point in values.tolist()], bool)[which]
    before = np.zeros(len(data) + 1, np.int64)
    before[starts[:-1][counts] + 1] = 1
    before = np.cumsum(before)
    spans = np.stack([edges[:-1], edges[1:]], 1)
    return spans[before[spans[:, 1]] > before[spans[:, 0]]]


def read(sources: Iterable[str], most_bytes: int) -> list[Text]:
    """Documents of sources as prepare.py takes them, of each label up to ``most_bytes``; of a
    prepared corpus, what it held out, if anything.

    Raises DataError for a source that holds no text, ConfigError if there is none in all.
    """
    read: dict[str, int] = {}
    found = []
    for unit in _held_out(find_units(list(sources), "text", None)):
        for document in documents(unit):
            if isinstance(document, Skipped) or not document:
                continue
            label = _label(document)
            left = most_bytes - read.get(label, 0)
            if left > 0:
                found.append(Text(beginning(bytes(document), left), label))
                read[label] = read.get(label, 0) + len(found[-1].data)
            elif unit.kind != "corpus" and len(unit.labels) < 2:
                break  # what follows has the same label
    if not found:
        raise ConfigError("there is no text to measure: the sources have no documents.")
    return found


def _label(document: Document) -> str:
    return "" if document.label is None else document.label


def _held_out(units: list[Unit]) -> list[Unit]:
    """The units without the training text of corpora that held something out."""
    corpora = {unit.paths[0] for unit in units if unit.kind == "corpus"}
    split = {name for name in corpora if read_manifest(Path(name)).splits["heldout"].documents}
    return [
        unit
        for unit in units
        if unit.kind != "corpus" or unit.paths[0] not in split or unit.paths[1] == "heldout"
    ]
