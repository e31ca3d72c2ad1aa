"""an id that ends a unit, of the "words" or "fused" tokenizer."""

from octavo.model.units.segmenters import Segmenter


class UnitMark(Segmenter):
    """The word symbol of HAT (Neitemeier et al. 2025, 2501.10322), an id like any other; or a byte
    fused with the end of its subword (Bolmo, Minixhofer et al. 2025, 2512.15586)."""

    reads_unit_marks = True

    @classmethod
    def rule(cls, ids, before, vocabulary):
        begins = super().rule(ids, before, vocabulary)
        if vocabulary.unit_ends is not None:
            return begins | (ids >= vocabulary.unit_ends)
        return begins | (ids == vocabulary.unit_mark)
