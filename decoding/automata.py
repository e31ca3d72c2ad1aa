"""What alone may be drawn: an automaton over bytes, and what each id does to it.

A rule of what a text may be is an automaton over bytes (``Dfa``: decoding/utf8.py, and
decoding/regex.py). What an id does to it is a table, since its bytes are known. An id may be drawn
only if what it leads to can still be completed, with the ids that there are.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from octavo.configs.checks import ConfigError
from octavo.decoding.by_bytes import readings
from octavo.tokenizers.interface import Tokenizer

MOST_CELLS = 1 << 27
"""Of a table, states by ids: a quarter of a gigabyte."""


@dataclass(frozen=True)
class Dfa:
    """A deterministic automaton over bytes."""

    next: np.ndarray
    """int16 ``[states + 1, 256]``: the next state by state and byte; -1: none. The last row, which
    -1 stands for, leads nowhere."""
    accepts: np.ndarray
    """Booleans ``[states]``: the text may end here."""
    start: int = 0

    def follow(self, state: int, data: bytes) -> int:
        """The state behind more bytes; -1: they are not among what may follow."""
        for byte in data:
            state = int(self.next[state, byte])
        return state


def table_of(tokenizer: Tokenizer, dfa: Dfa) -> np.ndarray:
    """int16 ``[states, vocab_size]``: the state that each id leads to, -1 if it may not be drawn.

    The states are those of the bytes, for each of the ``readings`` of the tokenizer, the plain one
    first; behind an escape, an id is the byte that was escaped. The document may end where the
    automaton accepts. Raises ConfigError if the ids do not stand for fixed bytes, or the table
    would be larger than memory should hold.
    """
    ways, states = readings(tokenizer), len(dfa.accepts)
    if (cells := len(ways) * states * tokenizer.vocab_size) > MOST_CELLS:
        raise ConfigError(
            f"what may be drawn has {states:,} states: with {tokenizer.vocab_size:,} ids that is a "
            f"table of {cells:,} cells, and {MOST_CELLS:,} are the most. Ask for something simpler."
        )
    found = np.full((len(ways), states, tokenizer.vocab_size), -1, np.int16)
    for table, way in zip(found, ways, strict=True):
        pieces = [piece or b"" for piece in way.pieces]
        sizes = np.array([len(piece) for piece in pieces])
        text, begins = np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(sizes) - sizes
        table[:, sizes > 0] = np.arange(states)[:, None]
        for at in range(sizes.max()):
            longer = np.flatnonzero(sizes > at)
            table[:, longer] = dfa.next[table[:, longer], text[begins[longer] + at]]
        for id_, then in way.silent.items():
            table[:, id_] = np.arange(states) + then * states
        if way.end is not None:
            table[dfa.accepts, way.end] = np.flatnonzero(dfa.accepts)
    found = found.reshape(-1, tokenizer.vocab_size)
    ends = np.concatenate([dfa.accepts & (way.end is not None) for way in ways])
    lost = np.append(~completed(found, ends), False)  # -1 is none of them
    found[lost[found]] = -1
    found[lost[:-1]] = -1
    return found


def completed(table: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Booleans ``[states]``: from which of them an end can be reached. table ``[states, ...]``:
    where each leads, -1: nowhere; ends: booleans ``[states]``."""
    following = [np.unique(row[row >= 0]) for row in table]
    before: list[list[int]] = [[] for _ in following]
    for state, those in enumerate(following):
        for other in those.tolist():
            before[other].append(state)
    found, new = ends.copy(), np.flatnonzero(ends).tolist()
    while new:
        for state in before[new.pop()]:
            if not found[state]:
                found[state] = True
                new.append(state)
    return found


class Automaton(NamedTuple):
    """What may be drawn, by what was: ``table [states, V]`` as in ``table_of``, and the ``state
    [B]`` of each row."""

    table: jax.Array | np.ndarray
    state: jax.Array | np.ndarray

    def walk(self, tokens: jax.Array) -> jax.Array:
        """States ``[B, N + 1]``: that of now, and those behind each of the tokens ``[B, N]``.
        Behind one that may not be drawn it is any."""

        def one(state, ids):
            then = jnp.maximum(self.table[state, ids], 0).astype(jnp.int32)
            return then, then

        rest = lax.scan(one, self.state, tokens.T)[1]
        return jnp.concatenate([self.state[:, None], rest.T], axis=1)

    def allowed(self, logits: jax.Array, states: jax.Array) -> jax.Array:
        """Logits ``[..., V]`` of what may be drawn in states ``[...]``; ``-inf`` for the rest."""
        return jnp.where(self.table[states] >= 0, logits, -jnp.inf)
