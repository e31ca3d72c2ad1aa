"""Whether the parts of a model go together: each says what it goes with."""

import dataclasses

from octavo.configs.checks import ConfigError, nearest_divisors
from octavo.configs.model import ModelConfig, StageConfig
from octavo.model.embeddings import embedding
from octavo.model.mixers import mixer
from octavo.model.mtp import mtp, uses_extra
from octavo.model.parts import unmet
from octavo.model.units.pools import pool
from octavo.model.units.segmenters import segmenter
from octavo.model.units.segmenters.predicted import DRAWN
from octavo.model.units.unpools import unpool
from octavo.tokenizers.interface import Vocabulary


def check(model: ModelConfig, length: int, vocabulary: Vocabulary | None = None) -> None:
    """Raise ConfigError unless the model's parts go together, with rows of ``length`` positions,
    and with a vocabulary if it is known."""
    for i in range(len(model.stages)):
        _check_stage(model, i)
    _check_mixers(model)
    _check_mtp(model, length)
    if vocabulary is not None:
        check_vocabulary(model, vocabulary)


def _parts(stage: StageConfig) -> dict:
    return {
        "segmenter": segmenter(stage.segmenter),
        "pool": pool(stage.pool),
        "unpool": unpool(stage.unpool),
    }


def _check_stage(model: ModelConfig, i: int) -> None:
    stage, inner = model.stages[i], model.widths[i + 1]
    parts = _parts(stage)
    cut, pooled, unpooled = parts.values()
    allowed = cut.supervisions or ("none",)
    if stage.supervision not in allowed:
        raise ConfigError(
            f"stage.supervision of stage.segmenter {stage.segmenter} is {' or '.join(allowed)}, "
            f"not {stage.supervision}."
        )
    for name, part in parts.items():
        if found := unmet(part.needs, stage):
            raise ConfigError(f"stage.{name} {getattr(stage, name)} needs {found}.")
    if found := cut.refuse(stage):
        raise ConfigError(found)
    if stage.slots > 1 and not ("slots" in pooled.uses and stage.pool == stage.unpool):
        raise ConfigError("stage.slots above 1 needs pool and unpool prefix, or both cross.")
    if stage.encoder_scope == "unit" and not (stage.encoder_layers and pooled.whole):
        raise ConfigError(
            "stage.encoder_scope unit needs encoder_layers of 1 or more, and pool prefix or last."
        )
    if stage.encoder_scope == "unit" and not unpooled.whole:
        raise ConfigError(
            "stage.encoder_scope unit looks ahead inside a unit, so its states may not reach "
            "the decoder: set unpool prefix or split."
        )
    if stage.end_norms and stage.encoder_scope == "unit":
        raise ConfigError("stage.end_norms goes with encoder_scope causal.")
    if i and not cut.goes_inside:
        raise ConfigError(
            "only the first of model.stages reads bytes; set segmenter stride or routing "
            "further in."
        )
    if cut.goes_last and i + 1 < len(model.stages):
        raise ConfigError(f"segmenter {stage.segmenter} goes with the last of model.stages.")
    if stage.predict_ends:
        if "predict_ends" not in unpooled.uses or stage.decoder_scope != "unit":
            raise ConfigError("stage.predict_ends needs unpool prefix and decoder_scope unit.")
        if i:
            raise ConfigError("stage.predict_ends goes with the first of model.stages.")
        if embedding(model.embedding).reach:
            raise ConfigError(
                f"stage.predict_ends needs embeddings of single ids, not {model.embedding}."
            )
    if stage.projection != "linear" and inner < stage.width:
        raise ConfigError(
            f"stage.projection {stage.projection} needs levels that widen inwards, not from "
            f"{stage.width} to {inner}: model.size scales all of them."
        )
    if stage.projection != "linear" and unpooled.vectors(stage) != pooled.per_unit(stage):
        raise ConfigError(
            f"stage.projection {stage.projection} makes no vectors but the inner trunk's, and "
            f"unpool {stage.unpool} needs more: take linear."
        )
    if (pooled.in_pieces or unpooled.in_pieces) and inner % stage.max_unit:
        raise ConfigError(
            f"pool concat and unpool split need max_unit {stage.max_unit} to divide the "
            f"inner width {inner}; nearest: {nearest_divisors(inner, stage.max_unit)}."
        )


def _check_mixers(model: ModelConfig) -> None:
    """What looks ahead, biases keys or hides positions from others takes mixers that can."""
    extra = uses_extra(model)
    for i, stage in enumerate(model.stages):
        if stage.encoder_scope == "unit" and stage.encoder_layers:
            _must_see_all("stage", stage.mixers, "stage.encoder_scope unit")
        if extra and i == 0:
            _must_see_all("stage", stage.mixers, f"mtp.kind {model.mtp.kind}")
    if model.stages and segmenter(model.stages[-1].segmenter).biases_keys:
        _must_see_all("model", model.mixers, f"segmenter {model.stages[-1].segmenter}")
    if extra and not model.stages:
        _must_see_all("model", model.mixers, f"mtp.kind {model.mtp.kind}")


def _must_see_all(section: str, mixers: tuple[str, ...], who: str) -> None:
    for kind in mixers:
        if not mixer(kind).sees_all:
            raise ConfigError(f"{who} does not go with {section}.mixers {kind}; use attention.")


def _check_mtp(model: ModelConfig, length: int) -> None:
    kind, count, every = model.mtp.kind, model.mtp.count, model.mtp.every
    part = mtp(kind)
    if part is None:
        return
    if count < part.least:
        raise ConfigError(f"mtp.count of mtp.kind {kind} is {part.least} or more, not {count}.")
    if not part.extra:
        return
    if length % every:
        raise ConfigError(
            f"model.mtp.every {every} does not divide data.length {length}; nearest that does: "
            f"{nearest_divisors(length, every)}."
        )
    if model.stages and not model.stages[0].decoder_layers:
        raise ConfigError(f"mtp.kind {kind} needs decoder_layers of 1 or more.")
    if model.stages and unpool(model.stages[0].unpool).leading(model.stages[0]):
        raise ConfigError(f"mtp.kind {kind} needs units of one vector (slots 1).")


def check_vocabulary(model: ModelConfig, vocabulary: Vocabulary) -> None:
    """Raise ConfigError if the model's rule for units does not go with the ids."""
    if not model.stages:
        return
    kind = model.stages[0].segmenter
    marked = (vocabulary.unit_mark, vocabulary.unit_ends) != (None, None)
    if segmenter(kind).reads_unit_marks and not marked:
        raise ConfigError(
            "the model's units end at marks among the ids, but the data has none: use "
            "python prepare.py SOURCE --out DIR --tokenizer words."
        )
    by_bytes = segmenter(kind).reads_bytes or any(stage.scripts for stage in model.stages)
    if by_bytes and not vocabulary.are_bytes:
        raise ConfigError(
            f"the model's units end by bytes ({kind}), but the ids of the data are no bytes: use "
            "a corpus of bytes."
        )


def check_used(model: ModelConfig) -> None:
    """Raise ConfigError for a setting that does nothing."""
    for stage in model.stages:
        used = {name for part in _parts(stage).values() for name in part.uses}
        used |= _USED_BY.get(stage.supervision, {"supervision_weight", "rates"})
        if stage.supervision not in DRAWN:
            used -= {"evaluation"}
        said = f"segmenter {stage.segmenter}, pool {stage.pool}, unpool {stage.unpool}"
        where = f"{said} and supervision {stage.supervision}"
        _refuse_idle(stage, _OPTIONAL - used, "stage", where)
        coders = [
            (stage.encoder_layers, stage.encoder_scope),
            (stage.decoder_layers, stage.decoder_scope),
        ]
        if not any(layers and scope == "causal" for layers, scope in coders):
            _refuse_idle(stage, {"window"}, "stage", "no causal encoder or decoder")
        _refuse_idle(stage, {"window"} - _used_by(stage.mixers), "stage", _mixed(stage.mixers))
    # What predicts further ahead is attention beside the outermost level.
    beside = () if model.mtp.kind == "none" else ("attention",)
    trunk = model.mixers if model.stages else model.mixers + beside
    stacks = sum((stage.mixers for stage in model.stages), model.mixers + beside)
    idle = {"window", "kv_heads", "head_dim"} - _used_by(trunk)
    idle |= {"qk_norm", "qkv_bias", "rope_base"} - _used_by(stacks)
    _refuse_idle(model, idle, "model", _mixed(model.mixers))
    if "rope_scaling" not in _used_by(stacks):
        _refuse_idle(model.rope_scaling, {"factor"}, "model.rope_scaling", _mixed(model.mixers))
    if model.rope_scaling.factor == 1:
        one = {"original_length", "low", "high"}
        _refuse_idle(model.rope_scaling, one, "model.rope_scaling", "factor 1")
    used = set(embedding(model.embedding).uses)
    _refuse_idle(model, {"hash_rows"} - used, "model", f"embedding {model.embedding}")
    if model.mtp.kind == "none":
        _refuse_idle(model.mtp, {"count", "weight", "every"}, "mtp", "kind none")
    elif not uses_extra(model):
        _refuse_idle(model.mtp, {"every"}, "mtp", f"kind {model.mtp.kind}")


_OPTIONAL = {
    "capacity", "slots", "supervision_weight", "rates", "scripts", "predictor_width",
    "predictor_released", "predict_ends", "spread", "evaluation", "margin",
}  # fmt: skip
"""Settings of a stage that not every one has a use for."""
_USED_BY: dict[str, set[str]] = {
    "none": set(),
    "marks": {"supervision_weight"},
    "entropy": {"supervision_weight"},
    "hinge": {"supervision_weight", "rates", "margin"},
    "kept": {"rates"},
}
"""Of those by supervision; the others hold ends to ``rates``, too."""


def _used_by(mixers: tuple[str, ...]) -> set[str]:
    return {name for kind in mixers for name in mixer(kind).uses}


def _mixed(mixers: tuple[str, ...]) -> str:
    return f"mixers {' '.join(mixers)}"


def _refuse_idle(config: object, idle: set[str], section: str, where: str) -> None:
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if field.name in idle and getattr(config, field.name) != field.default:
            raise ConfigError(
                f"{section}.{field.name} does nothing with {where}; leave it at {field.default}."
            )


def reads_marks(model: ModelConfig) -> bool:
    """Whether training reads marks stored in the corpus."""
    return ends_at_marks(model) or any(stage.supervision == "marks" for stage in model.stages)


def reads_unit_marks(model: ModelConfig) -> bool:
    """Whether units end at marks among the ids."""
    return bool(model.stages) and segmenter(model.stages[0].segmenter).reads_unit_marks


def ends_at_marks(model: ModelConfig) -> bool:
    """Whether units end at marks stored in the corpus."""
    return any(segmenter(stage.segmenter).reads_marks for stage in model.stages)


def steered(model: ModelConfig) -> int | None:
    """The stage that a controller steers, whose integral is part of the state; None: there is
    none."""
    stages = (i for i, s in enumerate(model.stages) if s.supervision == "controller")
    return next(stages, None)
