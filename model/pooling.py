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

DISTANCES = 16
"""How many distances multilinear unpooling tells apart (AU-Net, 2506.14761)."""


def sum_by_unit(x: jax.Array, unit_of: jax.Array, units: int) -> jax.Array:
    """Sums of x ``[B, T, ...]`` over the positions of each unit, ``[B, units, ...]`` float32."""
    add = lambda x, ids: jax.ops.segment_sum(x, ids, units, indices_are_sorted=True)  # noqa: E731
    return jax.vmap(add)(x.astype(jnp.float32), unit_of)


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


class Pool(nnx.Module):
    """``StageConfig.pool``, then the step to the inner width."""

    def __init__(self, stage: StageConfig, inner_width: int, dtype, rngs: nnx.Rngs):
        self.stage, self.inner_width = stage, inner_width
        self.cross = CrossPool(stage, dtype, rngs) if stage.pool == "cross" else None
        joined = stage.width * (stage.slots if stage.pool == "cross" else 1)
        share = inner_width // stage.max_unit if stage.pool == "concat" else inner_width
        padded = stage.projection == "pad"
        self.norm = None if padded else RMSNorm(joined)
        self.enter = None if padded else Linear(joined, share, ("embed", None), dtype, rngs)

    def __call__(self, x: jax.Array, units: Segmentation) -> jax.Array:
        """x ``[B, T, d]``, or ``[B, S, slots, d]`` where the encoder made the slots; returns
        ``[B, S, slots, D]`` for prefix, ``[B, S, 1, D]`` otherwise."""
        kind = self.stage.pool
        if kind == "concat":
            return self._concatenated(self.enter(self.norm(x)), units)
        if kind == "prefix":
            pooled = x
        elif kind == "cross":
            pooled = self.cross(x, units)
        elif kind == "last":
            pooled = take(x, units.last)[:, :, None]
        else:
            S = units.last.shape[1]
            count = sum_by_unit(jnp.ones_like(x[..., :1]), units.unit_of, S)
            mean = sum_by_unit(x, units.unit_of, S) / jnp.maximum(count, 1)
            pooled = mean.astype(x.dtype)[:, :, None]
        if self.enter is None:
            front = self.inner_width - self.stage.width
            return jnp.pad(pooled, ((0, 0), (0, 0), (0, 0), (front, 0)))
        return self.enter(self.norm(pooled))

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
        padded = stage.projection == "pad"
        self.norm = None if padded else RMSNorm(inner_width)
        self.leave = None if padded else Linear(share, self.size * d, (None, "embed"), dtype, rngs)
        self.vectors = {"split": stage.max_unit, "prefix": stage.slots}.get(stage.unpool, self.size)
        null = jax.random.normal(rngs.params(), (self.vectors, d)) * 0.02
        self.null = parameter(null, None, "embed")
        pad = stage.unpool == "split"
        self.pad = parameter(jnp.zeros((d,)), "embed") if pad else None

    def memory(self, z: jax.Array) -> jax.Array:
        """z ``[B, S, positions of the inner trunk, D]`` to memories ``[B, S, m, d]``."""
        if self.leave is None:
            return z[..., -self.stage.width :]
        z = self.norm(z)
        if self.stage.unpool == "split":
            z = z.reshape(*z.shape[:2], self.stage.max_unit, -1)
        return self.leave(z).reshape(*z.shape[:2], self.vectors, self.stage.width)

    def before_any(self, batch: int) -> jax.Array:
        """The memory of the null unit, ``[batch, 1, m, d]``."""
        null = self.null[...].astype(self.dtype)
        return jnp.broadcast_to(null, (batch, 1, *null.shape))

    def __call__(self, x, memory, reads, boundary, since) -> jax.Array:
        """What the decoder starts from, ``[B, T, d]``.

        x ``[B, T, d]``: the encoder's states, or embeddings; memory ``[B, U, m, d]``; reads
        ``[B, T]``: which of U; boundary, since as in Segmentation.
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
        if kind == "at_end":
            read = jnp.where(boundary[..., None], read, 0)
        elif kind == "multilinear":
            read += _pick(memory, reads, 1 + since % DISTANCES)
        return x + read


def _pick(memory, reads, which):
    """``memory[b, reads[b, t], which[b, t]]``."""
    B, U, m, d = memory.shape
    return take(memory.reshape(B, U * m, d), reads * m + which)
