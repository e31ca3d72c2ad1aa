"""Analytic FLOPs, and the peaks to hold them against.

Counted: matrix products and attention (causal: half, a window: its share). Not counted: embedding
lookup, norms, activations, sums over units, rematerialization. XLA's own count sees a scanned layer
once and skips custom kernels, so it cannot serve.
"""

from octavo.configs.schema import ModelConfig, StageConfig


def _stack_flops(model: ModelConfig, length: int, causal: bool = True) -> float:
    """A stack of blocks over one row of ``length`` positions."""
    projections = model.width * model.head_size * (2 * model.heads + 2 * model.key_value_heads)
    mlp = model.width * model.hidden_width * (3 if model.gated_mlp else 2)
    seen = length if model.window is None else min(model.window, length)
    # Mean number of keys a query sees: it has t + 1 of them, at most `seen`.
    mean_keys = seen - seen * (seen - 1) / (2 * length)
    if not causal:
        mean_keys = 2 * mean_keys - 1
    attention = 4 * mean_keys * model.width
    return model.layers * length * (2 * (projections + mlp) + attention)


def _stage_flops(model: ModelConfig, level: int, length: int, training: bool) -> float:
    """One row of ``length`` positions through the trunk from ``level`` inwards. Units count as many
    as a row has room for: that is what a machine computes. In training, a delete gate leaves none
    out."""
    if level == len(model.stages):
        return _stack_flops(model, length)
    stage, d, D = model.stages[level], model.widths[level], model.widths[level + 1]
    units = stage.units(length)
    if stage.segmenter == "deletion" and training:
        units = length
    per_unit = stage.slots if stage.pool == "prefix" else 1
    encoder, decoder = _coders(model, stage)
    whole = stage.encoder_scope == "unit"
    led = (stage.slots - 1) * units if stage.unpool == "prefix" else 0
    total = _stack_flops(encoder, length + (per_unit * units if stage.pool == "prefix" else 0),
                         causal=not whole)  # fmt: skip
    total += _stack_flops(decoder, length + led)
    total += _stage_flops(model, level + 1, units * per_unit, training)
    if stage.segmenter == "predicted":
        hidden = len(stage.rates) * (stage.predictor_width or 4 * d)
        total += 2 * length * (d * hidden + hidden)
    if stage.segmenter == "routing":
        total += 2 * length * 2 * d * d
    if stage.segmenter in ("frontier", "deletion"):
        total += 2 * length * d
    if stage.unpool == "smooth":
        total += 2 * length * d * d
    if stage.predict_ends:
        total += 2 * length * (4 * d * d + 2 * d)
    if stage.pool == "cross":
        total += 2 * d * d * (2 * length + 3 * units * stage.slots)
    if stage.unpool == "cross":
        total += stage.decoder_layers * 4 * d * d * (length + (units + 1) * stage.slots)
    if stage.projection == "linear":
        copies = {"concat": 1, "cross": stage.slots, "prefix": per_unit}.get(stage.pool, 1)
        total += (
            2
            * d
            * D
            * (length if stage.pool == "concat" else units)
            * copies
            / (stage.max_unit if stage.pool == "concat" else 1)
        )
        made = {"cross": stage.slots, "multilinear": 17, "prefix": per_unit}.get(stage.unpool, 1)
        total += 2 * d * D * units * made
    return total


def _coders(model: ModelConfig, stage: StageConfig) -> tuple[ModelConfig, ModelConfig]:
    return tuple(
        model.blocks(stage, layers, scope)
        for layers, scope in (
            (stage.encoder_layers, stage.encoder_scope),
            (stage.decoder_layers, stage.decoder_scope),
        )
    )


def forward_flops(
    model: ModelConfig, vocab_size: int, length: int, training: bool = False
) -> float:
    """FLOPs of the forward pass per position, at rows of ``length`` positions."""
    d = model.widths[0]
    one_hot_tied = model.embedding == "one_hot" and model.tied_embeddings
    head = 0 if one_hot_tied else 2 * d * vocab_size
    convolutions = 2 * 9 * d * d if model.embedding == "ngram_conv" else 0
    trunk = _stage_flops(model, 0, length, training) / length
    return trunk + head + convolutions + _mtp_flops(model, vocab_size, head, length, training)


def _mtp_flops(
    model: ModelConfig, vocab_size: int, head: float, length: int, training: bool
) -> float:
    """What multi-token prediction adds, per position. Only training predicts further ahead."""
    mtp, further = model.mtp, model.mtp.count - 1
    block = _stack_flops(model.outermost(1), length) / length
    if mtp.kind == "heads":
        return block + training * further * (block + head)
    if mtp.kind == "linear":
        return training * further * 2 * model.widths[0] * vocab_size
    if mtp.kind == "modules":
        return training * further * (block + head + 4 * model.widths[0] ** 2)
    if mtp.aside:
        count = 1 if mtp.kind == "registers" else further
        stack = _coders(model, model.stages[0])[1] if model.stages else model
        through = _stack_flops(stack, length) / length
        return training * count / mtp.every * (through + head)
    return 0


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
