"""Analytic FLOPs, and the peaks to hold them against.

Counted: matrix products and attention (causal: half, a window: its share). Not counted: embedding
lookup, norms, activations, rematerialization. XLA's own count sees a scanned layer once and skips
custom kernels, so it cannot serve.
"""

from octavo.configs.schema import ModelConfig


def forward_flops(model: ModelConfig, vocab_size: int, length: int) -> float:
    """FLOPs of the forward pass per position, at rows of ``length`` positions."""
    projections = model.width * model.head_size * (2 * model.heads + 2 * model.key_value_heads)
    mlp = model.width * model.hidden_width * (3 if model.gated_mlp else 2)
    seen = length if model.window is None else min(model.window, length)
    # Mean number of keys a query sees: it has t + 1 of them, at most `seen`.
    mean_keys = seen - seen * (seen - 1) / (2 * length)
    attention = 4 * mean_keys * model.width
    one_hot_tied = model.embedding == "one_hot" and model.tied_embeddings
    head = 0 if one_hot_tied else 2 * model.width * vocab_size
    return model.layers * (2 * (projections + mlp) + attention) + head


def training_flops(model: ModelConfig, vocab_size: int, length: int) -> float:
    """Forward and backward, per position."""
    return 3 * forward_flops(model, vocab_size, length)


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
