"""a gated linear recurrence, Gated DeltaNet, whose state has the same size however much was read.

Yang, Kautz & Hatamizadeh 2024, 2412.06464; the state is one matrix per head:

    S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T,    y_t = S_t q_t

The state maps keys to values. A step lets it decay (a_t), and moves what it holds under k_t towards
v_t (b_t, the delta rule). In other words it adds d_t k_t^T, where d_t = b_t (v_t - a_t S_{t-1} k_t)
is the *delta*. The deltas of a chunk solve a triangular system, after which all else is products of
matrices (the WY representation).

Letters: B batch, N positions, H heads, D head size (Dv, Dk of values and keys), C chunk.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.model.axes import POSITIONS, ROWS, divides, mesh_axes, on_own, split
from octavo.model.kernels import MaskSpec
from octavo.model.layers import (
    EXACT,
    ExactLinear,
    Execution,
    Linear,
    RMSNorm,
    parameter,
    starts_of,
    take,
)
from octavo.model.mixers import Mixer, Rows, Step

CHUNK = 64
"""Positions that the parallel form solves for at once."""
BLOCK = 16
"""Positions that forward substitution takes one by one; from there on, by products of matrices."""
TAPS = 4
"""Positions that the short convolution reads."""


class GatedDelta(Mixer):
    """The whole mixer: short causal convolutions over queries, keys and values, the recurrence in
    float32, and a gated norm per head. Keys and values have ``config.heads`` heads of
    ``config.head_size``.

    Documents are isolated: where one starts, convolution and state start anew.
    """

    uses = ("head_dim",)

    def __init__(self, config: ModelConfig, execution: Execution, rngs: nnx.Rngs, spec: MaskSpec):
        d, H, D, dtype = config.width, config.heads, config.head_size, execution.dtype
        self.heads, self.head_size, self.dtype = H, D, dtype
        names = ("embed", "heads")
        self.query = Linear(d, H * D, names, dtype, rngs)
        self.key = Linear(d, H * D, names, dtype, rngs)
        self.value = Linear(d, H * D, names, dtype, rngs)
        self.gate = Linear(d, H * D, names, dtype, rngs)
        self.out = Linear(H * D, d, names[::-1], dtype, rngs, (2 * config.layers) ** -0.5)

        def taps():
            weight = jax.random.normal(rngs.params(), (TAPS, H * D)) * TAPS**-0.5
            return parameter(weight, None, "heads")

        self.query_taps, self.key_taps, self.value_taps = taps(), taps(), taps()
        # Exact: decays multiply up, and with them any rounding.
        self.dt = ExactLinear(d, H, names, rngs)
        self.beta = ExactLinear(d, H, names, rngs)
        # As in Mamba-2 (2405.21060): heads begin with memories of one to a thousand positions.
        dt = jnp.exp(
            jax.random.uniform(rngs.params(), (H,), minval=jnp.log(0.001), maxval=jnp.log(0.1))
        )
        self.dt_bias = parameter(dt + jnp.log(-jnp.expm1(-dt)), "heads")
        scale = jax.random.uniform(rngs.params(), (H,), minval=1, maxval=16)
        self.A_log = parameter(jnp.log(scale), "heads")
        self.norm = RMSNorm(D, config.norm_eps)

    def __call__(self, x: jax.Array, rows: Rows) -> jax.Array:
        nothing = _empty((len(x),), self.heads, self.head_size, self.dtype)
        return self._continued(x, nothing, starts_of(rows.segment_ids))[0]

    @staticmethod
    def init_cache(config: ModelConfig, layers: int, batch: int, slots: int, dtype) -> dict:
        """state ``[layers, B, H, Dv, Dk]`` float32; recent ``[layers, B, 3, 3, H * D]``: queries,
        keys and values of the last three positions, before the convolution."""
        return _empty((layers, batch), config.heads, config.head_size, dtype)

    def extend(self, x, cache, layer, step: Step):
        own = {
            name: lax.dynamic_index_in_dim(leaf, layer, 0, False) for name, leaf in cache.items()
        }
        at = step.length[:, None] + jnp.arange(x.shape[1])
        y, found = self._continued(x, own, step.first == at)
        return y, cache, found

    @staticmethod
    def settle(cache: dict, found: dict, kept: jax.Array) -> dict:
        return jax.vmap(_settled, (0, 0, None))(cache, found, kept)

    def _continued(self, x: jax.Array, cache: dict, starts: jax.Array) -> tuple[jax.Array, dict]:
        """Continue rows by x ``[B, N, d]``; starts ``[B, N]`` booleans: a document starts here, and
        all that came before is forgotten. Also what ``settle`` needs."""
        B, N, _ = x.shape
        split = (B, N, self.heads, self.head_size)
        new = jnp.stack([self.query(x), self.key(x), self.value(x)], axis=2)
        taps = (self.query_taps, self.key_taps, self.value_taps)
        taps = jnp.stack([weight[...] for weight in taps], axis=1)
        convolved = convolution(cache["recent"], new, starts, taps)
        q, k, v = (part.reshape(split) for part in jnp.moveaxis(convolved, 2, 0))
        q, k = _normalized(q), _normalized(k)
        log_decay = -jax.nn.softplus(self.dt(x) + self.dt_bias[...]) * jnp.exp(self.A_log[...])
        beta = jax.nn.sigmoid(self.beta(x))
        y, delta = gated_delta(q, k, v, log_decay, beta, starts, cache["state"])
        gate = jax.nn.silu(self.gate(x).astype(jnp.float32)).reshape(split)
        y = self.out((self.norm(y) * gate).reshape(B, N, -1))
        found = {
            "new": new, "starts": starts, "log_decay": log_decay, "key": k, "delta": delta,
        }  # fmt: skip
        return y, found

    @staticmethod
    def flops(config: ModelConfig, length: float, causal: bool = True) -> float:
        """FLOPs of a forward pass over one row of ``length`` positions, as computed: chunks are
        padded, and products take the hidden half along."""
        d, H, D, C = config.width, config.heads, config.head_size, _chunk_size(math.ceil(length))
        projections = d * (5 * H * D + 2 * H)
        convolution = TAPS * 3 * H * D
        # Keys with keys, queries with keys, the solution and its use; decays; products with states.
        chunk = 5 * C * D + 2 * C + 3 * D * D + _inverse_products(C)
        padded = -(-length // C) * C
        return 2 * length * (projections + convolution) + 2 * padded * H * chunk


def _empty(rows: tuple, H: int, D: int, dtype) -> dict:
    return {
        "state": jnp.zeros((*rows, H, D, D)),
        "recent": jnp.zeros((*rows, TAPS - 1, 3, H * D), dtype),
    }


def _settled(cache: dict, found: dict, kept: jax.Array) -> dict:
    """One layer's cache after the first ``kept [B]`` (0 to N) of the positions that made
    ``found``."""
    N = found["starts"].shape[1]
    inputs = jnp.concatenate([cache["recent"], found["new"]], axis=1)
    here = (jnp.arange(N) < kept[:, None])[..., None]
    starts = found["starts"][..., None] & here
    log_decay = jnp.where(here, found["log_decay"], 0)
    carried, weight = _to_end(log_decay.mT, starts.mT)
    weight = jnp.where(here, weight.mT, 0)[..., None]
    state = cache["state"] * carried[..., None, None] + jnp.einsum(
        "bnhv,bnhk->bhvk", found["delta"] * weight, found["key"], precision=EXACT
    )
    at = kept[:, None] + jnp.arange(TAPS - 1)
    places = jnp.arange(TAPS - 1, TAPS - 1 + N)[:, None]
    newest_start = jnp.max(jnp.where(starts, places, 0), axis=1)
    known = (at >= newest_start)[:, :, None, None]
    return {"state": state, "recent": jnp.where(known, take(inputs, at), 0)}


def convolution(recent, new, starts, taps):
    """SiLU of the causal depthwise convolution, in float32, of new ``[B, N, 3, H * D]`` behind
    recent ``[B, 3, 3, H * D]``; taps ``[TAPS, 3, H * D]``."""
    if not _shared(new) or new.shape[1] < split("positions") * (TAPS - 1):
        return _convolution(recent, new, starts, taps)
    names, own = (ROWS, POSITIONS, POSITIONS, ()), functools.partial(_convolution, shared=True)
    return on_own(own, (recent, new, starts, taps), names, POSITIONS)


def _convolution(recent, new, starts, taps, shared: bool = False):
    """The same; shared: of the positions that this device has of rows that several share."""
    N, begun = starts.shape[1], jnp.zeros_like(starts, shape=(len(starts), TAPS - 1))
    if shared:
        axes = mesh_axes("positions")
        number, count = lax.axis_index(axes), lax.axis_size(axes)
        # To the next device; zeros come to the first.
        last, begun = (
            lax.ppermute(x[:, 1 - TAPS :], axes, [(i, i + 1) for i in range(count - 1)])
            for x in (new, starts)
        )
        recent = jnp.where(number == 0, recent, last)
    inputs = jnp.concatenate([recent, new], axis=1)
    document = jnp.cumsum(jnp.concatenate([begun, starts], axis=1), axis=1)
    total = 0.0
    for back in range(TAPS):
        there = slice(TAPS - 1 - back, TAPS - 1 - back + N)
        same = document[:, there] == document[:, TAPS - 1 :]
        total += taps[back] * jnp.where(same[:, :, None, None], inputs[:, there], 0)
    return jax.nn.silu(total)


def _shared(x) -> bool:
    """Whether devices share the rows of x ``[B, N, ...]``."""
    return split("positions") > 1 and divides(x, POSITIONS)


def _normalized(x):
    return x * lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def gated_delta(q, k, v, log_decay, beta, starts, state):
    """The recurrence over rows that begin in ``state [B, H, Dv, Dk]``. q, k, v ``[B, N, H, D]``,
    log_decay and beta ``[B, N, H]``, all float32; starts ``[B, N]`` booleans.

    Returns y and the deltas, ``[B, N, H, Dv]``. Chunks are solved side by side; only the state goes
    through them one after another. Nothing at a position depends on a later one, to the last bit:
    what is hidden is exactly 0.
    """
    rows = q, k, v, log_decay, beta, starts
    if not _shared(q):
        return _recurrence(*rows, state)
    names = (*[POSITIONS] * len(rows), ROWS)
    return on_own(functools.partial(_recurrence, shared=True), (*rows, state), names, POSITIONS)


def _recurrence(q, k, v, log_decay, beta, starts, state, shared: bool = False):
    """The same; shared: for the positions that this device has of rows that several share."""
    N = q.shape[1]
    size = _chunk_size(N)
    q, k, v, log_decay, beta, starts = (
        _chunked(x, size) for x in (q, k, v, log_decay, beta, starts[..., None])
    )
    document = jnp.cumsum(starts, axis=-1)
    seen = jnp.tril(document[..., :, None] == document[..., None, :])
    mask = seen[:, :, 0].mT.astype(jnp.float32)

    def summed(x):
        """Over the document up to each position. (Over the chunk, sums would be rounded in another
        way beside other documents.)"""
        return _product(x, mask)

    # Differences of sums lose the small one beside a strong decay. Whole numbers lose nothing.
    whole = lax.stop_gradient(jnp.round(log_decay))
    sums = summed(whole), summed(log_decay - whole)
    exponent = sum(total[..., :, None] - total[..., None, :] for total in sums)
    decay = jnp.exp(jnp.where(seen, exponent, -jnp.inf))
    from_start = jnp.where(document == 0, jnp.exp(sum(sums)), 0)
    carried, to_end = _to_end(log_decay, starts)

    keys = _product(k, k.mT) * decay * beta[..., None]
    solution = unit_lower_inverse(jnp.tril(keys, -1))
    wanted = _product(solution, v * beta[..., None])
    erased = _product(solution, k * (beta * from_start)[..., None])

    chunks = wanted, erased, k, to_end, carried
    if shared:
        state = _arriving(state, chunks)
    _, (states, delta) = lax.scan(_through, state, chunks)
    y = _product(q * from_start[..., None], states.mT)
    y += _product(_product(q, k.mT) * decay, delta)

    def rows(x):
        chunks = jnp.moveaxis(x, (0, 2), (1, 3))
        return chunks.reshape(len(chunks), -1, *chunks.shape[3:])[:, :N]

    return rows(y), rows(delta)


def _product(a, b):
    return jnp.matmul(a, b, precision=EXACT)


def _through(state, chunk):
    """The state behind a chunk; and the state before it, and the chunk's deltas."""
    wanted, erased, k, to_end, carried = chunk
    delta = wanted - _product(erased, state.mT)
    after = state * carried[..., None, None] + _product((delta * to_end[..., None]).mT, k)
    return after, (state, delta)


def _arriving(state, chunks):
    """The state that reaches this device's chunks through those of the devices before it.

    To a device's chunks, a state S is S A + U. What they make of 0 above the identity is U above
    A: so each finds its own at once, and all that go between devices are those.
    """
    wanted, *others = chunks
    (*_, Dv, Dk), axes = state.shape, mesh_axes("positions")
    start = jnp.broadcast_to(jnp.eye(Dv + Dk, Dk, -Dv), (*state.shape[:2], Dv + Dk, Dk))
    wanted = jnp.pad(wanted, [(0, 0)] * (wanted.ndim - 1) + [(0, Dk)])
    made = lax.scan(lambda s, at: (_through(s, at)[0], None), start, (wanted, *others))[0]
    each, mine = lax.all_gather(made, axes), lax.axis_index(axes)

    def on(state, at):
        device, made = at
        after = _product(state, made[..., Dv:, :]) + made[..., :Dv, :]
        return jnp.where(device < mine, after, state), None

    return lax.scan(on, state, (jnp.arange(len(each)), each))[0]


def _chunk_size(length: int) -> int:
    """Few positions make one chunk of just their size; a single one, a step."""
    return length if length <= BLOCK else min(CHUNK, 2 ** (length - 1).bit_length())


def _chunked(x, size):
    """``[B, N, H, ...]`` to ``[chunks, B, H, size, ...]``, filled up with zeros."""
    filled = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2))
    chunks = filled.reshape(len(x), -1, size, *x.shape[2:])
    return jnp.moveaxis(chunks, (1, 3), (0, 2))


def _to_end(log_decay, starts):
    """What is left at the end of ``[..., C]`` positions: of the state before them ``[...]``, and of
    the delta of each ``[..., C]``."""

    def later(x):
        after = jnp.pad(x[..., 1:], [(0, 0)] * (x.ndim - 1) + [(0, 1)])
        return lax.cumsum(after, axis=x.ndim - 1, reverse=True)

    weight = jnp.where(later(starts.astype(jnp.int32)) == 0, jnp.exp(later(log_decay)), 0)
    carried = jnp.where(jnp.any(starts, axis=-1), 0, jnp.exp(jnp.sum(log_decay, axis=-1)))
    return carried, weight


@jax.custom_vjp
def unit_lower_inverse(a: jax.Array) -> jax.Array:
    """``(I + a)^-1`` for strictly lower triangular a ``[n, ..., C, C]`` float32; C up to ``BLOCK``,
    or that times a power of two.

    Forward substitution within blocks, and from block to block. (The series I - a + a^2 - ... is
    shorter, but its terms grow to 1e18 where keys repeat.)
    """
    C = a.shape[-1]
    size = min(C, BLOCK)
    blocks = jnp.stack([a[..., i : i + size, i : i + size] for i in range(0, C, size)])
    # Many blocks, on the last axis, fill a vector unit; their few columns would not.
    rows = jnp.moveaxis(blocks.reshape(-1, *blocks.shape[2:]), (-2, -1, 0), (0, 1, -1))

    def substitute(i, inverse):
        known = jnp.sum(rows[i][:, None] * inverse, axis=0)
        return inverse.at[i].add(-known)

    identity = jnp.eye(size).reshape(size, size, *[1] * (rows.ndim - 2))
    inverse = lax.fori_loop(1, size, substitute, jnp.broadcast_to(identity, rows.shape))
    inverse = jnp.moveaxis(inverse, (0, 1, -1), (-2, -1, 0)).reshape(blocks.shape)
    while size < C:
        below = [a[..., i + size : i + 2 * size, i : i + size] for i in range(0, C, 2 * size)]
        upper, lower = inverse[0::2], inverse[1::2]
        corner = jnp.matmul(lower, jnp.stack(below), precision=EXACT)
        corner = -jnp.matmul(corner, upper, precision=EXACT)
        above = jnp.concatenate([upper, jnp.zeros_like(upper)], axis=-1)
        inverse = jnp.concatenate([above, jnp.concatenate([corner, lower], axis=-1)], axis=-2)
        size *= 2
    return inverse[0]


def _inverse_products(C: int) -> int:
    """Multiplications of ``unit_lower_inverse`` per position."""
    size = min(C, BLOCK)
    total = size * (size - 1)
    while size < C:
        total += size * size
        size *= 2
    return total


def _inverse_forward(a):
    inverse = unit_lower_inverse(a)
    return inverse, inverse


def _inverse_backward(inverse, gradient):
    # Through the loop above, every step would be kept.
    gradient = jnp.matmul(inverse.mT, gradient, precision=EXACT)
    return (-jnp.tril(jnp.matmul(gradient, inverse.mT, precision=EXACT), -1),)


unit_lower_inverse.defvjp(_inverse_forward, _inverse_backward)
