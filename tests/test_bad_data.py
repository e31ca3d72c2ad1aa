"""Data that cannot be used: which file, what is wrong, what to do; never a traceback."""

import re
import shutil

import numpy as np
import pytest

from helpers import run, words
from octavo import cli
from octavo import prepare as prepare_script
from octavo.configs.checks import ConfigError
from octavo.configs.schema import DataConfig
from octavo.data.errors import DataError
from octavo.data.pipeline import BatchSource, make_plan
from octavo.data.records import Skipped
from octavo.data.shards import Corpus, verify
from octavo.data.sources import documents, find_units


def read_all(name, **settings):
    return [d for unit in find_units([str(name)], "text", None) for d in documents(unit)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b"PNG\x00\x01", "a.txt is not text: byte 3 is NUL"),
        ("a.txt", b"caf\xe9!", "a.txt is not UTF-8 text: byte 3 is 0xe9"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", b'{"text": "ok"}\nnot json\n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', "line 1: no text in field 'text'; .*--text-field .*body"),
        ("a.jsonl", b"[1]\n", "line 1: no text in field"),
        ("a.jsonl", b'{"text": 3}\n', "line 1: no text in field"),
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz"),
    ],
)
def test_named_files(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_all(tmp_path / name)
    done = run("prepare.py", str(tmp_path / name), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and name in done.stderr


def test_in_a_folder_they_are_skipped_and_said(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_bytes(words(0, 100))
    (folder / "photo.png").write_bytes(b"\x89PNG\x00")
    (folder / "empty.txt").write_bytes(b"")
    found = read_all(folder)
    assert [d for d in found if not isinstance(d, Skipped)] == [words(0, 100)]
    done = run("prepare.py", str(folder), "--out", str(tmp_path / "out"), "--heldout", "0")
    assert done.returncode == 0, done.stderr
    assert "skipped: " in done.stdout
    assert "photo.png is not text" in done.stdout and "empty.txt is empty" in done.stdout


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_units([str(tmp_path / "nowhere")], "text", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        find_units([str(tmp_path / "empty")], "text", None)
    with pytest.raises(DataError, match="is not a prepared corpus: make one with"):
        Corpus(tmp_path / "empty")
    for source in (tmp_path / "nowhere", f"{tmp_path}/a:0,{tmp_path}/b"):
        done = run("train.py", "--data.source", str(source), "--workdir", str(tmp_path / "run"))
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()


@pytest.fixture
def copied(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "corpus")


def train_shard(folder):
    return folder / "train-00000.array_record"


def test_missing_shard(copied):
    train_shard(copied).unlink()
    with pytest.raises(DataError, match="train-00000.array_record is missing"):
        Corpus(copied)


def test_truncated_shard(copied):
    data = train_shard(copied).read_bytes()
    train_shard(copied).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="bytes, but the manifest says"):
        Corpus(copied)


def test_flipped_byte(copied, tmp_path):
    """Found by checksum at any place, and in training wherever it matters."""
    whole, text = train_shard(copied).read_bytes(), Corpus(copied).tokens
    for where in (0.02, 0.3, 0.6, 0.9):
        data = bytearray(whole)
        data[int(where * text)] ^= 0x40
        train_shard(copied).write_bytes(data)
        with pytest.raises(DataError, match="has checksum .* but the manifest says"):
            verify(copied)
        with pytest.raises(DataError, match="train-00000.array_record is damaged"):
            config = DataConfig(source=str(copied), length=64)
            BatchSource(make_plan(config, 0), np.arange(16), 1)[0]
    done = run("train.py", "--data.source", str(copied), "--workdir", str(tmp_path / "run"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "train-00000.array_record is damaged" in done.stderr


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": ', '{"format": 99}'])
def test_damaged_manifest(copied, content):
    (copied / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="damaged|has format 99"):
        Corpus(copied)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokenizer", "bpe:7"], "at least 257"),
        (["--tokenizer", "bpe:99999999999999999999"], "at least 257 and at most 16,777,216"),
        (["--tokenizer", "bpe:"], "takes a size of at least 257"),
        (["--tokenizer", "bpe:-5"], "takes a size of at least 257"),
        (["--tokenizer", "bpe:1e9"], "takes a size of at least 257"),
        (["--tokenizer", "bpe:²"], "takes a size of at least 257"),
        (["--tokenizer", "unigram:99999999"], "at most 16,777,216"),
        (
            ["--tokenizer", "nope"],
            "neither blocks:N, boundlessbpe:SIZE, bpe:SIZE, .* words, words:unicode, nor",
        ),
        (["--tokenizer", "words:nope"], "words are split by hat or unicode, not 'nope'"),
        (["--tokenizer", "bytes:"], "bytes takes no argument, found ''"),
        (["--tokenizer", "FOLDER"], "nor a tokenizer file: it is a folder; name a file in it"),
        (["--tokenizer", "load"], "nor a tokenizer file: there is no such file"),
        (["--tokenizer", "/dev/zero"], "nor a tokenizer file: there is no such file"),
        (
            ["--marks", "nope"],
            "--marks nope is neither a run directory .* nor bpe:SIZE or another scheme of .*, n",
        ),
        (["--marks", "words"], "--marks words is neither a run directory"),
        (["--marks", ""], "neither a run directory"),
        (["--marks", "unigram:9"], "takes a size of at least 257"),
        (["--heldout", "1"], r"--heldout lies in \[0, 1\)"),
        (["--heldout", "nan"], "--heldout must be a finite number, not nan"),
        (["--unit-bytes", "1"], "--unit-bytes must be above 1"),
        (["--unit-bytes", "inf"], "--unit-bytes must be a finite number, not inf"),
        (["--unit-bytes", "3"], "--unit-bytes is for --marks RUN alone"),
        (["--training-bytes", "-1"], "--training-bytes must be above 0"),
        (["--training-bytes", "9" * 18], "at most 2.50"),
        (["--processes", "0"], "--processes must be above 0"),
        (["--processes", "9" * 9], "--processes is at most 1024"),
        (["--out", "FILE"], "is no folder"),
        (["--out", "nowhere://bucket/corpus"], "is no storage that is known here"),
        (["--out", "FOLDER"], "is a source too"),
        (["--beam", "runner=DirectRunner", "--out", "gs://b/c"], "machines share, not URLs: mount"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_wrong_use_of_prepare(tmp_path, arguments, said):
    """Exit code 2 (that of ConfigError) and one sentence, before anything is made."""
    (tmp_path / "a.txt").write_bytes(words(0, 100))
    places = {"FILE": str(tmp_path / "a.txt"), "FOLDER": str(tmp_path)}
    arguments = [places.get(x, x) for x in arguments]
    given = [places["FILE"], places["FOLDER"], "--out", str(tmp_path / "out"), *arguments]
    with pytest.raises(ConfigError, match=said):
        prepare_script.prepare(cli.parse(prepare_script.Arguments, "prepare.py", "", given))
    assert not (tmp_path / "out").exists()


def test_prepare_without_a_source(tmp_path):
    done = run("prepare.py", "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "name at least one SOURCE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kept_tokenizer(tmp_path):
    """One that an earlier command left in the folder is used only if it is the one asked for."""
    (tmp_path / "a.txt").write_bytes(words(0, 4000))
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").write_text("[" * 100_000)

    def prepare(name):
        given = [str(tmp_path / "a.txt"), "--out", str(out), "--tokenizer", name]
        prepare_script.prepare(cli.parse(prepare_script.Arguments, "prepare.py", "", given))

    with pytest.raises(ConfigError, match="tokenizer.json is not a tokenizer file: .*Delete it"):
        prepare("bpe:280")
    (out / "tokenizer.json").unlink()
    prepare("bpe:280")
    before = (out / "tokenizer.json").read_bytes()
    prepare("bpe:280")
    with pytest.raises(ConfigError, match="holds a corpus of bpe of 280 ids, not of bpe:270"):
        prepare("bpe:270")
    assert (out / "tokenizer.json").read_bytes() == before


def test_full_disk(tmp_path, small_disk):
    """One sentence that names the file; with room, the same command ends in the same corpus."""
    for i in range(8):
        (tmp_path / f"{i}.txt").write_bytes(words(i, 150_000))
    sources = [str(path) for path in sorted(tmp_path.glob("*.txt"))]
    given = [*sources, "--processes", "1", "--heldout", "0"]
    (small_disk / "ballast").write_bytes(bytes(3_500_000))
    done = run("prepare.py", *given, "--out", str(small_disk / "out"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = re.search(r"error: .*train-0000(\d).array_record: No space left on device", done.stderr)
    assert said, done.stderr
    assert len(list((small_disk / "out").glob("*array_record*"))) == int(said[1])
    (small_disk / "ballast").unlink()
    for out in (small_disk / "out", tmp_path / "out"):
        done = run("prepare.py", *given, "--out", str(out))
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "out").iterdir():
        assert (small_disk / "out" / path.name).read_bytes() == path.read_bytes()
