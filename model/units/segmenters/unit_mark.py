"""the end-of-word id of the "words" tokenizer."""

from octavo.model.units.segmenters import Segmenter


class UnitMark(Segmenter):
    """The word symbol of HAT (Neitemeier et al. 2025, 2501.10322), an id like any other."""

    reads_unit_marks = True

    @classmethod
    def rule(cls, ids, before, vocabulary):
        return super().rule(ids, before, vocabulary) | (ids == vocabulary.unit_mark)
