"""Input embeddings: ids ``[B, T]`` at their places in their documents to vectors ``[B, T, width]``,
and back to logits when tied; one kind a file, named as in ``ModelConfig.embedding``. An embedding
looks at the ``reach`` ids before each; a place below 0 (or before it) holds no id.
"""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.model import ModelConfig
from octavo.model.axes import constrain
from octavo.model.layers import parameter
from octavo.model.parts import find
from octavo.tokenizers.interface import Vocabulary


class Embedding(nnx.Module):
    """A kind of embedding, and what it declares of itself. Raises ConfigError where the config does
    not fit the vocabulary."""

    uses: ClassVar[tuple[str, ...]] = ()
    """Settings of ``ModelConfig`` that not every model has a use for, but this one."""
    reach: ClassVar[int] = 0
    """How many ids before each are looked at."""

    @abc.abstractmethod
    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs): ...

    @abc.abstractmethod
    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array: ...

    @abc.abstractmethod
    def logits(self, x: jax.Array) -> jax.Array:
        """Float32 ``[..., V]`` of states ``[..., d]``, where the output is tied."""

    @staticmethod
    def folded(params: dict) -> dict:
        """The parameters for decoding: what need not be computed at every step is computed here,
        and None in its place."""
        return params

    @staticmethod
    def flops(config: ModelConfig) -> float:
        """Per position."""
        return 0.0

    @staticmethod
    def head_flops(config: ModelConfig, vocab_size: int) -> float:
        """Of the output's product, per position."""
        return 2 * config.widths[0] * vocab_size


class LearnedTable(Embedding):
    """One learned row per id, scaled to unit variance on the way in, so that the same rows serve
    as output projection."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype, rngs: nnx.Rngs):
        width = config.widths[0]
        rows = jax.random.normal(rngs.params(), (vocabulary.size, width)) * width**-0.5
        self.rows = parameter(rows, "vocab", "embed")
        self.dtype = dtype

    def table(self) -> jax.Array:
        return self.rows[...]

    def __call__(self, ids: jax.Array, positions: jax.Array) -> jax.Array:
        # Looked up in float32: the gradient adds up thousands of rows per id.
        table = constrain(self.table())
        return (table * table.shape[1] ** 0.5)[ids].astype(self.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        weight = self.table().astype(self.dtype)
        return jnp.einsum("...d,vd->...v", x, weight, preferred_element_type=jnp.float32)


def embedding(kind: str) -> type[Embedding]:
    """The class of a kind."""
    return find(Embedding, "embeddings", kind)
