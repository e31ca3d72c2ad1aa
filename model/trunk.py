"""The innermost trunk: a flat transformer, as an hourglass sees it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ModelConfig
from octavo.model.mtp import Asides
from octavo.model.segmentation import Layout
from octavo.model.transformer import Transformer


class Trunk(nnx.Module):
    """All of a flat model, or the inside of an hourglass.

    biased: attention scores of its positions are biased by a delete gate.
    """

    def __init__(self, config: ModelConfig, platform: str, biased: bool, dtype, rngs: nnx.Rngs):
        asides = config.mtp.aside and not config.stages
        self.stack = Transformer(config, platform, dtype, rngs, plus_one=biased, asides=asides)
        self.biased = biased

    def __call__(
        self, x: jax.Array, layout: Layout, noise=None, key_bias: jax.Array | None = None,
        asides: Asides | None = None,
    ) -> tuple[jax.Array, dict, tuple]:  # fmt: skip
        """x ``[B, T, d]`` to ``[B, T, d]``, and what a trunk has to tell: nothing. asides: their
        states follow in the rows."""
        places = layout.positions, layout.segment_ids
        if asides is not None:
            return asides.through(self.stack, x, asides.inputs(x), *places), {}, ()
        return self.stack(x, *places, key_bias=key_bias), {}, ()

    def init_cache(self, batch: int, slots: int) -> dict:
        stack = self.stack.init_cache(batch, slots)
        cache = {"stack": stack, "length": jnp.zeros(batch, jnp.int32)}
        return cache | ({"bias": jnp.zeros((batch, slots))} if self.biased else {})

    def slots(self, cache: dict) -> int:
        return cache["stack"]["value"].shape[3]

    def advance(self, x, layout: Layout, cache, valid, context, key_bias=None):
        """See ``Hourglass.advance``. key_bias ``[B, N]``: of the new positions."""
        length, new = cache["length"], {}
        if self.biased:
            write = jax.vmap(lambda all_, some, at: lax.dynamic_update_slice(all_, some, (at,)))
            key_bias = new["bias"] = write(cache["bias"], key_bias, length)
        first = first_seen(length, x.shape[1], context)
        x, stack = self.stack.extend(
            x, cache["stack"], length, first, positions=layout.positions, key_bias=key_bias
        )
        return x, new | {"stack": stack, "length": length}

    def idle(self, pending_like: dict, cache: dict) -> dict:
        """See ``Hourglass.idle``."""
        return cache

    def settle(self, pending: dict, kept: jax.Array) -> dict:
        """See ``Hourglass.settle``."""
        return pending | {"length": pending["length"] + kept}

    def aside(self, x, ahead, cache, context, alone: bool) -> jax.Array:
        """See ``Hourglass.aside``."""
        newest = cache["length"] - 1
        first = jnp.repeat(first_seen(newest, 1, context), x.shape[1], axis=1)
        return self.stack.extend(
            x, cache["stack"], newest + 1, first, positions=newest[:, None] + ahead, alone=alone
        )[0]


def first_seen(length, count: int, context: int | None):
    """``[B, count]``: the first position that each new one may see."""
    at = length[:, None] + jnp.arange(count)[None]
    return jnp.zeros_like(at) if context is None else jnp.maximum(at - context + 1, 0)
