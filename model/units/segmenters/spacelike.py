"""the first byte of a run that is neither letter, digit nor inside a character."""

from octavo.model.units.segmenters import Segmenter


class Spacelike(Segmenter):
    """The global blocks of SpaceByte (Slagle 2024, 2404.14408)."""

    reads_bytes = True

    @classmethod
    def rule(cls, ids, before, vocabulary):
        begins = _is_spacelike(ids) & ~((before >= 0) & _is_spacelike(before))
        return super().rule(ids, before, vocabulary) | begins


def _is_spacelike(ids):
    return ~(is_alphanumeric(ids) | ((ids >= 128) & (ids < 192)))


def is_alphanumeric(ids):
    """Booleans: ASCII letters and digits."""
    folded = ids | 32
    return ((ids >= 48) & (ids <= 57)) | ((folded >= 97) & (folded <= 122))
