"""The innermost trunk: a flat stack of blocks, as an hourglass sees it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.model.extra import ExtraPositions
from octavo.model.layers import Execution
from octavo.model.need import ByNeed
from octavo.model.transformer import Transformer
from octavo.model.units.segmentation import Layout


@jax.tree_util.register_static
@dataclass(frozen=True)
class Slots:
    """How many positions a cache has room for."""

    count: int


class Trunk(nnx.Module):
    """All of a flat model, or the inside of an hourglass.

    biased: attention scores of its positions are biased (by a delete gate). extra: rows may hold
    extra positions.
    """

    def __init__(
        self, config: ModelConfig, execution: Execution, biased: bool, extra: bool, rngs: nnx.Rngs
    ):
        depth = config.depth(len(config.stages))
        self.stack = Transformer(config, execution, rngs, plus_one=biased, extra=extra, depth=depth)
        self.biased = biased
        self.by_need = ByNeed(len(config.stages), execution)

    def __call__(
        self, x: jax.Array, layout: Layout, noise=None, key_bias: jax.Array | None = None,
        extra: ExtraPositions | None = None,
    ) -> tuple[jax.Array, dict, tuple]:  # fmt: skip
        """x ``[B, T, d]`` to ``[B, T, d]``; no levels. extra: their states follow in the rows. Of
        units, also how many slots were computed, over the batch."""
        places = layout.positions, layout.segment_ids
        if extra is not None:
            return extra.through(self.stack, x, extra.inputs(x), *places), {}, ()
        if key_bias is not None:
            return self.stack(x, *places, key_bias=key_bias), {}, ()
        x, computed = self.by_need(self.stack, x, *places)
        return x, computed, ()

    def init_cache(self, batch: int, slots: int) -> dict:
        """An empty cache with room for so many positions of each of ``batch`` rows."""
        cache = {
            "stack": self.stack.init_cache(batch, slots),
            "length": jnp.zeros(batch, jnp.int32),
            "slots": Slots(slots),
        }
        return cache | ({"bias": jnp.zeros((batch, slots))} if self.biased else {})

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
        return x, cache | new | {"stack": stack}

    def idle(self, pending_like: dict, cache: dict) -> dict:
        """See ``Hourglass.idle``."""
        stack = pending_like["stack"] | {"cache": cache["stack"]}
        return cache | {"stack": stack}

    def settle(self, pending: dict, kept: jax.Array) -> dict:
        """See ``Hourglass.settle``."""
        stack = self.stack.settle(pending["stack"], kept)
        return pending | {"stack": stack, "length": pending["length"] + kept}

    def extra(self, x, ahead, cache, context, isolated: bool) -> jax.Array:
        """See ``Hourglass.extra``."""
        newest = cache["length"] - 1
        first = jnp.repeat(first_seen(newest, 1, context), x.shape[1], axis=1)
        return self.stack.extend(
            x, cache["stack"], newest + 1, first, positions=newest[:, None] + ahead,
            isolated=isolated,
        )[0]  # fmt: skip


def first_seen(length, count: int, context: int | None):
    """``[B, count]``: the first position that each new one may see."""
    at = length[:, None] + jnp.arange(count)[None]
    return jnp.zeros_like(at) if context is None else jnp.maximum(at - context + 1, 0)
