"""UTF-8 bytes as ids: 256 ids, special meanings on C0 control bytes ("Back to Bytes").

Id ``i`` is byte ``i``, so encoding text is free. Three control bytes carry meaning:

========  ====  =====================================================
0x02 STX  bos   the input before the first byte of a document
0x03 ETX  eos   the end of a document; predicted and paid for
0x10 DLE  esc   the next id, xor 0x40, is a literal special byte
========  ====  =====================================================

Text almost never holds these bytes. Where it does, each is written as DLE and the byte xor 0x40,
as data links have done since ASCII, so that any byte string survives and the cost is visible in
the score. (UTF8Tokenizer, the paper's code, forbids them instead.)
"""

import numpy as np

from octavo.tokenizers.interface import Tokenizer, Vocabulary, fingerprint_of

BOS, EOS, ESCAPE = 0x02, 0x03, 0x10
FLIP = 0x40


class ByteTokenizer(Tokenizer):
    """Every id is a byte, no id is above 255. See the module docstring."""

    scheme = "bytes"
    usage = {"bytes": "UTF-8 bytes themselves"}
    vocab_size = 256
    bos_id = BOS
    eos_id = EOS
    special = (BOS, EOS, ESCAPE)
    """Ids that stand for no byte."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.vocab_size, self.bos_id, self.eos_id, are_bytes=True)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.name.encode(), bytes(self.special), bytes([FLIP]))

    def encode(self, data: bytes) -> np.ndarray:
        ids = np.frombuffer(data, np.uint8)
        # Three searches in C cost less than one table lookup per byte.
        if not any(special in data for special in self.special):
            return ids
        literal = np.isin(ids, self.special)
        out = np.full(len(ids) + int(literal.sum()), ESCAPE, np.uint8)
        out[np.arange(len(ids)) + np.cumsum(literal)] = np.where(literal, ids ^ FLIP, ids)
        return out

    def decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() > 255):
            raise ValueError(f"a byte id lies between 0 and 255, found {ids.min()}..{ids.max()}")
        ids = ids.astype(np.uint8)
        if not np.isin(ids, self.special).any():
            return ids.tobytes()
        # Left to right, because the byte after an escape is never an escape itself.
        out = bytearray()
        escaped = False
        for id_ in ids.tolist():
            if escaped:
                out.append(id_ ^ FLIP)
                escaped = False
            elif id_ == ESCAPE:
                escaped = True
            elif id_ not in self.special:
                out.append(id_)
        return bytes(out)

    def bytes_per_id(self) -> np.ndarray:
        sizes = np.ones(256, np.int32)
        sizes[list(self.special)] = 0
        return sizes


BYTES = ByteTokenizer().vocabulary
"""Of a model that reads bytes."""
