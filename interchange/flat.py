"""Flat models as architectures of transformers that compute the same function.

================  =====================================
llama             gated MLP
mistral           gated MLP, sliding window
qwen3             gated MLP, QK norm, window or none
qwen2             gated MLP, biases of queries, keys and values, window or none
arcee             MLP of two projections
apertus           MLP of two projections, QK norm
================  =====================================

What theirs do not have is folded into weights: our embeddings are scaled on the way in.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from octavo.configs.model import ModelConfig, RopeScaling
from octavo.interchange.exported import Exported, parameters
from octavo.model.embeddings import LearnedTable, embedding
from octavo.model.mtp import mtp
from octavo.run.definition import define
from octavo.run.saved import Saved

ACTIVATIONS = {"relu2": "relu2", "gelu": "gelu_pytorch_tanh", "silu": "silu"}
"""Theirs, by ours."""


@dataclass(frozen=True)
class Architecture:
    """One of transformers'."""

    model_type: str
    name: str
    """Of its class."""
    gated: bool
    qk_norm: bool
    window: bool
    """Whether it can have one."""
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    qkv_bias: bool = False

    def names(self) -> dict[str, tuple[str, bool]]:
        """Of each parameter of a block, as checkpoints call it: what theirs is called, and whether
        it is the other way round."""
        projections = zip(("query", "key", "value", "out"), "qkvo", strict=True)
        found = {
            f"attention.{ours}.weight": (f"self_attn.{theirs}_proj.weight", True)
            for ours, theirs in projections
        }
        if self.qkv_bias:
            for ours, theirs in zip(("query", "key", "value"), "qkv", strict=True):
                found[f"attention.{ours}.bias"] = f"self_attn.{theirs}_proj.bias", False
        for part in ("up", "down", *(("gate",) if self.gated else ())):
            found[f"mlp.{part}.weight"] = f"mlp.{part}_proj.weight", True
        if self.qk_norm:
            found["attention.query_norm.gain"] = "self_attn.q_norm.weight", False
            found["attention.key_norm.gain"] = "self_attn.k_norm.weight", False
        before = ("attention_norm.gain", "mlp_norm.gain")
        return found | {o: (f"{t}.weight", False) for o, t in zip(before, self.norms, strict=True)}


ARCHITECTURES = (
    Architecture("llama", "LlamaForCausalLM", True, False, False),
    Architecture("mistral", "MistralForCausalLM", True, False, True),
    Architecture("qwen3", "Qwen3ForCausalLM", True, True, True),
    Architecture("qwen2", "Qwen2ForCausalLM", True, False, True, qkv_bias=True),
    Architecture("arcee", "ArceeForCausalLM", False, False, False),
    Architecture(
        "apertus", "ApertusForCausalLM", False, True, False,
        ("attention_layernorm", "feedforward_layernorm"),
    ),
)  # fmt: skip


QWEN = ("qwen2", "qwen3")
"""Those whose config.json says of each layer whether it has the window."""


def architecture(config: ModelConfig) -> Architecture | None:
    """The first that computes what a model does; None if none does."""
    flat = not config.stages and set(config.mixers) == {"attention"}
    if not flat or embedding(config.embedding).reach:
        return None
    for one in ARCHITECTURES:
        ours = config.gated_mlp, config.qk_norm, config.qkv_bias
        if ours == (one.gated, one.qk_norm, one.qkv_bias) and (one.window or config.window is None):
            return one
    return None


def exported(run: Saved) -> Exported:
    """A flat model of which there is an ``architecture``."""
    config, tokenizer = run.config.model, run.tokenizer
    found = architecture(config)
    assert found is not None
    following = mtp(config.mtp.kind)
    stacks = ["trunk.stack.blocks."]
    if following is not None and following.next_flops(config, run.length):
        stacks.append("mtp.first.blocks.")
    tied = config.tied_embeddings and issubclass(embedding(config.embedding), LearnedTable)
    about = {
        "model_type": found.model_type,
        "architectures": [found.name],
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_width,
        "num_hidden_layers": config.layers + len(stacks) - 1,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_size,
        "hidden_act": ACTIVATIONS[config.activation],
        "max_position_embeddings": run.length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_theta": config.rope_base, **_scaling(config.rope_scaling)},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
    }
    if config.rope_scaling.factor != 1:
        about["rope_scaling"] = about["rope_parameters"]  # before transformers 5
    if found.window:
        about["sliding_window"] = config.window
    if found.model_type in QWEN:
        kind = "full_attention" if config.window is None else "sliding_attention"
        about["use_sliding_window"] = config.window is not None
        about["max_window_layers"] = 0
        about["layer_types"] = [kind] * about["num_hidden_layers"]
    notes = ()
    if following is not None:
        notes = ("What predicts further ids (multi-token prediction) is left out.",)
    return Exported(about, _weights(run, found, stacks, tied), notes=notes)


def _scaling(ours: RopeScaling) -> dict:
    if ours.factor == 1:
        return {"rope_type": "default"}
    if ours.original_length <= 2 * math.pi * ours.low:  # the shortest wave has 2 pi positions
        return {"rope_type": "linear", "factor": ours.factor}
    return {
        "rope_type": "llama3",
        "factor": ours.factor,
        "low_freq_factor": ours.low,
        "high_freq_factor": ours.high,
        "original_max_position_embeddings": ours.original_length,
    }


def _weights(
    run: Saved, found: Architecture, stacks: list[str], tied: bool
) -> Iterator[tuple[str, np.ndarray]]:
    ours, width = parameters(run.params), run.config.model.width
    gain = np.asarray(ours["norm.gain"])
    yield from _edges(run, tied)
    # The scale of embeddings is in them; what reads the same rows as a head is given it back.
    yield "model.norm.weight", gain / width**0.5 if tied else gain
    layer = 0
    for stack in stacks:
        parts = {name: ours[stack + name] for name in found.names() if stack + name in ours}
        for i in range(len(next(iter(parts.values()), ()))):
            for name, (theirs, turned) in found.names().items():
                leaf = np.asarray(parts[name][i])
                yield f"model.layers.{layer}.{theirs}", leaf.T if turned else leaf
            layer += 1


def _edges(run: Saved, tied: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Input and output embeddings, ``[V, d]``: of any kind that looks at one id, what it gives for
    each."""
    exact = replace(run.config, execution=replace(run.config.execution, compute_dtype="float32"))
    definition = define(exact, run.tokenizer.vocabulary, "cpu")
    ids = jnp.arange(run.tokenizer.vocab_size)[None]

    @jax.jit
    def rows(params):
        return definition.bind(params).embedding(ids, jnp.zeros_like(ids))[0]

    @jax.jit
    def head(params):
        model = definition.bind(params)
        if model.head is not None:
            return model.head.weight[...].T
        return model.embedding.logits(jnp.eye(run.config.model.width)).T

    with jax.set_mesh(run.mesh), jax.default_matmul_precision("highest"):
        yield "model.embed_tokens.weight", np.asarray(rows(run.params))
        if not tied:
            yield "lm_head.weight", np.asarray(head(run.params))
