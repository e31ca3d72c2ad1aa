"""The flat trunk: pre-norm transformer blocks, stacked and scanned.

Letters: B batch, T positions, S cache slots, d width, H/K query and key/value heads, D head size.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ModelConfig
from octavo.model.attention import MaskSpec, attend, attention
from octavo.model.layers import Linear, RMSNorm, constrain, rotary_angles, rotate

ACTIVATIONS = {
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}


class Attention(nnx.Module):
    """Multi-head self-attention with rotary positions and optional grouped queries and QK norm."""

    def __init__(self, config: ModelConfig, backend: str, dtype, rngs: nnx.Rngs):
        d, D = config.width, config.head_size
        self.heads, self.kv_heads, self.head_size = config.heads, config.key_value_heads, D
        self.window, self.backend = config.window, backend
        self.query = Linear(d, self.heads * D, ("embed", "heads"), dtype, rngs)
        self.key = Linear(d, self.kv_heads * D, ("embed", "kv_heads"), dtype, rngs)
        self.value = Linear(d, self.kv_heads * D, ("embed", "kv_heads"), dtype, rngs)
        # Residual branches start small, so that depth does not change the variance at the top.
        scale = (2 * config.layers) ** -0.5
        self.out = Linear(self.heads * D, d, ("heads", "embed"), dtype, rngs, scale)
        self.query_norm = RMSNorm(D) if config.qk_norm else None
        self.key_norm = RMSNorm(D) if config.qk_norm else None

    def _project(self, x, angles):
        B, T, _ = x.shape
        q = self.query(x).reshape(B, T, self.heads, self.head_size)
        k = self.key(x).reshape(B, T, self.kv_heads, self.head_size)
        v = self.value(x).reshape(B, T, self.kv_heads, self.head_size)
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, angles), rotate(k, angles), v

    def __call__(self, x, angles, segment_ids):
        q, k, v = self._project(x, angles)
        spec = MaskSpec(segment_ids, causal=True, window=self.window)
        mixed = attention(q, k, v, spec, self.backend)
        return self.out(mixed.reshape(*x.shape[:2], -1))

    def extend(self, x, angles, cache, length, context):
        """x ``[B, N, d]`` continues rows that hold ``length [B]`` positions in the cache."""
        q, k, v = self._project(x, angles)
        write = jax.vmap(lambda slots, new, at: lax.dynamic_update_slice(slots, new, (at, 0, 0)))
        keys = write(cache["key"], k, length)
        values = write(cache["value"], v, length)
        query_at = length[:, None] + jnp.arange(x.shape[1])[None]
        distance = query_at[:, :, None] - jnp.arange(keys.shape[1])[None, None]
        visible = distance >= 0
        for window in (self.window, context):
            if window is not None:
                visible &= distance < window
        mixed = attend(q, keys, values, visible)
        return self.out(mixed.reshape(*x.shape[:2], -1)), {"key": keys, "value": values}


class MLP(nnx.Module):
    """Two projections around a nonlinearity, or three when gated (Shazeer 2020)."""

    def __init__(self, config: ModelConfig, dtype, rngs: nnx.Rngs):
        d, hidden = config.width, config.hidden_width
        self.activation = ACTIVATIONS[config.activation]
        self.up = Linear(d, hidden, ("embed", "mlp"), dtype, rngs)
        self.gate = Linear(d, hidden, ("embed", "mlp"), dtype, rngs) if config.gated_mlp else None
        scale = (2 * config.layers) ** -0.5
        self.down = Linear(hidden, d, ("mlp", "embed"), dtype, rngs, scale)

    def __call__(self, x):
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Pre-norm residual block."""

    def __init__(self, config: ModelConfig, backend: str, dtype, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config, backend, dtype, rngs)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = MLP(config, dtype, rngs)

    def __call__(self, x, angles, segment_ids):
        x = x + self.attention(self.attention_norm(x), angles, segment_ids)
        return x + self.mlp(self.mlp_norm(x))

    def extend(self, x, angles, cache, length, context):
        mixed, cache = self.attention.extend(self.attention_norm(x), angles, cache, length, context)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), cache


REMAT = {
    "none": lambda function: function,
    "dots": functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    "full": jax.checkpoint,
}


class Transformer(nnx.Module):
    """A stack of blocks. Parameters of all layers lie stacked on a leading axis, whether the
    stack is scanned or unrolled, so both read the same checkpoint."""

    def __init__(self, config: ModelConfig, backend: str, dtype, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        make = nnx.vmap(lambda key: Block(config, backend, dtype, nnx.Rngs(params=key)))
        self.blocks = make(jax.random.split(rngs.params(), config.layers))

    def __call__(self, x: jax.Array, positions: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """x ``[B, T, d]``, positions and segment_ids ``[B, T]`` integers; returns ``[B, T, d]``."""
        angles = rotary_angles(positions, self.config.head_size, self.config.rope_base)
        definition, layers = nnx.split(self.blocks)

        @REMAT[self.config.remat]
        def apply(layer, x):
            return constrain(nnx.merge(definition, layer)(x, angles, segment_ids))

        if self.config.scan_layers:
            return lax.scan(lambda x, layer: (apply(layer, x), None), x, layers)[0]
        for i in range(self.config.layers):
            x = apply(jax.tree.map(lambda stacked, i=i: stacked[i], layers), x)
        return x

    def init_cache(self, batch: int, slots: int) -> dict:
        """An empty cache for ``slots`` positions of each of ``batch`` rows."""
        config = self.config
        shape = (config.layers, batch, slots, config.key_value_heads, config.head_size)
        return {name: jnp.zeros(shape, self.dtype) for name in ("key", "value")}

    def extend(
        self, x: jax.Array, cache: dict, length: jax.Array, context: int | None = None
    ) -> tuple[jax.Array, dict]:
        """Continue rows that already hold ``length [B]`` positions by x ``[B, N, d]``.

        Equal to the parallel pass over the whole rows, read at the last N positions. The cache
        must have room for ``length + N``; what lies beyond is overwritten before it is read.
        context: see no further back than this many positions.
        """
        positions = length[:, None] + jnp.arange(x.shape[1])[None]
        angles = rotary_angles(positions, self.config.head_size, self.config.rope_base)
        definition, layers = nnx.split(self.blocks)

        def apply(x, scanned):
            layer, cache = scanned
            return nnx.merge(definition, layer).extend(x, angles, cache, length, context)

        return lax.scan(apply, x, (layers, cache))
