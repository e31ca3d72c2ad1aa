"""extra positions that see what stands before them and predict further ahead, unseen by all others
(MuToR)."""

import jax

from octavo.model.mtp import ExtraMTP


class Registers(ExtraMTP):
    """One vector for all; those of a step predict as far as its draw says, all alike (MuToR,
    2505.10518, section 3.1)."""

    isolated = True
    shortest = 0

    @classmethod
    def count(cls, config):
        return 1

    @classmethod
    def distances(cls, config, key):
        return jax.random.randint(key, (1,), 0, config.mtp.count)
