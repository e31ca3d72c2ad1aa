"""Several hosts: how they find each other, and that none waits for one that is gone.

Each host writes a sign of life to the coordination service of JAX, which runs on host 0, and reads
there whether another ended and why. A broken connection tells the same at once.
"""

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import clusters, distributed

from octavo import process
from octavo.configs.checks import ConfigError
from octavo.run.errors import CheckpointError
from octavo.training.errors import HostsError
from octavo.training.relay import Door, Relay, in_thread

INIT_TIMEOUT = 1800
"""Seconds that hosts wait for each other at the start; pods come up slowly after a preemption."""

SILENCE = 30
"""Seconds without a sign of life after which a host is taken for dead, and the others end."""

JAX_TIMEOUT = 600
"""Seconds after which JAX itself would abort the others: only if all of the above fails."""

_AGAIN = "Saved work is kept; run the same command again, on all hosts."


def start_hosts(distributed_run: bool) -> None:
    """Join the other hosts, if there are any. Raises ConfigError if it is not told where they are,
    HostsError if they cannot be reached."""
    if not distributed_run:
        return
    address, count, index, devices = _whereabouts()
    waiting = threading.Timer(5, _say_waiting, (address, count, index))
    waiting.daemon = True
    waiting.start()
    try:
        way = Relay(address, index, count) if index else Door(address[1], count)
        jax.config.update("jax_enable_preemption_service", False)  # see Agreement
        jax.distributed.initialize(
            way.service,
            num_processes=count,
            process_id=index,
            local_device_ids=devices,
            cluster_detection_method="deactivate",
            coordinator_bind_address=way.service,
            initialization_timeout=INIT_TIMEOUT,
            heartbeat_timeout_seconds=JAX_TIMEOUT,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise HostsError(
            f"host {index} of {count} could not meet the others at {_text(address)}: {reason}. "
            "Start the same command on all, with the same JAX_COORDINATOR_ADDRESS (of host 0)."
        ) from error
    finally:
        waiting.cancel()
    process.peers = Peers(distributed.global_state.client, count, index, way)


def _whereabouts() -> tuple[tuple[str, int], int, int, Sequence[int] | None]:
    """Where host 0 is, how many hosts there are, which one this is, and its devices (None: all)."""
    try:
        given = [
            int(os.environ[name]) if name in os.environ else None
            for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        ]
        place = os.environ.get("JAX_COORDINATOR_ADDRESS")
        # What is not given, a TPU pod or SLURM may know.
        place, count, index, devices = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            place, given[0], given[1], None, None, INIT_TIMEOUT
        )
        if place is None or count is None or index is None:
            raise ValueError("nothing says where they are")
        if not 0 <= index < count:
            raise ValueError(f"JAX_PROCESS_ID {index} is not in [0, {count})")
        name, colon, port = place.rpartition(":")
        if not (name and colon and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"JAX_COORDINATOR_ADDRESS {place!r} is not HOST:PORT")
    except ValueError as error:
        raise ConfigError(
            f"train.distributed: the other hosts were not found ({error}). Set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each."
        ) from error
    return (name.strip("[]"), int(port)), count, index, devices


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _say_waiting(address: tuple[str, int], count: int, index: int) -> None:
    whom = "host 0" if index else f"the other {count - 1}"
    process.warn(
        f"host {index} of {count} waits for {whom} at {_text(address)}, up to "
        f"{INIT_TIMEOUT // 60} minutes"
    )


class _Heard(Exception):
    """What ended another host, and now this one."""


class Peers:
    """Signs of life, and last words, of all hosts of a run."""

    def __init__(self, client, count: int, index: int, way: Any):
        self._client, self._count, self._index = client, count, index
        self._leaving = self._lost = False
        self._dead: set[str] = set()
        self._reached = time.monotonic()  # host 0
        self._seen = {i: ("", self._reached) for i in range(count)}
        way.on_loss = self._lose if index == 0 else self._lose_leader
        in_thread(self._beat)
        in_thread(self._watch)

    # What runs beside the training.

    def _beat(self) -> None:
        number = 0
        while not self._leaving:
            try:
                number += 1
                self._set(f"alive/{self._index}", str(number))
                self._hear()
                self._reached = time.monotonic()
            except Exception:  # whatever the service's death makes of it; _watch counts
                pass
            time.sleep(1)

    def _hear(self) -> None:
        for key, told in self._read("failed"):
            if int(key) != self._index:
                words = json.loads(told)
                whose = "" if words["heard"] else f"host {key} ended: "
                self._end(whose + words["sentence"], words["code"])
        if self._index == 0:
            now, left = time.monotonic(), dict(self._read("left"))
            for key, number in self._read("alive"):
                if key in left or number != self._seen[int(key)][0]:
                    self._seen[int(key)] = number, now
            silent = [i for i, (_, at) in self._seen.items() if now - at > SILENCE]
            if silent:
                self._dead.update(map(str, silent))
                self._end(_silent(silent), process.STALLED)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._leaving:
            now = time.monotonic()
            if now - last > SILENCE / 2:
                self._reached = now  # it was us who stood still
            last = now
            if now - self._reached > SILENCE:
                self._lost = True
                self._end(_silent([0]), process.STALLED)
            time.sleep(1)

    def _lose_leader(self) -> None:
        if not self._leaving:
            self._lost = True
            self._end(_gone(0), process.STALLED)

    def _lose(self, host: int) -> None:
        if not self._leaving and str(host) not in dict(self._read("left")):
            self._hear()
            self._dead.add(str(host))
            self._end(_gone(host), process.STALLED)

    def _end(self, sentence: str, code: int) -> None:
        if not self._leaving:
            process.end(sentence, code, _Heard(sentence))

    # What an end of this host asks for.

    def await_cause(self, error: BaseException) -> None:
        """A collective fails at once where another host ends; why it ended is known later."""
        if _of_others(error):
            time.sleep(SILENCE + 5)

    def farewell(self, error: BaseException | None, sentence: str, code: int) -> None:
        """Tell the others why, unless they end for the same reason. Host 0, on which the others
        depend, leaves last."""
        if self._lost:
            return
        together = code == process.DONE or isinstance(error, process.Preempted)
        if not together:
            words = {"sentence": sentence, "code": code, "heard": isinstance(error, _Heard)}
            self._set(f"failed/{self._index}", json.dumps(words))
        self._set(f"left/{self._index}", str(code))
        deadline = time.monotonic() + (60 if together else 5)
        while self._index == 0 and time.monotonic() < deadline:
            if len({key for key, _ in self._read("left")} | self._dead) == self._count:
                break
            time.sleep(0.05)
        self._leaving = True

    def _set(self, key: str, value: str) -> None:
        self._client.key_value_set(f"octavo/{key}", value, allow_overwrite=True)

    def _read(self, kind: str) -> list[tuple[str, str]]:
        """What each host said of a kind, by its number."""
        found = self._client.key_value_dir_get(f"octavo/{kind}/")
        return [(key.rpartition("/")[2], value) for key, value in found]


class Agreement:
    """Stops all hosts after the same step, once one of them is asked to.

    Who is asked says at which step it is and goes no further; the others do so as soon as they read
    it; and when all have, the last step is the one after the highest of these. JAX has the same in
    ``reached_preemption_sync_point``, but holds the interpreter while it waits: where another host
    was gone by then, no thread of this one could end it."""

    _made = itertools.count()

    def __init__(self, asked: Callable[[], int | None]):
        """asked: the signal that asked this host, if one did."""
        self._client: Any = distributed.global_state.client
        self._asked = asked
        self._count, self._index = jax.process_count(), jax.process_index()
        # A process may train again: all hosts have made as many.
        self._place = f"octavo/stop/{next(Agreement._made)}"
        self._turn = threading.Condition()
        self._step, self._said = 0, ""
        self._last: int | None = None
        self._over = False
        self.signals: set[int] = set()
        """What asked, of all hosts."""
        in_thread(self._agree)

    def reached(self, step: int) -> bool:
        """Whether this step, which is done, is the last. Waits while that is being agreed upon."""
        with self._turn:
            self._step = step
            while self._said and self._last is None:
                self._turn.wait(1)
            return step == self._last

    def close(self) -> None:
        self._over = True

    def _agree(self) -> None:
        while not self._over and self._last is None:
            try:
                self._look()
            except Exception:  # of a service that is gone, which Peers tell
                pass
            time.sleep(0.05 if self._said else 1)

    def _look(self) -> None:
        told = dict(self._client.key_value_dir_get(f"{self._place}/"))
        asked = self._asked()
        mine = f"{self._place}/{self._index}"
        if mine not in told and (told or asked is not None):
            with self._turn:
                self._said = self._said or json.dumps([self._step, asked])
            self._client.key_value_set(mine, self._said, allow_overwrite=True)
        if len(told) == self._count:
            steps, signals = zip(*map(json.loads, told.values()), strict=True)
            with self._turn:
                self.signals = {number for number in signals if number is not None}
                self._last = max(steps) + 1
                self._turn.notify_all()


def _gone(host: int) -> str:
    return f"host {host} ended without a word: it was killed, or crashed. {_AGAIN}"


def _silent(hosts: list[int]) -> str:
    which = "host " + ", ".join(map(str, hosts))
    return (
        f"{which} fell silent: nothing was heard for {SILENCE} seconds (killed, stopped, out of "
        f"memory, or cut off). {_AGAIN}"
    )


_BROKEN = re.compile(
    "gloo|nccl|unavailable|deadline|aborted|cancelled|connection|barrier|heartbeat", re.IGNORECASE
)


def _of_others(error: BaseException | None) -> bool:
    """Whether an exception looks like a collective that another host did not answer."""
    while error is not None:
        if isinstance(error, RuntimeError | CheckpointError) and _BROKEN.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
