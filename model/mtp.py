"""Multi-token prediction: what positions predict beyond the next id (``MTPConfig``).

All but linear heads share the model's output. What predicts ``ahead`` k at position t predicts the
id k after the next one, id t + k + 1. Nothing here changes what an ordinary position computes, but
for the first of parallel heads, which is the next id's own.

Letters: B batch, T positions, d width, V vocabulary, G places of asides in a row, L asides a place,
N new positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from octavo.batch import Batch
from octavo.configs.schema import ModelConfig
from octavo.model.layers import Linear, RMSNorm, parameter
from octavo.model.transformer import Transformer


class Heads(nnx.Module):
    """Parallel heads: a block each on the trunk's states (Gloeckle et al. 2024, 2404.19737)."""

    def __init__(self, config: ModelConfig, vocab_size: int, platform: str, dtype, rngs: nnx.Rngs):
        self.first = Transformer(config.outermost(1), platform, dtype, rngs)
        self.others = Transformer(config.outermost(config.mtp.count - 1), platform, dtype, rngs)

    def further(self, model, states: jax.Array, batch: Batch, each: Callable):
        """``each(ahead, logits [B, T, V])`` of every head of the model (a ByteLM) but the first,
        stacked. states ``[B, T, d]``: the trunk's.

        One head at a time, forward and backward: what it needs for its gradient is computed again
        (section 2 there; memory does not grow with the number of heads).
        """
        apply, layers = self.others.applied(batch.positions, batch.segment_ids)
        # The states are an argument: what is closed over would be kept for every head.
        one = jax.checkpoint(
            lambda states, ahead, layer: each(ahead, model.logits(apply(layer, states)))
        )
        count = self.others.config.layers
        if count > 1:
            return lax.map(lambda head: one(states, *head), (1 + jnp.arange(count), layers))
        # A loop of one would be unrolled, and its block's memory come on top of the first head's.
        twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), layers)
        empty = jax.eval_shape(one, states, 1, jax.tree.map(lambda leaf: leaf[0], layers))

        def first_only(head):
            skip = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)
            return lax.cond(head[0] == 1, lambda: one(states, *head), lambda: skip)

        found = lax.map(first_only, (jnp.arange(1, 3), twice))
        return jax.tree.map(lambda leaf: leaf[:1], found)


class LinearHeads(nnx.Module):
    """Parallel heads of a matrix each, on the normed states that the next id's head reads (EvaByte
    2025; apps/mtp of facebookresearch/lingua). They cost next to nothing, in training and to draft
    with."""

    def __init__(self, config: ModelConfig, vocab_size: int, platform: str, dtype, rngs: nnx.Rngs):
        size = config.widths[0], vocab_size
        # Small, like the first head's: see ByteLM.
        make = nnx.vmap(
            lambda key: Linear(*size, ("embed", "vocab"), dtype, nnx.Rngs(params=key), 0.1)
        )
        self.others = make(jax.random.split(rngs.params(), config.mtp.count - 1))

    def further(self, model, states: jax.Array, batch: Batch, each: Callable):
        """As of ``Heads``, and one at a time, too."""
        x, (definition, layers) = model.norm(states), nnx.split(self.others)

        @jax.checkpoint
        def one(x, ahead, layer):
            return each(ahead, nnx.merge(definition, layer)(x).astype(jnp.float32))

        aheads = 1 + jnp.arange(model.config.mtp.count - 1)
        return lax.map(lambda head: one(x, *head), (aheads, layers))

    def logits(self, model, states: jax.Array) -> jax.Array:
        """Of every head but the first, ``[B, count - 1, V]``, of states ``[B, d]``."""
        x, weights = model.norm(states), self.others.weight[...]
        # A product for each head: all at once, CPUs would first turn all weights around.
        x = jnp.broadcast_to(x, (len(weights), *x.shape))
        return jnp.einsum("kbd,kdv->bkv", x, weights.astype(x.dtype)).astype(jnp.float32)


class Join(nnx.Module):
    """The state of a chain and the next id, as one input."""

    def __init__(self, width: int, dtype, rngs: nnx.Rngs):
        self.state_norm, self.id_norm = RMSNorm(width), RMSNorm(width)
        self.both = Linear(2 * width, width, (None, "embed"), dtype, rngs)

    def __call__(self, state: jax.Array, embedded: jax.Array) -> jax.Array:
        normed = self.state_norm(state), self.id_norm(embedded.astype(state.dtype))
        return self.both(jnp.concatenate(normed, axis=-1))


class Modules(nnx.Module):
    """A chain of blocks, each fed by the state before it and the next id (DeepSeek-V3, 2412.19437,
    section 2.2). The published one has D of them, ``count`` - 1 here."""

    def __init__(self, config: ModelConfig, vocab_size: int, platform: str, dtype, rngs: nnx.Rngs):
        stack = config.outermost(config.mtp.count - 1)
        self.stack = Transformer(stack, platform, dtype, rngs)
        make = nnx.vmap(lambda key: Join(stack.width, dtype, nnx.Rngs(params=key)))
        self.joins = make(jax.random.split(rngs.params(), stack.layers))

    def further(self, model, states: jax.Array, batch: Batch, each: Callable):
        """As of ``Heads``, of every module. Module k reads at position t the ids up to t + k."""
        embedded = model.embedding(batch.tokens, batch.positions)
        apply, layers = self.stack.applied(batch.positions, batch.segment_ids)
        definition, joins = nnx.split(self.joins)
        t = np.arange(states.shape[1])

        @jax.checkpoint
        def one(x, scanned):
            ahead, layer, join = scanned
            # Behind a document's end stands another's; nothing that counts reads it.
            following = embedded[:, jnp.minimum(t + ahead, t[-1])]
            x = apply(layer, nnx.merge(definition, join)(x, following))
            return x, each(ahead, model.logits(x))

        aheads = 1 + jnp.arange(self.stack.config.layers)
        return lax.scan(one, states, (aheads, layers, joins))[1]


class Beside(nnx.Module):
    """Learned inputs of asides: one for all (MuToR's register), or one for each id ahead (PaSS,
    Monea et al. 2023, 2311.13581)."""

    def __init__(self, config: ModelConfig, vocab_size: int, platform: str, dtype, rngs: nnx.Rngs):
        self.config, self.dtype = config.mtp, dtype
        count = 1 if config.mtp.kind == "registers" else config.mtp.count - 1
        vectors = jax.random.normal(rngs.params(), (count, config.widths[0]))
        self.vectors = parameter(vectors, None, "embed")

    def asides(self, ahead: jax.Array) -> "Asides":
        """Those of a training row; ahead ``[L]``."""
        return Asides(self.vectors[...], ahead, self.config.every, self.alone)

    @property
    def alone(self) -> bool:
        return self.config.kind == "registers"


MTP = {
    "heads": Heads, "linear": LinearHeads, "modules": Modules, "registers": Beside,
    "lookahead": Beside,
}  # fmt: skip


def aheads(config: ModelConfig, key: jax.Array) -> jax.Array | None:
    """How far the asides of a training step predict, ``[L]``; None for models without. Registers:
    as far as the draw says, all of a step alike (MuToR, 2505.10518, section 3.1)."""
    if config.mtp.kind == "registers":
        return jax.random.randint(key, (1,), 0, config.mtp.count)
    return 1 + jnp.arange(config.mtp.count - 1) if config.mtp.kind == "lookahead" else None


@dataclass(frozen=True)
class Asides:
    """Extra positions in rows of a stack, ``L`` after every ``every`` of its own. They see what
    stands before them and the asides of the same place before them (alone: none); none else sees
    them. (MuToR's registers stand before an id, here after the one before it.)"""

    vectors: jax.Array
    """``[L, d]``"""
    ahead: jax.Array
    """``[L]``: each predicts the id this far after the next one, and has the rotary position of the
    id before that."""
    every: int
    alone: bool

    def anchors(self, length: int) -> np.ndarray:
        """The position that each stands after, ``[G * L]``."""
        return np.repeat(np.arange(self.every - 1, length, self.every), len(self.ahead))

    def inputs(self, x: jax.Array) -> jax.Array:
        """What they put into rows x ``[B, T, d]``: ``[B, G * L, d]``."""
        B, T, d = x.shape
        repeated = jnp.tile(self.vectors.astype(x.dtype), (T // self.every, 1))
        return jnp.broadcast_to(repeated, (B, *repeated.shape))

    def through(self, stack: Transformer, x, own, positions, segment_ids, reads=None) -> jax.Array:
        """Run rows x ``[B, T, d]`` and asides ``own [B, G * L, d]`` through a stack; the rest as
        the stack wants it, of x. Returns both, ``[B, T + G * L, d]``."""
        B, T, d = x.shape
        L, anchors = len(self.ahead), self.anchors(T)

        def woven(main, aside):
            main = main.reshape(B, T // self.every, self.every, *main.shape[2:])
            aside = aside.reshape(B, T // self.every, L, *aside.shape[2:])
            both = jnp.concatenate([main, aside], axis=2)
            return both.reshape(B, -1, *both.shape[3:])

        ahead = jnp.tile(self.ahead, T // self.every)
        positions, segment_ids = (jnp.broadcast_to(v, (B, T)) for v in (positions, segment_ids))
        if reads is not None:
            reads = reads[0], woven(reads[1], reads[1][:, anchors])
        both = stack(
            woven(x, own), woven(positions, positions[:, anchors] + ahead),
            woven(segment_ids, segment_ids[:, anchors]), reads, asides=(self.every, L, self.alone),
        )  # fmt: skip
        both = both.reshape(B, T // self.every, self.every + L, d)
        parts = both[:, :, : self.every], both[:, :, self.every :]
        return jnp.concatenate([part.reshape(B, -1, d) for part in parts], axis=1)


def targets_ahead(batch: Batch, ahead: jax.Array, places: np.ndarray | None) -> tuple:
    """Targets ``[B, P]`` that lie ``ahead`` after the next id of positions ``places [P]`` (None:
    all), and their weights: 0 beyond the row and in another document."""
    T = batch.targets.shape[1]
    places = np.arange(T) if places is None else places
    at = jnp.minimum(places + ahead, T - 1)
    same = (places + ahead < T) & (batch.segment_ids[:, at] == batch.segment_ids[:, places])
    return batch.targets[:, at], batch.loss_weights[:, at] * same
