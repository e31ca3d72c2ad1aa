"""A shard is known by its content and a manifest by its own; a rerun makes what is not whole."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import words
from octavo import files
from octavo.configs.schema import DataConfig
from octavo.data import checked, sources, stdlib
from octavo.data import prepare as preparing
from octavo.data import shards as module
from octavo.data.errors import DataError
from octavo.data.heldout import heldout_documents
from octavo.data.manifest import read_manifest
from octavo.data.pipeline import BatchSource, make_plan, parse_source
from octavo.data.prepare import prepare
from octavo.data.shards import Corpus
from octavo.data.sources import find_units
from octavo.tokenizers.bytes import ByteTokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder and a process that remember nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checked, "_known", {})
    return tmp_path / "cache" / "octavo" / "checked"


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "UNIT_BYTES", 600)
    (tmp_path / "in").mkdir()
    for i in range(20):
        (tmp_path / "in" / f"{i:02}.txt").write_bytes(words(i, 250))
    return tmp_path / "in"


def make(texts, out, heldout=0.3):
    units = find_units([str(texts)], "text", None)
    return prepare(units, out, ByteTokenizer(), heldout=heldout, processes=1)


@pytest.fixture
def many(texts, tmp_path):
    make(texts, tmp_path / "many")
    return tmp_path / "many"


def shards(folder):
    return sorted(Path(folder).glob("train-*.array_record"))


def plan_of(folder):
    return make_plan(DataConfig(source=str(folder), length=32, batch_size=4), 0)


def read(folder):
    """All text of a plan."""
    plan = plan_of(folder)
    corpus = plan.corpora[0]
    corpus.read(0, corpus.tokens, np.empty(corpus.tokens, np.uint8))
    return plan


def swap(a, b):
    kept = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(kept)


def test_a_corpus_of_many_shards_keeps_few_open(many, monkeypatch):
    monkeypatch.setattr(module, "READERS", 2)
    plan = read(many)  # which stays
    files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    held = [file for file in files if file.startswith(os.path.realpath(many)) and "train-" in file]
    assert len(shards(plan.corpora[0].folder)) > 4 and len(held) <= 2


@pytest.mark.parametrize("how", ["swapped", "copied", "renamed", "times kept"])
def test_shards_in_the_place_of_others(many, how):
    """They have the same size and are whole, but other ids."""
    a, b = shards(many)[:2]
    before = a.stat()
    if how == "swapped":
        swap(a, b)
    elif how == "renamed":
        a.rename(many / "kept"), b.rename(a), (many / "kept").rename(b)
    else:
        shutil.copy2(b, a)
        os.utime(a, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = f"{a.name} is damaged, or another file: it has checksum .* same prepare.py command"
    with pytest.raises(DataError, match=said):
        read(many)
    with pytest.raises(DataError, match=said):
        list(Corpus(many).documents_in(0))
    with pytest.raises(DataError, match=said):
        Corpus(many).read(0, 9, np.empty(9, np.uint8))


def test_a_shard_that_changes_while_it_is_read(many):
    source = BatchSource(plan_of(many), np.arange(4), 9)
    source[0]
    corpus = source.plan.corpora[0]
    swap(*shards(many)[:2])
    with pytest.raises(DataError, match="another file"):
        corpus.read(0, 9, np.empty(9, np.uint8))


def test_held_out_text_is_checked_too(many):
    file = sorted(many.glob("heldout-*"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"{file.name} is damaged"):
        heldout_documents([Corpus(many)], 0)


@pytest.fixture
def counted(monkeypatch):
    """How often a shard was read for its checksum."""
    read, real = [], checked.checksum
    monkeypatch.setattr(checked, "checksum", lambda path: read.append(path.name) or real(path))
    return read


def test_a_shard_is_read_once(many, cache, counted, monkeypatch):
    monkeypatch.setattr(checked, "RACE_NS", -(10**12))
    plan_of(many)
    assert not counted
    plan = read(many)
    assert len(counted) == len(shards(many))
    # In this process, in its workers, and in the next one.
    read(many)
    BatchSource(pickle.loads(pickle.dumps(plan)), np.arange(4), 9)[0]
    checked._known.clear()
    read(many)
    assert len(counted) == len(shards(many)) and len(list(cache.iterdir())) == 1
    # What is remembered is of that file only: another in its place is read.
    checked._known.clear()
    swap(*shards(many)[:2])
    with pytest.raises(DataError, match="another file"):
        read(many)
    # And what is remembered wrongly is no worse than nothing.
    checked._known.clear()
    swap(*shards(many)[:2])
    for content in ("[" * 100_000, '{"a": 1}\n[3]\n\xff\n{"train-0', ""):
        checked._known.clear()
        next(cache.iterdir()).write_text(content)
        read(many)


def test_an_index_of_documents(many, capsys, tmp_path, monkeypatch):
    """Beside the shards from the beginning; made where there is none, or another one; damage is
    noticed when that part is read; where the folder cannot be written it lies elsewhere."""
    file, ends = many / "train.documents", Corpus(many).document_ends()
    whole = file.read_bytes()
    assert np.array_equal(np.diff(np.append(0, ends)), np.frombuffer(whole, "<u4", len(ends), 80))

    def found(folder=many):
        return np.array_equal(Corpus(folder).document_ends(), ends)

    for content in (None, b"", whole[:-1], whole + b"x", b"x" * len(whole), *(
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (0, 40, 60, 70, 90)
    )):  # fmt: skip
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        assert found() and file.read_bytes() == whole
    assert "train.documents is damaged; it is made anew" in capsys.readouterr().err
    # That of another corpus, of the same sizes.
    other = tmp_path / "other"
    shutil.copytree(many, other)
    swap(*shards(other)[:2])
    with pytest.raises(DataError, match="another file"):
        read(other)
    # The same command makes it, too.
    file.write_bytes(whole[:-1] + b"x")
    make(tmp_path / "in", many)
    assert file.read_bytes() == whole
    # Where it cannot be written, and where there is no cache either.
    real = files.cache_folder
    for place in (real, lambda: Path("/dev/null/nowhere")):
        monkeypatch.setattr(files, "cache_folder", place)
        file.unlink(missing_ok=True)
        file.mkdir()  # in its way
        corpus = pickle.loads(pickle.dumps(Corpus(many)))
        assert np.array_equal(corpus.document_ends(), ends)
        copied = pickle.loads(pickle.dumps(corpus))
        assert copied._index.path == corpus._index.path and copied.ends.after(0) == ends[0]
        file.rmdir()


def test_what_takes_a_pass_is_kept(many, monkeypatch):
    """How rows of many documents are packed: once, unless that is damaged."""
    monkeypatch.setattr("octavo.data.shards._MANY", 1)
    config = DataConfig(source=str(many), length=32, batch_size=4, packing="best_fit")
    expected = make_plan(config, 0).orders[0].strategy.sizes
    (kept,) = many.glob("*.rows")
    whole = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("octavo.data.plan._count", None)  # not needed again
        assert np.array_equal(make_plan(config, 0).orders[0].strategy.sizes, expected)
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert np.array_equal(make_plan(config, 0).orders[0].strategy.sizes, expected)
    assert kept.read_bytes() == whole


def test_without_a_cache(many, counted, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    monkeypatch.setattr(checked, "RACE_NS", -(10**12))
    read(many)
    read(many)
    assert len(counted) == len(shards(many))


def test_what_just_changed_is_not_remembered(many, counted):
    """The clocks of file systems are coarse: it could change again and look the same."""
    read(many)
    read(many)
    assert len(counted) == 2 * len(shards(many))


def change(folder, **edits):
    """Edit the manifest by dotted fields."""
    path = Path(folder, "manifest.json")
    manifest = json.loads(path.read_text())
    manifest.pop("checksum", None)
    for field, value in edits.items():
        at = manifest
        *way, last = field.split("__")
        for name in way:
            at = at[int(name)] if isinstance(at, list) else at[name]
        if value is KeyError:
            del at[last]
        else:
            at[last] = value
    path.write_text(json.dumps(manifest))


SHARD = "splits__train__shards__0__"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("splits", None, "splits"),
        ("splits", {"test": None}, "splits.test"),
        ("splits__train", [], "splits.train"),
        ("dtype", "uint7", "dtype"),
        ("dtype", "uint16", "dtype is 'uint16', but that of its tokenizer is 'uint8'"),
        ("tokenizer", {"scheme": "klingon"}, "tokenizer: unknown tokenization scheme 'klingon'"),
        ("tokenizer", [], "tokenizer"),
        ("tokenizer_fingerprint", "0" * 16, "tokenizer_fingerprint"),
        ("tokenizer_fingerprint", 7, "tokenizer_fingerprint"),
        ("marks", {}, "marks.kind is None"),
        ("marks", 3, "marks"),
        ("source", None, "source"),
        ("source", KeyError, "source"),
        ("more", 1, "more"),
        ("format", "2", "format '2', this version reads 2"),
        ("splits__train__tokens", -5, "tokens is -5"),
        ("splits__train__tokens", 99_999, "tokens is 99999, but its shards have"),
        ("splits__train__utf8_bytes", 0, "utf8_bytes is 0"),
        ("splits__train__documents", "x", "splits.train.documents"),
        ("splits__train__documents", 1e300, "splits.train.documents"),
        (SHARD + "extra", 1, "splits.train.shards.0.extra"),
        (SHARD + "size", None, "splits.train.shards.0.size"),
        (SHARD + "tokens", 2**70, f"tokens is {2**70}, outside"),
        (SHARD + "crc32c", "0", "crc32c is 8 hex digits"),
        (SHARD + "file", "../other/a", "file must be a name in this folder"),
        (SHARD + "file", "/etc/passwd", "file must be a name in this folder"),
        (SHARD + "file", "a\0b", "file must be a name in this folder"),
        (SHARD + "file", "..", "file must be a name in this folder"),
    ],
)
def test_manifests(many, field, value, said):
    """One sentence that names the file and the field."""
    change(many, **{field: value})
    with pytest.raises(DataError) as raised:
        Corpus(many)
    assert said in str(raised.value) and str(many) in str(raised.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"format": ' + "[" * 100_000, "3", "\xff", ""])
def test_manifests_of_any_shape(many, content):
    (many / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match="manifest.json is damaged, .*same prepare.py command"):
        Corpus(many)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutilated_manifests(corpus, tmp_path_factory, data):
    """The corpus that was, or one sentence."""
    folder = tmp_path_factory.mktemp("copy")
    for path in Path(corpus).glob("*.array_record"):
        (folder / path.name).symlink_to(path)
    content = bytearray(Path(corpus, "manifest.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    (folder / "manifest.json").write_bytes(content)
    try:
        assert Corpus(folder).fingerprint == Corpus(corpus).fingerprint
    except DataError as error:
        assert str(folder) in str(error) and len(str(error)) < 1000


def test_counts_that_agree_with_each_other_only(many):
    first = read_manifest(many).splits["train"]
    change(many, **{
        SHARD + "tokens": first.shards[0].tokens + 1, "splits__train__tokens": first.tokens + 1,
        SHARD + "labels__0__tokens": first.shards[0].labels[0].tokens + 1,
    })  # fmt: skip
    with pytest.raises(DataError, match="it says that train-0.* but it has"):
        plan_of(many)
    change(many, **{
        SHARD + "tokens": first.shards[0].tokens, "splits__train__tokens": first.tokens,
        SHARD + "labels__0__tokens": first.shards[0].labels[0].tokens,
        SHARD + "utf8_bytes": 10**9, SHARD + "labels__0__utf8_bytes":
        10**9 - first.shards[0].utf8_bytes + first.shards[0].labels[0].utf8_bytes,
        "splits__train__utf8_bytes": first.utf8_bytes - first.shards[0].utf8_bytes + 10**9,
    })  # fmt: skip
    with pytest.raises(DataError, match="utf8_bytes is .*, more than its tokens can stand for"):
        Corpus(many)


def test_a_manifest_has_a_checksum_and_needs_none(many):
    path, before = many / "manifest.json", Corpus(many).fingerprint
    edited = path.read_text().replace('"heldout": 0.3', '"heldout": 0.4')
    assert edited != path.read_text()
    whole = path.read_text()
    path.write_text(edited)
    with pytest.raises(DataError, match="checksum differs"):
        Corpus(many)
    # Older revisions wrote none.
    older = json.loads(whole)
    del older["checksum"]
    path.write_text(json.dumps(older))
    assert Corpus(many).fingerprint == before


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped", "swapped", "none"])
def test_the_same_command_mends(texts, many, how, monkeypatch):
    """Only what is missing or damaged is made, and the corpus is what it was."""
    before, units = content(many), []
    a, b = shards(many)[1:3]
    if how == "missing":
        a.unlink(), (sorted(many.glob("heldout-*"))[0]).unlink()
    elif how == "truncated":
        os.truncate(a, 100)
    elif how == "flipped":
        data = bytearray(a.read_bytes())
        data[40] ^= 1
        a.write_bytes(data)
    elif how == "swapped":
        swap(a, b)
    real = preparing._prepare_unit
    monkeypatch.setattr(preparing, "_prepare_unit", lambda job: units.append(job[1]) or real(job))
    made = make(texts, many)
    assert made.remade == len(units) == {"none": 0, "swapped": 2, "missing": 2}.get(how, 1)
    assert content(many) == before


def test_mending_needs_the_same_text(texts, many):
    shards(many)[0].unlink()
    (texts / "00.txt").write_bytes(words(99, 250))
    with pytest.raises(DataError, match="finished corpus already, made from other sources"):
        make(texts, many)


@pytest.mark.parametrize("how", ["missing", "flipped", "report"])
def test_what_a_stopped_run_left_is_checked(texts, tmp_path, how, monkeypatch):
    make(texts, tmp_path / "whole")
    out, real = tmp_path / "out", preparing._prepare_unit

    def failing(job):
        if job[1] == 4:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(preparing, "_prepare_unit", failing)
    with pytest.raises(KeyboardInterrupt):
        make(texts, out)
    monkeypatch.setattr(preparing, "_prepare_unit", real)
    first = shards(out)[0]
    if how == "missing":
        first.unlink()
    elif how == "flipped":
        data = bytearray(first.read_bytes())
        data[40] ^= 1
        first.write_bytes(data)
    else:
        (out / "unit-00000.json").write_text("[" * 100_000)
    make(texts, out)
    assert content(out) == content(tmp_path / "whole")


def test_a_damaged_recipe(texts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="recipe.json is damaged.* Delete "):
        make(texts, tmp_path / "out")


def test_a_corpus_made_of_another_one_knows_it(texts, many, tmp_path):
    """Continued only from the same corpus, not from one of the same shape."""
    units = find_units([str(many)], "text", None)
    out = tmp_path / "second"
    prepare(units, out, ByteTokenizer(), heldout=0.3, processes=1)
    for i in range(20):
        (texts / f"{i:02}.txt").write_bytes(words(i, 250).swapcase())
    shutil.rmtree(many)
    make(texts, many)
    with pytest.raises(DataError, match="made from other sources"):
        prepare(units, out, ByteTokenizer(), heldout=0.3, processes=1)


def test_no_held_out_text(texts, many, tmp_path):
    make(texts, tmp_path / "all", heldout=0.0)
    assert heldout_documents([Corpus(tmp_path / "all")], 0) == []
    change(tmp_path / "all", splits__heldout=KeyError)
    with pytest.raises(
        DataError, match="no text was held out.*--train.evaluation-bytes 0.*--heldo"
    ):
        heldout_documents([Corpus(tmp_path / "all")], 0)
    with pytest.raises(DataError, match="has no split 'heldout'; it has train.*--heldout 0.01"):
        Corpus(tmp_path / "all", "heldout")
    found = heldout_documents([Corpus(tmp_path / "all"), Corpus(many)], 0)
    assert [one.text for one in found] == list(Corpus(many, "heldout").documents_in(0))


def test_names_of_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "a", "news:2024", "x,y:0.5"):
        Path(name).mkdir()
    for source, expected in {
        "a,b": [("a,b", 1)],
        "a,b:2": [("a,b", 2)],
        "a,b:2,a:3": [("a,b", 2), ("a", 3)],
        "a,nowhere": [("a", 1), ("nowhere", 1)],
        "news:2024": [("news:2024", 1)],
        "news:2024:0.5,a": [("news:2024", 0.5), ("a", 1)],
        "x,y:0.5": [("x,y:0.5", 1)],
        "other:0.5, a : 2": [("other", 0.5), ("a", 2)],
        "other:old": [("other:old", 1)],
    }.items():
        assert parse_source(source) == [(Path(name), share) for name, share in expected]
    for weight in ("0", "-1", "nan", "inf", "-inf", "1e999"):
        with pytest.raises(DataError, match=f"weight of p must be above 0, not {weight}"):
            parse_source(f"a,p:{weight}")
    for empty in ("", ",", "a,", "a,,b,", " ", ":2"):
        with pytest.raises(DataError, match="a part of .* is empty"):
            parse_source(empty)


@pytest.mark.parametrize("how", ["truncated", "manifest", "missing", "flipped"])
def test_the_embedded_corpus_is_made_again(tmp_path, monkeypatch, how):
    monkeypatch.setattr(
        sources, "stdlib_documents", lambda: iter([words(i, 400) for i in range(30)])
    )
    folder = stdlib.embedded_corpus()
    before = content(folder)
    file = shards(folder)[0]
    if how == "truncated":
        os.truncate(file, 100)
    elif how == "manifest":
        os.truncate(folder / "manifest.json", 100)
    elif how == "missing":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(data)
    assert stdlib.embedded_corpus() == folder and content(folder) == before
    assert [path.name for path in folder.parent.iterdir() if "stdlib" in path.name] == [folder.name]


def test_two_processes_make_the_embedded_corpus(tmp_path, monkeypatch):
    """The slower one takes what the faster one made."""
    monkeypatch.setattr(sources, "stdlib_documents", lambda: iter([words(1, 400)] * 30))
    real = stdlib.prepare

    def slow(units, building, tokenizer, **settings):
        real(units, building, tokenizer, **settings)
        shutil.copytree(building, building.with_suffix(""))

    monkeypatch.setattr(stdlib, "prepare", slow)
    folder = stdlib.embedded_corpus()
    assert Corpus(folder).tokens
    assert [path for path in folder.parent.iterdir() if "stdlib" in path.name] == [folder]


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/nowhere"])
def test_a_home_that_cannot_be_written(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    with pytest.raises(DataError, match="cannot prepare the embedded corpus.*Set XDG_CACHE_HOME"):
        stdlib.embedded_corpus()
