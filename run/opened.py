"""A finished or running run, opened for scoring and sampling."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from octavo.configs.schema import Config, ConfigError, MeshConfig, ModelConfig
from octavo.data.shards import Corpus
from octavo.files import read_json, write_json
from octavo.run.checkpoint import (
    Record,
    load_params,
    newest_record,
    saved_steps,
)
from octavo.run.definition import Definition, abstract_params, define
from octavo.run.directory import CONFIG, MARKER, read_config
from octavo.run.errors import CheckpointError
from octavo.run.identity import check_identity
from octavo.run.marks import EntropyMarks, NoMarks
from octavo.run.sharding import make_mesh
from octavo.tokenizers import load as tokenizers
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.words import WordTokenizer


@dataclass(frozen=True)
class Run:
    """What a run directory holds, ready to use."""

    config: Config
    tokenizer: Tokenizer
    definition: Definition
    params: dict
    step: int
    mesh: Mesh
    marker: NoMarks | EntropyMarks


def marker_for(model: ModelConfig, tokenizer: Tokenizer, folder: Path) -> NoMarks | EntropyMarks:
    """What marks text for a model: nothing, unless it reads stored marks; then the small model that
    is kept in ``folder`` (of a corpus or a run).

    Raises ConfigError if there is none that marks by what it has read so far, or if the model's
    rule for units does not go with the tokenizer.
    """
    segmenter = model.stages[0].segmenter if model.stages else None
    if segmenter == "unit_mark" and not isinstance(tokenizer, WordTokenizer):
        raise ConfigError(
            f"the model's units end at marks among the ids, but {folder} was made by "
            f"{tokenizer.name}: use python prepare.py SOURCE --out DIR --tokenizer words."
        )
    by_bytes = segmenter in ("whitespace", "spacelike") or any(s.scripts for s in model.stages)
    if by_bytes and not isinstance(tokenizer, ByteTokenizer):
        raise ConfigError(
            f"the model's units end by bytes ({segmenter}), but {folder} was made by "
            f"{tokenizer.name}: use a corpus of bytes."
        )
    if segmenter != "marks":
        return NoMarks()
    if not (folder / MARKER).is_dir():
        raise ConfigError(
            f"the model's units end at stored marks, but {folder} has none that a model decides as "
            "it reads: make them with python prepare.py SOURCE --out DIR --marks RUN."
        )
    small = open_run(folder / MARKER)
    threshold = read_json(folder / MARKER / "threshold.json", float, error=CheckpointError)
    return EntropyMarks.of_run(small, threshold)


def check_marks(model: ModelConfig, corpora: list[Corpus]) -> None:
    """Raise ConfigError, naming the corpus, unless the marks of a mixture are what the model takes
    them for: made by what was read so far if units end at them, and all made alike."""
    if not model.needs_marks:
        return
    first = corpora[0]
    for corpus in corpora:
        folder = corpus.folder
        kind = (corpus.marks or {}).get("kind")
        if kind != "entropy" and any(stage.segmenter == "marks" for stage in model.stages):
            raise ConfigError(
                f"the model's units end at stored marks, but {folder} has none that a model "
                f"decides as it reads (they are of {kind or 'no kind'}): make them with python "
                "prepare.py SOURCE --out DIR --marks RUN."
            )
        if _made_by(corpus) != _made_by(first):
            raise ConfigError(
                f"the marks of {folder} and {first.folder} were made differently; a mixture needs "
                f"one kind: mark {folder} as {first.folder} was (entropy: by "
                f"--marks {first.folder / MARKER})."
            )


def _made_by(corpus: Corpus) -> tuple:
    """What decided a corpus's marks: equal for two that are marked alike."""
    small, marks = corpus.folder / MARKER, corpus.marks
    if not marks or marks.get("kind") != "entropy" or not small.is_dir():
        return (marks,)
    records = sorted(small.glob("checkpoints/*/meta/metadata"), key=lambda p: int(p.parts[-3]))
    if not records:
        raise CheckpointError(f"{small} holds no checkpoint.")
    meta = read_json(records[-1], dict, error=CheckpointError)
    length = read_json(small / "config.json", dict, error=CheckpointError)["data"]["length"]
    return marks, meta["checksums"]["params"], length


def keep_marker(source: Path, threshold: float | None, folder: Path) -> None:
    """Copy the small model of ``source`` (a run; or a marker, and no threshold) to ``folder``,
    without its optimizer."""
    out = folder / MARKER
    if out.exists():
        return
    partial = folder / f"{MARKER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    newest = str(saved_steps(source)[0])
    shutil.copytree(
        source / "checkpoints" / newest,
        partial / "checkpoints" / newest,
        ignore=shutil.ignore_patterns("opt"),
    )
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(source / name, partial / name)
    if threshold is None:
        shutil.copy(source / "threshold.json", partial / "threshold.json")
    else:
        write_json(partial / "threshold.json", threshold)
    partial.rename(out)


def open_run(folder: str | Path) -> Run:
    """Load the newest parameters of a run onto all devices, and make their mesh current.

    Raises ConfigError if the folder is no run, or its settings are not those that the checkpoint
    was trained with, CheckpointError if it holds no readable checkpoint.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder} is no run directory: it has no config.json. Name the folder that train.py "
            "printed."
        )
    config = read_config(folder)
    try:
        tokenizer = tokenizers.load(folder / "tokenizer.json")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be opened: {error}.") from error
    record = newest_record(folder)
    if record is not None:
        _check_as_trained(folder, config, tokenizer, record)
    mesh = make_mesh(MeshConfig())
    jax.set_mesh(mesh)
    definition = define(config, tokenizer.vocabulary, jax.devices()[0].platform)
    params, step = load_params(folder, abstract_params(definition, mesh))
    marker = marker_for(config.model, tokenizer, folder)
    return Run(config, tokenizer, definition, params, step, mesh, marker)


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
