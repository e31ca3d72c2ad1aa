"""added through a projection that depends on the distance."""

from octavo.model.units.unpools import Unpool, read

DISTANCES = 16
"""How many distances are told apart (AU-Net, 2506.14761)."""


class Multilinear(Unpool):
    """One vector for all positions, and one for each distance (Videau et al. 2025, 2506.14761)."""

    @classmethod
    def size(cls, stage):
        return 1 + DISTANCES

    def __call__(self, x, memory, index, boundary, since, p=None):
        here = read(memory, index, 1 + since % DISTANCES)
        return x + (read(memory, index) + here)
