"""Models whose layers are not all attention: a gated linear recurrence (Gated DeltaNet, Yang et al.
2024, 2412.06464) keeps a state of constant size, however long the document.

hybrid: the flat byte model, two recurrent layers for each one of attention.
hnet-delta: H-Net (Hwang et al. 2025, 2507.07955) with recurrent encoder and decoder, as published
(there of Mamba-2).

    python train.py hybrid

Any stack takes a pattern: --model.mixers gated_delta gated_delta attention
"""

from dataclasses import replace

from octavo.configs.learned import presets as learned
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config

PATTERN = ("gated_delta", "gated_delta", "attention")


def presets() -> dict[str, Config]:
    hnet = learned()["hnet"]
    stages = tuple(
        replace(stage, mixers=("gated_delta",), window=None) for stage in hnet.model.stages
    )
    return {
        "hybrid": Config(model=ModelConfig(layers=3, mixers=PATTERN)),
        "hnet-delta": replace(hnet, model=replace(hnet.model, stages=stages)),
    }
