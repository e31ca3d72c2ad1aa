"""Several real processes, joined by jax.distributed over loopback, against one."""

import contextlib
import dataclasses
import itertools
import json
import queue
import signal
import socket
import threading
import time
import types

import numpy as np
import pytest

from helpers import arguments_of, metrics_of, run, saved_params, start
from octavo import process
from octavo.configs.checks import ConfigError
from octavo.training import hosts, relay
from octavo.training.errors import HostsError

pytestmark = pytest.mark.xdist_group("hosts")  # one worker, one run to compare with


def free_port() -> int:
    with contextlib.closing(socket.socket()) as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start_hosts(config, workdir, count, *extra):
    """``count`` processes with 4 / count devices each."""
    address = f"localhost:{free_port()}"
    return [start_host(config, workdir, address, count, i, *extra) for i in range(count)]


def start_host(config, workdir, address, count, index, *extra):
    return start(
        "train.py", "flat", *arguments_of(config, workdir), *extra, "--train.distributed", "True",
        devices=4 // count,
        JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(count), JAX_PROCESS_ID=str(index),
    )  # fmt: skip


def finish(processes):
    results = [host.communicate(timeout=300) for host in processes]
    return [host.returncode for host in processes], results


def running(workdir, processes, steps):
    """Until so many steps are done."""
    deadline = time.monotonic() + 120
    while not (workdir / "metrics.jsonl").exists() or len(metrics_of(workdir)) < steps:
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.01)


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
    ("count", "mesh"),
    [(2, []), (4, ["--mesh.tensor", "2"]), (2, ["--mesh.fsdp", "1", "--mesh.sequence", "4"])],
    ids=["2 fsdp", "4 tensor", "2 sequence"],
)
def test_hosts_equal_one(config, single, count, mesh, tmp_path):
    """The data is identical and the loss close; one log, one checkpoint, one score."""
    codes, outputs = finish(start_hosts(config, tmp_path, count, *mesh))
    assert codes == [0] * count, outputs
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
    running(tmp_path, processes, 12)
    for host in processes:
        host.send_signal(signal.SIGTERM)
    codes, outputs = finish(processes)
    assert codes == [75, 75], outputs
    stopped = len(metrics_of(tmp_path))
    done = run("train.py", "flat", *arguments_of(config, tmp_path),
               "--train.steps", str(stopped + 5))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"continues at step {stopped}" in done.stdout
    assert list(metrics_of(tmp_path)) == list(range(1, stopped + 6))
    assert len(saved_params(tmp_path)) > 0


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_host_ends_the_others(config, killed, tmp_path):
    processes = start_hosts(config, tmp_path, 2, "--train.steps", "100000")
    running(tmp_path, processes, 5)
    processes[killed].send_signal(signal.SIGKILL)
    codes, outputs = finish(processes)
    assert codes[1 - killed] == 70 and codes[killed] == -9  # a launcher begins again
    assert outputs[1 - killed][1] == (
        f"error: host {killed} ended without a word: it was killed, or crashed. Saved work is "
        "kept; run the same command again, on all hosts.\n"
    )


class Service(dict):
    """Of what JAX's has: keys and values."""

    def key_value_set(self, key, value, allow_overwrite):
        self[key] = value

    def key_value_dir_get(self, place):
        return [(key, value) for key, value in list(self.items()) if key.startswith(place)]


@pytest.fixture
def agreed(monkeypatch):
    """Of so many hosts that have not begun: their agreements, and what each was asked by."""

    def make(count):
        service, asked, made = Service(), [None] * count, []
        state = types.SimpleNamespace(client=service)
        monkeypatch.setattr(hosts, "distributed", types.SimpleNamespace(global_state=state))
        monkeypatch.setattr(hosts.Agreement, "_made", itertools.repeat(0))
        monkeypatch.setattr(hosts.jax, "process_count", lambda: count)
        for i in range(count):
            monkeypatch.setattr(hosts.jax, "process_index", lambda i=i: i)
            made.append(hosts.Agreement(lambda i=i: asked[i]))
        return made, asked

    return make


def test_all_hosts_stop_after_the_same_step(agreed):
    """However far each is when one is asked, and though another is asked by something else."""
    made, asked = agreed(3)

    def go(agreement, step, found):
        while not agreement.reached(step):
            time.sleep(0.01)
            step += 1
        found.append(step)

    found: list[int] = []
    threads = [threading.Thread(target=go, args=(one, 5 + i, found)) for i, one in enumerate(made)]
    asked[1] = signal.SIGINT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3 and len(set(found)) == 1 and found[0] >= 8
    assert all(one.signals == {signal.SIGINT} for one in made)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_one_host_stops_all(number, config, tmp_path):
    """By Ctrl-C all of them score, too."""
    processes = start_hosts(config, tmp_path, 2, "--train.steps", "100000")
    running(tmp_path, processes, 5)
    processes[1].send_signal(number)
    codes, outputs = finish(processes)
    assert codes == [75, 75], outputs
    assert all(f"train.py --workdir {tmp_path}." in said for _, said in outputs)
    assert not any("preemption" in said for _, said in outputs)
    results = json.loads((tmp_path / "results.json").read_text())
    assert ("heldout/bits_per_byte" in results) == (number == signal.SIGINT)


@pytest.mark.parametrize("wrong", [0, 1])
def test_failure_of_one_host_is_said_on_all(config, wrong, tmp_path):
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, source="nowhere"))
    address = f"localhost:{free_port()}"
    processes = [
        start_host(other if i == wrong else config, tmp_path, address, 2, i) for i in range(2)
    ]
    codes, outputs = finish(processes)
    assert codes == [2, 2], outputs
    why = "nowhere is not a prepared corpus"
    # JAX may say before that the other host is gone.
    assert f"\nerror: {why}" in "\n" + outputs[wrong][1]
    assert f"\nerror: host {wrong} ended: {why}" in "\n" + outputs[1 - wrong][1]
    assert not any("Traceback" in said for _, said in outputs)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "here"}, "'here' is not HOST:PORT"),
        ({"JAX_COORDINATOR_ADDRESS": "here:x"}, "'here:x' is not HOST:PORT"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID 2 is not in [0, 2)"),
        ({"JAX_PROCESS_ID": "one"}, "invalid literal for int() with base 10: 'one'"),
        ({}, "nothing says where they are"),
    ],
)
def test_hosts_that_are_told_nonsense(settings, said, monkeypatch):
    if settings:
        base = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
        for name, value in (base | settings).items():
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        hosts.start_hosts(True)
    assert said in str(raised.value)


def test_unknown_host(monkeypatch):
    monkeypatch.setattr(relay, "RESOLVE_TIMEOUT", 0)
    with pytest.raises(HostsError, match=r"there is no host 'nobody\.invalid'"):
        relay.Relay(("nobody.invalid", 1), 1, 2)


@pytest.fixture
def ends(monkeypatch):
    """What would have ended this process."""
    told = queue.Queue()

    def end(sentence, code, error=None):
        told.put((sentence, code))
        threading.Event().wait()  # as an end does, never return

    class Recorded(hosts.Peers):
        made: list = []

        def __init__(self, *arguments):
            self.made.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(process, "end", end)
    monkeypatch.setattr(hosts, "Peers", Recorded)
    yield told
    for peers in Recorded.made:  # or their threads would end this process, once it is no test's
        peers._leaving = True


@pytest.fixture
def service(monkeypatch):
    """A door before an echo, in place of JAX's service."""
    door = relay.Door(free_port(), 3)
    echo = socket.create_server(("127.0.0.1", int(door.service.rpartition(":")[2])))

    def answer(near):
        with contextlib.suppress(OSError), near:
            while data := near.recv(100):
                near.sendall(data)

    def serve():
        while True:
            relay.in_thread(answer, echo.accept()[0])

    relay.in_thread(serve)
    yield door, ("localhost", door._server.getsockname()[1])


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def speaks(way) -> socket.socket:
    host, port = way.service.split(":")
    near = socket.create_connection((host, int(port)), timeout=20)
    near.sendall(b"hello")
    return near


def test_door_lets_each_host_in_once(service, ends, capsys):
    door, address = service
    first = relay.Relay(address, 1, 3)
    near = speaks(first)
    assert near.recv(100) == b"hello"
    again = speaks(relay.Relay(address, 1, 3))  # it was started again
    wait_for(lambda: "host 1 is in the run already" in capsys.readouterr().err)
    lost = queue.Queue()
    door.on_loss = lost.put
    near.close()
    assert lost.get(timeout=20) == 1
    assert again.recv(100) == b"hello"
    wrong = speaks(relay.Relay(address, 2, 4))
    assert wrong and ends.get(timeout=20) == (
        f"JAX_COORDINATOR_ADDRESS localhost:{address[1]}: host 0 expects 3 hosts, and this is 2 of "
        "4. All hosts need the same JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES.",
        2,
    )


def test_relay_hides_the_loss_of_host_0(ends):
    """JAX sees its connection stand; we are told."""
    server = socket.create_server(("localhost", free_port()))
    way = relay.Relay(server.getsockname()[:2], 1, 2)
    lost = threading.Event()
    way.on_loss = lambda: (lost.set(), threading.Event().wait())
    near = speaks(way)
    far, _ = server.accept()
    far.recv(1000)
    far.sendall(b"{}\nhi")
    assert near.recv(100) == b"hi"
    far.close()
    assert lost.wait(20)
    near.settimeout(0.2)
    with pytest.raises(TimeoutError):
        near.recv(100)


def test_relay_keeps_jax_waiting_for_host_0(ends):
    """On the one connection that it made: sent away, gRPC comes again after up to two minutes."""
    port = free_port()
    near = speaks(relay.Relay(("localhost", port), 1, 2))
    near.settimeout(0.5)
    with pytest.raises(TimeoutError):
        near.recv(100)
    near.settimeout(20)
    server = socket.create_server(("localhost", port))
    far, _ = server.accept()
    far.recv(1000)
    far.sendall(b"{}\nhi")
    assert near.recv(100) == b"hi"


def test_something_else_at_the_address(ends):
    server = socket.create_server(("localhost", free_port()))
    near = speaks(relay.Relay(server.getsockname()[:2], 1, 2))
    assert near
    server.accept()[0].sendall(b"SSH-2.0-OpenSSH\n")
    sentence, code = ends.get(timeout=20)
    assert "what answers there is no host of a run" in sentence and code == 2


class Store:
    """The coordination service's memory, as a client sees it."""

    def __init__(self):
        self.values, self.silent = {}, False

    def key_value_set(self, key, value, allow_overwrite):
        if self.silent:
            threading.Event().wait()
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


class Way:
    on_loss = None


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(hosts, "SILENCE", 2.5)


def test_silent_hosts(quick, ends):
    """A host that stands still closes no connection."""
    store = Store()
    hosts.Peers(store, 3, 0, Way())
    store.values["octavo/left/2"] = "0"  # an end that was said is none to wonder at
    store.values["octavo/alive/2"] = "7"
    sentence, code = ends.get(timeout=20)
    assert (
        sentence.startswith("host 1 fell silent: nothing was heard for 2.5 seconds") and code == 70
    )


def test_silent_host_0(quick, ends):
    store = Store()
    store.silent = True
    hosts.Peers(store, 2, 1, Way())
    assert ends.get(timeout=20)[0].startswith("host 0 fell silent")


def test_words_of_a_host_that_ends(ends):
    store = Store()
    peers = hosts.Peers(store, 2, 1, Way())
    peers.farewell(OSError("full"), "d/metrics.jsonl: full.", 1)
    hosts.Peers(store, 2, 0, Way())
    assert ends.get(timeout=20) == ("host 1 ended: d/metrics.jsonl: full.", 1)


def test_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostsError, match=f"port {port} .* Address already in use. Choose an"):
            relay.Door(port, 2)


def test_together_nobody_is_told(ends):
    store = Store()
    for index in (1, 0):  # host 0 leaves last
        hosts.Peers(store, 2, index, Way()).farewell(process.Preempted("saved"), "saved", 75)
    assert not [key for key in store.values if key.startswith("octavo/failed")]
    assert ends.empty()


def test_hosts_begin_with_the_parameters_of_a_run(config, single, tmp_path):
    """Each reads its share, and both say the same step."""
    train = dataclasses.replace(config.train, steps=2, evaluation_bytes=0, init_from=str(single))
    config = dataclasses.replace(config, train=train)
    codes, outputs = finish(start_hosts(config, tmp_path, 2))
    assert codes == [0, 0], outputs
    assert f"the parameters of {single} at step 12" in outputs[0][0]
    first, last = metrics_of(tmp_path)[1], metrics_of(single)
    assert abs(first["train/bits_per_byte"] - last[12]["train/bits_per_byte"]) < 0.5
    assert first["train/bits_per_byte"] < last[1]["train/bits_per_byte"] - 1
