"""A byte model that learns as it reads: contexts of 0 to 4 bytes, mixed by what each has seen.

The probability of a byte by contexts of k bytes is (c + d p') / (n + d), where c of the n bytes
that followed the context were this one, d of them distinct, and p' is what k - 1 bytes say
(Witten-Bell interpolation; 1/256 by none).
"""

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.parts.tables import MISSING, find, put

ORDERS = 5
_ROOM = 1 << 24
"""Places for what was seen; once half are taken, nothing new is noted."""


@compiled
def _read(data, starts, keys, values, bits):
    noted = 0
    for document in range(len(starts) - 1):
        for at in range(starts[document], starts[document + 1]):
            byte = np.int64(data[at])
            p = 1.0 / 256
            for order in range(min(ORDERS, at - starts[document] + 1)):
                context = np.int64(order + 1)
                for i in range(at - order, at):
                    context = context << 8 | np.int64(data[i])
                base = context << 9
                seen = max(find(keys, values, base | 256), np.int32(0))
                kinds = max(find(keys, values, base | 257), np.int32(0))
                mine = max(find(keys, values, base | byte), np.int32(0))
                if seen:
                    p = (mine + kinds * p) / (seen + kinds)
                if mine or noted < _ROOM // 2 - 3:
                    put(keys, values, base | 256, seen + 1)
                    put(keys, values, base | byte, mine + 1)
                    if not mine:
                        put(keys, values, base | 257, kinds + 1)
                        noted += 1 if kinds else 3
            bits[at] = -np.log2(p)


def surprisal_of(documents: list[bytes]) -> list[np.ndarray]:
    """Bits of each byte of each document, float64, given what was read before."""
    starts = np.cumsum([0, *map(len, documents)])
    data = np.frombuffer(b"".join(documents), np.uint8)
    keys, values = np.full(_ROOM, MISSING, np.int64), np.zeros(_ROOM, np.int32)
    bits = np.zeros(len(data))
    _read(data, starts, keys, values, bits)
    return np.split(bits, starts[1:-1]) if documents else []
