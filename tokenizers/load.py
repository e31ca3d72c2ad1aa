"""Tokenizers by name, from a file, and back to a file."""

import json
from pathlib import Path

from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.unigram import UnigramTokenizer
from octavo.tokenizers.words import WordTokenizer


def from_json(data: dict) -> Tokenizer:
    """The tokenizer that wrote ``data`` with ``to_json``. Raises ValueError for unknown schemes."""
    schemes = {
        "bytes": lambda data: ByteTokenizer(),
        "words": lambda data: WordTokenizer(data["rule"]),
        "bpe": BPETokenizer.from_json,
        "unigram": UnigramTokenizer.from_json,
    }
    scheme = data.get("scheme")
    if scheme not in schemes:
        raise ValueError(f"unknown tokenization scheme {scheme!r}; known: {', '.join(schemes)}")
    return schemes[scheme](data)


def load(path: Path) -> Tokenizer:
    """Read a tokenizer file. Raises ValueError if it is not one, OSError if it cannot be read."""
    try:
        return from_json(json.loads(Path(path).read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a tokenizer file: {error!r}") from error


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer file that ``load`` reads."""
    Path(path).write_text(json.dumps(tokenizer.to_json()))
