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


KEPT = """
import os
from pathlib import Path
from octavo import cli
def main():
    import jax, jax.numpy as jnp
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    def compile():
        jax.clear_caches()
        print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4)))[0, 0]))
        return {path: path.stat().st_size for path in folder.iterdir()}
    whole = compile()
    for path in whole:
        os.truncate(path, 100)
    again = compile()
    assert again.keys() == whole.keys() and min(again.values()) > 1000
    compile()
    for path in whole:
        path.unlink()
    folder.rmdir()
    folder.write_text("a file in its place")
    jax.clear_caches()
    jax.jit(lambda x: x - 1)(jnp.ones(3))
cli.run(main)
"""


def test_programs_that_were_half_written(tmp_path):
    """They are made anew, and what cannot be kept ends nothing; each is said once."""
    kept = tmp_path / "programs"
    done = subprocess.run(
        [sys.executable, "-c", KEPT], capture_output=True, text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(kept)},  # of what takes 0 seconds, too
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith(f"warning: a compiled program cannot be read in {kept}: ")
    assert second.startswith("warning: a compiled program cannot be kept for the next start in ")
