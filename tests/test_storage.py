"""Corpora, runs and files on object storage: a real S3 server on this machine, and any fsspec."""

import contextlib
import dataclasses
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from helpers import arguments_of, metrics_of, saved_params, start
from octavo import locks, storage
from octavo.configs.checks import ConfigError
from octavo.data import sources
from octavo.data.errors import DataError
from octavo.data.remote import corpus_folder, verify
from octavo.data.shards import Corpus
from octavo.evaluate import Arguments as Evaluate
from octavo.evaluate import evaluate
from octavo.prepare import Arguments as Prepare
from octavo.prepare import prepare
from octavo.run import mirror
from octavo.run.errors import StorageError
from octavo.run.opened import open_run
from octavo.train import train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A machine that has fetched nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "octavo"


@pytest.fixture
def s3(monkeypatch):
    """A bucket of a server on this machine, and what happens at each request: ``asked``."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    serving = pytest.importorskip("werkzeug.serving")
    inner = server.DomainDispatcherApplication(server.create_backend_app)
    asked = []

    def app(environ, respond):
        for action in asked:
            action(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        return inner(environ, respond)

    made = serving.make_server("127.0.0.1", 0, app, threaded=True)
    made.RequestHandlerClass.log_request = lambda *about: None
    threading.Thread(target=made.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{made.server_port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    bucket = f"bucket-{made.server_port}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}", asked
    made.shutdown()


@pytest.fixture
def store(tmp_path) -> str:
    """A folder that fsspec reaches by a protocol of its own."""
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


def test_a_run_on_s3_is_the_run_here(s3, corpus, tiny, trained, tmp_path):
    """Killed while it puts a checkpoint there, and continued: as one that was not, here."""
    bucket, asked = s3
    prepare(Prepare((corpus,), f"{bucket}/corpus", processes=1))
    tiny = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, source=f"{bucket}/corpus"))
    arguments = ["flat", *arguments_of(tiny, f"{bucket}/run")]
    begun = start("train.py", *arguments)

    def kill(method, path):
        if method == "PUT" and path.endswith("checkpoints/20/commit_success.txt"):
            begun.kill()
            time.sleep(0.5)  # nothing of it is answered
            raise ConnectionError

    asked.append(kill)
    begun.communicate()
    assert begun.returncode == -signal.SIGKILL
    asked.clear()
    there = storage.listed(f"{bucket}/run")
    assert "checkpoints/10/commit_success.txt" in there and "lock" in there
    with mirror.fetched(f"{bucket}/run") as folder:
        assert mirror.mirror_of(folder) is None and (folder / "checkpoints" / "10").is_dir()
        assert not (folder / "checkpoints" / "20").exists()

    again = start("train.py", *arguments)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert f"{bucket}/run (continues at step 10)" in out and "taken over" in err
    assert f"the run is in {bucket}/run" in out and "mirrors" not in out + err
    for name in ("metrics.jsonl", "results.json"):
        (tmp_path / name).write_bytes(storage.read(f"{bucket}/run/{name}"))
    assert metrics_of(tmp_path) == metrics_of(trained[0])
    with mirror.fetched(f"{bucket}/run") as folder:
        for one, other in zip(saved_params(folder), saved_params(trained[0]), strict=True):
            np.testing.assert_array_equal(one, other)
    there = storage.listed(f"{bucket}/run")
    assert "lock" not in there and not any(name.endswith(".partial") for name in there)
    assert any(name.startswith("tensorboard/") for name in there)

    # Scored there as here, and said there.
    here = evaluate(Evaluate(str(trained[0]), data=corpus, most_bytes=2000))
    found = evaluate(Evaluate(f"{bucket}/run", most_bytes=2000, json=f"{bucket}/scores/run.json"))
    said = json.loads(storage.read(f"{bucket}/scores/run.json"))
    assert said["bits_per_byte"] == found["bits_per_byte"] == here["bits_per_byte"]


def test_parts_on_storage(store, tmp_path, monkeypatch, capsys):
    """By machines with caches of their own; then one finishes the corpus that one alone makes."""
    (tmp_path / "texts").mkdir()
    for i in range(8):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"text {i} " * 400)
    monkeypatch.setattr(sources, "UNIT_BYTES", 5000)
    ask = Prepare((str(tmp_path / "texts"),), f"{store}/corpus", heldout=0.3, processes=1)
    for part in ("2/2", "1/2", None):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache of {part and part[0]}"))
        prepare(dataclasses.replace(ask, part=part))
    assert "part 2/2" in capsys.readouterr().out
    prepare(dataclasses.replace(ask, out=f"{store}/alone"))
    alone, parts = (storage.listed(f"{store}/{name}") for name in ("alone", "corpus"))
    assert alone == parts
    for name in alone:
        assert storage.read(f"{store}/alone/{name}") == storage.read(f"{store}/corpus/{name}")


def test_any_protocol_of_fsspec(store, tiny, cache, monkeypatch, capsys):
    """Text, corpus and run, by a protocol of which nothing is known here."""
    texts = Path(store.removeprefix("file://"), "texts")
    texts.mkdir()
    for i in range(20):
        (texts / f"{i}.txt").write_text(f"text {i} " * 400)
    ask = Prepare((f"{store}/texts",), f"{store}/corpus", heldout=0.3, processes=1)
    prepare(ask)
    assert f"the corpus is in {store}/corpus" in capsys.readouterr().out
    assert storage.read(f"{store}/corpus/manifest.json")
    config = dataclasses.replace(
        tiny, workdir=f"{store}/run",
        data=dataclasses.replace(tiny.data, source=f"{store}/corpus"),
        train=dataclasses.replace(tiny.train, steps=15, checkpoint_every=5),
    )  # fmt: skip
    with (
        locks.Lock(f"{store}/run/lock"),
        pytest.raises(ConfigError, match="One training owns a run at a time"),
    ):
        train(config)

    put = storage.put

    def full(url, names, folder):
        names = list(names)
        if any("checkpoints/15/" in name for name in names):
            raise OSError(28, "it is full", url)
        put(url, names, folder)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "put", full)
        with pytest.raises(StorageError, match="saving a checkpoint .* failed: .*it is full"):
            train(config)
    assert open_run(f"{store}/run").step == 10
    assert open_run(f"{store}/run", step=5).step == 5

    # A checkpoint that was damaged there is set aside there.
    place = Path(store.removeprefix("file://"), "run", "checkpoints")
    for part in (place / "10" / "params" / "d").iterdir():
        part.write_bytes(b"\xff" * part.stat().st_size)
    results = train(config)
    assert results["workdir"] == f"{store}/run"
    page = storage.read(f"{store}/run/report.html").decode()
    assert f"{store}/run" in page and str(cache) not in page
    said = capsys.readouterr().out
    assert f"checkpoint {store}/run/checkpoints/10 cannot be read" in said
    assert "(continues at step 5)" in said
    assert set(os.listdir(place)) == {"5", "10", "10.damaged", "15"}
    assert "mirrors" not in said and not list((cache / "mirrors").iterdir())


def test_a_shard_damaged_there_is_made_anew(store, corpus, cache):
    url = f"{store}/corpus"
    ask = Prepare((corpus,), url, processes=1)
    prepare(ask)

    def read():
        found = Corpus(corpus_folder(url))
        found.read(0, found.tokens, np.empty(found.tokens, np.uint8))
        return found

    subprocess.run(["rm", "-r", cache / "corpora"], check=True)  # another machine
    fetched = corpus_folder(url)
    assert not list(fetched.glob("*.array_record")) and (fetched / "train.documents").exists()
    assert pickle.loads(pickle.dumps(read())).fingerprint == Corpus(corpus).fingerprint
    assert [path.name for path in fetched.glob("*.array_record")] == ["train-00000.array_record"]
    place = Path(url.removeprefix("file://"))
    shard = next(place.glob("train-*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"?")
    assert read().folder == fetched  # what was fetched is still what the manifest says
    with pytest.raises(DataError, match=f"{url}/{shard.name} has checksum"):
        verify(url)
    subprocess.run(["rm", "-r", cache / "corpora"], check=True)
    with pytest.raises(DataError, match=f"{url}/{shard.name} is damaged"):
        read()
    prepare(ask)
    assert shard.read_bytes() == whole and verify(url) == 2


@pytest.mark.parametrize("change", ["stays", "goes", "beats"])
def test_a_lock_of_another_machine(change, store, monkeypatch, capfd):
    monkeypatch.setattr(locks.Lock, "BEAT_SECONDS", 0.2)
    url = f"{store}/run/lock"
    holder = dataclasses.asdict(locks.Lock(url).mine) | {"host": "elsewhere", "process": 1}
    storage.write_json(url, holder)
    changes = {
        "beats": lambda: storage.write_json(url, holder | {"seen": 1.0}),
        "goes": lambda: storage.remove(url),
        "stays": lambda: None,
    }
    threading.Timer(0.3, changes[change]).start()
    if change == "beats":
        with pytest.raises(ConfigError, match="in use: process 1 on elsewhere"):
            locks.Lock(url).__enter__()
        return
    with locks.Lock(url) as lock:
        lock.check()
        assert json.loads(storage.read(url))["process"] == os.getpid()
    assert storage.listed(f"{store}/run") == {}
    assert "waiting" in capfd.readouterr().err


def test_a_lock_of_this_machine(store):
    url = f"{store}/run/lock"
    with locks.Lock(url) as lock:
        with pytest.raises(ConfigError, match=f"run is in use: process {os.getpid()}"):
            locks.Lock(url).__enter__()
        gone = dataclasses.asdict(lock.mine) | {"process": 2**22 + 1, "token": "another"}
        storage.write_json(url, gone)
        with pytest.raises(OSError, match="not this process's any more"):
            lock.check()
        with locks.Lock(url):  # of a process that was killed
            pass


@contextlib.contextmanager
def without(monkeypatch, library: str):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, library, None)
        sys.modules["fsspec.registry"]._registry.pop("gs", None)
        yield


def test_what_cannot_be_used_is_said_in_a_sentence(tiny, monkeypatch, tmp_path, corpus):
    monkeypatch.chdir(tmp_path)
    lines = {
        "gs://bucket/run": "the library for gs:// is not installed: pip install gcsfs.",
        "abfs://box/run": "Install adlfs to access Azure Datalake Gen2 and Azure Blob Storage",
        "s3:/bucket/run": "s3:/bucket/run is no URL, as s3://BUCKET/NAME",
        "s3://": "s3:// is no URL, as s3://BUCKET/NAME",
        "nowhere://run": "nowhere:// is no storage that is known here: Protocol not known",
    }
    with without(monkeypatch, "gcsfs"), without(monkeypatch, "adlfs"):
        for url, line in lines.items():
            for ask in (
                lambda url=url: train(dataclasses.replace(tiny, workdir=url)),
                lambda url=url: prepare(Prepare((corpus,), url)),
                lambda url=url: open_run(url),
                lambda url=url: evaluate(Evaluate("run", text=url)),
                lambda url=url: evaluate(Evaluate("run", json=url)),
            ):
                with pytest.raises(ConfigError, match=re.escape(line)):
                    ask()
    assert os.listdir(tmp_path) in ([], ["cache"])
    with pytest.raises(ConfigError, match="no file or folder of this machine"):
        evaluate(Evaluate("run", ("fairness",), parallel="s3://bucket/text"))


def test_a_store_that_does_not_answer(tiny, monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setattr(storage, "ANSWER_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(ConfigError, match="--workdir s3://bucket/run: no answer within 1 sec"):
            train(dataclasses.replace(tiny, workdir="s3://bucket/run"))


def test_a_bucket_that_is_not_there(s3, tiny):
    with pytest.raises(ConfigError, match="s3://other/run: there is no such bucket"):
        train(dataclasses.replace(tiny, workdir="s3://other/run"))
    with pytest.raises(DataError, match=f"{s3[0]}/corpus is not a prepared corpus"):
        corpus_folder(f"{s3[0]}/corpus")
