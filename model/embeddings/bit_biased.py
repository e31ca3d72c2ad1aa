"""a table plus a projection of the eight bits of the byte."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.model.embeddings import LearnedTable
from octavo.model.layers import parameter
from octavo.tokenizers.interface import Vocabulary

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
"""The eight bits of every byte, most significant first, ``[256, 8]``."""


class BitBiased(LearnedTable):
    """A table plus a projection of the byte's bits: ``E'[b] = E[b] + bits(b) A``, A starts at zero
    ("Back to Bytes"). For decoding A is folded into E, as in the reference."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs):
        if not vocabulary.are_bytes or vocabulary.size != 256:
            raise ConfigError(
                f"model.embedding bit_biased reads bytes (256 ids), but the data has "
                f"{vocabulary.size}; use table."
            )
        super().__init__(config, vocabulary, dtype, rngs)
        self.bits = parameter(jnp.zeros((8, config.widths[0])), None, "embed")

    @staticmethod
    def folded(params: dict) -> dict:
        return {"rows": params["rows"] + BITS @ params["bits"], "bits": None}

    def table(self) -> jax.Array:
        bits = self.bits.get_value()
        return self.rows[...] if bits is None else self.rows[...] + BITS @ bits
