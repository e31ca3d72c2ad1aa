"""Multi-token prediction: models that predict several bytes at a time, and may draft with it.

mtp-heads: eight parallel heads (Gloeckle et al. 2024, 2404.19737) on the flat model, whose last
block the first head is. With --model.mtp.count 4 and a corpus of subwords, its token version.
mtp-linear: eight linear heads (EvaByte 2025) on the flat model.
mtp-modules: three sequential modules (DeepSeek-V3, 2412.19437).
mtp-registers: a register after every eighth byte (MuToR, 2505.10518).
mtp-lookahead: seven look-ahead tokens after every sixteenth byte (PaSS, 2311.13581).
mtp-spacebyte: eight parallel heads on SpaceByte, whose last decoder block the first head is.

    python train.py mtp-heads
    python generate.py RUN --prompt "def " --speculative auto

Any other preset takes them too: python train.py magnet --model.mtp.kind heads
"""

from dataclasses import replace

from octavo.configs.model import MTPConfig
from octavo.configs.patches import presets as patches
from octavo.configs.schema import Config

MINUTES = {
    "mtp-heads": 9.9, "mtp-linear": 4.1, "mtp-modules": 6.6, "mtp-registers": 3.9,
    "mtp-lookahead": 5.1,
}  # fmt: skip
"""On two CPU cores (docs/models.md)."""


def presets() -> dict[str, Config]:
    flat, spacebyte = Config(), patches()["spacebyte"]
    heads = MTPConfig("heads", count=8)
    (stage,) = spacebyte.model.stages
    decoded = replace(stage, decoder_layers=stage.decoder_layers - 1)

    def predicting(config: Config, mtp: MTPConfig, **changes) -> Config:
        return replace(config, model=replace(config.model, mtp=mtp, **changes))

    return {
        "mtp-heads": predicting(flat, heads, layers=flat.model.layers - 1),
        "mtp-linear": predicting(flat, replace(heads, kind="linear")),
        # 0.3 / D and 0.3 / (1 - 0.3), as published.
        "mtp-modules": predicting(flat, MTPConfig("modules", count=4, weight=0.1)),
        "mtp-registers": predicting(flat, MTPConfig("registers", count=8, weight=0.43, every=8)),
        "mtp-lookahead": predicting(flat, MTPConfig("lookahead", count=8, weight=0.1, every=16)),
        "mtp-spacebyte": predicting(spacebyte, heads, stages=(decoded,)),
    }
