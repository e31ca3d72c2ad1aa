"""Every attention kernel that runs here against the definition, field by field of the mask spec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from octavo.model.kernels import BACKENDS, MaskSpec, attention

BATCH, LENGTH, HEADS, SIZE = 2, 256, 4, 128


def by_definition(q, k, v, causal, window, segments):
    """softmax(q k^T / sqrt(D)) v, one dense boolean mask, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    repeat = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, repeat, axis=2) for x in (k, v))
    t = np.arange(q.shape[1])
    seen = np.ones((q.shape[0], len(t), len(t)), bool)
    if causal:
        seen &= t[:, None] >= t[None]
    if window:
        seen &= np.abs(t[:, None] - t[None]) < window
    if segments is not None:
        seen &= segments[:, :, None] == segments[:, None, :]
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(seen[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, v)


def inputs(kv_heads, length=LENGTH):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(BATCH, length, heads, SIZE) for heads in (HEADS, kv_heads, kv_heads)]
    segments = np.sort(np.random.default_rng(0).integers(1, 5, (BATCH, length)), axis=1)
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)], segments


SPECS = [(True, None), (True, 1), (True, 37), (True, 200), (False, None), (False, 1), (False, 30)]


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize(("causal", "window"), SPECS)
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("backend", ["reference", "splash_interpret"])
def test_parity(backend, kv_heads, causal, window, packed):
    (q, k, v), segments = inputs(kv_heads)
    segments = segments if packed else None
    ids = None if segments is None else jnp.asarray(segments)
    spec = MaskSpec(ids, causal, window)
    found = attention(q, k, v, spec, backend)
    expected = by_definition(q, k, v, causal, window, segments)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_any_length(causal):
    """Rows that no block of the kernel divides."""
    (q, k, v), _ = inputs(4, length=150)
    spec = MaskSpec(None, causal, 40)
    expected = by_definition(q, k, v, causal, 40, None)
    found = attention(q, k, v, spec, "splash_interpret")
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("backend", ["reference", "splash_interpret"])
def test_gradients(backend):
    """Backward passes agree with automatic differentiation of the dense definition."""
    (q, k, v), segments = inputs(2)
    spec = MaskSpec(jnp.asarray(segments), True, 100)
    t = jnp.arange(LENGTH)
    seen = (t[:, None] >= t) & (t[:, None] - t < 100)
    seen = seen & (segments[:, :, None] == segments[:, None, :])

    def dense(q, k, v):
        k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
        return jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(seen)[:, None])

    def summed(function):
        return lambda *x: jnp.sum(jnp.sin(function(*x)))

    expected = jax.jit(jax.grad(summed(dense), (0, 1, 2)))(q, k, v)
    found = jax.jit(jax.grad(summed(lambda *x: attention(*x, spec, backend)), (0, 1, 2)))(q, k, v)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-4)


@pytest.mark.parametrize("length", [1, 5, 129, 300, 2200])
def test_reference_takes_any_length(length):
    (q, k, v), segments = inputs(2, length)
    spec = MaskSpec(jnp.asarray(segments), True, None)
    found = jax.jit(lambda *x: attention(*x, spec))(q, k, v)
    expected = by_definition(q, k, v, True, None, segments)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_reference_skips_what_the_mask_hides():
    """Causal attention costs about half a dense mask's FLOPs, a window's is linear in length."""

    def flops(**spec):
        shape = jax.ShapeDtypeStruct((1, 2048, 1, 64), jnp.float32)
        run = jax.jit(lambda q, k, v: attention(q, k, v, MaskSpec(**spec)))
        return run.lower(shape, shape, shape).compile().cost_analysis()["flops"]

    dense = flops(causal=False)
    assert flops() < 0.6 * dense
    assert flops(window=128) < 0.2 * dense


@pytest.mark.parametrize("length", [150, 192])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
def test_what_cudnn_is_asked_for(packed, causal, length, monkeypatch):
    """The mask that it gets, and the rows that are filled, by another implementation of the same
    function."""
    asked = []

    def plainly(*args, implementation, **kwargs):
        asked.append(implementation)
        return attend_plainly(*args, implementation="xla", **kwargs)

    attend_plainly = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", plainly)
    (q, k, v), segments = inputs(2, length)
    segments = segments if packed else None
    spec = MaskSpec(None if segments is None else jnp.asarray(segments), causal)
    found = BACKENDS["cudnn"](q, k, v, spec)
    expected = by_definition(q, k, v, causal, None, segments)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert asked == ["cudnn"]


def test_what_cannot_be_honoured_raises():
    (q, k, v), _ = inputs(4)
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    with pytest.raises(ValueError, match="unknown attention backend 'magic'; known: reference"):
        attention(q, k, v, MaskSpec(), "magic")
    with pytest.raises(ValueError, match="cudnn cannot serve: it computes in bfloat16"):
        attention(q, k, v, MaskSpec(), "cudnn")
    with pytest.raises(ValueError, match="cudnn cannot serve: it has no window"):
        attention(*half, MaskSpec(window=8), "cudnn")
    with pytest.raises(ValueError, match="multiples of 8 up to 128, not 20"):
        attention(*(x[..., :20] for x in half), MaskSpec(), "cudnn")
    with pytest.raises(ValueError, match="splash_interpret cannot serve: .*extra positions"):
        attention(q, k, v, MaskSpec(extra=(8, 1, True)), "splash_interpret")
