"""A Hugging Face folder on this machine as parameters of ours: flat models of the architectures
that ``interchange/flat.py`` knows."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from octavo import files
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, RopeScaling
from octavo.configs.schema import from_json
from octavo.interchange.flat import ACTIVATIONS, ARCHITECTURES, QWEN, Architecture
from octavo.run.directory import CONFIG, TOKENIZER
from octavo.tokenizers import load as tokenizers
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.parts import foreign

OURS = "octavo_tokenizer.json"
"""A tokenizer as a run has it, in an export."""
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


def is_foreign(folder: str | Path) -> bool:
    """Whether this is a folder of Hugging Face's."""
    try:
        return "model_type" in json.loads(files.read(Path(folder) / CONFIG))
    except (OSError, ValueError, TypeError):
        return False


@dataclass(frozen=True)
class Folder:
    """A model of one of ``ARCHITECTURES``. Raises ConfigError if it is none, or asks for what we do
    not have."""

    path: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """config.json."""
        return files.parse_json(
            files.read(self.path / CONFIG), dict, name=str(self.path / CONFIG), error=ConfigError
        )

    @cached_property
    def model(self) -> ModelConfig:
        """The settings of ours that compute the same."""
        found = settings(self.about, self.path / CONFIG)
        return from_json({"model": found}, str(self.path)).model

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What its text is cut by: as an export has it, or read as prepare.py reads it."""
        return self._tokenizer[0]

    @property
    def tokenizer_file(self) -> Path:
        """Raises ConfigError if there is none."""
        for name in (OURS, TOKENIZER, "tokenizer.model"):
            if (self.path / name).is_file():
                return self.path / name
        raise ConfigError(f"{self.path} has no {TOKENIZER}, which says what its ids mean.")

    @cached_property
    def _tokenizer(self) -> tuple[Tokenizer, np.ndarray, np.ndarray]:
        """The tokenizer, and of each id of it the rows of their input and of their output."""
        file = self.tokenizer_file
        try:
            found = tokenizers.load(file)
            if file.name == OURS:
                rows = np.arange(found.vocab_size)
                return found, rows, rows
            rows = foreign.ids(files.read(file), found)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be used: {error}.") from error
        first, last = _edges(self.about)
        if first is None or last is None:
            raise ConfigError(f"{self.path / CONFIG} has no bos_token_id and no eos_token_id.")
        inputs, outputs = np.append(rows, first), np.append(rows, last)
        return found, inputs, outputs

    @cached_property
    def _where(self) -> dict[str, Path]:
        """The file of each weight. Raises ConfigError if there are others than the model has."""
        where = self._files()
        needed = {"model.embed_tokens.weight", "model.norm.weight"}
        tied = self.about.get("tie_word_embeddings")
        names = [theirs for theirs, _ in _architecture(self.about, str(self.path)).names().values()]
        layers = range(self.model.layers)
        needed |= {f"model.layers.{i}.{name}" for i in layers for name in names}
        needed |= set() if tied else {"lm_head.weight"}
        if lacking := needed - set(where):
            raise ConfigError(f"{self.path} has no weight {min(lacking)}.")
        more = set(where) - needed - {"lm_head.weight"}
        more = {name for name in more if not name.endswith("rotary_emb.inv_freq")}
        if more:
            raise ConfigError(
                f"{self.path} has weights that its model_type has no place for, as {min(more)}."
            )
        return where

    def _files(self) -> dict[str, Path]:
        if (self.path / INDEX).is_file():
            index = files.read_json(self.path / INDEX, dict, error=ConfigError)
            return {name: self.path / str(file) for name, file in index["weight_map"].items()}
        file = self.path / WEIGHTS
        if not file.is_file():
            raise ConfigError(_without_weights(self.path))
        with _opened(file) as opened:
            return dict.fromkeys(opened.keys(), file)

    @cached_property
    def checksum(self) -> int:
        """Of the files of weights."""
        found = google_crc32c.Checksum()
        for file in sorted(set(self._where.values())):
            with open(file, "rb") as opened:
                while data := opened.read(1 << 24):
                    found.update(data)
        return int.from_bytes(found.digest(), "big")

    def parameters(self) -> Iterator[tuple[tuple, np.ndarray]]:
        """Every parameter, float32, by its path in checkpoints, one at a time. Raises ConfigError
        for ids that have no row."""
        model, found = self.model, _architecture(self.about, str(self.path))
        _, inputs, outputs = self._tokenizer
        width = model.width
        with ExitStack() as stack:
            opened = {
                file: stack.enter_context(_opened(file)) for file in set(self._where.values())
            }

            def read(name: str) -> np.ndarray:
                return opened[self._where[name]].get_tensor(name).astype(np.float32)

            def rows(name: str, ids: np.ndarray) -> np.ndarray:
                all_ = read(name)
                if ids.max() >= len(all_):
                    raise ConfigError(
                        f"{self.path}: the tokenizer has id {ids.max()}, but {name} has "
                        f"{len(all_)} rows."
                    )
                return all_[ids]

            # Our embeddings are scaled on the way in, so that theirs are it already.
            yield ("embedding", "rows"), rows("model.embed_tokens.weight", inputs) / width**0.5
            gain = read("model.norm.weight")
            yield ("norm", "gain"), gain * width**0.5 if model.tied_embeddings else gain
            if not model.tied_embeddings:
                tied = self.about.get("tie_word_embeddings")
                name = "model.embed_tokens.weight" if tied else "lm_head.weight"
                yield ("head", "weight"), rows(name, outputs).T
            for ours, (theirs, turned) in found.names().items() if model.layers else ():
                layers = [read(f"model.layers.{i}.{theirs}") for i in range(model.layers)]
                value = np.stack([leaf.T if turned else leaf for leaf in layers])
                yield ("trunk", "stack", "blocks", *ours.split(".")), value


def _opened(file: Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, "numpy")
    except SafetensorError as error:
        raise ConfigError(f"{file} is damaged: {error}.") from error


def _without_weights(folder: Path) -> str:
    if any(folder.glob("*.bin")):
        return (
            f"{folder} has its weights in pytorch_model.bin, which is not read. Write them anew: "
            'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    return f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}."


def settings(about: dict, file: Path) -> dict[str, Any]:
    """Those of ``ModelConfig`` that compute what a config.json, in its place, says. Raises
    ConfigError for what they cannot."""
    name = str(file)
    found = _architecture(about, name)

    def refuse(what: str) -> ConfigError:
        return ConfigError(f"{name} cannot be used: it has {what}, which no model here has.")

    width, heads = _number(about, "hidden_size", name), _number(about, "num_attention_heads", name)

    def positive(key: str, value: Any, default: float | None) -> float:
        value = default if value is None else value
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ConfigError(f"{name}: {key} is a number above 0, not {value!r:.40}.")
        return float(value)

    activations = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_new": "gelu"}
    activation = activations.get(str(about.get("hidden_act", "silu")))
    if activation is None:
        raise refuse(f"hidden_act {about['hidden_act']!r:.40}")
    for flag in ("attention_bias", "mlp_bias", "quantization_config"):
        if about.get(flag):
            raise refuse(flag)
    head_dim = None if about.get("head_dim") is None else _number(about, "head_dim", name)
    given = (about.get(key) for key in ("rope_scaling", "rope_parameters"))  # as they read it
    rope = next((each for each in given if each is not None), {})
    if not isinstance(rope, dict):
        raise ConfigError(f"{name}: rope_parameters are an object, not {rope!r:.40}.")
    if any(isinstance(each, dict) for each in rope.values()):
        raise refuse("rope_parameters of each kind of layer")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise refuse(f"rope_type {kind!r:.40}")
    factor = 1.0 if kind == "default" else positive("factor", rope.get("factor"), None)
    scaling = {"factor": factor, "original_length": 1}
    if kind == "llama3":
        names = {"low": "low_freq_factor", "high": "high_freq_factor"}
        scaling |= {ours: positive(key, rope.get(key), None) for ours, key in names.items()}
        scaling["original_length"] = _number(rope, "original_max_position_embeddings", name)
    scaling = asdict(RopeScaling()) | (scaling if factor != 1 else {})
    if rope.get("partial_rotary_factor", about.get("partial_rotary_factor", 1)) not in (None, 1):
        raise refuse("partial_rotary_factor")
    kv_heads = heads
    if about.get("num_key_value_heads") is not None:
        kv_heads = _number(about, "num_key_value_heads", name)
    first, last = _edges(about)
    # The edge of a document is one id here, but for ids of our own: where theirs are two, its rows
    # in and out are not the same.
    one = first == last or file.with_name(OURS).is_file()
    return {
        "width": width,
        "layers": _number(about, "num_hidden_layers", name),
        "mixers": ["attention"],
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "head_dim": None if head_dim == width / heads else head_dim,
        "mlp_width": _number(about, "intermediate_size", name),
        "activation": activation,
        "gated_mlp": found.gated,
        "qk_norm": found.qk_norm,
        "qkv_bias": found.qkv_bias,
        "window": _window(about, found, name, refuse),
        "rope_base": positive("rope_theta", rope.get("rope_theta", about.get("rope_theta")), 1e4),
        "rope_scaling": scaling,
        "norm_eps": positive("rms_norm_eps", about.get("rms_norm_eps"), 1e-6),
        "embedding": "table",
        "tied_embeddings": bool(about.get("tie_word_embeddings")) and one,
        "stages": [],
        "mtp": {"kind": "none"},
    }


def _window(about: dict, found: Architecture, name: str, refuse) -> int | None:
    """Of all layers. Where nothing is said of each, Qwen has one in those from
    ``max_window_layers`` on, if it is to be used."""
    kinds, layers = about.get("layer_types"), _number(about, "num_hidden_layers", name)
    if not found.window or about.get("sliding_window") is None:
        return None
    if kinds is None and found.model_type in QWEN:
        first = about.get("max_window_layers", 28) if about.get("use_sliding_window") else layers
        if type(first) is not int:
            raise refuse(f"max_window_layers {first!r:.40}")
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    of = {str(kind) for kind in kinds or ()} if isinstance(kinds, list | None) else {str(kinds)}
    if of == {"full_attention"} or about.get("use_sliding_window") is False:
        return None
    if not of <= {"sliding_attention"}:
        raise refuse("a sliding_window in some layers only")
    return _number(about, "sliding_window", name)


def _architecture(about: dict, name: str) -> Architecture:
    for one in ARCHITECTURES:
        if one.model_type == about.get("model_type"):
            return one
    if about.get("model_type") == "octavo":
        raise ConfigError(
            f"{name} is of an export that goes out only: begin with the run that it was made of, "
            "--train.init-from RUN."
        )
    known = ", ".join(one.model_type for one in ARCHITECTURES)
    raise ConfigError(
        f"{name} is of model_type {about.get('model_type')!r:.40}; those that are read are {known}."
    )


def _number(about: dict, key: str, name: str) -> int:
    value = about.get(key)
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name}: {key} is a number of at least 1, not {value!r:.40}.")
    return value


def _edges(about: dict) -> tuple[int | None, int | None]:
    """Their ids before the first of a document, and behind its last."""

    def one(name: str) -> int | None:
        found = about.get(name)
        return next(iter(found), None) if isinstance(found, list) else found

    first, last = one("bos_token_id"), one("eos_token_id")
    return (last if first is None else first), (first if last is None else last)
