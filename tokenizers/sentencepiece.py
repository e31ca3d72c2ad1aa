"""A ``.model`` file of sentencepiece that was trained elsewhere, Unigram or BPE, run by
``sentencepiece``.

It must keep text as it is (normalization "identity", no white space removed) and spell what it does
not know in bytes (``byte_fallback``), or it is refused. The space that many models put before a
text is turned off: a text begins with other ids then than in the library. NUL and U+2581, which
sentencepiece uses for the space, are spelled in bytes; control ids stand for no text.
"""

import functools

from octavo.tokenizers.interface import base64_bytes, base64_text, fingerprint_of
from octavo.tokenizers.parts.library import LibraryTokenizer
from octavo.tokenizers.unigram import bytes_of

_SPACE = "\u2581"
_NO_PREFIX = b"\x1a\x02\x18\x00"
"""normalizer_spec { add_dummy_prefix: false } as a protocol buffer: what stands last holds."""


class SentencePieceTokenizer(LibraryTokenizer):
    """Ids from a sentencepiece model. Raises ValueError if ``model`` is none, or loses text."""

    scheme = "sentencepiece"
    usage = {}
    fields = ("model",)

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.load_from_serialized_proto(model)
            ids = range(self._processor.get_piece_size())
            pieces = [self._bytes_of(i) for i in ids]
            spelling = {pieces[i][0]: i for i in ids if self._processor.is_byte(i)}
        except (RuntimeError, ValueError, IndexError) as error:  # a piece that is no UTF-8, too
            raise ValueError("this sentencepiece model is damaged") from error
        super().__init__(pieces, spelling, reserved=f"\x00{_SPACE}")

    def _bytes_of(self, i: int) -> bytes:
        return b"" if self._processor.is_control(i) else bytes_of(self._processor, i)

    def _run(self, text: str) -> list[int]:
        return self._processor.encode(text)

    @classmethod
    def from_file(cls, data: bytes) -> "SentencePieceTokenizer":
        """Of a ``.model`` file, without a space before each text."""
        return cls(data.removesuffix(_NO_PREFIX) + _NO_PREFIX)

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(b"sentencepiece", self.model)

    def to_json(self) -> dict:
        return {"scheme": self.scheme, "model": base64_text(self.model)}

    @classmethod
    def from_json(cls, data: dict) -> "SentencePieceTokenizer":
        return cls(base64_bytes(data["model"]))
