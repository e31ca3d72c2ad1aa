"""a block of its own for each id, all on the trunk's states (Gloeckle et al.)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.model.drafter import rested
from octavo.model.layers import Execution
from octavo.model.mtp import MTP
from octavo.model.mtp.linear import FromLinearHeads
from octavo.model.transformer import Transformer
from octavo.model.trunk import first_seen


class Heads(MTP):
    """Parallel heads: a block each on the trunk's states (Gloeckle et al. 2024, 2404.19737)."""

    least = 1

    def __init__(self, config: ModelConfig, vocab_size: int, execution: Execution, rngs: nnx.Rngs):
        self.next = Transformer(config.outermost(1), execution, rngs)
        self.others = Transformer(config.outermost(config.mtp.count - 1), execution, rngs)

    def predict(self, model, output, batch, ahead, each):
        states = output.states
        ((apply, layers),) = self.others.applied(batch.positions, batch.segment_ids)
        # The states are an argument: what is closed over would be kept for every head.
        one = jax.checkpoint(
            lambda states, ahead, layer: each(ahead, None, model.logits(apply(layer, states)))
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

    @staticmethod
    def next_flops(config, length):
        return Transformer.flops(config.outermost(1), length) / length

    @classmethod
    def flops(cls, config, vocab_size, head, length):
        return (config.mtp.count - 1) * (cls.next_flops(config, length) + head)

    @staticmethod
    def drafter(config):
        return FromHeads(config)


class FromHeads(FromLinearHeads):
    """The further of parallel heads, each with a cache (Gloeckle et al. 2024, 2404.19737, section
    4)."""

    def init(self, model, params, rows, slots):
        cache = model.mtp.others.init_cache(rows, slots)
        return super().init(model, params, rows, slots) | {"cache": cache}

    def observe(self, model, params, carry, seen):
        states, kept = seen.output.states, seen.kept
        N = states.shape[1]
        first = first_seen(seen.length, N, seen.context)
        positions = seen.length[:, None] + jnp.arange(N)
        newest = jnp.maximum(kept - 1, 0)[:, None]
        others = model.mtp.others
        ((extend, layers),) = others.extended(positions, seen.length, first, query_at=newest)

        def one(cache, scanned):
            x, cache, _ = extend(*scanned, states, cache)
            return cache, x[:, 0]

        cache, x = lax.scan(one, carry["cache"][0], (jnp.arange(self.size), layers))
        logits = model.logits(jnp.swapaxes(x, 0, 1))
        return {"cache": [cache], "logits": rested(seen, logits, carry["logits"])}
