"""Unigram subwords (Kudo 2018, 1804.10959), trained and encoded with ``sentencepiece``.

White space stays, at the end of the piece it follows. What sentencepiece cannot represent (invalid
UTF-8, NUL, and U+2581, which it uses for the space) is spelled with its 256 single-byte pieces, so
that any byte string comes back.
"""

import base64
import functools
import io
import re
from collections.abc import Iterable, Iterator

import numpy as np

from octavo.tokenizers.interface import SubwordTokenizer, base64_bytes, fingerprint_of

_SPACE = "\u2581"
_SPELLED = re.compile("[\udc80-\udcff\x00" + _SPACE + "]+")
_RESERVED = re.compile(f"[\x00{_SPACE}\u2585]")
"""What is left out of training; sentencepiece drops any sentence with its unknown sign, U+2585."""
_LONGEST = 4000
"""Bytes of a training sentence; sentencepiece drops longer ones."""


class UnigramTokenizer(SubwordTokenizer):
    """Ids from a trained sentencepiece model.

    Raises ValueError if ``model`` is no such model, or lacks the 256 single bytes.
    """

    scheme = "unigram"
    usage = {"unigram:SIZE": "Unigram subwords of SIZE ids, trained on these sources first"}
    fields = ("model",)

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise ValueError("this is no sentencepiece model") from error
        count = self._processor.get_piece_size()
        try:
            super().__init__([self._bytes_of(i) for i in range(count)])
        except ValueError as error:  # a piece that is no UTF-8, or a byte that is no number
            raise ValueError("a piece of this sentencepiece model is damaged") from error
        self._spelling = {
            piece: i for i, piece in enumerate(self.pieces) if self._processor.is_byte(i)
        }
        if len(self._spelling) != 256:
            raise ValueError("a lossless Unigram vocabulary holds the 256 single bytes")

    @property
    def name(self) -> str:
        return f"unigram-{self.vocab_size}"

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(b"unigram", self.model)

    def _bytes_of(self, i: int) -> bytes:
        if self._processor.is_byte(i):
            return bytes([int(self._processor.id_to_piece(i)[1:-1], 16)])
        if self._processor.is_unknown(i):
            return b""
        return self._processor.id_to_piece(i).replace(_SPACE, " ").encode()

    @classmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int) -> "UnigramTokenizer":
        """Learn ``vocab_size`` ids (the document edge included) from documents.

        Raises ValueError if the text is too small for as many, or has more characters than that.
        """
        import sentencepiece

        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(documents),
                model_writer=out,
                model_type="unigram",
                vocab_size=vocab_size - 1,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                treat_whitespace_as_suffix=True,
                byte_fallback=True,
                allow_whitespace_only_pieces=True,
                bos_id=-1, eos_id=-1, pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )  # fmt: skip
        except RuntimeError as error:
            if alphabet := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
                raise ValueError(
                    "the characters of the text need a Unigram vocabulary of at least "
                    f"{int(alphabet[1]) + 1} ids, asked for {vocab_size}"
                ) from error
            limit = re.search(r"value <= (\d+)", str(error))
            most = f"; at most {int(limit[1]) + 1} are possible" if limit else f" ({error})"
            raise ValueError(
                f"the text is too small for a Unigram vocabulary of {vocab_size} ids{most}"
            ) from error
        return cls(out.getvalue())

    def encode(self, data: bytes) -> np.ndarray:
        text = data.decode("utf-8", errors="surrogateescape")
        ids: list[int] = []
        at = 0
        for match in _SPELLED.finditer(text):
            ids += self._processor.encode(text[at : match.start()]) if match.start() > at else []
            spelled = match[0].encode("utf-8", errors="surrogateescape")
            ids += [self._spelling[bytes([b])] for b in spelled]
            at = match.end()
        ids += self._processor.encode(text[at:]) if at < len(text) else []
        return np.array(ids, self.dtype)

    def to_json(self) -> dict:
        return {"scheme": self.scheme, "model": base64.b64encode(self.model).decode()}

    @classmethod
    def from_json(cls, data: dict) -> "UnigramTokenizer":
        return cls(base64_bytes(data["model"]))


def _sentences(documents: Iterable[bytes]) -> Iterator[str]:
    for document in documents:
        for line in document.decode("utf-8", errors="ignore").splitlines():
            line = _RESERVED.sub("", line)
            size = _LONGEST // 4  # characters, of up to four bytes
            yield from (line[i : i + size] for i in range(0, len(line), size))
