"""Drafters that any model may use, and the choice of one. What drafters are: model/drafter.py.

Letters: B rows, N ids of a pass, S slots, V vocabulary, d width, D ids drafted.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.model.drafter import DRAFT, Draft, Drafter, Now, embedded, put
from octavo.model.layers import take
from octavo.model.mtp import mtp
from octavo.model.transformer import layer_of
from octavo.model.trunk import Trunk, first_seen
from octavo.model.units.end_predictor import WithinUnit


class Plain(Drafter):
    """No guesses: an id a pass."""

    size = 0

    def draft(self, model, params, carry, now):
        return Draft(jnp.zeros((len(now.first), 0), jnp.int32)), carry


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
        if set(config.mixers) != {"attention"}:
            raise ConfigError("an early exit needs a model of attention alone.")
        if not 0 < layers < config.layers:
            raise ConfigError(
                f"an early exit lies behind 1 to {config.layers - 1} of the model's "
                f"{config.layers} blocks, not {layers}."
            )
        self.layers, self.size = layers, size

    def draft(self, model, params, carry, now):
        trunk = model.trunk
        assert isinstance(trunk, Trunk)
        (cache,) = now.cache["trunk"]["stack"]
        stack = jax.tree.map(lambda leaf: leaf[: self.layers], cache)

        def one(carry, i):
            ids, stack = carry
            at = now.length + i
            x = embedded(model, ids, at, 1)
            first = first_seen(at, 1, now.context)
            ((extend, layers),) = trunk.stack.extended(at[:, None], at, first)
            for k in range(self.layers):
                x, stack, _ = extend(k, layer_of(layers, k), x, stack)
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
    kind = mtp(config.mtp.kind)
    return None if kind is None or config.mtp.count == 1 else kind.drafter(config)
