"""The contracts of the design, for every preset there is (a new one is covered by existing)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from helpers import (
    SomeMarks,
    batch_of,
    defined,
    forward,
    initial,
    of_preset,
    opened,
    random_text,
    shrink,
)
from octavo.batch import FIELDS, Batch
from octavo.configs import BROKEN, presets
from octavo.configs.schema import Config, MeshConfig
from octavo.data.pipeline import BatchSource
from octavo.data.plan import Plan
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.model.entropy import cross_entropy
from octavo.model.units.room import room_of
from octavo.run.checkpoint import Checkpoints
from octavo.run.rows import packed_rows
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.words import WordTokenizer
from octavo.training.state import state_of
from octavo.training.trainer import Trainer

LENGTH = 64


def with_model(config, **changes):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def computed(config, **changes):
    how = dataclasses.replace(config.execution, **changes)
    return dataclasses.replace(config, execution=how)


def check_causality(definition, params, text, changed, before=b""):
    """Predictions of bytes up to t are equal for texts that differ from t on; changed: by t.

    before: another document in front. Returns how many predictions saw the byte just before them.
    """
    rows = [text, *changed.values()]
    documents = [part for row in rows for part in ([before, row] if before else [row])]
    batch = batch_of(documents, LENGTH)
    assert len(batch.tokens) == len(rows), "each text fills a row"
    first, *others = forward(definition)(params, batch)
    assert np.isfinite(first).all()
    start = len(before) + 1 if before else 0
    saw = 0
    for (t, *_), other in zip(changed, others, strict=True):
        # Position t predicts byte t, from bytes before it.
        np.testing.assert_array_equal(first[: start + t + 1], other[: start + t + 1])
        saw += bool(np.any(first[start + t + 1] != other[start + t + 1]))
    return saw


def test_causality(preset):
    """Changing byte t and everything after leaves every prediction of bytes up to t unchanged."""
    text, other = random_text(0, LENGTH - 1), random_text(1, LENGTH - 1)
    changed = {(t,): text[:t] + bytes([text[t] ^ 0x11]) + other[t + 1 :] for t in range(len(text))}
    saw = check_causality(*defined(preset), text, changed)
    assert saw == len(text), "a prediction ignores the byte just before it"


def test_causality_when_packed(preset):
    """The same behind another document, and that document never sees what follows it."""
    first, second = random_text(2, 25), random_text(3, LENGTH - 27)
    changed = {
        (t,): second[:t] + bytes([second[t] ^ 0x11]) + second[t + 1 :]
        for t in (0, 1, 7, len(second) - 1)
    }
    check_causality(*defined(preset), second, changed, before=first)


ODD = {
    "spaces": b" " * 63,
    "one word": b"x" * 63,
    "blanks and letters": b"a b\tc\nd " * 7 + b"abcdefg",
    "one character again and again": "日".encode() * 21,
    "cut characters": b"\xe6\x97" * 31 + b"\xa5",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_causality_of_odd_texts(preset, text):
    """A byte turned into a space, a letter or part of a character, where units begin and end."""
    changed = {
        (t, byte): text[:t] + bytes([byte]) + text[t + 1 :]
        for t in (0, 1, 2, 3, 14, 15, 16, 17, 30, 31, 32, 47, 48, 61, 62)
        for byte in (0x20, 0x61, 0x17, 0xA5)
    }
    # As many rows as in test_causality: the same program.
    changed |= {(t, 0): text[:t] + b"?" + text[t + 1 :] for t in (5, 6, 7)}
    check_causality(*defined(preset), text, changed)


def nats_per_document(definition, params, documents):
    batch = batch_of(documents, LENGTH)
    log_p = log_softmax(forward(definition)(params, batch), axis=-1)
    nats = -np.take_along_axis(log_p, np.asarray(batch.targets)[..., None], axis=-1)[..., 0]
    return [
        float(nats[row][segments == segment].sum())
        for row, segments in enumerate(np.asarray(batch.segment_ids))
        for segment in np.unique(segments)
        if segment
    ]


def test_isolation(preset):
    """A document's loss does not depend on what is packed beside it."""
    definition, params = defined(preset)
    documents = [random_text(seed, size) for seed, size in enumerate((20, 1, 30, 63, 5, 40))]
    packed = nats_per_document(definition, params, documents)
    alone = [nats_per_document(definition, params, [d])[0] for d in documents]
    np.testing.assert_allclose(packed, alone, rtol=1e-5)


def fields_of(batch) -> dict[str, np.ndarray]:
    """Of a batch: what a model reads of it, with marks that depend on the ids alone."""
    found = {name: np.asarray(batch[name], np.int32) for name in FIELDS}
    return found | {"marks": SomeMarks.rule(found["tokens"])}


def each_alone(fields: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list]:
    """Every piece of the rows as a row of its own, and where it stood."""
    segments = fields["segment_ids"]
    places = [
        (row, segments[row] == segment)
        for row in range(len(segments))
        for segment in range(1, segments[row].max() + 1)
    ]
    alone = {
        name: np.stack([np.pad(v[r][at], (0, v.shape[1] - at.sum())) for r, at in places])
        for name, v in fields.items()
    }
    return alone | {"segment_ids": np.minimum(alone["segment_ids"], 1)}, places


def check_isolation(config, fields: dict[str, np.ndarray]):
    """Every piece of some rows costs what it costs alone, position by position."""
    definition, params = defined(config)
    alone, places = each_alone(fields)
    both = []
    for part in (fields, alone):
        batch = Batch(**jax.tree.map(jnp.asarray, part)).widen()
        log_p = log_softmax(forward(definition)(params, batch), axis=-1)
        both.append(np.take_along_axis(log_p, part["targets"][..., None], axis=-1)[..., 0])
    for i, (row, at) in enumerate(places):
        np.testing.assert_allclose(both[0][row, at], both[1][i, : at.sum()], atol=2e-4, rtol=1e-4)


SHORT = [
    *(random_text(seed, size) for size in (1, 2, 5, 10) for seed in range(7)),
    *(b"a b c d e ", b" a b. c d.", b"1,2,3,4,5,") * 3,
    *(b" ", b" " * 10, b"\n\n\n", b"\t \r\n" * 5, b"\xff", b"\x80\xfe\xc3(", b"\xe6\x97" * 5),
    *(bytes(range(8)), b"\0", b"\x17\x17\x17", b"\x7f\x1b[0m"),
]
"""Documents whose units are more than their share of a row."""


@pytest.mark.parametrize("known", [True, False], ids=["the model's room", "any model's room"])
def test_isolation_of_short_documents(preset, known):
    """However many documents a row of scoring holds, and whatever they are."""
    tokenizer = ByteTokenizer()
    encoded = [tokenizer.encode(document) for document in SHORT]
    room = room_of(preset.model, LENGTH) if known else None
    rows, places = packed_rows(encoded, tokenizer, LENGTH, 0, room=room)
    assert len(places) == len(SHORT) and len(rows) < len(SHORT)
    check_isolation(preset, fields_of({name: rows[:, i] for i, name in enumerate(FIELDS)}))


@pytest.fixture(scope="session")
def short_documents(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("short")
    (folder / "text").mkdir()
    for i, document in enumerate(SHORT):
        (folder / "text" / f"{i:03}.txt").write_bytes(document)
    units = find_units([str(folder / "text")], "text", None)
    prepare(units, folder / "out", ByteTokenizer(), heldout=0, processes=1)
    return Corpus(folder / "out")


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_isolation_in_training(preset, packing, short_documents):
    """The same for the rows of training."""
    plan = Plan(
        [(short_documents, 1.0)], packing=packing, length=LENGTH, batch_size=1,
        shuffle_window_ids=2**20, seed=0, room=room_of(preset.model, LENGTH),
    )  # fmt: skip
    plan.batch_size = plan.rows_per_epoch
    batch = BatchSource(plan, np.arange(plan.batch_size), 1)[0]
    assert (batch["segment_ids"].max(1) > 1).any()
    check_isolation(preset, fields_of(batch))


@pytest.mark.parametrize("name", [of_preset(name) for name in ("words", "spacebyte", "megabyte")])
def test_isolation_of_many_sentences(name):
    """48 documents of ten bytes, in rows of the length in use."""
    config = shrink(presets()[name])
    tokenizer = ByteTokenizer()
    encoded = [tokenizer.encode(f"it is {i:02}. ".encode()) for i in range(48)]
    rows, _ = packed_rows(encoded, tokenizer, 512, 0, room=room_of(config.model, 512))
    assert len(rows) == 2
    check_isolation(config, fields_of({name: rows[:, i] for i, name in enumerate(FIELDS)}))


@jax.jit
def nats_of_each(logits):
    """What the objective makes each id cost, ``[256, B, T]``."""
    each = jnp.broadcast_to(jnp.arange(256)[:, None, None], (256, *logits.shape[:2]))
    return jax.vmap(lambda targets: cross_entropy(logits, targets)[0])(each)


def test_a_distribution(preset):
    """Probabilities of a position sum to one; every byte and document end is paid exactly once."""
    definition, params = defined(preset)
    documents = [random_text(4, 60), random_text(5, 10), bytes(range(40))]
    logits = forward(definition)(params, batch_of(documents, LENGTH))
    nats = np.asarray(nats_of_each(logits))
    np.testing.assert_allclose(np.exp(-nats).sum(0), 1, rtol=1e-5)
    scored = opened(preset, ByteTokenizer()).score(documents)
    # 40 control bytes hold three that must be escaped, and are paid for.
    assert scored.ids == sum(map(len, documents)) + 3 + len(documents)
    assert scored.bytes == sum(map(len, documents))
    by_hand = sum(nats_per_document(definition, params, documents))
    assert math.isclose(scored.nats, by_hand, rel_tol=1e-5)


def test_windows_score_every_byte_once():
    """However a long document is cut into windows, all of it is paid for."""
    documents, it = [random_text(4, 150), random_text(5, 10)], opened(shrink(Config()))
    for overlap in (0, 10, 63):
        scored = it.score(documents, overlap=overlap, batch_size=3)
        assert scored.ids == 162 and math.isfinite(scored.bits_per_byte)
        by_byte = sum(map(np.sum, scored.surprisal))
        assert by_byte < scored.nats / math.log(2) < by_byte + 2 * 16  # and two ends


def test_stepwise_equals_parallel(preset):
    """Continuing a cache piece by piece gives the parallel pass, for rows of unequal length."""
    definition, params = defined(preset)
    batch = batch_of([random_text(6, LENGTH - 1), random_text(7, LENGTH - 1)], LENGTH)
    parallel = forward(definition)(params, batch)
    extend = jax.jit(
        lambda tokens, cache, marks, valid: definition.bind(params).extend(
            tokens, cache, marks, valid
        )
    )
    # How many ids each row takes at a time; one row is behind for a while.
    for steps in ([(1, 1)] * 64, [(22, 22), (0, 3), (22, 3), (3, 15), (17, 21)]):
        cache = jax.jit(lambda: definition.bind(params).init_cache(2, LENGTH + 22))()
        done = np.zeros(2, int)
        for valid in steps:
            size = 1 if max(valid) == 1 else 22  # two programs are compiled
            at = np.minimum(done[:, None] + np.arange(size), LENGTH - 1)
            tokens, marks = (
                np.take_along_axis(np.asarray(x), at, 1) for x in (batch.tokens, batch.marks)
            )
            logits, cache = extend(tokens, cache, marks, np.asarray(valid))
            for row in range(2):
                expected = parallel[row, done[row] : done[row] + valid[row]]
                found = np.asarray(logits)[row, : valid[row]]
                np.testing.assert_allclose(found, expected, atol=5e-5, rtol=1e-4)
            done += valid
        assert (done == LENGTH).all()


@pytest.mark.parametrize(
    "check", [test_causality, test_causality_when_packed, test_isolation,
              test_stepwise_equals_parallel],
)  # fmt: skip
def test_several_vectors_per_word(check):
    """As many as Learn Your Tokens has, which the preset of its name does not need."""
    words = shrink(presets()["words"])
    stage = dataclasses.replace(words.model.stages[0], slots=4)
    check(with_model(words, stages=(stage,)))


@pytest.mark.parametrize(
    "check", [test_causality_when_packed, test_isolation, test_stepwise_equals_parallel]
)
@pytest.mark.parametrize("name", [of_preset("megabyte"), of_preset("blt")])
def test_recurrence_in_every_stack(name, check):
    """Encoders, trunks and decoders, also one that sees its own unit only."""
    config = shrink(presets()[name])
    stages = tuple(
        dataclasses.replace(stage, mixers=("gated_delta",)) for stage in config.model.stages
    )
    check(with_model(config, mixers=("gated_delta", "attention"), stages=stages))


@functools.lru_cache(maxsize=2)
def trainer(config, mesh_config, devices):
    """``fresh() -> state``, its description, and ``advance(state, steps) -> (state, losses)``."""
    # Before the mesh is current: what is drawn on it would be compiled for it.
    _, params = initial(config)
    train = dataclasses.replace(config.train, steps=100)
    config = dataclasses.replace(config, mesh=mesh_config, train=train)
    it = Trainer.of(config, WordTokenizer(), devices=jax.devices()[:devices])
    make = functools.partial(state_of, it.definition, it.optimizer)
    start = jax.device_get(make(params))
    described = jax.eval_shape(make, it.definition.abstract)
    # A weak type would turn strong in the first update, and compile the step again.
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(described))

    def fresh():
        return jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, it.abstract))

    def advance(state, steps):
        found = []
        for i in range(int(state["step"]), int(state["step"]) + steps):
            batch = batch_of([random_text(10 * i + k, LENGTH - 1) for k in range(8)], LENGTH)
            host = {name: np.asarray(field) for name, field in batch._asdict().items()}
            with jax.set_mesh(it.mesh):
                state, metrics = it.step(state, it.place(host))
            found.append(float(metrics["loss"]))
        return state, found

    return fresh, it.abstract, advance


@functools.cache
def losses(config, mesh_config, devices, steps=3):
    """Losses and final parameters of a few steps on a mesh, from the same rows."""
    fresh, abstract, advance = trainer(config, mesh_config, devices)
    state, found = advance(fresh(), steps)
    # Another layout would compile the step again.
    for leaf, expected in zip(*map(jax.tree.leaves, (state, abstract)), strict=True):
        assert leaf.sharding == expected.sharding
    return found, jax.device_get(state["params"])


def test_exact(preset, tmp_path):
    """The same config, seed and data give the same losses and parameters, bit for bit; continued
    from a checkpoint, too."""
    expected, params = losses(preset, MeshConfig(), 1)
    fresh, abstract, advance = trainer(preset, MeshConfig(), 1)
    state, first = advance(fresh(), 2)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(state, {}, {"model": {}})
    checkpoints.wait()
    state = checkpoints.restore(abstract, {}, {"model": {}}, warn=pytest.fail)
    checkpoints.close()
    state, rest = advance(state, 1)
    assert first + rest == expected
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(state["params"]), strict=True):
        np.testing.assert_array_equal(a, b)


def check_equal(found, expected, config):
    """Equal losses; a target that compares entropies turns over on rounding."""
    by_entropy = any(stage.supervision == "entropy" for stage in config.model.stages)
    np.testing.assert_allclose(found, expected, rtol=1e-3 if by_entropy else 1e-5)


def test_sharded_equals_unsharded(preset):
    """Losses and parameters after some steps: on eight devices, nothing computed twice, and on one
    device as configured."""
    expected, params = losses(preset, MeshConfig(), 1)
    plain = computed(preset, remat="none")
    found, sharded = losses(plain, MeshConfig(2, 2, 2), 8)
    check_equal(found, expected, preset)
    # Adam's first steps are sign-like: parameters are compared where gradients are not noise.
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(sharded), strict=True):
        np.testing.assert_allclose(a, b, atol=4e-3)


@pytest.mark.parametrize(
    ("name", "sequence"),
    [of_preset("flat", 2), of_preset("flat", 4), of_preset("words", 4), of_preset("magnet", 2),
     of_preset("hnet-delta", 4), of_preset("mtp-modules", 2)],
)  # fmt: skip
def test_shared_rows_equal_unsharded(name, sequence):
    """Several devices have some positions of each row. A flat model, units by a rule and by what is
    learned, recurrent layers, further ids."""
    config = computed(shrink(presets()[name]), compute_dtype="float32")
    expected, params = losses(config, MeshConfig(), 1)
    found, shared = losses(config, MeshConfig(1, 2, sequence=sequence), 2 * sequence)
    np.testing.assert_allclose(found, expected, rtol=3e-6)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(shared), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_checkpoint_goes_from_mesh_to_mesh(tmp_path):
    """Rows of one device each, then shared by four, then by two."""
    config = shrink(Config())
    expected, _ = losses(config, MeshConfig(), 1)
    state, found = None, []
    for sequence in (1, 4, 2):
        mesh, devices = MeshConfig(1, 2, sequence=sequence), 2 * sequence
        fresh, abstract, advance = trainer(config, mesh, devices)
        checkpoints = Checkpoints(tmp_path, 1)
        if state is None:
            state = fresh()
        else:
            state = checkpoints.restore(abstract, {}, {"model": {}}, warn=pytest.fail)
        state, more = advance(state, 1)
        found += more
        checkpoints.save(state, {}, {"model": {}})
        checkpoints.close()
    np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_a_start_is_the_same_on_any_mesh():
    def start(mesh_config, devices):
        config = dataclasses.replace(shrink(Config()), mesh=mesh_config)
        it = Trainer.of(config, ByteTokenizer(), devices=jax.devices()[:devices])
        with jax.set_mesh(it.mesh):
            return jax.tree.leaves(jax.device_get(it.fresh(3)))

    for a, b in zip(start(MeshConfig(), 1), start(MeshConfig(2, 2, 2), 8), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [
        (MeshConfig(), {}),
        (MeshConfig(1, 4, 2), {}),
        (MeshConfig(2, 2, 2), {}),
        (MeshConfig(1, 1, 1), {"remat": "dots"}),
        (MeshConfig(1, 1, 1), {"remat": "inner"}),
        (MeshConfig(1, 1, 1), {"remat": "qkv"}),
        (MeshConfig(1, 1, 1), {"remat": "none"}),
        (MeshConfig(1, 1, 1), {"scan_layers": False}),
    ],
    ids=str,
)
def test_any_mesh_and_any_order_of_work(mesh, changes):
    flat = shrink(Config())
    devices = 1 if changes else 8
    found, _ = losses(computed(flat, **changes), mesh, devices)
    check_equal(found, losses(flat, MeshConfig(), 1)[0], flat)


def test_every_file_of_presets_can_be_used():
    assert presets() and not BROKEN
