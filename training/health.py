"""Whether the chips compute what they should, before anything of a run is compiled."""

import functools
import socket
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from octavo import process
from octavo.training.errors import DeviceError

PATIENCE = 120.0
"""Seconds that a device has to answer; the first one loads libraries."""
SIZE = 512

_INSTEAD = "Take it out of service, and run the same command again."


def check_devices() -> None:
    """A product of matrices on each device of this host, and a sum over the devices of all hosts;
    both are known, and exact in any precision.

    Raises DeviceError for a device that fails or answers wrongly; one that does not answer within
    ``PATIENCE`` ends the process with code 70."""
    devices = jax.local_devices()
    wrong = _wrong([(device, functools.partial(_product, device)) for device in devices])
    if wrong:
        raise DeviceError(f"{_names(wrong)} fails a product of matrices: {_why(wrong)}. {_INSTEAD}")
    if jax.device_count() == 1:
        return
    wrong = _wrong([(None, _sum)])
    if wrong:
        raise DeviceError(
            f"the sum over all {jax.device_count()} devices fails on host {_host()}, though each "
            f"of its devices computes rightly alone: {_why(wrong)}. The links between them are to "
            "blame, or another host."
        )


def _product(device: Any) -> str | None:
    """What is wrong with what a device computes."""
    matrix = np.random.default_rng(0).integers(-2, 3, (SIZE, SIZE)).astype(np.float32)
    found = np.asarray(_square(jax.device_put(matrix, device)))
    return _differing(found, matrix @ matrix)


@jax.jit
def _square(matrix: jax.Array) -> jax.Array:
    return matrix @ matrix


def _sum() -> str | None:
    count = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("all",))
    numbers = (np.arange(count) % 7 + 1).astype(np.float32)  # small: any order of sums is exact
    each = jax.make_array_from_callback(
        (count,), NamedSharding(mesh, jax.P("all")), numbers.__getitem__
    )
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, jax.P()))(each)
    shards = [np.asarray(shard.data) for shard in total.addressable_shards]
    return _differing(np.array(shards), np.full(len(shards), numbers.sum()))


def _differing(found: np.ndarray, expected: np.ndarray) -> str | None:
    many = int((found != expected).sum())
    return f"{many} of {found.size} numbers are wrong" if many else None


def _wrong(asked: list) -> dict:
    """What is wrong, by what was asked. All are asked at once, each in a thread of its own."""
    found: dict = {}

    def ask(one, question) -> None:
        try:
            found[one] = question()
        except Exception as error:  # whatever the runtime makes of it
            found[one] = (str(error).strip().splitlines() or [repr(error)])[0][:300].rstrip(".")

    threads = [threading.Thread(target=ask, args=each, daemon=True) for each in asked]
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    if silent := [one for one, _ in asked if one not in found]:
        who = (
            f"the sum over all {jax.device_count()} devices, seen from host {_host()},"
            if None in silent
            else _names(silent)
        )
        process.end(
            f"{who} does not answer within {PATIENCE:g} seconds, and nothing was begun. {_INSTEAD}",
            process.STALLED,
        )
    return {one: why for one, why in found.items() if why}


def _names(devices) -> str:
    return f"device {', '.join(map(str, devices))} of host {_host()}"


def _why(wrong: dict) -> str:
    return "; ".join(dict.fromkeys(wrong.values()))


def _host() -> str:
    return f"{jax.process_index()} ({socket.gethostname()})"
