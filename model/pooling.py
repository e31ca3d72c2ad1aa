"""Between the levels of an hourglass: positions to units, and units back to positions.

``Pool`` makes ``[B, S, positions of the inner trunk, D]`` of ``[B, T, d]``. ``Unpool`` makes each
unit's memory, ``[B, S, m, d]``: what positions after the unit may read of it.

Letters: B batch, T positions, S units, d and D outer and inner width, m vectors of a memory.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from octavo.configs.schema import StageConfig
from octavo.model.layers import Linear, RMSNorm, parameter
from octavo.model.segmentation import Segmentation, take
from octavo.model.segmenters import Decision

DISTANCES = 16
"""How many distances multilinear unpooling tells apart (AU-Net, 2506.14761)."""


def sum_by_unit(x: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """Sums of x ``[B, T, ...]`` over the positions of each unit, ``[B, units, ...]`` float32."""
    add = lambda x, ids: jax.ops.segment_sum(x, ids, units, indices_are_sorted=True)  # noqa: E731
    return jax.vmap(add)(x.astype(jnp.float32), unit_of)


def mean_by_unit(x: jax.Array, weight: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """Means of x ``[B, T, d]`` by weights ``[B, T, 1]``, of x's dtype; 0 for units without
    positions."""
    total = sum_by_unit(weight, unit_of, units)
    return (sum_by_unit(x * weight, unit_of, units) / jnp.maximum(total, 1e-9)).astype(x.dtype)


def max_by_unit(x: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """The same with maxima, of x's dtype; -inf for units without positions."""
    top = lambda x, ids: jax.ops.segment_max(x, ids, units, indices_are_sorted=True)  # noqa: E731
    return jax.vmap(top)(x, unit_of)


def interleave(
    x: jax.Array, group: jax.Array, extra: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Put ``extra[b, k]`` (``[B, S, p, d]``) behind the positions of x ``[B, T, d]`` whose group is
    at most k; group ``[B, T]`` never falls.

    Returns the sequence ``[B, T + S p, d]`` and the places of x, ``[B, T]``, and of extra,
    ``[B, S, p]``, in it.
    """
    (B, T, d), (S, p) = x.shape, extra.shape[1:3]
    x_at = jnp.arange(T)[None] + p * group
    upto = jnp.sum(group[:, None, :] <= jnp.arange(S)[None, :, None], axis=2)
    extra_at = (upto + p * jnp.arange(S)[None])[:, :, None] + jnp.arange(p)
    places = jnp.concatenate([x_at, extra_at.reshape(B, S * p)], axis=1)
    both = jnp.concatenate([x, extra.reshape(B, S * p, d)], axis=1)
    source = jnp.argsort(places, axis=1)  # places are a permutation
    return take(both, source), x_at, extra_at


class CrossPool(nnx.Module):
    """A unit's queries attend to its own positions (BLT, 2412.09871): queries start as the
    projection of the positions' maximum; their results, added to them, lie side by side."""

    def __init__(self, stage: StageConfig, dtype, rngs: nnx.Rngs):
        d, self.slots, self.heads = stage.width, stage.slots, stage.heads
        self.dtype = dtype
        self.start = Linear(d, self.slots * d, ("embed", None), dtype, rngs)
        self.query_norm, self.norm = RMSNorm(d), RMSNorm(d)
        self.query = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.key = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.value = Linear(d, d, ("embed", "heads"), dtype, rngs)
        self.out = Linear(d, d, ("heads", "embed"), dtype, rngs)

    def __call__(self, x: jax.Array, units: Segmentation) -> jax.Array:
        (B, T, d), S = x.shape, units.last.shape[1]
        highest = max_by_unit(x, units.unit_of, S)
        highest = jnp.where(jnp.isfinite(highest), highest, 0)
        start = self.start(highest).reshape(B, S, self.slots, d)
        q = self.query(self.query_norm(start)).reshape(B, S, self.slots, self.heads, -1)
        normed = self.norm(x)
        k, v = (project(normed).reshape(B, T, self.heads, -1) for project in (self.key, self.value))
        # Each position belongs to one unit, so its scores are few: a softmax by unit.
        own = take(q, units.unit_of)
        scores = jnp.einsum("btshd,bthd->btsh", own, k, preferred_element_type=jnp.float32)
        scores *= q.shape[-1] ** -0.5
        top = max_by_unit(jax.lax.stop_gradient(scores), units.unit_of, S)
        weights = jnp.exp(scores - take(top, units.unit_of))
        total = sum_by_unit(weights, units.unit_of, S)
        mixed = sum_by_unit(jnp.einsum("btsh,bthd->btshd", weights, v), units.unit_of, S)
        mixed = (mixed / jnp.maximum(total, 1e-9)[..., None]).astype(self.dtype)
        return (start + self.out(mixed.reshape(B, S, self.slots, d))).reshape(B, S, 1, -1)


class SoftPool(nnx.Module):
    """Positions weighed by the probability that they belong to a unit (MANTa, Godey et al. 2022,
    2212.07284, section 3.2): a softmax over units of a Gaussian around the position's place.
    Causal: a unit gathers what came up to its end. The paper's softmax is over all units; here it
    is over those within ``REACH``, so that decoding remembers a fixed number of open sums.

    Values are a depthwise convolution of the states over three positions.
    """

    REACH = 3
    FLOOR = 1e-2
    """Least variance: a place that is certain gives no gradient, and should not give a huge one."""

    def __init__(self, width: int):
        mix = jnp.zeros((3, width)).at[0].set(1.0)
        self.mix = parameter(mix, None, "embed")

    def values(self, x: jax.Array, before: jax.Array, positions: jax.Array) -> jax.Array:
        """x ``[B, T, d]`` and the two states before it, ``[B, 2, d]``; float32."""
        wide = jnp.concatenate([before, x], axis=1).astype(jnp.float32)
        T = x.shape[1]
        return sum(
            jnp.where((positions >= i)[..., None], wide[:, 2 - i : 2 - i + T], 0) * self.mix[i]
            for i in range(3)
        )

    def membership(self, decision: Decision) -> jax.Array:
        """Probability that a position belongs to its own unit and each of the next ``REACH``,
        ``[B, T, REACH + 1]``."""
        units = jnp.arange(-self.REACH, self.REACH + 1)
        distance = decision.offset[..., None] - units
        spread = jnp.maximum(decision.variance, self.FLOOR)[..., None]
        return jax.nn.softmax(-jnp.square(distance) / (2 * spread))[..., self.REACH :]

    def sums(self, values, decision, unit_of, count, counts):
        """Weighed values, and in a last column weights, of units ``[B, count, d + 1]``. counts
        ``[B, T, REACH + 1]``: which shares count."""
        shares = jnp.where(counts, self.membership(decision), 0)
        with_weight = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)
        return sum(
            sum_by_unit(with_weight * shares[..., i : i + 1], unit_of + i, count)
            for i in range(self.REACH + 1)
        )

    @staticmethod
    def means(sums: jax.Array) -> jax.Array:
        return sums[..., :-1] / jnp.maximum(sums[..., -1:], 1)

    def __call__(self, x, units: Segmentation, decision: Decision, layout) -> jax.Array:
        """``[B, S, d]`` of states ``[B, T, d]``."""
        S = units.last.shape[1]
        ahead = units.unit_of[..., None] + jnp.arange(self.REACH + 1)
        inside = jnp.minimum(ahead, S - 1).reshape(len(ahead), -1)
        documents = take(units.layout.segment_ids, inside).reshape(ahead.shape)
        counts = (documents == layout.segment_ids[..., None]) & (ahead < S)
        values = self.values(x, jnp.zeros_like(x[:, :2]), layout.positions)
        return self.means(self.sums(values, decision, units.unit_of, S, counts))


class Pool(nnx.Module):
    """``StageConfig.pool``, then the step to the inner width."""

    def __init__(self, stage: StageConfig, inner_width: int, dtype, rngs: nnx.Rngs):
        self.stage, self.inner_width = stage, inner_width
        self.cross = CrossPool(stage, dtype, rngs) if stage.pool == "cross" else None
        joined = stage.width * (stage.slots if stage.pool == "cross" else 1)
        share = inner_width // stage.max_unit if stage.pool == "concat" else inner_width
        self.soft = SoftPool(stage.width) if stage.pool == "soft" else None
        padded = stage.projection != "linear"
        more = inner_width - stage.width
        learned = stage.projection == "learned_pad" and more
        self.pad = parameter(jnp.zeros((more,)), None) if learned else None
        self.norm = None if padded else RMSNorm(joined)
        self.enter = None if padded else Linear(joined, share, ("embed", None), dtype, rngs)

    def __call__(
        self, x: jax.Array, units: Segmentation, weight: jax.Array | None = None
    ) -> jax.Array:
        """x ``[B, T, d]``, or ``[B, S, slots, d]`` where the encoder made the slots and
        ``[B, S, 1, d]`` where units are pooled softly; returns ``[B, S, slots, D]`` for prefix,
        ``[B, S, 1, D]`` otherwise. weight ``[B, T, 1]``: of positions in a mean."""
        kind = self.stage.pool
        if kind == "concat":
            return self._concatenated(self.enter(self.norm(x)), units)
        if kind in ("prefix", "soft"):
            pooled = x
        elif kind == "cross":
            pooled = self.cross(x, units)
        elif kind == "last":
            pooled = take(x, units.last)[:, :, None]
        else:
            weight = jnp.ones_like(x[..., :1]) if weight is None else weight
            pooled = mean_by_unit(x, weight, units.unit_of, units.last.shape[1])[:, :, None]
        return self.project(pooled)

    def project(self, pooled: jax.Array) -> jax.Array:
        """The step to the inner width: ``[..., d]`` to ``[..., D]``."""
        if self.enter is not None:
            return self.enter(self.norm(pooled))
        more = self.inner_width - self.stage.width
        shape = (*pooled.shape[:-1], more)
        if self.pad is None:
            return jnp.concatenate([jnp.zeros(shape, pooled.dtype), pooled], axis=-1)
        pad = jnp.broadcast_to(self.pad[...].astype(pooled.dtype), shape)
        return jnp.concatenate([pooled, pad], axis=-1)

    def _concatenated(self, x, units):
        """The last ``max_unit`` positions of each unit side by side, zeros before its start."""
        B, S = units.last.shape
        back = units.last[:, :, None] - jnp.arange(self.stage.max_unit)[::-1]
        at = jnp.maximum(back, 0).reshape(B, -1)
        inside = take(units.unit_of, at).reshape(back.shape) == jnp.arange(S)[None, :, None]
        pieces = take(x, at).reshape(*back.shape, -1)
        return jnp.where((inside & (back >= 0))[..., None], pieces, 0).reshape(B, S, 1, -1)


class Unpool(nnx.Module):
    """``StageConfig.unpool``: units' memories, and how positions read them."""

    def __init__(self, stage: StageConfig, inner_width: int, dtype, rngs: nnx.Rngs):
        self.stage, self.dtype = stage, dtype
        d, share = stage.width, inner_width
        self.size = {"cross": stage.slots, "multilinear": 1 + DISTANCES}.get(stage.unpool, 1)
        if stage.unpool == "split":
            share = inner_width // stage.max_unit
        padded = stage.projection != "linear"
        self.norm = None if padded else RMSNorm(inner_width)
        self.leave = None if padded else Linear(share, self.size * d, (None, "embed"), dtype, rngs)
        self.vectors = {"split": stage.max_unit, "prefix": stage.slots}.get(stage.unpool, self.size)
        null = jax.random.normal(rngs.params(), (self.vectors, d)) * 0.02
        self.null = parameter(null, None, "embed")
        pad = stage.unpool == "split"
        self.pad = parameter(jnp.zeros((d,)), "embed") if pad else None
        # Starts at nothing: at first, all comes through the units (H-Net).
        smooth = stage.unpool == "smooth"
        self.beside = Linear(d, d, ("embed", None), jnp.float32, rngs, 0.0) if smooth else None

    def memory(self, z: jax.Array) -> jax.Array:
        """z ``[B, S, positions of the inner trunk, D]`` to memories ``[B, S, m, d]``."""
        if self.leave is None:
            learned, d = self.stage.projection == "learned_pad", self.stage.width
            return z[..., :d] if learned else z[..., -d:]
        z = self.norm(z)
        if self.stage.unpool == "split":
            z = z.reshape(*z.shape[:2], self.stage.max_unit, -1)
        return self.leave(z).reshape(*z.shape[:2], self.vectors, self.stage.width)

    def before_any(self, batch: int) -> jax.Array:
        """The memory of the null unit, ``[batch, 1, m, d]``."""
        null = self.null[...].astype(self.dtype)
        return jnp.broadcast_to(null, (batch, 1, *null.shape))

    def smoothed(self, made: jax.Array, p: jax.Array, before: jax.Array) -> jax.Array:
        """Memories ``[B, S, 1, d]`` as averages with the ones before them (H-Net, 2507.07955,
        equation 5): each counts by its probability p ``[B, S]``, the average before it, at first
        ``before [B, 1, d]``, by the rest."""
        p = p[..., None, None]

        def join(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        kept, added = jax.lax.associative_scan(join, (1 - p, p * made.astype(jnp.float32)), axis=1)
        return (added + kept * before[:, None]).astype(made.dtype)

    def __call__(self, x, memory, reads, boundary, since, p=None) -> jax.Array:
        """What the decoder starts from, ``[B, T, d]``.

        x ``[B, T, d]``: the encoder's states, or embeddings; memory ``[B, U, m, d]``; reads
        ``[B, T]``: which of U; boundary, since as in Segmentation; p ``[B, T]``: the probability of
        a boundary, for smooth.
        """
        kind = self.stage.unpool
        if kind == "cross":
            return x
        if kind == "split":
            x = jnp.where(boundary[..., None], self.pad[...].astype(x.dtype), x)
            return x + _pick(memory, reads, jnp.minimum(since, self.vectors - 1))
        if kind == "prefix":
            return jnp.where(boundary[..., None], take(memory[:, :, -1], reads), x)
        read = take(memory[:, :, 0], reads)
        if kind == "smooth":
            # Worth exactly 1, with the gradient of the probability of what was decided.
            sure = jnp.where(boundary, p, 1 - p)
            sure = 1 + (sure - jax.lax.stop_gradient(sure))
            return (read * sure[..., None] + self.beside(x)).astype(x.dtype)
        if kind == "at_end":
            read = jnp.where(boundary[..., None], read, 0)
        elif kind == "multilinear":
            read += _pick(memory, reads, 1 + since % DISTANCES)
        return x + read

    def aside(self, x, memory, reads, boundary, since, p=None) -> jax.Array:
        """The same for asides x ``[B, P, d]``, from what holds where each stands. They never are
        the boundary's own position, which a piece or the unit's vector may fill."""
        if self.stage.unpool in ("split", "prefix"):
            boundary = jnp.zeros_like(boundary)
        return self(x, memory, reads, boundary, since, p)


def _pick(memory, reads, which):
    """``memory[b, reads[b, t], which[b, t]]``."""
    B, U, m, d = memory.shape
    return take(memory.reshape(B, U * m, d), reads * m + which)
