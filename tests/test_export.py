"""What transformers makes of an export is what the run's own model computes."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from helpers import batch_of, forward, opened, random_text, run
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, MTPConfig, RopeScaling, StageConfig
from octavo.configs.schema import Config, DataConfig
from octavo.interchange import folder
from octavo.interchange.reading import Folder
from octavo.run.opened import open_run
from octavo.tokenizers.bytes import ByteTokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FLAT = ModelConfig(width=32, layers=2, heads=4, rope_base=5000.0, norm_eps=1e-3)
MODELS = {
    "llama": replace(FLAT, gated_mlp=True, activation="silu", qk_norm=False, kv_heads=2),
    "mistral": replace(FLAT, gated_mlp=True, activation="gelu", qk_norm=False, window=7),
    "qwen3": replace(FLAT, gated_mlp=True, window=7, tied_embeddings=True, kv_heads=1),
    "arcee": replace(FLAT, qk_norm=False, activation="gelu", embedding="bit_biased"),
    "apertus": FLAT,
    "apertus, tied": replace(FLAT, tied_embeddings=True, embedding="bit_biased"),
    "apertus, one-hot": replace(FLAT, width=256, tied_embeddings=True, embedding="one_hot"),
    "qwen2": replace(FLAT, gated_mlp=True, qk_norm=False, qkv_bias=True, head_dim=12),
    "llama, scaled": replace(
        FLAT, gated_mlp=True, qk_norm=False, rope_scaling=RopeScaling(8.0, 32, 1.0, 4.0)
    ),
    "apertus, scaled": replace(FLAT, rope_scaling=RopeScaling(4.0, 1)),
    "apertus, in part": replace(FLAT, rope_scaling=RopeScaling(4.0, 1, 0.05, 0.5)),
    "qwen3, heads": replace(FLAT, gated_mlp=True, mtp=MTPConfig("heads", 3)),
}


def config_of(model: ModelConfig) -> Config:
    return Config(model=model, data=DataConfig(length=96))


def theirs(out, **how):
    return transformers.AutoModelForCausalLM.from_pretrained(out, **how)


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, tmp_path):
    """And what generate() finds with its cache is what the whole text says at once."""
    ours = opened(config_of(MODELS[name]))
    folder.write(ours, str(tmp_path / "out"), "float32")
    model = theirs(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    scaled = MODELS[name].rope_scaling.factor != 1
    assert ("rope_scaling" in about) == scaled, "transformers 4 reads no rope_parameters"
    assert model.config.model_type == name.partition(",")[0] and model.dtype == torch.float32
    batch = batch_of([random_text(1, 80)], 96)
    ids = np.asarray(batch.tokens)[:1, :81]
    expected = forward(ours.definition)(ours.params, batch)[0, :81]
    with torch.no_grad():
        found = model(torch.tensor(ids, dtype=torch.long)).logits[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected).max() > 1
    begun = torch.tensor(ids[:, :20], dtype=torch.long)
    drawn = model.generate(begun, max_new_tokens=12, do_sample=False, eos_token_id=None)[0]
    whole = batch._replace(tokens=batch.tokens.at[0, :32].set(drawn.numpy()))
    again = forward(ours.definition)(ours.params, whole)[0, 19:31]
    assert drawn[20:].tolist() == again.argmax(-1).tolist()


def test_what_cannot_be_computed_is_refused(tmp_path):
    drawn = StageConfig("predicted", "binomial", pool="mean", capacity=0.5, evaluation="sampled")
    ours = opened(config_of(replace(FLAT, stages=(drawn,))))
    with pytest.raises(ConfigError, match="does not compute stage.evaluation sampled"):
        folder.write(ours, str(tmp_path / "out"), "float32")
    assert not any(tmp_path.iterdir())


def test_shards(tmp_path, monkeypatch):
    ours = opened(config_of(MODELS["apertus, tied"]))
    monkeypatch.setattr(folder, "SHARD", 20_000)
    folder.write(ours, str(tmp_path / "many"), "bfloat16")
    monkeypatch.undo()
    folder.write(ours, str(tmp_path / "one"), "bfloat16")
    assert len([*(tmp_path / "many").glob("*.safetensors")]) > 2
    one, many = (theirs(tmp_path / name).state_dict() for name in ("one", "many"))
    assert one.keys() == many.keys() and one["model.norm.weight"].dtype == torch.bfloat16
    for name, value in one.items():
        torch.testing.assert_close(value, many[name], rtol=0, atol=0)
    both = [dict(Folder(tmp_path / name).parameters()) for name in ("one", "many")]
    for path, value in both[0].items():
        np.testing.assert_array_equal(value, both[1][path])


@pytest.mark.xdist_group("trained")
def test_the_command(trained, tmp_path):
    """A run's own scores; what is there and no export stays; nothing is left half-written."""
    source, out = str(trained[0]), tmp_path / "out"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    done = run("export.py", source, str(tmp_path / "mine"))
    assert done.returncode == 2 and "is no export" in done.stderr
    inside = trained[0] / "checkpoints" / "30" / "out"
    done = run("export.py", source, str(inside))
    assert done.returncode == 2 and "is among the checkpoints" in done.stderr
    for step in ("10", "30"):
        done = run("export.py", source, str(out), "--step", step)
        assert done.returncode == 0 and "ApertusForCausalLM" in done.stdout, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]
    (tmp_path / "link").symlink_to(out)
    lines = folder.export(source, str(tmp_path / "link"), 10, "float32")
    assert (tmp_path / "link").is_symlink() and "step 10" in lines[0]
    (out / "notes.txt").write_text("a person's")
    with pytest.raises(ConfigError, match=r"what no export writes \(notes.txt\)"):
        folder.export(source, str(out), 30, "float32")
    (out / "notes.txt").unlink()
    folder.export(source, str(out), 30, "float32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine", "out"]
    card = (out / "README.md").read_text()
    results = json.loads((trained[0] / "results.json").read_text())
    for said in (f"{results['heldout/bits_per_byte']:.4f}", results["data"][0]["fingerprint"],
                 f"{results['flops']:.4g}", "30 of 30", "# license"):  # fmt: skip
        assert said in card
    ours = open_run(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    inputs = tokenizer("the lazy", return_tensors="pt")
    with torch.no_grad():
        found = theirs(out)(**inputs).logits[0].numpy()
    np.testing.assert_allclose(found, ours.logits("the lazy"), atol=1e-4)
    drawn = theirs(out).generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    text = tokenizer.decode(drawn, skip_special_tokens=True)
    assert text == ours.generate("the lazy", 20, temperature=0)


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    ours, out = opened(config_of(FLAT)), tmp_path / "out"
    folder.write(ours, str(out), "float32")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(folder, "card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.write(ours, str(out), "bfloat16")
    assert os.listdir(tmp_path) == ["out"]
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    assert isinstance(Folder(out).tokenizer, ByteTokenizer)
