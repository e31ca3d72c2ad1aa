"""marks stored in the corpus (entropy spikes)."""

from octavo.model.units.segmenters import Segmenter


class Marks(Segmenter):
    """Where a small model found the next byte hard to foresee (BLT, Pagnoni et al. 2024,
    2412.09871)."""

    reads_marks = True
