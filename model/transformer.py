"""Stacks of pre-norm transformer blocks, scanned: the flat trunk, and the levels of an hourglass.

Letters: B batch, T positions, S cache slots, d width, H/K query and key/value heads, D head size.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ModelConfig
from octavo.model.attention import MaskSpec, attend, attention, backend_for
from octavo.model.layers import Linear, RMSNorm, constrain, rotary_angles, rotate
from octavo.model.segmentation import take

ACTIVATIONS = {
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}


class Attention(nnx.Module):
    """Multi-head self-attention with rotary positions and optional grouped queries and QK norm."""

    def __init__(self, config: ModelConfig, backend: str, plus_one: bool, dtype, rngs: nnx.Rngs):
        d, D = config.width, config.head_size
        self.plus_one = plus_one
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

    def __call__(self, x, angles, spec: MaskSpec):
        q, k, v = self._project(x, angles)
        mixed = attention(q, k, v, spec, self.backend)
        return self.out(mixed.reshape(*x.shape[:2], -1))

    def extend(self, x, angles, cache, layer, length, first, key_bias, alone, asks):
        """x ``[B, N, d]`` continues rows that hold ``length [B]`` positions in the cache of all
        layers, of which this is number ``layer``; each of its positions sees from ``first [B, N]``
        on; alone: and of the N, itself only. key_bias: of the whole cache, or None. asks ``[B,
        1]``: the only position whose result is wanted, or None: all."""
        q, k, v = self._project(x, angles)
        # Written in place, whatever scans over the layers: a copy of the cache costs more than all
        # else that decoding does.
        cache = {
            "key": _written(cache["key"], k.transpose(0, 2, 3, 1), layer, length, 4),
            "value": _written(cache["value"], v.transpose(0, 2, 1, 3), layer, length, 3),
        }
        slots = cache["value"].shape[3]
        query_at = (length[:, None] + jnp.arange(x.shape[1])[None])[:, :, None]
        key_at = jnp.arange(slots)[None, None]
        if asks is not None:
            q, query_at, first = (take(v, asks) for v in (q, query_at, first))
        visible = (key_at <= query_at) & (key_at >= first[:, :, None])
        if alone:
            visible &= (key_at < length[:, None, None]) | (key_at == query_at)
        if self.window is not None:
            visible &= query_at - key_at < self.window
        keys, values = (
            lax.dynamic_index_in_dim(cache[name], layer, 0, False) for name in ("key", "value")
        )
        mixed = attend(q, keys, values, visible, key_bias, self.plus_one, cached=True)
        return self.out(mixed.reshape(*mixed.shape[:2], -1)), cache


def _written(cache, values, layer, length, axis):
    """A cache with the values of a layer from places ``length [B]`` of an axis on."""

    def write(b, cache):
        row = lax.dynamic_index_in_dim(values, b, 0)
        begin = [layer, b, 0, 0, 0]
        begin[axis] = length[b]
        return lax.dynamic_update_slice(cache, row[None], begin)

    return lax.fori_loop(0, len(values), write, cache)


class UnitAttention(nnx.Module):
    """Attention of positions to the slots of one unit each (BLT, 2412.09871, as its decoder reads
    patches: a softmax over the slots of the newest complete unit, without positions)."""

    def __init__(self, config: ModelConfig, dtype, rngs: nnx.Rngs):
        d = config.width
        self.heads, self.head_size = config.heads, config.head_size
        self.norm = RMSNorm(d)
        self.memory_norm = RMSNorm(d)
        self.query = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.key = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.value = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.out = Linear(d, d, ("heads", "embed"), dtype, rngs, (2 * config.layers) ** -0.5)

    def __call__(self, x, memory, unit):
        """x ``[B, T, d]``; memory ``[B, U, slots, d]``; unit ``[B, T]``: which of U each reads."""
        normed = self.memory_norm(memory)
        split = (self.heads, self.head_size)
        q = self.query(self.norm(x)).reshape(*x.shape[:2], *split)
        k, v = (
            jnp.take_along_axis(
                project(normed).reshape(*memory.shape[:3], *split),
                unit[:, :, None, None, None],
                axis=1,
            )
            for project in (self.key, self.value)
        )
        scores = jnp.einsum("bthd,btshd->bths", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * self.head_size**-0.5, axis=-1).astype(v.dtype)
        return self.out(jnp.einsum("bths,btshd->bthd", weights, v).reshape(x.shape))


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
    """Pre-norm residual block; ``reads`` puts attention to a unit's slots first."""

    def __init__(
        self, config: ModelConfig, backend: str, reads: bool, plus_one: bool, dtype,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.reader = UnitAttention(config, dtype, rngs) if reads else None
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config, backend, plus_one, dtype, rngs)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = MLP(config, dtype, rngs)

    def _read(self, x, memory):
        return x if self.reader is None else x + self.reader(x, *memory)

    def __call__(self, x, angles, spec, memory):
        x = self._read(x, memory)
        x = x + self.attention(self.attention_norm(x), angles, spec)
        return x + self.mlp(self.mlp_norm(x))

    def extend(self, x, angles, cache, layer, length, first, memory, key_bias, alone, asks):
        x = self._read(x, memory)
        mixed, cache = self.attention.extend(
            self.attention_norm(x), angles, cache, layer, length, first, key_bias, alone, asks
        )
        x = (x if asks is None else take(x, asks)) + mixed
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
    stack is scanned or unrolled, so both read the same checkpoint.

    platform: where it is to run, "cpu", "tpu" or "gpu". causal: False for encoders that look at
    whole segments. reads: the blocks attend to units. plus_one: attention with softmax1, and scores
    of keys may be biased. asides: rows may hold extra positions (MaskSpec). Raises ConfigError if
    the attention kernel that the config names cannot serve.
    """

    def __init__(
        self, config: ModelConfig, platform: str, dtype, rngs: nnx.Rngs,
        causal: bool = True, reads: bool = False, plus_one: bool = False, asides: bool = False,
    ):  # fmt: skip
        self.config, self.dtype, self.causal, self.plus_one = config, dtype, causal, plus_one
        keys = jax.random.split(rngs.params(), max(config.layers, 1))
        if not config.layers:
            self.blocks = None
            return
        asked = MaskSpec(
            causal=causal, window=config.window, plus_one=plus_one,
            asides=(1, 1, True) if asides else None,
        )  # fmt: skip
        backend = backend_for(config.attention, platform, asked, dtype, config.head_size)
        make = nnx.vmap(
            lambda key: Block(config, backend, reads, plus_one, dtype, nnx.Rngs(params=key))
        )
        self.blocks = make(keys)

    def __call__(
        self, x: jax.Array, positions: jax.Array, segment_ids: jax.Array, memory=None,
        key_bias=None, asides=None,
    ) -> jax.Array:  # fmt: skip
        """x ``[B, T, d]``, positions and segment_ids ``[B, T]`` integers; returns ``[B, T, d]``.

        memory: for blocks that read units, their slots ``[B, U, slots, d]`` and which unit each
        position reads, ``[B, T]``. key_bias ``[B, T]``, asides: see MaskSpec.
        """
        if self.blocks is None:
            return x
        apply, layers = self.applied(positions, segment_ids, memory, key_bias, asides)
        apply = REMAT[self.config.remat](apply)
        if self.config.scan_layers:
            return lax.scan(lambda x, layer: (apply(layer, x), None), x, layers)[0]
        for i in range(self.config.layers):
            x = apply(jax.tree.map(lambda stacked, i=i: stacked[i], layers), x)
        return x

    def applied(self, positions, segment_ids, memory=None, key_bias=None, asides=None):
        """``apply(layer, x)``, one block, and the layers to scan it over."""
        angles = rotary_angles(positions, self.config.head_size, self.config.rope_base)
        spec = MaskSpec(
            segment_ids, self.causal, self.config.window, key_bias, self.plus_one, asides
        )
        definition, layers = nnx.split(self.blocks)

        def apply(layer, x):
            return constrain(nnx.merge(definition, layer)(x, angles, spec, memory))

        return apply, layers

    def init_cache(self, batch: int, slots: int) -> dict:
        """An empty cache for ``slots`` positions of each of ``batch`` rows: values ``[layers, B, K,
        S, D]``, and keys ``[layers, B, K, D, S]``, as the product of a few queries with many of
        them wants them."""
        config, rows = self.config, (self.config.layers, batch, self.config.key_value_heads)
        return {
            "key": jnp.zeros((*rows, config.head_size, slots), self.dtype),
            "value": jnp.zeros((*rows, slots, config.head_size), self.dtype),
        }

    def extend(
        self, x: jax.Array, cache: dict, length: jax.Array, first: jax.Array, memory=None,
        positions=None, key_bias=None, alone=False,
    ) -> tuple[jax.Array, dict]:  # fmt: skip
        """Continue rows that already hold ``length [B]`` positions by x ``[B, N, d]``.

        Equal to the parallel pass over the whole rows, read at the last N positions, where each
        sees from position ``first [B, N]`` on. The cache must have room for ``length + N``; what
        lies beyond is overwritten before it is read. positions ``[B, N]``: where they are not
        ``length`` and on. key_bias ``[B, slots]``: of the whole cache. alone: of the N, each sees
        itself only.
        """
        if self.blocks is None:
            return x, cache
        if positions is None:
            positions = length[:, None] + jnp.arange(x.shape[1])[None]
        extend, layers = self.extended(positions, length, first, memory, key_bias, alone)

        def one(carry, scanned):
            return extend(*scanned, *carry), None

        return lax.scan(one, (x, cache), (jnp.arange(self.config.layers), layers))[0]

    def extended(
        self, positions, length, first, memory=None, key_bias=None, alone=False, asks=None
    ):
        """``extend(number, layer, x, cache) -> (x, cache)``, one block with the cache of all, and
        the layers to scan it over. asks ``[B, 1]``: the only position whose x is wanted."""
        angles = rotary_angles(positions, self.config.head_size, self.config.rope_base)
        definition, layers = nnx.split(self.blocks)

        def extend(number, layer, x, cache):
            block = nnx.merge(definition, layer)
            seen = length, first, memory, key_bias, alone, asks
            return block.extend(x, angles, cache, number, *seen)

        return extend, layers
