"""What a file is, is decided by looking into it; what is left out is said."""

import bz2
import gzip
import json
import lzma
import os
import socket
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import run, words
from octavo.data import formats, records, sources
from octavo.data.errors import DataError
from octavo.data.folders import Survey
from octavo.data.records import Skipped
from octavo.data.sources import documents, find_units

LINES = b'{"text": "one"}\n\n{"text": "two \\u00e9"}\r\n'
ONE_TWO = [b"one", "two é".encode()]


def read(name, survey=None, field="text"):
    units = find_units([str(name)], field, None, survey)
    return [document for unit in units for document in documents(unit)]


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(data)
    return sink.getvalue().to_pybytes()


def same(data):
    return data


@pytest.mark.parametrize("pack", [same, gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize(
    "name", ["a.json", "a.ndjson", "a.JSONL", "a.Jsonl.GZ", "a.json.gz", "a.txt", "a.zst", "a"]
)
def test_json_lines_by_any_name(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(LINES))
    survey = Survey()
    assert read(tmp_path / name, survey) == ONE_TWO
    # Said, where the name says something else.
    assert bool(survey.notes) == ("json" not in name.lower())
    assert survey.read == {"JSON lines": 1}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_text(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(sources, "DOCUMENT_BYTES", 100)
    monkeypatch.setattr(sources, "_CHUNK", 64)
    text = b"\n\n".join(words(i, 80) for i in range(40))
    (tmp_path / "plain").write_bytes(text)
    (tmp_path / "packed").write_bytes(pack(text))
    assert read(tmp_path / "packed") == read(tmp_path / "plain")
    packed = pack(text)
    more = [] if pack in (bz2.compress, lzma.compress) else [packed + b"more" * 4]
    for damaged in (packed[:-9], packed[:20] + b"????" + packed[24:], *more):
        (tmp_path / "packed").write_bytes(damaged)
        with pytest.raises(DataError, match="packed is no readable (gzip|bz2|xz|zstd) file"):
            read(tmp_path / "packed")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"text": "one"},\n {"text": "two \\u00e9"}]\n', ONE_TWO),
        (b'\xef\xbb\xbf[{"text": "one"}]', [b"one"]),
        (b'{\n "text": "one",\n "more": {"a": [1]}\n}', [b"one"]),
        (b"[ ]", []),
        (b'[{"text": "x"},', "not JSON"),
        (b'[{"text": "x"} {"text": "y"}]', "not JSON"),
        (b'[{"text": "x"}] more', "not JSON"),
        (b"[1, 2]", "record 1: no text in field 'text'"),
        (b'[{"text": "a", "text": "b"}]', "'text' comes twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'[{"text": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1}', "no text in field 'text'"),
        (b"hello", "has the name of JSON, and holds none"),
    ],
)
def test_json_of_other_shapes(tmp_path, content, expected, monkeypatch):
    (tmp_path / "a.json").write_bytes(content)
    if isinstance(expected, list):
        assert read(tmp_path / "a.json") == expected
    else:
        with pytest.raises(DataError, match=expected):
            read(tmp_path / "a.json")


def test_a_long_array_is_read_in_parts(tmp_path, monkeypatch):
    texts = [words(i, 30_000).decode() for i in range(150)]
    (tmp_path / "a.json").write_text(json.dumps([{"text": t, "n": [1]} for t in texts], indent=1))
    assert [d.decode() for d in read(tmp_path / "a.json")] == texts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf" + LINES, ONE_TWO),
        (LINES.replace(b"\r\n", b"\n").replace(b"\n", b"\r"), ONE_TWO),
        (b'{"text": "x", "score": NaN}\n', [b"x"]),
        (b'{"text": "\\ud83d\\ude00 \\u0000"}\n', ["😀 \0".encode()]),
        (b'{"text": "x", "text": "y"}\n', "line 1: not JSON .the field 'text' comes twice"),
        (b'{"text": "a\\xb"}\n', "line 1: not JSON .Invalid"),
        (LINES + b"[" * 100_000, "line 4: not JSON that can be read .nested too deeply"),
        (LINES + b'{"text": "\xff"}', "line 4: not JSON .*0xff"),
        (LINES + b'{"text": ' + b"9" * 5000 + b"}", "line 4: not JSON"),
        (b'{"text": null}\n', "line 1: no text in field 'text'"),
        (LINES.decode().encode("utf-16"), "is UTF-16 text; convert it"),
    ],
)
def test_lines(tmp_path, content, expected):
    (tmp_path / "a.jsonl").write_bytes(content)
    if isinstance(expected, list):
        assert read(tmp_path / "a.jsonl") == expected
    else:
        with pytest.raises(DataError, match=expected):
            read(tmp_path / "a.jsonl")


def test_half_a_surrogate_pair_is_left_out_and_said(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "a\\ud800b"}\n')
    found = read(tmp_path / "a.jsonl")
    assert found[0] == b"ok" and isinstance(found[1], Skipped)
    done = run("prepare.py", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "o"),
               "--heldout", "0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a.jsonl, line 2 holds half of a surrogate pair" in done.stdout
    assert "left out 1: 1 half of a surrogate pair" in done.stdout


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_record_longer_than_memory(tmp_path, name, monkeypatch):
    """A bomb of a few bytes ends in a sentence, before it is unpacked."""
    monkeypatch.setattr(records, "MOST_BYTES", 1 << 21)
    content = b'{"text": "' + b"a" * (1 << 24) + b'"}'
    content = content if name == "a.jsonl" else b"[" + content + b"]"
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="holds more than 2 MiB"):
        read(tmp_path / name)


def test_text_that_looks_a_bit_like_json(tmp_path):
    for text in (b'{"a": 1} is a set.\nMore.', b"[see below]\n", b"{curly}\n{curly}\n", b'["a"]'):
        (tmp_path / "a.txt").write_bytes(text)
        assert read(tmp_path / "a.txt") == [text]


TABLE = pa.table({"text": ["one", None, "three"], "id": [1, 2, 3]})


def test_parquet(tmp_path, monkeypatch):
    pq.write_table(TABLE, tmp_path / "a.bin")
    found = read(tmp_path / "a.bin")
    assert [d for d in found if not isinstance(d, Skipped)] == [b"one", b"three"]
    assert found[1].reason.endswith("a.bin, row 2 of row group 0 holds no text.")
    texts = [words(i, 200).decode() for i in range(90)]
    table = pa.table({"id": range(90), "body": pa.array(texts).dictionary_encode()})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=20)
    monkeypatch.setattr(sources, "UNIT_BYTES", 40_000)
    units = find_units([str(tmp_path / "b.parquet")], "body", None)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 2), (2, 4), (4, 5)]
    assert [d.decode() for unit in units for d in documents(unit)] == texts
    pq.write_table(pa.table({"text": [b"a", b"\xff"]}), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet")[1].reason.endswith("is not UTF-8 text.")
    for field in ("nope", "id"):
        with pytest.raises(DataError, match=f"no column '{field}' of text.*columns here: text, id"):
            read(tmp_path / "a.bin", field=field)
    data = (tmp_path / "a.bin").read_bytes()
    for damaged in (data[:-20], data[:40] + b"\xff" * 20 + data[60:]):
        (tmp_path / "d.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match="d.parquet is no readable Parquet file"):
            read(tmp_path / "d.parquet")


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_data_set_folder(tmp_path):
    """As Hugging Face has them: the records are read, what tells about them is not, and all that
    is left out is counted."""
    folder = tmp_path / "set"
    write(folder, {
        "README.md": b"# about", "dataset_info.json": b'{\n "name": "x"\n}',
        "state.json": b'{"a": 1}',
        ".gitattributes": b"x", "image.png": b"\x89PNG\r\n\x1a\n0", "paper.pdf": b"%PDF-1.4 \xff",
        "empty.txt": b"", "LICENSE": b"free", "log.txt": b'{"m": "x"}\n{"m": "y"}\n',
    })  # fmt: skip
    (folder / "data").mkdir()
    pq.write_table(TABLE, folder / "data" / "train-00000-of-00001.parquet")
    done = run("prepare.py", str(folder), "--out", str(tmp_path / "o"), "--heldout", "0")
    assert done.returncode == 0, done.stderr
    assert "2 documents                8 bytes" in done.stdout
    for said in (
        "read     1 Parquet files",
        "left out 10: 3 JSON without text, 1 a PDF, 1 a PNG image, 1 a row without text, "
        "2 about the data, 1 empty, 1 hidden",
        "README.md lies beside records of text", "image.png is a PNG image",
        "state.json is JSON without text in field 'text' (see --text-field)",
    ):  # fmt: skip
        assert said in done.stdout, done.stdout
    # Without records, a README is a text as any other.
    write(tmp_path / "plain", {"README.md": b"# about", "a.txt": b"text"})
    assert read(tmp_path / "plain") == [b"# about", b"text"]


def test_fields_within_fields(tmp_path):
    """meta.text, in every format; a field of just that name goes first."""
    rows = [{"meta": {"text": t, "n": {"lang": "xx"}}} for t in ("one", "two")]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    write(tmp_path, {"a.jsonl.gz": gzip.compress(lines), "a.json": json.dumps(rows).encode()})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    for name in ("a.parquet", "a.jsonl.gz", "a.json", "a.arrow"):
        path = str(tmp_path / name)
        (unit,) = find_units([path], "meta.text", None, label_field="meta.n.lang")
        found = list(documents(unit))
        assert found == [b"one", b"two"] and [d.label for d in found] == ["xx", "xx"]
        with pytest.raises(DataError, match="'meta.no'.*here: meta.text, meta.n"):
            read(path, field="meta.no")
    write(tmp_path, {"b.jsonl": b'{"meta.text": "a", "meta": {"text": "b"}}\n'})
    assert read(tmp_path / "b.jsonl", field="meta.text") == [b"a"]


@pytest.mark.parametrize("kind", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow(tmp_path, kind):
    """As datasets.save_to_disk leaves it: streams, and what tells about them."""
    texts = [words(i, 50).decode() for i in range(700)]
    table = pa.table({"id": range(700), "text": texts})
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    about = {"state.json": b'{\n "_split": null\n}', "dataset_info.json": b'{\n "text": {}\n}'}
    write(tmp_path, about)
    survey = Survey()
    assert [d.decode() for d in read(tmp_path, survey)] == texts
    assert survey.read == {"Arrow": 1} and survey.counted() == {"JSON without text": 2}
    with pytest.raises(DataError, match="no column 'id' of text.*columns here: id, text"):
        read(path, field="id")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="is no readable Arrow file"):
        read(path)


def test_splits_that_others_score_on(tmp_path):
    """Where train lies beside them, they are left out and said; named, they are read."""
    write(tmp_path / "c4" / "en", {
        f"c4-{name}.00000-of-00001.json.gz": gzip.compress(b'{"text": "' + name.encode() + b'"}\n')
        for name in ("train", "validation")
    })  # fmt: skip
    write(tmp_path / "fw", {
        f"{lang}/{name}/0.jsonl": b'{"text": "' + name.encode() + b'"}\n'
        for lang in ("en", "de") for name in ("train", "test")
    })  # fmt: skip
    write(tmp_path / "alone", {"test.txt": b"test", "training.txt": b"other"})
    survey = Survey()
    assert read(tmp_path / "c4", survey) == [b"train"]
    assert read(tmp_path / "fw", survey) == [b"train", b"train"]
    assert survey.counted() == {"another split": 3}
    assert "is of the split validation, and train lies beside it" in survey.left_out[0][0]
    assert read(tmp_path / "fw" / "en" / "test") == [b"test"]
    assert read(tmp_path / "alone") == [b"test", b"other"]


def test_bad_records_are_left_out_if_told(tmp_path):
    """Else the first one stops, with its file and line, and what to do."""
    bad = b'{"text": "cut\n{"body": 1}\n{"text": null}\n' + b"[" * 9000 + b"\n"
    write(tmp_path / "in", {
        "a.jsonl": LINES + bad + b'{"text": "last"}\n',
        "b.json": b'[{"text": "b"}, {"x": 1}, {"text": "c"}]',
        "c.jsonl.gz": gzip.compress(b'{"text": "d"}\n' * 9000)[:-30],
    })  # fmt: skip
    command = ["prepare.py", str(tmp_path / "in"), "--out", str(tmp_path / "o"), "--heldout", "0"]
    done = run(*command, "--processes", "1")
    assert done.returncode == 2
    assert "a.jsonl, line 4: not JSON" in done.stderr and "--skip-bad leaves out" in done.stderr
    done = run(*command, "--skip-bad", "--processes", "1")
    assert done.returncode == 0, done.stderr
    for said in (
        "skipped: " + str(tmp_path / "in" / "a.jsonl") + ", line 5: no text in field 'text'",
        "b.json, record 2: no text in field 'text'", "c.jsonl.gz is no readable gzip file",
        "left out 6: 1 a damaged file, 3 a record without text, 2 not JSON",
    ):  # fmt: skip
        assert said in done.stdout, done.stdout


def test_a_damaged_file_is_left_out_if_told(tmp_path):
    """A small one is met as a large one is: it stops, or what comes before the damage is read."""
    table = pa.table({"body": ["x"]})
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(table, tmp_path / name)
    (tmp_path / "a.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-9])
    packed = gzip.compress(b'{"text": "one"}\n' * 9)
    write(tmp_path, {"c.jsonl.gz": packed + packed[:-9], "d.jsonl": b'{"text": "two"}'})
    survey = Survey()
    units = find_units([str(tmp_path)], "text", None, survey, skip_bad=True)
    found = [document for unit in units for document in documents(unit)]
    assert {bytes(d) for d in found if d} == {b"one", b"two"} and len(found) >= 11
    assert [d.kind for d in found if isinstance(d, Skipped)] == ["a damaged file"]
    assert survey.counted() == {"a file without records": 2}
    for name, said in (
        ("a.parquet", "Parquet"),
        ("b.parquet", "no column"),
        ("c.jsonl.gz", "gzip"),
    ):
        with pytest.raises(DataError, match=f"{name}.*{said}"):
            read(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"\x50\x2a\x4d\x18\4\0\0\0abcd" + zstd(LINES),  # as pzstd begins
        bz2.compress(b"") + bz2.compress(LINES),
        zstd(LINES[:20]) + zstd(LINES[20:]),
        gzip.compress(b"") + gzip.compress(LINES),
    ],
)
def test_of_several_parts(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert read(tmp_path / "a") == ONE_TWO


def test_a_record_a_file(tmp_path):
    write(tmp_path / "in", {"a.json": b'{"text": "a"}', "b.json": b'{\n"text": "b"\n}\n'})
    assert read(tmp_path / "in") == [b"a", b"b"]
    # JSON lines that need another --text-field are no metadata.
    write(tmp_path / "in", {"c.jsonl": b'{"body": "x"}\n{"body": "y"}\n'})
    with pytest.raises(DataError, match="c.jsonl, line 1: no text in field 'text'.*body"):
        read(tmp_path / "in")


def test_below_a_hidden_folder(tmp_path):
    write(tmp_path / ".cache" / "texts", {"a.txt": b"text", ".b": b"hidden", ".git/c": b"hidden"})
    survey = Survey()
    assert read(tmp_path / ".cache" / "texts", survey) == [b"text"]
    assert survey.counted() == {"hidden": 2}


def test_links_are_followed_once(tmp_path):
    write(tmp_path, {"in/a.txt": b"a", "in/z/d.txt": b"d", "other/b.txt": b"b", "c.txt": b"c"})
    folder = tmp_path / "in"
    for name, target in {
        "linked": "../other", "again": "../other", "loop": ".", "inner": "z",
        "nothing": "nowhere", "c.txt": "../c.txt", "same.txt": "a.txt", "self": "self",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    survey = Survey()
    found = read(folder, survey)
    assert sorted(found) == [b"a", b"b", b"c", b"d"]
    assert survey.counted() == {"a link, read once": 4, "a link to nothing": 2}
    assert read(folder) == found


def test_what_is_no_file(tmp_path):
    """Said, and never waited for."""
    folder = tmp_path / "in"
    write(folder, {"a.txt": b"a"})
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        survey = Survey()
        assert read(folder, survey) == [b"a"]
        assert survey.counted() == {"a named pipe": 1, "a socket": 1}
    for name, said in {
        folder / "pipe": "pipe is a named pipe, not a file",
        "/dev/zero": "is a device, not a file",
        folder / "a\0b": "does not exist",
        folder / ("x" * 5000): "does not exist",
        folder / "a.txt" / "b": "does not exist",
    }.items():
        with pytest.raises(DataError, match=said):
            read(name)
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match="link is a link to nothing"):
        read(folder / "link")


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    """It is no reason to train on less."""
    write(tmp_path / "in", {"a.txt": b"a", "deep/b.txt": b"b"})

    def refused(path, *more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(formats, "open", refused, raising=False)
    with pytest.raises(PermissionError, match="a.txt"):
        read(tmp_path / "in")
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="in"):
        read(tmp_path / "in")


def test_a_corpus_in_a_folder(tmp_path, corpus):
    """Neither its manifest nor its shards are text; nor is one that is being made there."""
    write(
        tmp_path / "in", {"a.txt": b"a", "app/manifest.json": b'{"name": "x"}', "app/b.txt": b"b"}
    )
    os.symlink(corpus, tmp_path / "in" / "corpus")
    write(tmp_path / "in" / "half", {"recipe.json": b'{"tokenizer": "x"}', "tokenizer.json": b"{}"})
    survey = Survey()
    assert read(tmp_path / "in", survey) == [b"a", b"b"]
    assert survey.counted() == {"a corpus": 2, "JSON without text": 1}
    assert any("name it as a source of its own" in sentence for sentence, _ in survey.left_out)


def test_a_folder_without_text(tmp_path):
    write(tmp_path / "in", {"a.png": b"\x89PNG\r\n\x1a\n", "b.txt": b""})
    with pytest.raises(
        DataError, match="in holds no text. Left out: .*a PNG image.*b.txt is empty"
    ):
        read(tmp_path / "in")


def parquet(texts):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts, "n": range(len(texts))}), sink, row_group_size=9)
    return sink.getvalue().to_pybytes()


TEXTS = [f"text {i} ü" for i in range(30)]
WHOLE = {
    "jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode(),
    "json": json.dumps([{"text": text} for text in TEXTS]).encode(),
    "parquet": parquet(TEXTS),
}
WHOLE |= {
    "gz": gzip.compress(WHOLE["jsonl"]), "zst": zstd(WHOLE["jsonl"]),
    "xz": lzma.compress(WHOLE["json"]), "bz2": bz2.compress(WHOLE["jsonl"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutilated_files(kind, data):
    """Whatever bytes are changed, left out or put in: documents, or one sentence that names it."""
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    content = content[: data.draw(st.integers(1, 2 * len(content)))] or b"x"
    name = data.draw(st.sampled_from(["a.txt", "a.json", "a.jsonl", "a.parquet"]))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(content)
        try:
            read(Path(folder, name))
        except DataError as error:
            assert name in str(error) and len(str(error)) < 1000
