"""What a result was computed with."""

import importlib.metadata
import platform

LIBRARIES = ("octavo", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions(*more: str) -> dict[str, str]:
    """Of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
