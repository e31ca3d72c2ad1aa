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
    model: ModelConfig, level: int, length: float, training: bool, there: tuple[float, ...] | None
) -> float:
    """One row of ``length`` positions through the trunk from ``level`` inwards. there: units of the
    row at each level; None: as many as it has room for. In training, a delete gate leaves none
    out."""
    if not length:  # no unit
        return 0.0
    if level == len(model.stages):
        return Transformer.flops(model, length)
    stage, inner_width = model.stages[level], model.widths[level + 1]
    cut, pooled = segmenter(stage.segmenter), pool(stage.pool)
    unpooled = unpool(stage.unpool)
    if cut.biases_keys and training:
        units = length
    else:
        units = row_units(stage, int(length)) if there is None else there[level]
    encoder = model.coder(stage, stage.encoder_layers, stage.encoder_scope)
    decoder = model.coder(stage, stage.decoder_layers, stage.decoder_scope)
    with_own = length + pooled.adds(stage) * units
    total = Transformer.flops(encoder, with_own, causal=stage.encoder_scope != "unit")
    total += Transformer.flops(decoder, length + unpooled.leading(stage) * units)
    total += _stage_flops(model, level + 1, units * pooled.per_unit(stage), training, there)
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
) -> float:
    """FLOPs of the forward pass per position, at rows of ``length`` positions.

    units: the units of each level that exist, per position of the row (a run logs them as
    ``units/L``, of inner levels too per position of the outermost); None: as many as rows have room
    for. What of a unit's work is quadratic in its row counts at that mean.
    """
    embedded = embedding(model.embedding)
    head = embedded.head_flops(model, vocab_size)
    there = None if units is None else tuple(each * length for each in units)
    total = _stage_flops(model, 0, length, training, there) / length
    total += head + embedded.flops(model)
    if predicted := mtp(model.mtp.kind):
        total += predicted.next_flops(model, length)
        # Only training predicts further ahead.
        total += predicted.flops(model, vocab_size, head, length) if training else 0
    return total


def training_flops(
    model: ModelConfig, vocab_size: int, length: int, units: tuple[float, ...] | None = None
) -> float:
    """Forward and backward, per position; units as in ``forward_flops``."""
    return 3 * forward_flops(model, vocab_size, length, training=True, units=units)


_PEAKS = {  # dense bfloat16 FLOP/s of one device, from the vendors' sheets
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of a device, None where unknown (CPUs)."""
    return next((peak for name, peak in _PEAKS.items() if device_kind.startswith(name)), None)
