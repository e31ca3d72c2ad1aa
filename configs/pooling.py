"""Dynamic token pooling (Nawrot et al. 2023, 2211.09761) with supervised boundaries, and its kin.

pooling-space: units end at white space.
pooling-unigram: a predictor learns the ends of Unigram subwords.
pooling-entropy: a predictor learns where the model's own entropy rises.

    python train.py pooling-space

aunet: AU-Net (Videau et al. 2025, 2506.14761) of two stages, bytes, words, pairs of words.
lobef: byte n-grams and words fused before a flat byte trunk (after LOBEF, 2024).
"""

from dataclasses import replace

from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config, DataConfig

SPACE = StageConfig(
    segmenter="whitespace", max_unit=64, capacity=0.2, width=128, heads=4,
    encoder_layers=1, pool="mean", unpool="repeat", decoder_layers=1,
)  # fmt: skip


MINUTES = {"pooling-space": 3.2, "aunet": 2.9, "lobef": 4.7}
"""On two CPU cores (docs/models.md)."""


def presets() -> dict[str, Config]:
    space = Config(
        model=ModelConfig(width=128, layers=3, heads=4, stages=(SPACE,)),
        data=DataConfig(length=512, batch_size=8),
    )

    def predicted(supervision: str) -> ModelConfig:
        stage = replace(SPACE, segmenter="predicted", supervision=supervision, capacity=0.4)
        return replace(space.model, stages=(stage,))

    unigram = replace(
        space, model=predicted("marks"), data=replace(space.data, source="stdlib-unigram")
    )
    aunet = replace(
        space,
        model=ModelConfig(
            width=192, layers=2, heads=6,
            stages=(
                replace(SPACE, width=96, heads=3, window=128, pool="last", unpool="multilinear"),
                StageConfig(
                    segmenter="stride", max_unit=2, width=128, heads=4, encoder_layers=1,
                    pool="last", unpool="multilinear", decoder_layers=1,
                ),
            ),
        ),
    )  # fmt: skip
    lobef = replace(
        space,
        model=ModelConfig(
            width=128, layers=0, heads=4, embedding="ngram_conv",
            stages=(replace(SPACE, encoder_layers=1, decoder_layers=3),),
        ),
    )  # fmt: skip
    return {
        "pooling-space": space,
        "pooling-unigram": unigram,
        "pooling-entropy": replace(space, model=predicted("entropy")),
        "aunet": aunet,
        "lobef": lobef,
    }
