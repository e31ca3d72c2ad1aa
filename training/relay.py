"""Between each host and the coordination service of JAX, which runs on host 0.

JAX aborts with a stack of C++ where a connection to that service breaks, or a host comes twice.
So host 0 keeps its service to itself and lets hosts in at a door, where each says who it is; and
the others talk through a relay of their own. Where one end is gone, the other is not told, but the
process is, and ends with a sentence.
"""

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from octavo import process
from octavo.training.errors import HostsError

RESOLVE_TIMEOUT = 60
"""Seconds until the name of host 0 must be known."""

ANSWER_TIMEOUT = 20
"""Seconds for the few words at the door."""


class Door:
    """Host 0: lets the other hosts in to the service, each once."""

    def __init__(self, port: int, count: int):
        """Raises HostsError if the port is taken."""
        try:
            self._server = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        except OSError:
            try:  # no IPv6 here
                self._server = socket.create_server(("", port))
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
                raise HostsError(
                    f"port {port} of JAX_COORDINATOR_ADDRESS cannot be used on host 0: "
                    f"{reason}. Choose another, the same on all hosts."
                ) from error
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.service = f"127.0.0.1:{free.getsockname()[1]}"
        self.count = count
        self.on_loss: Callable[[int], None] | None = None
        """Told which host's last connection broke, once all are there."""
        self._inside: dict[int, list[str]] = {}  # of each host, its process once a connection
        self._lock = threading.Lock()
        in_thread(self._accept)

    def _accept(self) -> None:
        while True:
            far, _ = self._server.accept()
            in_thread(self._admit, far)

    def _admit(self, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), far:
            far.settimeout(ANSWER_TIMEOUT)
            hello = json.loads(_line(far))
            index, who = int(hello["host"]), str(hello["process"])
            answer = self._enter(index, who, hello["of"])
            far.sendall(json.dumps(answer).encode() + b"\n")
            if answer:
                return
            try:
                near = socket.create_connection(_pair(self.service), timeout=ANSWER_TIMEOUT)
                _join(far, near)
                _hang_up(far, near)
            finally:
                with self._lock:
                    self._inside[index].remove(who)
                    gone = not self._inside[index]
                if gone and self.on_loss:
                    self.on_loss(index)

    def _enter(self, index: int, who: str, count: int) -> dict:
        """Why not, or nothing."""
        if count != self.count or not 0 < index < count:
            return {"no": f"host 0 expects {self.count} hosts, and this is {index} of {count}"}
        with self._lock:
            there = self._inside.setdefault(index, [])
            if set(there) - {who}:
                return {"busy": True}
            there.append(who)
        return {}


class Relay:
    """Any other host: what JAX connects to in place of host 0."""

    def __init__(self, address: tuple[str, int], index: int, count: int):
        """Raises HostsError if the name of host 0 is not known."""
        self._to = address
        self._hello = {"host": index, "of": count, "process": f"{os.getpid()}-{time.time()}"}
        self._resolve()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.service = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.on_loss: Callable[[], None] | None = None
        """Told that the connection to host 0 broke, once all are there."""
        self._said = False
        in_thread(self._accept)

    def _resolve(self) -> None:
        deadline = time.monotonic() + RESOLVE_TIMEOUT
        while True:
            try:
                socket.getaddrinfo(*self._to)
                return
            except OSError as error:  # a name may come up with its pod
                if time.monotonic() > deadline:
                    raise HostsError(
                        f"JAX_COORDINATOR_ADDRESS: there is no host {self._to[0]!r} "
                        f"({error.strerror or error})."
                    ) from error
            time.sleep(1)

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            in_thread(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        # Until host 0 is there JAX is kept waiting: sent away, it comes again ever more seldom.
        with near:
            while not _is_left(near):
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(self._to, timeout=ANSWER_TIMEOUT) as far,
                ):
                    if self._knock(far):
                        ours = _join(near, far)
                        if not ours and self.on_loss:
                            self.on_loss()  # which ends the process
                        _hang_up(near, far)
                        return
                time.sleep(1)

    def _knock(self, far: socket.socket) -> bool:
        """Whether host 0 lets us in."""
        try:
            far.settimeout(ANSWER_TIMEOUT)
            far.sendall(json.dumps(self._hello).encode() + b"\n")
            line = _line(far)
        except OSError:
            return False
        if not line:
            return False  # it ends, or has not got that far
        try:
            answer = dict(json.loads(line))
        except (ValueError, TypeError):
            answer = {"no": "what answers there is no host of a run"}
        if "no" in answer:
            process.end(
                f"JAX_COORDINATOR_ADDRESS {self._to[0]}:{self._to[1]}: {answer['no']}. All hosts "
                "need the same JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES.",
                process.WRONG_USE,
            )
        if "busy" in answer and not self._said:
            self._said = True
            process.warn(
                f"host {self._hello['host']} is in the run already; waiting until that has ended. "
                "If JAX_PROCESS_ID was given twice, it will not."
            )
        return not answer


def in_thread(action: Callable, *arguments) -> None:
    threading.Thread(target=action, args=arguments, daemon=True).start()


def _pair(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _line(connection: socket.socket) -> bytes:
    """The line that comes first, and nothing of what follows."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        byte = connection.recv(1)
        if not byte:
            return b""
        line += byte
    return line


def _is_left(connection: socket.socket) -> bool:
    """Whether the other end has closed it, whatever of it is still to be read."""
    closed = getattr(select, "POLLRDHUP", select.POLLHUP) | select.POLLHUP | select.POLLERR
    looked = select.poll()
    looked.register(connection, closed)
    return bool(looked.poll(0))


def _hang_up(*connections: socket.socket) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _join(first: socket.socket, second: socket.socket) -> bool:
    """Pass on what comes, until either side ends; whether that was the first."""
    ended: list[socket.socket] = []
    over = threading.Event()

    def pump(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                try:
                    to.sendall(data)
                except OSError:  # the other thread sees it end
                    return
        ended.append(source)
        over.set()

    for side in (first, second):
        side.settimeout(None)
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        side.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    in_thread(pump, first, second)
    in_thread(pump, second, first)
    over.wait()
    return ended[0] is first
