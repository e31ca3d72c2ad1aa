"""Drawing text from a model: filters over logits, and a jitted loop with a cache.

The loop is that of speculative decoding (decoding/drafting.py): an id is drawn, a drafter guesses
what follows, one pass of the model reads all of it, and the guesses that prove right stay. What
comes out is what would come without a drafter: the same ids, or under rejection sampling the same
distribution.
"""

import bisect
import codecs
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from octavo.decoding.automata import Automaton
from octavo.decoding.drafting import Plain
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


def draw(
    key: jax.Array, log_p: jax.Array, at: jax.Array, rows: jax.Array | None = None
) -> jax.Array:
    """Ids ``[B, N]`` from log-probabilities ``[B, N, V]``; at ``[B, N]``: which of the row's draws
    each is; rows ``[B]``: their numbers, None: from 0 on. The same row, draw and distribution give
    the same id, however many are drawn at a time."""
    rows = jnp.arange(len(at)) if rows is None else rows
    numbers = jnp.broadcast_to(rows[:, None], at.shape)
    return _keyed(jax.random.categorical, key, numbers, at, log_p).astype(jnp.int32)


def _paid(logits: jax.Array, log_p: jax.Array, ids: jax.Array) -> jax.Array:
    """float32 ``[..., 2]``: log-probability of ids ``[...]`` by the logits ``[..., V]`` of the
    model, and by ``log_p``, of what they were drawn from."""
    logits = jax.nn.log_softmax(logits.astype(jnp.float32))
    both = jnp.stack([logits, log_p], axis=-2)
    return jnp.take_along_axis(both, ids[..., None, None], axis=-1)[..., 0]


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
    first_row: int = 0,
    paid: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Continue each prompt (1-d ids) by ``count`` ids, in pieces ``[rows, <= chunk]`` int32.

    bind: ``bind(params)`` is the model. A row that ended its document goes on with ``eos_id``;
    when all have, this stops early. marker: gives each id its stored mark (run/marks.py).
    context: see no further back than this many positions. drafter: guesses ids ahead; acceptance:
    counts how that goes. automaton: what alone may be drawn, before temperature and filters, and
    the state that each prompt ends in. first_row: the number of the first prompt: rows of other
    numbers are drawn with other noise. paid: gets, of each piece, the log-probability of its ids by
    the model, and among what could be drawn: float32 ``[rows, <= chunk, 2]``, nats.
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
    state = loop.start(all_params, tokens, lengths, jax.random.key(seed), automaton, first_row)
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
        if paid is not None:
            each = jax.device_get(state["paid"])
            paid.append(np.take_along_axis(each, at[..., None], axis=1))
        piece = np.take_along_axis(ids, at, axis=1)
        yield np.where(at < (lengths + done)[:, None], piece, eos_id)
        if ended.all() and (done <= end).all():
            return


class Loop:
    """The jitted parts of ``generate``. Parameters are those of the model, the marker and the
    drafter, in a tuple. The state is a dict: among others ``ids [B, slots]``, the prompts' and
    those drawn, ``paid [B, slots, 2]``, what these cost (``_paid``), ``done [B]``, how many were
    drawn, and ``counts``: passes, guesses, accepted ones. ``next [B]`` is drawn already, and cost
    ``price [B, 2]``.

    ``start(params, tokens [B, width], lengths [B], key, automaton, first_row)`` reads the prompts;
    ``proceed(params, state, until)`` draws until every row has that many ids, or ended.
    """

    def __init__(self, bind, marker, drafter, sampling, eos_id, context, count, slots):
        self.bind, self.marker, self.drafter, self.sampling = bind, marker, drafter, sampling
        self.eos_id, self.context, self.count, self.slots = eos_id, context, count, slots
        self.start = jax.jit(self._start)
        self.proceed = jax.jit(self._proceed, donate_argnums=1)

    def _read(self, params, state, tokens, valid, verify, guessed: bool):
        """A pass over tokens ``[B, N]``, ``valid [B]`` of them: what ``verify(logits)`` keeps of it
        (all, unless there are guesses among them), and the caches then."""
        model, own = self.bind(params[0]), state["marked"]
        marks, marked = self.marker.extend(params[1], tokens, own, valid)
        output, pending = model.advance(tokens, state["cache"], marks, valid, self.context)
        kept, rest = verify(output.logits)
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
        }  # fmt: skip

    def _start(self, params, tokens, lengths, key, automaton=None, first_row=0):
        model, rows = self.bind(params[0]), len(tokens)
        none = jnp.zeros(rows, jnp.int32)
        state = {
            "key": key,
            "rows": first_row + jnp.arange(rows),
            "cache": model.init_cache(rows, self.slots),
            "marked": self.marker.init_cache(rows, self.slots),
            "drafter": self.drafter.init(model, params[2], rows, self.slots),
            "ids": jnp.zeros((rows, self.slots), jnp.int32),
            "length": none,
            "done": none,
            "ended": none > 0,
            "paid": jnp.zeros((rows, self.slots, 2)),
            "counts": jnp.zeros(3, jnp.int32),  # passes, guesses, accepted ones
            "automaton": automaton,
        }

        def verify(logits):
            newest = take(logits, lengths[:, None] - 1)[:, 0]
            left = newest if automaton is None else automaton.allowed(newest, automaton.state)
            log_p = filtered(left, self.sampling)
            first = self._draw(state, 0, log_p[:, None], none[:, None])[:, 0]
            return lengths, {"next": first, "price": _paid(newest, log_p, first)}

        return self._read(params, state, tokens, lengths, verify, guessed=False)

    def _proceed(self, params, state, until):
        def going(state):
            return jnp.any((state["done"] < until) & ~state["ended"])

        return lax.while_loop(going, lambda state: self._one_pass(params, state), state)

    def _draw(self, state, noise: int, log_p, at):
        if self.sampling.temperature == 0:  # one is certain: no noise is made
            return jnp.argmax(log_p, axis=-1).astype(jnp.int32)
        return draw(jax.random.fold_in(state["key"], noise), log_p, at, state["rows"])

    def _one_pass(self, params, state):
        model, done, rows = self.bind(params[0]), state["done"], len(state["done"])
        noise, own_noise, coin = range(3)
        first = state["next"]

        def chooser(noise):
            def choose(i, logits):
                log_p = filtered(logits, self.sampling)
                at = done[:, None] + i + jnp.arange(logits.shape[1])
                return self._draw(state, noise, log_p, at), log_p

            return choose

        choose, sample = chooser(noise), chooser(own_noise)
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
            automaton, states, left = state["automaton"], None, logits
            if automaton is not None:  # a guess that it refuses is never what is drawn
                states = automaton.walk(tokens)
                left = automaton.allowed(logits, states[:, 1:])
            log_p = filtered(left, self.sampling)
            if draft.log_q is None:
                agree = self._draw(state, noise, log_p[:, :-1], at) == draft.ids
            else:
                p, q = (
                    jnp.take_along_axis(x, draft.ids[..., None], axis=2)[..., 0]
                    for x in (log_p[:, :-1], draft.log_q)
                )
                numbers = jnp.broadcast_to(state["rows"][:, None], at.shape)
                key = jax.random.fold_in(state["key"], coin)
                agree = jnp.log(_keyed(jax.random.uniform, key, numbers, at)) < p - q
            agree &= jnp.arange(D) < guessed[:, None]
            accepted = jnp.sum(jnp.cumprod(agree, axis=1), axis=1)
            is_end = tokens == self.eos_id
            end = jnp.where(is_end.any(1), is_end.argmax(1) + 1, D + 2)
            kept = jnp.minimum(1 + accepted, jnp.minimum(end, self.count - done))
            kept = jnp.where(live, kept, 0)
            newest = jnp.maximum(kept - 1, 0)[:, None]
            log_next = offered = take(log_p, newest)[:, 0]
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
            following = self._draw(state, noise, log_next[:, None], (done + kept)[:, None])[:, 0]
            price = _paid(take(logits, newest)[:, 0], offered, following)
            prices = _paid(logits[:, :-1], log_p[:, :-1], tokens[:, 1:])
            prices = jnp.concatenate([state["price"][:, None], prices], axis=1)
            write = jax.vmap(lambda all, new, at: lax.dynamic_update_slice(all, new, (at, 0)))
            return kept, {
                "next": jnp.where(kept > 0, following, first),
                "price": jnp.where((kept > 0)[:, None], price, state["price"]),
                "paid": write(state["paid"], prices, state["length"]),
                "done": done + kept, "ended": ended,
                "counts": state["counts"] + counts, "automaton": automaton,
            }  # fmt: skip

        valid = jnp.where(live, 1 + guessed, 0)
        return self._read(params, state, tokens, valid, verify, guessed=D > 0)


@functools.lru_cache(maxsize=8)
def _loop(*about) -> Loop:
    """Compiled once for calls that differ in prompt and seed alone."""
    return Loop(*about)


Finish = Literal["stop", "end", "length"]
"""Why a text is no longer: a stop string came, the model ended the document, or as many bytes as
were asked for are there."""


class Text:
    """The bytes of one row, as its ids come: ``most_bytes`` of them at most, and up to the stop
    string that is the first to be complete, without it.

    Iterated, gives what is new and certain: bytes that may begin a stop string are held back.
    before: bytes that are drawn already; ended: and nothing follows them.
    """

    def __init__(
        self,
        pieces: Iterator[np.ndarray],
        tokenizer,
        row: int = 0,
        most_bytes: int | None = None,
        stop: Sequence[bytes] = (),
        before: bytes = b"",
        ended: bool = False,
    ):
        self._pieces, self._tokenizer, self._row = pieces, tokenizer, row
        self._most, self._stop, self._before, self._ended = most_bytes, stop, before, ended
        self.ids = np.zeros(0, np.int32)
        """Drawn so far, those behind the end of the text too."""
        self.data = b""
        """The text so far."""
        self.finish: Finish | None = None

    def __iter__(self) -> Iterator[bytes]:
        if (new := self._grown(self._before, self._ended)) or self.finish:
            yield new
        while self.finish is None:
            piece = next(self._pieces, None)
            if piece is None:
                self.finish = "length"
                yield self._to(len(self._all))
                return
            self.ids = np.append(self.ids, piece[self._row])
            ends = np.flatnonzero(self.ids == self._tokenizer.eos_id)
            # All of it again: an id's bytes may depend on the id before (escapes).
            data = self._tokenizer.decode(self.ids[: ends[0]] if len(ends) else self.ids)
            if (new := self._grown(self._before + data, len(ends) > 0)) or self.finish:
                yield new

    def _grown(self, data: bytes, ended: bool) -> bytes:
        self._all = data[: self._most]
        found = [(at + len(one), at) for one in self._stop if (at := self._all.find(one)) >= 0]
        if found:
            self.finish = "stop"
            return self._to(min(found)[1])
        if len(self._all) == self._most:
            self.finish = "length"
        elif ended:
            self.finish = "end"
        held = 0
        if self.finish is None:
            most = max((len(one) - 1 for one in self._stop), default=0)
            sizes = range(1, 1 + min(most, len(self._all)))
            begun = [n for n in sizes if any(o.startswith(self._all[-n:]) for o in self._stop)]
            held = max(begun, default=0)
        return self._to(len(self._all) - held)

    def _to(self, size: int) -> bytes:
        new, self.data = self._all[len(self.data) : size], self._all[:size]
        return new

    def count(self, size: int) -> int:
        """Ids drawn that the first ``size`` bytes came of: up to that of the last of them, or the
        document's end if it ended."""
        if self.finish == "end":
            return int(np.argmax(self.ids == self._tokenizer.eos_id)) + 1 if len(self.ids) else 0
        size -= len(self._before)
        if size <= 0:
            return 0
        counts = range(len(self.ids) + 1)
        return bisect.bisect_left(
            counts, size, key=lambda count: len(self._tokenizer.decode(self.ids[:count]))
        )


class Shown(Iterator[str]):
    """The prompt and then a text as it comes, whole characters only, also that which the prompt
    began. Bytes that are no UTF-8 show as U+FFFD."""

    def __init__(self, prompt: bytes, text: Text):
        self._text, self._pieces = text, self._decoded(prompt, text)

    @property
    def finish(self) -> Finish | None:
        """Why the text is over; None: it is not."""
        return self._text.finish

    def __next__(self) -> str:
        return next(self._pieces)

    def _decoded(self, prompt: bytes, text: Text) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        yield decoder.decode(prompt)
        for new in text:
            # A character that the end of the text cuts is damage; one that waits for its last
            # bytes, while no more are drawn, is left out.
            yield decoder.decode(new, final=text.finish in ("end", "stop"))
