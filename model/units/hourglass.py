"""The hourglass: encoder, segmenter, pool, inner trunk over units, unpool, decoder.

The inner trunk is a stack of blocks or another hourglass. Every published system here is a choice
of parts (``StageConfig``); docs/models.md says which. ``__call__`` is the parallel pass,
``advance`` and ``settle`` the same step by step.

Letters: B batch, T positions, S units, d and D outer and inner width, N new positions, M longest
unit, p vectors per unit in the inner trunk.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig, StageConfig
from octavo.model.axes import POSITIONS, ROWS, constrain, on_own
from octavo.model.extra import ExtraPositions
from octavo.model.layers import Execution, RMSNorm, starts_of, take
from octavo.model.need import ByNeed
from octavo.model.transformer import Transformer
from octavo.model.trunk import Slots, Trunk, first_seen
from octavo.model.units.end_predictor import EndPredictor
from octavo.model.units.pools import New, pool
from octavo.model.units.room import row_units
from octavo.model.units.scopes import decode_units, extend_units
from octavo.model.units.segmentation import Layout, Segmentation, bounded, segment
from octavo.model.units.segmenters import Decision, segmenter
from octavo.model.units.unpools import unpool


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Level:
    """How one level cut its positions into units, ``[B, T]``."""

    boundary: jax.Array
    """Booleans: a unit ends here."""
    decision: Decision
    """What the segmenter decided, before any bounds."""
    real: jax.Array
    """Booleans: no padding."""
    inner: jax.Array
    """Where, among the positions of the next level, the last vector of a position's unit stands."""
    end_log_odds: jax.Array | None = None
    """The decoder's guess that a unit ends here, from what it saw before (predict_ends)."""


def cut(stage: StageConfig, ends: jax.Array, layout: Layout) -> Segmentation:
    """The units of whole rows, given the ends ``[B, T]`` that a segmenter asks for."""
    none = jnp.zeros(ends.shape[0], jnp.int32)
    fresh = starts_of(layout.segment_ids)
    boundary, _ = bounded(ends, stage, layout.positions, none, none, fresh)
    room = row_units(stage, ends.shape[1])
    return segment(boundary & (layout.segment_ids > 0), layout.segment_ids, room)


def make_trunk(
    config: ModelConfig, level: int, extra: bool, execution: Execution, rngs: nnx.Rngs
) -> "Trunk | Hourglass":
    """The trunk from ``level`` inwards; extra: extra positions go through its last stack."""
    if level < len(config.stages):
        return Hourglass(config, level, extra, execution, rngs)
    biased = bool(config.stages) and segmenter(config.stages[-1].segmenter).biases_keys
    return Trunk(config, execution, biased, extra, rngs)


class Hourglass(nnx.Module):
    """One level, ``config.stages[level]``, and all that is inside it."""

    def __init__(
        self, config: ModelConfig, level: int, extra: bool, execution: Execution, rngs: nnx.Rngs
    ):
        stage = self.stage = config.stages[level]
        self.level, self.dtype = level, execution.dtype
        inner_width = config.widths[level + 1]
        self.of_whole_units = stage.encoder_scope == "unit"
        self.within_units = stage.decoder_scope == "unit"
        self.per_unit = pool(stage.pool).per_unit(stage)
        self.leading = unpool(stage.unpool).leading(stage)

        def stack(layers, scope, **kind):
            coder = config.coder(stage, layers, scope)
            return Transformer(coder, execution, rngs, depth=config.depth(level), **kind)

        self.segmenter = segmenter(stage.segmenter)(stage, rngs)
        self.encoder = stack(
            stage.encoder_layers, stage.encoder_scope, causal=not self.of_whole_units
        )
        self.encoder_norm: Any = RMSNorm(stage.width) if stage.end_norms else None
        self.pool = pool(stage.pool)(stage, inner_width, self.dtype, rngs)
        self.inner: Any = make_trunk(config, level + 1, False, execution, rngs)
        self.inner_norm: Any = RMSNorm(inner_width) if stage.end_norms else None
        self.unpool = unpool(stage.unpool)(stage, inner_width, self.dtype, rngs)
        self.decoder = stack(
            stage.decoder_layers, stage.decoder_scope,
            cross_attends=self.unpool.cross_attends, extra=extra,
        )  # fmt: skip
        self.end_predictor: Any = EndPredictor(stage, rngs) if stage.predict_ends else None
        of_rows = not (self.of_whole_units or self.within_units or self.unpool.cross_attends)
        self.by_need = ByNeed(level if of_rows else 0, execution)

    # All positions of rows at once.

    def __call__(
        self, x: jax.Array, layout: Layout, noise: jax.Array | None = None,
        extra: ExtraPositions | None = None,
    ) -> tuple[jax.Array, dict, tuple[Level, ...]]:  # fmt: skip
        """x ``[B, T, d]`` to ``[B, T, d]``: row t depends on positions up to t of its document.

        noise ``[B, T]``: standard logistic, in training only; only the first level draws with it.
        extra: go through the decoder; their states follow in the rows.

        Also what happened, sums over the batch: ``units/LEVEL`` (units that ended),
        ``merged/LEVEL`` (ends asked for and not granted), and how each level cut.
        """
        stage = self.stage
        real = layout.segment_ids > 0
        encoded, computed = self._encode(x, layout)
        carry = self.segmenter.init_carry(len(x))
        decision, _ = self.segmenter.decide(encoded, layout, carry, noise=noise)
        # Where devices share rows, each knows of all their units.
        decision = jax.tree.map(lambda each: constrain(each, *ROWS), decision)
        whole = functools.partial(cut, stage)
        units = on_own(whole, (decision.ends, layout), (ROWS, ROWS), ROWS)
        statistics = {
            f"units/{self.level}": jnp.sum(units.boundary),
            f"merged/{self.level}": jnp.sum(decision.ends & real & ~units.boundary),
        }
        made, index, inner_statistics, levels = self._inner(
            encoded, units, decision, layout, soft=noise is not None
        )
        if self.unpool.averages:
            share = _clipped(take(decision.probability, units.last))
            share = jnp.where(units.layout.positions == 0, 1, share)
            arrays = made, share, jnp.zeros_like(made[:, 0])
            made = on_own(self.unpool.averaged, arrays, [ROWS] * 3, ROWS)
        memory = constrain(jnp.concatenate([self.unpool.before_any(len(x)), made], axis=1), *ROWS)
        start = x if self.within_units else encoded
        there = index, units.boundary, units.since, decision.probability
        start, own = self.unpool(start, memory, *there), None
        if extra is not None:
            at = extra.anchors(x.shape[1])
            there = (v if v is None else v[:, at] for v in there)
            own = self.unpool.at_extra(extra.inputs(x), memory, *there)
        decoded = self._decode(start, memory, units, layout, extra, own)
        foreseen = None
        if self.end_predictor is not None:
            before = jnp.pad(decoded, ((0, 0), (1, 0), (0, 0)))[:, : x.shape[1]]
            before = jnp.where((layout.positions > 0)[..., None], before, 0)
            foreseen = self.end_predictor(before, x)
        inner = units.unit_of * self.per_unit + self.per_unit - 1
        level = Level(units.boundary, decision, real, inner, foreseen)
        return decoded, statistics | computed | inner_statistics, (level, *levels)

    def around(
        self, x: jax.Array, layout: Layout, inner: Callable[[jax.Array], jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The level without what is inside: of embeddings x ``[B, T, d]``, what the inner trunk
        would read, ``[B, S, p, D]``; the decoder's states, where it gave ``inner(last)`` of that
        shape; and ``last [B, S]``, the last position of each unit."""
        encoded, _ = self._encode(x, layout)
        decision, _ = self.segmenter.decide(encoded, layout, self.segmenter.init_carry(len(x)))
        units = cut(self.stage, decision.ends, layout)
        made = self._memory(inner(units.last))
        memory = jnp.concatenate([self.unpool.before_any(len(x)), made], axis=1)
        at = units.available, units.boundary, units.since, decision.probability
        decoded = self._decode(self.unpool(encoded, memory, *at), memory, units, layout, None, None)
        return self._pool(encoded, units, decision, layout), decoded, units.last

    def _encode(self, x: jax.Array, layout: Layout) -> tuple[jax.Array, dict]:
        """What the segmenter reads, and what was computed of it."""
        if self.of_whole_units:
            return x, {}
        encoded, computed = self.by_need(self.encoder, x, layout.positions, layout.segment_ids)
        return _normed(self.encoder_norm, encoded), computed

    def _inner(
        self, encoded, units: Segmentation, decision: Decision, layout: Layout, soft: bool
    ) -> tuple[jax.Array, jax.Array, dict, tuple]:
        """Memories ``[B, S, m, d]``, which of them each position reads (0: the null unit's), and
        what the inner trunk tells. soft: what is deleted is hidden softly, in training."""
        index = units.available
        if self.segmenter.biases_keys and soft:
            # The inner trunk sees every position.
            every, biases = self.pool.project(encoded), {"key_bias": decision.key_bias}
            z, statistics, levels = self.inner(every, layout, None, **biases)
            newest = take(units.last, jnp.maximum(index - 1, 0))
            index = jnp.where(index > 0, newest + 1, 0)
            return self._memory(z[:, :, None]), index, statistics, levels
        pooled = constrain(self._pool(encoded, units, decision, layout), *POSITIONS)
        B, S, p, D = pooled.shape
        positions, biases = self.segmenter.inner(decision, layout, units.last)
        inner_layout = _placed(spread(units.layout, p), positions)
        z, statistics, levels = self.inner(
            pooled.reshape(B, S * p, D), inner_layout, None, **biases
        )
        return self._memory(z.reshape(B, S, p, D)), index, statistics, levels

    def _memory(self, z: jax.Array) -> jax.Array:
        return self.unpool.memory(_normed(self.inner_norm, z))

    def _pool(self, x, units: Segmentation, decision: Decision, layout: Layout) -> jax.Array:
        if self.of_whole_units:
            return self.pool.of_whole_units(x, units, self.encoder)
        return self.pool(x, units, decision, layout)

    def _decode(self, x, memory, units: Segmentation, layout: Layout, extra, own) -> jax.Array:
        reads = (memory, units.available) if self.unpool.cross_attends else None
        places = layout.positions, layout.segment_ids
        if extra is not None:
            if self.within_units:
                places = jnp.arange(x.shape[1])[None], units.follows
            return extra.through(self.decoder, x, own, *places, reads)
        if self.within_units:
            return decode_units(self.decoder, x, memory, units, self.leading, reads)
        if reads is not None:
            return self.decoder(x, *places, reads)
        return self.by_need(self.decoder, x, *places)[0]

    # The same for new positions behind those that a cache holds.

    def init_cache(self, batch: int, slots: int) -> dict:
        """An empty cache with room for so many positions of each of ``batch`` rows."""
        stage = self.stage
        room = 2 * row_units(stage, slots)  # as many again, for one long continuation
        none = jnp.zeros(batch, jnp.int32)
        newest = {}
        if self.end_predictor is not None:
            newest["newest"] = jnp.zeros((batch, stage.width), self.dtype)  # the decoder's state
        return newest | {
            "encoder": self.encoder.init_cache(batch, 0 if self.of_whole_units else slots),
            "segmenter": self.segmenter.init_carry(batch),
            "pool": self.pool.init_carry(batch),
            "inner": self.inner.init_cache(batch, room * self.per_unit),
            "decoder": self.decoder.init_cache(batch, slots + self.leading * room),
            "slots": Slots(slots),
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

    def advance(
        self, x: jax.Array, layout: Layout, cache: dict, valid: jax.Array, context: int | None
    ) -> tuple[jax.Array, dict]:
        """Continue each row's document by x ``[B, N, d]``, of which ``valid [B]`` positions count.

        Returns ``[B, N, d]``, equal to the parallel pass, and what ``settle`` makes the longer
        cache of. The inner trunk runs only if a unit of any row ends. context: see no further back
        than this many positions.
        """
        stage, (B, N, _) = self.stage, x.shape
        t = jnp.arange(N)[None]
        real = t < valid[:, None]
        length = cache["length"]
        first = first_seen(length, N, context)
        encoded = x
        encoder: dict = {"cache": cache["encoder"], "found": [{} for _ in cache["encoder"]]}
        if not self.of_whole_units:
            encoded, encoder = self.encoder.extend(x, cache["encoder"], length, first)
            encoded = _normed(self.encoder_norm, encoded)
        decision, _ = self.segmenter.decide(encoded, layout, cache["segmenter"], valid)
        boundary, granted = bounded(
            decision.ends & real, stage, length[:, None] + t, cache["used"], cache["open_since"],
            jnp.zeros((B, N), bool),
        )  # fmt: skip
        boundary, granted = boundary & real, granted & real
        ended = jnp.cumsum(boundary, axis=1)
        new = self._new(encoded, decision, layout, boundary, real, cache)
        made, inner = self._inner_on(new, ended[:, -1], valid, cache, context)
        memory = jnp.concatenate([cache["memory"], made], axis=1)
        opened_at = lax.cummax(jnp.where(boundary, t, -1 - cache["since"][:, None]), axis=1)
        since = t - opened_at
        start = x if self.within_units else encoded
        start = self.unpool(start, memory, ended, boundary, since, decision.probability)
        decoded, decoder, begins = self._decode_on(start, memory, ended, boundary, first, cache)
        return decoded, {
            "before": cache | {"encoder": encoder, "decoder": decoder, "inner": inner},
            "found": {
                "encoded": encoded, "layout": layout, "decision": decision, "boundary": boundary,
                "granted": granted, "memory": memory, "since": since, "decoded": decoded,
                "begins": begins,
            },
        }  # fmt: skip

    def _new(self, encoded, decision, layout, boundary, real, cache: dict) -> New:
        # The unit that was open lies, right-aligned, before the new positions.
        window = jnp.concatenate([cache["recent"], encoded], axis=1)
        return New(encoded, window, decision, layout, boundary, real)

    def _inner_on(self, new: New, count, valid, cache: dict, context: int | None):
        """Memories ``[B, most, m, d]`` of the ``count [B]`` units that end now, and what the inner
        trunk's ``settle`` wants."""
        stage, (B, N), M = self.stage, new.boundary.shape, self.stage.max_unit
        at = jnp.arange(M + N)[None]
        ours = (at >= M - cache["open"][:, None]) & (at < M + valid[:, None])
        room = cache["inner"]["slots"].count // self.per_unit // 2
        most = min(N, room)
        flags = jnp.concatenate([jnp.zeros((B, M), bool), new.boundary], axis=1)
        # Unit 0 of the window is what lies before the open one.
        units = segment(flags, ours.astype(jnp.int32), most + 3)
        ends_at = jnp.clip(units.last[:, 1 : most + 1] - M, 0, N - 1)

        def complete(inner):
            if self.of_whole_units:
                whole = self.pool.of_whole_units(new.window, units, self.encoder)
                pooled = whole[:, 1 : most + 1]
            else:
                pooled = self.pool.extend(new, units, most, cache["pool"])
            pooled = pooled.reshape(B, most * self.per_unit, -1)
            within = None if context is None else row_units(stage, context) * self.per_unit
            positions, biases = self.segmenter.inner(new.decision, new.layout, ends_at)
            layout = _placed(_continued(inner["length"], pooled), positions)
            z, pending = self.inner.advance(
                pooled, layout, inner, count * self.per_unit, within, **biases
            )
            return self._memory(z.reshape(B, most, self.per_unit, -1)), pending

        shapes = jax.eval_shape(complete, cache["inner"])

        def wait(inner):
            made, pending = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return made, self.inner.idle(pending, inner)

        made, inner = lax.cond(jnp.any(new.boundary), complete, wait, cache["inner"])
        if self.unpool.averages:
            number = cache["inner"]["length"][:, None] + jnp.arange(most)
            share = _clipped(take(new.decision.probability, ends_at))
            share = jnp.where(number == 0, 1, share)
            made = self.unpool.averaged(made, share, cache["memory"][:, 0])
        return made, inner

    def _decode_on(self, x, memory, ended, boundary, first, cache: dict):
        """The decoder's states, what its ``settle`` wants, and where each unit's part begins, if
        only that is seen."""
        reads = (memory, ended) if self.unpool.cross_attends else None
        length = cache["decoded"]
        if self.within_units:
            return extend_units(
                self.decoder, x, memory, ended, boundary, self.leading, cache["decoder"], length,
                cache["follows_from"], reads,
            )  # fmt: skip
        return *self.decoder.extend(x, cache["decoder"], length, first, reads), None

    def idle(self, pending_like: dict, cache: dict) -> dict:
        """What ``advance`` gives where nothing was added: like ``pending_like``, of zeros."""
        before = pending_like["before"]
        coders = {name: before[name] | {"cache": cache[name]} for name in ("encoder", "decoder")}
        inner = self.inner.idle(before["inner"], cache["inner"])
        return pending_like | {"before": cache | coders | {"inner": inner}}

    def settle(self, pending: dict, kept: jax.Array) -> dict:
        """The cache after the first ``kept [B]`` of the positions that counted in ``advance``: as
        if no others had come."""
        stage, cache, found = self.stage, pending["before"], pending["found"]
        encoded, layout, decision = found["encoded"], found["layout"], found["decision"]
        t = jnp.arange(encoded.shape[1])[None]
        real = t < kept[:, None]
        boundary, granted = found["boundary"] & real, found["granted"] & real
        count = jnp.sum(boundary, axis=1)
        new = self._new(encoded, decision, layout, boundary, real, cache)
        shift = jax.vmap(lax.dynamic_slice_in_dim, (0, 0, None))

        def last(values):
            return take(values, jnp.maximum(kept - 1, 0)[:, None])[:, 0]

        moved, ended = kept > 0, count > 0
        newest_grant = jnp.max(jnp.where(granted, t + 1, 0), axis=1)
        newest = jnp.max(jnp.where(boundary, t + 1, 0), axis=1)
        places = kept + self.leading * count
        more: dict[str, Any] = {}
        if self.end_predictor is not None:
            state = jnp.where(moved[:, None], last(found["decoded"]), cache["newest"])
            more["newest"] = state
        if found["begins"] is not None:
            begins = take(found["begins"], count[:, None])[:, 0]
            more["follows_from"] = jnp.where(ended, begins, cache["follows_from"])
        memory = take(found["memory"], count[:, None])
        return cache | more | {
            "encoder": self.encoder.settle(cache["encoder"], kept),
            "segmenter": self.segmenter.decide(encoded, layout, cache["segmenter"], kept)[1],
            "pool": self.pool.settle(new, cache["pool"]),
            "inner": self.inner.settle(cache["inner"], count * self.per_unit),
            "decoder": self.decoder.settle(cache["decoder"], places),
            "recent": shift(new.window, kept, stage.max_unit),
            "memory": jnp.where(ended[:, None, None, None], memory, cache["memory"]),
            "length": cache["length"] + kept,
            "decoded": cache["decoded"] + places,
            "used": cache["used"] + jnp.sum(granted, axis=1),
            "open": jnp.where(ended, kept - newest, cache["open"] + kept),
            "open_since": jnp.where(
                newest_grant > 0, kept - newest_grant, cache["open_since"] + kept
            ),
            "since": jnp.where(moved, last(found["since"]), cache["since"]),
        }  # fmt: skip

    # What drafters ask.

    def foresee(self, x: jax.Array, cache: dict) -> tuple[jax.Array, jax.Array, dict]:
        """Take embeddings x ``[B, 1, d]`` to stand in the unit that is open, without the encoder:
        the decoder's states ``[B, 1, d]``, equal to ``extend`` unless the unit ends there; whether
        it is foreseen to, booleans ``[B]``; and what goes in place of the cache to foresee on."""
        ends = self.end_predictor(cache["newest"][:, None], x)[:, 0] > 0
        length = cache["decoded"]
        first = cache["follows_from"][:, None]
        x, pending = self.decoder.extend(x, cache["decoder"], length, first)
        decoder = self.decoder.settle(pending, jnp.ones_like(length))
        ahead = {"decoder": decoder, "decoded": length + 1, "newest": x[:, 0]}
        return x, ends, cache | ahead

    def extra(self, x, ahead, cache, context, isolated: bool) -> jax.Array:
        """States ``[B, L, d]`` of extra positions x ``[B, L, d]`` behind the newest position, which
        predict ``ahead [L]`` after the next id; the cache stays. isolated: see ExtraPositions."""
        L = x.shape[1]
        newest_unit = jnp.zeros((len(x), L), jnp.int32)
        since = cache["since"][:, None] + newest_unit
        # What became of the newest position's probability no unpool asks in decoding.
        x = self.unpool.at_extra(x, cache["memory"], newest_unit, since == 0, since, since * 0.0)
        newest = cache["decoded"] - 1
        first = cache["follows_from"][:, None]
        if not self.within_units:
            first = first_seen(newest, 1, context)
        reads = (cache["memory"], newest_unit) if self.unpool.cross_attends else None
        return self.decoder.extend(
            x, cache["decoder"], newest + 1, jnp.repeat(first, L, axis=1), reads,
            positions=newest[:, None] + ahead, isolated=isolated,
        )[0]  # fmt: skip


def _normed(norm: Any, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)


def _clipped(p: jax.Array) -> jax.Array:
    return jnp.clip(p, 1e-4, 1 - 1e-4)


def _continued(length: jax.Array, x: jax.Array) -> Layout:
    """The layout of positions x ``[B, N, d]`` behind ``length [B]`` others of one document."""
    positions = length[:, None] + jnp.arange(x.shape[1])[None]
    nothing = jnp.zeros_like(positions)
    return Layout(positions, nothing + 1, nothing > 0, nothing)


def spread(layout: Layout, p: int) -> Layout:
    """The layout of ``p`` positions for each unit."""
    if p == 1:
        return layout
    wide = jax.tree.map(lambda x: jnp.repeat(x, p, axis=1), layout)
    inside = jnp.tile(jnp.arange(p), layout.positions.shape[1])[None]
    return dataclasses.replace(wide, positions=wide.positions * p + inside)


def _placed(layout: Layout, positions: jax.Array | None) -> Layout:
    """The layout with other positions, if there are any."""
    return layout if positions is None else dataclasses.replace(layout, positions=positions)
