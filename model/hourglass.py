"""The hourglass: encoder, segmenter, pool, inner trunk over units, unpool, decoder.

The inner trunk is a transformer or another hourglass. Every published system here is a choice of
parts (``StageConfig``); docs/models.md says which.

Letters: B batch, T positions, S units, d and D outer and inner width, N new positions, M longest
unit, p vectors per unit in the inner trunk.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ModelConfig
from octavo.model.layers import Linear, RMSNorm, constrain, parameter
from octavo.model.pooling import Pool, Unpool, interleave
from octavo.model.segmentation import Layout, Segmentation, bounded, segment, starts_of, take
from octavo.model.transformer import Transformer


class Predictor(nnx.Module):
    """The learned segmenter's logit that a unit ends here (Nawrot et al. 2023, 2211.09761): an MLP
    on the encoder's states, float32."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norm = RMSNorm(width)
        self.up = Linear(width, 4 * width, ("embed", "mlp"), jnp.float32, rngs)
        self.down = Linear(4 * width, 1, ("mlp", None), jnp.float32, rngs)
        # Starts at a rate of a fifth, near that of words, rather than a half.
        self.bias = parameter(jnp.full((1,), -1.4), None)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.gelu(self.up(self.norm(x.astype(jnp.float32))))
        return (self.down(hidden) + self.bias[...])[..., 0]


def make_trunk(
    config: ModelConfig, level: int, backend: str, dtype, rngs: nnx.Rngs
) -> "Trunk | Hourglass":
    """The trunk from ``level`` inwards."""
    if level == len(config.stages):
        return Trunk(config, backend, dtype, rngs)
    return Hourglass(config, level, backend, dtype, rngs)


class Trunk(nnx.Module):
    """The innermost trunk: a flat transformer."""

    def __init__(self, config: ModelConfig, backend: str, dtype, rngs: nnx.Rngs):
        self.stack = Transformer(config, backend, dtype, rngs)

    def __call__(self, x: jax.Array, layout: Layout) -> tuple[jax.Array, dict]:
        """x ``[B, T, d]`` to ``[B, T, d]``, and what a trunk has to tell: nothing."""
        return self.stack(x, layout.positions, layout.segment_ids), {}

    def init_cache(self, batch: int, slots: int) -> dict:
        return {"stack": self.stack.init_cache(batch, slots), "length": jnp.zeros(batch, jnp.int32)}

    def slots(self, cache: dict) -> int:
        return cache["stack"]["key"].shape[2]

    def extend(self, x, ends, cache, valid, context):
        """See ``Hourglass.extend``."""
        length = cache["length"]
        first = _first_seen(length, x.shape[1], context)
        x, stack = self.stack.extend(x, cache["stack"], length, first)
        return x, {"stack": stack, "length": length + valid}


class Hourglass(nnx.Module):
    """One level, ``config.stages[level]``, and all that is inside it."""

    def __init__(self, config: ModelConfig, level: int, backend: str, dtype, rngs: nnx.Rngs):
        stage = self.stage = config.stages[level]
        self.level, self.dtype = level, dtype
        inner_width = config.widths[level + 1]
        self.per_unit = stage.slots if stage.pool == "prefix" else 1
        self.predictor = Predictor(stage.width, rngs) if stage.segmenter == "predicted" else None

        def stack(layers, scope, **kind):
            return Transformer(config.blocks(stage, layers, scope), backend, dtype, rngs, **kind)

        self.whole_units = stage.encoder_scope == "unit"
        self.encoder = stack(stage.encoder_layers, stage.encoder_scope, causal=not self.whole_units)
        learned = stage.pool == "prefix"
        prefix = jax.random.normal(rngs.params(), (stage.slots, stage.width)) if learned else None
        self.prefix = parameter(prefix, None, "embed") if learned else None
        self.pool = Pool(stage, inner_width, dtype, rngs)
        self.inner = make_trunk(config, level + 1, backend, dtype, rngs)
        self.unpool = Unpool(stage, inner_width, dtype, rngs)
        self.decoder = stack(
            stage.decoder_layers, stage.decoder_scope, reads=stage.unpool == "cross"
        )

    def __call__(self, x: jax.Array, layout: Layout) -> tuple[jax.Array, dict]:
        """x ``[B, T, d]`` to ``[B, T, d]``: row t depends on positions up to t of its document.

        Also what happened, sums over the batch: ``units/LEVEL`` (units that ended),
        ``merged/LEVEL`` (ends asked for and not granted); and the predictor's
        ``boundary_logits [B, T]``.
        """
        stage, told = self.stage, {}
        real = layout.segment_ids > 0
        encoded = x if self.whole_units else self.encoder(x, layout.positions, layout.segment_ids)
        ends = layout.ends
        if self.predictor is not None:
            told["boundary_logits"] = self.predictor(encoded)
            ends = told["boundary_logits"] > 0
        none = jnp.zeros(x.shape[0], jnp.int32)
        fresh = starts_of(layout.segment_ids)
        boundary, _ = bounded(ends, stage, layout.positions, none, none, fresh)
        units = segment(boundary & real, layout.segment_ids, stage.units(x.shape[1]))
        told[f"units/{self.level}"] = jnp.sum(units.boundary)
        told[f"merged/{self.level}"] = jnp.sum(ends & real & ~units.boundary)

        pooled = constrain(self._pooled(encoded, units))
        B, S, p, D = pooled.shape
        z, inner_told = self.inner(pooled.reshape(B, S * p, D), _spread(units.layout, p))
        null = self.unpool.before_any(B)
        made = self.unpool.memory(z.reshape(B, S, p, D))
        memory = constrain(jnp.concatenate([null, made], axis=1))
        start = self.unpool(encoded, memory, units.available, units.boundary, units.since)
        return self._decoded(start, memory, units, layout), told | inner_told

    def _pooled(self, x: jax.Array, units: Segmentation) -> jax.Array:
        """Unit vectors ``[B, S, p, D]`` of the encoder's states, or of embeddings where the encoder
        looks at whole units."""
        if not self.whole_units:
            return self.pool(x, units)
        order = lambda x: jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])  # noqa: E731
        if self.prefix is None:
            return self.pool(self.encoder(x, order(x), units.unit_of), units)
        B, S = units.last.shape
        learned = self.prefix[...].astype(x.dtype)
        learned = jnp.broadcast_to(learned, (B, S, *learned.shape))
        both, _, learned_at = interleave(x, units.unit_of, learned)
        ids = jnp.broadcast_to(jnp.arange(S)[None, :, None, None], (*learned_at.shape, 1))
        ids = interleave(units.unit_of[..., None], units.unit_of, ids)[0][..., 0]
        states = take(self.encoder(both, order(both), ids), learned_at.reshape(B, -1))
        return self.pool(states.reshape(learned.shape), units)

    def _decoded(self, x, memory, units: Segmentation, layout: Layout) -> jax.Array:
        reads = (memory, units.available) if self.stage.unpool == "cross" else None
        if self.stage.decoder_scope == "causal":
            return self.decoder(x, layout.positions, layout.segment_ids, reads)
        ids = units.follows
        at = None
        if self._led > 0:
            S = units.last.shape[1]
            group = jnp.minimum(units.unit_of + units.boundary, S)
            led = memory[:, 1:, : self._led]
            led_ids = jnp.broadcast_to(take(ids, units.last)[..., None], led.shape[:3])
            x, at, _ = interleave(x, group, led)
            ids = interleave(ids[..., None], group, led_ids[..., None])[0][..., 0]
        order = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        x = self.decoder(x, order, ids, reads)
        return x if at is None else take(x, at)

    @property
    def _led(self) -> int:
        """Vectors that lead each unit's positions in the decoder; one more takes the place of the
        boundary itself."""
        return self.stage.slots - 1 if self.stage.unpool == "prefix" else 0

    def init_cache(self, batch: int, slots: int) -> dict:
        stage = self.stage
        room = 2 * stage.units(slots)  # as many again, for one long continuation
        none = jnp.zeros(batch, jnp.int32)
        return {
            "encoder": self.encoder.init_cache(batch, 0 if self.whole_units else slots),
            "decoder": self.decoder.init_cache(batch, slots + self._led * room),
            "inner": self.inner.init_cache(batch, room * self.per_unit),
            "recent": jnp.zeros((batch, stage.max_unit, stage.width), self.dtype),
            "memory": self.unpool.before_any(batch),
            "length": none,  # positions so far
            "used": none,  # ends granted
            "open": none,  # positions since the newest boundary
            "open_since": none,  # positions since the newest end that was granted
            "since": none - 1,  # distance of the newest position from its boundary
            "decoded": none,  # places in the decoder
            "follows_from": none,  # where in them the newest boundary, or the document, stands
        }

    def slots(self, cache: dict) -> int:
        led = self._led * (self.inner.slots(cache["inner"]) // self.per_unit)
        return cache["decoder"]["key"].shape[2] - led

    def extend(
        self, x: jax.Array, ends: jax.Array, cache: dict, valid: jax.Array, context: int | None
    ) -> tuple[jax.Array, dict]:
        """Continue each row's document by x ``[B, N, d]``, of which ``valid [B]`` positions count.

        Returns ``[B, N, d]``, equal to the parallel pass, and the longer cache. The inner trunk
        runs only if a unit of any row ends. ends ``[B, N]``: as in Layout.
        context: see no further back than this many positions.
        """
        stage, (B, N, _) = self.stage, x.shape
        t = jnp.arange(N)[None]
        real = t < valid[:, None]
        length, cache = cache["length"], dict(cache)
        first = _first_seen(length, N, context)
        encoded = x
        if not self.whole_units:
            encoded, cache["encoder"] = self.encoder.extend(x, cache["encoder"], length, first)
        if self.predictor is not None:
            ends = self.predictor(encoded) > 0
        nothing = jnp.zeros((B, N), bool)
        boundary, granted = bounded(
            ends & real, stage, length[:, None] + t, cache["used"], cache["open_since"], nothing
        )
        boundary &= real
        ended = jnp.cumsum(boundary, axis=1)
        count = ended[:, -1]

        # The unit that was open lies, right-aligned, before the new positions.
        window = jnp.concatenate([cache["recent"], encoded], axis=1)
        M = stage.max_unit
        at = jnp.arange(M + N)[None]
        ours = (at >= M - cache["open"][:, None]) & (at < M + valid[:, None])
        most = min(N, self.inner.slots(cache["inner"]) // self.per_unit // 2)
        flags = jnp.concatenate([jnp.zeros((B, M), bool), boundary], axis=1)
        units = segment(flags, ours.astype(jnp.int32), most + 3)

        def complete(inner):
            # Unit 0 is what lies before the open one.
            pooled = self._pooled(window, units)[:, 1 : most + 1]
            new = pooled.reshape(B, most * self.per_unit, -1)
            within = None if context is None else stage.units(context) * self.per_unit
            no_ends = jnp.zeros(new.shape[:2], bool)
            z, inner = self.inner.extend(new, no_ends, inner, count * self.per_unit, within)
            return self.unpool.memory(z.reshape(pooled.shape)), inner

        def wait(inner):
            return jnp.zeros((B, most, *cache["memory"].shape[2:]), self.dtype), inner

        made, cache["inner"] = lax.cond(jnp.any(boundary), complete, wait, cache["inner"])
        memory = jnp.concatenate([cache["memory"], made], axis=1)
        opened_at = lax.cummax(jnp.where(boundary, t, -1 - cache["since"][:, None]), axis=1)
        since = t - opened_at
        start = self.unpool(encoded, memory, ended, boundary, since)
        x, cache = self._decode_on(start, memory, ended, boundary, valid, first, cache)

        def last(values):
            return take(values, jnp.maximum(valid - 1, 0)[:, None])[:, 0]

        moved = valid > 0
        newest_grant = jnp.max(jnp.where(granted & real, t + 1, 0), axis=1)
        any_granted = newest_grant > 0
        newest = jnp.max(jnp.where(boundary, t + 1, 0), axis=1)
        shift = jax.vmap(lambda rows, by: lax.dynamic_slice_in_dim(rows, by, M))
        return x, cache | {
            "recent": shift(window, valid),
            "memory": take(memory, count[:, None]),
            "length": length + valid,
            "used": cache["used"] + jnp.sum(granted & real, axis=1),
            "open": jnp.where(count > 0, valid - newest, cache["open"] + valid),
            "open_since": jnp.where(any_granted, valid - newest_grant, cache["open_since"] + valid),
            "since": jnp.where(moved, last(since), cache["since"]),
        }

    def _decode_on(self, x, memory, ended, boundary, valid, first, cache):
        """The decoder's part of ``extend``."""
        B, N, _ = x.shape
        reads = (memory, ended) if self.stage.unpool == "cross" else None
        length = cache["decoded"]
        if self.stage.decoder_scope == "causal":
            x, decoder = self.decoder.extend(x, cache["decoder"], length, first, reads)
            return x, cache | {"decoder": decoder, "decoded": length + valid}
        led, at, group = self._led, jnp.broadcast_to(jnp.arange(N), (B, N)), ended
        U = memory.shape[1]
        if led:
            x, at, _ = interleave(x, ended, memory[:, 1:, :led])
            index = jnp.broadcast_to(jnp.arange(1, U)[None, :, None, None], (B, U - 1, led, 1))
            group = interleave(ended[..., None], ended, index)[0][..., 0]
        # Where each unit's part begins, in places of the decoder: the old one, then the new ones.
        begins = jnp.zeros((B, U), jnp.int32).at[:, 0].set(cache["follows_from"])
        put = jax.vmap(lambda begins, unit, place: begins.at[unit].set(place, mode="drop"))
        begins = put(begins, jnp.where(boundary, ended, U), length[:, None] + at - led)
        x, decoder = self.decoder.extend(x, cache["decoder"], length, take(begins, group), reads)
        count = ended[:, -1]
        return take(x, at), cache | {
            "decoder": decoder,
            "decoded": length + valid + led * count,
            "follows_from": take(begins, count[:, None])[:, 0],
        }


def _first_seen(length, count: int, context: int | None):
    """``[B, count]``: the first position that each new one may see."""
    at = length[:, None] + jnp.arange(count)[None]
    return jnp.zeros_like(at) if context is None else jnp.maximum(at - context + 1, 0)


def _spread(layout: Layout, p: int) -> Layout:
    """The layout of ``p`` positions for each unit."""
    if p == 1:
        return layout
    wide = jax.tree.map(lambda x: jnp.repeat(x, p, axis=1), layout)
    inside = jnp.tile(jnp.arange(p), layout.positions.shape[1])[None]
    return Layout(layout.positions.repeat(p, axis=1) * p + inside, wide.segment_ids, wide.ends)
