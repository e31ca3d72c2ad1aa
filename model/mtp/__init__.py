"""Multi-token prediction: what positions predict beyond the next id; one kind a file, named as in
``MTPConfig.kind``.

What predicts ``ahead`` k at position t predicts the id k after the next one, id t + k + 1. Nothing
here changes what an ordinary position computes, but for the first of parallel heads, which is the
next id's own. All but linear heads share the model's output.

Letters: B batch, T positions, d width, V vocabulary, P places in a row, L extra positions a place.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from octavo.batch import Batch
from octavo.configs.model import ModelConfig
from octavo.model.drafter import Draft, Drafter
from octavo.model.extra import ExtraPositions
from octavo.model.layers import Execution, parameter
from octavo.model.parts import find
from octavo.model.transformer import Transformer

if TYPE_CHECKING:
    from octavo.model.lm import ByteLM, Output


class MTP(nnx.Module):
    """A kind of multi-token prediction, and what it declares of itself."""

    extra: ClassVar[bool] = False
    """Whether extra positions in the rows predict (model/extra.py), ``MTPConfig.every``."""
    least: ClassVar[int] = 2
    """The least ``MTPConfig.count``."""
    shortest: ClassVar[int] = 1
    """The least that is predicted ahead, 0: the next id too."""
    next: Transformer | None = None
    """What the next id's states go through first."""

    @abc.abstractmethod
    def __init__(
        self, config: ModelConfig, vocab_size: int, execution: Execution, rngs: nnx.Rngs
    ): ...

    @abc.abstractmethod
    def predict(
        self, model: ByteLM, output: Output, batch: Batch, ahead: jax.Array | None, each: Callable
    ) -> tuple:
        """``each(ahead, places, logits [B, P, V])`` of all further predictions of the model,
        stacked, as ``ByteLM.predict_ahead``; one at a time, forward and backward: what each needs
        for its gradient is computed again (Gloeckle et al., section 2)."""

    @staticmethod
    def next_flops(config: ModelConfig, length: int) -> float:
        """Of ``next``, per position."""
        return 0.0

    @staticmethod
    @abc.abstractmethod
    def flops(config: ModelConfig, vocab_size: int, head: float, length: int) -> float:
        """What training adds to the forward pass, per position; head: of the output's product."""

    @staticmethod
    @abc.abstractmethod
    def drafter(config: ModelConfig) -> Drafter:
        """The drafter that a model so trained is."""


class ExtraMTP(MTP):
    """Extra positions, learned vectors, predict."""

    extra = True
    isolated: ClassVar[bool] = False
    """Whether they do not see each other."""

    def __init__(self, config: ModelConfig, vocab_size: int, execution: Execution, rngs: nnx.Rngs):
        self.config, self.dtype = config.mtp, execution.dtype
        vectors = jax.random.normal(rngs.params(), (self.count(config), config.widths[0]))
        self.vectors = parameter(vectors, None, "embed")

    @classmethod
    @abc.abstractmethod
    def count(cls, config: ModelConfig) -> int:
        """How many different vectors there are."""

    @classmethod
    @abc.abstractmethod
    def distances(cls, config: ModelConfig, key: jax.Array) -> jax.Array:
        """How far those of a training step predict, ``[L]``."""

    def predict(self, model, output, batch, ahead, each):
        assert ahead is not None, "how far the extra positions predict"
        L = len(ahead)
        B, P, d = output.extra_states.shape
        places = self.positions(ahead).anchors(batch.tokens.shape[1])[::L]
        states = jnp.moveaxis(output.extra_states.reshape(B, P // L, L, d), 2, 0)
        return jax.lax.map(lambda of: each(of[0], places, model.logits(of[1])), (ahead, states))

    def positions(self, ahead: jax.Array) -> ExtraPositions:
        """Those of a training row; ahead ``[L]``."""
        return ExtraPositions(self.vectors[...], ahead, self.config.every, self.isolated)

    @classmethod
    def flops(cls, config: ModelConfig, vocab_size: int, head: float, length: int) -> float:
        stack = config
        if config.stages:
            stage = config.stages[0]
            stack = config.coder(stage, stage.decoder_layers, stage.decoder_scope)
        through = Transformer.flops(stack, length) / length
        return cls.count(config) / config.mtp.every * (through + head)

    @staticmethod
    def drafter(config: ModelConfig) -> Drafter:
        return FromExtra(config)


class FromExtra(Drafter):
    """Registers or look-ahead tokens behind the newest id: a pass of their own, all at once (PaSS,
    2311.13581)."""

    def __init__(self, config: ModelConfig):
        self.size = config.mtp.count - 1

    def draft(self, model, params, carry, now):
        own = model.mtp
        ahead = 1 + jnp.arange(self.size)
        vectors = own.vectors[...].astype(own.dtype)
        x = jnp.broadcast_to(vectors, (len(now.first), self.size, vectors.shape[1]))
        x = model.trunk.extra(x, ahead, now.cache["trunk"], now.context, own.isolated)
        return Draft(now.choose(1, model.logits(x))), carry


def mtp(kind: str) -> type[MTP] | None:
    """The class of a kind; None for "none"."""
    return None if kind == "none" else find(MTP, "mtp", kind)


def uses_extra(config: ModelConfig) -> bool:
    """Whether extra positions of the model's rows predict."""
    kind = mtp(config.mtp.kind)
    return kind is not None and kind.extra


def distances(config: ModelConfig, key: jax.Array) -> jax.Array | None:
    """How far the extra positions of a training step predict, ``[L]``; None for models without."""
    kind = mtp(config.mtp.kind)
    return kind.distances(config, key) if kind and issubclass(kind, ExtraMTP) else None


def targets_ahead(batch: Batch, ahead: jax.Array, places: np.ndarray | None) -> tuple:
    """Targets ``[B, P]`` that lie ``ahead`` after the next id of positions ``places [P]`` (None:
    all), and their weights: 0 beyond the row and in another document."""
    T = batch.targets.shape[1]
    places = np.arange(T) if places is None else places
    at = jnp.minimum(places + ahead, T - 1)
    same = (places + ahead < T) & (batch.segment_ids[:, at] == batch.segment_ids[:, places])
    return batch.targets[:, at], batch.loss_weights[:, at] * same
