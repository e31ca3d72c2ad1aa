"""runs of extra positions that predict one id each and see those before them (PaSS)."""

import jax.numpy as jnp

from octavo.model.mtp import ExtraMTP


class Lookahead(ExtraMTP):
    """A vector for each id ahead (PaSS, Monea et al. 2023, 2311.13581)."""

    @classmethod
    def count(cls, config):
        return config.mtp.count - 1

    @classmethod
    def distances(cls, config, key):
        return 1 + jnp.arange(config.mtp.count - 1)
