"""Octavo: pretrain byte-level language models in JAX and compare them in bits per byte.

run = octavo.open_run("runs/a")        # what train.py wrote: score, sample, compress
results = octavo.train(config)         # as train.py does
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.run.opened import open_run
    from octavo.train import train

__all__ = ["open_run", "train"]


def __getattr__(name: str):
    # Only when they are asked for: JAX takes seconds to import.
    if name == "open_run":
        from octavo.run.opened import open_run

        return open_run
    if name == "train":  # the module, which can be called
        import octavo.train

        return octavo.train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
