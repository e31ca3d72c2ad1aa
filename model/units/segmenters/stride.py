"""every max_unit positions."""

from octavo.model.units.segmenters import Segmenter


class Stride(Segmenter):
    """Patches of one length (MEGABYTE, Yu et al. 2023, 2305.07185)."""

    uses = ()
    goes_inside = True
    fixed = True
