"""a table mixed with causal convolutions over 2 to 4 ids."""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import ModelConfig
from octavo.model.embeddings import LearnedTable
from octavo.model.layers import back_by, parameter, product
from octavo.tokenizers.interface import Vocabulary


class NgramConv(LearnedTable):
    """A table mixed with causal convolutions over the 2, 3 and 4 ids up to each, by learned weights
    (LOBEF's nCF; the paper's strided convolutions look ahead, these do not)."""

    reach = 3
    sizes = range(2, 5)

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs):
        super().__init__(config, vocabulary, dtype, rngs)
        width = config.widths[0]
        self.kernels = nnx.List(
            parameter(
                jax.random.normal(rngs.params(), (size, width, width)) * (size * width) ** -0.5,
                None, "embed", None,
            )
            for size in self.sizes
        )  # fmt: skip
        self.mix = parameter(jnp.full((len(self.sizes) + 1,), 0.5), None)

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        x = super().__call__(ids, positions)
        mix = self.mix[...].astype(self.dtype)
        total = mix[0] * x
        for share, kernel in zip(mix[1:], self.kernels, strict=True):
            taps = kernel[...].astype(self.dtype)
            moved = (product(back_by(x, positions, i), tap) for i, tap in enumerate(taps))
            total += share * sum(moved)
        return total

    @staticmethod
    def flops(config):
        return 2 * sum(NgramConv.sizes) * config.widths[0] ** 2
