"""Drawing text from a model: filters over logits, and a jitted loop with a cache.

The loop is that of speculative decoding (decoding/drafting.py): an id is drawn, a drafter guesses
what follows, one pass of the model reads all of it, and the guesses that prove right stay. What
comes out is what would come without a drafter: the same ids, or under rejection sampling the same
distribution.
"""

import codecs
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from octavo.decoding.drafting import Plain
from octavo.decoding.utf8 import Automaton
from octavo.model.drafter import Drafter, Now, Seen, put
from octavo.model.layers import take

HIDDEN = -jnp.inf
PLAIN = Plain()


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
    if sampling.temperature == 0:
        best = jnp.argmax(logits, axis=-1, keepdims=True)
        return jnp.where(jnp.arange(logits.shape[-1]) == best, 0.0, HIDDEN)
    # The most likely first becomes 0, which no temperature moves; and no float32 overflows.
    below = logits - jnp.max(logits, axis=-1, keepdims=True)
    logits = jax.nn.log_softmax(below / min(max(sampling.temperature, 1e-30), 1e30), axis=-1)
    if sampling.top_k:
        kth = lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits >= kth, logits, HIDDEN)
    if sampling.top_p < 1:
        logits = _keep_mass(logits, -logits, sampling.top_p)
    if sampling.min_p:
        floor = jnp.max(logits, axis=-1, keepdims=True) + math.log(sampling.min_p)
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
    keep = (before < mass).at[..., 0].set(True)
    keep = jnp.take_along_axis(keep, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(keep, logits, HIDDEN)


def draw(key: jax.Array, log_p: jax.Array, at: jax.Array) -> jax.Array:
    """Ids ``[B, N]`` from log-probabilities ``[B, N, V]``; at ``[B, N]``: which of the row's draws
    each is. The same row, draw and distribution give the same id, however many are drawn at a
    time."""
    rows = jnp.broadcast_to(jnp.arange(len(at))[:, None], at.shape)
    return _keyed(jax.random.categorical, key, rows, at, log_p).astype(jnp.int32)


def _keyed(function, key, rows, at, *arrays):
    """``function(key of a row and a draw, ...)`` for each of ``[B, N]``."""

    def one(row, at, *arrays):
        return function(jax.random.fold_in(jax.random.fold_in(key, row), at), *arrays)

    return jax.vmap(jax.vmap(one))(rows, at, *arrays)


@dataclass
class Acceptance:
    """How drafting went, over all rows."""

    passes: int = 0
    """Passes of the model, the prompt's not counted."""
    drafted: int = 0
    """Ids guessed."""
    accepted: int = 0
    """Guesses that stayed."""
    ids: int = 0
    """Ids drawn."""

    def __str__(self):
        return (
            f"{self.ids} ids in {self.passes} passes, {self.ids / max(self.passes, 1):.2f} a pass; "
            f"{self.accepted} of {self.drafted} guesses accepted"
        )


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
    drafter: Drafter | None = None,
    acceptance: Acceptance | None = None,
    automaton: Automaton | None = None,
) -> Iterator[np.ndarray]:
    """Continue each prompt (1-d ids) by ``count`` ids, in pieces ``[rows, <= chunk]`` int32.

    bind: ``bind(params)`` is the model. A row that ended its document goes on with ``eos_id``;
    when all have, this stops early. marker: gives each id its stored mark (run/marks.py).
    context: see no further back than this many positions. drafter: guesses ids ahead; acceptance:
    counts how that goes. automaton: what alone may be drawn, before temperature and filters, and
    the state that each prompt ends in.
    """
    rows = len(prompts)
    lengths = np.array([len(p) + 1 for p in prompts], np.int32)
    drafter = PLAIN if drafter is None else drafter
    # Power-of-two shapes, so that prompts of many lengths share few compilations.
    width = 1 << int(lengths.max() - 1).bit_length()
    longest = int(lengths.max()) + count + drafter.size + 1
    slots = max(width, 1 << (longest - 1).bit_length())
    tokens = np.full((rows, width), bos_id, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[1 : len(prompt) + 1] = prompt
    loop = _loop(bind, marker, drafter, sampling, eos_id, context, count, slots)
    all_params = (params, marker.params, drafter.params)
    state = loop.start(all_params, tokens, lengths, jax.random.key(seed), automaton)
    for begin in range(0, count, chunk):
        end = min(begin + chunk, count)
        state = loop.proceed(all_params, state, end)
        ids, done, ended, counts = jax.device_get(
            [state[k] for k in ("ids", "done", "ended", "counts")]
        )
        if acceptance is not None:
            acceptance.passes, acceptance.drafted, acceptance.accepted = map(int, counts)
            acceptance.ids = int(done.sum())
        at = lengths[:, None] + np.arange(begin, end)
        piece = np.take_along_axis(ids, at, axis=1)
        yield np.where(at < (lengths + done)[:, None], piece, eos_id)
        if ended.all() and (done <= end).all():
            return


class Loop:
    """The jitted parts of ``generate``. Parameters are those of the model, the marker and the
    drafter, in a tuple. The state is a dict: among others ``ids [B, slots]``, the prompts' and
    those drawn, ``done [B]``, how many were drawn, and ``counts``: passes, guesses, accepted ones.

    ``start(params, tokens [B, width], lengths [B], key, automaton)`` reads the prompts;
    ``proceed(params, state, until)`` draws until every row has that many ids, or ended.
    """

    def __init__(self, bind, marker, drafter, sampling, eos_id, context, count, slots):
        self.bind, self.marker, self.drafter, self.sampling = bind, marker, drafter, sampling
        self.eos_id, self.context, self.count, self.slots = eos_id, context, count, slots
        self.start = jax.jit(self._start)
        self.proceed = jax.jit(self._proceed, donate_argnums=1)

    def _read(self, params, state, tokens, valid, verify, guessed: bool):
        """A pass over tokens ``[B, N]``, ``valid [B]`` of them: what ``verify(log_p)`` keeps of it
        (all, unless there are guesses among them), and the caches then."""
        model, own = self.bind(params[0]), state["marked"]
        marks, marked = self.marker.extend(params[1], tokens, own, valid)
        output, pending = model.advance(tokens, state["cache"], marks, valid, self.context)
        kept, log_p, rest = verify(output.logits)
        if guessed:
            _, marked = self.marker.extend(params[1], tokens, own, kept)
        write = jax.vmap(lambda ids, new, at: lax.dynamic_update_slice(ids, new, (at,)))
        ids = write(state["ids"], tokens, state["length"])
        seen = Seen(tokens, output, kept, ids, state["length"], self.context)
        return state | rest | {
            "cache": model.settle(pending, kept),
            "marked": marked,
            "drafter": self.drafter.observe(model, params[2], state["drafter"], seen),
            "ids": ids,
            "length": state["length"] + kept,
            "next": jnp.where((kept > 0)[:, None], log_p, state["next"]),
        }  # fmt: skip

    def _start(self, params, tokens, lengths, key, automaton=None):
        model, rows = self.bind(params[0]), len(tokens)
        none = jnp.zeros(rows, jnp.int32)
        state = {
            "key": key,
            "cache": model.init_cache(rows, self.slots),
            "marked": self.marker.init_cache(rows, self.slots),
            "drafter": self.drafter.init(model, params[2], rows, self.slots),
            "ids": jnp.zeros((rows, self.slots), jnp.int32),
            "length": none,
            "done": none,
            "ended": none > 0,
            "next": jnp.zeros((rows, model.vocabulary.size)),  # log-probabilities of the next id
            "counts": jnp.zeros(3, jnp.int32),  # passes, guesses, accepted ones
            "automaton": automaton,
        }

        def verify(logits):
            newest = take(logits, lengths[:, None] - 1)[:, 0]
            if automaton is not None:
                newest = automaton.allowed(newest, automaton.state)
            return lengths, filtered(newest, self.sampling), {}

        return self._read(params, state, tokens, lengths, verify, guessed=False)

    def _proceed(self, params, state, until):
        def going(state):
            return jnp.any((state["done"] < until) & ~state["ended"])

        return lax.while_loop(going, lambda state: self._one_pass(params, state), state)

    def _draw(self, key, log_p, at):
        if self.sampling.temperature == 0:  # one is certain: no noise is made
            return jnp.argmax(log_p, axis=-1).astype(jnp.int32)
        return draw(key, log_p, at)

    def _one_pass(self, params, state):
        model, done, rows = self.bind(params[0]), state["done"], len(state["done"])
        noise, own_noise, coin = (jax.random.fold_in(state["key"], i) for i in range(3))

        def chooser(key):
            def choose(i, logits):
                log_p = filtered(logits, self.sampling)
                at = done[:, None] + i + jnp.arange(logits.shape[1])
                return self._draw(key, log_p, at), log_p

            return choose

        choose, sample = chooser(noise), chooser(own_noise)
        first = self._draw(noise, state["next"][:, None], done[:, None])[:, 0]
        now = Now(
            state["cache"], put(state["ids"], state["length"], first), state["length"], first,
            lambda i, logits: choose(i, logits)[0], sample, self.context,
        )  # fmt: skip
        draft, remembered = self.drafter.draft(model, params[2], state["drafter"], now)
        state = state | {"drafter": remembered}
        tokens = jnp.concatenate([first[:, None], draft.ids], axis=1)
        D = draft.ids.shape[1]
        guessed = jnp.full(rows, D) if draft.count is None else draft.count
        live = (done < self.count) & ~state["ended"]
        guessed = jnp.where(live, guessed, 0)
        at = done[:, None] + 1 + jnp.arange(D)

        def verify(logits):
            automaton, states = state["automaton"], None
            if automaton is not None:  # a guess that it refuses is never what is drawn
                states = automaton.walk(tokens)
                logits = automaton.allowed(logits, states[:, 1:])
            log_p = filtered(logits, self.sampling)
            if draft.log_q is None:
                agree = self._draw(noise, log_p[:, :-1], at) == draft.ids
            else:
                p, q = (
                    jnp.take_along_axis(x, draft.ids[..., None], axis=2)[..., 0]
                    for x in (log_p[:, :-1], draft.log_q)
                )
                numbers = jnp.broadcast_to(jnp.arange(rows)[:, None], at.shape)
                agree = jnp.log(_keyed(jax.random.uniform, coin, numbers, at)) < p - q
            agree &= jnp.arange(D) < guessed[:, None]
            accepted = jnp.sum(jnp.cumprod(agree, axis=1), axis=1)
            is_end = tokens == self.eos_id
            end = jnp.where(is_end.any(1), is_end.argmax(1) + 1, D + 2)
            kept = jnp.minimum(1 + accepted, jnp.minimum(end, self.count - done))
            kept = jnp.where(live, kept, 0)
            newest = jnp.maximum(kept - 1, 0)[:, None]
            log_next = take(log_p, newest)[:, 0]
            if draft.log_q is not None and D:
                # Behind a guess that was refused comes what the guesses had too little of.
                refused = (newest[:, 0] == accepted) & (accepted < guessed)
                log_q = take(draft.log_q, jnp.minimum(newest, D - 1))[:, 0]
                rest = jnp.maximum(jnp.exp(log_next) - jnp.exp(log_q), 0)
                refused &= jnp.any(rest > 0, axis=1)  # rounding may leave nothing
                rest = jax.nn.log_softmax(jnp.log(rest))
                log_next = jnp.where(refused[:, None], rest, log_next)
            if automaton is not None and states is not None:
                automaton = automaton._replace(state=take(states, kept[:, None])[:, 0])
            counts = jnp.stack([jnp.sum(live), jnp.sum(guessed), jnp.sum(jnp.maximum(kept - 1, 0))])
            ended = state["ended"] | ((kept == end) & live)
            return kept, log_next, {
                "done": done + kept, "ended": ended,
                "counts": state["counts"] + counts, "automaton": automaton,
            }  # fmt: skip

        valid = jnp.where(live, 1 + guessed, 0)
        return self._read(params, state, tokens, valid, verify, guessed=D > 0)


@functools.lru_cache(maxsize=8)
def _loop(*about) -> Loop:
    """Compiled once for calls that differ in prompt and seed alone."""
    return Loop(*about)


def plain_text(
    pieces: Iterator[np.ndarray],
    tokenizer,
    row: int = 0,
    most_bytes: int | None = None,
    prompt: bytes = b"",
) -> Iterator[str]:
    """The prompt and then the text of one row as it comes, whole characters only, also that which
    the prompt began; ``most_bytes`` of text at most. Bytes that are no UTF-8 show as U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    yield decoder.decode(prompt)
    ids, shown = np.zeros(0, np.int32), 0
    for piece in pieces:
        ids = np.append(ids, piece[row])
        ends = np.flatnonzero(ids == tokenizer.eos_id)
        # All of it again: an id's bytes may depend on the id before (escapes).
        data = tokenizer.decode(ids[: ends[0]] if len(ends) else ids)[:most_bytes]
        # A character that the end of the document cuts is damage; one that waits for its last
        # bytes, while no more are drawn, is left out.
        yield decoder.decode(data[shown:], final=len(ends) > 0 and len(data) != most_bytes)
        shown = len(data)
        if len(ends) or shown == most_bytes:
            break
