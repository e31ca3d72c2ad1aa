"""What an export is made of, whichever way its model is expressed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict


@dataclass(frozen=True)
class Exported:
    """A model as transformers loads it."""

    config: dict
    """What config.json says of the model itself: ``model_type``, ``architectures``, sizes, and
    ``auto_map`` where code comes along."""
    weights: Iterable[tuple[str, np.ndarray]]
    """Each weight by its name there, float32, one at a time."""
    code: tuple[Path, ...] = ()
    """Files of Python to ship, which transformers runs with ``trust_remote_code``."""
    notes: tuple[str, ...] = ()
    """What the card says of it besides."""


def parameters(params: dict) -> dict[str, jax.Array]:
    """The parameters of a run (``Saved.params``) by their names in checkpoints, joined by dots:
    "trunk.stack.blocks.mlp.up.weight"."""
    leaves: dict[tuple, Any] = flatten_dict(params)
    return {".".join(map(str, path)): leaf for path, leaf in leaves.items()}
