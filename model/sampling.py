"""Drawing text from a model: filters over logits, and a jitted loop with a cache."""

import codecs
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

HIDDEN = -jnp.inf


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn. Filters apply after the temperature, each to what the one before
    left, in the order of the fields."""

    temperature: float = 1.0
    """0: always the most likely id."""
    top_k: int = 0
    """Keep the k most likely ids. 0: all."""
    top_p: float = 1.0
    """Keep the fewest most likely ids that hold this much probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Drop ids less likely than this share of the most likely one (Nguyen et al. 2024)."""
    typical: float = 1.0
    """Keep the ids whose surprisal is nearest to the entropy, until they hold this much
    probability (locally typical sampling, Meister et al. 2023)."""

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature is 0 or more, not {self.temperature}.")
        if self.top_k < 0:
            raise ValueError(f"top-k is 0 (off) or more, not {self.top_k}.")
        for name in ("top_p", "typical"):
            if not 0 < getattr(self, name) <= 1:
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise ValueError(f"{flag} lies in (0, 1], not {value}.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min-p lies in [0, 1], not {self.min_p}.")


def filtered(logits: jax.Array, sampling: Sampling) -> jax.Array:
    """Log-probabilities ``[..., V]`` of what may be drawn; ``-inf`` for the rest."""
    logits = jax.nn.log_softmax(logits / max(sampling.temperature, 1e-6), axis=-1)
    if sampling.top_k:
        kth = lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits >= kth, logits, HIDDEN)
    if sampling.top_p < 1:
        logits = _keep_mass(logits, -logits, sampling.top_p)
    if sampling.min_p:
        floor = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(sampling.min_p)
        logits = jnp.where(logits >= floor, logits, HIDDEN)
    if sampling.typical < 1:
        logits = jax.nn.log_softmax(logits, axis=-1)
        surprisal = jnp.where(jnp.isfinite(logits), -logits, 0)
        entropy = jnp.sum(jnp.exp(logits) * surprisal, axis=-1, keepdims=True)
        distance = jnp.where(jnp.isfinite(logits), jnp.abs(surprisal - entropy), jnp.inf)
        logits = _keep_mass(logits, distance, sampling.typical)
    return jax.nn.log_softmax(logits, axis=-1)


def _keep_mass(logits: jax.Array, rank: jax.Array, mass: float) -> jax.Array:
    """Keep ids of lowest ``rank`` until they hold ``mass``; at least one stays."""
    order = jnp.argsort(rank, axis=-1, stable=True)
    sorted_p = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(sorted_p, axis=-1) - sorted_p
    keep = jnp.take_along_axis(before < mass, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(keep, logits, HIDDEN)


def draw(key: jax.Array, logits: jax.Array, sampling: Sampling, at: jax.Array) -> jax.Array:
    """One id per row of ``[B, V]`` logits; ``at [B]``: which of the row's draws this is. The same
    row, draw and logits give the same id, however many are drawn at a time."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = jax.vmap(jax.random.fold_in)(fold(key, jnp.arange(len(logits))), at)
    drawn = jax.vmap(jax.random.categorical)(keys, filtered(logits, sampling))
    return drawn.astype(jnp.int32)


def generate(
    bind,
    params: dict,
    prompts: list[np.ndarray],
    count: int,
    *,
    sampling: Sampling,
    seed: int,
    bos_id: int,
    eos_id: int,
    marker,
    context: int | None = None,
    chunk: int = 32,
) -> Iterator[np.ndarray]:
    """Continue each prompt (1-d ids) by ``count`` ids, in pieces ``[rows, <= chunk]`` int32.

    bind: ``bind(params)`` is the model. A row that ended its document goes on with ``eos_id``;
    when all have, this stops early. marker: gives each id its stored mark (evaluation/marks.py).
    context: see no further back than this many positions.
    """
    rows = len(prompts)
    lengths = np.array([len(p) + 1 for p in prompts])
    # Power-of-two shapes, so that prompts of many lengths share few compilations.
    width = 1 << int(lengths.max() - 1).bit_length()
    tokens = np.full((rows, width), bos_id, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[1 : len(prompt) + 1] = prompt
    slots = max(width, 1 << int(lengths.max() + count + chunk - 1).bit_length())

    def extend(params, tokens, caches, valid):
        marks, marked = marker.extend(params[1], tokens, caches[1], valid)
        logits, cache = bind(params[0]).extend(tokens, caches[0], marks, valid, context)
        return logits, (cache, marked)

    @functools.partial(jax.jit, static_argnames="slots")
    def start(params, tokens, lengths, slots):
        empty = bind(params[0]).init_cache(rows, slots), marker.init_cache(rows, slots)
        logits, caches = extend(params, tokens, empty, lengths)
        return jnp.take_along_axis(logits, lengths[:, None, None] - 1, axis=1)[:, 0], caches

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def proceed(params, logits, caches, ended, key, at):
        def one(carry, i):
            logits, caches, ended = carry
            ids = draw(key, logits, sampling, jnp.full(rows, at + i))
            ids = jnp.where(ended, eos_id, ids)
            logits, caches = extend(params, ids[:, None], caches, jnp.ones(rows, jnp.int32))
            return (logits[:, 0], caches, ended | (ids == eos_id)), ids

        (logits, caches, ended), ids = lax.scan(one, (logits, caches, ended), jnp.arange(chunk))
        return logits, caches, ended, ids.T

    params = (params, marker.params)
    logits, caches = start(params, tokens, jnp.asarray(lengths, jnp.int32), slots)
    ended, key = jnp.zeros(rows, bool), jax.random.key(seed)
    if bind(params[0]).drafts:
        yield from _by_units(
            bind, extend, params, logits, caches, key, count, sampling, eos_id, chunk
        )
        return
    for at in range(0, count, chunk):
        logits, caches, ended, ids = proceed(params, logits, caches, ended, key, at)
        yield np.asarray(ids)[:, : count - at]
        if bool(ended.all()):
            return


DRAFT = 8
"""Ids drafted at a time, at most."""


def _by_units(bind, extend, params, logits, caches, key, count, sampling, eos_id, chunk):
    """The same ids as one at a time, but a unit of each row at a time: the decoder alone drafts up
    to where it foresees the unit's end, then one pass of the whole model takes them in. Ids behind
    the first that really ended the unit were drafted from what was then out of date, and are
    dropped; so every id kept was chosen from the model's own logits."""
    rows = len(logits)

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def proceed(params, logits, caches, key, done):
        def choose(i, logits):
            return draw(key, logits, sampling, done + i)

        ids, drafted = bind(params[0]).draft(logits, caches[0], choose, DRAFT)
        is_end = ids == eos_id
        drafted = jnp.where(is_end.any(1), jnp.minimum(drafted, is_end.argmax(1) + 1), drafted)
        drafted = jnp.where(done < count, jnp.minimum(drafted, count - done), 0)

        def take_in(number):
            return extend(params, ids, caches, number)

        found, longer = take_in(drafted)
        kept = jnp.minimum(drafted, longer[0]["trunk"]["first_end"] + 1)
        found, longer = lax.cond(
            jnp.all(kept == drafted), lambda: (found, longer), lambda: take_in(kept)
        )
        last = jnp.maximum(kept - 1, 0)[:, None, None]
        new = jnp.take_along_axis(found, last, axis=1)[:, 0]
        ended = jnp.any(is_end & (jnp.arange(DRAFT) < kept[:, None]), axis=1)
        new = jnp.where((kept > 0)[:, None], new, logits)
        # A row that ended its document is filled up with ends.
        return new, longer, ids, kept, jnp.where(ended, count, done + kept)

    told, shown = [np.zeros(0, np.int32)] * rows, 0
    done = jnp.zeros(rows, jnp.int32)
    while shown < count:
        logits, caches, ids, kept, done = proceed(params, logits, caches, key, done)
        for row, (mine, number) in enumerate(zip(np.asarray(ids), np.asarray(kept), strict=True)):
            told[row] = np.append(told[row], mine[:number])
            if int(done[row]) == count and len(told[row]) < count:
                told[row] = np.append(told[row], np.full(count - len(told[row]), eos_id, np.int32))
        ready = min(map(len, told))
        while ready - shown >= chunk or shown < ready == count:
            yield np.stack([ids[shown : shown + chunk][: ready - shown] for ids in told])
            shown = min(shown + chunk, ready)


def plain_text(
    pieces: Iterator[np.ndarray], tokenizer, row: int = 0, most_bytes: int | None = None
) -> Iterator[str]:
    """The text of one row as it comes, whole characters only, ``most_bytes`` at most; bytes that
    are no UTF-8 show as U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ids, shown = np.zeros(0, np.int32), 0
    for piece in pieces:
        ids = np.append(ids, piece[row])
        ends = np.flatnonzero(ids == tokenizer.eos_id)
        # All of it again: an id's bytes may depend on the id before (escapes).
        data = tokenizer.decode(ids[: ends[0]] if len(ends) else ids)[:most_bytes]
        yield decoder.decode(data[shown:])
        shown = len(data)
        if len(ends) or shown == most_bytes:
            break
    # A character that was still waiting for its last bytes is dropped, not shown as damage.
