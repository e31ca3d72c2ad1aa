"""Analytic FLOPs, and the peaks to hold them against. Each part counts its own.

Counted: matrix products and attention (causal: half, a window: its share). Not counted: embedding
lookup, norms, activations, sums over units, rematerialization. XLA's own count sees a scanned layer
once and skips custom kernels, so it cannot serve.
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


def _stage_flops(model: ModelConfig, level: int, length: int, training: bool) -> float:
    """One row of ``length`` positions through the trunk from ``level`` inwards. Units count as many
    as a row has room for: that is what a machine computes. In training, a delete gate leaves none
    out."""
    if level == len(model.stages):
        return Transformer.flops(model, length)
    stage, inner_width = model.stages[level], model.widths[level + 1]
    cut, pooled = segmenter(stage.segmenter), pool(stage.pool)
    unpooled = unpool(stage.unpool)
    units = length if cut.biases_keys and training else row_units(stage, length)
    encoder = model.coder(stage, stage.encoder_layers, stage.encoder_scope)
    decoder = model.coder(stage, stage.decoder_layers, stage.decoder_scope)
    with_own = length + pooled.adds(stage) * units
    total = Transformer.flops(encoder, with_own, causal=stage.encoder_scope != "unit")
    total += Transformer.flops(decoder, length + unpooled.leading(stage) * units)
    total += _stage_flops(model, level + 1, units * pooled.per_unit(stage), training)
    total += cut.flops(stage, length)
    total += pooled.flops(stage, inner_width, length, units)
    total += unpooled.flops(stage, inner_width, length, units)
    return total + (EndPredictor.flops(stage, length) if stage.predict_ends else 0)


def forward_flops(
    model: ModelConfig, vocab_size: int, length: int, training: bool = False
) -> float:
    """FLOPs of the forward pass per position, at rows of ``length`` positions."""
    embedded = embedding(model.embedding)
    head = embedded.head_flops(model, vocab_size)
    total = _stage_flops(model, 0, length, training) / length + head + embedded.flops(model)
    if predicted := mtp(model.mtp.kind):
        total += predicted.next_flops(model, length)
        # Only training predicts further ahead.
        total += predicted.flops(model, vocab_size, head, length) if training else 0
    return total


def training_flops(model: ModelConfig, vocab_size: int, length: int) -> float:
    """Forward and backward, per position."""
    return 3 * forward_flops(model, vocab_size, length, training=True)


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
