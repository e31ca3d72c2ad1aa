"""Drafters: guesses of the next ids, which one pass of the model then verifies.

Whatever a drafter guesses, what comes out is what the model alone would draw
(decoding/sampling.py); a good guess only saves passes. A drafter has a ``size`` (ids it drafts a
pass), ``params`` of its own, and three functions of arrays:

- ``init(model, params, rows, slots)``: what it remembers, a pytree;
- ``observe(model, params, carry, seen)``: what it remembers after a pass;
- ``draft(model, params, carry, now)``: a ``Draft``, and what it remembers.

Letters: B rows, N ids of a pass, S slots, V vocabulary, d width, D ids drafted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.configs.schema import ConfigError, ModelConfig
from octavo.model.lm import ByteLM, Output
from octavo.model.segmentation import take
from octavo.model.trunk import Trunk, first_seen

DRAFT = 7
"""Ids drafted a pass, where the model does not say."""


@dataclass(frozen=True)
class Seen:
    """A pass of the model."""

    tokens: jax.Array
    """``[B, N]``: what it read."""
    output: Output
    """Logits and states behind each of them."""
    kept: jax.Array
    """``[B]``: how many of them stay."""
    ids: jax.Array
    """``[B, S]``: all ids, those of the pass included."""
    length: jax.Array
    """``[B]``: how many ids there were before the pass."""
    context: int | None


@dataclass(frozen=True)
class Now:
    """What is known when a draft is asked for."""

    cache: dict
    """Of the model, up to the id before ``first``."""
    ids: jax.Array
    """``[B, S]``: all ids, ``first`` included."""
    length: jax.Array
    """``[B]``: how many ids there are before ``first``."""
    first: jax.Array
    """``[B]``: the next id, already drawn."""
    choose: Callable
    """``choose(i, logits [B, n, V])``: the i-th id after ``first`` and those behind it, ``[B,
    n]``, drawn with the very noise that the model's own draws there will see: like logits choose
    alike."""
    sample: Callable
    """``sample(i, logits)``: the same with noise of its own, and log-probabilities ``[B, n,
    V]``."""
    context: int | None


@dataclass(frozen=True)
class Draft:
    """Guesses of the ids after ``Now.first``."""

    ids: jax.Array
    """``[B, D]``"""
    count: jax.Array | None = None
    """``[B]``: how many of them; all, if None."""
    log_q: jax.Array | None = None
    """``[B, D, V]``: the distributions they were sampled from, for rejection sampling; None: each
    is to be the id that the model draws itself."""


class Drafter:
    """What most drafters have: nothing to remember."""

    size: int = DRAFT
    params: dict = {}

    def init(self, model: ByteLM, params: dict, rows: int, slots: int) -> dict:
        return {}

    def observe(self, model: ByteLM, params: dict, carry: dict, seen: Seen) -> dict:
        return carry


class Plain(Drafter):
    """No guesses: an id a pass."""

    size = 0

    def draft(self, model, params, carry, now):
        return Draft(jnp.zeros((len(now.first), 0), jnp.int32)), carry


class FromLinearHeads(Drafter):
    """The further of linear heads: what they say of the newest state."""

    def __init__(self, config: ModelConfig):
        self.size = config.mtp.count - 1

    def init(self, model, params, rows, slots):
        return {"logits": jnp.zeros((rows, self.size, model.vocabulary.size))}

    def observe(self, model, params, carry, seen):
        newest = take(seen.output.states, jnp.maximum(seen.kept - 1, 0)[:, None])[:, 0]
        return {"logits": rested(seen, model.mtp.logits(model, newest), carry["logits"])}

    def draft(self, model, params, carry, now):
        return Draft(now.choose(1, carry["logits"])), carry


class FromHeads(FromLinearHeads):
    """The further of parallel heads, each with a cache (Gloeckle et al. 2024, 2404.19737, section
    4)."""

    def init(self, model, params, rows, slots):
        cache = model.mtp.others.init_cache(rows, slots)
        return super().init(model, params, rows, slots) | {"cache": cache}

    def observe(self, model, params, carry, seen):
        states, kept = seen.output.states, seen.kept
        N = states.shape[1]
        first = first_seen(seen.length, N, seen.context)
        positions = seen.length[:, None] + jnp.arange(N)
        newest = jnp.maximum(kept - 1, 0)[:, None]
        extend, layers = model.mtp.others.extended(positions, seen.length, first, asks=newest)

        def one(cache, scanned):
            x, cache = extend(*scanned, states, cache)
            return cache, x[:, 0]

        cache, x = lax.scan(one, carry["cache"], (jnp.arange(self.size), layers))
        logits = model.logits(jnp.swapaxes(x, 0, 1))
        return {"cache": cache, "logits": rested(seen, logits, carry["logits"])}


class FromModules(Drafter):
    """A chain of sequential modules (DeepSeek-V3, 2412.19437), each fed with the guess before."""

    def __init__(self, config: ModelConfig):
        self.size = config.mtp.count - 1
        # Newest positions whose states were last computed from guesses, or may be new.
        self.recent = 2 * self.size

    def init(self, model, params, rows, slots):
        stack = model.mtp.stack
        recent = jnp.zeros((rows, self.recent, stack.config.width), stack.dtype)
        return {"cache": stack.init_cache(rows, slots), "recent": recent}

    def _link(self, model, carry, k, x, ids, begin, context):
        """Module k over the states x ``[B, W, d]`` of positions ``begin [B]`` on, and its cache."""
        W = x.shape[1]
        positions = begin[:, None] + jnp.arange(W)
        first = first_seen(begin, W, context)
        extend, layers = model.mtp.stack.extended(positions, begin, first)
        definition, joins = nnx.split(model.mtp.joins)
        layer, join = jax.tree.map(lambda leaf: leaf[k], (layers, joins))
        following = embedded(model, ids, begin + k + 1, W)
        x, cache = extend(k, layer, nnx.merge(definition, join)(x, following), carry["cache"])
        return x, carry | {"cache": cache}

    def observe(self, model, params, carry, seen):
        states = x = seen.output.states
        if x.shape[1] > self.size + 1:  # a prompt; else a draft's window holds all of it
            for k in range(self.size):
                x, carry = self._link(model, carry, k, x, seen.ids, seen.length, seen.context)
        window = jnp.concatenate([carry["recent"], states], axis=1)
        shift = jax.vmap(lax.dynamic_slice_in_dim, (0, 0, None))
        return carry | {"recent": shift(window, seen.kept, self.recent)}

    def draft(self, model, params, carry, now):
        ids, chosen = now.ids, []
        begin = jnp.maximum(now.length - self.recent, 0)
        # In a short document the window begins before it: its states are moved to the left.
        missing = jnp.maximum(self.recent - now.length, 0)[:, None]
        x = take(carry["recent"], (jnp.arange(self.recent) + missing) % self.recent)
        newest = (now.length - 1 - begin)[:, None]
        for k in range(self.size):
            x, carry = self._link(model, carry, k, x, ids, begin, now.context)
            chosen.append(now.choose(k + 1, model.logits(take(x, newest)))[:, 0])
            ids = put(ids, now.length + k + 1, chosen[-1])
        return Draft(jnp.stack(chosen, axis=1)), carry


class FromAsides(Drafter):
    """Registers or look-ahead tokens behind the newest id: a pass of their own, all at once (PaSS,
    2311.13581)."""

    def __init__(self, config: ModelConfig):
        self.size = config.mtp.count - 1

    def draft(self, model, params, carry, now):
        beside = model.mtp
        ahead = 1 + jnp.arange(self.size)
        vectors = beside.vectors[...].astype(beside.dtype)
        x = jnp.broadcast_to(vectors, (len(now.first), self.size, vectors.shape[1]))
        x = model.trunk.aside(x, ahead, now.cache["trunk"], now.context, beside.alone)
        return Draft(now.choose(1, model.logits(x))), carry


class WithinUnit(Drafter):
    """The decoder alone, up to where it foresees the unit's end (Toucan, 2311.08620). Up to there
    its logits are the model's."""

    def draft(self, model, params, carry, now):
        ids, count = [], jnp.zeros_like(now.first)
        going, id_, trunk = count == 0, now.first, now.cache["trunk"]
        for i in range(1, self.size + 1):
            x = model.embedding(id_[:, None], now.length[:, None] + i - 1)
            x, ends, trunk = model.trunk.foresee(x, trunk)
            going &= ~ends
            count += going
            id_ = now.choose(i, model.logits(x))[:, 0]
            ids.append(id_)
        return Draft(jnp.stack(ids, axis=1), count), carry


class Lookup(Drafter):
    """What followed the last time the newest ids stood in the text (prompt lookup; the longest such
    piece of up to ``REACH`` ids, the latest of those)."""

    REACH = 8

    def __init__(self, size: int = DRAFT):
        self.size = size

    def draft(self, model, params, carry, now):
        return Draft(self.found(now)[0]), carry

    def found(self, now: Now) -> tuple[jax.Array, jax.Array]:
        """The guesses, and how many of the newest ids stood before what they repeat, ``[B]``."""
        ids, S = now.ids, now.ids.shape[1]
        t = jnp.arange(S)
        end = now.length[:, None]
        # How many ids up to t are those up to the end.
        same, length = jnp.ones_like(ids, bool), jnp.zeros_like(ids)
        for back in range(self.REACH):
            newest = take(ids, jnp.maximum(end - back, 0))
            same &= (jnp.roll(ids, back, axis=1) == newest) & (t >= back)
            length += same
        best = jnp.argmax(jnp.where(t < end, length * S + t, -1), axis=1)[:, None]
        # A piece that reaches the end goes on as it began.
        period = jnp.maximum(end - best, 1)
        guesses = take(ids, best + 1 + jnp.arange(self.size) % period)
        return guesses, take(length, best)[:, 0]


class Mixed(Drafter):
    """Lookup where the newest ``ENOUGH`` ids stood in the text before, and elsewhere what another
    drafter guesses."""

    ENOUGH = 6

    def __init__(self, other: Drafter):
        self.other, self.params, self.size = other, other.params, other.size
        self.lookup = Lookup(other.size)

    def init(self, *given):
        return self.other.init(*given)

    def observe(self, *given):
        return self.other.observe(*given)

    def draft(self, model, params, carry, now):
        drafted, carry = self.other.draft(model, params, carry, now)
        guesses, repeated = self.lookup.found(now)
        known = repeated >= self.ENOUGH
        ids = jnp.where(known[:, None], guesses, drafted.ids)
        count = drafted.count
        return Draft(ids, count if count is None else jnp.where(known, self.size, count)), carry


class Recycling(Drafter):
    """What the model thought likely the last time it read these ids, be it in a pass that was kept
    or in a guess that was not (token recycling, Luo et al. 2024, 2408.08696). There a tree over
    single tokens' successors; here a chain over the successors of the newest three ids, since a
    byte alone says little."""

    REACH, PLACES = 3, 1 << 14

    def __init__(self, size: int = DRAFT):
        self.size = size

    def init(self, model, params, rows, slots):
        return {"next": jnp.zeros((rows, self.PLACES), jnp.int32)}

    def _place(self, ids, at):
        """A place in the table for the ids up to ``at [B, N]``."""
        found = jnp.zeros_like(at)
        for back in range(self.REACH):
            found = found * 769 + take(ids, jnp.maximum(at - back, 0))
        return found % self.PLACES

    def observe(self, model, params, carry, seen):
        at = seen.length[:, None] + jnp.arange(seen.tokens.shape[1])
        likely = jnp.argmax(seen.output.logits, axis=-1).astype(jnp.int32)
        # Rows that rest read nothing; of a prompt, what fills it up counts little.
        places = jnp.where((seen.kept > 0)[:, None], self._place(seen.ids, at), self.PLACES)
        write = jax.vmap(lambda table, place, id_: table.at[place].set(id_, mode="drop"))
        return {"next": write(carry["next"], places, likely)}

    def draft(self, model, params, carry, now):
        ids, found = now.ids, []
        for i in range(self.size):
            at = now.length + i
            found.append(take(carry["next"], self._place(ids, at[:, None]))[:, 0])
            ids = put(ids, at + 1, found[-1])
        return Draft(jnp.stack(found, axis=1)), carry


class EarlyExit(Drafter):
    """The first ``layers`` blocks of the same flat model, then its output (LayerSkip, Elhoushi et
    al. 2024, 2404.16710, without its training). They share the model's cache.

    Raises ConfigError if the model is not flat or has no more blocks than that.
    """

    def __init__(self, config: ModelConfig, layers: int, size: int = DRAFT):
        if config.stages:
            raise ConfigError("an early exit needs a flat model; this one has stages.")
        if not 0 < layers < config.layers:
            raise ConfigError(
                f"an early exit lies behind 1 to {config.layers - 1} of the model's "
                f"{config.layers} blocks, not {layers}."
            )
        self.layers, self.size = layers, size

    def draft(self, model, params, carry, now):
        assert isinstance(model.trunk, Trunk)
        stack = jax.tree.map(lambda leaf: leaf[: self.layers], now.cache["trunk"]["stack"])

        def one(carry, i):
            ids, stack = carry
            at = now.length + i
            x = embedded(model, ids, at, 1)
            first = first_seen(at, 1, now.context)
            extend, layers = model.trunk.stack.extended(at[:, None], at, first)
            for k in range(self.layers):
                layer = jax.tree.map(lambda leaf, k=k: leaf[k], layers)
                x, stack = extend(k, layer, x, stack)
            id_ = now.choose(i + 1, model.logits(x))[:, 0]
            return (put(ids, at + 1, id_), stack), id_

        ids = lax.scan(one, (now.ids, stack), jnp.arange(self.size))[1]
        return Draft(ids.T), carry


class Smaller(Drafter):
    """Another, smaller model of the same ids, verified by rejection sampling (Leviathan et al.
    2023, 2211.17192; Chen et al. 2023, 2302.01318). ``bind(params)`` is that model, which needs no
    stored marks; length: its rows in training."""

    def __init__(self, bind: Callable, params: dict, length: int, size: int = DRAFT):
        self.bind, self.params, self.length, self.size = bind, params, length, size

    def init(self, model, params, rows, slots):
        return {"cache": self.bind(params).init_cache(rows, slots)}

    def observe(self, model, params, carry, seen):
        small = self.bind(params)
        _, cache = small.extend(seen.tokens, carry["cache"], valid=seen.kept, context=self.length)
        return {"cache": cache}

    def draft(self, model, params, carry, now):
        small = self.bind(params)

        def one(state, i):
            id_, cache = state
            logits, cache = small.extend(id_[:, None], cache, context=self.length)
            ids, log_q = now.sample(i + 1, logits)
            return (ids[:, 0], cache), (ids[:, 0], log_q[:, 0])

        start = now.first, carry["cache"]
        ids, log_q = lax.scan(one, start, jnp.arange(self.size))[1]
        return Draft(ids.T, None, jnp.swapaxes(log_q, 0, 1)), carry


def own_drafter(config: ModelConfig) -> Drafter | None:
    """The drafter that a model was trained to be, if any."""
    if config.stages and config.stages[0].predict_ends:
        return WithinUnit()
    kinds = {
        "heads": FromHeads, "linear": FromLinearHeads, "modules": FromModules,
        "registers": FromAsides, "lookahead": FromAsides,
    }  # fmt: skip
    if config.mtp.kind == "none" or config.mtp.count == 1:
        return None
    return kinds[config.mtp.kind](config)


def rested(seen: Seen, new: jax.Array, old: jax.Array) -> jax.Array:
    """The new, ``[B, ...]``, but the old in rows of which the pass kept nothing."""
    return jnp.where((seen.kept > 0)[:, None, None], new, old)


def put(ids: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
    """ids ``[B, S]`` with values ``[B]`` at places ``at [B]``."""
    return jax.vmap(lambda row, place, value: row.at[place].set(value))(ids, at, values)


def embedded(model: ByteLM, ids: jax.Array, begin: jax.Array, count: int) -> jax.Array:
    """Embeddings ``[B, count, d]`` of ids ``[B, S]`` from places ``begin [B]`` on."""
    at = begin[:, None] + jnp.arange(-model.history, count)
    known = jnp.where(at >= 0, take(ids, jnp.clip(at, 0, ids.shape[1] - 1)), -1)
    return model.embedding(known, at)[:, model.history :]
