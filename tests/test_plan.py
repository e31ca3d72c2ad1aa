"""What every row of every step holds: exact, isolated, and the same for any hosts and workers."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import words
from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import DataConfig
from octavo.data import pipeline, plan, sources
from octavo.data.errors import DataError
from octavo.data.index import Ends
from octavo.data.pipeline import BatchSource, batches, make_plan
from octavo.data.plan import BestFit, Concat, permutation
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.model.units.room import room_of
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import fingerprint_of

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


@pytest.fixture(params=["one window", "many windows", "lanes"])
def windows(request, monkeypatch):
    """Shuffle windows of the size in use, and so small that every border is crossed often; rows in
    lanes."""
    if request.param == "many windows":
        monkeypatch.setattr(plan, "CHUNK", 1000)
        return 3000 / 2**20
    if request.param == "lanes":
        monkeypatch.setattr(plan, "CHUNK", 200)
        return 1600 / 2**20
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
    """All rows of an epoch of one corpus, as one batch."""
    each, rows = a_plan.batch_size // a_plan.lanes, []
    for lane in range(a_plan.lanes):
        low, high = a_plan.orders[0]._edges(lane)
        turns = np.arange(high - low) + number * (high - low)
        rows.append(turns // each * a_plan.batch_size + lane * each + turns % each)
    return BatchSource(a_plan, np.concatenate(rows), 10)[0]


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
    corpus = Corpus(many_shards)
    ends, rows = corpus.document_ends(), BestFit(corpus.ends, LENGTH)
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
    chosen, _, draws = a_plan.draws(np.arange(8192))
    assert (np.bincount(chosen[:4096]) == [3072, 1024]).all()
    for c in (0, 1):  # every draw of each corpus, none twice
        assert sorted(draws[chosen == c]) == list(range((chosen == c).sum()))
    counts = np.bincount(chosen[:200])
    assert 120 < counts[0] < 180
    texts = {c: stream_of(f).tobytes() for c, f in enumerate([many_shards, corpus])}
    batch = BatchSource(a_plan, np.arange(64), 1)[0]
    for row, c in enumerate(chosen[:64]):
        assert batch["targets"][row].tobytes().rstrip(b"\0") in texts[c]


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A corpus of many windows, and the MiB of one of 16 chunks."""
    monkeypatch.setattr(sources, "UNIT_BYTES", 20_000)
    (tmp_path / "text").mkdir()
    for i in range(600):
        (tmp_path / "text" / f"{i:03}.txt").write_bytes(words(i, 500 + i % 7))
    units = find_units([str(tmp_path / "text")], "text", None)
    prepare(units, tmp_path / "large", ByteTokenizer(), heldout=0, processes=1)
    monkeypatch.setattr(plan, "CHUNK", 1000)
    return tmp_path / "large", 16_000 / 2**20


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_a_host_reads_its_share(large, packing, monkeypatch):
    """Of the text of an epoch, and of the shards; all of it in runs of version 2."""
    folder, window = large
    opened = []
    monkeypatch.setattr(Corpus, "_check", lambda self, shards: opened.append((self, *shards)))

    def of_host(host, **more):
        a_plan = planned(folder, window, packing=packing, **more)
        corpus, sizes = a_plan.corpora[0], []
        real = corpus.read
        corpus.read = lambda low, high, *out: sizes.append(high - low) or real(low, high, *out)
        opened.clear()
        source = BatchSource(a_plan, np.arange(2 * host, 2 * host + 2), 10**6)
        for step in range(a_plan.rows_per_epoch // 8):
            source[step]
        return sum(sizes) / corpus.tokens, len(set(opened)) / len(corpus.shards)

    assert planned(folder, window).lanes == 8
    for host in range(4):
        text, shards = of_host(host)
        assert 0.24 < text < 0.33 and 0.24 < shards < 0.45
    text, shards = of_host(0, version=2)
    assert text > 0.95 and shards == 1


def test_lanes_of_a_mixture(large, many_shards):
    """Each draws its shares; a corpus of one window is shared by all, and none of its rows is drawn
    twice."""
    folder, window = large
    a_plan = planned([folder, many_shards], window, weights=[3, 0.03])
    assert [order.lanes for order in a_plan.orders] == [8, 1]
    corpora, lanes, draws = a_plan.draws(np.arange(80_000))
    assert abs((corpora == 1).sum() - 800) < 16
    for lane in range(8):
        mine = (corpora == 0) & (np.arange(80_000) % 8 == lane)
        assert (lanes[mine] == lane).all() and (draws[mine] == np.arange(mine.sum())).all()
    shared = draws[corpora == 1]
    assert len(np.unique(shared)) == len(shared) and shared.max() < 1.2 * len(shared)
    # Of a small share not in all lanes at once.
    a_plan = planned([folder, many_shards], window, weights=[1, 1e-4])
    assert 0 < (a_plan.draws(np.arange(8 * 4096))[0] == 1).sum() < 7


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


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_rows_longer_than_65535(tmp_path, packing):
    """Places and documents beyond what 16 bits hold."""
    length = 140_000
    long = bytes(97 + i % 23 for i in range(length - 1)).decode()
    texts = {"one": f'{{"text": "{long}"}}\n', "many": '{"text": "a"}\n' * (length // 2)}
    for name, text in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
        units = find_units([str(tmp_path / f"{name}.jsonl")], "text", None)
        prepare(units, tmp_path / name, ByteTokenizer(), heldout=0, processes=1)
        source = str(tmp_path / name)
        config = DataConfig(source=source, length=length, batch_size=1, packing=packing)
        batch = BatchSource(make_plan(config, 0), np.arange(1), 1)[0]
        documents = 1 if name == "one" else length // 2
        expected = np.arange(length) % (length // documents)
        np.testing.assert_array_equal(batch["positions"][0], expected)
        np.testing.assert_array_equal(np.unique(batch["segment_ids"]), 1 + np.arange(documents))


def test_sources_with_weights(tmp_path):
    assert [(str(p), w) for p, w in pipeline.parse_source("a:0.7, b/c:3,d")] == [
        ("a", 0.7), ("b/c", 3.0), ("d", 1.0),
    ]  # fmt: skip


def test_concat_geometry():
    rows = Concat(Ends.of(np.array([5, 130])), 64).chunk(0)
    assert rows.first.tolist() == [0, 2, 3, 4]
    assert rows.start.tolist() == [0, 5, 64, 128] and rows.stop.tolist() == [5, 64, 128, 130]


def invented(number: int, documents: int, longest: int) -> SimpleNamespace:
    """A corpus of which only the ends of documents are known."""
    ends = Ends.of(np.cumsum(permutation(documents, number) % longest + 1))
    return SimpleNamespace(
        fingerprint=f"corpus {number}", ends=ends, kept=lambda name, make: make()
    )


def invented_plan(*corpora, seed=5, shuffle_window_ids=40_000, **more):
    """A plan of invented corpora, given as (number, documents, longest, weight)."""
    return plan.Plan(
        [(invented(*corpus), weight) for *corpus, weight in corpora], packing="concat",
        length=LENGTH, batch_size=8, shuffle_window_ids=shuffle_window_ids, seed=seed, **more,
    )  # fmt: skip


def digest(*arrays) -> str:
    return fingerprint_of(b"".join(array.astype("<i8").tobytes() for array in arrays))


def all_rows(strategy) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    chunks = [strategy.chunk(i) for i in range(strategy.chunks)]
    assert [len(rows.first) - 1 for rows in chunks] == strategy.sizes.tolist()
    return [(rows.first, rows.start, rows.stop) for rows in chunks]


ROOMY, NARROW = StageConfig(capacity=1.0), StageConfig(capacity=0.1, max_unit=64)
PAIRS = StageConfig(segmenter="stride", max_unit=2)
FEW = StageConfig(segmenter="routing", supervision="ratio", capacity=0.1, max_unit=64)


@pytest.mark.parametrize("stages", [None, (), (ROOMY,), (ROOMY, PAIRS)])
@pytest.mark.parametrize(
    ("strategy", "sizes", "golden"),
    [
        (Concat, (3000, 300, 64), "5956bb407d6f16bf"),
        (Concat, (500, 3000, 512), "6c64e40c39a12f65"),
        (BestFit, (3000, 300, 64), "106a9b08b08065b1"),
        (BestFit, (500, 3000, 512), "ee669262e7c2d743"),
    ],
)
def test_rows_that_have_room_stay(strategy, sizes, golden, stages, monkeypatch):
    """The rows that past runs used, whatever the model. A change here breaks every resume."""
    monkeypatch.setattr(plan, "CHUNK", 20_000)
    documents, longest, length = sizes
    ends = invented(7, documents, longest).ends
    room = None if stages is None else room_of(ModelConfig(stages=stages), length)
    rows = strategy(ends, length, room)
    assert not rows.split
    assert digest(*(array for chunk in all_rows(rows) for array in chunk)) == golden


@pytest.mark.parametrize("stages", [(NARROW,), (ROOMY, FEW), (PAIRS, FEW)])
@pytest.mark.parametrize("strategy", [Concat, BestFit])
def test_no_row_needs_more_units_than_it_has(strategy, stages, monkeypatch):
    monkeypatch.setattr(plan, "CHUNK", 20_000)
    room = room_of(ModelConfig(stages=stages), LENGTH)
    # Short documents for a while, then ones longer than a row.
    sizes = np.concatenate([permutation(5000, 1) % 12 + 1, permutation(500, 2) % 200 + 1])
    ends = Ends.of(np.cumsum(sizes))
    rows, plain = strategy(ends, LENGTH, room), strategy(ends, LENGTH)
    assert rows.split and not plain.split and rows.total > plain.total
    for (first, start, stop), (_, *pieces) in zip(all_rows(rows), all_rows(plain), strict=True):
        used = np.add.reduceat(room.price[:, stop - start], first[:-1], axis=1)
        full = (used > room.most[:, None]).any(0)
        assert (np.diff(first) > 0).all() and not full[np.diff(first) > 1].any()
        assert np.add.reduceat(stop - start, first[:-1]).max() <= LENGTH
        # The same pieces, whatever shares a row.
        assert sorted(zip(start, stop, strict=True)) == sorted(zip(*pieces, strict=True))


def test_concat_splits_only_rows_without_room():
    """Greedily, in order; rows before and after stay as they are."""
    room = room_of(ModelConfig(stages=(NARROW,)), LENGTH)
    assert room.most[0] == 23 and room.price[0, [2, 32, 36]].tolist() == [2, 6, 6]
    ends = Ends.of(np.concatenate([[64, 100], 100 + 2 * np.arange(1, 30), [190, 256]]))
    rows = Concat(ends, LENGTH, room)
    packed = rows.chunk(0)
    # 36 positions and eight times two; six times two. Eleven times two; four times, and the rest.
    assert packed.start[packed.first[:-1]].tolist() == [0, 64, 116, 128, 150, 192]
    assert rows.total == 6 and Concat(ends, LENGTH).total == 4


def test_every_id_is_predicted_once_in_split_rows(many_shards, windows):
    room = room_of(ModelConfig(stages=(NARROW,)), LENGTH)
    for packing in ("concat", "best_fit"):
        whole, split = (
            planned(many_shards, windows, packing=packing, room=r) for r in (None, room)
        )
        assert split.rows_per_epoch > whole.rows_per_epoch
        found = [
            sorted((tokens.tobytes(), targets.tobytes()) for tokens, targets in pieces(epoch(p)))
            for p in (whole, split)
        ]
        assert found[0] == found[1]


def test_models_share_a_plan_where_rows_have_room(many_shards):
    """The room is part of the plan only where it changed a row."""
    rooms = [None, *(room_of(ModelConfig(stages=s), LENGTH) for s in ((), (ROOMY,), (NARROW,)))]
    plans = [planned(many_shards, 1, room=room) for room in rooms]
    assert [p.description["room"] is None for p in plans] == [True, True, True, False]
    assert len({p.fingerprint for p in plans}) == 2
    assert plans[0].description["version"] == plan.Plan.VERSION
    # Version 1 knew none.
    first = [planned(many_shards, 1, room=room, version=1) for room in rooms]
    assert len({p.fingerprint for p in first}) == 1 and "room" not in first[0].description
    assert first[0].rows_per_epoch == plans[0].rows_per_epoch


def drawn(a_plan) -> str:
    corpora, lanes, draws = a_plan.draws(np.arange(20_000))
    assert not lanes.any()
    return digest(corpora, draws)


def shuffled(a_plan) -> str:
    window = a_plan.orders[0].window(0, 1, 0)
    return digest(window.chunks, window.slot, window.row)


THREE = (0, 300, 200, 3), (1, 100, 300, 1), (2, 50, 100, 0.01)


def test_plans_of_version_1_stay():
    """What past runs were given. A change here breaks every resume."""
    mixed = invented_plan(*THREE, version=1)
    assert mixed.fingerprint == "35d4bae7008b3768"
    assert drawn(mixed) == "2386217c9173c830"
    assert list(mixed.description) == [
        "corpora", "weights", "packing", "length", "batch_size", "shuffle_window_ids", "seed",
        "version",
    ]  # fmt: skip
    # One corpus is the same in every version, but for the description.
    old, new = (invented_plan(THREE[0], version=version) for version in (1, 2))
    for a, b in zip(old.draws(np.arange(10_000)), new.draws(np.arange(10_000)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert shuffled(old) == shuffled(new)
    assert old.fingerprint != new.fingerprint


def test_plans_of_version_2_stay():
    mixed = invented_plan(*THREE, version=2)
    assert mixed.fingerprint == "686bf724ffc230ca"
    assert drawn(mixed) == "39feac5f7e4ffd55"


def test_plans_of_version_3_stay(monkeypatch):
    assert drawn(invented_plan(*THREE)) == "39feac5f7e4ffd55"  # small corpora: as in version 2
    monkeypatch.setattr(plan, "CHUNK", 200)
    mixed = invented_plan(
        (0, 3000, 200, 3), (1, 150, 300, 1), (2, 50, 100, 0.01), shuffle_window_ids=1600
    )
    assert [order.lanes for order in mixed.orders] == [8, 2, 1]
    assert digest(*mixed.draws(np.arange(20_000))) == "0e847d188cd831cc"
    of_lanes = (array for lane in range(8) for array in lane_window(mixed, lane))
    assert digest(*of_lanes) == "0432c76966565d59"


def lane_window(a_plan, lane):
    window = a_plan.orders[0].window(lane, 1, 1)
    return window.chunks, window.skipped, window.sizes, window.slot, window.row


def test_a_version_of_a_later_revision_is_refused():
    with pytest.raises(DataError, match="version 4 of the plan"):
        invented_plan(THREE[0], version=4)


@pytest.mark.parametrize(
    "weights", [(1e-4, 1), (1, 1e-7), (3, 1e-4, 1), (0.7, 0.2, 0.1), (1e-9, 1e9, 1), (1,) * 9]
)
def test_shares_hold_over_the_run(weights):
    """After any number of rows, however small the share; every draw of a corpus comes in order."""
    mixture = plan.Mixture(list(weights), 0, fixed=False)
    total = 400_000
    chosen, draws = mixture.draws(np.arange(total))
    shares = np.array(weights) / sum(weights)
    for c, share in enumerate(shares):
        mine = chosen == c
        np.testing.assert_array_equal(draws[mine], np.arange(mine.sum()))
        off = np.abs(np.cumsum(mine) - share * np.arange(1, total + 1))
        assert off.max() < 4
    # Far on: each period goes on where the one before it stopped.
    for period in (10**4, 10**6, 10**9):
        rows = np.arange(period * 4096 - 4096, period * 4096 + 4096)
        chosen, draws = mixture.draws(rows)
        for c, share in enumerate(shares):
            mine = draws[chosen == c]
            assert (np.diff(mine) == 1).all()
            assert len(mine) == 0 or abs(mine[0] - share * rows[0]) < 3 + share * 4096 + 1e-6


def test_shares_are_the_same_for_any_hosts():
    """A pure function of the row: in any order, any part, and from any process."""
    mixed = invented_plan((0, 300, 200, 1e-3), (1, 100, 300, 1), (2, 50, 100, 0.3))
    rows = np.arange(100_000)
    whole = mixed.mixtures[0].draws(rows)
    assert len(np.unique(whole[0])) == 3
    copied = pickle.loads(pickle.dumps(mixed.mixtures[0]))
    for hosts in (2, 3, 8):
        for host in range(hosts):
            mine = rows[host::hosts][::-1]
            for found, expected in zip(copied.draws(mine), whole, strict=True):
                np.testing.assert_array_equal(found, expected[mine])
    assert not np.array_equal(whole[0], invented_plan(*THREE, seed=6).draws(rows)[0])
