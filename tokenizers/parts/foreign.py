"""Tokenizer files of others: a ``tokenizer.json`` of Hugging Face, a file of tiktoken (a line a
piece: base64 and rank), a ``.model`` of sentencepiece.

What merges bytes by rank inside pre-tokens of a published pattern becomes a ``BPETokenizer``, with
the same ids: the order of theirs, without gaps and without added tokens. That it cuts every text as
theirs does is proved for the vocabulary (``made_of``); only the classes of characters are those of
our version of Unicode. Else the library of the file runs it
(``tokenizers/huggingface.py``, ``tokenizers/sentencepiece.py``). Special tokens are left out: text
that spells one is text, and the edge of a document is an id of its own.
"""

import json
import re
from typing import Any

import numpy as np

from octavo.compiled import compiled
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.interface import Tokenizer, TrainedTokenizer, base64_bytes
from octavo.tokenizers.parts import segment, splitters
from octavo.tokenizers.parts.pieces import BYTES
from octavo.tokenizers.parts.tables import MISSING, find, joined

LONGEST = 1024
"""Bytes of a piece, at most."""
MOST_IDS = TrainedTokenizer.numbers.stop - 2

_ENCODINGS = {"r50k": ("gpt2",), "p50k": ("gpt2",), "qwen": ("llama3", "single")}
"""Splitter and rule for digits, by a part of the name of a tiktoken file; besides the splitters."""
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,18})\r?")


def read(data: bytes, name: str) -> Tokenizer | None:
    """The tokenizer of a file of this name; None if it is of none of these kinds. Raises ValueError
    if it is damaged or loses text."""
    if _LINE.fullmatch(data.partition(b"\n")[0]):
        return _of_tiktoken(data, name)
    if data[:1] == b"\n" and b"\x00" in data:  # a protocol buffer, and its first piece
        from octavo.tokenizers.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer.from_file(data)
    if data.lstrip()[:1] == b"{" and b'"model"' in data and b'"vocab"' in data:
        from octavo.tokenizers.huggingface import HuggingFaceTokenizer

        file = data.decode()
        return _of_bytes(Described(file)) or HuggingFaceTokenizer(file)
    return None


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (Radford et al. 2019):
    bytes that are seen on paper are themselves, the others the characters from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(0x100 + i): b for i, b in enumerate(unseen)}


class Described:
    """What a ``tokenizer.json`` of Hugging Face says. Raises ValueError if it is none.

    tokens: those of the model, each with its id. merges: the two tokens of each. added: what their
    library looks for in text before all else. silent: ids that no text has: of added tokens that no
    merge makes, and of the unknown.
    """

    def __init__(self, file: str):
        try:
            data = json.loads(file.encode())
            self.normalizer, self.pre_tokenizer = data.get("normalizer"), data.get("pre_tokenizer")
            self.model: dict[str, Any] = dict(data["model"])
            vocab = self.model["vocab"]
            if isinstance(vocab, dict):
                self.tokens = [(str(token), i) for token, i in vocab.items()]
            else:
                self.tokens = [(str(token), i) for i, (token, _) in enumerate(vocab)]
            found = self.model.get("merges") or ()
            self.merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in found]
            self.added = {str(token["content"]) for token in data.get("added_tokens") or ()}
            inner = self.model.get("continuing_subword_prefix") or ""
            made = {left + right[len(inner) :] for left, right in self.merges}
            if not all(right.startswith(inner) for _, right in self.merges):
                raise ValueError("a merge without the prefix, at which their library would abort")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError("it is damaged, or of another kind than Hugging Face's") from error
        if not all(type(i) is int and 0 <= i < MOST_IDS for _, i in self.tokens):
            raise ValueError(f"its ids do not all lie in 0..{MOST_IDS - 1:,}")
        unknown = (self.model.get("unk_token"), self.model.get("unk_id"))
        special = {token for token in self.added - made if len(token) > 1}
        self.silent = {
            i for t, i in self.tokens if t in special or t == unknown[0] or i == unknown[1]
        }


def _of_bytes(data: Described) -> BPETokenizer | None:
    """Byte-level BPE of ours that cuts every text as the file does; None if that is not sure."""
    pattern, alphabet = _pattern(data.pre_tokenizer), byte_alphabet()
    affixes = data.model.get("continuing_subword_prefix"), data.model.get("end_of_word_suffix")
    if data.normalizer is not None or pattern is None or any(affixes) or not data.merges:
        return None
    kept = [token for token, _ in _kept(data)]
    if not set().union(*kept) <= set(alphabet):
        return None
    pieces = [bytes(alphabet[character] for character in token) for token in kept]
    if set(pieces[:256]) != set(BYTES) or max(map(len, pieces)) > LONGEST:
        return None
    ids = {token: i for i, token in enumerate(kept)}
    halves = np.full((len(pieces), 2), MISSING, np.int32)
    last = 255
    for left, right in data.merges:
        whole = ids.get(left + right, MISSING)
        if not (left in ids and right in ids and max(last, ids[left], ids[right]) < whole):
            return None
        halves[whole] = ids[left], ids[right]
        last = whole
    if data.model.get("ignore_merges") and MISSING in halves[256:]:
        return None
    return BPETokenizer(pieces, pattern) if (made_of(pieces) == halves).all() else None


def _kept(data: Described) -> list[tuple[str, int]]:
    """Tokens that text has, in the order of their ids."""
    return sorted((t for t in data.tokens if t[1] not in data.silent), key=lambda token: token[1])


def ids(data: bytes, tokenizer: Tokenizer) -> np.ndarray:
    """The id in a file of each of the ids, but the last, that its ``read`` tokenizer has."""
    if isinstance(tokenizer, BPETokenizer) and data.lstrip()[:1] == b"{":
        return np.array([i for _, i in _kept(Described(data.decode()))])
    return np.arange(tokenizer.vocab_size - 1)


def _pattern(pre_tokenizer: Any) -> str | None:
    """The splitter of ours that cuts as a pre-tokenizer does, if there is one."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, **rest} if rest.get(
            "use_regex", True
        ):
            return splitters.pattern("gpt2")
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(regex)}, **how},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            isolated = how.get("behavior"), how.get("invert")
            names = [("cl100k",), ("o200k",), ("llama3",), ("llama3", "single")]
            if isolated in (("Isolated", False), ("Removed", True)):
                if regex in [splitters.pattern(*name) for name in names]:
                    return regex
    return None


def _of_tiktoken(data: bytes, name: str) -> BPETokenizer:
    pieces: dict[int, bytes] = {}
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        if not (found := _LINE.fullmatch(line)):
            raise ValueError(f"line {number:,} is no base64 and rank")
        piece, rank = base64_bytes(found[1].decode()), int(found[2])
        if rank in pieces or len(piece) > LONGEST:
            what = (
                f"a second piece of rank {rank}" if rank in pieces else "a piece that is too long"
            )
            raise ValueError(f"line {number:,} holds {what}")
        pieces[rank] = piece
    vocabulary = [pieces[rank] for rank in sorted(pieces)]
    if len(vocabulary) > MOST_IDS:
        raise ValueError(f"{len(vocabulary):,} pieces are too many")
    tokenizer = BPETokenizer(vocabulary, _named(name))
    lost = np.flatnonzero(made_of(vocabulary)[256:, 0] == MISSING)
    if len(lost):
        raise ValueError(
            f"no two pieces merge into {vocabulary[256 + lost[0]]!r:.40}, so tiktoken finds it by "
            "other rules than rank"
        )
    return tokenizer


def _named(name: str) -> str:
    """The pattern of a tiktoken file, by its name: it does not say one."""
    parts = re.split("[^a-z0-9]+", name.lower())
    if name == "tokenizer.model":  # as Llama 3 comes
        parts = ["llama3"]
    for part in parts:
        if part in _ENCODINGS or part in splitters.PATTERNS:
            return splitters.pattern(*_ENCODINGS.get(part, (part,)))
    known = ", ".join([*_ENCODINGS, *splitters.PATTERNS])
    raise ValueError(
        "a tiktoken file does not say how text is split before its pieces are found; let its name "
        f"tell, as in mine.cl100k.tiktoken (known are {known})"
    )


@compiled
def _halve(text, starts, single, keys, values, halves):
    for piece in range(256, len(starts) - 1):
        count = starts[piece + 1] - starts[piece]
        ids = np.empty(count, np.int32)
        for i in range(count):
            ids[i] = single[text[starts[piece] + i]]
        while count > 1:
            best, rank = -1, np.int32(0)
            for i in range(count - 1):
                made = find(keys, values, np.int64(ids[i]) << 32 | np.int64(ids[i + 1]))
                if made != MISSING and made != piece and (best < 0 or made < rank):
                    best, rank = i, made
            if best < 0:
                break
            ids[best] = rank
            count -= 1
            for i in range(best + 1, count):
                ids[i] = ids[i + 1]
        if count == 2:
            halves[piece] = ids[:2]


def made_of(pieces: list[bytes]) -> np.ndarray:
    """``[pieces, 2]`` int32: the two ids that merges by rank of the other pieces leave of each, and
    ``MISSING`` where they leave more (and for the 256 single bytes).

    Where these are the two of a list of merges that make ids in rising order, of lower ones, and
    ``MISSING`` for what no merge makes, merges by that list ("pair-rank") give the same ids of any
    text as merges by rank of what they make ("string-rank"). By induction over ids: until id i is
    made, both have made the same. What lies between two ends that no merge has crossed is then as
    it would be alone. So where two neighbours spell piece i, they are the two that the list merges.
    """
    table = segment.pair_table(pieces, range(256, len(pieces)))
    halves = np.full((len(pieces), 2), MISSING, np.int32)
    _halve(*joined(pieces), segment.single_of(pieces), *table, halves)
    return halves
