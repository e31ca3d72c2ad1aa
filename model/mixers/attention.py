"""softmax attention with rotary positions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.model.kernels import MaskSpec, attend, attention, backend_for
from octavo.model.layers import Execution, Linear, RMSNorm, rotate, take
from octavo.model.mixers import Mixer, Rows, Step


class Attention(Mixer):
    """Multi-head self-attention with rotary positions and optional grouped queries and QK norm.

    Letters: B batch, T positions, N new ones, S cache slots, H/K query and key/value heads, D head
    size.
    """

    uses = (
        "window", "kv_heads", "head_dim", "qk_norm", "qkv_bias", "rope_base", "rope_scaling",
    )  # fmt: skip
    sees_all = True
    packs = True

    def __init__(self, config: ModelConfig, execution: Execution, rngs: nnx.Rngs, spec: MaskSpec):
        d, D, dtype = config.width, config.head_size, execution.dtype
        self.plus_one = spec.plus_one
        self.heads, self.kv_heads, self.head_size = config.heads, config.key_value_heads, D
        self.window = config.window
        self.backend = backend_for(execution.attention, execution.platform, spec, dtype, D)

        def projection(heads, axis):
            return Linear(d, heads * D, ("embed", axis), dtype, rngs, bias=config.qkv_bias)

        self.query = projection(self.heads, "heads")
        self.key = projection(self.kv_heads, "kv_heads")
        self.value = projection(self.kv_heads, "kv_heads")
        # Residual branches start small, so that depth does not change the variance at the top.
        scale = (2 * config.layers) ** -0.5
        self.out = Linear(self.heads * D, d, ("heads", "embed"), dtype, rngs, scale)
        self.query_norm: Any = RMSNorm(D, config.norm_eps) if config.qk_norm else None
        self.key_norm: Any = RMSNorm(D, config.norm_eps) if config.qk_norm else None

    def _project(self, x, angles):
        B, T, _ = x.shape
        q = self.query(x).reshape(B, T, self.heads, self.head_size)
        k = self.key(x).reshape(B, T, self.kv_heads, self.head_size)
        v = self.value(x).reshape(B, T, self.kv_heads, self.head_size)
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, angles), rotate(k, angles), v

    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        q, k, v = (rows.unpacked(part) for part in self._project(x, rows.angles))
        mixed = rows.packed(attention(q, k, v, rows.spec, self.backend))
        return self.out(mixed.reshape(*x.shape[:2], -1))

    @staticmethod
    def init_cache(config: ModelConfig, layers: int, batch: int, slots: int, dtype) -> dict:
        """Values ``[layers, B, K, S, D]``, and keys ``[layers, B, K, D, S]``, as the product of a
        few queries with many of them wants them."""
        rows = layers, batch, config.key_value_heads
        return {
            "key": jnp.zeros((*rows, config.head_size, slots), dtype),
            "value": jnp.zeros((*rows, slots, config.head_size), dtype),
        }

    def extend(self, x, cache, layer, step: Step):
        q, k, v = self._project(x, step.angles)
        length, first = step.length, step.first
        # Written in place, whatever scans over the layers: a copy of the cache costs more than all
        # else that decoding does.
        cache = {
            "key": _written(cache["key"], k.transpose(0, 2, 3, 1), layer, length, 4),
            "value": _written(cache["value"], v.transpose(0, 2, 1, 3), layer, length, 3),
        }
        slots = cache["value"].shape[3]
        query_at = (length[:, None] + jnp.arange(x.shape[1])[None])[:, :, None]
        key_at = jnp.arange(slots)[None, None]
        if step.query_at is not None:
            q, query_at, first = (take(v, step.query_at) for v in (q, query_at, first))
        visible = (key_at <= query_at) & (key_at >= first[:, :, None])
        if step.isolated:
            visible &= (key_at < length[:, None, None]) | (key_at == query_at)
        if self.window is not None:
            visible &= query_at - key_at < self.window
        keys, values = (
            lax.dynamic_index_in_dim(cache[name], layer, 0, False) for name in ("key", "value")
        )
        mixed = attend(q, keys, values, visible, step.key_bias, self.plus_one, cached=True)
        return self.out(mixed.reshape(*mixed.shape[:2], -1)), cache, {}

    @staticmethod
    def settle(cache: dict, found: dict, kept: jax.Array) -> dict:
        """What lies beyond is overwritten before it is read."""
        return cache

    @staticmethod
    def flops(config: ModelConfig, length: float, causal: bool = True) -> float:
        seen = length if config.window is None else min(config.window, length)
        # Mean number of keys a query sees: it has t + 1 of them, at most `seen`.
        mean_keys = seen - seen * (seen - 1) / (2 * length)
        if not causal:
            mean_keys = 2 * mean_keys - 1
        return length * (
            Attention.flops_alone(config) + 4 * mean_keys * config.heads * config.head_size
        )

    @staticmethod
    def flops_alone(config: ModelConfig) -> float:
        """Of the projections."""
        heads = 2 * config.heads + 2 * config.key_value_heads
        return 2 * config.width * config.head_size * heads


def _written(cache, values, layer, length, axis):
    """A cache with the values of a layer from places ``length [B]`` of an axis on."""

    def write(b, cache):
        row = lax.dynamic_index_in_dim(values, b, 0)
        begin = [layer, b, 0, 0, 0]
        begin[axis] = length[b]
        return lax.dynamic_update_slice(cache, row[None], begin)

    return lax.fori_loop(0, len(values), write, cache)
