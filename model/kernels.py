"""Attention: one function, one small mask spec, several kernels.

``attention(q, k, v, spec)`` computes softmax(q k^T / sqrt(D)) v where the spec allows it. A kernel
that cannot honour a field of the spec raises; none ever ignores one.

Letters: B batch, T positions, H query heads, K key/value heads, G = H / K, D head size.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from octavo.configs.checks import ConfigError
from octavo.model import cudnn
from octavo.model.axes import ACTIVATIONS, POSITIONS, ROWS, divides, mesh_axes, split
from octavo.model.layers import KEPT_MIXED, KEPT_QKV

MASKED = -1e30
"""Score of a hidden key. Finite, so that a row that sees nothing gives no NaN."""


@dataclass(frozen=True)
class MaskSpec:
    """Which keys a query sees.

    causal: query t sees keys at or before t. window: and only those at distances below ``window``
    (to both sides if not causal). segment_ids ``[B, T]`` integers: and only keys of its own
    segment. key_bias ``[B, T]`` float32: added to every score of a key. plus_one: softmax with 1
    added to the denominator (softmax1), so that a query may attend to nothing. extra
    (every, count, isolated): after every ``every`` positions stand ``count`` that are seen by none
    but themselves and, unless isolated, the later ones of the same place; windows do not count
    them.
    """

    segment_ids: jax.Array | None = None
    causal: bool = True
    window: int | None = None
    key_bias: jax.Array | None = None
    plus_one: bool = False
    extra: tuple[int, int, bool] | None = None


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, spec: MaskSpec, backend: str = "reference"
) -> jax.Array:
    """Masked softmax attention.

    q ``[B, T, H, D]``, k and v ``[B, T, K, D]`` with K dividing H; the result ``[B, T, H, D]`` has
    q's dtype, the softmax is float32. Raises ValueError for an unknown backend or where the
    backend cannot honour the spec.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; known: {', '.join(BACKENDS)}")
    if why := why_not(backend, spec, q.dtype, q.shape[-1]):
        raise ValueError(f"attention backend {backend} cannot serve: {why}")
    if backend != "splash":  # which turns them first
        q, k, v = (checkpoint_name(x, KEPT_QKV) for x in (q, k, v))
    return BACKENDS[backend](q, k, v, spec)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    visible: jax.Array,
    key_bias: jax.Array | None = None,
    plus_one: bool = False,
    cached: bool = False,
) -> jax.Array:
    """Dense attention of a few queries: q ``[B, N, H, D]``, k and v heads first, ``[B, K, S, D]``,
    visible boolean, ``[B or 1, N, S]``, key_bias ``[B, S]`` and plus_one as in MaskSpec. Used block
    by block here, and by decoding. cached: k is ``[B, K, D, S]``, and there is no gradient."""
    B, N, H, D = q.shape
    K, G = k.shape[1], H // k.shape[1]
    # Heads first; the G query heads of a key head become rows of one product.
    q = q.reshape(B, N, K, G, D).transpose(0, 2, 3, 1, 4).reshape(B, K, G * N, D)
    visible = jnp.tile(visible, (1, G, 1))[:, None]
    if key_bias is not None:
        key_bias = key_bias[:, None, None]
    q = q * jnp.asarray(1 / math.sqrt(D), q.dtype)
    if cached:
        mixed: Any = _mixed(plus_one, _scores(q, k, key_bias, visible, "bkds"), v)[0]
    else:
        mixed = _softmax_product(plus_one, q, k, v, key_bias, visible)
    return mixed.reshape(B, K, G, N, D).transpose(0, 3, 1, 2, 4).reshape(B, N, H, D)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _softmax_product(plus_one, q, k, v, bias, visible) -> Any:
    """softmax(q k^T + bias) v per head; q ``[B, K, R, D]``, k, v ``[B, K, S, D]``, bias
    ``[B, 1, 1, S]`` or None."""
    return _softmax_product_forward(plus_one, q, k, v, bias, visible)[0]


def _softmax_product_forward(plus_one, q, k, v, bias, visible):
    mixed, log_total = _mixed(plus_one, _scores(q, k, bias, visible), v)
    return mixed, (q, k, v, bias, visible, mixed, log_total)


def _mixed(plus_one, scores, v):
    """Values mixed by the softmax of scores ``[B, K, R, S]``, and its log-normalizer."""
    top = jnp.max(scores, axis=-1, keepdims=True)
    if plus_one:
        top = jnp.maximum(top, 0)
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if plus_one:
        total += jnp.exp(-top)
    mixed = jnp.einsum("bkrs,bksd->bkrd", weights.astype(v.dtype), v) / total.astype(v.dtype)
    return mixed, top + jnp.log(total)


def _softmax_product_backward(plus_one, kept, gradient):
    # The weights are computed again rather than kept: R x S numbers a head are what the machine
    # spends its time on, not the products (as in FlashAttention, Dao et al. 2022).
    q, k, v, bias, visible, mixed, log_total = kept
    weights = jnp.exp(_scores(q, k, bias, visible) - log_total)
    d_weights = jnp.einsum("bkrd,bksd->bkrs", gradient, v, preferred_element_type=jnp.float32)
    shared = jnp.sum((gradient * mixed).astype(jnp.float32), axis=-1, keepdims=True)
    d_raw = weights * (d_weights - shared)
    d_bias = None if bias is None else jnp.sum(d_raw, axis=(1, 2), keepdims=True)
    d_scores = d_raw.astype(q.dtype)
    dq = jnp.einsum("bkrs,bksd->bkrd", d_scores, k)
    dk = _over_queries(q, d_scores)
    dv = _over_queries(gradient, weights.astype(v.dtype))
    return dq, dk, dv, d_bias, None


def _over_queries(x, weights):
    """x ``[B, K, R, D]`` mixed by weights ``[B, K, R, S]`` over R: ``[B, K, S, D]``."""

    def turned(x, weights):
        # Over its last axis, with the narrower factor first, XLA has a fast product on CPU; the
        # barriers keep it from making the other one of it again.
        x = lax.optimization_barrier(x.swapaxes(2, 3))
        return lax.optimization_barrier(jnp.einsum("bkdr,bkrs->bkds", x, weights)).swapaxes(2, 3)

    return lax.platform_dependent(
        x, weights, cpu=turned, default=functools.partial(jnp.einsum, "bkrd,bkrs->bksd")
    )


def _scores(q, k, bias, visible, key_axes="bksd"):
    scores = jnp.einsum(f"bkrd,{key_axes}->bkrs", q, k, preferred_element_type=jnp.float32)
    return jnp.where(visible, scores if bias is None else scores + bias, MASKED)


_softmax_product.defvjp(_softmax_product_forward, _softmax_product_backward)


def _reference(q: jax.Array, k: jax.Array, v: jax.Array, spec: MaskSpec) -> jax.Array:
    """By XLA, which splits rows and heads by itself."""
    if not _shared(q):
        narrow = spec.window is not None and spec.window <= NARROW and spec.extra is None
        return (_banded if narrow else _blocked)(q, k, v, spec)

    def local(q, k, v, first, *rows):
        ids, bias = rows if len(rows) > 1 else (*rows, None)
        return _blocked(q, k, v, replace(spec, segment_ids=ids, key_bias=bias), first)

    ids, bias = spec.segment_ids, spec.key_bias
    ids = jnp.zeros(q.shape[:2], jnp.int32) if ids is None else ids
    return _per_shard(local, q, k, v, ids, *([] if bias is None else [bias]))


NARROW = 128
"""Windows up to which ``_banded`` serves; in wider ones it would read more than is seen."""


def _banded(q, k, v, spec: MaskSpec) -> jax.Array:
    """Blocks of queries side by side, each with the blocks of keys that its window reaches: the
    work and the gradients are linear in T, and all blocks are one product."""
    (B, T, H, D), K, window = q.shape, k.shape[2], spec.window or 0
    block = 32 if window <= 33 else -(-(window - 1) // 2 // 16) * 16
    count, reach = -(-T // block), -(-(window - 1) // block)
    sides = (reach, 0 if spec.causal else reach)

    def blocks(x):
        """x ``[B, T, ...]`` to ``[B, count, block, ...]``."""
        x = jnp.pad(x, [(0, 0), (0, count * block - T)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(B, count, block, *x.shape[2:])

    def around(x, axis):
        """Behind blocks on ``axis``, each joined with its neighbours."""
        widths = [(0, 0)] * x.ndim
        widths[axis] = sides
        x = jnp.pad(x, widths)
        shifted = [lax.slice_in_dim(x, i, i + count, axis=axis) for i in range(sum(sides) + 1)]
        return jnp.concatenate(shifted, axis=axis + 1)

    seen = np.arange(-sides[0] * block, (1 + sides[1]) * block)
    places = np.arange(count)[:, None, None] * block + seen
    visible = _visible(np.arange(block)[:, None], seen, spec) & (places >= 0) & (places < T)
    ids = jnp.zeros((B, T), jnp.int32) if spec.segment_ids is None else spec.segment_ids
    visible &= blocks(ids)[..., None] == around(blocks(ids), 1)[:, :, None]
    bias = None
    if spec.key_bias is not None:
        bias = around(blocks(spec.key_bias), 1).reshape(B * count, -1)
    # Heads first: what is joined lies in long runs.
    known, values = (around(blocks(x).transpose(0, 3, 1, 2, 4), 2) for x in (k, v))
    known, values = (x.swapaxes(1, 2).reshape(B * count, K, -1, D) for x in (known, values))
    mixed = attend(
        blocks(q).reshape(B * count, block, H, D), known, values,
        visible.reshape(B * count, block, -1), bias, spec.plus_one,
    )  # fmt: skip
    return mixed.reshape(B, count * block, H, D)[:, :T]


def _blocked(q, k, v, spec: MaskSpec, first: jax.Array | None = None) -> jax.Array:
    """Query blocks that read only the keys they may see: half the work of a dense mask when
    causal, and linear in T with a window. first: of the rows' positions, the first one of q, where
    that has some of them only; which keys they see is known too late to leave others out but by a
    window."""
    T, keys = q.shape[1], k.shape[1]
    block = max(128, -(-T // 16 // 128) * 128)
    if spec.window is not None:
        block = max(128, min(block, spec.window))
    outputs = []
    starts = range(0, T, block)
    # Cut at once: gradients of the blocks are joined, where those of slices would be added up.
    queries = lax.split(q, [min(block, T - start) for start in starts], axis=1)
    for start, some in zip(starts, queries, strict=True):
        stop = min(start + block, T)
        reach = keys if spec.window is None else spec.window - 1
        if spec.extra is not None:
            every, count, _ = spec.extra
            reach += (reach // every + 2) * count
        if first is None:
            low, high = max(0, start - reach), stop if spec.causal else min(T, stop + reach)
            at, size = start, high - low
        else:
            at, size = first + start, min(stop - start + (1 + (not spec.causal)) * reach, keys)
            low = jnp.clip(at - reach, 0, keys - size)
        seen = functools.partial(_places, low=low, size=size)
        queries_at, keys_at = at + np.arange(stop - start), low + np.arange(size)
        visible = jnp.asarray(_visible(queries_at[:, None], keys_at[None], spec)[None])
        if spec.segment_ids is not None:
            own = _places(spec.segment_ids, at, stop - start)
            visible &= own[:, :, None] == seen(spec.segment_ids)[:, None]
        bias = None if spec.key_bias is None else seen(spec.key_bias)
        known, values = (seen(x).transpose(0, 2, 1, 3) for x in (k, v))
        outputs.append(attend(some, known, values, visible, bias, spec.plus_one))
    return jnp.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]


def _places(x, low, size: int):
    """x ``[B, T, ...]`` at so many places from ``low`` on."""
    if isinstance(low, int):
        return x[:, low : low + size]
    return lax.dynamic_slice_in_dim(x, low, size, axis=1)


def _visible(query, key, spec: MaskSpec):
    """Which keys queries see by their places alone; integer arrays that broadcast."""
    distance = query - key
    visible = distance >= 0 if spec.causal else distance == distance
    if spec.extra is not None:
        every, count, isolated = spec.extra
        place, seen_place = query // (every + count), key // (every + count)
        inside, seen = query - place * (every + count), key - seen_place * (every + count)
        own = (place == seen_place) & (inside == seen) if isolated else place == seen_place
        visible &= (seen < every) | own
        # An extra position stands where the last position before it stands.
        before, seen_before = (
            n * every + i - (i - every + 1) * (i >= every)
            for n, i in ((place, inside), (seen_place, seen))
        )
        distance = before - seen_before
    if spec.window is not None:
        visible &= abs(distance) < spec.window
    return visible


SPLASH_BLOCK = 128
"""The smallest block of the kernel; rows are filled up to a multiple of it."""


def _splash(q, k, v, spec: MaskSpec, interpret: bool = False) -> jax.Array:
    """The Pallas TPU kernel: blocks of the mask that hide everything are never visited."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    whole = q.shape[1]
    q = q * jnp.asarray(1 / math.sqrt(q.shape[3]), q.dtype)
    if spec.key_bias is not None:
        q, k = _with_bias(q, k, spec.key_bias)
    parts = split("positions")
    q, k, v, segment_ids = _filled(q, k, v, spec.segment_ids, SPLASH_BLOCK * parts)
    T = q.shape[1]
    # Nothing that is not said by segment ids: every query sees as the first ones do.
    same = not spec.causal and (spec.window is None or spec.window >= T)
    if same:
        mask = masks.FullMask((T // parts, T))
    elif spec.window is not None:
        reach = spec.window - 1
        sides = (reach, 0 if spec.causal else reach)
        mask = masks.LocalMask((T, T), window_size=sides, offset=0)
    else:
        mask = masks.CausalMask((T, T))

    block = next(size for size in (512, 256, SPLASH_BLOCK) if T // parts % size == 0)
    shards = 1 if same else parts

    def made():
        # Not the kernel of all gradients: it makes 5 products with scores where two make 7, but
        # adding up what each of its blocks gives to queries takes longer than that saves.
        return kernel.make_splash_mha(
            mask=masks.MultiHeadMask([mask] * (q.shape[2] // split("heads"))),
            block_sizes=kernel.BlockSizes(
                block_q=block, block_kv=block, block_kv_compute=block,
                block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block,
                block_q_dq=block, block_kv_dq=block,
            ),
            head_shards=1, q_seq_shards=shards, residual_checkpoint_name=KEPT_MIXED,
            interpret=interpret,
        )  # fmt: skip

    def local(q, k, v, first, ids, *given):
        run = given[0] if given else made()
        # The kernel wants heads first, and as many key heads as query heads.
        repeat = q.shape[2] // k.shape[2]
        heads_first = [checkpoint_name(jnp.swapaxes(x, 1, 2), KEPT_QKV) for x in (q, k, v)]
        heads_first[1:] = [jnp.repeat(x, repeat, axis=1) for x in heads_first[1:]]
        ids = kernel.SegmentIds(_places(ids, 0 if first is None else first, q.shape[1]), ids)
        # A sink of score 0 is the 1 of softmax1.
        sinks = jnp.zeros(q.shape[2]) if spec.plus_one else None
        mixed: Any = jax.vmap(functools.partial(run, sinks=sinks))(*heads_first, ids)
        return jnp.swapaxes(mixed, 1, 2).astype(q.dtype)

    return _per_shard(local, q, k, v, segment_ids, *([made()] if shards > 1 else []))[:, :whole]


def _with_bias(q, k, bias):
    """Queries and keys ``[B, T, H, D + 128]`` whose products have a bias of keys ``[B, T]`` added:
    1 times it, in two parts, as bfloat16 has 8 bits; the rest of the lanes stays empty."""
    coarse = bias.astype(q.dtype)
    fine = jax.lax.stop_gradient(bias - coarse.astype(bias.dtype)).astype(q.dtype)
    parts = jnp.stack([coarse, fine], axis=-1)[:, :, None]
    parts = jnp.broadcast_to(parts, (*k.shape[:3], 2))
    ones = jnp.ones((*q.shape[:3], 2), q.dtype)
    empty = ((0, 0), (0, 0), (0, 0), (0, 126))
    return tuple(
        jnp.concatenate([x, jnp.pad(more, empty)], axis=-1) for x, more in ((q, ones), (k, parts))
    )


def _filled(q, k, v, segment_ids, block: int):
    """The same rows filled up to a multiple of ``block`` by a segment of its own, and int32 segment
    ids ``[B, T]``."""
    if segment_ids is None:
        segment_ids = jnp.zeros(q.shape[:2], jnp.int32)
    segment_ids = segment_ids.astype(jnp.int32)
    if missing := -q.shape[1] % block:
        q, k, v = (jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (q, k, v))
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, missing)), constant_values=-1)
    return q, k, v, segment_ids


def _shared(q) -> bool:
    """Whether devices share the rows of q ``[B, T, H, D]``, each with some positions."""
    return split("positions") > 1 and divides(q, POSITIONS)


def _per_shard(function, q, k, v, *rows) -> Any:
    """``function(q, k, v, first, *rows)`` on each device's own rows, heads and positions of q, but
    all keys and values of those rows, for XLA cannot partition a custom kernel. first: which of the
    positions are its own, from there on; None: all. rows: arrays ``[B, T]`` of whole rows, and at
    last maybe a splash kernel."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(q, k, v, None, *rows)
    shared = _shared(q)
    own = ACTIVATIONS.spec(("rows", "positions" if shared else None, "heads"))
    whole = [ACTIVATIONS.spec(ROWS) if isinstance(x, jax.Array) else _kernel_spec(x) for x in rows]

    def local(q, k, v, *rows):
        if not shared:
            return function(q, k, v, None, *rows)
        axes = mesh_axes("positions")
        k, v = (lax.all_gather(x, axes, axis=1, tiled=True) for x in (k, v))
        return function(q, k, v, lax.axis_index(axes) * q.shape[1], *rows)

    return jax.shard_map(
        local, in_specs=(own, own, own, *whole), out_specs=own, check_vma=False
    )(q, k, v, *rows)  # fmt: skip


def _kernel_spec(kernel) -> Any:
    """How a splash kernel's mask lies over devices: like the queries."""
    spec = jax.P(None, ACTIVATIONS.positions)
    mesh = jax.sharding.get_abstract_mesh()
    return kernel.manual_sharding_spec(jax.sharding.NamedSharding(mesh, spec))


CUDNN_BLOCK = 64
"""Rows are filled up to a multiple of it: with a mask, training takes no odd lengths."""


def _cudnn(q, k, v, spec: MaskSpec) -> jax.Array:
    """cuDNN flash attention (model/cudnn.py)."""
    whole = q.shape[1]
    q, k, v, segment_ids = _filled(q, k, v, spec.segment_ids, CUDNN_BLOCK * split("positions"))
    one = spec.segment_ids is None and q.shape[1] == whole
    # Packed sequences want as many key heads as query heads in jax below 0.11.
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))

    def local(q, k, v, first, ids):
        if first is not None:
            return cudnn.masked(spec.causal, q, k, v, ids, first)
        if one:
            return cudnn.causal_or_full(q, k, v, spec.causal)
        by = cudnn.packed if _generation() >= 9 and cudnn.fits(q) else cudnn.masked
        return by(spec.causal, q, k, v, ids)

    return _per_shard(local, q, k, v, segment_ids)[:, :whole]


def _card() -> str:
    """The compute capability of the GPU. Where there is none, of what is compiled for."""
    return getattr(jax.devices()[0], "compute_capability", "9.0")


def _generation() -> int:
    """0: not NVIDIA's."""
    generation = _card().partition(".")[0]
    return int(generation) if generation.isdigit() else 0


BACKENDS = {
    "reference": _reference,
    "splash": _splash,
    "splash_interpret": functools.partial(_splash, interpret=True),
    "cudnn": _cudnn,
}


HOMES = {"splash": "tpu", "cudnn": "gpu"}
"""Where a kernel runs; the others run anywhere."""


def why_not(backend: str, spec: MaskSpec, dtype, head_size: int) -> str | None:
    """Why a kernel cannot compute this, None if it can. Of the spec's arrays none is looked at."""
    if backend == "reference":
        return None
    if spec.extra is not None:
        return "it cannot hide the extra positions of registers and look-ahead tokens"
    if backend != "cudnn":
        return None
    if spec.key_bias is not None or spec.plus_one:
        return "it has no biases of keys and no softmax1, which a delete gate needs"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16, not {jnp.dtype(dtype).name}"
    if head_size % 8 or head_size > 128:
        return f"its head sizes are multiples of 8 up to 128, not {head_size}"
    if spec.window is not None:  # below 9.10, cuDNN has no window beside a mask
        return f"it has no window ({spec.window} here) beside the borders of documents"
    if _generation() < 8:
        return f"it needs an NVIDIA card of compute capability 8.0 or more, not {_card()}"
    return None


def backend_for(choice: str, platform: str, spec: MaskSpec, dtype, head_size: int) -> str:
    """The kernel for a stack on a platform ("cpu", "tpu", "gpu"). "auto": the platform's own where
    it can serve, else the reference. Raises ConfigError if the chosen one cannot."""
    if choice == "auto":
        own = next((name for name, home in HOMES.items() if home == platform), "reference")
        return "reference" if why_not(own, spec, dtype, head_size) else own
    if HOMES.get(choice, platform) != platform:
        raise ConfigError(
            f"execution.attention {choice} runs on {HOMES[choice]}, not on {platform}; use auto."
        )
    if why := why_not(choice, spec, dtype, head_size):
        raise ConfigError(f"execution.attention {choice} cannot serve this model: {why}; use auto.")
    return choice
