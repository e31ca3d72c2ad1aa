"""Models of patches: bytes are modelled around a trunk that runs once a patch.

megabyte: patches of fixed size (Yu et al. 2023, 2305.07185).
spacebyte: global blocks at word-like boundaries (Slagle 2024, 2404.14408).
blt: Byte Latent Transformer (Pagnoni et al. 2024, 2412.09871), patches end where the next byte is
hard to foresee for a small byte model, which is trained first.

    python train.py flat --model.width 64 --model.heads 2 --model.window 128 --workdir runs/entropy
    python prepare.py stdlib --out corpora/entropy --marks runs/entropy
    python train.py blt
"""

from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config, DataConfig

MINUTES = {"megabyte": 2.1, "spacebyte": 2.9}
"""On two CPU cores (docs/models.md)."""


def presets() -> dict[str, Config]:
    data = DataConfig(length=512, batch_size=8)
    megabyte = Config(
        model=ModelConfig(
            width=192, layers=3, heads=6,
            stages=(
                StageConfig(
                    segmenter="stride", max_unit=4, width=96, heads=3, encoder_layers=0,
                    pool="concat", unpool="split", decoder_layers=2, decoder_scope="unit",
                ),
            ),
        ),
        data=data,
    )  # fmt: skip
    spacebyte = Config(
        model=ModelConfig(
            width=192, layers=3, heads=6,
            stages=(
                StageConfig(
                    segmenter="spacelike", max_unit=32, capacity=0.25, width=96, heads=3, window=96,
                    encoder_layers=1, pool="last", unpool="at_end", projection="pad",
                    decoder_layers=2,
                ),
            ),
        ),
        data=data,
    )  # fmt: skip
    blt = Config(
        model=ModelConfig(
            width=160, layers=3, heads=5, embedding="ngram_hash", hash_rows=2048,
            stages=(
                StageConfig(
                    segmenter="marks", max_unit=32, capacity=0.3, width=80, heads=4, window=128,
                    encoder_layers=1, pool="cross", slots=2, unpool="cross", decoder_layers=2,
                ),
            ),
        ),
        data=DataConfig(source="corpora/entropy", length=512, batch_size=8),
    )  # fmt: skip
    return {"megabyte": megabyte, "spacebyte": spacebyte, "blt": blt}
