"""Data that cannot be used: which file, what is wrong, what to do; never a traceback."""

import shutil

import numpy as np
import pytest

from helpers import run, words
from octavo.configs.schema import DataConfig
from octavo.data.errors import DataError
from octavo.data.pipeline import BatchSource, make_plan
from octavo.data.shards import Corpus, verify
from octavo.data.sources import Skipped, documents, find_units


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


def test_wrong_use_of_prepare(tmp_path):
    (tmp_path / "a.txt").write_bytes(words(0, 100))
    for arguments, said in (
        ([str(tmp_path / "a.txt"), "--tokenizer", "bpe:7"], "at least 257"),
        (
            [str(tmp_path / "a.txt"), "--tokenizer", "nope"],
            "neither bytes, words, words:unicode, bpe:SIZE",
        ),
        ([str(tmp_path / "a.txt"), "--heldout", "1"], "--heldout lies in [0, 1)"),
        ([str(tmp_path / "a.txt"), "--processes", "0"], "--processes must be above 0"),
        ([], "name at least one SOURCE"),
    ):
        done = run("prepare.py", *arguments, "--out", str(tmp_path / "out"))
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
