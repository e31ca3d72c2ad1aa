"""From sources to shards: nothing lost, nothing doubled, continued where it stopped."""

import dataclasses
import gzip
import json
import os
import subprocess
import sys

import pytest

from helpers import random_text, run, words
from octavo.configs.checks import ConfigError
from octavo.data import copies, sources
from octavo.data import prepare as preparing
from octavo.data.beam import on_beam
from octavo.data.errors import DataError
from octavo.data.manifest import read_manifest
from octavo.data.prepare import Part, prepare
from octavo.data.shards import Corpus, verify
from octavo.data.sources import documents, find_units
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer


def prepared(out, *names, heldout=0.0, processes=1, tokenizer=None, text_field="text"):
    units = find_units([str(name) for name in names], text_field, None)
    prepare(units, out, tokenizer or ByteTokenizer(), heldout=heldout, processes=processes)
    return read_manifest(out)


def texts_of(out):
    return {split: list(Corpus(out, split).documents_in(0)) for split in ("train", "heldout")}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i in range(40):
        name = f"deep/{i}.txt" if i % 2 else f"{i}.md"
        (tmp_path / "in" / name).write_bytes(words(i, 100 + i))
    (tmp_path / "in" / ".hidden").write_bytes(b"\xff not text")
    return tmp_path / "in"


def test_folder(folder, tmp_path):
    manifest = prepared(tmp_path / "out", folder, heldout=0.3)
    found = texts_of(tmp_path / "out")
    assert sorted(found["train"] + found["heldout"]) == sorted(words(i, 100 + i) for i in range(40))
    assert 3 < len(found["heldout"]) < 25
    for split, texts in found.items():
        listed = manifest.splits[split]
        assert listed.documents == len(texts)
        assert listed.utf8_bytes == sum(map(len, texts))
        assert listed.tokens == sum(map(len, texts)) + len(texts)
    assert verify(tmp_path / "out") == 2


def test_split_is_by_content(folder, tmp_path):
    """A copy of a document lies on the same side, whatever else is prepared with it."""
    (folder / "copy.txt").write_bytes(words(7, 107))
    prepared(tmp_path / "a", folder, heldout=0.5)
    prepared(tmp_path / "b", folder / "deep", heldout=0.5)
    a, b = texts_of(tmp_path / "a"), texts_of(tmp_path / "b")
    assert all(b[split] and set(b[split]) <= set(a[split]) for split in b)
    assert sorted(texts.count(words(7, 107)) for texts in a.values()) == [0, 2]


def test_jsonl(tmp_path):
    texts = ["one", 'two "quoted"\nlines', "日本", "", "three\x03"]
    lines = "".join(json.dumps({"id": i, "body": t}) + "\n" for i, t in enumerate(texts))
    (tmp_path / "a.jsonl").write_text(lines + "\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(lines)
    expected = [t.encode() for t in texts if t]
    for name in ("a.jsonl", "b.jsonl.gz"):
        prepared(tmp_path / name[0], tmp_path / name, text_field="body")
        assert texts_of(tmp_path / name[0])["train"] == expected


def test_tfds_without_tensorflow(tmp_path):
    """A small dataset, built here, and read by name of its folder."""
    code = f"""
import sys
import tensorflow_datasets as tfds

class Words(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({{"text": tfds.features.Text()}}))
    def _split_generators(self, manager):
        return {{"train": self._generate_examples(25), "test": self._generate_examples(5)}}
    def _generate_examples(self, count):
        for i in range(count):
            yield i, {{"text": f"document {{i}} ü"}}

builder = Words(data_dir={str(tmp_path / "tfds")!r}, file_format="array_record")
builder.download_and_prepare()
assert "tensorflow" not in sys.modules
print(builder.data_path)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    where = made.stdout.splitlines()[-1]
    done = run("prepare.py", f"tfds:{where}", "--out", str(tmp_path / "out"), "--heldout", "0")
    assert done.returncode == 0, done.stderr
    assert sorted(texts_of(tmp_path / "out")["train"]) == sorted(
        f"document {i} ü".encode() for i in range(25)
    )
    done = run("prepare.py", f"tfds:{where}:test", "--out", str(tmp_path / "test"),
               "--heldout", "0")  # fmt: skip
    assert Corpus(tmp_path / "test").documents == 5
    for name, said in (
        (f"tfds:{where}:nope", "no split 'nope'; it has"),
        ("tfds:no_such_dataset", "TFDS cannot open 'no_such_dataset'"),
    ):
        done = run("prepare.py", name, "--out", str(tmp_path / "bad"))
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    done = run("prepare.py", f"tfds:{where}", "--out", str(tmp_path / "b"), "--text-field", "x")
    said = "no feature 'x'; name one with --text-field: text"
    assert done.returncode == 2 and said in done.stderr


def test_another_tokenizer_on_the_same_split(folder, tmp_path):
    """The command line trains a BPE on our own shards; documents stay on their side."""
    done = run("prepare.py", str(folder), "--out", str(tmp_path / "a"), "--heldout", "0.3")
    assert done.returncode == 0, done.stderr
    done = run("prepare.py", str(tmp_path / "a"), "--out", str(tmp_path / "b"),
               "--tokenizer", "bpe:300")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert isinstance(Corpus(tmp_path / "b").tokenizer, BPETokenizer)
    assert texts_of(tmp_path / "a") == texts_of(tmp_path / "b")
    assert Corpus(tmp_path / "b").tokens < Corpus(tmp_path / "a").tokens / 2
    # A tokenizer file of another corpus serves too.
    done = run("prepare.py", str(tmp_path / "a"), "--out", str(tmp_path / "c"),
               "--tokenizer", str(tmp_path / "b" / "tokenizer.json"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Corpus(tmp_path / "c").fingerprint == Corpus(tmp_path / "b").fingerprint


def test_long_files_become_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DOCUMENT_BYTES", 100)
    kinds = {
        "blank": b"\n\n".join(words(i, 60) for i in range(9)),
        "lines": b"\n".join(words(i, 60) for i in range(9)),
        "none": "日本語".encode() * 90,
    }
    for name, text in kinds.items():
        (tmp_path / name).write_bytes(text)
        found = list(documents(find_units([str(tmp_path / name)], "text", None)[0]))
        assert b"".join(found) == text and max(map(len, found)) <= 100
        for document in found:
            document.decode()
            if name != "none" and document is not found[-1]:
                assert document.endswith(b"\n\n" if name == "blank" else b"\n")


@pytest.mark.parametrize("unit_bytes", [1, 7, 50, 333, 10_000])
def test_ranges_of_big_files_lose_nothing(tmp_path, monkeypatch, unit_bytes):
    monkeypatch.setattr(sources, "UNIT_BYTES", unit_bytes)
    text = random_text(0, 600) + b"\n\nlast line"
    (tmp_path / "a.txt").write_bytes(text)
    units = find_units([str(tmp_path / "a.txt")], "text", None)
    assert len(units) == (-(-len(text) // unit_bytes) if len(text) > unit_bytes else 1)
    assert b"".join(d for unit in units for d in documents(unit)) == text
    lines = [f"line {i} é" for i in range(60)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
    units = find_units([str(tmp_path / "b.jsonl")], "text", None)
    assert [d.decode() for unit in units for d in documents(unit)] == lines


@pytest.fixture
def many_units(folder, monkeypatch):
    monkeypatch.setattr(sources, "UNIT_BYTES", 600)
    return folder


def checksums(manifest):
    return {name: [shard.crc32c for shard in x.shards] for name, x in manifest.splits.items()}


def test_any_number_of_processes(many_units, tmp_path):
    one = prepared(tmp_path / "one", many_units, heldout=0.2)
    two = prepared(tmp_path / "two", many_units, heldout=0.2, processes=2)
    assert len(one.splits["train"].shards) > 5
    assert checksums(one) == checksums(two)


def test_interrupted_continues(many_units, tmp_path, monkeypatch):
    """Stopped in the middle: what is finished stays, and the result is that of one go."""
    whole = prepared(tmp_path / "whole", many_units, heldout=0.2)
    done, real = [], preparing._prepare_unit

    def failing(job):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(job[1])
        return real(job)

    monkeypatch.setattr(preparing, "_prepare_unit", failing)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepared(out, many_units, heldout=0.2)
    for owner in ("", f".{2**31 - 1}"):  # of a process that is gone
        (out / f"train-00005.array_record{owner}.partial").write_bytes(b"half")
    with pytest.raises(DataError, match="was not finished: run the same prepare.py command again"):
        Corpus(out)
    with pytest.raises(DataError, match="begun from other sources, options or file versions"):
        prepared(out, many_units, heldout=0.1)
    times = {p: p.stat().st_mtime_ns for p in out.glob("train-0000[0-3].array_record")}
    monkeypatch.setattr(preparing, "_prepare_unit", real)
    assert checksums(prepared(out, many_units, heldout=0.2)) == checksums(whole)
    assert times and all(p.stat().st_mtime_ns == t for p, t in times.items())
    assert not list(out.glob("unit-*")) and not list(out.glob("*.partial"))
    with pytest.raises(DataError, match="holds a finished corpus already, made from other sources"):
        prepared(out, many_units, heldout=0.1)
    assert checksums(prepared(out, many_units, heldout=0.2)) == checksums(whole)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_are_the_corpus_of_one_process(many_units, tmp_path):
    """By machines side by side, killed and continued; what is not there is named."""
    for i in range(5):
        (many_units / f"copy{i}.txt").write_bytes(words(7, 107))
    prepared(tmp_path / "whole", many_units, heldout=0.2)
    out, units = tmp_path / "out", find_units([str(many_units)], "text", None)

    def make(number):
        half = out / f"train-00000.array_record.{2**31 - 1}.partial"
        half.write_bytes(b"of part 1, on another machine")
        finished = (out / "manifest.json").exists()
        done = prepare(units, out, ByteTokenizer(), heldout=0.2, processes=1, part=Part(number, 3))
        assert half.exists() == (number != 1 and (finished or bool(done.waiting)))
        half.unlink(missing_ok=True)
        return done

    out.mkdir()
    of_part = [len(range(number, len(units), 3)) for number in range(3)]
    assert make(2).waiting == {1: of_part[0], 3: of_part[2]}
    assert make(3).waiting == {1: of_part[0]}
    shard = out / "train-00001.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(DataError, match="was not finished"):
        Corpus(out)
    assert make(1).waiting == {2: 1}
    done = make(2)
    assert not done.waiting and done.copies == 5
    assert content(out) == content(tmp_path / "whole")
    # Of a finished one, too, each looks after its own.
    shard.unlink()
    assert make(1).remade == 0 and make(2).remade == 1
    assert shard.read_bytes() == whole
    for name in ("0/3", "4/3", "1", "a/b"):
        done = run("prepare.py", str(many_units), "--out", str(out), "--part", name)
        assert done.returncode == 2 and "--part is I/N" in done.stderr


def test_beam_prepares_the_same(many_units, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    prepared(whole, many_units, heldout=0.2)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "apache_beam", None)
        with pytest.raises(ConfigError, match="needs Apache Beam: pip install"):
            on_beam(["runner=DirectRunner"], tmp_path)
    pytest.importorskip("apache_beam")
    out = tmp_path / "out"
    run = on_beam(["runner=DirectRunner"], out)
    units = find_units([str(many_units)], "text", None)
    prepare(units, out, ByteTokenizer(), heldout=0.2, processes=1, run=run)
    assert content(out) == content(whole)
    # What its text lacks is said as ever.
    last = max(path for path in many_units.rglob("*") if path.is_file())
    last.write_bytes(b"no text: \xff")
    units = [dataclasses.replace(unit, optional=False) for unit in units]
    with pytest.raises(DataError, match=f"{last.name} .*UTF-8"):
        run = on_beam(["runner=DirectRunner"], tmp_path / "other")
        prepare(units, tmp_path / "other", ByteTokenizer(), heldout=0.2, processes=1, run=run)
    for options in (["runner=Nonsense"], ["nonsense=3"]):
        with pytest.raises(ConfigError, match="--beam .*onsense"):
            on_beam(options, out)


def test_copies_are_counted_in_parts_of_memory(tmp_path, monkeypatch):
    documents = [words(i % 70, 50 + i % 70) for i in range(100)]
    for i in range(4):
        (tmp_path / f"{i}").write_bytes(copies.in_order(map(copies.hash_of, documents[i::4])))
    (tmp_path / "4").write_bytes(b"")
    for size in (1, 7, 1000):
        monkeypatch.setattr(copies, "_AT_ONCE", size)
        assert copies.count(tmp_path / f"{i}" for i in range(5)) == 30


def test_a_file_that_changes_while_it_is_read(many_units, tmp_path, monkeypatch):
    """The corpus would not be what its recipe says, and a part made anew another one."""
    real = preparing._prepare_unit
    last = max(path for path in many_units.rglob("*") if path.is_file())

    def growing(job):
        with open(last, "ab") as file:
            file.write(b"more")
        return real(job)

    monkeypatch.setattr(preparing, "_prepare_unit", growing)
    with pytest.raises(DataError, match=f"{last.name} changed while it was read. Delete "):
        prepared(tmp_path / "out", many_units)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_stdlib_is_text():
    found = [d for d in documents(find_units(["stdlib"], "text", None)[0])]
    assert 1_000_000 < sum(map(len, found)) < 10_000_000
    assert all(d.decode() for d in found[:50])


def test_names_that_are_no_utf8(tmp_path):
    """They are said, escaped; text is read from them, but no corpus is written to one."""
    text = os.fsencode(tmp_path) + b"/\xe9.txt"
    out = str(tmp_path / "out")
    done = run("prepare.py", os.fsdecode(text), "--out", out)
    assert done.returncode == 2 and "\\udce9.txt does not exist" in done.stderr
    with open(text, "w", encoding="utf-8") as file:
        file.write("some text")
    done = run("prepare.py", os.fsdecode(text), "--out", out + "\udce9")
    assert done.returncode == 2 and "is no UTF-8; name another folder" in done.stderr
    done = run("prepare.py", os.fsdecode(text), "--out", out, "--heldout", "0")
    assert done.returncode == 0, done.stderr
    assert texts_of(tmp_path / "out")["train"] == [b"some text"]


def test_a_link_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    done = run("prepare.py", str(tmp_path / "loop"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "loop is a link to nothing" in done.stderr
