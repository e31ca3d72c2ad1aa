"""Boundaries that are learned with the language model.

pooling-gumbel: dynamic token pooling (Nawrot et al. 2023, 2211.09761) with relaxed Bernoulli
boundaries under a binomial prior.
flexitokens: FLEXITOKENS (Owodunni et al. 2025, 2507.12720): a rate that may fall short.
pooling-policy: ends drawn, and learned by policy gradient with a learned baseline.
byteflow: ByteFlow (Deng et al. 2026, 2603.03583), made causal: equal shares of the coding rate.
magnet: MAGNET (Ahia et al. 2024, 2407.08818): a predictor and a prior for each writing system.
manta: MANTa (Godey et al. 2022, 2212.07284), made causal: soft frontiers, hard closes.
hnet: H-Net (Hwang et al. 2025, 2507.07955), local attention in place of Mamba-2.
hnet-2stage: H-Net of two stages.
mrt5: the delete gate of MrT5 (Kallini et al. 2024, 2410.20771) before a causal trunk.
toucan: Toucan (Fleshman & Van Durme 2023, 2311.08620): units decoded whole, ends foreseen.

    python train.py pooling-gumbel

Each but flexitokens, pooling-policy and byteflow comes in three sizes of equal training FLOPs per
byte with the flat model of that size: as it is, for a laptop, and as ``NAME-100m`` and ``NAME-1b``,
for pods (docs/models.md has the table).

magnet wants text in many scripts; its rates come from parallel text (docs/models.md):

    python prepare.py my-texts/ --out corpora/multilingual
    python train.py magnet
"""

from dataclasses import replace

from octavo.configs.flat import around
from octavo.configs.flat import presets as flat_presets
from octavo.configs.model import ModelConfig, StageConfig
from octavo.configs.schema import Config, DataConfig

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
fitted to parallel text (rates.py); the others by bytes per word."""

ROUTING = replace(
    GUMBEL, segmenter="routing", supervision="ratio", supervision_weight=0.5, pool="last",
    unpool="smooth", projection="learned_pad", window=64, end_norms=True,
)  # fmt: skip
ROUTING_THIRD = replace(ROUTING, rates=(1 / 3,), capacity=0.6)

STAGES = {
    "pooling-gumbel": (GUMBEL,),
    "magnet": (replace(GUMBEL, scripts=SCRIPTS, rates=RATES, predictor_width=64),),
    "manta": (replace(GUMBEL, segmenter="frontier", spread="unit", pool="soft", window=64),),
    "hnet": (ROUTING,),
    "hnet-2stage": (replace(ROUTING_THIRD, width=96), ROUTING_THIRD),
    "mrt5": (
        replace(
            GUMBEL, segmenter="deletion", supervision="controller", rates=(0.5,), pool="last",
            capacity=0.75,
        ),
    ),
    "toucan": (
        replace(
            GUMBEL, supervision_weight=2.0, unpool="prefix", decoder_scope="unit",
            predict_ends=True,
        ),
    ),
}  # fmt: skip

LAPTOP_STAGES = {
    "flexitokens": (replace(GUMBEL, supervision="hinge"),),
    "pooling-policy": (replace(GUMBEL, supervision="policy"),),
    "byteflow": (replace(GUMBEL, segmenter="coding_rate", supervision="kept", pool="last"),),
}
"""Other ways to learn where to cut, on the trunk of pooling-gumbel."""

# Inner layers (and, for a laptop, the inner width) that give a system the FLOPs of the flat model.
LAPTOP = {
    "pooling-gumbel": (128, 3), "magnet": (128, 3), "manta": (160, 3), "hnet": (160, 2),
    "hnet-2stage": (160, 2), "mrt5": (128, 2), "toucan": (128, 3), "flexitokens": (128, 3),
    "pooling-policy": (128, 3), "byteflow": (128, 3),
}  # fmt: skip
LAYERS = {
    "100m": {
        "pooling-gumbel": 20, "magnet": 21, "manta": 23, "hnet": 20, "hnet-2stage": 35, "mrt5": 5,
        "toucan": 21,
    },
    "1b": {
        "pooling-gumbel": 28, "magnet": 28, "manta": 29, "hnet": 28, "hnet-2stage": 44, "mrt5": 7,
        "toucan": 28,
    },
}  # fmt: skip
WIDTHS = {"100m": (768, 896, 1024), "1b": (2048, 2560, 3072)}
"""Of bytes, of a stage between, and of units; heads have 128."""
ROOM = {0.4: 0.25, 0.6: 0.4, 0.75: 0.55}
"""Capacity of long rows for that of short ones: rates of long rows vary less."""


def _laptop(name: str, stages: tuple[StageConfig, ...]) -> Config:
    width, layers = LAPTOP[name]
    source = "corpora/multilingual" if name == "magnet" else "stdlib"
    model = ModelConfig(width=width, layers=layers, heads=width // 32, stages=stages)
    return Config(model=model, data=DataConfig(source=source, length=512, batch_size=8))


def _big(name: str, size: str) -> Config:
    stages, (outer, middle, inner) = STAGES[name], WIDTHS[size]
    widths = (outer, inner) if len(stages) == 1 else (outer, middle, inner)
    layers = 2 if len(stages) == 1 else 1
    # Kernels of GPUs have no windows: only what is decided within one keeps it.
    window = 512 if name == "manta" else None
    stages = tuple(
        replace(
            stage, capacity=ROOM[stage.capacity], encoder_layers=layers, decoder_layers=layers,
            window=window,
        )
        for stage in stages
    )  # fmt: skip
    source = "corpora/multilingual" if name == "magnet" else None
    flat = flat_presets()[f"flat-{size}"]
    return around(flat, f"{name}-{size}", stages, widths, LAYERS[size][name], source)


def presets() -> dict[str, Config]:
    laptop = STAGES | LAPTOP_STAGES
    return {name: _laptop(name, stages) for name, stages in laptop.items()} | {
        f"{name}-{size}": _big(name, size) for size in LAYERS for name in STAGES
    }
