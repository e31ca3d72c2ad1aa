"""What the PyTorch file of an export computes is what the run's own model computes: in one pass,
step by step, and through the generate of transformers."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import ROOT, defined, forward, opened, random_text, shrink
from octavo.batch import FIELDS, Batch
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, RopeScaling, StageConfig
from octavo.configs.schema import Config, DataConfig
from octavo.interchange import custom, folder, words
from octavo.interchange.exported import Exported
from octavo.model.check import ends_at_marks
from octavo.run.marks import EntropyMarks, NoMarks
from octavo.run.opened import Run, open_run
from octavo.run.rows import packed_rows
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.fused import FusedTokenizer
from octavo.tokenizers.interface import Vocabulary
from octavo.tokenizers.words import WordTokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 64
TEXTS = [random_text(seed, size) for seed, size in ((1, 47), (2, 40), (3, 9))]
TEXTS += [b"a" * 47, b"a b " * 9, b""]  # longer than a unit may be, more units than there may be
SMALL = Config(model=ModelConfig(width=32, layers=1, heads=2), data=DataConfig(length=32))
"""What marks text for blt: a document has several of its rows."""


def of_config(config: Config, out: Path, rise: bool = False, reset: bool = False):
    """The run of a config, what marks its text, and the model that transformers makes of its
    export, by the file even where an architecture would do."""
    run, mark = opened(config), NoMarks()
    marker = None
    if ends_at_marks(config.model):
        mark = EntropyMarks.with_rate(opened(SMALL), TEXTS, 0.3, rise, reset)
        marker = opened(SMALL), mark.rule
    write(run, custom.exported(run, marker), out)
    return run, mark, load(out)


def write(run: Run, made: Exported, out: Path) -> None:
    out.mkdir()
    folder._write_weights(out, made.weights, "float32")
    folder._write_config(out, run, made, "float32")
    for file in made.code:
        (out / file.name).write_bytes(file.read_bytes())


def load(out: Path):
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        out, trust_remote_code=True, output_loading_info=True
    )
    assert not any(found[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == "OctavoForCausalLM"
    return model


def documents(run: Run, mark) -> list[tuple]:
    """Ids ``[N]`` of each text behind the begin of its document, and the model's logits."""
    encoded = [run.tokenizer.encode(text) for text in TEXTS]
    rows, places = packed_rows(encoded, run.tokenizer, LENGTH, 0, mark.of_documents(encoded))
    assert len(places) == len(TEXTS), "each lies in one row"
    batch = Batch(**{name: rows[:, i] for i, name in enumerate(FIELDS)}).widen()
    batch = jax.tree.map(jnp.asarray, batch)
    logits, ids = forward(run.definition)(run.params, batch), np.asarray(batch.tokens)
    return [
        (torch.tensor(ids[at.row, at.columns], dtype=torch.long), logits[at.row, at.columns])
        for at in places
    ]


def stepped(model, ids):
    """Logits ``[N, V]`` of pieces of several sizes, one after another."""
    cache, found, sizes = None, [], [5, 1, 14, *[1] * len(ids)]
    for piece in _pieces(ids, sizes):
        output = model(piece[None], cache=cache, use_cache=True)
        cache, found = output.cache, [*found, output.logits[0]]
    return torch.cat(found)


def _pieces(ids, sizes):
    while len(ids):
        yield ids[: sizes[0]]
        ids, sizes = ids[sizes[0] :], sizes[1:]


@torch.no_grad()
def check(run, mark, model):
    scale = 0.0
    for ids, ours in documents(run, mark):
        theirs = model(ids[None]).logits[0]
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-4)
        np.testing.assert_allclose(stepped(model, ids).numpy(), theirs.numpy(), atol=1e-4)
        scale = max(scale, np.abs(ours).max())
    assert scale > 1


def test_every_preset(preset, tmp_path):
    check(*of_config(preset, tmp_path / "out"))


BYTES = ModelConfig(width=48, layers=2, heads=4)
STAGE = StageConfig(
    segmenter="whitespace", max_unit=8, width=32, heads=2, window=9, pool="mean", unpool="repeat"
)
OTHERS = {
    "flat": dataclasses.replace(
        BYTES, mixers=("gated_delta", "attention"), layers=3, embedding="ngram_polynomial",
        hash_rows=97, kv_heads=2, window=7, gated_mlp=True, activation="silu", norm_eps=1e-2,
        rope_base=500.0, mlp_width=40, head_dim=10, qkv_bias=True,
        rope_scaling=RopeScaling(8.0, 32),
    ),
    "one-hot": dataclasses.replace(
        BYTES, width=256, embedding="one_hot", tied_embeddings=True, qk_norm=False, window=11,
        mixers=("gated_delta",), activation="gelu",
    ),
    "threshold": dataclasses.replace(
        BYTES, stages=(
            dataclasses.replace(
                STAGE, segmenter="predicted", supervision="hinge", evaluation="threshold",
                predictor_released=True, predictor_width=20, pool="cross", unpool="cross", slots=3,
                decoder_scope="unit", capacity=0.9,
            ),
        ),
    ),
    "frontier": dataclasses.replace(
        BYTES, kv_heads=1, stages=(
            dataclasses.replace(
                STAGE, segmenter="frontier", supervision="binomial", pool="soft", capacity=0.9,
                decoder_scope="unit", mixers=("gated_delta",), window=None,
            ),
        ),
    ),
    "whole units": dataclasses.replace(
        BYTES, stages=(
            dataclasses.replace(
                STAGE, segmenter="stride", max_unit=6, encoder_scope="unit", pool="last",
                unpool="split", capacity=0.25,
            ),
        ),
    ),
    "gate": dataclasses.replace(
        BYTES, window=5, embedding="ngram_conv", tied_embeddings=True, stages=(
            dataclasses.replace(
                STAGE, segmenter="deletion", supervision="controller", pool="last", capacity=0.9
            ),
        ),
    ),
    "two levels": dataclasses.replace(
        BYTES, mtp=dataclasses.replace(BYTES.mtp, kind="heads", count=2), stages=(
            dataclasses.replace(STAGE, projection="pad", unpool="at_end", encoder_layers=0),
            dataclasses.replace(
                STAGE, segmenter="routing", supervision="ratio", pool="last", unpool="smooth",
                projection="learned_pad", capacity=0.9, end_norms=True, window=None,
            ),
        ),
    ),
}  # fmt: skip
"""What no preset has."""


@pytest.mark.parametrize("rise, reset", [(True, False), (False, True)])
def test_marks(rise, reset, tmp_path):
    config = shrink(presets()["blt"])
    check(*of_config(config, tmp_path / "out", rise, reset))


@torch.no_grad()
@pytest.mark.parametrize("name", ["blt", "hnet-delta", "toucan"])
def test_generate(name, tmp_path):
    """A batch of unequal prompts goes on as each alone, with a cache or without, by beams too."""
    *_, model = of_config(shrink(presets()[name]), tmp_path / "out")
    prompts = [torch.tensor([2, *random_text(seed, size)]) for seed, size in ((4, 20), (5, 9))]
    how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 3, "eos_token_id": 3}
    alone = [model.generate(prompt[None], **how)[0, len(prompt) :] for prompt in prompts]
    ids, mask = (
        torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_side="left")
        for each in (prompts, [torch.ones_like(prompt) for prompt in prompts])
    )
    ids, how = ids.masked_fill(mask == 0, 3), how | {"attention_mask": mask}
    together = model.generate(ids, **how)[:, ids.shape[1] :]
    for one, row in zip(alone, together, strict=True):
        assert one.tolist() == row.tolist()[: len(one)]
    assert model.generate(ids, use_cache=False, **how)[:, ids.shape[1] :].equal(together)
    beams = [model.generate(ids, num_beams=3, use_cache=cached, **how) for cached in (True, False)]
    assert beams[0].equal(beams[1])
    right = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=3)
    logits = model(right, attention_mask=mask.flip(1)).logits
    for prompt, row in zip(prompts, logits, strict=True):
        assert (row[: len(prompt)] - model(prompt[None]).logits[0]).abs().max() < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings(name, tmp_path):
    config = Config(model=OTHERS[name], data=DataConfig(length=LENGTH))
    check(*of_config(config, tmp_path / "out"))


def test_ids_that_end_units(tmp_path):
    """Of a subword model that became one of bytes."""
    tokenizer = FusedTokenizer(BPETokenizer.train(TEXTS[:2], 270))
    config = shrink(presets()["hat"])
    run = dataclasses.replace(opened(config), tokenizer=tokenizer)
    definition, params = defined(config, tokenizer.vocabulary)
    run = dataclasses.replace(run, definition=definition, params=params)
    write(run, custom.exported(run), tmp_path / "out")
    check(run, NoMarks(), load(tmp_path / "out"))


@torch.no_grad()
def test_a_run(tmp_path):
    """Of an hourglass, by the command; the tokenizer goes along."""
    source = str(ROOT / "tests" / "data" / "runs" / "hnet")
    said = folder.export(source, str(tmp_path / "out"), None, "float32")
    run = open_run(source)
    assert "OctavoForCausalLM" in said[0]
    model = load(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer("the lazy dog", return_tensors="pt")
    logits = model(**inputs).logits[0].numpy()
    np.testing.assert_allclose(logits, run.logits("the lazy dog"), atol=1e-4)
    drawn = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    text = tokenizer.decode(drawn, skip_special_tokens=True)
    assert text == run.generate("the lazy dog", 20, temperature=0)


def test_a_model_of_marks_needs_them(tmp_path):
    with pytest.raises(ConfigError, match="of which there is none"):
        custom.marker_in(opened(shrink(presets()["blt"])), tmp_path)


def test_settings_are_known():
    """A new setting of models is one that the file computes, or it is refused."""
    of_ids = {"size", "bos_id", "eos_id", "are_bytes", "unit_mark", "unit_ends"}
    assert {field.name for field in dataclasses.fields(Vocabulary)} == of_ids
    for kind, known in ((ModelConfig, custom.MODEL), (StageConfig, custom.STAGE)):
        assert set(known) == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("rule", ["hat", "unicode"])
def test_words(rule, tmp_path):
    """The tokenizer that ships gives the same ids, and the text back."""
    tokenizer = WordTokenizer(rule)
    for name, content in words.files(tokenizer, LENGTH).items():
        (tmp_path / name).write_text(json.dumps(content))
    shutil.copy(words.CODE, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    rng = np.random.default_rng(0)
    some = "aZé日本カאב'\"’.:,;0123 \t\n\r_-👩‍👩🇩🇪🇫\u0301\u200d\u00ad\x02\x03\x10\x17!?iPhone"
    any_ = [*map(chr, [*range(0x20, 0x3000), *range(0x1F1E6, 0x1F200)])]
    texts = ["".join(rng.choice(list(some), 80)) for _ in range(100)]
    texts += ["".join(rng.choice(any_, 60)) for _ in range(50)] + ["x" * 200, "é" * 100, "", " "]
    for text in [*texts, "<|bos|> ab   cd."]:
        ids = theirs(text).input_ids
        assert ids == [tokenizer.bos_id, *tokenizer.encode(text.encode()).tolist()]
        assert theirs.decode(ids, skip_special_tokens=True) == text
    edges = theirs.bos_token_id, theirs.eos_token_id
    assert edges == (tokenizer.bos_id, tokenizer.eos_id) and len(theirs) == 256
