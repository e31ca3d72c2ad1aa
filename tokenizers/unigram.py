"""Unigram subwords (Kudo 2018, 1804.10959), trained and encoded with ``sentencepiece``.

White space stays, at the end of the piece it follows. What sentencepiece cannot represent (invalid
UTF-8, NUL, and U+2581, which it uses for the space) is spelled with its 256 single-byte pieces, so
that any byte string comes back.
"""

import functools
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.tokenizers.interface import SubwordTokenizer, base64_bytes, base64_text, fingerprint_of
from octavo.tokenizers.parts.pieces import BYTES, PieceTokenizer, options_without
from octavo.tokenizers.parts.text import Text

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_SPACE = "\u2581"
_SPELLED = re.compile("[\udc80-\udcff\x00" + _SPACE + "]+")
_RESERVED = re.compile(f"[\x00{_SPACE}\u2585]")
"""What is left out of training; sentencepiece drops any sentence with its unknown sign, U+2585."""
_LONGEST = 4000
"""Bytes of a training sentence; sentencepiece drops longer ones."""


_HOW: dict[str, Any] = {
    "model_type": "unigram",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "treat_whitespace_as_suffix": True,
    "byte_fallback": True,
    "allow_whitespace_only_pieces": True,
    "bos_id": -1,
    "eos_id": -1,
    "pad_id": -1,
    "num_threads": 1,
    "minloglevel": 2,
}


def bytes_of(processor: "SentencePieceProcessor", i: int) -> bytes:
    """What an id of sentencepiece stands for; nothing, of its unknown sign. Raises ValueError for a
    piece that is no UTF-8, or a byte that is no number."""
    if processor.is_byte(i):
        return bytes([int(processor.id_to_piece(i)[1:-1], 16)])
    if processor.is_unknown(i):
        return b""
    return processor.id_to_piece(i).replace(_SPACE, " ").encode()


class UnigramTokenizer(SubwordTokenizer):
    """Ids from a trained sentencepiece model.

    Raises ValueError if ``model`` is no such model, or lacks the 256 single bytes.
    """

    scheme = "unigram"
    usage = {"unigram:SIZE": "Unigram subwords of SIZE ids, trained on these sources first"}
    fields = ("model",)
    optional = ("stochastok", "presegmented")
    options = options_without("segmenter")

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
            super().__init__([bytes_of(self._processor, i) for i in range(count)])
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

    @property
    def scored(self) -> list[tuple[str, float]]:
        """What sentencepiece calls each piece, and its logarithm of a probability (0 of bytes)."""
        model = self._processor
        return [(model.id_to_piece(i), model.get_score(i)) for i in range(len(self.pieces))]

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(b"unigram", self.model)

    @classmethod
    def train(
        cls, documents: Iterable[bytes], vocab_size: int, **options: Any
    ) -> "UnigramTokenizer | UnigramPieces":
        """Learn ``vocab_size`` ids (the document edge included) from documents. With ``options``,
        those of ``PieceTokenizer.train``, inside the pre-tokens of a splitter.

        Raises ValueError if the text is too small for as many, or has more characters than that.
        """
        if options:
            return UnigramPieces.train(documents, vocab_size, **options)
        return cls(_trained(_sentences(documents), vocab_size))

    @classmethod
    def fields_of(cls, data: dict) -> tuple[str, ...]:
        return cls.fields if "model" in data else (*PieceTokenizer.fields, "segmenter", "scores")

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
        return {"scheme": self.scheme, "model": base64_text(self.model)}

    @classmethod
    def from_json(cls, data: dict) -> "UnigramTokenizer | UnigramPieces":
        if "model" not in data:
            return UnigramPieces.from_json(data)
        if more := set(cls.optional) & set(data):
            raise ValueError(f"a whole sentencepiece model goes without {', '.join(sorted(more))}")
        return cls(base64_bytes(data["model"]))


def _sentences(documents: Iterable[bytes]) -> Iterator[str]:
    for document in documents:
        for line in document.decode("utf-8", errors="ignore").splitlines():
            line = _RESERVED.sub("", line)
            size = _LONGEST // 4  # characters, of up to four bytes
            yield from (line[i : i + size] for i in range(0, len(line), size))


class UnigramPieces(PieceTokenizer):
    """Unigram inside pre-tokens: trained by ``sentencepiece``, whose white space may stand anywhere
    in a piece then, and segmented by the largest sum of its scores. A byte that is no piece's costs
    as much as there: 10 more than the rarest piece."""

    scheme = UnigramTokenizer.scheme

    @classmethod
    def build(cls, text: Text, size: int) -> dict[str, Any]:
        import sentencepiece

        room = size - 256
        characters = min(room // 2, max(32, room // 8))
        # Bytes that are characters too come twice, and are dropped once.
        model = _trained(
            _counted(text.counts, characters), size + 128, input_format="tsv",
            hard_vocab_limit=False, character_coverage=1.0, split_by_whitespace=False,
            split_by_number=False, treat_whitespace_as_suffix=False,
        )  # fmt: skip
        processor = sentencepiece.SentencePieceProcessor()
        processor.load_from_serialized_proto(model)
        ids = [i for i in range(processor.get_piece_size()) if not processor.is_unknown(i)]
        scores = {
            bytes_of(processor, i): processor.get_score(i)
            for i in ids if not processor.is_byte(i)
        }  # fmt: skip
        rarest = min(scores.values(), default=0.0) - 10
        longer = [piece for piece in scores if len(piece) > 1]  # likeliest first
        pieces = [*BYTES, *longer[: size - 256]]
        found = [scores.get(piece, rarest) for piece in pieces]
        return {"vocabulary": pieces, "segmenter": "likeliest", "scores": found}


def _counted(counts: Counter[bytes], most: int) -> Iterator[str]:
    """Sentences of sentencepiece: what of each pre-token lies between other characters than the
    ``most`` frequent, which are spelled by bytes, and how often it occurs."""
    characters: Counter[str] = Counter()
    for pre_token, count in counts.items():
        for character in pre_token.decode("utf-8", errors="ignore"):
            characters[character] += count
    common = {character for character, _ in characters.most_common(max(most, 1))} - set("\n\t")
    for pre_token, count in counts.items():
        word = _RESERVED.sub("", pre_token.decode("utf-8", errors="ignore"))
        if rare := set(word) - common:
            word = word.translate(dict.fromkeys(map(ord, rare), "\n"))
        for part in word.split("\n"):
            for at in range(0, len(part), _LONGEST // 4):
                yield f"{part[at : at + _LONGEST // 4]}\t{count}"


def _trained(sentences: Iterator[str], vocab_size: int, **options: Any) -> bytes:
    """A sentencepiece model of ``vocab_size`` ids, the edge of a document included."""
    import sentencepiece

    out = io.BytesIO()
    how: dict[str, Any] = _HOW | options | {"vocab_size": vocab_size - 1}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=out,
            **how,
        )
    except RuntimeError as error:
        if alphabet := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
            raise ValueError(
                "the characters of the text need a Unigram vocabulary of at least "
                f"{int(alphabet[1]) + 1} ids, asked for {vocab_size}"
            ) from error
        if "sentences_.empty()" in str(error):
            raise ValueError("the sources hold no text to train on") from error
        limit = re.search(r"value <= (\d+)", str(error))
        most = f"; at most {int(limit[1]) + 1} are possible" if limit else f" ({error})"
        raise ValueError(
            f"the text is too small for a Unigram vocabulary of {vocab_size} ids{most}"
        ) from error
    return out.getvalue()
