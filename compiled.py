"""Loops that numba compiles once for a machine, and keeps beside their file or in the user's cache.

Where neither can be written (a checkout that is read only, no home), they are compiled by each
process, which takes it some seconds.
"""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, which runs without the interpreter's lock."""
    return _made(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, for what other such functions call: it becomes a part of each."""
    return _made(function, inline="always")


def _made(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # "no locator available": there is nowhere to keep it
        return numba.njit(nogil=True, **options)(function)
