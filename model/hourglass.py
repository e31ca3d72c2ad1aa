"""The hourglass: encoder, segmenter, pool, inner trunk over units, unpool, decoder.

The inner trunk is a transformer or another hourglass. Every published system here is a choice of
parts (``StageConfig``); docs/models.md says which.

Letters: B batch, T positions, S units, d and D outer and inner width, N new positions, M longest
unit, p vectors per unit in the inner trunk.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ModelConfig, StageConfig
from octavo.model.layers import ExactLinear, RMSNorm, constrain, parameter
from octavo.model.mtp import Asides
from octavo.model.pooling import Pool, SoftPool, Unpool, interleave
from octavo.model.segmentation import Layout, Segmentation, bounded, segment, starts_of, take
from octavo.model.segmenters import SEGMENTERS, Decision, membership
from octavo.model.transformer import Transformer
from octavo.model.trunk import Trunk, first_seen


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
    end_log_odds: jax.Array | None = None
    """The decoder's guess that a unit ends here, from what it saw before (predict_ends)."""


def make_trunk(
    config: ModelConfig, level: int, platform: str, dtype, rngs: nnx.Rngs
) -> "Trunk | Hourglass":
    """The trunk from ``level`` inwards."""
    if level == len(config.stages):
        biased = bool(config.stages) and config.stages[-1].segmenter == "deletion"
        return Trunk(config, platform, biased, dtype, rngs)
    return Hourglass(config, level, platform, dtype, rngs)


class Foreseer(nnx.Module):
    """Log-odds that a unit ends with an id, from the decoder's state before it and its embedding
    (Toucan, Fleshman & Van Durme 2023, 2311.08620: the decoder emits the end of a token itself)."""

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        d = stage.width
        self.norm = RMSNorm(d)
        self.state = ExactLinear(d, 2 * d, ("embed", "mlp"), rngs)
        self.id = ExactLinear(d, 2 * d, ("embed", "mlp"), rngs)
        self.out = ExactLinear(2 * d, 1, ("mlp", None), rngs)

    def __call__(self, before: jax.Array, embedded: jax.Array) -> jax.Array:
        """States and embeddings ``[..., d]`` to ``[...]``."""
        before, embedded = before.astype(jnp.float32), embedded.astype(jnp.float32)
        hidden = self.state(self.norm(before)) + self.id(self.norm(embedded))
        return self.out(jax.nn.gelu(hidden))[..., 0]


class Hourglass(nnx.Module):
    """One level, ``config.stages[level]``, and all that is inside it."""

    def __init__(self, config: ModelConfig, level: int, platform: str, dtype, rngs: nnx.Rngs):
        stage = self.stage = config.stages[level]
        self.level, self.dtype = level, dtype
        inner_width = config.widths[level + 1]
        self.per_unit = stage.slots if stage.pool == "prefix" else 1
        decider = SEGMENTERS.get(stage.segmenter)
        self.segmenter = None if decider is None else decider(stage, rngs)

        def stack(layers, scope, **kind):
            return Transformer(config.blocks(stage, layers, scope), platform, dtype, rngs, **kind)

        self.whole_units = stage.encoder_scope == "unit"
        self.encoder = stack(stage.encoder_layers, stage.encoder_scope, causal=not self.whole_units)
        learned = stage.pool == "prefix"
        prefix = jax.random.normal(rngs.params(), (stage.slots, stage.width)) if learned else None
        self.prefix = parameter(prefix, None, "embed") if learned else None
        self.pool = Pool(stage, inner_width, dtype, rngs)
        self.inner = make_trunk(config, level + 1, platform, dtype, rngs)
        self.unpool = Unpool(stage, inner_width, dtype, rngs)
        self.decoder = stack(
            stage.decoder_layers, stage.decoder_scope, reads=stage.unpool == "cross",
            asides=config.mtp.aside and level == 0,
        )  # fmt: skip
        self.foreseer = Foreseer(stage, rngs) if stage.predict_ends else None

    def __call__(
        self, x: jax.Array, layout: Layout, noise: jax.Array | None = None,
        asides: Asides | None = None,
    ) -> tuple[jax.Array, dict, tuple[Level, ...]]:  # fmt: skip
        """x ``[B, T, d]`` to ``[B, T, d]``: row t depends on positions up to t of its document.

        noise ``[B, T]``: standard logistic, in training only; only the first level draws with it.
        asides: go through the decoder; their states follow in the rows.

        Also what happened, sums over the batch: ``units/LEVEL`` (units that ended),
        ``merged/LEVEL`` (ends asked for and not granted), and how each level cut.
        """
        stage = self.stage
        real = layout.segment_ids > 0
        encoded = x if self.whole_units else self.encoder(x, layout.positions, layout.segment_ids)
        decision = Decision(layout.ends)
        if self.segmenter is not None:
            carry = self.segmenter.init_carry(len(x))
            decision, _ = self.segmenter.decide(encoded, layout, carry, noise=noise)
        none = jnp.zeros(x.shape[0], jnp.int32)
        fresh = starts_of(layout.segment_ids)
        boundary, _ = bounded(decision.ends, stage, layout.positions, none, none, fresh)
        units = segment(boundary & real, layout.segment_ids, stage.units(x.shape[1]))
        told = {
            f"units/{self.level}": jnp.sum(units.boundary),
            f"merged/{self.level}": jnp.sum(decision.ends & real & ~units.boundary),
        }

        reads = units.available
        if stage.segmenter == "deletion" and noise is not None:
            # Training hides what it deletes softly: the inner trunk sees every position.
            z, inner_told, levels = self.inner(
                self.pool.project(encoded), layout, None, decision.key_bias
            )
            made = self.unpool.memory(z[:, :, None])
            newest = take(units.last, jnp.maximum(reads - 1, 0))
            reads = jnp.where(reads > 0, newest + 1, 0)
        else:
            pooled = constrain(self._pooled(encoded, units, decision, layout))
            B, S, p, D = pooled.shape
            inner_layout, biases = _spread(units.layout, p), {}
            if stage.segmenter == "deletion":
                places = take(layout.positions, units.last)
                inner_layout = dataclasses.replace(inner_layout, positions=places)
                biases["key_bias"] = take(decision.key_bias, units.last)
            z, inner_told, levels = self.inner(
                pooled.reshape(B, S * p, D), inner_layout, None, **biases
            )
            made = self.unpool.memory(z.reshape(B, S, p, D))
        if stage.unpool == "smooth":
            share = take(_clipped(decision.probability), units.last)
            share = jnp.where(units.layout.positions == 0, 1, share)
            made = self.unpool.smoothed(made, share, jnp.zeros_like(made[:, 0]))
        memory = constrain(jnp.concatenate([self.unpool.before_any(len(x)), made], axis=1))
        start = x if stage.decoder_scope == "unit" else encoded
        told_by = reads, units.boundary, units.since, decision.probability
        start, beside = self.unpool(start, memory, *told_by), None
        if asides is not None:
            at = asides.anchors(x.shape[1])
            told_by = (v if v is None else v[:, at] for v in told_by)
            beside = self.unpool.aside(asides.inputs(x), memory, *told_by)
        decoded = self._decoded(start, memory, units, layout, asides, beside)
        foreseen = None
        if self.foreseer is not None:
            before = jnp.pad(decoded, ((0, 0), (1, 0), (0, 0)))[:, : x.shape[1]]
            before = jnp.where((layout.positions > 0)[..., None], before, 0)
            foreseen = self.foreseer(before, x)
        own = Level(units.boundary, decision, real, foreseen)
        return decoded, told | inner_told, (own, *levels)

    def _pooled(self, x, units: Segmentation, decision=None, layout=None) -> jax.Array:
        """Unit vectors ``[B, S, p, D]`` of the encoder's states, or of embeddings where the encoder
        looks at whole units. decision, layout: in the parallel pass."""
        if self.pool.soft is not None:
            return self.pool(self.pool.soft(x, units, decision, layout)[:, :, None], units)
        if not self.whole_units:
            weight = None
            if decision is not None and decision.count is not None:
                weight = membership(decision.count, layout.positions)[..., None].astype(x.dtype)
            return self.pool(x, units, weight)
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

    def _decoded(self, x, memory, units: Segmentation, layout: Layout, asides, beside):
        reads = (memory, units.available) if self.stage.unpool == "cross" else None
        causal = self.stage.decoder_scope == "causal"
        places = layout.positions, layout.segment_ids
        if asides is not None:
            if not causal:
                places = jnp.arange(x.shape[1])[None], units.follows
            return asides.through(self.decoder, x, beside, *places, reads)
        if causal:
            return self.decoder(x, *places, reads)
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
        more = {}
        if self.segmenter is not None:
            more["segmenter"] = self.segmenter.init_carry(batch)
        if self.foreseer is not None:
            more["newest"] = jnp.zeros((batch, stage.width), self.dtype)  # the decoder's state
        if self.pool.soft is not None:
            more["sums"] = jnp.zeros((batch, SoftPool.REACH + 1, stage.width + 1))
        return more | {
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
        return cache["decoder"]["value"].shape[3] - led

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
        encoded, encoder = x, cache["encoder"]
        if not self.whole_units:
            encoded, encoder = self.encoder.extend(x, encoder, length, first)
        decision = Decision(layout.ends)
        if self.segmenter is not None:
            decision, _ = self.segmenter.decide(encoded, layout, cache["segmenter"], valid)
        nothing = jnp.zeros((B, N), bool)
        boundary, granted = bounded(
            decision.ends & real, stage, length[:, None] + t, cache["used"], cache["open_since"],
            nothing,
        )  # fmt: skip
        boundary, granted = boundary & real, granted & real
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

        if self.pool.soft is not None:
            sums = self._open_sums(encoded, window, decision, layout, boundary, real, most, cache)
            softly = self.pool.soft.means(sums[:, : units.last.shape[1]])[:, :, None]
        # Where the units that end now lie among the new positions; the first is unit 0 there.
        ends_at = units.last[:, 1 : most + 1] - M

        def complete(inner):
            # Unit 0 of the window is what lies before the open one.
            if self.pool.soft is not None:
                pooled = self.pool(softly, units)[:, :most]
            else:
                pooled = self._pooled(window, units)[:, 1 : most + 1]
            new = pooled.reshape(B, most * self.per_unit, -1)
            within = None if context is None else stage.units(context) * self.per_unit
            inner_layout, biases = _continued(inner["length"], new), {}
            if stage.segmenter == "deletion":
                at = jnp.clip(ends_at, 0, N - 1)
                places = take(jnp.broadcast_to(layout.positions, (B, N)), at)
                inner_layout = dataclasses.replace(inner_layout, positions=places)
                biases["key_bias"] = take(decision.key_bias, at)
            z, pending = self.inner.advance(
                new, inner_layout, inner, count * self.per_unit, within, **biases
            )
            return self.unpool.memory(z.reshape(B, most, self.per_unit, -1)), pending

        shapes = jax.eval_shape(complete, cache["inner"])

        def wait(inner):
            made, pending = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return made, self.inner.idle(pending, inner)

        number = cache["inner"]["length"][:, None] + jnp.arange(most)
        made, inner = lax.cond(jnp.any(boundary), complete, wait, cache["inner"])
        if stage.unpool == "smooth":
            share = take(_clipped(decision.probability), jnp.clip(ends_at, 0, N - 1))
            share = jnp.where(number == 0, 1, share)
            made = self.unpool.smoothed(made, share, cache["memory"][:, 0])
        memory = jnp.concatenate([cache["memory"], made], axis=1)
        opened_at = lax.cummax(jnp.where(boundary, t, -1 - cache["since"][:, None]), axis=1)
        since = t - opened_at
        start = x if stage.decoder_scope == "unit" else encoded
        start = self.unpool(start, memory, ended, boundary, since, decision.probability)
        decoded, decoder, begins = self._decode_on(start, memory, ended, boundary, first, cache)
        heavy = {"encoder": encoder, "decoder": decoder, "inner": inner}
        found = {
            "encoded": encoded, "layout": layout, "decision": decision, "boundary": boundary,
            "granted": granted, "memory": memory, "since": since, "decoded": decoded,
            "begins": begins,
        }  # fmt: skip
        return decoded, {"before": cache | heavy, "found": found}

    def idle(self, pending_like: dict, cache: dict) -> dict:
        """What ``advance`` gives where nothing was added: like ``pending_like``, of zeros."""
        heavy = {"inner": self.inner.idle(pending_like["before"]["inner"], cache["inner"])}
        return pending_like | {"before": cache | heavy}

    def settle(self, pending: dict, kept: jax.Array) -> dict:
        """The cache after the first ``kept [B]`` of the positions that counted in ``advance``: as
        if no others had come."""
        stage, cache, found = self.stage, dict(pending["before"]), pending["found"]
        encoded, layout, decision = found["encoded"], found["layout"], found["decision"]
        B, N, _ = encoded.shape
        t = jnp.arange(N)[None]
        real = t < kept[:, None]
        boundary, granted = found["boundary"] & real, found["granted"] & real
        count = jnp.sum(boundary, axis=1)
        window = jnp.concatenate([cache["recent"], encoded], axis=1)
        shift = jax.vmap(lax.dynamic_slice_in_dim, (0, 0, None))
        if self.segmenter is not None:
            carry = cache["segmenter"]
            _, cache["segmenter"] = self.segmenter.decide(encoded, layout, carry, kept)
        if self.pool.soft is not None:
            sums = self._open_sums(encoded, window, decision, layout, boundary, real, N, cache)
            cache["sums"] = shift(sums, count, SoftPool.REACH + 1)

        def last(values):
            return take(values, jnp.maximum(kept - 1, 0)[:, None])[:, 0]

        moved = kept > 0
        if self.foreseer is not None:
            newest = last(found["decoded"])
            cache["newest"] = jnp.where(moved[:, None], newest, cache["newest"])
        newest_grant = jnp.max(jnp.where(granted, t + 1, 0), axis=1)
        newest = jnp.max(jnp.where(boundary, t + 1, 0), axis=1)
        ended = count > 0
        if found["begins"] is not None:
            begins = take(found["begins"], count[:, None])[:, 0]
            cache["follows_from"] = jnp.where(ended, begins, cache["follows_from"])
        memory = take(found["memory"], count[:, None])
        return cache | {
            "inner": self.inner.settle(cache["inner"], count * self.per_unit),
            "recent": shift(window, kept, stage.max_unit),
            "memory": jnp.where(ended[:, None, None, None], memory, cache["memory"]),
            "length": cache["length"] + kept,
            "decoded": cache["decoded"] + kept + self._led * count,
            "used": cache["used"] + jnp.sum(granted, axis=1),
            "open": jnp.where(ended, kept - newest, cache["open"] + kept),
            "open_since": jnp.where(
                newest_grant > 0, kept - newest_grant, cache["open_since"] + kept
            ),
            "since": jnp.where(moved, last(found["since"]), cache["since"]),
        }

    def foresee(self, x: jax.Array, cache: dict) -> tuple[jax.Array, jax.Array, dict]:
        """Take embeddings x ``[B, 1, d]`` to stand in the unit that is open, without the encoder:
        the decoder's states ``[B, 1, d]``, equal to ``extend`` unless the unit ends there; whether
        it is foreseen to, booleans ``[B]``; and what goes in place of the cache to foresee on."""
        ends = self.foreseer(cache["newest"][:, None], x)[:, 0] > 0
        length = cache["decoded"]
        first = cache["follows_from"][:, None]
        x, decoder = self.decoder.extend(x, cache["decoder"], length, first)
        ahead = {"decoder": decoder, "decoded": length + 1, "newest": x[:, 0]}
        return x, ends, cache | ahead

    def _open_sums(self, x, window, decision, layout, boundary, real, most, cache):
        """Sums of the soft pool ``[B, most + REACH + 3, d + 1]``: of the open unit, those after it,
        and as many as the new positions may reach."""
        soft, M = self.pool.soft, self.stage.max_unit
        values = soft.values(x, window[:, M - 2 : M], layout.positions)
        unit_of = jnp.cumsum(boundary, axis=1) - boundary
        counts = jnp.broadcast_to(real[..., None], (*real.shape, soft.REACH + 1))
        sums = soft.sums(values, decision, unit_of, most + soft.REACH + 3, counts)
        return sums.at[:, : soft.REACH + 1].add(cache["sums"])

    def _decode_on(self, x, memory, ended, boundary, first, cache):
        """The decoder's part of ``advance``: its states, its cache, and where each unit's part
        begins, if only that is seen."""
        B, N, _ = x.shape
        reads = (memory, ended) if self.stage.unpool == "cross" else None
        length = cache["decoded"]
        if self.stage.decoder_scope == "causal":
            return *self.decoder.extend(x, cache["decoder"], length, first, reads), None
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
        return take(x, at), decoder, begins

    def aside(self, x, ahead, cache, context, alone: bool) -> jax.Array:
        """States ``[B, L, d]`` of asides x ``[B, L, d]`` behind the newest position, which predict
        ``ahead [L]`` after the next id; the cache stays. alone: see Asides."""
        causal, L = self.stage.decoder_scope == "causal", x.shape[1]
        repeated = jnp.zeros((len(x), L), jnp.int32)
        since = cache["since"][:, None] + repeated
        # What became of the newest position's probability no unpool asks in decoding.
        x = self.unpool.aside(x, cache["memory"], repeated, since == 0, since, since * 0.0)
        newest = cache["decoded"] - 1
        first = first_seen(newest, 1, context) if causal else cache["follows_from"][:, None]
        reads = (cache["memory"], repeated) if self.stage.unpool == "cross" else None
        return self.decoder.extend(
            x, cache["decoder"], newest + 1, jnp.repeat(first, L, axis=1), reads,
            positions=newest[:, None] + ahead, alone=alone,
        )[0]  # fmt: skip


def _clipped(p: jax.Array) -> jax.Array:
    return jnp.clip(p, 1e-4, 1 - 1e-4)


def _continued(length: jax.Array, x: jax.Array) -> Layout:
    """The layout of positions x ``[B, N, d]`` behind ``length [B]`` others of one document."""
    positions = length[:, None] + jnp.arange(x.shape[1])[None]
    nothing = jnp.zeros_like(positions)
    return Layout(positions, nothing + 1, nothing > 0, nothing)


def _spread(layout: Layout, p: int) -> Layout:
    """The layout of ``p`` positions for each unit."""
    if p == 1:
        return layout
    wide = jax.tree.map(lambda x: jnp.repeat(x, p, axis=1), layout)
    inside = jnp.tile(jnp.arange(p), layout.positions.shape[1])[None]
    return dataclasses.replace(wide, positions=wide.positions * p + inside)
