"""What every row of every step holds: exact, isolated, and the same for any hosts and workers."""

import numpy as np
import pytest

from helpers import words
from octavo.configs.schema import DataConfig
from octavo.data import pipeline, plan, sources
from octavo.data.pipeline import BatchSource, batches, make_plan
from octavo.data.plan import BestFit, Concat, permutation
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.tokenizers.bytes import ByteTokenizer

BOS, EOS = ByteTokenizer.bos_id, ByteTokenizer.eos_id
LENGTH = 64


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    """Documents of very different lengths over several shards."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate((4 * rng.pareto(0.7, 200) + 1).astype(int).clip(1, 3000)):
        (folder / "text" / f"{i:03}.txt").write_bytes(words(i, max(size, 4)) or b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "UNIT_BYTES", 3000)
        units = find_units([str(folder / "text")], "text", None)
    assert len(units) > 5
    prepare(units, folder / "out", ByteTokenizer(), heldout=0, processes=1)
    return folder / "out"


@pytest.fixture(params=["one window", "many windows"])
def windows(request, monkeypatch):
    """Shuffle windows of the size in use, and so small that every border is crossed often."""
    if request.param == "many windows":
        monkeypatch.setattr(plan, "CHUNK", 1000)
        return 3000 / 2**20
    return 1


def planned(folder, window_mib, **changes):
    settings = {"length": LENGTH, "batch_size": 8, "seed": 0, "packing": "concat"} | changes
    corpora = [(Corpus(f), 1.0) for f in (folder if isinstance(folder, list) else [folder])]
    weights = settings.pop("weights", None)
    if weights:
        corpora = [(c, w) for (c, _), w in zip(corpora, weights, strict=True)]
    return plan.Plan(corpora, shuffle_window_ids=int(window_mib * 2**20), **settings)


def stream_of(folder) -> np.ndarray:
    corpus = Corpus(folder)
    out = np.empty(corpus.tokens, corpus.dtype)
    corpus.read(0, corpus.tokens, out)
    return out


def epoch(a_plan, number=0):
    """All rows of an epoch, as one batch."""
    a_plan.batch_size = a_plan.rows_per_epoch
    return BatchSource(a_plan, np.arange(a_plan.batch_size), 10)[number]


def pieces(batch):
    """(tokens, targets) of every segment of every row."""
    for row in range(len(batch["tokens"])):
        segments = batch["segment_ids"][row]
        for segment in range(1, int(segments.max()) + 1):
            at = np.flatnonzero(segments == segment)
            assert np.array_equal(at, np.arange(at[0], at[-1] + 1))
            assert batch["positions"][row, at].tolist() == list(range(len(at)))
            assert (batch["loss_weights"][row, at] == 1).all()
            yield batch["tokens"][row, at], batch["targets"][row, at]
        assert not batch["loss_weights"][row, segments == 0].any()


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_every_id_is_predicted_once(many_shards, windows, packing):
    """An epoch's pieces, put in order again, are the stream; none crosses a document; the input of
    every target is the id before it."""
    a_plan = planned(many_shards, windows, packing=packing)
    stream = stream_of(many_shards).tobytes()
    documents = [d + bytes([EOS]) for d in stream.split(bytes([EOS]))[:-1]]
    remaining = sorted(documents)
    found = []
    for tokens, targets in pieces(epoch(a_plan)):
        assert EOS not in targets[:-1] and EOS not in tokens
        assert np.array_equal(tokens[1:], targets[:-1])
        found.append((tokens[0] == BOS, targets.tobytes(), int(tokens[0])))
    assert sum(len(t) for _, t, _ in found) == len(stream)
    assert sum(opens for opens, _, _ in found) == len(documents)
    # Greedily rebuild: every document is one opening piece and continuations that fit.
    whole = [t for opens, t, _ in found if opens and t.endswith(bytes([EOS]))]
    for text in whole:
        remaining.remove(text)
    parts = [(o, t) for o, t, _ in found if not (o and t.endswith(bytes([EOS])))]
    assert sorted(b"".join(remaining)) == sorted(b"".join(t for _, t in parts))
    for opens, text in parts:
        assert any(d.startswith(text) if opens else text in d for d in remaining)


def test_concat_is_the_stream_cut(many_shards):
    a_plan = planned(many_shards, 1)
    order = np.argsort(permutation(a_plan.rows_per_epoch, 0, 0, 0, 0))
    targets = epoch(a_plan)["targets"][order].ravel()
    stream = stream_of(many_shards)
    assert np.array_equal(targets[: len(stream)], stream) and not targets[len(stream) :].any()


def test_best_fit_cuts_only_what_must_be(many_shards):
    ends = Corpus(many_shards).document_ends()
    rows = BestFit(ends, LENGTH)
    lengths = np.diff(np.append(0, ends))
    cut = sum(-(-n // LENGTH) for n in lengths)
    packed = rows.chunk(0)
    assert rows.chunks == 1 and len(packed.start) == cut
    sizes = packed.stop - packed.start
    per_row = [sizes[a:b].sum() for a, b in zip(packed.first, packed.first[1:], strict=False)]
    assert max(per_row) <= LENGTH
    # The same as the definition, by brute force.
    room: list[int] = []
    for size in sorted((n % LENGTH or LENGTH for n in lengths), reverse=True):
        fits = [i for i, r in enumerate(room) if r >= size]
        best = min(fits, key=lambda i: room[i]) if fits else len(room)
        if best == len(room):
            room.append(LENGTH)
        room[best] -= size
    full = sum((n - 1) // LENGTH for n in lengths)
    assert sorted([LENGTH - r for r in room] + [LENGTH] * full) == sorted(per_row)


def test_epochs_and_seeds_shuffle_differently(many_shards, windows):
    a_plan, other = planned(many_shards, windows), planned(many_shards, windows, seed=1)
    first, second, reseeded = epoch(a_plan), epoch(a_plan, 1), epoch(other)
    rows = [sorted(map(bytes, e["targets"])) for e in (first, second, reseeded)]
    assert rows[0] == rows[1] == rows[2]
    assert not np.array_equal(first["targets"], second["targets"])
    assert not np.array_equal(first["targets"], reseeded["targets"])
    assert np.array_equal(first["targets"], epoch(planned(many_shards, windows))["targets"])


def test_permutation_stays():
    """The order that past runs used. A change here breaks every resume."""
    assert permutation(8, 0).tolist() == GOLDEN[0]
    assert permutation(8, 1, 2, 3).tolist() == GOLDEN[1]
    assert sorted(permutation(1000, 5)) == list(range(1000))


GOLDEN = ([5, 7, 2, 0, 3, 1, 6, 4], [7, 6, 1, 3, 2, 0, 4, 5])


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_same_batch_for_any_hosts(many_shards, windows, packing):
    whole = BatchSource(planned(many_shards, windows, packing=packing), np.arange(8), 100)
    for hosts in (2, 4):
        for step in (0, 1, 7, 30):
            expected = whole[step]
            for host in range(hosts):
                rows = np.arange(8)[host::hosts]
                a_plan = planned(many_shards, windows, packing=packing)
                mine = BatchSource(a_plan, rows, 100)[step]
                for name, values in mine.items():
                    np.testing.assert_array_equal(values, expected[name][rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_same_stream_for_any_workers_and_start(many_shards, workers):
    a_plan, rows = planned(many_shards, 1), np.arange(8)
    source = BatchSource(a_plan, rows, 12)
    for first_step in (0, 5):
        stream = batches(a_plan, rows, first_step=first_step, steps=12, workers=workers)
        found = list(stream)
        assert len(found) == 12 - first_step
        for step, batch in enumerate(found, first_step):
            for name, values in batch.items():
                np.testing.assert_array_equal(values, source[step][name])


def test_mixture_keeps_its_weights(many_shards, corpus):
    a_plan = planned([many_shards, corpus], 1, weights=[3, 1], batch_size=64)
    chosen, draws = a_plan.draws(np.arange(8192))
    assert (np.bincount(chosen[:4096]) == [3072, 1024]).all()
    for c in (0, 1):  # every draw of each corpus, none twice
        assert sorted(draws[chosen == c]) == list(range((chosen == c).sum()))
    counts = np.bincount(chosen[:200])
    assert 120 < counts[0] < 180
    texts = {c: stream_of(f).tobytes() for c, f in enumerate([many_shards, corpus])}
    batch = BatchSource(a_plan, np.arange(64), 1)[0]
    for row, c in enumerate(chosen[:64]):
        assert batch["targets"][row].tobytes().rstrip(b"\0") in texts[c]


def test_any_change_of_the_plan_is_seen(many_shards, corpus):
    base = planned(many_shards, 1)
    changes = [
        {"length": 32}, {"batch_size": 4}, {"seed": 1}, {"packing": "best_fit"},
    ]  # fmt: skip
    others = [planned(many_shards, 1, **change) for change in changes]
    others += [planned(many_shards, 2), planned(corpus, 1), planned([many_shards, corpus], 1)]
    assert len({p.fingerprint for p in [base, *others]}) == len(others) + 1
    assert planned(many_shards, 1).fingerprint == base.fingerprint


def test_narrow_types_on_the_host(corpus):
    batch = BatchSource(make_plan(DataConfig(source=corpus, length=64), 0), np.arange(3), 1)[0]
    assert {name: values.dtype.name for name, values in batch.items()} == {
        "tokens": "uint8",
        "targets": "uint8",
        "segment_ids": "uint16",
        "positions": "uint16",
        "loss_weights": "uint8",
        "marks": "uint8",
    }


def test_sources_with_weights(tmp_path):
    assert [(str(p), w) for p, w in pipeline.parse_source("a:0.7, b/c:3,d")] == [
        ("a", 0.7), ("b/c", 3.0), ("d", 1.0),
    ]  # fmt: skip


def test_concat_geometry():
    rows = Concat(np.array([5, 130]), 64).chunk(0)
    assert rows.first.tolist() == [0, 2, 3, 4]
    assert rows.start.tolist() == [0, 5, 64, 128] and rows.stop.tolist() == [5, 64, 128, 130]
