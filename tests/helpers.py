"""What several tests share."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from octavo.configs.schema import Config, MeshConfig
from octavo.evaluation.score import packed_rows
from octavo.model.batch import FIELDS, Batch
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.training.checkpoint import load_params
from octavo.training.sharding import make_mesh
from octavo.training.state import Definition, abstract_params, define

ROOT = Path(__file__).parents[1]

SMALL = {"width": 64, "layers": 2, "heads": 4, "batch_size": 8, "length": 64, "steps": 4}
"""What a test cannot afford at its real size, by field name, in any nested config."""


def shrink(config):
    """The same config with its sizes capped by ``SMALL``; its choices stay."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = shrink(value)
        elif field.name in SMALL:
            changes[field.name] = min(value, SMALL[field.name])
    return dataclasses.replace(config, **changes)


def defined(config: Config, vocab_size: int = 256) -> tuple[Definition, dict]:
    """The model and parameters far from their near-uniform start, so that leaks show."""
    definition = define(config, vocab_size, "cpu")
    params = jax.jit(definition.init)(jax.random.key(1))
    return definition, jax.tree.map(lambda leaf: leaf * 2, params)


def batch_of(documents: list[bytes], length: int, tokenizer=None) -> Batch:
    """Documents packed in order into rows of ``length``."""
    tokenizer = tokenizer or ByteTokenizer()
    encoded = [tokenizer.encode(document) for document in documents]
    rows = np.stack(packed_rows(encoded, tokenizer, length, overlap=0))
    return Batch(**{name: jnp.asarray(rows[:, i]) for i, name in enumerate(FIELDS)}).widen()


def random_text(seed: int, size: int) -> bytes:
    """Bytes of words, spaces, punctuation and multi-byte characters."""
    rng = np.random.default_rng(seed)
    pieces = ["the ", "a", "éè", "日本", ", ", "\n", "  ", "xyz", "Ω", "7", "word "]
    text = "".join(rng.choice(pieces, size)).encode()
    return text[:size]


def words(seed: int, size: int) -> bytes:
    """Text that a model can learn quickly: a few words in random order."""
    rng = np.random.default_rng(seed)
    vocabulary = ["over", "the", "lazy", "dog", "jumps", "fox", "quick", "brown", "and", "très"]
    text = " ".join(rng.choice(vocabulary, size // 4)).encode()[:size]
    return text.decode(errors="ignore").encode()  # no character cut in half


def arguments_of(config: Config, workdir) -> list[str]:
    """The command line that gives ``config``, on top of the default preset."""
    found = ["--workdir", str(workdir)]
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        if dataclasses.is_dataclass(values):
            for name, value in dataclasses.asdict(values).items():
                found += [f"--{section.name}.{name}", str(value)]
    return found


def metrics_of(workdir) -> dict[int, dict]:
    """metrics.jsonl by step, without what the clock decides. No step may come twice."""
    rows = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    by_step = {row["step"]: row for row in rows}
    assert len(by_step) == len(rows)
    return {
        step: {name: value for name, value in row.items() if not name.startswith("perf/")}
        for step, row in by_step.items()
    }


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """One of the scripts, in a process of its own with one device."""
    settings = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"} | environment
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The same, to its end."""
    process = start(script, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def saved_params(workdir, config: Config) -> list[np.ndarray]:
    """The newest parameters of a run."""
    definition = define(config, 256, "cpu")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params, _ = load_params(Path(workdir), abstract_params(definition, mesh))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
