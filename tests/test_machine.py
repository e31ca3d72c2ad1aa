"""What the machine is asked before JAX starts."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KiB, on any machine
import numpy as np
from octavo.machine import keep_memory
if {keep}:
    keep_memory()
def once():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 26, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
once()
print(once())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_used_again():
    """64 MiB are 16,384 pages: they come from the system once."""
    found = [
        int(subprocess.check_output(
            [sys.executable, "-c", FAULTS.format(keep=keep)], env=os.environ, text=True
        ))
        for keep in (True, False)
    ]  # fmt: skip
    kept, usual = found
    assert kept < 100 < usual
