"""Stacks of pre-norm blocks, scanned: the flat trunk, and the levels of an hourglass.

Letters: B batch, T positions, N new ones, d width.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from octavo.configs.model import ModelConfig
from octavo.model.axes import POSITIONS, constrain
from octavo.model.kernels import MaskSpec
from octavo.model.layers import (
    KEPT_HIDDEN,
    KEPT_MIXED,
    KEPT_QKV,
    Execution,
    Linear,
    RMSNorm,
    take,
)
from octavo.model.mixers import Mixer, Rows, Step, angles_of, mixer

ACTIVATIONS = {
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}


class UnitAttention(nnx.Module):
    """Attention of positions to the slots of one unit each (BLT, 2412.09871, as its decoder reads
    patches: a softmax over the slots of the newest complete unit, without positions)."""

    def __init__(self, config: ModelConfig, dtype, rngs: nnx.Rngs):
        d = config.width
        self.heads, self.head_size = config.heads, config.head_size
        self.norm = RMSNorm(d, config.norm_eps)
        self.memory_norm = RMSNorm(d, config.norm_eps)
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
        up = checkpoint_name(self.up(x), KEPT_HIDDEN)
        if self.gate is None:
            return self.down(self.activation(up))
        return self.down(self.activation(checkpoint_name(self.gate(x), KEPT_HIDDEN)) * up)


class Block(nnx.Module):
    """Pre-norm residual block; ``cross_attends`` puts attention to a unit's slots first."""

    def __init__(
        self, config: ModelConfig, execution: Execution, kind: type[Mixer], spec: MaskSpec,
        cross_attends: bool, rngs: nnx.Rngs,
    ):  # fmt: skip
        dtype = execution.dtype
        self.cross_attention = UnitAttention(config, dtype, rngs) if cross_attends else None
        self.mixer_norm = RMSNorm(config.width, config.norm_eps)
        self.mixer = kind(config, execution, rngs, spec)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config, dtype, rngs)

    def _read(self, x, memory):
        return x if self.cross_attention is None else x + self.cross_attention(x, *memory)

    def __call__(self, x, rows: Rows, memory):
        x = self._read(x, memory)
        x = x + self._mixed(self.mixer_norm(x), rows)
        return x + self.mlp(self.mlp_norm(x))

    def _mixed(self, x, rows: Rows):
        if rows.packing is None or self.mixer.packs:
            return self.mixer(x, rows)
        return rows.packed(self.mixer(rows.unpacked(x), rows.whole()))

    def extend(self, x, cache, layer, step: Step, memory):
        x = self._read(x, memory)
        mixed, cache, found = self.mixer.extend(self.mixer_norm(x), cache, layer, step)
        x = (x if step.query_at is None else take(x, step.query_at)) + mixed
        return x + self.mlp(self.mlp_norm(x)), cache, found


def _keeping(*names: str):
    return functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(*names)
    )


REMAT = {
    "none": lambda function: function,
    "dots": functools.partial(
        jax.checkpoint,
        policy=jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            jax.checkpoint_policies.save_only_these_names(KEPT_MIXED),
        ),
    ),
    "inner": _keeping(KEPT_MIXED, KEPT_HIDDEN),
    "qkv": _keeping(KEPT_MIXED, KEPT_HIDDEN, KEPT_QKV),
    "full": jax.checkpoint,
}


@jax.tree_util.register_pytree_node_class
class Layers(tuple):
    """A parameter of each layer, where a stack of all was taken apart."""

    def tree_flatten(self):
        return tuple(self), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(leaves)


def layer_of(layers, i: int):
    """Those of layer i, of parameters that are stacked or were taken apart."""
    is_apart = lambda leaf: isinstance(leaf, Layers)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf[i], layers, is_leaf=is_apart)


class Transformer(nnx.Module):
    """A stack of blocks whose mixers follow ``config.mixers``, over and over. Parameters of all
    layers of a place in that pattern lie stacked on a leading axis, whether the stack is scanned or
    unrolled, so both read the same checkpoint.

    depth: of how many layers residual branches start as small as; None: its own. causal: False for
    encoders that look at whole segments. cross_attends: the blocks attend to
    units. plus_one: attention with softmax1, and scores of keys may be biased. extra: rows may hold
    extra positions (MaskSpec). Raises ConfigError if a mixer cannot serve.
    """

    def __init__(
        self, config: ModelConfig, execution: Execution, rngs: nnx.Rngs,
        causal: bool = True, cross_attends: bool = False, plus_one: bool = False,
        extra: bool = False, depth: int | None = None,
    ):  # fmt: skip
        self.config, self.dtype = config, execution.dtype
        self.causal, self.plus_one = causal, plus_one
        self.remat, self.scan_layers = execution.remat, execution.scan_layers
        same = len(set(config.mixers)) == 1
        self.kinds = config.mixers[:1] if same else config.mixers[: config.layers]
        keys = jax.random.split(rngs.params(), max(config.layers, 1))
        if not config.layers:
            self.blocks = None
            return
        spec = MaskSpec(
            causal=causal, window=config.window, plus_one=plus_one,
            extra=(1, 1, True) if extra else None,
        )  # fmt: skip

        deep = config if depth is None else dataclasses.replace(config, layers=depth)

        def stacked(kind: str, keys):
            make = lambda key: Block(  # noqa: E731
                deep, execution, mixer(kind), spec, cross_attends, nnx.Rngs(params=key)
            )
            return nnx.vmap(make)(keys)

        P = len(self.kinds)
        places = [stacked(kind, keys[i::P]) for i, kind in enumerate(self.kinds)]
        self.blocks = places[0] if P == 1 else nnx.List(places)

    @staticmethod
    def flops(
        config: ModelConfig, length: float, causal: bool = True, row: float | None = None
    ) -> float:
        """Of a stack over one row of ``length`` positions, forward. row: positions of the row in
        which they are mixed, if it has more (or, packed, fewer)."""
        mlp = 2 * length * config.width * config.hidden_width * (3 if config.gated_mlp else 2)
        P = len(config.mixers)
        kinds = (mixer(config.mixers[i % P]) for i in range(config.layers))
        row = length if row is None else row
        return mlp * config.layers + sum(
            kind.flops(config, row, causal) + (length - row) * kind.flops_alone(config)
            for kind in kinds
        )

    def _places(self) -> list[tuple[Any, Any]]:
        """Definition and stacked parameters of the blocks at each place of the pattern."""
        blocks: Any = self.blocks
        places = [blocks] if len(self.kinds) == 1 else blocks
        return [nnx.split(place) for place in places]

    def __call__(
        self, x: jax.Array, positions: jax.Array, segment_ids: jax.Array, memory=None,
        key_bias=None, extra=None, packing=None, rare: bool = False,
    ) -> jax.Array:  # fmt: skip
        """x ``[B, T, d]``, positions and segment_ids ``[B, T]`` integers; returns ``[B, T, d]``.

        memory: for blocks that attend to units, their slots ``[B, U, slots, d]`` and which unit
        each position reads, ``[B, T]``. key_bias ``[B, T]``, extra: see MaskSpec. packing: x and
        positions are of packed rows, ``[G, L]``. rare: this seldom runs, so it is to be compiled
        fast and to keep little.
        """
        if self.blocks is None:
            return x
        blocks = self.applied(positions, segment_ids, memory, key_bias, extra, packing)
        remat = REMAT["full" if rare else self.remat]
        applies = [remat(apply) for apply, _ in blocks]
        layers = [stacked for _, stacked in blocks]

        def period(x, layers):
            for apply, layer in zip(applies, layers, strict=False):
                x = apply(layer, x)
            return x

        def through(x, layers):
            whole, rest = divmod(self.config.layers, len(self.kinds))
            if self.scan_layers or rare:
                repeated = [jax.tree.map(lambda leaf: leaf[:whole], place) for place in layers]
                x = lax.scan(lambda x, at: (period(x, at), None), x, repeated)[0]
            else:
                for i in range(whole):
                    x = period(x, [layer_of(place, i) for place in layers])
            return period(x, [layer_of(place, whole) for place in layers[:rest]])

        # What one program keeps, the others that may run in its place fill with zeros.
        return (jax.checkpoint(through) if rare else through)(x, layers)

    def applied(self, positions, segment_ids, memory=None, key_bias=None, extra=None, packing=None):
        """For each place of the pattern ``apply(layer, x)``, one block, and the layers to scan it
        over."""
        spec = MaskSpec(
            segment_ids, self.causal, self.config.window, key_bias, self.plus_one, extra
        )
        rows = Rows(angles_of(self.config, positions), spec, packing)

        def block(definition, layers):
            def apply(layer, x):
                return constrain(nnx.merge(definition, layer)(x, rows, memory), *POSITIONS)

            return apply, layers

        return [block(*place) for place in self._places()]

    def init_cache(self, batch: int, slots: int) -> list[dict]:
        """An empty cache for ``slots`` positions of each of ``batch`` rows, by place of the
        pattern."""
        config, P = self.config, len(self.kinds)
        layers = [len(range(i, config.layers, P)) for i in range(P)]
        return [
            mixer(kind).init_cache(config, count, batch, slots, self.dtype)
            for kind, count in zip(self.kinds, layers, strict=True)
        ]

    def extend(
        self, x: jax.Array, cache: list[dict], length: jax.Array, first: jax.Array, memory=None,
        positions=None, key_bias=None, isolated=False,
    ) -> tuple[jax.Array, dict]:  # fmt: skip
        """Continue rows that already hold ``length [B]`` positions by x ``[B, N, d]``.

        Equal to the parallel pass over the whole rows, read at the last N positions, where each
        sees from position ``first [B, N]`` on. The cache must have room for ``length + N``; what
        lies beyond is overwritten before it is read. positions ``[B, N]``: where they are not
        ``length`` and on. key_bias ``[B, slots]``: of the whole cache. isolated: of the N, each
        sees itself only. Also what ``settle`` makes the longer cache of.
        """
        if self.blocks is None:
            return x, {"cache": cache, "found": []}
        if positions is None:
            positions = length[:, None] + jnp.arange(x.shape[1])[None]
        blocks = self.extended(positions, length, first, memory, key_bias, isolated)
        extends, layers = zip(*blocks, strict=True)

        def period(carry, number, layers):
            (x, caches), found = carry, []
            for place, (extend, layer) in enumerate(zip(extends, layers, strict=False)):
                x, new, more = extend(number, layer, x, caches[place])
                caches = [*caches[:place], new, *caches[place + 1 :]]
                found.append(more)
            return (x, caches), found

        whole, rest = divmod(self.config.layers, len(self.kinds))
        carry = x, cache
        if self.scan_layers:
            repeated = [jax.tree.map(lambda leaf: leaf[:whole], place) for place in layers]
            carry, found = lax.scan(
                lambda carry, at: period(carry, *at), carry, (jnp.arange(whole), repeated)
            )
        else:
            each = []
            for i in range(whole):
                carry, more = period(carry, i, [layer_of(place, i) for place in layers])
                each.append(more)
            found = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        if rest:
            last = [layer_of(place, whole) for place in layers[:rest]]
            carry, more = period(carry, whole, last)
            found[:rest] = jax.tree.map(
                lambda leaf, one: jnp.concatenate([leaf, one[None]]), found[:rest], more
            )
        return carry[0], {"cache": carry[1], "found": found}

    def extended(
        self, positions, length, first, memory=None, key_bias=None, isolated=False, query_at=None
    ):
        """For each place of the pattern ``extend(number, layer, x, cache) -> (x, cache, found)``,
        one block with the cache of all at its place, and the layers to scan it over. query_at
        ``[B, 1]``: the only position whose x is wanted."""
        step = Step(angles_of(self.config, positions), length, first, key_bias, isolated, query_at)

        def block(definition, layers):
            def extend(number, layer, x, cache):
                return nnx.merge(definition, layer).extend(x, cache, number, step, memory)

            return extend, layers

        return [block(*place) for place in self._places()]

    def settle(self, pending: dict, kept: jax.Array) -> list[dict]:
        """The cache after the first ``kept [B]`` of the new positions of ``extend``: as if no
        others had come."""
        if self.blocks is None:
            return pending["cache"]
        return [
            mixer(kind).settle(cache, found, kept)
            for kind, cache, found in zip(
                self.kinds, pending["cache"], pending["found"], strict=True
            )
        ]
