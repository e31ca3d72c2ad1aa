"""What several tests share."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from octavo.batch import FIELDS, Batch
from octavo.configs import presets
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, MeshConfig
from octavo.model.embeddings import embedding as kind_of
from octavo.model.layers import Filled
from octavo.run.definition import Definition, define
from octavo.run.marks import NoMarks
from octavo.run.opened import Run
from octavo.run.rows import packed_rows
from octavo.run.saved import load
from octavo.run.sharding import make_mesh
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.interface import Vocabulary
from octavo.tokenizers.words import WORDS, WordTokenizer

ROOT = Path(__file__).parents[1]

SMALL = {
    "width": 64, "layers": 2, "heads": 2, "batch_size": 8, "length": 64, "steps": 4,
    "encoder_layers": 1, "decoder_layers": 2, "hash_rows": 64, "max_unit": 16, "window": 24,
}  # fmt: skip
"""What a test cannot afford at its real size, by field name, in any nested config."""


POD_SIZES = ("-100m", "-1b", "-7b")
"""What the names of presets for pods end with."""


def of_preset(name: str, *more):
    """A test's parameters. Tests of a preset share a worker, and with it what was compiled."""
    return pytest.param(name, *more, marks=pytest.mark.xdist_group(name))


def shrink(config):
    """The same config with its sizes capped by ``SMALL``; its choices stay."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = shrink(value)
        elif field.name == "stages":
            changes[field.name] = tuple(shrink(stage) for stage in value)
        elif field.name == "hash_rows" and not kind_of(config.embedding).uses:
            continue  # it would do nothing
        elif field.name in SMALL and value is not None:
            changes[field.name] = min(value, SMALL[field.name])
            if field.name == "layers":  # a whole pattern of mixers
                changes["layers"] = min(value, max(SMALL["layers"], len(config.mixers)))
    return dataclasses.replace(config, **changes)


@functools.cache
def _define(config: Config, vocabulary: Vocabulary, platform: str) -> Definition:
    """Trunks compute as many slots as the batch needs: of several numbers."""
    return define(
        config, vocabulary, platform, filled=(Filled(0.5, 0.7),) * len(config.model.stages)
    )


@functools.cache
def initial(
    config: Config, vocabulary: Vocabulary = WORDS, seed: int = 0
) -> tuple[Definition, dict]:
    """The model and parameters as they start, in numpy.

    Drawn one by one: what draws an array of some shape is compiled once for all models."""
    definition = _define(config, vocabulary, "cpu")
    return definition, jax.device_get(definition.init(jax.random.key(seed)))


@functools.cache
def defined(config: Config, vocabulary: Vocabulary = WORDS) -> tuple[Definition, dict]:
    """The model and parameters far from their near-uniform start, so that leaks show."""
    definition, params = initial(config, vocabulary, seed=1)
    rng = np.random.default_rng(0)
    # What starts at zero moves, too.
    return definition, jax.tree.map(
        lambda leaf: jnp.asarray(leaf * 2 + 0.03 * rng.standard_normal(leaf.shape, np.float32)),
        params,
    )


class SomeMarks(NoMarks):
    """Marks by a causal rule, in place of what a small model would mark."""

    def of_documents(self, encoded):
        return [np.asarray(self.rule(ids.astype(int)), np.uint8) for ids in encoded]

    def extend(self, params, tokens, cache, valid):
        return self.rule(tokens), cache

    @staticmethod
    def rule(ids):
        return (ids * 7 % 11 < 3) * 1


def opened(config: Config, tokenizer=None) -> Run:
    """The model that ``defined`` gives, on one device, as if it had been opened."""
    definition, params = defined(config)
    of_words = config.model.stages and config.model.stages[0].segmenter == "unit_mark"
    tokenizer = tokenizer or (WordTokenizer() if of_words else ByteTokenizer())
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return Run(config, tokenizer, definition, params, 0, mesh, SomeMarks())


PIECES = [b"th", "é".encode(), b"\xa9t", b"\xc3\xa9\xe6", b"\x97\xa5", b"e\xf0\x9f", b"a\xff"]
SCHEMES = {
    "bytes": ByteTokenizer(),
    "words": WordTokenizer(),
    "bpe": BPETokenizer([bytes([i]) for i in range(256)] + PIECES),
}


@functools.cache
def random_run(preset: str, scheme: str) -> Run:
    """A model of random weights, by one of ``SCHEMES``."""
    config = shrink(presets()[preset])
    if preset == "flat":
        config = dataclasses.replace(config, model=ModelConfig(width=32, layers=1, heads=2))
    definition, params = defined(config, SCHEMES[scheme].vocabulary)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return Run(config, SCHEMES[scheme], definition, params, 0, mesh, SomeMarks())


def forward(definition: Definition):
    """The model as one ``(params, batch) -> logits`` in numpy, compiled once for all batches of up
    to 64 rows of a length."""
    if id(definition) not in _FORWARD:
        run = jax.jit(lambda params, batch: definition.bind(params)(batch).logits)
        _FORWARD[id(definition)] = definition, run
    run = _FORWARD[id(definition)][1]

    def padded(params, batch):
        rows = len(batch.tokens)
        assert rows <= 64
        fill = lambda x: np.pad(x, ((0, 64 - rows), (0, 0)))  # noqa: E731
        return np.asarray(run(params, jax.tree.map(fill, batch)))[:rows]

    return padded


_FORWARD: dict = {}


def batch_of(documents: list[bytes], length: int, tokenizer=None) -> Batch:
    """Documents packed in order into rows of ``length``."""
    tokenizer = tokenizer or ByteTokenizer()
    encoded = [tokenizer.encode(document) for document in documents]
    rows, _ = packed_rows(encoded, tokenizer, length, 0, SomeMarks().of_documents(encoded))
    batch = Batch(**{name: rows[:, i] for i, name in enumerate(FIELDS)}).widen()
    return jax.tree.map(jnp.asarray, batch)


def random_text(seed: int, size: int) -> bytes:
    """Bytes of words, spaces, punctuation and multi-byte characters."""
    rng = np.random.default_rng(seed)
    pieces = ["the ", "a", "éè", "日本", ", ", "\n", "  ", "xyz", "Ω", "7", "word\x17 "]
    text = "".join(rng.choice(pieces, size)).encode()[:size]
    return text.decode(errors="ignore").encode().ljust(size, b"x")  # no character cut in half


def words(seed: int, size: int) -> bytes:
    """Text that a model can learn quickly: a few words in random order."""
    rng = np.random.default_rng(seed)
    vocabulary = ["over", "the", "lazy", "dog", "jumps", "fox", "quick", "brown", "and", "très"]
    text = " ".join(rng.choice(vocabulary, size // 4)).encode()[:size]
    return text.decode(errors="ignore").encode()  # no character cut in half


def arguments_of(config: Config, workdir) -> list[str]:
    """The command line that gives ``config``, on top of the default preset."""

    def flags(values: dict, prefix: str) -> list[str]:
        found = []
        for name, value in values.items():
            if isinstance(value, dict):
                found += flags(value, f"{prefix}{name}.")
            elif name == "stages":
                assert not value, "name the preset that has them"
            elif name not in ("workdir", "preset"):
                each = value if isinstance(value, tuple) else (value,)
                found += [f"--{prefix}{name}", *map(str, each)]
        return found

    return ["--workdir", str(workdir), *flags(dataclasses.asdict(config), "")]


def metrics_of(workdir) -> dict[int, dict]:
    """metrics.jsonl by step, without what the clock decides. No step may come twice."""
    rows = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    by_step = {row["step"]: row for row in rows}
    assert len(by_step) == len(rows)
    return {
        step: {name: value for name, value in row.items() if not name.startswith("perf/")}
        for step, row in by_step.items()
    }


def start(
    script: str, *arguments: str, devices: int = 1, cwd=None, **environment: str
) -> subprocess.Popen:
    """One of the scripts, in a process of its own with so many devices."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    settings = {"XLA_FLAGS": flags} | environment
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    script: str, *arguments: str, devices: int = 1, **environment: str
) -> subprocess.CompletedProcess:
    """The same, to its end."""
    process = start(script, *arguments, devices=devices, **environment)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def saved_params(workdir) -> list[np.ndarray]:
    """The newest parameters of a run."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load(workdir).params)]
