"""Held-out text: a piece of every file and label, copies on one side; and the labels themselves."""

import json
import shutil

import numpy as np
import pytest

from helpers import run, words
from octavo.configs import presets
from octavo.configs.model import ModelConfig
from octavo.configs.schema import DataConfig
from octavo.data import prepare as preparing
from octavo.data import sources
from octavo.data.errors import DataError
from octavo.data.heldout import heldout_documents
from octavo.data.labels import labels_of
from octavo.data.manifest import read_manifest, tokenizer_of
from octavo.data.pipeline import batches, folders_of, make_plan, parse_source
from octavo.data.prepare import Splitting, prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.data.split import Rule, Sketch, cut_end, rule_of
from octavo.run.marks import check_prepared
from octavo.run.size import vocabulary_of
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.words import WordTokenizer

LANGUAGES = ("de", "el", "en")


def make(out, *names, heldout=0.01, processes=1, tokenizer=None, **more):
    units = find_units([str(name) for name in names], "text", None, **more)
    prepare(units, out, tokenizer or ByteTokenizer(), heldout=heldout, processes=processes)
    return Corpus(out), Corpus(out, "heldout")


def paragraphs(seed, count, size=300):
    return b"\n\n".join(words(100 * seed + i, size) for i in range(count))


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Three files of one or a few documents: 60, 120 and 180 kB."""
    folder = tmp_path_factory.mktemp("files") / "texts"
    folder.mkdir()
    for i, name in enumerate(LANGUAGES, 1):
        text = paragraphs(i, 200 * i) + (" ελληνικά".encode() if name == "el" else b"")
        (folder / f"{name}.txt").write_bytes(text)
    return folder


@pytest.fixture(scope="session")
def labelled(files, tmp_path_factory):
    """Prepared from them."""
    out = tmp_path_factory.mktemp("labelled") / "corpus"
    make(out, files)
    return out


def test_every_file_gives_its_share(files, labelled):
    train, heldout = Corpus(labelled).by_label(), Corpus(labelled, "heldout").by_label()
    assert set(train) == set(heldout) == set(LANGUAGES)
    for name in LANGUAGES:
        size = (files / f"{name}.txt").stat().st_size
        assert train[name][1] + heldout[name][1] == size
        assert 0.008 * size < heldout[name][1] < 0.04 * size
    for document in Corpus(labelled, "heldout").documents_in(0):
        assert document in (files / f"{document.label}.txt").read_bytes()


def test_a_file_of_one_document(tmp_path):
    for size, held in ((50_000, 500), (2000, 500), (1100, 275)):
        text = words(size, size)
        (tmp_path / "a.txt").write_bytes(text)
        train, heldout = make(tmp_path / f"{size}", tmp_path / "a.txt")
        (beginning,), (end,) = train.documents_in(0), heldout.documents_in(0)
        assert beginning + end == text and held / 2 < len(end) < 2 * held


def test_too_little_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(words(0, 400))
    done = run("prepare.py", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "too small to hold any of it out" in done.stderr
    assert "hold out nothing with --heldout 0" in done.stderr
    train, heldout = make(tmp_path / "out", tmp_path / "a.txt", heldout=0)
    assert (train.documents, heldout.documents) == (1, 0)


def test_many_small_files_are_one_stratum(tmp_path):
    """None is cut, and not each gives a document."""
    for i in range(300):
        (tmp_path / "in" / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{i % 3}" / f"{i:04}.txt").write_bytes(words(i, 200 + i))
    train, heldout = make(tmp_path / "out", tmp_path / "in", heldout=0.05)
    sizes = {len(words(i, 200 + i)) for i in range(300)}
    assert {len(d) for c in (train, heldout) for d in c.documents_in(0)} == sizes
    assert 5 <= heldout.documents <= 40
    assert set(train.by_label()) == {"0", "1", "2"}


def test_copies_lie_on_one_side(files, tmp_path):
    """Of files, and of records that are rare in one file and common in another."""
    shutil.copytree(files, tmp_path / "in")
    shutil.copy(files / "en.txt", tmp_path / "in" / "zz.txt")
    records = [words(i, 700).decode() for i in range(300)]
    for name, part in (("a", records), ("b", records[:4]), ("c", records[2:9])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (tmp_path / "in" / f"{name}.jsonl").write_text(lines)
    train, heldout = make(tmp_path / "out", tmp_path / "in")
    held = set(heldout.documents_in(0))
    assert not held & set(train.documents_in(0))
    assert {*heldout.by_label()} == {*LANGUAGES, "zz", "a", "b", "c"}
    assert heldout.by_label()["zz"] == heldout.by_label()["en"]


def test_strata_of_any_shape():
    """Some of each is held out, about its share, and never all; of one document too."""
    rng, text = np.random.default_rng(0), words(0, 200_000)
    for _ in range(150):
        share = float(rng.choice([0.01, 0.1, 0.5, 0.9]))
        sizes = (10 ** rng.uniform(1, 5, rng.integers(1, 200))).astype(int)
        starts = rng.integers(0, 90_000, len(sizes))
        documents = [text[a : a + n + 8] for a, n in zip(starts, sizes, strict=True)]
        sketch = Sketch()
        for document in documents:
            sketch.add(document)
        rule = rule_of({"told x": sketch}, share)
        total = sum(map(len, documents))
        parts = [cut_end(d, rule.size(*_key(d))) for d in documents]
        assert [a + b for a, b in parts] == documents
        held = sum(len(b) for _, b in parts)
        if total < 512 and len(documents) == 1:  # nothing to divide
            assert not held
            continue
        assert 0 < held < total
        assert held > 0.4 * share * total
        assert len(documents) < 20 or held < max(2.5 * share * total, 4096) or share > 0.4


def test_chance_gives_a_small_stratum_enough():
    """What chance holds out of it may be a line."""
    others = {2**31 + i: (200, 1) for i in range(59)}
    sketch = Sketch(60, 80 + 59 * 200, {1: (80, 1), **others})
    rule = rule_of({"told x": sketch}, 0.01)
    assert 256 <= sum(rule.size(key, size) for key, (size, _) in sketch.lowest.items()) <= 1024


def test_copies_are_not_much_of_it():
    """One document of which there are many copies, here or in another stratum, is not half of all
    that is held out; nor is text of nothing else."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        many, rare = Sketch(), Sketch()
        text, others = rng.bytes(700), [rng.bytes(700) for _ in range(3)]
        whole = [text] * 2000 + others[: rng.integers(0, 4)]
        few = [text, *others[: rng.integers(0, 4)]]
        for sketch, documents in ((many, whole), (rare, few)):
            for document in documents:
                sketch.add(document)
        rule = rule_of({"told many": many, "told rare": rare}, 0.01)
        held = [sum(rule.size(*_key(d)) for d in documents) for documents in (whole, few)]
        assert 0 < held[0] < 0.1 * many.size and 0 < held[1] < rare.size


def _key(document):
    import google_crc32c

    return google_crc32c.value(document), len(document)


def test_where_a_document_is_cut():
    text = b"".join(b"line %d of it\n" % i for i in range(40))
    beginning, end = cut_end(text, 100)
    assert beginning.endswith(b"\n") and beginning + end == text and 50 < len(end) <= 150
    assert cut_end(b"one\n\ntwo three four", 12) == (b"one\n\n", b"two three four")
    beginning, end = cut_end("日本".encode() * 50, 100)
    assert beginning.decode() + end.decode() == "日本" * 50
    assert cut_end(text, 0) == (text, b"") and cut_end(text, 10_000) == (b"", text)


def test_units_are_looked_at_side_by_side_and_once(files, tmp_path, monkeypatch):
    """With any number of processes, and continued after a stop, the split is the same."""
    monkeypatch.setattr(sources, "UNIT_BYTES", 50_000)
    one = make(tmp_path / "one", files)[1].fingerprint
    assert make(tmp_path / "two", files, processes=2)[1].fingerprint == one
    looked, real = [], preparing.look_through

    def look(unit, strata):
        if len(looked) == 4:
            raise KeyboardInterrupt
        looked.append(unit)
        return real(unit, strata)

    monkeypatch.setattr(preparing, "look_through", look)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", files)
    looked.insert(0, None)  # one more: it stops in another place, and then not at all
    monkeypatch.setattr(preparing, "look_through", lambda *job: looked.append(0) or real(*job))
    assert make(tmp_path / "out", files)[1].fingerprint == one
    units = len(find_units([str(files)], "text", None))
    assert units > 5 and len(looked) == 1 + units
    assert not list((tmp_path / "out").glob("look-*"))


def test_a_corpus_of_an_earlier_revision(files, tmp_path):
    """Finished or begun, the same command knows it, and gives what that revision would have."""
    units = find_units([str(files)], "text", None)
    out = tmp_path / "out"
    old = Splitting(units, 0.5, out, by_chance=True)
    bare = [preparing.dataclasses.replace(unit, labels=()) for unit in units]
    old.units = bare
    prepare(bare, out, ByteTokenizer(), heldout=old, processes=1)
    written = (out / "manifest.json").read_text()
    source = json.loads(written)["source"]
    assert "labels" not in written and set(source) == {"units", "tokenizer", "heldout", "marks"}
    done = preparing.prepare(units, out, ByteTokenizer(), heldout=0.5, processes=1)
    assert done.remade == 0 and done.earlier
    (out / "heldout-00000.array_record").unlink()
    assert prepare(units, out, ByteTokenizer(), heldout=0.5, processes=1).remade == 1
    (out / "manifest.json").rename(out / "before")
    (out / "recipe.json").write_text(json.dumps(source))
    assert prepare(units, out, ByteTokenizer(), heldout=0.5, processes=1).earlier
    assert (out / "manifest.json").read_text() == written
    done = run("prepare.py", str(files), "--out", str(out), "--heldout", "0.5", "--label", "file")
    assert done.returncode == 2 and "its documents no labels. Choose another --out" in done.stderr
    held = heldout_documents([Corpus(out)], 100_000)
    assert {one.label for one in held} == {None}
    assert [one.text for one in held] == list(Corpus(out, "heldout").documents_in(0, len(held)))


def test_told_labels(tmp_path):
    rows = [{"text": words(i, 300).decode(), "meta": {"lang": "en"}} for i in range(400)]
    rows[7]["meta"]["lang"] = rows[90]["meta"]["lang"] = "rare"
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, heldout = make(tmp_path / "a", path, label_field="meta.lang")
    assert train.by_label()["rare"][0] == heldout.by_label()["rare"][0] == 1
    assert 1 <= heldout.by_label()["en"][0] <= 10
    # A corpus made from it has them too, whatever the tokenizer.
    again = make(tmp_path / "b", tmp_path / "a", tokenizer=WordTokenizer())
    assert [c.by_label() for c in again] == [train.by_label(), heldout.by_label()]
    del rows[20]["meta"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="line 21: no label in field 'meta.lang'.*--skip-bad"):
        make(tmp_path / "c", path, label_field="meta.lang")
    train, heldout = make(tmp_path / "c", path, label_field="meta.lang", skip_bad=True)
    assert train.documents + heldout.documents == 399
    rows = [{"text": "x", "url": i} for i in range(5000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for share in (0, 0.01):
        with pytest.raises(DataError, match="more than 4,096 labels"):
            make(tmp_path / f"{share}", path, label_field="url", heldout=share)


@pytest.mark.parametrize(
    ("by", "files", "expected"),
    [
        (None, "t/en.txt t/de.JSONL.gz", "en de"),
        (None, "t/en/wiki.txt t/de/wiki.txt t/de/web.txt", "en/wiki de/wiki de/web"),
        (None, "d/en/train/0.parquet d/de/train/0.parquet", "en de"),
        (None, "d/train-00000-of-00002.parquet d/train-00001-of-00002.parquet", "train train"),
        (None, " ".join(f"d/c4-{i:04}.json.gz d/books-{i:04}.json.gz" for i in range(40)),
         " ".join(["c4 books"] * 40)),
        (None, " ".join(f"d/{i:04}.txt" for i in range(100)), " ".join(["d"] * 100)),
        (None, " ".join(f"d/{i % 2}/{chr(97 + i)}{i}x" for i in range(100)),
         " ".join(["0 1"] * 50)),
        ("file", "t/en/wiki.txt t/de/wiki.txt", "wiki wiki"),
        ("folder", "t/en/a/1.txt t/en/b/2.txt t/de/3.txt t/4.txt", "en en de t"),
        ("folder", "t/1.txt", "t"),
        (None, "t/\udce9\n.txt", "none"),
        (None, "t/[el].txt t/a[b].txt", "(el) a(b)"),  # data.source could not name them
    ],
)  # fmt: skip
def test_names_as_labels(by, files, expected):
    files = files.split(" ")
    assert list(labels_of(files, by).values()) == expected.split()


def test_a_sample_of_it(labelled):
    """Of each label as much, with pieces of all in the smallest."""
    corpus = Corpus(labelled)
    whole = heldout_documents([corpus], 0)
    assert sum(len(one.text) for one in whole) == Corpus(labelled, "heldout").utf8_bytes
    assert {one.corpus for one in whole} == {"corpus"}
    texts = b"\n".join(one.text for one in whole)
    for most in (90, 600, 1500):
        found = heldout_documents([corpus], most)
        sizes = dict.fromkeys(LANGUAGES, 0)
        for one in found:
            assert one.text in texts and one.text.decode()
            sizes[one.label] += len(one.text)
        assert all(size > min(most, 600) / 8 for size in sizes.values())
        assert sum(sizes.values()) <= max(most, 3 * 64)
        assert found == heldout_documents([Corpus(labelled)], most)


def test_one_label_of_a_corpus(labelled, files, tmp_path):
    """It is as a corpus of its documents alone would be."""
    part = Corpus(f"{labelled}[el]")
    texts = [d for d in Corpus(labelled).documents_in(0) if d.label == "el"]
    assert list(part.documents_in(0)) == texts and list(part.documents_in(1, 2)) == texts[1:2]
    eos = bytes([part.tokenizer.eos_id])
    stream = np.frombuffer(b"".join(text + eos for text in texts), np.uint8)
    ends = part.document_ends()
    assert part.tokens == len(stream) == ends[-1] and part.utf8_bytes == sum(map(len, texts))
    for start, stop in ((0, len(stream)), (5, 9), (ends[0] - 3, ends[0] + 4), (ends[0], ends[1])):
        out = np.empty(stop - start, np.uint8)
        part.read(int(start), int(stop), out)
        assert (out == stream[start:stop]).all()
    assert {one.label for one in heldout_documents([part], 0)} == {"el"}
    with pytest.raises(DataError, match="has no label 'xx'; it has de, el, en"):
        Corpus(f"{labelled}[xx]")
    # Beside another label, in a mixture; and for a folder whose name looks so.
    source = f"{labelled}[el]:0.75,{labelled}[en]:0.25"
    assert [weight for _, weight in parse_source(source)] == [0.75, 0.25]
    check_prepared(ModelConfig(), source)  # as training begins
    plan = make_plan(DataConfig(source=source, length=32, batch_size=8), 0)
    batch = next(batches(plan, np.arange(8), first_step=0, steps=1, workers=0))
    assert batch["loss_weights"].sum() == 8 * 32
    shutil.copytree(labelled, tmp_path / "odd[el]")
    assert Corpus(tmp_path / "odd[el]").documents == Corpus(labelled).documents


def test_a_label_is_found_wherever_a_source_is_read(labelled):
    source = f"{labelled}[el]:0.75,{labelled}[en]:0.25"
    assert folders_of(source) == [labelled] * 2
    check_prepared(ModelConfig(), source)
    check_prepared(presets()["spacebyte"].model, source)
    with pytest.raises(DataError, match=f"{labelled} has no marks"):
        check_prepared(presets()["blt"].model, source)
    with pytest.raises(DataError, match=r"nowhere is not a prepared corpus.*--out nowhere"):
        check_prepared(ModelConfig(), "nowhere[el]")


def test_it_is_told(files, tmp_path):
    done = run("prepare.py", str(files), "--out", str(tmp_path / "out"), "--tokenizer", "bpe:300")
    assert done.returncode == 0, done.stderr
    labelled = vocabulary_of(f"{tmp_path / 'out'}[el]:0.5", ModelConfig())
    assert labelled == tokenizer_of(tmp_path / "out", read_manifest(tmp_path / "out")).vocabulary
    assert labelled.size == 300
    for name in LANGUAGES:
        documents, size = Corpus(tmp_path / "out", "heldout").by_label()[name]
        assert f"  {name:24} {documents:>8,} documents {size:>14,} bytes, " in done.stdout
    assert read_manifest(tmp_path / "out").source["split"] == 2


def test_by_chance_alone():
    assert Rule(0.5).size(2**31 - 1, 7) == 7 and Rule(0.5).size(2**31, 7) == 0
