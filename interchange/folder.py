"""The folder of an export: written whole beside its place, then put there."""

import contextlib
import fnmatch
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

from octavo import files, storage
from octavo.configs.checks import ConfigError
from octavo.configs.schema import to_json
from octavo.interchange import custom, flat, reading, words
from octavo.interchange.card import card
from octavo.interchange.exported import Exported
from octavo.interchange.tokenizer import tokenizer_config, tokenizer_json
from octavo.run import mirror
from octavo.run.directory import CERTIFICATE, CONFIG, TOKENIZER
from octavo.run.saved import Saved, load
from octavo.tokenizers import load as tokenizers
from octavo.tokenizers.words import WordTokenizer

OURS = "octavo.json"
"""What an export says of the run that it was made of. Also what tells that a folder is one."""
PARTS = (
    "*.json", "*.safetensors", "README.md", "*_octavo.py", "__pycache__", "*.jinja",
)  # fmt: skip
"""What may lie in one."""
SHARD = 5 * 10**9
"""Bytes of a file of weights, at most, but for a weight that is larger."""


def export(name: str, out: str, step: int | None, dtype: str) -> list[str]:
    """Write the checkpoint of a run as a folder that transformers loads; what there is to say.

    Raises ConfigError if there is no such run or checkpoint, or if ``out`` is something else than
    an export; CheckpointError if the checkpoint cannot be read.
    """
    _check(out, name)
    with mirror.fetched(name, step) as folder:
        return write(load(folder, step), out, dtype, folder)


def write(run: Saved, out: str, dtype: str, folder: Path | None = None) -> list[str]:
    """The same of a run that is loaded, from a folder that has its results, if any, and what marks
    text for its model, if it reads marks."""
    made = exported(run, folder)
    with _placed(Path(os.path.realpath(out))) as partial:
        size = _write_weights(partial, made.weights, dtype)
        _write_config(partial, run, made, dtype)
        for file in made.code:
            shutil.copyfile(file, partial / file.name)
        told = _write_tokenizer(partial, run)
        certificate = folder and folder / CERTIFICATE / "certificate.json"
        if certificate and certificate.is_file():
            shutil.copyfile(certificate, partial / certificate.name)
        files.write(partial / "README.md", card(run, made, dtype, told, folder))
        for file in partial.glob("*.safetensors"):  # which its library lets nobody else read
            shutil.copymode(partial / CONFIG, file)
    kind = made.config["architectures"][0]
    return [f"{out}: step {run.step} as {kind}, {size:,} bytes of weights", told, *made.notes]


def exported(run: Saved, folder: Path | None = None) -> Exported:
    """A run's model as transformers computes it: as an architecture of its own if one does, else by
    a file that ships along. Raises ConfigError if there is no way."""
    if flat.architecture(run.config.model) is not None:
        return flat.exported(run)
    return custom.exported(run, custom.marker_in(run, folder))


def _check(out: str, run: str) -> None:
    storage.refuse(out, "OUT")
    path = Path(os.path.realpath(out))
    near = next(each for each in path.parents if os.path.lexists(each))
    if not near.is_dir():
        raise ConfigError(f"{out} cannot be written: {near} is no folder.")
    if path.is_relative_to(os.path.realpath(Path(run) / "checkpoints")):
        raise ConfigError(f"{out} is among the checkpoints of {run}; name another folder.")
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / OURS).is_file():
        raise ConfigError(f"{out} is there and is no export; name another folder.")
    known = (fnmatch.filter((each.name for each in path.iterdir()), part) for part in PARTS)
    if more := {each.name for each in path.iterdir()}.difference(*known):
        raise ConfigError(
            f"{out} also has what no export writes ({min(more)}), and would be replaced; move it "
            "away, or name another folder."
        )


@contextlib.contextmanager
def _placed(out: Path):
    """A folder to write to, which is ``out`` at the end, and nothing if anything fails."""
    partial, old = (
        out.with_name(f"{out.name}.{os.getpid()}.{kind}") for kind in ("partial", "old")
    )
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for path in (partial, old):
            shutil.rmtree(path, ignore_errors=True)


def _write_weights(folder: Path, weights: Iterable[tuple[str, np.ndarray]], dtype: str) -> int:
    """Bytes of all."""
    from safetensors.numpy import save_file

    kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = 0

    def put() -> None:
        save_file(held, folder / f"{len(shards)}.safetensors", {"format": "pt"})
        shards.append([*held])
        held.clear()

    for name, value in weights:
        # Tables of integers stay what they are.
        value = np.asarray(value, kind if value.dtype == np.float32 else None, order="C")
        if held and sum(each.nbytes for each in held.values()) + value.nbytes > SHARD:
            put()
        held[name] = value
        total += value.nbytes
    put()
    if len(shards) == 1:
        (folder / "0.safetensors").rename(folder / reading.WEIGHTS)
        return total
    where: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{i}.safetensors").rename(folder / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    files.write_json(folder / reading.INDEX, index)
    return total


def _write_tokenizer(folder: Path, run: Saved) -> str:
    """What there is to say of it."""
    ours = reading.OURS
    tokenizers.save(run.tokenizer, folder / ours)
    if isinstance(run.tokenizer, WordTokenizer):
        for name, content in words.files(run.tokenizer, run.length).items():
            files.write_json(folder / name, content)
        shutil.copyfile(words.CODE, folder / words.CODE.name)
        return (
            f"{words.CODE.name} gives the ids of {run.tokenizer.name} for any text in UTF-8 (with "
            f"trust_remote_code=True); {ours} is what Octavo reads, and cuts any bytes."
        )
    file = tokenizer_json(run.tokenizer)
    if file is None:
        return (
            f"The tokenizer {run.tokenizer.name} cannot be put as a tokenizer.json: there is none. "
            f"{ours} is what Octavo reads."
        )
    files.write(folder / TOKENIZER, json.dumps(file, ensure_ascii=False))
    files.write_json(
        folder / "tokenizer_config.json", tokenizer_config(run.tokenizer, file, run.length)
    )
    return (
        f"tokenizer.json gives the ids of {run.tokenizer.name} for any text in UTF-8; {ours} is "
        "what Octavo reads, and cuts any bytes."
    )


def _write_config(folder: Path, run: Saved, made: Exported, dtype: str) -> None:
    tokenizer = run.tokenizer
    edges = {
        "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.eos_id,
    }  # fmt: skip
    # The type by its name in transformers 5, and before.
    config = made.config | edges | {"dtype": dtype, "torch_dtype": dtype}
    files.write_json(folder / CONFIG, config)
    files.write_json(folder / "generation_config.json", edges)
    about = {"config": to_json(run.config), "step": run.step, "tokenizer": tokenizer.fingerprint}
    files.write_json(folder / OURS, about)
