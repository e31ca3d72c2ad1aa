"""Parts of layers beside their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from octavo.model.layers import RMSNorm, parameter


@pytest.mark.parametrize(
    "shape", [(3, 5, 12), (1, 7, 12), (2, 5, 3, 12), (1, 5, 3, 12), (1, 1, 12)]
)
def test_gradients_of_the_norm(shape):
    """Those of its definition, also of rows that are packed into one."""
    x, weight = jax.random.normal(jax.random.key(0), (2, *shape))
    gain = 1 + jnp.arange(12) / 12

    def ours(x, gain):
        norm = RMSNorm(12)
        norm.gain = parameter(gain, None)
        return jnp.sum(weight * norm(x))

    def by_definition(x, gain):
        mean = jnp.mean(x**2, axis=-1, keepdims=True)
        return jnp.sum(weight * x / jnp.sqrt(mean + 1e-6) * gain)

    found = jax.grad(ours, (0, 1))(x, gain)
    for a, b in zip(found, jax.grad(by_definition, (0, 1))(x, gain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
