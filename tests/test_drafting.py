"""Speculative decoding: whoever drafts, the ids are those that come one at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import SomeMarks, defined, forward, of_preset, random_text, shrink
from octavo.batch import Batch
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config
from octavo.decoding.drafting import EarlyExit, Lookup, Mixed, Recycling, Smaller, own_drafter
from octavo.decoding.sampling import Acceptance, Loop, Sampling, filtered, generate
from octavo.model.drafter import Now, Seen
from octavo.model.lm import Output
from octavo.model.mtp import uses_extra
from octavo.model.mtp.modules import FromModules
from octavo.model.units.end_predictor import WithinUnit
from octavo.run.marks import NoMarks
from octavo.tokenizers.bytes import BOS, ByteTokenizer

OWN = (
    "mtp-heads",
    "mtp-linear",
    "mtp-modules",
    "mtp-registers",
    "mtp-lookahead",
    "mtp-spacebyte",
    "toucan",
)
CASES = (
    *((name, "own") for name in OWN),
    *(("mtp-heads", name) for name in ("lookup", "mixed", "recycling", "exit")),
    # Of the other trunks the most unlike: every preset's cache refuses ids in test_contracts.py.
    *((name, "lookup") for name in ("words", "aunet", "manta", "hnet-2stage", "mrt5")),
)


@functools.cache
def model_of(name):
    config = shrink(presets()[name])
    return config, *defined(config)


def drafter_of(name, kind):
    config = model_of(name)[0].model
    kinds = {
        "own": lambda: own_drafter(config), "lookup": lambda: Lookup(5), "none": lambda: None,
        "mixed": lambda: Mixed(own_drafter(config)), "recycling": lambda: Recycling(5),
        "exit": lambda: EarlyExit(config, 1, 3),
    }  # fmt: skip
    return kinds[kind]()


PROMPTS = [b"", random_text(1, 20), b"abcabcabca"]


@functools.cache
def decoded(name, kind, temperature, count=40):
    """Ids ``[3, count]`` behind the prompts, and how drafting went."""
    config, definition, params = model_of(name)
    acceptance = Acceptance()
    pieces = generate(
        definition.bind, params, [ByteTokenizer().encode(p) for p in PROMPTS], count,
        sampling=Sampling(temperature, top_p=0.95), seed=3, bos_id=BOS, eos_id=7,
        marker=SomeMarks(), chunk=16, drafter=drafter_of(name, kind), acceptance=acceptance,
        context=48,
    )  # fmt: skip
    return np.concatenate(list(pieces), axis=1), acceptance


@pytest.mark.parametrize(
    ("name", "kind"),
    [of_preset(*case) for case in CASES],
    ids=["-".join(case) for case in CASES],
)
def test_the_same_ids(name, kind):
    """Sampled, in rows of unequal length and pace, past the context, until each document ends."""
    plain, _ = decoded(name, "none", 1.0)
    found, acceptance = decoded(name, kind, 1.0)
    assert found.shape == plain.shape
    np.testing.assert_array_equal(found, plain)
    assert acceptance.ids == acceptance.passes + acceptance.accepted <= found.size
    assert acceptance.accepted <= acceptance.drafted


@pytest.mark.parametrize("name", [of_preset(name) for name in ("mtp-heads", "toucan")])
def test_the_same_ids_when_greedy(name):
    plain, _ = decoded(name, "none", 0.0)
    found, _ = decoded(name, "own", 0.0)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("name", [of_preset(name) for name in OWN[:5]])
def test_guesses_are_those_of_the_parallel_pass(name):
    """Whatever was accepted and refused before, the guesses are what further heads say of the whole
    text, in rows of unequal length."""
    config, definition, params = model_of(name)
    drafter, count = own_drafter(config.model), 40
    loop = Loop(definition.bind, NoMarks(), drafter, Sampling(1.0), -1, None, count, 128)
    texts = [random_text(5, 3), random_text(6, 9), b"zzzzzzzzz"]
    lengths = np.array([len(t) + 1 for t in texts], np.int32)
    tokens = np.full((3, 10), BOS, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[1 : len(text) + 1] = list(text)
    state = loop.start((params, {}, {}), tokens, lengths, jax.random.key(0))

    @jax.jit
    def guesses(state, first):
        def best(i, logits):
            return jnp.argmax(logits, axis=-1)

        at = jnp.arange(3), state["length"]
        now = Now(
            state["cache"], state["ids"].at[at].set(first), state["length"], first, best, None, None
        )
        return drafter.draft(definition.bind(params), {}, state["drafter"], now)[0].ids

    for until in (1, 9, 20, 30):
        state = loop.proceed((params, {}, {}), state, until)
        first = jnp.array([65, 66, 67], jnp.int32)
        found = np.asarray(guesses(state, first))
        for row in range(3):
            length = int(state["length"][row])
            ids = [*np.asarray(state["ids"][row])[:length], int(first[row]), *found[row]]
            batch = one_document(ids)
            expected = [
                int(np.argmax(logits[0, places == length - 1][0]))
                for logits, places in ahead_of(name)(batch, length - 1)
            ]
            assert found[row].tolist() == expected


def one_document(ids, length=128) -> Batch:
    """A row of these very ids."""
    row = np.zeros((1, length), np.int32)
    tokens = row.copy()
    tokens[0, : len(ids)] = ids
    return Batch(tokens, row, row + 1, np.arange(length, dtype=np.int32)[None], row, row)


@functools.cache
def ahead_of(name):
    """Logits of all further heads at one position, and the places they are of."""
    config, definition, params = model_of(name)

    def run(batch, ahead):
        model = definition.bind(params)
        output = model(batch, None, ahead)
        return model.predict_ahead(batch, output, ahead, lambda k, places, logits: logits)

    run = jax.jit(run)

    def of(batch, at):
        if not uses_extra(config.model):
            return [(np.asarray(x), np.arange(128)) for x in run(batch, None)]
        # Extra positions stand at fixed places: shift the text so that one stands at the position.
        every, count = config.model.mtp.every, config.model.mtp.count
        pad = (every - 1 - at) % every
        batch = jax.tree.map(lambda x: np.roll(x, pad, axis=1), batch)
        shift = np.arange(128) >= pad
        batch = batch._replace(segment_ids=np.where(shift, batch.segment_ids, 0))
        places = np.arange(every - 1, 128, every) - pad
        ahead = jnp.arange(1, count)
        if config.model.mtp.kind == "registers":
            return [(np.asarray(run(batch, ahead[k : k + 1])[0]), places) for k in range(count - 1)]
        return [(np.asarray(x), places) for x in run(batch, ahead)]

    return of


def tiny(seed, width=32):
    config = Config(model=ModelConfig(width=width, layers=1, heads=2))
    definition, _ = defined(config)
    params = jax.tree.map(lambda x: x * 3, jax.jit(definition.init)(jax.random.key(seed)))
    return definition, params


def drawn(definition, params, drafter, rows, how, count=3, seed=0):
    acceptance = Acceptance()
    pieces = generate(
        definition.bind, params, [np.array([65, 66])] * rows, count, sampling=how, seed=seed,
        bos_id=BOS, eos_id=-1, marker=NoMarks(), drafter=drafter, acceptance=acceptance,
    )  # fmt: skip
    return np.concatenate(list(pieces), axis=1), acceptance


def test_rejection_sampling_keeps_the_distribution():
    """Of three ids drawn with the help of an unlike model, every outcome is as frequent as the
    model alone says: chi-squared against the exact distribution."""
    how, rows = Sampling(1.2, top_k=3), 6000
    definition, params = tiny(0)
    other = jax.tree.map(lambda a, b: a + 0.2 * b, params, tiny(1)[1])
    small = Smaller(definition.bind, other, 64, 2)
    found, acceptance = drawn(definition, params, small, rows, how)
    assert 0.02 < acceptance.accepted / acceptance.drafted < 0.98

    def next_p(ids):
        logits = forward(definition)(params, one_document([BOS, 65, 66, *ids], 8))
        return np.exp(np.asarray(filtered(logits[0, 2 + len(ids)], how)))

    expected, counts = [], []
    for a in np.flatnonzero(next_p([])):
        for b in np.flatnonzero(next_p([a])):
            for c, p in enumerate(next_p([a, b])):
                if p:
                    expected.append(rows * next_p([])[a] * next_p([a])[b] * p)
                    counts.append(np.sum((found == [a, b, c]).all(1)))
    assert sum(counts) == rows, "an impossible outcome was drawn"
    expected, counts = np.array(expected), np.array(counts)
    chi = np.sum((counts - expected) ** 2 / expected)
    assert chi < 26 + 5 * np.sqrt(2 * 26)


def test_a_model_accepts_itself():
    definition, params = tiny(0)
    same = Smaller(definition.bind, params, 64, 5)
    _, acceptance = drawn(definition, params, same, 4, Sampling(1.0), count=30)
    assert acceptance.accepted == acceptance.drafted and acceptance.passes == 4 * 5


def test_greedy_rejection_is_greedy():
    definition, params = tiny(0)
    other = Smaller(*(lambda d, p: (d.bind, p))(*tiny(1, 16)), 64, 4)
    plain, _ = drawn(definition, params, None, 3, Sampling(0), count=30)
    found, _ = drawn(definition, params, other, 3, Sampling(0), count=30)
    np.testing.assert_array_equal(found, plain)


def drafts_of(drafter, ids, first):
    ids = np.array(ids, np.int32)
    buffer = np.zeros((1, 64), np.int32)
    buffer[0, : len(ids)] = ids
    buffer[0, len(ids)] = first
    length = jnp.array([len(ids)], jnp.int32)
    now = Now({}, jnp.asarray(buffer), length, jnp.array([first]), None, None, None)
    return drafter.draft(None, {}, {}, now)[0].ids[0].tolist()


def test_lookup():
    text = list(b"one two three one two ")
    assert bytes(drafts_of(Lookup(5), text, ord("t"))) == b"hree "
    assert bytes(drafts_of(Lookup(5), list(b"ab ac"), ord(" "))) == b"ac ac"  # and on, as it began
    assert bytes(drafts_of(Lookup(6), list(b"xyxyxyx"), ord("y"))) == b"xyxyxy"


def test_recycling():
    """What was likely after three ids is guessed after the same three, also if it was refused."""
    ids = jnp.zeros((1, 64), jnp.int32).at[0, :9].set(jnp.array(list(b"abcdXabc ")))
    logits = jax.nn.one_hot(jnp.array([list(b"bcdefgh")]), 256)
    zero, kept = jnp.zeros(1, jnp.int32), jnp.ones(1, jnp.int32)
    drafter = Recycling(2)
    carry = drafter.init(None, {}, 1, 64)
    seen = Seen(ids[:, :7], Output(logits), kept, ids, zero, None)
    carry = drafter.observe(None, {}, carry, seen)
    now = Now({}, ids, zero + 7, zero + ord("c"), None, None, None)
    # Behind "abc" came "d", behind "bcd" "e".
    assert bytes(drafter.draft(None, {}, carry, now)[0].ids[0].tolist()) == b"de"


def test_who_drafts():
    assert own_drafter(presets()["flat"].model) is None
    assert isinstance(own_drafter(presets()["toucan"].model), WithinUnit)
    assert isinstance(own_drafter(presets()["mtp-modules"].model), FromModules)
    with pytest.raises(ConfigError, match="1 to 3 of the model's 4 blocks, not 4"):
        EarlyExit(presets()["flat"].model, 4)
    with pytest.raises(ConfigError, match="needs a flat model"):
        EarlyExit(presets()["words"].model, 1)
