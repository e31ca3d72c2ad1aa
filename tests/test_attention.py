"""Every attention kernel that runs here against the definition, field by field of the mask spec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as stablehlo

from octavo.configs.schema import MeshConfig
from octavo.model.cudnn import documents
from octavo.model.kernels import BACKENDS, MaskSpec, attend, attention
from octavo.run.sharding import make_mesh

BATCH, LENGTH, HEADS, SIZE = 2, 256, 4, 128


def seen_by(rows, length, causal, window, segments):
    """One dense boolean mask."""
    t = np.arange(length)
    seen = np.ones((rows, length, length), bool)
    if causal:
        seen &= t[:, None] >= t[None]
    if window:
        seen &= np.abs(t[:, None] - t[None]) < window
    if segments is not None:
        seen &= segments[:, :, None] == segments[:, None, :]
    return seen


def by_definition(q, k, v, causal, window, segments):
    """softmax(q k^T / sqrt(D)) v, one dense boolean mask, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    repeat = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, repeat, axis=2) for x in (k, v))
    seen = seen_by(*q.shape[:2], causal, window, segments)
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(seen[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, v)


def indices_of(x):
    """Which part of x each device has."""
    return [shard.index for shard in x.addressable_shards]


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


def test_biases_of_keys_and_softmax1_in_splash():
    """As in the reference, gradients too; a bias has more digits than bfloat16."""
    (q, k, v), segments = inputs(2)
    bias = 30 * jax.random.normal(jax.random.key(5), segments.shape)

    def of(backend, dtype):
        def summed(q, k, v, bias):
            spec = MaskSpec(jnp.asarray(segments), key_bias=bias, plus_one=True)
            q, k, v = (x.astype(dtype) for x in (q, k, v))
            mixed = attention(q, k, v, spec, backend).astype(jnp.float32)
            return jnp.sum(jnp.sin(mixed)), mixed

        found, mixed = jax.jit(jax.grad(summed, (0, 1, 2, 3), has_aux=True))(q, k, v, bias)
        return mixed, *found

    for a, b in zip(of("splash_interpret", q.dtype), of("reference", q.dtype), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-4)
    rough, exact = of("splash_interpret", jnp.bfloat16)[0], of("reference", q.dtype)[0]
    np.testing.assert_allclose(rough, exact, atol=0.05)


@pytest.mark.parametrize("backend", ["reference", "splash_interpret"])
@pytest.mark.parametrize(
    "spec",
    [{}, {"window": 37}, {"causal": False}, {"causal": False, "window": 30}, {"plus_one": True}],
    ids=str,
)
def test_shared_rows(backend, spec):
    """Two devices have the halves of each row, and two the halves of the heads: results and
    gradients as on one; in the reference, of the length that nothing is filled up to, too."""
    length = 250 if backend == "reference" else LENGTH
    (q, k, v), segments = inputs(2, length)
    bias = jax.random.normal(jax.random.key(5), segments.shape)

    @jax.jit
    def found(q, k, v, bias):
        def summed(q, k, v, bias):
            own = bias if spec.get("plus_one") else None
            mask = MaskSpec(jnp.asarray(segments), key_bias=own, **spec)
            mixed = attention(q, k, v, mask, backend)
            return jnp.sum(jnp.sin(mixed)), mixed

        return jax.grad(summed, (0, 1, 2, 3), has_aux=True)(q, k, v, bias)

    expected = found(q, k, v, bias)
    with jax.set_mesh(make_mesh(MeshConfig(1, 2, 2, 2))):
        shared = found(q, k, v, bias)
    assert {index[1].stop for index in indices_of(shared[1])} == {length // 2, length}
    for a, b in zip(jax.tree.leaves(shared), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("length", [1, 5, 129, 300, 2200])
def test_reference_takes_any_length(length):
    (q, k, v), segments = inputs(2, length)
    spec = MaskSpec(jnp.asarray(segments), True, None)
    found = jax.jit(lambda *x: attention(*x, spec))(q, k, v)
    expected = by_definition(q, k, v, True, None, segments)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("length", "window"), [(1, 5), (70, 2), (133, 33), (133, 34), (133, 128)])
def test_windows_at_the_ends_of_rows(length, window, causal, packed):
    """Nothing is seen beyond a row, which blocks do not divide; gradients, too."""
    (q, k, v), segments = inputs(2, length)
    segments = segments if packed else None
    spec = MaskSpec(None if segments is None else jnp.asarray(segments), causal, window)
    seen = jnp.asarray(seen_by(BATCH, length, causal, window, segments))

    def dense(q, k, v):
        return attend(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), seen)

    def pulled(run):
        mixed, pull = jax.vjp(run, q, k, v)
        return mixed, *pull(jnp.cos(mixed))

    expected = by_definition(q, k, v, causal, window, segments)
    np.testing.assert_allclose(attention(q, k, v, spec), expected, atol=2e-5)
    for a, b in zip(pulled(lambda *x: attention(*x, spec)), pulled(dense), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_reference_skips_what_the_mask_hides():
    """Causal attention costs about half a dense mask's FLOPs, a window's is linear in length."""

    def flops(**spec):
        shape = jax.ShapeDtypeStruct((1, 2048, 1, 64), jnp.float32)
        run = jax.jit(lambda q, k, v: attention(q, k, v, MaskSpec(**spec)))
        return run.lower(shape, shape, shape).compile().cost_analysis()["flops"]

    dense = flops(causal=False)
    assert flops() < 0.6 * dense
    assert flops(window=256) < 0.25 * dense
    assert flops(window=128) < 0.125 * dense  # 192 keys of 2,048
    assert flops(window=33) < 0.05 * dense  # 64


class CuDNN:
    """What stands for cuDNN: the same functions by another implementation. ``packed`` counts calls
    for packed sequences, ``masked`` those with masks or without either."""

    def __init__(self, monkeypatch):
        self.packed, self.masked = [], []
        self.plainly = jax.nn.dot_product_attention
        monkeypatch.setattr(jax.nn, "dot_product_attention", self.with_mask)
        monkeypatch.setattr(stablehlo, "dot_product_attention", self.of_sequences)
        monkeypatch.setattr(stablehlo, "_dot_product_attention_bwd_p_wrapper", self)

    def with_mask(self, *args, implementation, **kwargs):
        self.masked.append(implementation)
        return self.plainly(*args, implementation="xla", **kwargs)

    def _mixed(self, q, k, v, begin, length, scale, mask_type):
        """Only what lies in a sequence sees, and is seen."""
        mask, kinds = None, stablehlo.MaskType
        if length is not None and length.ndim == 2:
            assert mask_type in (kinds.PADDING, kinds.PADDING_CAUSAL)
            t = jnp.arange(q.shape[1])
            inside = (t >= begin[:, :-1, None]) & (t < (begin[:, :-1] + length)[..., None])
            mask = jnp.einsum("bmt,bms->bts", *[inside.astype(int)] * 2)[:, None] > 0
        causal = mask_type in (kinds.CAUSAL, kinds.PADDING_CAUSAL)
        return self.plainly(q, k, v, mask=mask, scale=scale, is_causal=causal)

    def of_sequences(
        self, q, k, v, *, scale, mask_type, return_residual,
        q_seqlen=None, kv_seqlen=None, q_offsets=None, kv_offsets=None,
    ):  # fmt: skip
        self.packed.append(q_seqlen)
        assert (q_seqlen is kv_seqlen) and (q_offsets is kv_offsets) and return_residual
        B, T, H, _ = q.shape
        rows = B if q_seqlen is None else q_seqlen.size
        mixed = self._mixed(q, k, v, q_offsets, q_seqlen, scale, mask_type)
        return mixed, jnp.full((rows, H, T), 7.0)

    def bind(
        self, q, k, v, _, length, __, begin, *rest, scale, mask_type, variadic_args, layout, **more
    ):  # fmt: skip
        *_, normalizer, mixed, gradient = rest
        assert variadic_args == (False, False) and layout == stablehlo.AttentionLayout.BTNH.value
        assert len(normalizer) == (length.size or len(q)) and mixed.shape == q.shape
        attend = lambda *x: self._mixed(*x, begin, length, scale, mask_type)  # noqa: E731
        return list(jax.vjp(attend, q, k, v)[1](gradient))


@pytest.mark.parametrize("length", [150, 192])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("most", [None, 1, 5, 20, 60])
@pytest.mark.parametrize("capability", ["8.0", "9.0"])
def test_what_cudnn_is_asked_for(capability, most, causal, length, monkeypatch):
    """The sequences or the mask that it gets, and the rows that are filled; its gradients."""
    card = type("Card", (), {"compute_capability": capability})()
    monkeypatch.setattr("octavo.model.kernels.jax.devices", lambda: [card])
    asked = CuDNN(monkeypatch)
    (q, k, v), _ = inputs(2, length)
    ids = None
    if most is not None:
        draws = np.random.default_rng(0).integers(1, most + 1, (BATCH, length))
        ids = np.sort(draws, axis=1)
        if most > 1:
            ids[0, -7:] = 0  # padding
    spec = MaskSpec(None if ids is None else jnp.asarray(ids), causal)
    found = BACKENDS["cudnn"](q, k, v, spec)
    expected = by_definition(q, k, v, causal, None, ids)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert set(asked.masked) <= {"cudnn"}
    whole = most is None and length % 64 == 0
    assert bool(asked.packed) == (capability == "9.0" and not whole)
    if whole or length % 64:
        return

    def pulled(backend):
        return jax.grad(lambda *x: jnp.sum(jnp.sin(BACKENDS[backend](*x, spec))), (0, 1, 2))

    for a, b in zip(pulled("cudnn")(q, k, v), pulled("reference")(q, k, v), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_shared_rows_in_cudnn(causal, monkeypatch):
    """It gets a device's queries, all keys, and a mask."""
    asked = CuDNN(monkeypatch)
    (q, k, v), segments = inputs(2, 192)
    spec = MaskSpec(jnp.asarray(segments), causal)

    def pulled(backend):
        return jax.jit(
            jax.grad(lambda *x: jnp.sum(jnp.sin(BACKENDS[backend](*x, spec))), (0, 1, 2))
        )

    expected = pulled("reference")(q, k, v)
    with jax.set_mesh(make_mesh(MeshConfig(1, 2, sequence=4))):
        found = pulled("cudnn")(q, k, v)
    assert set(asked.masked) == {"cudnn"} and not asked.packed
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_documents_of_rows():
    ids = jnp.array([[3, 3, 3, 4, 0, 0], [1, 1, 1, 1, 1, 1]])
    begin, length, count = (np.asarray(x).tolist() for x in documents(ids, 4))
    assert begin == [[0, 3, 4, -1, -1], [0, -1, -1, -1, -1]]
    assert length == [[3, 1, 2, -1], [6, -1, -1, -1]]
    assert count == [3, 1]


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
