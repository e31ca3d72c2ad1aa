"""A run that begins with a Hugging Face folder: the same logits, its ids, and no folder needed to
go on."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import tokenizers
from helpers import batch_of, forward, metrics_of, run, words
from octavo.configs.checks import ConfigError
from octavo.configs.model import RopeScaling
from octavo.configs.schema import Config, DataConfig
from octavo.data.prepare import prepare
from octavo.data.sources import find_units
from octavo.interchange import folder, reading
from octavo.run.definition import define
from octavo.run.opened import open_run
from octavo.settings import parse_config
from octavo.tokenizers import load
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.fused import FusedTokenizer
from octavo.training import byteify
from octavo.training.initial import Source, resolved
from octavo.training.trainer import Trainer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, pad_token_id=0,
)  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip


def scaled(**changes) -> dict:
    return {"rope_parameters": LLAMA3 | changes}


MODELS = {
    "llama": (transformers.LlamaConfig, dict(rope_theta=5000.0)),
    "llama, tied": (transformers.LlamaConfig, dict(tie_word_embeddings=True)),
    "mistral": (transformers.MistralConfig, dict(sliding_window=7, head_dim=8)),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=8, eos_token_id=1)),
    "qwen3, tied": (
        transformers.Qwen3Config, dict(head_dim=8, eos_token_id=1, tie_word_embeddings=True)
    ),
    "arcee": (transformers.ArceeConfig, {}),
    "qwen2": (transformers.Qwen2Config, dict(eos_token_id=1)),
    "qwen3, head_dim": (transformers.Qwen3Config, dict(head_dim=12, eos_token_id=1)),
    "llama, scaled": (
        transformers.LlamaConfig, dict(max_position_embeddings=256, **scaled()),
    ),
    "llama, linear": (transformers.LlamaConfig, dict(
        rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0})),
}  # fmt: skip


def made(out, name="llama", dtype=torch.float32, **more):
    """A random model, and a tokenizer whose ids are none of ours: three special ones come first."""
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    cutter = tokenizers.Tokenizer(tokenizers.models.BPE())
    cutter.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    cutter.train_from_iterator([words(i, 500).decode() for i in range(4)], trainer)
    kind, own = MODELS[name]
    about = TINY | {"vocab_size": 310, "bos_token_id": 1, "eos_token_id": 2} | own | more
    torch.manual_seed(0)
    config = kind(**about)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight * 4 + 0.1 * torch.randn(weight.shape))
    model.save_pretrained(out, max_shard_size="20KB")
    cutter.save(str(out / "tokenizer.json"))
    return model.eval(), cutter


def params_of(path):
    """The model and parameters of ours."""
    there = reading.Folder(path)
    config = Config(model=there.model, data=DataConfig(length=96))
    definition = define(config, there.tokenizer.vocabulary, "cpu")
    return there, definition, unflatten_dict(dict(there.parameters()))


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, tmp_path):
    model, cutter = made(tmp_path, name)
    there, definition, params = params_of(tmp_path)
    tokenizer, text = there.tokenizer, words(9, 150).decode()
    tied = model.config.tie_word_embeddings and model.config.eos_token_id == 1
    assert there.model.tied_embeddings == tied
    batch = batch_of([text.encode()], 96, tokenizer)
    ours = forward(definition)(params, batch)[0]
    ids = cutter.encode(text, add_special_tokens=False).ids
    own = tokenizer.encode(text.encode())
    assert len(own) == len(ids) < 95 and (own != ids).any()
    with torch.no_grad():
        theirs = model(torch.tensor([[1, *ids]])).logits[0].numpy()
    rows = [*range(3, cutter.get_vocab_size()), model.config.eos_token_id]
    np.testing.assert_allclose(ours[: len(ids) + 1], theirs[:, rows], atol=1e-4)


def test_half_precision_is_read_as_it_is(tmp_path):
    model, _ = made(tmp_path, dtype=torch.bfloat16)
    up = dict(reading.Folder(tmp_path).parameters())[
        ("trunk", "stack", "blocks", "mlp", "up", "weight")
    ]
    expected = model.model.layers[1].mlp.up_proj.weight.detach().float().numpy().T
    np.testing.assert_array_equal(up[1], expected)


REFUSED = {
    "attention_bias": ({"attention_bias": True}, "has attention_bias"),
    "scaled": ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
    "no factor": ({"rope_parameters": {"rope_type": "linear"}}, "factor is a number above 0"),
    "factor": (
        {"rope_parameters": {"rope_type": "linear", "factor": "x"}},
        "factor is a number above 0",
    ),
    "low": (scaled(low_freq_factor=None), "low_freq_factor is a number above 0, not None"),
    "length": (
        scaled(original_max_position_embeddings=0),
        "original_max_position_embeddings is a number of at least 1",
    ),
    "high": (scaled(high_freq_factor=0.5), "high is above low"),
    "head_dim": ({"head_dim": 7}, "head_dim is even"),
    "act": ({"hidden_act": "tanh"}, "hidden_act 'tanh'"),
    "kind": ({"model_type": "gpt2"}, "is of model_type 'gpt2'; those that are read are llama, mis"),
    "size": ({"hidden_size": "x"}, "hidden_size is a number of at least 1, not 'x'"),
    "heads": ({"num_key_value_heads": "2"}, "num_key_value_heads is a number of at least 1"),
    "act list": ({"hidden_act": ["silu"]}, "hidden_act"),
    "eps": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is a number above 0, not"),
    "theta": ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta is a number above 0, not 'x'"),
    "rope": ({"rope_parameters": [1]}, "rope_parameters are an object"),
    "layers": ({"num_hidden_layers": 3}, "has no weight model.layers.2.input_layernorm"),
    "fewer": ({"num_hidden_layers": 1}, "no place for, as model.layers.1.input_layernorm"),
}


@pytest.mark.parametrize(("first", "window"), [(0, 4), (1, "some layers only"), (28, None)])
def test_layers_that_have_a_window_where_none_is_named(first, window):
    about = transformers.Qwen3Config(
        hidden_size=32, num_attention_heads=2, head_dim=16, num_hidden_layers=2,
        intermediate_size=64, use_sliding_window=True, sliding_window=4, max_window_layers=first,
    ).to_dict()  # fmt: skip
    del about["layer_types"]
    if isinstance(window, str):
        with pytest.raises(ConfigError, match=window):
            reading.settings(about, Path("config.json"))
    else:
        assert reading.settings(about, Path("config.json"))["window"] == window


def test_scaled_rotary_positions():
    """As transformers reads them: rope_scaling before rope_parameters, of older files. No field of
    a file before stays."""
    about = transformers.LlamaConfig(**TINY).to_dict()
    plain = {"rope_type": "default", "rope_theta": 7.0}

    def read(**changes):
        return reading.settings(about | changes, Path("config.json"))["rope_scaling"]

    expected = {"factor": 8.0, "low": 1.0, "high": 4.0, "original_length": 32}
    assert read(rope_scaling=LLAMA3, rope_parameters=plain) == expected
    assert read(rope_scaling=LLAMA3 | {"factor": 1.0})["original_length"] == 8192
    assert read(rope_scaling=None, rope_parameters=plain) == dataclasses.asdict(RopeScaling())
    with pytest.raises(ConfigError, match="of each kind of layer"):
        read(rope_parameters={"full_attention": plain})
    with pytest.raises(ConfigError, match="are an object, not"):
        read(rope_scaling=[])


def test_what_we_do_not_have_is_named(tmp_path):
    made(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    for change, said in REFUSED.values():
        (tmp_path / "config.json").write_text(json.dumps(about | change))
        with pytest.raises(ConfigError, match=said):
            params_of(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(about))
    (tmp_path / "tokenizer.json").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="has no tokenizer.json"):
        params_of(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "tokenizer.json")
    for file in (*tmp_path.glob("*.safetensors"), tmp_path / reading.INDEX):
        file.unlink()
    with pytest.raises(ConfigError, match="has no weights"):
        params_of(tmp_path)
    (tmp_path / reading.WEIGHTS).write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="model.safetensors is damaged"):
        params_of(tmp_path)
    (tmp_path / reading.WEIGHTS).unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match="is not read. Write them anew: python -c"):
        params_of(tmp_path)


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    """A model of theirs, and text that is prepared with its tokenizer."""
    place = tmp_path_factory.mktemp("subwords")
    (place / "text").mkdir()
    for i in range(100):
        (place / "text" / f"{i:03}.txt").write_bytes(words(i, 400))
    (place / "model").mkdir()
    made(place / "model")
    units = find_units([str(place / "text")], "text", None)
    tokenizer = load.load(place / "model" / "tokenizer.json")
    prepare(units, place / "shards", tokenizer, heldout=0.1, processes=1)
    return place


def test_begun_killed_and_continued(subwords, tiny, tmp_path):
    """Its settings by --config; its loss at first; later the folder is not needed."""
    model, there = str(subwords / "model"), subwords / "model"
    flags = ["--config", model, "--data.source", str(subwords / "shards"), "--data.length", "64",
             "--data.batch-size", "8", "--train.init-from", model]  # fmt: skip
    config = parse_config("train.py", "", [*flags])
    assert config.model == reading.Folder(there).model and config.model.norm_eps == 1e-5
    source = Source.of(config, load.load(there / "tokenizer.json"), Trainer.of(config).definition)
    assert source.origin["model_type"] == "llama" and source.fresh == source.left == ()
    assert resolved(config, None) == config
    train = ["--train.steps", "8", "--train.checkpoint-every", "4", "--train.evaluation-bytes",
             "500", "--train.sample-bytes", "0"]  # fmt: skip
    whole = tmp_path / "whole"
    done = run("train.py", *flags, *train, "--workdir", str(whole))
    assert done.returncode == 0, done.stderr
    assert f"begins     with the parameters of {model}" in done.stdout
    shutil.copytree(whole, tmp_path / "late")
    shutil.rmtree(tmp_path / "late" / "checkpoints" / "8")
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line).get("step", 0) <= 4]
    (tmp_path / "late" / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    there.rename(subwords / "elsewhere")
    try:
        done = run("train.py", "--workdir", str(tmp_path / "late"))
    finally:
        (subwords / "elsewhere").rename(there)
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "late") == metrics_of(whole)


def test_other_ids_are_refused(subwords, tiny):
    model = str(subwords / "model")
    config = parse_config("train.py", "", ["--config", model, "--train.init-from", model])
    config = dataclasses.replace(config, data=tiny.data)
    with pytest.raises(ConfigError, match="was trained on the ids of bpe .*tokenizer.json"):
        Trainer.of(config)


def test_weights_of_another_shape(subwords, tmp_path):
    shutil.copytree(subwords / "model", tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 40}))
    flags = ["--config", str(tmp_path / "copy"), "--train.init-from", str(tmp_path / "copy")]
    config = parse_config("train.py", "", [*flags, "--data.source", str(subwords / "shards")])
    trainer = Trainer.of(config)
    with (
        jax.set_mesh(trainer.mesh),
        pytest.raises(ConfigError, match=r"up.weight is \[2, 32, 40\]"),
    ):
        trainer.fresh()


def test_as_the_trunk_inside_a_model_of_bytes(subwords, tmp_path, monkeypatch):
    """Settings of the folder, a stage around them; the parts around are fitted to its subwords."""
    monkeypatch.setattr(byteify, "STEPS", 4)
    monkeypatch.setattr(byteify, "LENGTH", 64)
    model, file = str(subwords / "model"), subwords / "model" / "tokenizer.json"
    units = find_units([str(subwords / "text")], "text", None)
    ends = {name: FusedTokenizer(of) for name, of in
            {"theirs": load.load(file), "bytes": ByteTokenizer()}.items()}  # fmt: skip
    for name, tokenizer in ends.items():
        prepare(units, tmp_path / name, tokenizer, heldout=0.1, processes=1)

    def config(name):
        return parse_config("train.py", "", [
            "--config", model, "--config", "studies/byteify-model.toml", "--train.init-from", model,
            "--data.source", str(tmp_path / name), "--data.length", "96", "--data.batch-size", "8",
        ])  # fmt: skip

    asked = config("theirs")
    assert asked.model.stages[0].segmenter == "unit_mark"
    assert asked.model.norm_eps == 1e-5 and asked.model.kv_heads == 2
    last = dataclasses.replace(asked.model, stages=())
    with pytest.raises(ConfigError, match="has no stage around them. Name the file of the stage"):
        Trainer.of(dataclasses.replace(asked, model=last))
    allowed = dataclasses.replace(config("bytes").train, init_allow=("tokenizer",))
    source = Trainer.of(dataclasses.replace(config("bytes"), train=allowed)).source
    assert source and any("not fitted to its subwords" in line for line in source.said())
    trainer = Trainer.of(asked)
    lines: list[str] = []
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh(say=lines.append)
        params = jax.device_get(state["params"])
        _, metrics = trainer.step(state, trainer.place(next(trainer.batches())))
    assert np.isfinite(metrics["loss"])
    assert [line.split()[1] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    for path, leaf in reading.Folder(subwords / "model").parameters():
        if path[0] == "trunk":  # all but its embedding, head and last norm
            here = params["trunk"]["inner"]
            for key in path[1:]:
                here = here[key]
            np.testing.assert_array_equal(here, leaf)
    with pytest.raises(ConfigError, match=f"these ends of subwords are of bytes.*fused:{file}"):
        Trainer.of(config("bytes"))


@pytest.mark.xdist_group("trained")
def test_out_and_in_again(tiny, trained, tmp_path):
    """A run's export begins another as the run itself does."""
    ours = open_run(trained[0])
    folder.write(ours, str(tmp_path / "out"), "float32")
    states = []
    for source in (tmp_path / "out", trained[0]):
        train = dataclasses.replace(tiny.train, init_from=str(source))
        trainer = Trainer.of(resolved(dataclasses.replace(tiny, train=train), None))
        with jax.set_mesh(trainer.mesh):
            state = trainer.fresh()
            batch = trainer.place(next(trainer.batches()))
            params = jax.device_get(state["params"])
            states.append((params, trainer.step(state, batch)[1]))
    (params, metrics), (expected, of_run) = states
    assert metrics["loss"] == pytest.approx(float(of_run["loss"]), abs=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, expected)
