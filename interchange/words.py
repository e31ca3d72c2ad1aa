"""The tokenizer of words as transformers runs it: ``tokenization_octavo.py``, which ships along."""

from pathlib import Path
from typing import Any

import numpy as np

from octavo.tokenizers.bytes import ESCAPE, FLIP
from octavo.tokenizers.unicode.table import TABLE
from octavo.tokenizers.words import MARK, MOST_BYTES, WordTokenizer

CODE = Path(__file__).with_name("tokenization_octavo.py")


def files(tokenizer: WordTokenizer, length: int) -> dict[str, dict[str, Any]]:
    """What goes beside it, by the files' names; length: of the model's rows."""
    with np.load(TABLE) as table:
        classes = {name: table[name].tolist() for name in ("starts", "values")}
    rule = {
        "rule": tokenizer.rule, "most_bytes": MOST_BYTES, "mark": MARK, "escape": ESCAPE,
        "flip": FLIP, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id,
    }  # fmt: skip
    config = {
        "tokenizer_class": "OctavoWordTokenizer",
        "auto_map": {"AutoTokenizer": [f"{CODE.stem}.OctavoWordTokenizer", None]},
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|eos|>",
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    return {"words.json": rule | classes, "tokenizer_config.json": config}
