"""Text that is valid UTF-8: which ids may be drawn so that the bytes begin some valid text.

The decoder of UTF-8 is an automaton of eight states, by what a character still lacks; only the
second byte is restricted by the first (Unicode 15, table 3-7: no overlong forms, no surrogates,
nothing above U+10FFFF). What an id does to it is a table, since its bytes are known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from octavo.decoding.by_bytes import readings
from octavo.tokenizers.interface import Tokenizer

WHOLE = 0
"""The state in which no character is begun. In 1, 2 and 3, as many bytes of one are lacking; 4 to 7
follow the first bytes E0, ED, F0 and F4."""
_STATES = 8


def _next() -> np.ndarray:
    """int8 ``[_STATES + 1, 256]``: the next state by state and byte; -1: none. The last row, which
    -1 stands for, leads nowhere."""
    found = np.full((_STATES + 1, 256), -1, np.int8)
    for state, first, last, then in (
        (WHOLE, 0x00, 0x7F, WHOLE), (WHOLE, 0xC2, 0xDF, 1), (WHOLE, 0xE0, 0xE0, 4),
        (WHOLE, 0xE1, 0xEC, 2), (WHOLE, 0xED, 0xED, 5), (WHOLE, 0xEE, 0xEF, 2),
        (WHOLE, 0xF0, 0xF0, 6), (WHOLE, 0xF1, 0xF3, 3), (WHOLE, 0xF4, 0xF4, 7),
        (1, 0x80, 0xBF, WHOLE), (2, 0x80, 0xBF, 1), (3, 0x80, 0xBF, 2),
        (4, 0xA0, 0xBF, 1), (5, 0x80, 0x9F, 1), (6, 0x90, 0xBF, 2), (7, 0x80, 0x8F, 2),
    ):  # fmt: skip
        found[state, first : last + 1] = then
    return found


_NEXT = _next()


def follow(state: int, data: bytes) -> int:
    """The state behind more bytes; -1: they do not go on with valid text."""
    for byte in data:
        state = int(_NEXT[state, byte])
    return state


def state_after(data: bytes) -> int:
    """The state behind any bytes. Where they are no valid UTF-8, that behind what follows the last
    byte that is none."""
    state = WHOLE
    for byte in data[-3:]:  # a character that is longer is whole, or none
        then = follow(state, bytes([byte]))
        state = max(then if then >= 0 else follow(WHOLE, bytes([byte])), WHOLE)
    return state


def table_of(tokenizer: Tokenizer) -> np.ndarray:
    """int8 ``[states, vocab_size]``: the state that each id leads to, -1 if it may not be drawn.

    The states are those of the bytes, ``_STATES`` for each of the ``readings`` of the tokenizer,
    the plain one first; behind an escape, an id is the byte that was escaped. The document may end
    where a character is whole. Raises ConfigError if the ids do not stand for fixed bytes.
    """
    ways = readings(tokenizer)
    found = np.full((len(ways), _STATES, tokenizer.vocab_size), -1, np.int8)
    for table, way in zip(found, ways, strict=True):
        pieces = [piece or b"" for piece in way.pieces]
        sizes = np.array([len(piece) for piece in pieces])
        text, begins = np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(sizes) - sizes
        table[:, sizes > 0] = np.arange(_STATES)[:, None]
        for at in range(sizes.max()):
            longer = np.flatnonzero(sizes > at)
            table[:, longer] = _NEXT[table[:, longer], text[begins[longer] + at]]
        for id_, then in way.silent.items():
            table[:, id_] = np.arange(_STATES) + then * _STATES
        if way.end is not None:
            table[WHOLE, way.end] = WHOLE
    found = found.reshape(-1, tokenizer.vocab_size)
    # An escape inside a character: nothing that needs one goes on with it.
    stuck = np.flatnonzero((found < 0).all(1))
    found[np.isin(found, stuck)] = -1
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
