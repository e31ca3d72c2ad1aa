"""Objectives: from a model's outputs and a batch to a loss.

An objective returns sums, not means, with what to divide by, so that a batch may be split into any
parts (accumulation, devices) and give the same loss.
"""

import jax
import jax.numpy as jnp

from octavo.model.batch import Batch


def cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nats per target and the log-normalizer, both ``[...]``, of float32 logits ``[..., V]``."""
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return log_normalizer - chosen, log_normalizer


def next_token(
    logits: jax.Array, batch: Batch, bytes_per_id: jax.Array, z_loss: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum over targets of cross-entropy plus ``z_loss`` x log-normalizer squared (PaLM, Chowdhery
    et al. 2022), and the sums ``nats``, ``targets`` and UTF-8 ``bytes``."""
    nats, log_normalizer = cross_entropy(logits, batch.targets)
    weights = batch.loss_weights
    sums = {
        "nats": jnp.sum(nats * weights),
        "targets": jnp.sum(weights),
        "bytes": jnp.sum(bytes_per_id[batch.targets] * weights),
    }
    loss = sums["nats"]
    if z_loss:
        loss += z_loss * jnp.sum(jnp.square(log_normalizer) * weights)
    return loss, sums
