"""Any model as the PyTorch file that ships with it, ``modeling_octavo.py``.

Its modules are named as ours; stacked layers are taken apart, and matrices lie as PyTorch has them.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.interchange.exported import Exported
from octavo.model.check import ends_at_marks
from octavo.run.directory import MARKER
from octavo.run.marks import Rule, line_breaks, read_rule
from octavo.run.saved import Saved, load
from octavo.tokenizers.interface import Tokenizer

CODE = Path(__file__).with_name("modeling_octavo.py")

Marker = tuple[Saved, Rule]
"""The small model that marks text, and its rule."""


def marker_in(run: Saved, folder: Path | None) -> Marker | None:
    """What marks text for a run's model, kept in its folder; None if it reads no marks. Raises
    ConfigError if there should be one, and is none."""
    if not ends_at_marks(run.config.model):
        return None
    if folder is None or not (folder / MARKER).is_dir():
        raise ConfigError(
            f"the model's units end at marks of a small model, of which there is none in {folder}."
        )
    return load(folder / MARKER), read_rule(folder / MARKER)


def exported(run: Saved, marker: Marker | None = None) -> Exported:
    """A model with all that decides where its units end. Raises ConfigError, with what it is, for
    one that the file cannot compute."""
    model = run.config.model
    _refuse(model, marker)
    described = {
        "model_type": "octavo",
        "architectures": ["OctavoForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{CODE.stem}.OctavoConfig",
            "AutoModelForCausalLM": f"{CODE.stem}.OctavoForCausalLM",
        },
        "hidden_size": model.widths[0],
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "vocab_size": run.tokenizer.vocab_size,
        "max_position_embeddings": run.length,
        "tie_word_embeddings": False,  # the file does it itself
        **_described(run.config.model, run.tokenizer),
        "scripts": _scripts(model),
    }
    if marker is not None:
        described["marker"] = _marker(*marker)
    notes = [f"{CODE.name} computes it: trust_remote_code=True. It is written for clarity."]
    if model.mtp.kind != "none":
        notes.append("What predicts further ids (multi-token prediction) is left out.")
    return Exported(described, _weights(run, marker), (CODE,), tuple(notes))


MODEL = {
    "embedding": {
        "bit_biased", "ngram_conv", "ngram_hash", "ngram_polynomial", "one_hot", "table",
    },
    "mixers": {"attention", "gated_delta"},
    "activation": {"gelu", "relu2", "silu"},
    **dict.fromkeys(
        (
            "width", "layers", "heads", "kv_heads", "head_dim", "mlp_width", "gated_mlp", "qk_norm",
            "qkv_bias", "window", "rope_base", "rope_scaling", "norm_eps", "token_dropout",
            "hash_rows", "tied_embeddings", "stages", "mtp",
        )
    ),
}  # fmt: skip
"""The settings of a model that the file computes, or that evaluation has no use for, and which of
their values; None: all."""
STAGE = {
    "segmenter": {
        "coding_rate", "deletion", "frontier", "marks", "predicted", "routing", "spacelike",
        "stride", "unit_mark", "whitespace", "word_start",
    },
    "evaluation": {"sum", "threshold"},  # what is sampled is drawn by JAX's random numbers
    "mixers": {"attention", "gated_delta"},
    "pool": {"concat", "cross", "last", "latent", "mean", "prefix", "soft"},
    "unpool": {"at_end", "cross", "multilinear", "prefix", "repeat", "smooth", "split"},
    **dict.fromkeys(
        (
            "supervision", "supervision_weight", "rates", "margin", "scripts", "predictor_width",
            "predictor_released", "max_unit", "capacity", "width", "heads", "window",
            "encoder_layers", "encoder_scope", "slots", "projection", "decoder_layers",
            "decoder_scope", "spread", "end_norms", "predict_ends",
        )
    ),
}  # fmt: skip
MTP = {
    "kind": {"none", "heads", "linear", "modules", "registers", "lookahead"},
    **dict.fromkeys(("count", "weight", "every")),
}


def _refuse(model: ModelConfig, marker: Marker | None) -> None:
    """Raise ConfigError, by its name, for what the file does not compute."""
    _check("model", model, MODEL)
    _check("model.mtp", model.mtp, MTP)
    for stage in model.stages:
        _check("stage", stage, STAGE)
    if marker is not None:
        inner = marker[0].config.model
        _refuse(inner, None)
        if ends_at_marks(inner) or _scripts(inner):
            raise ConfigError("the model that marks ends of units reads marks or scripts itself.")


def _check(section: str, settings: Any, known: dict[str, set[str] | None]) -> None:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name not in known:
            wrong = value != field.default
        else:
            allowed = known[field.name]
            each = value if isinstance(value, tuple) else (value,)
            wrong = allowed is not None and not allowed.issuperset(each)
        if wrong:
            said = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise ConfigError(
                f"{CODE.name}, which an export ships, does not compute {section}.{field.name} "
                f"{said}."
            )


def _described(model: ModelConfig, tokenizer: Tokenizer) -> dict:
    vocabulary = tokenizer.vocabulary
    names = ("bos_id", "unit_mark", "unit_ends")
    ids = {name: getattr(vocabulary, name) for name in names}
    return {"model": dataclasses.asdict(model), "ids": ids}


def _scripts(model: ModelConfig) -> dict | None:
    """What tells writing systems apart, if predictors of their own do."""
    from octavo.model.units.segmenters.predicted import routes_of
    from octavo.tokenizers.unicode import scripts

    if not (model.stages and model.stages[0].scripts):
        return None
    return {"pages": len(scripts.pages()[1]), "routes": list(routes_of(model.stages[0].scripts))}


def _marker(small: Saved, rule: Rule) -> dict:
    breaks = np.flatnonzero(line_breaks(small.tokenizer)).tolist() if rule.reset else []
    return {
        **_described(small.config.model, small.tokenizer),
        "vocab_size": small.tokenizer.vocab_size,
        "length": small.length,
        "threshold": rule.threshold,
        "rise": rule.rise,
        "breaks": breaks,
    }


def _weights(run: Saved, marker: Marker | None) -> Iterator[tuple[str, np.ndarray]]:
    from octavo.tokenizers.unicode import scripts

    for name, leaf in _of_model(run):
        yield f"model.{name}", leaf
    if _scripts(run.config.model):
        first, values = scripts.pages()
        yield "model.scripts.first", first.astype(np.int32)
        yield "model.scripts.values", values.astype(np.uint8)
    if marker is not None:
        for name, leaf in _of_model(marker[0]):
            yield f"model.marker.model.{name}", leaf


def _of_model(run: Saved) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters by their names in the file, float32, one at a time."""
    embedding = run.definition.embedding.folded(run.params["embedding"])
    for path, leaf in flatten_dict(run.params | {"embedding": embedding}).items():
        name = run.definition.paths[path]
        if leaf is None or _of_training(name):
            continue
        leaf = np.asarray(leaf, np.float32)
        if "blocks" not in name:
            yield _entry(name, leaf)
            continue
        # Layers lie stacked; in a pattern of mixers, those of each place by themselves.
        at = name.index("blocks") + 1
        period, place, within = 1, 0, name[at:]
        if isinstance(name[at], int):
            stacked = {
                other[at] for other in run.definition.paths.values() if other[:at] == name[:at]
            }
            period, place, within = len(stacked), name[at], name[at + 1 :]
        for i, layer in enumerate(leaf):
            yield _entry((*name[:at], i * period + place, *within), layer)


def _of_training(name: tuple) -> bool:
    """What only training or drafting asks."""
    if name[0] == "mtp":
        return name[1] != "next"
    baseline = "segmenter" in name and name[-1] == "value_bias" or name[-3:-1] == _BASELINE
    return baseline or "end_predictor" in name


_BASELINE = ("segmenter", "value")


def _entry(name: tuple, leaf: np.ndarray) -> tuple[str, np.ndarray]:
    # PyTorch's linear maps hold theirs the other way round.
    return ".".join(map(str, name)), leaf.T if name[-1] == "weight" else leaf
