"""What a machine is asked before JAX starts: to keep compiled programs, and freed memory."""

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import sys
import warnings
from pathlib import Path

from octavo import process
from octavo.files import cache_folder

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # of glibc's malloc.h


def keep_programs() -> None:
    """Compiled programs are read by the next run that needs the same: in ``programs`` of the
    user's cache, or where JAX_COMPILATION_CACHE_DIR says (empty: nowhere). What was compiled for
    one kind of processor no other one finds.

    Where they cannot be read or written, they are compiled again; that is said once."""
    _hear_of_programs()
    with contextlib.suppress(RuntimeError, OSError):  # no home, or none that can be written to
        folder = cache_folder() / "programs" / _processor()
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                return
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


_FAULT = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(\w+)': (.*)", re.DOTALL
)


def _hear_of_programs() -> None:
    """Say JAX's warnings of what it keeps as sentences of ours, each kind once. It does not write a
    program whole at once, nor again: what a kill or a full disk left half is taken away here."""
    usual, said = warnings.showwarning, set()

    def show(message, *about, **more):
        fault = _FAULT.match(str(message))
        if fault is None:
            usual(message, *about, **more)
            return
        what, name, why = fault.groups()
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
        if what == "reading":
            with contextlib.suppress(OSError):
                for damaged in Path(folder).glob(f"{name}-*-cache"):
                    damaged.unlink()
        if what not in said:
            said.add(what)
            fate = "cannot be read" if what == "reading" else "cannot be kept for the next start"
            process.warn(f"a compiled program {fate} in {folder}: {why.splitlines()[0][:200]}")

    warnings.showwarning = show


def _processor() -> str:
    about = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(about.encode()).hexdigest()[:8]


def keep_memory() -> None:
    """Memory that a step frees serves the next one, rather than going back to the system and coming
    again page by page: on CPU, 20,000 page faults a step and more. (Of glibc alone: elsewhere,
    nothing is done.)"""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)):
            mallopt(option, value)
