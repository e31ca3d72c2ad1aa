"""Analytic FLOPs, and the peaks to hold them against. Each part counts its own.

Two counts: what a machine pays for, over as many units as a row has room for, and what of it is
useful, over the units that exist. Counted: matrix products and attention (causal: half, a window:
its share). Not counted: embedding lookup, norms, activations, sums over units, rematerialization.
XLA's own count sees a scanned layer once and skips custom kernels, so it cannot serve.
"""

from octavo.configs.model import ModelConfig
from octavo.model.embeddings import embedding
from octavo.model.mtp import mtp
from octavo.model.transformer import Transformer
from octavo.model.units.end_predictor import EndPredictor
from octavo.model.units.pools import pool
from octavo.model.units.room import row_units
from octavo.model.units.segmenters import segmenter
from octavo.model.units.unpools import unpool


def _stage_flops(
    model: ModelConfig, level: int, length: float, training: bool, there: tuple[float, ...] | None,
    mixed: tuple[float, ...] | None = None, row: float | None = None,
) -> float:  # fmt: skip
    """One row of ``length`` positions through the trunk from ``level`` inwards. there: units of the
    row at each level; None: as many as it has room for. mixed: slots of the rows in which what
    became of them is mixed; None: as many as there are. row: that of these positions. In training,
    a delete gate leaves none out."""
    if not length:  # no unit
        return 0.0
    if level == len(model.stages):
        return Transformer.flops(model, length, row=row)
    stage, inner_width = model.stages[level], model.widths[level + 1]
    cut, pooled = segmenter(stage.segmenter), pool(stage.pool)
    unpooled = unpool(stage.unpool)
    if cut.biases_keys and training:
        units, inner_row = length, None
    else:
        units = row_units(stage, int(length)) if there is None else there[level]
        inner_row = None if mixed is None else mixed[level]
    encoder = model.coder(stage, stage.encoder_layers, stage.encoder_scope)
    decoder = model.coder(stage, stage.decoder_layers, stage.decoder_scope)
    with_own = length + pooled.adds(stage) * units
    total = Transformer.flops(encoder, with_own, causal=stage.encoder_scope != "unit", row=row)
    total += Transformer.flops(decoder, length + unpooled.leading(stage) * units, row=row)
    total += _stage_flops(
        model, level + 1, units * pooled.per_unit(stage), training, there, mixed, inner_row
    )
    total += cut.flops(stage, length)
    total += pooled.flops(stage, inner_width, length, units)
    total += unpooled.flops(stage, inner_width, length, units)
    return total + (EndPredictor.flops(stage, length) if stage.predict_ends else 0)


def forward_flops(
    model: ModelConfig,
    vocab_size: int,
    length: int,
    training: bool = False,
    units: tuple[float, ...] | None = None,
    mixed: tuple[float, ...] | None = None,
) -> float:
    """FLOPs of the forward pass per position, at rows of ``length`` positions.

    units: the units of each level that exist, per position of the row (a run logs them as
    ``units/L``, of inner levels too per position of the outermost); None: as many as rows have room
    for. mixed: slots of the rows in which they see each other, as in ``mixed/L``; None: as many as
    there are. What of a unit's work is quadratic in its row counts at that mean.
    """
    embedded = embedding(model.embedding)
    head = embedded.head_flops(model, vocab_size)
    there, rows = (
        None if each is None else tuple(one * length for one in each) for each in (units, mixed)
    )
    total = _stage_flops(model, 0, length, training, there, rows) / length
    total += head + embedded.flops(model)
    if predicted := mtp(model.mtp.kind):
        total += predicted.next_flops(model, length)
        # Only training predicts further ahead.
        total += predicted.flops(model, vocab_size, head, length) if training else 0
    return total


def training_flops(
    model: ModelConfig,
    vocab_size: int,
    length: int,
    units: tuple[float, ...] | None = None,
    mixed: tuple[float, ...] | None = None,
) -> float:
    """Forward and backward, per position; units and mixed as in ``forward_flops``."""
    return 3 * forward_flops(model, vocab_size, length, True, units, mixed)


_PEAKS = {  # dense bfloat16 FLOP/s of one device, from the vendors' sheets
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,  # the same, as the compiler calls it; behind "TPU v5 lite"
    "TPU v6 lite": 918e12,
    "TPU7x": 1153e12,  # half a chip: JAX counts two devices
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of a device, None where unknown (CPUs)."""
    return next((peak for name, peak in _PEAKS.items() if device_kind.startswith(name)), None)
