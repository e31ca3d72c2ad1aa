"""Information capacity: bits that a model saves per unit of inference compute, units of its
tokenizer included.

Published (Yuan et al. 2025, 2511.08066) as ``(S - NLL + b) / log2(N)``: bits of text that an id
stands for, less bits that it costs, plus a constant fitted to a text, over the logarithm of the
FLOPs of an id. It mixes a numerator per id with the logarithm of a denominator per id: longer ids
raise it whether or not they save a bit more of the text, it is negative where an id stands for
fewer bits than -b (as bytes do), and b belongs to a text. So it compares runs of one tokenizer.

``saved_per_byte`` and ``flops_per_byte`` are of the text alone, and compare across units. FLOPs are
useful ones of one pass forward (model/flops.py): over the units that exist.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from octavo.model.flops import forward_flops
from octavo.run.score import Predictions, score_of

if TYPE_CHECKING:
    from octavo.run.opened import Run

KEPT = True
BIAS = -27.0
"""b of the paper's code for texts that it was not fitted to."""


def units_per_id(found: Sequence[Predictions], levels: int) -> tuple[float, ...]:
    """Units of each level per id, ends of documents among the ids, and their begin among the
    units: as training logs them."""
    every = np.concatenate([one.levels for one in found])
    return tuple(float((every > level).mean()) for level in range(levels))


def flops_per_byte(
    run: "Run", ids: int, size: int, units: tuple[float, ...] | None = None
) -> float:
    """FLOPs that predict a byte of a text of ``size`` bytes in ``ids`` ids, ends of documents
    included: useful ones, of so many units per id; None: of as many as rows have room for."""
    each = forward_flops(run.config.model, run.tokenizer.vocab_size, run.length, units=units)
    return ids / size * each


def capacity(bits: float, ids: int, size: int, flops: float) -> dict:
    """The columns, of a text of ``size`` bytes that costs ``bits`` in ``ids`` ids at ``flops``
    per byte."""
    saved = 8 - bits / size
    gain, each = saved * size / ids, flops * size / ids
    return {
        "saved_per_byte": saved,
        "flops_per_byte": flops,
        "saved_per_megaflop": saved / flops * 1e6,
        "saved_per_log2_flops": saved / math.log2(flops),
        "published": (gain + BIAS) / math.log2(each),
        "published_bias": BIAS,
        "bits_of_id": 8 * size / ids,
        "nll_of_id": bits / ids,
        "flops_per_id": each,
    }


def measure(run, documents: list[bytes], arguments=None, **scoring) -> list[dict]:
    """One row: bits per byte with its 95% interval, and ``capacity``."""
    encoded = [run.tokenizer.encode(document) for document in documents]
    found = run.predictions(encoded, **scoring)
    score = score_of(run.tokenizer, documents, encoded, found)
    units = units_per_id(found, len(run.config.model.stages))
    flops = flops_per_byte(run, score.ids, score.bytes, units)
    low, high = score.interval or (None, None)
    return [
        {"bits_per_byte": score.bits_per_byte, "low": low, "high": high, "bytes": score.bytes}
        | capacity(score.nats / math.log(2), score.ids, score.bytes, flops)
    ]
