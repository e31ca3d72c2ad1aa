"""What several tests share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from octavo.configs.schema import Config
from octavo.evaluation.score import packed_rows
from octavo.model.batch import FIELDS, Batch
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.state import Definition, define

SMALL = {"width": 64, "layers": 2, "heads": 4, "batch_size": 8, "length": 64, "steps": 4}
"""What a test cannot afford at its real size, by field name, in any nested config."""


def shrink(config):
    """The same config with its sizes capped by ``SMALL``; its choices stay."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = shrink(value)
        elif field.name in SMALL:
            changes[field.name] = min(value, SMALL[field.name])
    return dataclasses.replace(config, **changes)


def defined(config: Config, vocab_size: int = 256) -> tuple[Definition, dict]:
    """The model and parameters far from their near-uniform start, so that leaks show."""
    definition = define(config.model, vocab_size, config.train.compute_dtype, "cpu")
    params = jax.jit(definition.init)(jax.random.key(1))
    return definition, jax.tree.map(lambda leaf: leaf * 2, params)


def batch_of(documents: list[bytes], length: int, tokenizer=None) -> Batch:
    """Documents packed in order into rows of ``length``."""
    tokenizer = tokenizer or ByteTokenizer()
    encoded = [tokenizer.encode(document) for document in documents]
    rows = np.stack(packed_rows(encoded, tokenizer, length, overlap=0))
    return Batch(**{name: jnp.asarray(rows[:, i]) for i, name in enumerate(FIELDS)}).widen()


def random_text(seed: int, size: int) -> bytes:
    """Bytes of words, spaces, punctuation and multi-byte characters."""
    rng = np.random.default_rng(seed)
    pieces = ["the ", "a", "éè", "日本", ", ", "\n", "  ", "xyz", "Ω", "7", "word "]
    text = "".join(rng.choice(pieces, size)).encode()
    return text[:size]
