"""Hash tables and tries of byte strings as arrays, for compiled code.

A table maps int64 keys above -1 to int32 values by open addressing; ``keys`` is -1 where it is
empty, and at most half full.
"""

import numpy as np

from octavo.compiled import compiled, inlined

MISSING = -1
Tree = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of ``trie``."""


@inlined
def _slot(key, mask):
    """Where a search begins (Fibonacci hashing: the upper bits of a product are well mixed)."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(29))) >> np.uint64(20)) & mask


@inlined
def hashed(data, start, behind):
    """FNV-1a of ``data[start:behind]``, uint64."""
    mixed = np.uint64(14695981039346656037)
    for i in range(start, behind):
        mixed = (mixed ^ np.uint64(data[i])) * np.uint64(1099511628211)
    return mixed


@compiled
def find(keys, values, key):
    """The value of a key, or ``MISSING``."""
    mask = len(keys) - 1
    at = _slot(key, mask)
    while keys[at] != MISSING:
        if keys[at] == key:
            return values[at]
        at = (at + 1) & mask
    return np.int32(MISSING)


@compiled
def put(keys, values, key, value):
    """Set the value of a key; there must be room."""
    mask = len(keys) - 1
    at = _slot(key, mask)
    while keys[at] != MISSING and keys[at] != key:
        at = (at + 1) & mask
    keys[at] = key
    values[at] = value


@compiled
def copy(keys, values, into_keys, into_values):
    """Put all of a table into another."""
    for i in range(len(keys)):
        if keys[i] != MISSING:
            put(into_keys, into_values, keys[i], values[i])


def empty(entries: int) -> tuple[np.ndarray, np.ndarray]:
    """``(keys, values)`` with room for so many entries."""
    size = 1 << max(4, (2 * entries).bit_length())
    return np.full(size, MISSING, np.int64), np.full(size, MISSING, np.int32)


@compiled
def _fill(keys, values, pair_keys, pair_values):
    for i in range(len(pair_keys)):
        put(keys, values, pair_keys[i], pair_values[i])


def table(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(keys, values)`` of a table that holds these; of a key that repeats, the last value."""
    made = empty(len(keys))
    _fill(*made, np.asarray(keys, np.int64), np.asarray(values, np.int32))
    return made


@compiled
def _grow(text, starts, keys, children, piece_of):
    """Enter the pieces into a trie; returns how many nodes it has. The root is node 0."""
    nodes = 1
    for piece in range(len(starts) - 1):
        node = np.int64(0)
        for at in range(starts[piece], starts[piece + 1]):
            key = node << 8 | np.int64(text[at])
            child = find(keys, children, key)
            if child == MISSING:
                child = np.int32(nodes)
                put(keys, children, key, child)
                nodes += 1
            node = np.int64(child)
        piece_of[node] = piece
    return nodes


def trie(pieces: list[bytes]) -> Tree:
    """``(keys, children, piece_of)``: the child of node n by byte b is at key ``n << 8 | b``, and
    ``piece_of`` says what piece ends at a node (-1: none)."""
    text, starts = joined(pieces)
    most = len(text) + 1
    keys, children = empty(most)
    piece_of = np.full(most, MISSING, np.int32)
    nodes = _grow(text, starts, keys, children, piece_of)
    return keys, children, piece_of[:nodes].copy()


def ends_of(starts: np.ndarray) -> np.ndarray:
    """1 at the last byte of each of what is ``joined``, uint8 ``[bytes]``."""
    ends = np.zeros(starts[-1], np.uint8)
    ends[starts[1:] - 1] = 1
    return ends


def joined(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The pieces behind each other, uint8, and where each starts, int64 ``[pieces + 1]``."""
    starts = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=starts[1:])
    return np.frombuffer(b"".join(pieces), np.uint8), starts
