"""a chain of blocks, each fed by the one before and the next id (DeepSeek-V3)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.model.drafter import Draft, Drafter, embedded, put
from octavo.model.layers import Execution, Linear, RMSNorm, take
from octavo.model.mtp import MTP
from octavo.model.transformer import Transformer
from octavo.model.trunk import first_seen


class Join(nnx.Module):
    """The state of a chain and the next id, as one input."""

    def __init__(self, width: int, dtype, rngs: nnx.Rngs):
        self.state_norm, self.id_norm = RMSNorm(width), RMSNorm(width)
        self.both = Linear(2 * width, width, (None, "embed"), dtype, rngs)

    def __call__(self, state: jax.Array, embedded: jax.Array) -> jax.Array:
        normed = self.state_norm(state), self.id_norm(embedded.astype(state.dtype))
        return self.both(jnp.concatenate(normed, axis=-1))


class Modules(MTP):
    """A chain of blocks, each fed by the state before it and the next id (DeepSeek-V3, 2412.19437,
    section 2.2). The published one has D of them, ``count`` - 1 here."""

    def __init__(self, config: ModelConfig, vocab_size: int, execution: Execution, rngs: nnx.Rngs):
        stack = config.outermost(config.mtp.count - 1)
        self.stack = Transformer(stack, execution, rngs)
        make = nnx.vmap(lambda key: Join(stack.width, execution.dtype, nnx.Rngs(params=key)))
        self.joins = make(jax.random.split(rngs.params(), stack.layers))

    def predict(self, model, output, batch, ahead, each):
        """Module k reads at position t the ids up to t + k."""
        states = output.states
        embedded = model.embedding(batch.tokens, batch.positions)
        ((apply, layers),) = self.stack.applied(batch.positions, batch.segment_ids)
        definition, joins = nnx.split(self.joins)
        t = np.arange(states.shape[1])

        @jax.checkpoint
        def one(x, scanned):
            ahead, layer, join = scanned
            # Behind a document's end stands another's; nothing that counts reads it.
            following = embedded[:, jnp.minimum(t + ahead, t[-1])]
            x = apply(layer, nnx.merge(definition, join)(x, following))
            return x, each(ahead, None, model.logits(x))

        aheads = 1 + jnp.arange(self.stack.config.layers)
        return lax.scan(one, states, (aheads, layers, joins))[1]

    @staticmethod
    def flops(config, vocab_size, head, length):
        block = Transformer.flops(config.outermost(1), length) / length
        return (config.mtp.count - 1) * (block + head + 4 * config.widths[0] ** 2)

    @staticmethod
    def drafter(config):
        return FromModules(config)


class FromModules(Drafter):
    """A chain of sequential modules (DeepSeek-V3, 2412.19437), each fed with the guess before."""

    def __init__(self, config: ModelConfig):
        self.size = config.mtp.count - 1
        # Newest positions whose states were last computed from guesses, or may be new.
        self.recent = 2 * self.size

    def init(self, model, params, rows, slots):
        stack = model.mtp.stack
        recent = jnp.zeros((rows, self.recent, stack.config.width), stack.dtype)
        return {"cache": stack.init_cache(rows, slots), "recent": recent}

    def _link(self, model, carry, k, x, ids, begin, context):
        """Module k over the states x ``[B, W, d]`` of positions ``begin [B]`` on, and its cache."""
        W = x.shape[1]
        positions = begin[:, None] + jnp.arange(W)
        first = first_seen(begin, W, context)
        ((extend, layers),) = model.mtp.stack.extended(positions, begin, first)
        definition, joins = nnx.split(model.mtp.joins)
        layer, join = jax.tree.map(lambda leaf: leaf[k], (layers, joins))
        following = embedded(model, ids, begin + k + 1, W)
        joined = nnx.merge(definition, join)(x, following)
        x, cache, _ = extend(k, layer, joined, carry["cache"][0])
        return x, carry | {"cache": [cache]}

    def observe(self, model, params, carry, seen):
        states = x = seen.output.states
        if x.shape[1] > self.size + 1:  # a prompt; else a draft's window holds all of it
            for k in range(self.size):
                x, carry = self._link(model, carry, k, x, seen.ids, seen.length, seen.context)
        window = jnp.concatenate([carry["recent"], states], axis=1)
        shift = jax.vmap(lax.dynamic_slice_in_dim, (0, 0, None))
        return carry | {"recent": shift(window, seen.kept, self.recent)}

    def draft(self, model, params, carry, now):
        ids, chosen = now.ids, []
        begin = jnp.maximum(now.length - self.recent, 0)
        # In a short document the window begins before it: its states are moved to the left.
        missing = jnp.maximum(self.recent - now.length, 0)[:, None]
        x = take(carry["recent"], (jnp.arange(self.recent) + missing) % self.recent)
        newest = (now.length - 1 - begin)[:, None]
        for k in range(self.size):
            x, carry = self._link(model, carry, k, x, ids, begin, now.context)
            chosen.append(now.choose(k + 1, model.logits(take(x, newest)))[:, 0])
            ids = put(ids, now.length + k + 1, chosen[-1])
        return Draft(jnp.stack(chosen, axis=1)), carry
