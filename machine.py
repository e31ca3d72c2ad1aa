"""What the machine is asked before JAX starts."""

import contextlib
import ctypes
import sys

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # of glibc's malloc.h


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
