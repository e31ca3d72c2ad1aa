"""Text that is valid UTF-8: which bytes may follow so that they begin some valid text.

The decoder of UTF-8 is an automaton of eight states, by what a character still lacks; only the
second byte is restricted by the first (Unicode 15, table 3-7: no overlong forms, no surrogates,
nothing above U+10FFFF).
"""

import numpy as np

from octavo.decoding.automata import Dfa

WHOLE = 0
"""The state in which no character is begun. In 1, 2 and 3, as many bytes of one are lacking; 4 to 7
follow the first bytes E0, ED, F0 and F4."""
STATES = 8


def _next() -> np.ndarray:
    found = np.full((STATES + 1, 256), -1, np.int16)
    for state, first, last, then in (
        (WHOLE, 0x00, 0x7F, WHOLE), (WHOLE, 0xC2, 0xDF, 1), (WHOLE, 0xE0, 0xE0, 4),
        (WHOLE, 0xE1, 0xEC, 2), (WHOLE, 0xED, 0xED, 5), (WHOLE, 0xEE, 0xEF, 2),
        (WHOLE, 0xF0, 0xF0, 6), (WHOLE, 0xF1, 0xF3, 3), (WHOLE, 0xF4, 0xF4, 7),
        (1, 0x80, 0xBF, WHOLE), (2, 0x80, 0xBF, 1), (3, 0x80, 0xBF, 2),
        (4, 0xA0, 0xBF, 1), (5, 0x80, 0x9F, 1), (6, 0x90, 0xBF, 2), (7, 0x80, 0x8F, 2),
    ):  # fmt: skip
        found[state, first : last + 1] = then
    return found


DFA = Dfa(_next(), np.arange(STATES) == WHOLE, WHOLE)
follow = DFA.follow


def state_after(data: bytes) -> int:
    """The state behind any bytes. Where they are no valid UTF-8, that behind what follows the last
    byte that is none."""
    state = WHOLE
    for byte in data[-3:]:  # a character that is longer is whole, or none
        then = follow(state, bytes([byte]))
        state = max(then if then >= 0 else follow(WHOLE, bytes([byte])), WHOLE)
    return state


def begun_then(dfa: Dfa) -> Dfa:
    """What completes a begun character and then does as another automaton says: its states first,
    then those in which a character is begun, state ``i`` of this file as ``states - 1 + i``."""
    states = len(dfa.accepts)
    begun = DFA.next[1:STATES]
    begun = np.where(begun == WHOLE, dfa.start, begun + (states - 1) * (begun > 0))
    return Dfa(
        np.concatenate([dfa.next[:-1], begun.astype(np.int16), dfa.next[-1:]]),
        np.append(dfa.accepts, np.zeros(STATES - 1, bool)),
        dfa.start,
    )
