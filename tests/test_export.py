"""What transformers makes of an export is what the run's own model computes."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import batch_of, forward, opened, random_text
from octavo.configs.model import ModelConfig, MTPConfig
from octavo.configs.schema import Config, DataConfig
from octavo.interchange import folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FLAT = ModelConfig(width=32, layers=2, heads=4, rope_base=5000.0)
MODELS = {
    "llama": replace(FLAT, gated_mlp=True, activation="silu", qk_norm=False, kv_heads=2),
    "mistral": replace(FLAT, gated_mlp=True, activation="gelu", qk_norm=False, window=7),
    "qwen3": replace(FLAT, gated_mlp=True, window=7, tied_embeddings=True, kv_heads=1),
    "arcee": replace(FLAT, qk_norm=False, activation="gelu", embedding="bit_biased"),
    "apertus": FLAT,
    "apertus, tied": replace(FLAT, tied_embeddings=True, embedding="bit_biased"),
    "apertus, one-hot": replace(FLAT, width=256, tied_embeddings=True, embedding="one_hot"),
    "qwen3, heads": replace(FLAT, gated_mlp=True, mtp=MTPConfig("heads", 3)),
}


def config_of(model: ModelConfig) -> Config:
    return Config(model=model, data=DataConfig(length=96))


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, tmp_path):
    run = opened(config_of(MODELS[name]))
    folder.write(run, str(tmp_path / "out"), "float32")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.model_type == name.partition(",")[0] and model.dtype == torch.float32
    batch = batch_of([random_text(1, 80)], 96)
    ids = np.asarray(batch.tokens)[:1, :81]
    ours = forward(run.definition)(run.params, batch)[0, :81]
    with torch.no_grad():
        theirs = model(torch.tensor(ids, dtype=torch.long)).logits[0].numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert np.abs(ours).max() > 1
