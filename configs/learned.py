"""Boundaries that are learned with the language model.

pooling-gumbel: dynamic token pooling (Nawrot et al. 2023, 2211.09761) with relaxed Bernoulli
boundaries under a binomial prior.
magnet: MAGNET (Ahia et al. 2024, 2407.08818): a predictor and a prior for each writing system.
manta: MANTa (Godey et al. 2022, 2212.07284), made causal: soft frontiers, hard closes.
hnet, hnet-2stage: H-Net (Hwang et al. 2025, 2507.07955), attention in place of Mamba.
mrt5: the delete gate of MrT5 (Kallini et al. 2024, 2410.20771) before a causal trunk.
toucan: Toucan (Fleshman & Van Durme 2023, 2311.08620): units decoded whole, ends foreseen.

    python train.py pooling-gumbel

magnet wants text in many scripts; its rates come from parallel text (docs/models.md):

    python prepare.py my-texts/ --out corpora/multilingual
    python train.py magnet
"""

from dataclasses import replace

from octavo.configs.schema import Config, DataConfig, ModelConfig, StageConfig

GUMBEL = StageConfig(
    segmenter="predicted", supervision="binomial", rates=(0.2,), max_unit=64, capacity=0.4,
    width=128, heads=4, encoder_layers=1, pool="mean", unpool="repeat", decoder_layers=1,
)  # fmt: skip

SCRIPTS = (
    "latin", "greek", "cyrillic", "hebrew+arabic", "devanagari", "khmer", "tibetan", "han",
    "hiragana+katakana", "hangul",
)  # fmt: skip
RATES = (0.2, 0.18, 0.1, 0.1, 0.1, 0.07, 0.07, 0.06, 0.23, 0.13, 0.18)
"""Of other scripts, then of each. Latin, Greek, Cyrillic, Khmer, Tibetan, Han, kana and Hangul as
fitted to parallel text (python -m octavo.evaluation.rates); the others by bytes per word."""


def presets() -> dict[str, Config]:
    gumbel = Config(
        model=ModelConfig(width=128, layers=3, heads=4, stages=(GUMBEL,)),
        data=DataConfig(length=512, batch_size=8),
    )

    def with_stage(**changes) -> Config:
        stage = replace(GUMBEL, **changes)
        return replace(gumbel, model=replace(gumbel.model, stages=(stage,)))

    routing = {
        "segmenter": "routing", "supervision": "ratio", "supervision_weight": 0.03, "pool": "last",
        "unpool": "smooth", "projection": "learned_pad",
    }  # fmt: skip
    hnet = with_stage(**routing)
    two_stages = tuple(
        replace(GUMBEL, **routing, width=width, rates=(1 / 3,), capacity=0.6)
        for width in (96, 128)
    )
    magnet = with_stage(scripts=SCRIPTS, rates=RATES, predictor_width=64)
    return {
        "pooling-gumbel": gumbel,
        "magnet": replace(
            magnet, data=replace(gumbel.data, source="corpora/multilingual")
        ),
        "manta": with_stage(segmenter="frontier", pool="soft", window=64),
        "hnet": replace(hnet, model=replace(hnet.model, width=160, heads=5)),
        "hnet-2stage": replace(
            hnet, model=ModelConfig(width=160, layers=3, heads=5, stages=two_stages)
        ),
        "mrt5": with_stage(
            segmenter="deletion", supervision="controller", rates=(0.5,), pool="last",
            capacity=0.75,
        ),
        "toucan": with_stage(unpool="prefix", decoder_scope="unit", predict_ends=True),
    }  # fmt: skip
