"""UTF-8, compiled."""

import numpy as np

from octavo.compiled import inlined


@inlined
def character(data, at):
    """The code point at ``at`` of ``[n]`` uint8, and its bytes; 0 of both where no valid UTF-8
    begins, which is so at each byte that CPython's surrogateescape keeps apart."""
    b = np.int64(data[at])
    rest = len(data) - at
    # The bytes behind it: 0 to 63 where they go on a character.
    one = np.int64(data[at + 1]) ^ 0x80 if rest > 1 else 64
    two = np.int64(data[at + 2]) ^ 0x80 if rest > 2 else 64
    three = np.int64(data[at + 3]) ^ 0x80 if rest > 3 else 64
    point, size = np.int64(0), 0
    if b < 0x80:
        point, size = b, 1
    elif b < 0xE0:
        if b >= 0xC2 and one < 64:
            point, size = (b & 0x1F) << 6 | one, 2
    elif b < 0xF0:
        if one | two < 64:
            found = (b & 0x0F) << 12 | one << 6 | two
            if found >= 0x800 and found >> 11 != 0x1B:  # neither too long nor half of a pair
                point, size = found, 3
    elif one | two | three < 64:
        found = (b & 0x07) << 18 | one << 12 | two << 6 | three
        if 0x10000 <= found <= 0x10FFFF and b < 0xF8:
            point, size = found, 4
    return point, size
