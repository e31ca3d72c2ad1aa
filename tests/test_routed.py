"""Routed blocks: what a GPU does at once is what the others do one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from octavo.model import routed


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_blocks_of_routes():
    def function(x, params):
        return jnp.tanh(x @ params[0]) @ params[1]

    blocks = drawn(5, 16, 4), jnp.array([0, 0, 1, 2, 2]), (drawn(3, 4, 8), drawn(3, 8))
    np.testing.assert_allclose(
        routed._at_once(function, *blocks), routed._one_by_one(function, *blocks), atol=1e-6
    )
    at_once, one_by_one = (
        jax.tree.leaves(pulled(function, *blocks, drawn(5, 16)))
        for pulled in (routed._pulled_at_once, routed._pulled_one_by_one)
    )
    for a, b in zip(at_once, one_by_one, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
