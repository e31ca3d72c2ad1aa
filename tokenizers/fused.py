"""Bytes that say whether a subword ends with them: how a subword tokenizer cuts, made causal.

Where a subword ends depends on what follows. Here each byte is one of two ids, itself or, as the
last of its subword, itself + 256 (the fused output vocabulary of Bolmo, Minixhofer et al. 2025,
2512.15586): a model predicts and pays for the end with the byte, and where one comes the subword
has ended, decided by what was read so far. A model may put ends anywhere: decoding drops them.
"""

from pathlib import Path

import numpy as np

from octavo.tokenizers.interface import Tokenizer, Vocabulary, fingerprint_of

ENDS = 256
"""Added to a byte that is the last of its subword."""


class FusedTokenizer(Tokenizer):
    """``byte`` or ``byte + 256`` for each byte; of: what cuts the subwords."""

    scheme = "fused"
    usage = {"fused:FILE": "bytes that say where the subwords of a tokenizer.json end"}
    fields = ("of",)
    vocab_size = 2 * ENDS + 1
    bos_id = eos_id = 2 * ENDS

    def __init__(self, of: Tokenizer):
        self.of = of

    @classmethod
    def from_argument(cls, argument: str | None) -> "FusedTokenizer":
        from octavo.tokenizers import load

        if not argument:
            raise ValueError("fused takes the file of a tokenizer, as fused:RUN/tokenizer.json")
        try:
            return cls(load.load(Path(argument)))
        except OSError as error:
            raise ValueError(f"{argument} cannot be read: {error.strerror or error}") from error

    @property
    def name(self) -> str:
        return f"fused-{self.of.name}"

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.vocab_size, self.bos_id, self.eos_id, unit_ends=ENDS)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(b"fused", self.of.fingerprint.encode())

    def encode(self, data: bytes) -> np.ndarray:
        return self._marked(data, self.of.encode(data))

    def encode_training(self, data: bytes) -> np.ndarray:
        return self._marked(data, self.of.encode_training(data))

    def _marked(self, data: bytes, subwords: np.ndarray) -> np.ndarray:
        ids = np.frombuffer(data, np.uint8).astype(self.dtype)
        sizes = self.of.bytes_per_id()[subwords]
        ids[np.cumsum(sizes[sizes > 0]) - 1] += ENDS
        return ids

    def decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids).astype(np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise ValueError(f"an id lies below {self.vocab_size}, found {ids.min()}..{ids.max()}")
        return (ids[ids != self.eos_id] % ENDS).astype(np.uint8).tobytes()

    def bytes_per_id(self) -> np.ndarray:
        return np.array([1] * 2 * ENDS + [0], np.int32)

    def to_json(self) -> dict:
        return {"scheme": self.scheme, "of": self.of.to_json()}

    @classmethod
    def from_json(cls, data: dict) -> "FusedTokenizer":
        from octavo.tokenizers import load

        return cls(load.from_json(data["of"]))
