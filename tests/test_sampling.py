"""Filters against their definitions, the loop against the parallel pass, text as it streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import defined
from octavo.batch import Batch
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config
from octavo.decoding.sampling import Sampling, Shown, Text, draw, filtered, generate
from octavo.run.marks import NoMarks
from octavo.tokenizers.bytes import ByteTokenizer

TOKENIZER = ByteTokenizer()
P = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])


def kept(**settings):
    """Which ids of ``P``, in shuffled places, may still be drawn."""
    order = np.array([3, 0, 5, 1, 4, 2])
    found = filtered(jnp.log(jnp.asarray(P[order])), Sampling(**settings))
    np.testing.assert_allclose(jnp.exp(found).sum(), 1, rtol=1e-5)
    alive = np.isfinite(np.asarray(found))
    shares = np.exp(np.asarray(found))[alive] / P[order][alive]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-4)
    return sorted(order[alive].tolist())


def test_filters():
    assert kept() == [0, 1, 2, 3, 4, 5]
    assert kept(top_k=2) == [0, 1]
    assert kept(top_k=100) == [0, 1, 2, 3, 4, 5]
    assert kept(top_p=0.39) == [0]
    assert kept(top_p=0.41) == [0, 1]
    assert kept(top_p=0.79) == [0, 1, 2]
    assert kept(top_p=1e-9) == [0]
    assert kept(min_p=0.3) == [0, 1, 2]
    assert kept(min_p=1.0) == [0]
    # Entropy 1.53 nats; surprisals .92 1.39 1.90 2.30 2.81 3.22, so id 1 is nearest, then 2, 0.
    assert kept(typical=0.2) == [1]
    assert kept(typical=0.3) == [1, 2]
    assert kept(typical=0.5) == [0, 1, 2]
    assert kept(top_k=3, top_p=0.6) == [0, 1]


def test_temperature():
    logits = jnp.log(jnp.asarray(P))
    found = jnp.exp(filtered(logits, Sampling(temperature=2.0)))
    np.testing.assert_allclose(found, P**0.5 / (P**0.5).sum(), rtol=1e-5)
    assert np.exp(filtered(logits, Sampling(temperature=0))).tolist() == [1, 0, 0, 0, 0, 0]


def test_drawn_as_often_as_likely():
    log_p = filtered(jnp.log(jnp.asarray(P)), Sampling(top_k=3))
    at = jnp.broadcast_to(jnp.arange(100), (200, 100))
    drawn = draw(jax.random.key(0), jnp.broadcast_to(log_p, (200, 100, 6)), at)
    counts = np.bincount(drawn.ravel(), minlength=6)
    expected = P[:3] / P[:3].sum() * 20_000
    assert (np.abs(counts[:3] - expected) < 5 * np.sqrt(expected)).all() and not counts[3:].any()


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"min_p": 2}, {"typical": 1.5}]
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad)).replace("_", "-")):
        Sampling(**bad)


@pytest.fixture(scope="module")
def model():
    return defined(Config(model=ModelConfig(width=64, layers=2, heads=4)))


def continued(model, prompts, count, **settings):
    definition, params = model
    settings = {"sampling": Sampling(temperature=0), "seed": 0} | settings
    pieces = list(
        generate(
            definition.bind, params, [TOKENIZER.encode(p) for p in prompts], count,
            bos_id=TOKENIZER.bos_id, eos_id=TOKENIZER.eos_id, marker=NoMarks(), **settings,
        )
    )  # fmt: skip
    return np.concatenate(pieces, axis=1)


def test_greedy_is_the_parallel_argmax(model):
    """Rows of unequal length, decoded side by side, each as the parallel pass would."""
    prompts = [b"", b"hello world", b"a rather longer prompt than the others"]
    found = continued(model, prompts, 40)
    assert found.shape == (3, 40)
    definition, params = model
    for prompt, ids in zip(prompts, found, strict=True):
        ended = np.append(np.flatnonzero(ids == TOKENIZER.eos_id), len(ids))[0]
        tokens = jnp.asarray([[TOKENIZER.bos_id, *prompt, *ids[:ended]]])
        places = jnp.arange(tokens.shape[1])[None]
        ones = jnp.ones_like(tokens)
        batch = Batch(tokens, tokens, ones, places, ones, 0 * ones)
        logits = definition.bind(params)(batch).logits[0]
        best = np.asarray(jnp.argmax(logits, -1))[len(prompt) :]
        np.testing.assert_array_equal(best[: len(ids)], ids[: ended + 1])
        assert (ids[ended:] == TOKENIZER.eos_id).all()


def test_sampling_repeats_with_its_seed(model):
    settings = {"sampling": Sampling(), "seed": 3}
    first = continued(model, [b"x"], 50, **settings)
    np.testing.assert_array_equal(first, continued(model, [b"x"], 50, **settings))
    np.testing.assert_array_equal(first, continued(model, [b"x"], 50, chunk=7, **settings))
    assert not np.array_equal(first, continued(model, [b"x"], 50, **settings | {"seed": 4}))


def test_context_bounds_what_is_seen():
    """With one layer, what lies further back than the context changes nothing."""
    definition, params = defined(Config(model=ModelConfig(width=64, layers=1, heads=4)))
    lm = definition.bind(params)
    tokens = jnp.asarray([list(b"XYZthe end"), list(b"123the end")])
    near, _ = lm.extend(tokens, lm.init_cache(2, 10), context=7)
    far, _ = lm.extend(tokens, lm.init_cache(2, 10), context=8)
    np.testing.assert_array_equal(near[0, -1], near[1, -1])
    assert (far[0, -1] != far[1, -1]).any()


def text_of(data: bytes, sizes, prompt=b"", **settings) -> list[str]:
    ids = TOKENIZER.encode(data)
    edges = np.cumsum([0, *sizes, len(ids)]).clip(0, len(ids))
    pieces = (ids[None, a:b] for a, b in zip(edges, edges[1:], strict=False))
    return list(Shown(prompt, Text(pieces, TOKENIZER, **settings)))


def test_streamed_text_has_whole_characters():
    text = "aé日本🙂\x03z"
    for size in range(1, 6):
        pieces = text_of(text.encode(), [size] * 20)
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(text_of(b"ok\xff\xfe!", [1] * 5)) == "ok\ufffd\ufffd!"
    assert "".join(text_of("né".encode(), [1, 1], most_bytes=2)) == "n"
    ended = np.array([[*b"done", TOKENIZER.eos_id, *b"more"]])
    assert "".join(Shown(b"", Text(iter([ended]), TOKENIZER))) == "done"
    cut = np.array([[*"né".encode()[:-1], TOKENIZER.eos_id, *b"more"]])
    assert "".join(Shown(b"", Text(iter([cut]), TOKENIZER))) == "n\ufffd"  # no more will come


def test_streamed_text_continues_the_bytes_of_the_prompt():
    """What the prompt began is shown with what completes it, or as damage if nothing does."""
    whole = "日本🙂".encode()
    for cut in range(len(whole) + 1):
        for size in (1, 2, 20):
            pieces = text_of(whole[cut:], [size] * 20, prompt=whole[:cut])
            assert "".join(pieces) == "日本🙂"
            assert pieces[0] == whole[:cut].decode(errors="ignore")
    assert "".join(text_of(b"ok", [1, 1], prompt=b"tr\xc3")) == "tr\ufffdok"
    assert "".join(text_of(b"\xa8s", [1, 1], prompt=b"tr\xc3", most_bytes=1)) == "trè"
    assert "".join(text_of(b"", [1], prompt=b"a\0\xe6\x97")) == "a\0"


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0, allow_infinity=False),
    st.integers(0, 2**40),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, 1),
    st.floats(0, 1, exclude_min=True),
    st.integers(0, 2**32 - 1),
)
@example(1e-10, 0, 1.0, 0.0, 1.0, 1)
@example(5e-324, 0, 1.0, 1e-300, 1.0, 2)
@example(1e300, 0, 1.0, 1.0, 1.0, 3)
@example(1.0, 0, 1e-300, 0.0, 1.0, 4)
@example(1e-10, 0, 1e-300, 0.0, 1e-300, 5)
def test_any_legal_setting_leaves_something_to_draw(
    temperature, top_k, top_p, min_p, typical, seed
):
    """Whatever is asked and whatever the model says: probabilities that sum to 1, and the most
    likely id among them, unless a filter breaks ties or leaves it out by design."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(9).astype(np.float32) * np.float32(10.0 ** rng.integers(-6, 5))
    how = Sampling(temperature, top_k, top_p, min_p, typical)
    found = np.asarray(jax.jit(filtered, static_argnums=1)(logits, how), np.float64)
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-4)
    if top_p == typical == 1:
        assert found[logits.argmax()] == found.max()


def test_a_low_temperature_is_greedy(model):
    greedy = continued(model, [b"hello"], 20)
    for temperature in (1e-10, 1e-40, 1e-300):
        found = continued(model, [b"hello"], 20, sampling=Sampling(temperature), seed=3)
        np.testing.assert_array_equal(found, greedy)
