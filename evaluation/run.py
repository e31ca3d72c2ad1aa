"""A finished or running run, opened for scoring and sampling."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from octavo.configs.schema import Config, MeshConfig, from_json
from octavo.tokenizers import load as tokenizers
from octavo.tokenizers.interface import Tokenizer
from octavo.training.checkpoint import CheckpointError, load_params
from octavo.training.sharding import make_mesh
from octavo.training.state import Definition, abstract_params, define


@dataclass(frozen=True)
class Run:
    """What a run directory holds, ready to use."""

    config: Config
    tokenizer: Tokenizer
    definition: Definition
    params: dict
    step: int
    mesh: Mesh


def open_run(folder: str | Path) -> Run:
    """Load the newest parameters of a run onto all devices, and make their mesh current.

    Raises CheckpointError if the folder is no run or holds no readable checkpoint.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} is no run directory: it has no config.json. Name the folder that train.py "
            "printed."
        )
    try:
        config = from_json(json.loads((folder / "config.json").read_text()))
        tokenizer = tokenizers.load(folder / "tokenizer.json")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be opened: {error}") from error
    mesh = make_mesh(MeshConfig())
    jax.set_mesh(mesh)
    definition = define(config, tokenizer.vocab_size, jax.devices()[0].platform)
    params, step = load_params(folder, abstract_params(definition, mesh))
    return Run(config, tokenizer, definition, params, step, mesh)
