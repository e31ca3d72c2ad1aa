"""Every preset's training step as it would go to a GPU or a TPU, on a machine that has neither."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo

from helpers import of_preset, shrink
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.kinds import kinds
from octavo.configs.schema import MeshConfig
from octavo.model.cudnn import DOCUMENTS
from octavo.model.units.end_predictor import EndPredictor
from octavo.model.units.segmentation import Layout
from octavo.model.units.segmenters import segmenter as kind_of
from octavo.run.definition import define
from octavo.run.execution import execution_of
from octavo.tokenizers.words import WORDS, WordTokenizer
from octavo.training.trainer import Trainer


def cases(name: str) -> list[tuple[str, str]]:
    """Types and platforms to lower a preset for. Sizes of one system share their code: one of them
    goes to each platform in each type that has kernels of its own there."""
    own = presets()[name].execution.compute_dtype
    if name.endswith("-100m"):
        return [(own, "cuda")]
    if name.endswith(("-1b", "-7b")):
        return [(own, "tpu")]
    if f"{name}-100m" in presets():
        return [(own, "cuda")]
    return [*((dtype, "cuda") for dtype in {own: 0, "bfloat16": 0}), (own, "tpu")]


CASES = [of_preset(name, *case) for name in presets() for case in cases(name)]


@pytest.fixture(autouse=True)
def cudnn_without_cuda(monkeypatch):
    """All that stands in for a card: this machine has none to ask for its generation, and no cuDNN
    to ask for its version."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)


def lowered(config, platform: str):
    """The model's definition and the training step's StableHLO, with real head sizes and types,
    short rows, and few layers of a trunk."""
    data = dataclasses.replace(config.data, length=128, batch_size=2)
    layers = min(config.model.layers, max(2, len(config.model.mixers)))
    model = dataclasses.replace(config.model, layers=layers)
    mesh = MeshConfig()  # one device, where a preset states the replicas of a pod
    config = dataclasses.replace(config, model=model, data=data, mesh=mesh)
    trainer = Trainer.of(
        config, WordTokenizer(), devices=jax.devices()[:1],
        platform="gpu" if platform == "cuda" else platform,
    )  # fmt: skip
    with jax.set_mesh(trainer.mesh):
        traced = trainer.step.trace(trainer.abstract, trainer.abstract_batch())
        program = traced.lower(lowering_platforms=(platform,))
    return trainer.definition, program.as_text()


def with_settings(name: str, dtype: str, **changes):
    config = presets()[name]
    how = {"compute_dtype": dtype} | {k: changes.pop(k) for k in ("attention",) if k in changes}
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, **changes),
        execution=dataclasses.replace(config.execution, **how),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "dtype", "platform"), CASES)
def test_every_preset_lowers(name, dtype, platform):
    """With the kernel that is chosen by itself; and that kernel is what stands in the program."""
    definition, text = lowered(with_settings(name, dtype), platform)
    kernels = definition.backend.split("+")
    assert ("cudnn" in kernels) == ("__cudnn$fmha" in text)
    assert ("cudnn" in kernels) == (f"max_seg_per_batch\\22: {DOCUMENTS}" in text)  # packed
    assert ("splash" in kernels) == ("tpu_custom_call" in text)
    assert "cudnn" not in kernels or (platform, dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize(
    ("name", "dtype", "chosen"),
    [
        ("flat", "float32", "reference"),
        ("flat-100m", "bfloat16", "cudnn"),
        ("hat", "bfloat16", "reference"),  # heads of 34, and words that look ahead
        ("blt", "bfloat16", "cudnn+reference"),  # heads of 20 and windows around a trunk of 32
        ("manta-1b", "bfloat16", "cudnn+reference"),  # windows
        ("mrt5-100m", "bfloat16", "cudnn+reference"),  # softmax1 inside
        ("mtp-registers", "bfloat16", "reference"),  # extra positions
    ],
)
def test_what_a_gpu_gets(name, dtype, chosen):
    assert define(with_settings(name, dtype), WORDS, "gpu").backend == chosen


@pytest.mark.parametrize(
    ("name", "accumulation", "remat"),
    [("flat-100m", 1, "full"), ("flat-100m", 2, "none"), ("hnet-100m", 1, "full"),
     ("hnet-100m", 2, "none"), ("flat-1b", 8, "none")],
)  # fmt: skip
def test_what_eight_gpus_keep(name, accumulation, remat):
    config = presets()[name]
    train = dataclasses.replace(config.train, accumulation=accumulation)
    config = dataclasses.replace(config, train=train)
    assert execution_of(config, "gpu", devices=8).remat == remat


@pytest.mark.parametrize(
    ("name", "dtype", "kernel", "platform", "why"),
    [
        ("flat", "float32", "cudnn", "gpu", "it computes in bfloat16, not float32"),
        ("spacebyte", "bfloat16", "cudnn", "gpu", r"it has no window \(96 here\)"),
        ("toucan", "bfloat16", "cudnn", "gpu", r"it has no window \(65 here\)"),
        ("mrt5", "bfloat16", "cudnn", "gpu", "no softmax1"),
        ("mtp-lookahead", "float32", "splash", "tpu", "cannot hide the extra positions"),
        ("flat", "float32", "splash", "gpu", "runs on tpu, not on gpu"),
        ("flat", "bfloat16", "cudnn", "cpu", "runs on gpu, not on cpu"),
    ],
)
def test_a_kernel_that_cannot_serve_says_why(name, dtype, kernel, platform, why):
    with pytest.raises(ConfigError, match=f"^execution.attention {kernel} .*{why}.*use auto"):
        define(with_settings(name, dtype, attention=kernel), WORDS, platform)


def test_head_sizes_of_cudnn():
    for heads in (32, 2):  # of 4 and of 192
        config = with_settings("flat", "bfloat16", width=heads * (4 if heads > 2 else 192),
                               heads=heads, attention="cudnn")  # fmt: skip
        with pytest.raises(ConfigError, match="head sizes are multiples of 8 up to 128, not"):
            define(config, WORDS, "gpu")


@pytest.mark.parametrize("capability", ["7.5", "gfx90a"])
def test_cards_that_cudnn_does_not_serve(capability, monkeypatch):
    card = type("Card", (), {"compute_capability": capability})()
    monkeypatch.setattr("octavo.model.kernels.jax.devices", lambda: [card])
    assert define(with_settings("flat", "bfloat16"), WORDS, "gpu").backend == "reference"


def products(function, *arguments) -> list[str]:
    """The lines of dot products in a function's program for TPU."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    return [line for line in text.splitlines() if "stablehlo.dot_general" in line]


DECIDING = {presets()[name].model.stages[0].segmenter: name
            for name in ("magnet", "manta", "hnet", "mrt5")}  # fmt: skip


@pytest.mark.parametrize("name", DECIDING.values())
def test_decisions_multiply_float32_on_tpu(name):
    """By default, a TPU rounds to bfloat16 what it multiplies, gradients too."""
    learned = {k for k in kinds("units/segmenters") if kind_of(k).supervisions}
    assert DECIDING.keys() == learned - {"coding_rate"}  # whose products are sums, in float32
    stage = shrink(presets()[name].model.stages[0])
    segmenter = kind_of(stage.segmenter)(stage, nnx.Rngs(params=0))
    nothing = jnp.zeros((1, 8), jnp.int32)
    layout = Layout(nothing, nothing + 1, nothing > 0, nothing)

    def decided(x):
        decision, _ = segmenter.decide(x, layout, segmenter.init_carry(1))
        return jnp.sum(decision.log_odds)

    lines = products(jax.grad(decided), jnp.ones((1, 8, stage.width), jnp.bfloat16))
    assert lines and all("precision = [HIGHEST, HIGHEST]" in line for line in lines)


def test_foreseen_ends_multiply_float32_on_tpu():
    stage = shrink(presets()["toucan"].model.stages[0])
    foreseer = EndPredictor(stage, nnx.Rngs(params=0))
    x = jnp.ones((1, 8, stage.width), jnp.bfloat16)
    lines = products(foreseer, x, x)
    assert len(lines) == 3 and all("precision = [HIGHEST, HIGHEST]" in line for line in lines)
