"""A ``tokenizer.json`` of Hugging Face that does not become BPE of ours (``parts/foreign.py``), run
by their library, ``tokenizers`` (the extra ``hf``), at about 2 MB/s.

It must give back text as it is: one that normalizes, strips or puts a space before is refused. Text
that spells an added or special token is text like any other here, and the ids of such tokens stand
for none. Templates around a text, truncation, padding and dropout are left out.
"""

import functools
import json
import re
from typing import Any

from octavo.tokenizers.interface import fingerprint_of, native
from octavo.tokenizers.parts.foreign import Described, byte_alphabet
from octavo.tokenizers.parts.library import LibraryTokenizer

_SPACE = "\u2581"
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class HuggingFaceTokenizer(LibraryTokenizer):
    """Ids of a ``tokenizer.json``. file: its text. Raises ValueError if it is none or loses text,
    or if the library is missing."""

    scheme = "huggingface"
    usage = {}
    fields = ("file",)

    def __init__(self, file: str):
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError(
                "it needs the library of Hugging Face: pip install 'octavo[hf]'"
            ) from error
        self.file = file
        data = Described(file)
        with native("the library of Hugging Face does not take it"):
            self._tokenizer = Tokenizer.from_str(json.dumps(plain(data)))
        steps = json.dumps([data.normalizer, data.pre_tokenizer], ensure_ascii=False)
        by_alphabet, spaced = '"ByteLevel"' in steps, _SPACE in steps
        fallback = bool(data.model.get("byte_fallback"))
        alphabet = byte_alphabet()
        pieces = [b""] * (max((i for _, i in data.tokens), default=-1) + 1)
        spelling: dict[int, int] = {}
        for token, i in data.tokens:
            if i in data.silent:
                continue
            byte = None
            if by_alphabet:
                byte = alphabet.get(token)
            elif fallback and (found := _BYTE.fullmatch(token)):
                byte = int(found[1], 16)
            if byte is not None:
                pieces[i] = bytes([byte])
                spelling[byte] = i
            elif by_alphabet:
                pieces[i] = (
                    bytes(alphabet[c] for c in token) if alphabet.keys() >= set(token) else b""
                )
            else:
                pieces[i] = (token.replace(_SPACE, " ") if spaced else token).encode()
        reserved = _SPACE if spaced and not by_alphabet else ""
        super().__init__(pieces, spelling, reserved, data.added)

    def _run(self, text: str) -> list[int]:
        try:
            with native(""):
                return self._tokenizer.encode(text, add_special_tokens=False).ids
        except ValueError:  # what it has no id for
            return []

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(b"huggingface", self.file.encode())

    def to_json(self) -> dict:
        return {"scheme": self.scheme, "file": self.file}

    @classmethod
    def from_json(cls, data: dict) -> "HuggingFaceTokenizer":
        if not isinstance(data["file"], str):
            raise ValueError("file is no text")
        return cls(data["file"])


def plain(data: Described) -> dict[str, Any]:
    """What turns text into ids, without what is taken out of it before."""
    model: dict[str, Any] = data.model | ({"dropout": None} if data.model.get("dropout") else {})
    if isinstance(model["vocab"], list):  # Unigram, which would find silent ids by their spelling
        model["vocab"] = [
            [f"\uffff{i}\uffff" if i in data.silent else token, score]
            for i, (token, score) in enumerate(model["vocab"])
        ]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": data.normalizer, "pre_tokenizer": data.pre_tokenizer, "post_processor": None,
        "decoder": None, "model": model,
    }  # fmt: skip
