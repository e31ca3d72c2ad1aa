"""Several real processes, joined by jax.distributed over loopback, against one."""

import contextlib
import dataclasses
import json
import signal
import socket
import time

import numpy as np
import pytest

from helpers import arguments_of, metrics_of, run, saved_params, start

pytestmark = pytest.mark.xdist_group("hosts")  # one worker, one run to compare with


def free_port() -> int:
    with contextlib.closing(socket.socket()) as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start_hosts(config, workdir, hosts, *extra):
    """``hosts`` processes with 4 / hosts devices each."""
    address = f"localhost:{free_port()}"
    return [
        start(
            "train.py", "flat", *arguments_of(config, workdir), *extra,
            "--train.distributed", "True",
            devices=4 // hosts,
            JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(hosts), JAX_PROCESS_ID=str(i),
        )
        for i in range(hosts)
    ]  # fmt: skip


def finish(processes):
    results = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], results


@pytest.fixture(scope="module")
def config(tiny):
    train = dataclasses.replace(tiny.train, steps=12, sample_bytes=0, evaluation_bytes=1000)
    return dataclasses.replace(tiny, train=train)


@pytest.fixture(scope="module")
def single(config, tmp_path_factory):
    """One process with four devices."""
    workdir = tmp_path_factory.mktemp("single")
    done = run("train.py", "flat", *arguments_of(config, workdir), devices=4)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.parametrize(
    ("hosts", "mesh"), [(2, []), (4, ["--mesh.tensor", "2"])], ids=["2 fsdp", "4 tensor"]
)
def test_hosts_equal_one(config, single, hosts, mesh, tmp_path):
    """The data is identical and the loss close; one log, one checkpoint, one score."""
    codes, outputs = finish(start_hosts(config, tmp_path, hosts, *mesh))
    assert codes == [0] * hosts, outputs
    found, expected = metrics_of(tmp_path), metrics_of(single)
    assert list(found) == list(expected)
    for step in found:
        a, b = found[step]["train/bits_per_byte"], expected[step]["train/bits_per_byte"]
        np.testing.assert_allclose(a, b, rtol=2e-4)
    scores = [json.loads((d / "results.json").read_text()) for d in (tmp_path, single)]
    key = "heldout/bits_per_byte"
    np.testing.assert_allclose(scores[0][key], scores[1][key], rtol=1e-3)
    assert "bits/byte" in outputs[0][0] and "bits/byte" not in outputs[1][0]


def test_resume_on_more_hosts(config, single, tmp_path):
    """Stopped by SIGTERM on two hosts, continued on one: same data, loss close."""
    processes = start_hosts(config, tmp_path, 2, "--train.steps", "2000")
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").exists() or len(metrics_of(tmp_path)) < 12:
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes, outputs = finish(processes)
    assert codes == [75, 75], outputs
    stopped = len(metrics_of(tmp_path))
    done = run("train.py", "flat", *arguments_of(config, tmp_path),
               "--train.steps", str(stopped + 5))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"continues at step {stopped}" in done.stdout
    assert list(metrics_of(tmp_path)) == list(range(1, stopped + 6))
    assert len(saved_params(tmp_path, config)) > 0
