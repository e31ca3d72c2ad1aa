"""Objectives: from a model's outputs and a batch to a loss.

An objective returns sums, not means, with what to divide by, so that a batch may be split into any
parts (accumulation, devices) and give the same loss.
"""

import jax
import jax.numpy as jnp

from octavo.configs.schema import Config
from octavo.model.batch import Batch
from octavo.model.lm import Output


def cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nats per target and the log-normalizer, both ``[...]``, of float32 logits ``[..., V]``."""
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return log_normalizer - chosen, log_normalizer


def objective(
    output: Output, batch: Batch, bytes_per_id: jax.Array, config: Config
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum over targets of cross-entropy, plus ``z_loss`` x log-normalizer squared (PaLM, Chowdhery
    et al. 2022), plus a predicted segmenter's loss; and the sums ``nats``, ``targets``, UTF-8
    ``bytes`` and the model's own statistics."""
    nats, log_normalizer = cross_entropy(output.logits, batch.targets)
    weights = batch.loss_weights
    sums = {
        "nats": jnp.sum(nats * weights),
        "targets": jnp.sum(weights),
        "bytes": jnp.sum(bytes_per_id[batch.targets] * weights),
    } | {name: value.astype(jnp.float32) for name, value in output.statistics.items()}
    loss = sums["nats"]
    if config.train.z_loss:
        loss += config.train.z_loss * jnp.sum(jnp.square(log_normalizer) * weights)
    if output.boundary_logits is not None:
        if config.model.stages[0].supervision == "entropy":
            target = entropy_spikes(output.logits, batch.positions)
        else:
            target = batch.marks > 0
        sums["boundary_nats"] = jnp.sum(boundary_nats(output.boundary_logits, target) * weights)
        loss += sums["boundary_nats"]
    return loss, sums


def boundary_nats(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of boundary log-odds, ``[B, T]``. (The official code of dynamic pooling
    puts a probability where the log-odds belong; see docs/models.md.)"""
    return jnp.logaddexp(0, jnp.where(target, -logits, logits))


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy in nats of the distributions behind ``[..., V]`` logits."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def entropy_spikes(logits: jax.Array, positions: jax.Array) -> jax.Array:
    """Where the next id is harder to foresee than the two before it were (dynamic pooling,
    2211.09761, section 3.3.3): booleans ``[B, T]``. What would lie before the document counts as
    easier. No gradient flows through it."""
    found = entropy(jax.lax.stop_gradient(logits))
    true = jnp.ones_like(positions, bool)
    for back in (1, 2):
        before = jnp.pad(found, ((0, 0), (back, 0)))[:, : found.shape[1]]
        true &= (found > before) | (positions < back)
    return true
