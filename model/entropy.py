"""What logits say: nats of an id, and how sure they are of the next."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nats per target and the log-normalizer, both ``[...]``, of float32 logits ``[..., V]``."""
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return log_normalizer - chosen, log_normalizer


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy in nats of the distributions behind ``[..., V]`` logits."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
