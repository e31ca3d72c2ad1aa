"""cuDNN's flash attention over the documents of packed rows.

cuDNN has no segment ids. It knows packed sequences (where each begins and how long it is, for a
number of them that is compiled) from Hopper on, and masks of T x T numbers everywhere, which cost
more than the attention itself: they are for rows with more documents, and for older cards.

Letters: B batch, T positions, H heads, D head size, M documents.
"""

import functools
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from octavo.model.layers import KEPT_MIXED, starts_of

SEQUENCES = (8, 32)
"""Numbers of documents of a row for which packed sequences are compiled, beside one: what is not
there costs a little, too."""
DOCUMENTS = SEQUENCES[-1]


def causal_or_full(q, k, v, causal: bool, mask=None) -> jax.Array:
    """One document a row, or what the mask ``[B, 1, T, T]`` says."""
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, is_causal=causal, implementation="cudnn"
    )


def masked(causal: bool, q, k, v, ids, first=None) -> jax.Array:
    """Positions of a row see those of the same id. first: of the row's positions the one that q
    begins with, where it has some of them only."""
    if first is None:
        return causal_or_full(q, k, v, causal, ids[:, None, :, None] == ids[:, None, None, :])
    own = lax.dynamic_slice_in_dim(ids, first, q.shape[1], axis=1)
    mask = own[:, :, None] == ids[:, None]
    if causal:
        mask &= first + jnp.arange(q.shape[1])[:, None] >= jnp.arange(k.shape[1])
    return causal_or_full(q, k, v, False, mask[:, None])


def fits(q: jax.Array) -> bool:
    """Whether cuDNN can count this device's numbers: it has offsets of 32 bits."""
    return q.size < 2**31


def documents(ids: jax.Array, most: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the runs of equal ids ``[B, T]``: where each begins ``[B, most + 1]``, how long it is
    ``[B, most]``, int32, both -1 beyond the last; and how many there are ``[B]``."""
    number = jnp.cumsum(starts_of(ids), axis=1, dtype=jnp.int32)  # from 1
    count = number[:, -1]
    before = number[:, None] <= jnp.arange(most + 1)[:, None]
    begin = jnp.sum(before, axis=2, dtype=jnp.int32)
    there = jnp.arange(most + 1) < count[:, None]
    length = jnp.where(there[:, :-1], jnp.diff(begin, axis=1), -1)
    return jnp.where(there, begin, -1), length, count


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def packed(causal: bool, q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array) -> jax.Array:
    """The same as ``masked`` for ids that lie together; q, k and v ``[B, T, H, D]``. The choice
    is made at run time, by this device's rows."""
    return _packed_forward(causal, q, k, v, ids)[0]


def _packed_forward(causal, q, k, v, ids):
    begin, length, count = documents(ids, DOCUMENTS)
    choice = jnp.sum(jnp.max(count) > jnp.array([1, *SEQUENCES]))
    B, T, H, _ = q.shape

    def few(most, q, k, v, ids, begin, length):
        mixed, normalizer = stablehlo().dot_product_attention(
            q, k, v, **_sequences(most, causal, begin, length), return_residual=True,
            scale=_scale(q),
        )  # fmt: skip
        # Of one shape in all branches.
        missing = B * DOCUMENTS - len(normalizer)
        return mixed, jnp.pad(normalizer, ((0, missing), (0, 0), (0, 0)))

    def many(q, k, v, ids, begin, length):
        return masked(causal, q, k, v, ids), jnp.zeros((B * DOCUMENTS, H, T), jnp.float32)

    branches = [*(functools.partial(few, most) for most in (1, *SEQUENCES)), many]
    found = lax.switch(choice, branches, q, k, v, ids, begin, length)
    mixed, normalizer = (checkpoint_name(each, KEPT_MIXED) for each in found)
    return mixed, (choice, q, k, v, ids, begin, length, mixed, normalizer)


def _packed_backward(causal, kept, gradient):
    # By hand: what a branch keeps, JAX would fill with zeros in the others, masks included.
    choice, *given = kept

    def few(most, q, k, v, ids, begin, length, mixed, normalizer, gradient):
        none = jnp.zeros(0, q.dtype)
        how = _sequences(most, causal, begin, length)
        length, begin = how.get("q_seqlen", none), how.get("q_offsets", none)
        return stablehlo()._dot_product_attention_bwd_p_wrapper.bind(
            q, k, v, none, length, length, begin, begin, none, none,
            normalizer[: len(q) * most], mixed, gradient,
            scale=_scale(q), seed=42, dropout_rate=0.0, variadic_args=(False, False),
            mask_type=how["mask_type"], layout=stablehlo().AttentionLayout.BTNH.value,
            sliding_window_length=None, **_of_newer_jax(),
        )  # fmt: skip

    def many(q, k, v, ids, begin, length, mixed, normalizer, gradient):
        pull = jax.vjp(lambda q, k, v: masked(causal, q, k, v, ids), q, k, v)[1]
        return list(pull(gradient))

    branches = [*(functools.partial(few, most) for most in (1, *SEQUENCES)), many]
    return *lax.switch(choice, branches, *given, gradient), None


packed.defvjp(_packed_forward, _packed_backward)


def stablehlo() -> Any:
    """Where JAX keeps cuDNN's attention; ``jax.nn`` has no packed sequences."""
    from jax._src.cudnn import fused_attention_stablehlo

    return fused_attention_stablehlo


def _of_newer_jax() -> dict:
    """What its backward pass is to be told besides, from jax 0.12 on: that nothing is done to
    scores."""
    known = inspect.signature(stablehlo()._dot_product_attention_bwd_impl).parameters
    return {"score_mod": None} if "score_mod" in known else {}


def _scale(q) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _sequences(most: int, causal: bool, begin, length) -> dict:
    """What cuDNN is to know of up to ``most`` documents of a row."""
    kinds = stablehlo().MaskType
    if most == 1:
        return {"mask_type": kinds.CAUSAL if causal else kinds.NO_MASK}
    begin, length = begin[:, : most + 1], length[:, :most]
    return {
        "mask_type": kinds.PADDING_CAUSAL if causal else kinds.PADDING,
        "q_seqlen": length, "kv_seqlen": length, "q_offsets": begin, "kv_offsets": begin,
    }  # fmt: skip
