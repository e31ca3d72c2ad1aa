"""Our tokenizers as files of Hugging Face: ``tokenizer.json``, which their library runs.

The same ids for any text, but: text that is no UTF-8 cannot be given to their library; classes of
characters are those of its version of Unicode; and of Unigram vocabularies of sentencepiece, text
with U+2581, NUL or the names of their bytes (``<0x0A>``) may be cut otherwise, and U+2581 comes
back as a space. An id begins each text, unless ``add_special_tokens`` is False, as it does here.
"""

import json
from typing import Any

import numpy as np

from octavo.tokenizers.bytes import ESCAPE, FLIP, ByteTokenizer
from octavo.tokenizers.huggingface import HuggingFaceTokenizer, plain
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.parts import foreign, splitters
from octavo.tokenizers.parts.pieces import PieceTokenizer
from octavo.tokenizers.parts.tables import MISSING
from octavo.tokenizers.unigram import UnigramTokenizer

_SPACE = "\u2581"
_NEVER = -1e6
"""Score of what is not to be found in text."""
_CHARACTERS = {byte: character for character, byte in foreign.byte_alphabet().items()}
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What their file says; None where the scheme cannot be put so."""
    found = None
    if type(tokenizer) is ByteTokenizer:
        found = _of_bytes(tokenizer)
    elif isinstance(tokenizer, PieceTokenizer):
        found = _of_pieces(tokenizer)
    elif isinstance(tokenizer, UnigramTokenizer):
        found = _of_sentencepiece(tokenizer)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        found = _of_theirs(tokenizer)
    if found is None:
        return None
    vocab = found["model"]["vocab"]
    edges = {tokenizer.bos_id, tokenizer.eos_id}
    tokens = (
        vocab.items() if isinstance(vocab, dict) else ((t, i) for i, (t, _) in enumerate(vocab))
    )
    names = _edges(tokenizer, {token for token, i in tokens if i not in edges})
    added = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, name in sorted(names.items())
    ]  # fmt: skip
    first = names[tokenizer.bos_id]
    one, other = (
        [{"SpecialToken": {"id": first, "type_id": i}}, {"Sequence": {"id": text, "type_id": i}}]
        for i, text in enumerate("AB")
    )
    template = {
        "type": "TemplateProcessing", "single": one, "pair": [*one, *other],
        "special_tokens": {first: {"id": first, "ids": [tokenizer.bos_id], "tokens": [first]}},
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": None, "post_processor": template, "decoder": None,
    } | found  # fmt: skip


def _edges(tokenizer: Tokenizer, taken: set[str]) -> dict[int, str]:
    """What the ids at the edges of documents are called, by id: unlike any other token."""
    names = {tokenizer.bos_id: "bos", tokenizer.eos_id: "eos"}
    if len(names) == 1:
        names = {tokenizer.eos_id: "endoftext"}
    for i, name in names.items():
        while f"<|{name}|>" in taken:
            name += "_"
        names[i] = f"<|{name}|>"
    return names


def tokenizer_config(tokenizer: Tokenizer, file: dict[str, Any], length: int) -> dict[str, Any]:
    """tokenizer_config.json beside it."""
    names = {token["id"]: token["content"] for token in file["added_tokens"]}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names[tokenizer.bos_id],
        "eos_token": names[tokenizer.eos_id],
        "pad_token": names[tokenizer.eos_id],
        "padding_side": "left",  # what is generated goes on behind the text
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # text that spells one is text
    }


def _of_bytes(tokenizer: ByteTokenizer) -> dict[str, Any]:
    """Ids that have a meaning of their own are written as an escape and another byte, which
    replacements do, and undo from the last to the first."""
    edges = _edges(tokenizer, set())
    vocab = {edges.get(byte, _CHARACTERS[byte]): byte for byte in range(256)}
    pairs = [(chr(byte), chr(ESCAPE) + chr(byte ^ FLIP)) for byte in tokenizer.special]
    pairs.sort(key=lambda pair: pair[0] != chr(ESCAPE))  # the escape itself first
    return {
        "normalizer": _sequence("normalizers", [_replace(a, b) for a, b in pairs]),
        "pre_tokenizer": _LEVEL | {"use_regex": False},
        "decoder": _sequence(
            "decoders",
            [_LEVEL | {"use_regex": False}, *(_replace(b, a) for a, b in reversed(pairs))],
        ),
        "model": _model("BPE", vocab, merges=[]),
    }


def _of_pieces(tokenizer: PieceTokenizer) -> dict[str, Any] | None:
    kind = type(tokenizer)
    own = (kind.ends, kind.segment) != (PieceTokenizer.ends, PieceTokenizer.segment)
    if own or tokenizer.presegmented:
        return None
    tokens = ["".join(map(_CHARACTERS.__getitem__, piece)) for piece in tokenizer.pieces]
    vocab = {token: i for i, token in enumerate(tokens)}
    if tokenizer.segmenter == "merges":
        halves = foreign.made_of(tokenizer.pieces)
        made = np.flatnonzero(halves[:, 0] != MISSING)
        if (halves[made].max(axis=1, initial=-1) >= made).any():
            return None  # by rank alone, which no list of merges says
        merges = [[tokens[left], tokens[right]] for left, right in halves[made].tolist()]
        model = _model("BPE", vocab, merges=merges)
    elif tokenizer.segmenter == "greedy":
        model = {
            "type": "WordPiece", "unk_token": tokens[0], "continuing_subword_prefix": "",
            "max_input_chars_per_word": 2**40, "vocab": vocab,
        }  # fmt: skip
    else:  # of as few pieces, the way with the longest last one, as theirs
        scores = tokenizer.scores or [-1.0] * len(tokens)
        pairs = [list(pair) for pair in zip(tokens, scores, strict=True)]
        # The unknown, which nothing is, is an id that no text has: theirs fuses two of them.
        pairs.append([_edges(tokenizer, set(tokens))[tokenizer.eos_id], _NEVER])
        unknown = tokenizer.eos_id
        model = {"type": "Unigram", "unk_id": unknown, "vocab": pairs, "byte_fallback": False}
    level = _LEVEL | {"use_regex": False}
    split = {
        "type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated",
        "invert": False,
    }  # fmt: skip
    whole = tokenizer.pattern == splitters.PATTERNS["none"]
    return {
        "pre_tokenizer": level if whole else _sequence("pretokenizers", [split, level]),
        "decoder": level,
        "model": model,
    }


def _of_sentencepiece(tokenizer: UnigramTokenizer) -> dict[str, Any]:
    # Bytes, whose score is 0 there, are not found in text that spells their name.
    vocab = [[token, score or _NEVER] for token, score in tokenizer.scored]
    unknown = tokenizer.pieces.index(b"")
    vocab[unknown][0] = f"\uffff{unknown}\uffff"
    return {
        "normalizer": _replace(" ", _SPACE),
        "decoder": _sequence(
            "decoders", [_replace(_SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
        ),
        "model": {
            "type": "Unigram", "vocab": vocab, "byte_fallback": True,
            "unk_id": unknown,
        },
    }  # fmt: skip


def _of_theirs(tokenizer: HuggingFaceTokenizer) -> dict[str, Any] | None:
    """Their file, without what is taken out of text before."""
    found = plain(foreign.Described(tokenizer.file))
    if len(found["model"]["vocab"]) != len(tokenizer.pieces):  # gaps, which the edge would fill
        return None
    decoder = json.loads(tokenizer.file).get("decoder")
    return {name: found[name] for name in ("normalizer", "pre_tokenizer", "model")} | {
        "decoder": decoder
    }


def _sequence(name: str, steps: list[dict]) -> dict[str, Any]:
    return {"type": "Sequence", name: steps}


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _model(kind: str, vocab: dict[str, int], **more: Any) -> dict[str, Any]:
    return {"type": kind, "vocab": vocab} | more
