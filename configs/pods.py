"""Systems whose units come from rules, at sizes for pods and hosts of GPUs (docs/models.md).

words-100m, words-1b: words.
hat-100m, hat-1b: hat; of text that python prepare.py my-texts/ --out corpora/words
--tokenizer words has made.
spacebyte-100m, spacebyte-1b: spacebyte.
megabyte-100m, megabyte-1b: megabyte.
blt-100m, blt-1b: blt; of text that python prepare.py my-texts/ --out corpora/entropy --marks RUN
has marked.
aunet-100m, aunet-1b: aunet.
flat-7b: flat.

    python train.py spacebyte-100m

Layers are as many as give the FLOPs per byte of the flat model of that size, with as many units as
rows have room for.
"""

from dataclasses import replace

from octavo.configs.flat import around
from octavo.configs.flat import presets as flat_presets
from octavo.configs.learned import WIDTHS
from octavo.configs.patches import presets as patches
from octavo.configs.pooling import presets as pooling
from octavo.configs.schema import Config, MeshConfig
from octavo.configs.words import presets as words

AUNET = {"100m": (512, 1024, 1536), "1b": (1024, 2560, 4096)}
"""Of bytes, words and pairs of words: about as published at 2 billion (512, 2048, 3456)."""
LAYERS = {
    "100m": {"words": 26, "hat": 23, "spacebyte": 22, "megabyte": 29, "blt": 17, "aunet": 25},
    "1b": {"words": 33, "hat": 28, "spacebyte": 28, "megabyte": 35, "blt": 23, "aunet": 41},
}
SOURCES = {"hat": "corpora/words", "blt": "corpora/entropy"}
"""Text that is no bytes, or marked."""


def _big(small: Config, flat: Config, name: str, size: str) -> Config:
    stages, embedding = small.model.stages, small.model.embedding
    outer, _, inner = WIDTHS[size]
    stages = tuple(
        replace(
            stage, window=stage.window and 512, encoder_layers=2 if stage.encoder_layers else 0,
            decoder_layers=2,
        )
        for stage in stages
    )  # fmt: skip
    hash_rows = 16_384 if embedding == "ngram_hash" else small.model.hash_rows
    return around(
        flat, f"{name}-{size}", stages, AUNET[size] if len(stages) > 1 else (outer, inner),
        LAYERS[size][name], SOURCES.get(name), embedding=embedding, hash_rows=hash_rows,
    )  # fmt: skip


def presets() -> dict[str, Config]:
    small, flat = words() | patches() | pooling(), flat_presets()
    flat_1b = flat["flat-1b"]
    flat_7b = replace(
        flat_1b,
        model=replace(flat_1b.model, width=4096, layers=32, heads=32, mlp_width=11_264),
        optimizer=replace(flat_1b.optimizer, learning_rate=3e-4),
        # Of a v5e-256, the fastest that was tried (docs/pods.md): 12.4 GiB of a chip's 15.75.
        mesh=MeshConfig(replica=2),
        execution=replace(flat_1b.execution, remat="qkv"),
        workdir="runs/flat-7b",
    )
    return {"flat-7b": flat_7b} | {
        f"{name}-{size}": _big(small[name], flat[f"flat-{size}"], name, size)
        for size, names in LAYERS.items()
        for name in names
    }
