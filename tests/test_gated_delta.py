"""Gated DeltaNet: the chunked form against the recurrence as it is written, step by step."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from octavo.configs.model import ModelConfig
from octavo.configs.schema import MeshConfig
from octavo.model.axes import ShardingRules
from octavo.model.kernels import MaskSpec
from octavo.model.layers import Execution
from octavo.model.mixers import Rows
from octavo.model.mixers.gated_delta import GatedDelta, _settled, unit_lower_inverse
from octavo.run.sharding import make_mesh

CONFIG = ModelConfig(width=24, heads=2, layers=3)
LENGTH = 150
STRONG = 30.0
# Borders within a chunk and at its edge, documents shorter than the convolution, padding.
DOCUMENTS = [[64, 1, 2, 63, 20], [20, 63, 1, 64, 2]]
SEGMENTS = np.array([np.repeat(np.arange(1, len(d) + 1), d) for d in DOCUMENTS])
SEGMENTS[0, -20:] = 0


def new(config, dtype, rngs) -> GatedDelta:
    return GatedDelta(config, Execution("cpu", dtype), rngs, MaskSpec())


def whole(mixer, x, segment_ids):
    """The parallel pass."""
    return mixer(x, Rows(None, MaskSpec(segment_ids)))


def made(decay=0.0, dtype=jnp.float32) -> GatedDelta:
    """decay: by how much more heads forget than at the start; about half of all positions, so that
    strong and weak decays meet."""
    mixer = new(CONFIG, dtype, nnx.Rngs(0))
    mixer.dt.weight[...] *= 1 + decay
    return mixer


@functools.cache
def inputs(length=LENGTH):
    return jax.random.normal(jax.random.key(1), (2, length, CONFIG.width))


def by_definition(mixer: dict, x):
    """One document, ``[T, d]``, alone: every sum as the paper has it, in the precision of x."""
    weights = jax.tree.map(lambda leaf: leaf.astype(x.dtype), mixer)
    heads = (len(x), CONFIG.heads, CONFIG.head_size)

    def convolved(name):
        c = jnp.pad(x @ weights[name]["weight"], ((3, 0), (0, 0)))
        taps = weights[f"{name}_taps"]
        total = sum(taps[j] * c[3 - j : len(c) - j] for j in range(4))
        return jax.nn.silu(total).reshape(heads)

    def unit(z):
        return z / jnp.sqrt(jnp.sum(z**2, axis=-1, keepdims=True) + 1e-6)

    q, k, v = unit(convolved("query")), unit(convolved("key")), convolved("value")
    dt = jax.nn.softplus(x @ weights["dt"]["weight"] + weights["dt_bias"])
    a = jnp.exp(-dt * jnp.exp(weights["A_log"]))
    b = jax.nn.sigmoid(x @ weights["beta"]["weight"])

    def step(state, now):
        q, k, v, a, b = now
        erase = (
            jnp.eye(CONFIG.head_size, dtype=x.dtype)
            - b[:, None, None] * k[:, :, None] * k[:, None, :]
        )
        state = a[:, None, None] * state @ erase + b[:, None, None] * v[:, :, None] * k[:, None, :]
        return state, jnp.einsum("hvk,hk->hv", state, q)

    zero = jnp.zeros((*heads[1:], heads[2]), x.dtype)
    y = lax.scan(step, zero, (q, k, v, a, b))[1]
    y = y / jnp.sqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-6) * weights["norm"]["gain"]
    gate = jax.nn.silu(x @ weights["gate"]["weight"]).reshape(heads)
    return (y * gate).reshape(x.shape) @ weights["out"]["weight"]


def state_of(mixer) -> dict:
    return nnx.to_pure_dict(nnx.state(mixer))


@functools.cache
def parallel(decay=0.0):
    return np.asarray(nnx.jit(whole)(made(decay), inputs(), jnp.asarray(SEGMENTS)))


def documents(row):
    edges = np.cumsum([0, *DOCUMENTS[row]])
    return zip(edges[:-1], edges[1:], strict=True)


@pytest.mark.parametrize("decay", [0.0, STRONG], ids=["weak", "strong"])
def test_definition(decay):
    """Packed documents give what each gives alone, step by step, in float64."""
    weights, x, found = state_of(made(decay)), np.asarray(inputs(), np.float64), parallel(decay)
    with jax.enable_x64(True):  # parameters drawn in here would be others
        definition = jax.jit(by_definition)
        for row in range(2):
            for start, end in documents(row):
                expected = definition(weights, x[row, start:end])
                np.testing.assert_allclose(found[row, start:end], expected, rtol=1e-5, atol=5e-6)


def test_isolation():
    """A document among others is what it is alone, and no other reaches it, to the last bit."""
    apply = jax.jit(functools.partial(whole, made()))
    packed = apply(inputs(), jnp.asarray(SEGMENTS))
    start, end = 67, 130
    there = (np.arange(LENGTH) >= start) & (np.arange(LENGTH) < end)
    other = apply(jnp.where(there[:, None], inputs(), 3.0), jnp.asarray(SEGMENTS))
    np.testing.assert_array_equal(packed[0, start:end], other[0, start:end])
    alone = apply(inputs()[:1, start:end], jnp.ones((1, end - start), int))
    np.testing.assert_allclose(packed[0, start:end], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_causality(dtype):
    """What comes later changes no bit of what came before; it does change itself."""
    apply = jax.jit(functools.partial(whole, made(dtype=dtype)))
    segments = jnp.ones((2, LENGTH), int)
    before = apply(inputs(), segments)
    assert before.dtype == dtype
    for at in (1, 17, 64, 100, 149):
        after = apply(inputs().at[:, at:].multiply(-2.0), segments)
        np.testing.assert_array_equal(before[:, :at], after[:, :at])
        assert jnp.all(jnp.any(before[:, at:] != after[:, at:], axis=-1))


@functools.cache
def gradients():
    """``(chunked, stepwise)``: functions of parameters and input, over two layers with the same
    parameters and documents of 50 positions."""
    make = nnx.vmap(lambda key: new(CONFIG, jnp.float32, nnx.Rngs(params=key)))
    definition, layers = nnx.split(make(jax.random.split(jax.random.key(0), 2)))
    probe = jax.random.normal(jax.random.key(2), inputs().shape)
    segments = jnp.repeat(jnp.arange(3), 50)[None].repeat(2, axis=0)

    def chunked(weights, x):
        stacked = jax.tree.map(lambda x: x, layers)
        nnx.replace_by_pure_dict(stacked, jax.tree.map(lambda w: jnp.stack([w, w]), weights))

        @jax.checkpoint
        def layer(x, state):
            return x + whole(nnx.merge(definition, state), x, segments), None

        return jnp.sum(probe * lax.scan(layer, x, stacked)[0])

    def stepwise(weights, x):
        layer = jax.vmap(functools.partial(by_definition, weights))
        x = x.reshape(6, 50, CONFIG.width)
        x, _ = lax.scan(lambda x, _: (x + layer(x), None), x, length=2)
        return jnp.sum(probe * x.reshape(probe.shape))

    return [jax.jit(jax.grad(function, argnums=(0, 1))) for function in (chunked, stepwise)]


@pytest.mark.parametrize("decay", [0.0, STRONG], ids=["weak", "strong"])
def test_gradients(decay):
    """As those of the definition, for every parameter and the input; through remat and a scan over
    stacked layers too."""
    found, expected = (gradient(state_of(made(decay)), inputs()) for gradient in gradients())

    def check(path, found, expected):
        size = float(jnp.max(jnp.abs(expected)))
        assert size > 0, path
        # Strong decay multiplies what rounding makes of long sums, more on some processors.
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * size, err_msg=path)

    jax.tree.map_with_path(
        lambda path, a, b: check(jax.tree_util.keystr(path), a, b), found, expected
    )


@functools.cache
def decoding():
    mixer = made(STRONG)

    def extend(x, cache, starts):
        y, found = mixer._continued(x, cache, starts)
        return y, (cache, found)

    return jax.jit(extend), jax.jit(lambda pending, kept: _settled(*pending, kept))


STARTS = np.diff(SEGMENTS, axis=1, prepend=-1) != 0


@functools.cache
def by_steps():
    """Rows read one position at a time: y, and the cache before each position and at the end. The
    first cache holds something, which the start of a document must clear."""
    extend, settle = decoding()
    empty = GatedDelta.init_cache(CONFIG, 1, 2, 0, jnp.float32)
    caches = [jax.tree.map(lambda leaf: leaf[0] + 7, empty)]
    found = []
    for t in range(LENGTH):
        y, pending = extend(inputs()[:, t : t + 1], caches[-1], STARTS[:, t : t + 1])
        caches.append(settle(pending, jnp.ones(2, int)))
        found.append(y)
    return np.concatenate(found, axis=1), caches


def test_steps():
    np.testing.assert_allclose(by_steps()[0], parallel(STRONG), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("pieces", [[16, 2, 17, 114, 1], [114, 1, 17, 16, 2]])
def test_pieces(pieces):
    """Rows continued by any number of positions are what the parallel pass makes of them."""
    extend, settle = decoding()
    cache = by_steps()[1][0]
    at, found = 0, []
    for count in pieces:
        y, pending = extend(inputs()[:, at : at + count], cache, STARTS[:, at : at + count])
        cache = settle(pending, jnp.full(2, count))
        found.append(y)
        at += count
    found = np.concatenate(found, axis=1)
    np.testing.assert_allclose(found, parallel(STRONG), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("count", [2, 16, 114])
def test_settling(count):
    """The first ``kept`` of some positions, another number in each row, leave what they would
    alone; none leaves the cache as it was, to the last bit."""
    extend, settle = decoding()
    caches = by_steps()[1]
    at = 65 - count // 2  # documents start at 64, 65 and 67
    here = slice(at, at + count)
    _, pending = extend(inputs()[:, here], caches[at], STARTS[:, here])
    jax.tree.map(np.testing.assert_array_equal, settle(pending, jnp.zeros(2, int)), caches[at])
    for kept in range(count + 1):
        both = [kept, count - kept]
        settled = settle(pending, jnp.asarray(both))
        for name, found in settled.items():
            expected = np.stack([caches[at + both[row]][name][row] for row in range(2)])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6, err_msg=name)


def test_long_rows():
    """Thousands of positions of one document, hardly forgotten or forgotten at once."""
    definition = nnx.graphdef(made())

    @jax.jit
    @jax.value_and_grad
    def summed(x, state):
        return jnp.sum(whole(nnx.merge(definition, state), x, jnp.ones((1, 2048), int)) ** 2)

    x = jax.random.normal(jax.random.key(3), (1, 2048, CONFIG.width))
    for bias in (-20.0, 0.0, 1e4):
        mixer = made()
        mixer.dt_bias[...] += bias
        value, gradient = summed(x, nnx.state(mixer))
        assert jnp.isfinite(value) and value > 0
        assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize("size", [1, 5, 16, 32, 64])
def test_inverse(size):
    """Equal keys that are written over fully, the hardest: a series in powers fails here."""
    a = jnp.stack([jnp.tril(jnp.full((size, size), 0.999), -1), jnp.zeros((size, size))])[:, None]
    expected = np.linalg.inv(np.eye(size) + np.asarray(a, np.float64))
    np.testing.assert_allclose(unit_lower_inverse(a), expected, atol=1e-5)


def test_mesh():
    """Split over a mesh: the same numbers, and only weights are gathered."""
    mixer, mesh = made(), make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
    definition, state = nnx.split(mixer)
    rules = ShardingRules()

    def placed(leaf):
        sharding = jax.sharding.NamedSharding(mesh, rules.spec(leaf.get_metadata()["names"]))
        return leaf.replace(jax.device_put(leaf[...], sharding))

    state = jax.tree.map(placed, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    rows = jax.sharding.NamedSharding(mesh, jax.P(("replica", "fsdp")))
    x = jax.device_put(jnp.concatenate([inputs(), inputs()]), rows)
    segments = jax.device_put(np.concatenate([SEGMENTS, SEGMENTS]), rows)
    apply = jax.jit(lambda state, x, s: whole(nnx.merge(definition, state), x, s))
    with jax.set_mesh(mesh):
        compiled = apply.lower(state, x, segments).compile()
        found = compiled(state, x, segments)
    moved = re.findall(
        r"= f32(\[[\d,]*\])\S* (?:all-gather|all-to-all|collective)", compiled.as_text()
    )
    assert moved and all(shape.count(",") == 1 for shape in moved), moved
    np.testing.assert_allclose(found[2:], parallel(), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("decay", [0.0, STRONG], ids=["weak", "strong"])
def test_shared_rows(decay):
    """Three devices have a third of each row each: the same numbers and gradients, and none but
    states and the last positions before goes between them."""
    mixer, mesh = made(decay), make_mesh(MeshConfig(1, 2, sequence=3), jax.devices()[:6])
    definition, state = nnx.split(mixer)
    segments = jnp.asarray(SEGMENTS)

    def run(state, x, s):
        y = whole(nnx.merge(definition, state), x, s)
        return jnp.sum(jnp.sin(y)), y

    run = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))
    expected = run(state, inputs(), segments)
    with jax.set_mesh(mesh):
        lie = jax.sharding.NamedSharding(mesh, jax.P(("replica", "fsdp"), "sequence"))
        x, segments = jax.device_put((inputs(), segments), lie)
        compiled = run.lower(state, x, segments).compile()
        found = compiled(state, x, segments)
    D, kinds = CONFIG.head_size, "all-gather|all-to-all|collective-permute|reduce-scatter"
    moved = set(re.findall(rf"= f32\[([\d,]*)\]\S* (?:{kinds})", compiled.as_text()))
    assert {f"3,1,2,{2 * D},{D}", "1,3,3,24"} <= moved
    assert all(math.prod(map(int, shape.split(","))) < 50 * 24 * 3 for shape in moved), moved
    np.testing.assert_allclose(found[0][1], parallel(decay), rtol=1e-5, atol=5e-6)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # Other sizes of chunks move the gradient of strong decays as much.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-3 if decay else 1e-4)


def test_flops():
    """The count against the compiler's, which sees one chunk of a scan."""
    config = ModelConfig(width=256, heads=4, layers=1)
    mixer = new(config, jnp.float32, nnx.Rngs(0))
    x, segments = jnp.zeros((2, 64, 256)), jnp.ones((2, 64), int)
    counted = jax.jit(functools.partial(whole, mixer)).lower(x, segments).cost_analysis()["flops"]
    assert 0.95 < counted / 2 / GatedDelta.flops(config, 64) < 1.1
    assert GatedDelta.flops(config, 256) == 4 * GatedDelta.flops(config, 64)
