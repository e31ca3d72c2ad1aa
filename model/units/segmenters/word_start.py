"""the first byte of the next word (released HAT)."""

from octavo.model.units.segmenters import Segmenter
from octavo.model.units.segmenters.spacelike import is_alphanumeric
from octavo.model.units.segmenters.whitespace import is_space


class WordStart(Segmenter):
    """Words of the released HAT's splitter (Neitemeier et al. 2025, 2501.10322), as far as one byte
    and the one before it tell: a space leads its word, punctuation ends one, and so does a capital
    behind a small letter. That a word has ended is known by the first byte of the next."""

    needs = {"pool": ("latent",)}
    reads_bytes = True

    @classmethod
    def rule(cls, ids, before, vocabulary):
        leads = is_space(ids) & ~is_space(before)
        behind = _is_letter(ids) & _is_punctuation(before)
        capital = (ids >= 65) & (ids <= 90) & (before >= 97) & (before <= 122)
        return super().rule(ids, before, vocabulary) | leads | behind | capital


def _is_letter(ids):
    """ASCII letters and digits, and the first byte of any other character."""
    return is_alphanumeric(ids) | (ids >= 192)


def _is_punctuation(ids):
    return (ids > 32) & (ids < 127) & ~is_alphanumeric(ids)
