"""the state at its last position."""

from octavo.model.layers import take
from octavo.model.units.pools import Pool


class Last(Pool):
    """``[B, T, d]`` at the ends of units."""

    whole = True

    def __call__(self, x, units, decision=None, layout=None):
        return self.project(take(x, units.last)[:, :, None])
