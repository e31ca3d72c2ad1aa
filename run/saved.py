"""What a run directory holds, read: settings, tokenizer, and the parameters of a checkpoint."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import jax
from jax.sharding import Mesh

from octavo.batch import Room
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, MeshConfig
from octavo.model.units.room import room_of
from octavo.model.units.segmenters.predicted import DRAWN
from octavo.run.checkpoint import Record, load_params, record_of, saved_steps
from octavo.run.definition import Definition, abstract_params, define
from octavo.run.directory import CONFIG, TOKENIZER, read_config
from octavo.run.errors import CheckpointError
from octavo.run.identity import check_identity
from octavo.run.sharding import make_mesh
from octavo.tokenizers import load as tokenizers
from octavo.tokenizers.interface import Tokenizer


@dataclass(frozen=True, eq=False)
class Saved:
    """A model with its parameters, and what they were trained with."""

    config: Config
    tokenizer: Tokenizer
    definition: Definition
    params: dict
    step: int
    mesh: Mesh | None
    """Over which the parameters lie."""

    @property
    def length(self) -> int:
        """Positions of a row: in training, unless another length was asked for."""
        return self.config.data.length

    @cached_property
    def apart(self) -> dict:
        """The parameters for decoding (``Definition.apart``)."""
        return self.definition.apart(self.params)

    @cached_property
    def room(self) -> Room:
        """What documents that share a row may take of it."""
        return room_of(self.config.model, self.length)


_define = lru_cache(maxsize=4)(define)
"""Checkpoints of one run share what is compiled."""


def load(
    folder: str | Path, step: int | None = None, ends: str | None = None, length: int | None = None
) -> Saved:
    """The parameters of a run at a step (None: the newest), over all devices. ends: in place of
    ``stage.evaluation`` of its predictors. length: of rows, in place of ``data.length``.

    Raises ConfigError if the folder is no run, has no checkpoint of that step, its settings are not
    those that the checkpoint was trained with, or the model takes no rows of that length,
    CheckpointError if the checkpoint, or all there is, cannot be read.
    """
    folder = Path(folder)
    config, tokenizer, _ = read(folder, step)
    if ends is not None:
        config = _ending(config, ends, folder)
    if length is not None:
        config = replace(config, data=replace(config.data, length=length))
    mesh = make_mesh(MeshConfig(), model=config.model)
    definition = _define(config, tokenizer.vocabulary, jax.devices()[0].platform)
    with jax.set_mesh(mesh):
        params, step = load_params(folder, abstract_params(definition, mesh), step)
    return Saved(config, tokenizer, definition, params, step, mesh)


def _ending(config: Config, ends: str, folder: Path) -> Config:
    stages = config.model.stages
    drawn = [stage.segmenter == "predicted" and stage.supervision in DRAWN for stage in stages]
    if not any(drawn):
        raise ConfigError(f"{folder} has no predictor that draws ends in training.")
    changed = tuple(
        replace(stage, evaluation=ends) if draws else stage
        for stage, draws in zip(stages, drawn, strict=True)
    )
    return replace(config, model=replace(config.model, stages=changed))


def read(folder: Path, step: int | None = None) -> tuple[Config, Tokenizer, Record | None]:
    """A run's settings, its tokenizer, and the record of its checkpoint of a step (None: the
    newest), if that can be read. Raises as ``load``; no parameters are read."""
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder} is no run directory: it has no {CONFIG}. Name the folder that train.py "
            "printed."
        )
    config = read_config(folder)
    try:
        tokenizer = tokenizers.load(folder / TOKENIZER)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be opened: {error}.") from error
    steps = saved_steps(folder)
    if step is not None and step not in steps:
        there = ", ".join(map(str, reversed(steps))) or "none"
        raise ConfigError(f"{folder} has no checkpoint of step {step}; there are: {there}.")
    record = record_of(folder, step)
    if record is not None:
        _check_as_trained(folder, config, tokenizer, record)
    return config, tokenizer, record


def _check_as_trained(folder: Path, config: Config, tokenizer: Tokenizer, record: Record) -> None:
    """Raise ConfigError unless what lies beside a checkpoint is what it was trained with."""
    if record.config is not None:
        who = f"checkpoint {record.step} of {folder} was not trained as its config.json says, but"
        advice = "Put the config.json back that belongs to it."
        check_identity(record.config, config, who, advice)
    trained = record.meta.get("tokenizer", tokenizer.fingerprint)
    if trained != tokenizer.fingerprint:
        raise ConfigError(
            f"checkpoint {record.step} of {folder} was trained with the tokenizer {trained}, but "
            f"its tokenizer.json is {tokenizer.fingerprint}. Put the right file back."
        )
