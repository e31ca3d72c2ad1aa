"""a matrix of its own for each further id, on the normed states (EvaByte)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.model.drafter import Draft, Drafter, rested
from octavo.model.layers import Execution, Linear, take
from octavo.model.mtp import MTP


class LinearHeads(MTP):
    """Parallel heads of a matrix each, on the normed states that the next id's head reads (EvaByte
    2025; apps/mtp of facebookresearch/lingua). They cost next to nothing, in training and to draft
    with."""

    def __init__(self, config: ModelConfig, vocab_size: int, execution: Execution, rngs: nnx.Rngs):
        dtype, size = execution.dtype, (config.widths[0], vocab_size)
        # Small, like the first head's: see ByteLM.
        make = nnx.vmap(
            lambda key: Linear(*size, ("embed", "vocab"), dtype, nnx.Rngs(params=key), 0.1)
        )
        self.others = make(jax.random.split(rngs.params(), config.mtp.count - 1))

    def predict(self, model, output, batch, ahead, each):
        x, (definition, layers) = model.norm(output.states), nnx.split(self.others)

        @jax.checkpoint
        def one(x, ahead, layer):
            return each(ahead, None, nnx.merge(definition, layer)(x).astype(jnp.float32))

        aheads = 1 + jnp.arange(model.config.mtp.count - 1)
        return lax.map(lambda head: one(x, *head), (aheads, layers))

    def logits(self, model, states: jax.Array) -> jax.Array:
        """Of every head but the first, ``[B, count - 1, V]``, of states ``[B, d]``."""
        x, weights = model.norm(states), self.others.weight[...]
        # A product for each head: all at once, CPUs would first turn all weights around.
        x = jnp.broadcast_to(x, (len(weights), *x.shape))
        return jnp.einsum("kbd,kdv->bkv", x, weights.astype(x.dtype)).astype(jnp.float32)

    @staticmethod
    def flops(config, vocab_size, head, length):
        return (config.mtp.count - 1) * 2 * config.widths[0] * vocab_size

    @staticmethod
    def drafter(config):
        return FromLinearHeads(config)


class FromLinearHeads(Drafter):
    """The further of linear heads: what they say of the newest state."""

    def __init__(self, config: ModelConfig):
        self.size = config.mtp.count - 1

    def init(self, model, params, rows, slots):
        return {"logits": jnp.zeros((rows, self.size, model.vocabulary.size))}

    def observe(self, model, params, carry, seen):
        newest = take(seen.output.states, jnp.maximum(seen.kept - 1, 0)[:, None])[:, 0]
        return {"logits": rested(seen, model.mtp.logits(model, newest), carry["logits"])}

    def draft(self, model, params, carry, now):
        return Draft(now.choose(1, carry["logits"])), carry
