"""the first white space after a word."""

from octavo.model.units.segmenters import Segmenter


class WhiteSpace(Segmenter):
    """ASCII white space behind anything else."""

    reads_bytes = True

    @classmethod
    def rule(cls, ids, before, vocabulary):
        return super().rule(ids, before, vocabulary) | (is_space(ids) & ~is_space(before))


def is_space(ids):
    """Booleans: ASCII white space."""
    return (ids == 32) | ((ids >= 9) & (ids <= 13))
