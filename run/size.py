"""One dial for the size of a model: width, depth and heads of all its levels, for so many
parameters as the definition of the model counts."""

import contextlib
import dataclasses
import math
import re

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config, DataConfig
from octavo.data.errors import DataError
from octavo.data.manifest import read_manifest, tokenizer_of
from octavo.data.pipeline import folders_of
from octavo.data.stdlib import VARIANTS
from octavo.model.check import reads_unit_marks
from octavo.model.units.pools import pool
from octavo.model.units.unpools import unpool
from octavo.run.definition import define
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Tokenizer, Vocabulary
from octavo.tokenizers.words import WordTokenizer

DEPTH = 0.6
"""A trunk of so many times the width is so many times as deep, to this power: the flat model goes
from 4 layers of 128 to 12 of 768 and 20 of 2048."""
CODER_DEPTH = 0.3
"""The same for encoders and decoders beside a trunk."""
HEADS = ((768, 128), (384, 64), (0, 32))
"""From which width on heads have which size. Widths are whole numbers of heads."""
CLOSE = 0.08
"""How far from the asked number of parameters a model may be, as a share, for no other to be
tried."""
FAR = 0.2
"""The same, for it to be refused."""

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}


def parameters_of(size: str) -> int:
    """ "30m" as 30,000,000. Raises ConfigError for what is no size."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmbg]?)", size.strip().lower(), re.ASCII)
    if not found or not (number := round(float(found[1]) * _UNITS[found[2]])):
        raise ConfigError(
            f"--model.size is a number of parameters, as 30m or 1.5b, not {size!r:.40}."
        )
    return number


def ids_of(source: str, model: ModelConfig) -> tuple[Tokenizer, float]:
    """The tokenizer of ``data.source``, and how many bytes an id of its training text stands for
    or, where that is embedded or not made yet, of what the model would be given: words where its
    units end at marks among the ids, and bytes."""
    with contextlib.suppress(DataError, OSError, ValueError):
        if not any(part.partition(":")[0] in VARIANTS for part in source.split(",")):
            folder = folders_of(source)[0]
            manifest = read_manifest(folder)
            text = manifest.splits["train"]
            return tokenizer_of(folder, manifest), text.utf8_bytes / text.tokens
    return WordTokenizer() if reads_unit_marks(model) else ByteTokenizer(), 1.0


def vocabulary_of(source: str, model: ModelConfig) -> Vocabulary:
    """That of ``ids_of``."""
    return ids_of(source, model)[0].vocabulary


def parameters(model: ModelConfig, vocabulary: Vocabulary) -> int:
    """How many parameters the model has. Raises ConfigError if it cannot be."""
    # Rows of a length that anything divides: it is in no parameter.
    config = Config(model=model, data=DataConfig(length=512))
    return define(config, vocabulary, "cpu").parameters


def resized(model: ModelConfig, asked: int, vocabulary: Vocabulary) -> ModelConfig:
    """The model with so many parameters, nearly: the widths of all levels in proportion, whole
    numbers of heads, and layers that grow with them (``DEPTH``); what is left to the asked number
    is made up by the depth. Raises ConfigError if no such model comes near."""

    def count(candidate: ModelConfig) -> int:
        return parameters(candidate, vocabulary)

    best, far, seen = model, math.inf, set()
    found = count(model)
    wide = (asked / found) ** (1 / (2 + DEPTH))
    for _ in range(8):
        widths = _widths(model, wide)
        if widths in seen:  # between two: from the other side
            wide *= 1.02 if asked > found else 0.98
            continue
        seen.add(widths)
        whole, layers = _pattern(model), max(1.0, _main(model) * wide**DEPTH)
        least = max(1, math.floor(layers * 0.7 / whole))
        most = max(least, math.ceil(layers * 1.4 / whole))
        first, second = (count(_scaled(model, widths, wide, n * whole)) for n in (1, 2))
        each = second - first  # of any pattern: all have as many
        patterns = min(max(1 + round((asked - first) / each), least), most)
        candidate = _scaled(model, widths, wide, whole * patterns)
        found = first + (patterns - 1) * each
        if (off := abs(math.log(found / asked))) < far:
            best, far = candidate, off
        if far < math.log1p(CLOSE):
            break
        wide *= (asked / found) ** (1 / (2 + DEPTH))
    if far > math.log1p(FAR):
        raise ConfigError(
            f"--model.size {asked:,}: this model does not come near it by its width and depth; the "
            f"nearest has {count(best):,} parameters."
        )
    return best


def _main(model: ModelConfig) -> int:
    """Layers of the stack whose depth is free: the trunk or, without one, the last decoder."""
    return model.layers or model.stages[-1].decoder_layers


def _pattern(model: ModelConfig) -> int:
    """Layers that it grows by: a whole pattern of mixers."""
    return len(model.mixers if model.layers else model.stages[-1].mixers)


def _widths(model: ModelConfig, wide: float) -> tuple[int, ...]:
    """The width of each level, ``wide`` times what it is, nearly."""
    found = []
    for level, width in enumerate(model.widths):
        unit = _head(width * wide)
        if level:  # in pieces, one for each position of a unit
            outer = model.stages[level - 1]
            if pool(outer.pool).in_pieces or unpool(outer.unpool).in_pieces:
                unit = math.lcm(unit, outer.max_unit)
        found.append(unit * max(1, round(width * wide / unit)))
    return tuple(found)


def _head(width: float) -> int:
    return next(size for least, size in HEADS if width >= least)


def _scaled(model: ModelConfig, widths: tuple[int, ...], wide: float, layers: int) -> ModelConfig:
    """The model with these widths, and so many layers where they are free (``_main``)."""

    def depth(count: int, pattern: tuple[str, ...]) -> int:
        whole = len(pattern)
        return count and max(1, round(count * wide**CODER_DEPTH / whole)) * whole

    def stage(own: StageConfig, width: int) -> StageConfig:
        return dataclasses.replace(
            own, width=width, heads=max(1, width // _head(width)),
            encoder_layers=depth(own.encoder_layers, own.mixers),
            decoder_layers=depth(own.decoder_layers, own.mixers),
        )  # fmt: skip

    stages = [stage(*each) for each in zip(model.stages, widths, strict=False)]
    if not model.layers:
        stages[-1] = dataclasses.replace(stages[-1], decoder_layers=layers)
    heads = max(1, widths[-1] // _head(widths[-1]))
    shared = model.kv_heads and max(1, heads * model.kv_heads // model.heads)
    return dataclasses.replace(
        model, width=widths[-1], heads=heads, layers=model.layers and layers, stages=tuple(stages),
        kv_heads=shared and next(n for n in range(shared, 0, -1) if heads % n == 0),
        mlp_width=model.mlp_width and max(8, round(model.mlp_width * widths[-1] / model.width)),
    )  # fmt: skip
