"""The text that a vocabulary is learned from: pre-tokens and how often each occurs, in bounded
memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np

from octavo.tokenizers.parts import splitters
from octavo.tokenizers.parts.counts import MOST_KINDS, Counts
from octavo.tokenizers.parts.presegment import Cut, Presegmented, ends, presegmented

LONG_BYTES = 20_000_000
"""As much text is read where pre-tokens are so long that hardly one repeats."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and how much there is (0: unknown)."""


def quiet(what: str, done: int, of: int) -> None:
    """A ``Progress`` that says nothing."""


class Labelled(bytes):
    """A document with its label: a language, as a rule."""

    label: str | None = None

    @classmethod
    def of(cls, data: bytes, label: str | None) -> "Labelled":
        """The document ``data`` of this label."""
        found = cls(data)
        found.label = label
        return found


class Text:
    """Documents, read once.

    pattern: splits them. digits: the rule of digits that is in it. cut: cuts words before that.
    """

    def __init__(
        self,
        documents: Iterable[bytes],
        pattern: str,
        digits: str = "pattern",
        cut: str | Cut | None = None,
        progress: Progress = quiet,
    ):
        self._documents, self.pattern, self.digits = documents, pattern, digits
        self._cut, self.progress = cut, progress
        self.sample: list[bytes] = []
        """Documents up to ``LONG_BYTES``, once they were counted."""
        self.read = 0
        """Bytes that were counted."""

    @property
    def long(self) -> bool:
        """Whether pre-tokens are so long that hardly one repeats."""
        return self.pattern in (splitters.PATTERNS["lines"], splitters.PATTERNS["none"])

    def _read(self) -> Iterator[tuple[str, bytes]]:
        for document in self._documents:
            label = getattr(document, "label", None) or ""
            part = document[: max(LONG_BYTES - self.read, 0)]
            if part:
                self.sample.append(part)
            self.read += len(document)
            self.progress("reading", self.read, 0)
            yield label, part if self.long else document
            if self.long and self.read >= LONG_BYTES:
                return

    @cached_property
    def _split(self) -> dict[str, Counter[bytes]]:
        tables: dict[str, Counts] = {}
        for label, document in self._read():
            counts = tables.setdefault(label, Counts())
            counts.most = MOST_KINDS // len(tables)
            whole = splitters.ends(document, self.pattern)
            counts.add(np.frombuffer(document, np.uint8), whole)
        found = {label: counts.counted() for label, counts in tables.items()}
        for counted in found.values():
            for byte in range(0x80, 0x100):
                counted.pop(bytes([byte]), None)
        return found

    def ends(self, document: bytes) -> np.ndarray:
        """Where its pre-tokens end, uint8 ``[bytes]``."""
        return ends(document, self.pattern, self.presegmented)

    @cached_property
    def presegmented(self) -> Presegmented | None:
        """Where words are cut; None if nothing cuts them."""
        return None if self._cut is None else presegmented(total(self._split), self._cut)

    @cached_property
    def by_label(self) -> dict[str, Counter[bytes]]:
        """How often each pre-token occurs, by the label of documents; bytes that are not UTF-8 are
        left out."""
        if not self.presegmented:
            return self._split
        found: dict[str, Counter[bytes]] = {label: Counter() for label in self._split}
        for label, counts in self._split.items():
            for pre_token, count in counts.items():
                inside = self.presegmented.refine(pre_token, np.zeros(len(pre_token), np.uint8))
                for part in behind(pre_token, inside):
                    found[label][part] += count
        return found

    @cached_property
    def counts(self) -> Counter[bytes]:
        """``by_label`` of all labels."""
        return total(self.by_label)


def total(by_label: dict[str, Counter[bytes]]) -> Counter[bytes]:
    """The sum of counts."""
    if len(by_label) == 1:
        return next(iter(by_label.values()))
    return sum(by_label.values(), Counter())


def behind(data: bytes, ends: np.ndarray) -> list[bytes]:
    """``data`` cut behind each byte at which ``ends`` is 1."""
    stops = np.flatnonzero(ends) + 1
    if len(data) and (not len(stops) or stops[-1] != len(data)):
        stops = np.append(stops, len(data))
    found, start = [], 0
    for stop in stops.tolist():
        found.append(data[start:stop])
        start = stop
    return found
