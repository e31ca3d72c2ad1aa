"""Tokenizers by name, from a file, and back to a file."""

from pathlib import Path
from typing import Any

from octavo import files
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.unigram import UnigramTokenizer
from octavo.tokenizers.words import WordTokenizer

_SCHEMES = {
    "bytes": (lambda data: ByteTokenizer(), set()),
    "words": (lambda data: WordTokenizer(data["rule"]), {"rule"}),
    "bpe": (BPETokenizer.from_json, {"pattern", "vocabulary"}),
    "unigram": (UnigramTokenizer.from_json, {"model"}),
}
"""By name: what makes one, and the fields it is made of."""


def from_json(data: dict) -> Tokenizer:
    """The tokenizer that wrote ``data`` with ``to_json``. Raises ValueError if none did."""
    scheme = data.get("scheme") if isinstance(data, dict) else None
    if not isinstance(scheme, str) or scheme not in _SCHEMES:
        known = ", ".join(_SCHEMES)
        raise ValueError(f"unknown tokenization scheme {scheme!r:.40}; known: {known}")
    make, fields = _SCHEMES[scheme]
    if (found := set(data) - {"scheme"}) != fields:
        wanted = ", ".join(sorted(fields)) or "no other field"
        raise ValueError(f"a tokenizer {scheme} has {wanted}, found {', '.join(sorted(found))}")
    return make(data)


def load(path: Path) -> Tokenizer:
    """Read a tokenizer file. Raises ValueError if it is not one, OSError if it cannot be read."""
    try:
        return from_json(files.read_json(path, dict[str, Any], error=ValueError))
    except ValueError as error:
        what = str(error).removeprefix(f"{path} ").rstrip(".")
        raise ValueError(f"{path} is not a tokenizer file: {what}") from error


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer file that ``load`` reads."""
    files.write(path, files.json_text(tokenizer.to_json()))
