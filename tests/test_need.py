"""Stacks that compute as many slots as are needed give what those give that compute all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from octavo.configs.model import ModelConfig
from octavo.model.layers import Execution, Filled
from octavo.model.need import ByNeed
from octavo.model.transformer import Transformer

SLOTS = 256
MODEL = ModelConfig(width=16, layers=2, heads=2)
ALL = Execution("cpu", jnp.float32, attention="reference", scan_layers=False, remat="none")
FEW = Filled(0.099, 0.2)


@pytest.mark.parametrize(
    ("platform", "counts", "computed", "mixed"),
    [
        ("cpu", [50], 56, 56),  # 256 x 0.2 x 1.07, in eights
        ("cpu", [57], 64, 64),  # x 1.25
        ("cpu", [65], 256, 256),
        ("cpu", [50, 0, 25], 88, 56),  # 3 x 256 x 0.099 x 1.07, end to end
        ("cpu", [50, 20, 25], 96, 64),
        ("cpu", [70, 0, 0], 768, 256),  # a row has more
        ("gpu", [50, 0, 64], 192, 64),  # side by side
        ("gpu", [65, 0, 0], 768, 256),
        ("tpu", [50, 20, 25], 128, 128),  # a tile
        ("tpu", [120], 128, 128),
    ],
)
def test_fewer_slots_give_the_same(platform, counts, computed, mixed):
    x = jax.random.normal(jax.random.key(1), (len(counts), SLOTS, MODEL.width))
    place = jnp.arange(SLOTS)[None]
    there = place < jnp.array(counts)[:, None]
    positions, documents = (jnp.where(there, y, 0) for y in (place % 12, 1 + place // 12))

    def of(execution):
        stack = Transformer(MODEL, execution, nnx.Rngs(params=jax.random.key(0)))
        by_need = ByNeed(1, dataclasses.replace(execution, platform=platform))

        @jax.jit
        def run(x):
            y, told = by_need(stack, x, positions, documents)
            y = jnp.where(there[..., None], y, 0)
            return jnp.sum(jnp.sin(y)), (y, told)

        (_, (y, told)), slope = jax.value_and_grad(run, has_aux=True)(x)
        return y, slope, [float(told[f"{what}/0"]) for what in ("computed", "mixed")]

    *whole, every = of(ALL)
    assert every == [len(counts) * SLOTS] * 2
    *found, told = of(dataclasses.replace(ALL, filled=(FEW,)))
    assert told == [computed, len(counts) * mixed]
    for mine, wanted in zip(found, whole, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
