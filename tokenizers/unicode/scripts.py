"""Writing systems of UTF-8 bytes, by the Unicode Script property (version 15.0).

A script is known once the last byte of a character is: bytes before that, and characters of every
script (spaces, digits, punctuation), go with the newest letter before them. So the script at a byte
is decided by the bytes up to it.
"""

import functools

import numpy as np

from octavo.tokenizers.unicode.table import TABLE

PAGE = 128


@functools.cache
def names() -> tuple[str, ...]:
    """Every script, lowercase; the first, "other", stands for none so far."""
    with np.load(TABLE) as file:
        return tuple(str(name) for name in file["script_names"])


@functools.cache
def pages() -> tuple[np.ndarray, np.ndarray]:
    """The script of a code point as ``values[first[point // PAGE], point % PAGE]``, uint8: equal
    pages are kept once."""
    with np.load(TABLE) as file:
        starts, runs = file["script_starts"], file["script_values"]
    table = np.repeat(runs, np.diff(np.append(starts, 0x110000))).reshape(-1, PAGE)
    values, first = np.unique(table, axis=0, return_inverse=True)
    return first.reshape(-1).astype(np.int32), values


def script_of_character(byte, before, values, first):
    """The script of the character that ends with each byte: an index into ``names()``; 0 where no
    character ends, or one of no script of its own. For NumPy and JAX arrays.

    byte: integers ``[...]``; before: the three bytes before it, nearest first, -1 where there is
    none; values and first: ``pages()``, as arrays of the same library.
    """
    xp = byte.__array_namespace__()
    one, two, three = before

    def inner(byte):
        return (byte >= 128) & (byte < 192)

    point = xp.where((byte >= 0) & (byte < 128), byte, 0)
    low = byte & 63
    point = xp.where(inner(byte) & (one >= 194) & (one < 224), (one & 31) << 6 | low, point)
    inside = inner(byte) & inner(one)
    low = (one & 63) << 6 | low
    point = xp.where(inside & (two >= 224) & (two < 240), (two & 15) << 12 | low, point)
    inside = inside & inner(two)
    low = (two & 63) << 12 | low
    point = xp.where(inside & (three >= 240) & (three < 245), (three & 7) << 18 | low, point)
    point = xp.minimum(point, 0x10FFFF)
    return values[first[point // PAGE], point % PAGE].astype(xp.int32)


def scripts_of(text: bytes) -> np.ndarray:
    """The script at each byte of a document, int32 indices into ``names()``."""
    data = np.frombuffer(text, np.uint8).astype(np.int32)
    padded = np.concatenate([np.full(3, -1, np.int32), data])
    before = [padded[3 - back : len(padded) - back] for back in (1, 2, 3)]
    first, values = pages()
    own = script_of_character(data, before, values, first)
    newest = np.maximum.accumulate(np.where(own > 0, np.arange(len(own)), -1))
    return np.where(newest >= 0, own[newest], 0)


def main_script(text: bytes) -> str:
    """The script of most of a text's letters (weighed in bytes), "other" if it has none."""
    counts = np.bincount(scripts_of(text), minlength=len(names()))
    return names()[int(counts[1:].argmax()) + 1] if counts[1:].any() else "other"
