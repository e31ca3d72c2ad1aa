"""What a model is, as frozen dataclasses. Field docstrings are the command line's help.

A number that can never work raises ``ConfigError`` here. Which parts go together is for the parts
to say (``model/check.py``), and how a model is computed for ``ExecutionConfig``.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from typing_extensions import Doc

from octavo.configs.checks import (
    ConfigError,
    check_heads,
    check_not_negative,
    check_positive,
    check_values,
    nearest_divisors,
)
from octavo.configs.kinds import help_of, one_of

if TYPE_CHECKING:
    SegmenterKind = PoolKind = UnpoolKind = EmbeddingKind = MixerKind = MTPKind = str
else:
    SegmenterKind, PoolKind = one_of("units/segmenters"), one_of("units/pools")
    UnpoolKind, EmbeddingKind = one_of("units/unpools"), one_of("embeddings")
    MixerKind, MTPKind = one_of("mixers"), one_of("mtp", "none")

_LAYERS = Doc(help_of("mixers", "What mixes positions in each layer, over and over."))


@dataclass(frozen=True)
class StageConfig:
    """One level of an hourglass: positions are cut into units, units go through the next level."""

    segmenter: Annotated[SegmenterKind, Doc(help_of("units/segmenters", "What ends a unit."))] = (
        "whitespace"
    )
    supervision: Literal["none", "marks", "entropy", "binomial", "ratio", "controller"] = "none"
    """What a learned segmenter is held to. marks: ends stored in the corpus (of subwords). entropy:
    the places where the model's own next-id entropy rises. Or a share of positions, ``rates``:
    binomial: by a binomial prior on their number. ratio: by H-Net's ratio loss. controller: by a
    weight on deletion that a controller steers."""
    supervision_weight: float = 1.0
    """Weight of that loss."""
    rates: tuple[float, ...] = (0.2,)
    """Share of positions that end a unit: for all, or for other scripts and then for each of
    ``scripts``."""
    scripts: tuple[str, ...] = ()
    """Writing systems with a predictor and a rate of their own (predicted, binomial), by Unicode
    names such as latin or cyrillic; han+hiragana+katakana share one."""
    predictor_width: int | None = None
    """Hidden size of the MLP of predicted. None: 4 x width."""
    max_unit: int = 32
    """Longest unit in positions; longer ones are cut."""
    capacity: float = 0.25
    """Units a document may use, per position so far, and two more. One that has used its share goes
    on in the unit it is in; how often is a logged metric."""
    width: int = 96
    """Size of the residual stream of this level's encoder and decoder."""
    heads: int = 4
    """Attention heads of encoder and decoder; must divide the width, into an even head size."""
    window: int | None = None
    """Positions each query sees, itself included. None: all before it."""
    mixers: Annotated[tuple[MixerKind, ...], _LAYERS] = ("attention",)
    encoder_layers: int = 1
    """Blocks before pooling."""
    encoder_scope: Literal["causal", "unit"] = "causal"
    """unit: bidirectional, inside the unit only; the decoder then starts from embeddings."""
    pool: Annotated[
        PoolKind, Doc(help_of("units/pools", "How a unit's positions become its vector."))
    ] = "last"
    slots: int = 1
    """Vectors per unit: learned positions of prefix, queries of cross."""
    unpool: Annotated[
        UnpoolKind,
        Doc(help_of("units/unpools", "How the newest complete unit reaches the positions after.")),
    ] = "repeat"
    projection: Literal["linear", "pad", "learned_pad"] = "linear"
    """How widths change between levels: learned, or zeros (or a learned vector) added and cut off
    again."""
    decoder_layers: int = 1
    """Blocks after unpooling."""
    decoder_scope: Literal["causal", "unit"] = "causal"
    """unit: causal, inside the unit only, from embeddings."""
    predict_ends: bool = False
    """Learn to foresee a unit's end from the decoder's states, so that a whole unit can be drafted
    without the encoder (Toucan)."""

    def __post_init__(self):
        check_values(self)
        check_positive(self, "max_unit", "capacity", "width", "heads", "slots")
        check_positive(self, "supervision_weight")
        check_heads("model.stages", self.width, self.heads)
        for name in ("window", "predictor_width"):
            if getattr(self, name) is not None:
                check_positive(self, name)
        check_not_negative(self, "encoder_layers", "decoder_layers")
        _check_mixers("stage", self.mixers)
        if len(self.rates) != 1 + len(self.scripts):
            raise ConfigError(
                f"stage.rates has one rate for other scripts and one for each of stage.scripts: "
                f"{1 + len(self.scripts)}, not {len(self.rates)}."
            )
        for rate in self.rates:
            if not 0 < rate < 1:
                raise ConfigError(f"stage.rates lie between 0 and 1, not {rate}.")


@dataclass(frozen=True)
class MTPConfig:
    """Multi-token prediction: what positions predict beyond the next id, in training."""

    kind: Annotated[MTPKind, Doc(help_of("mtp", "What predicts further ids."))] = "none"
    count: int = 8
    """How many ids ahead are predicted, the next one included."""
    weight: float = 1.0
    """Weight of each further id's cross-entropy; that of the next id is 1."""
    every: int = 8
    """registers, lookahead: after how many positions they stand; must divide data.length."""

    def __post_init__(self):
        check_values(self)
        check_positive(self, "count", "weight", "every")


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only language model. Without stages: a flat transformer. With: an hourglass, whose
    innermost trunk the other fields describe."""

    width: int = 128
    """Size of the residual stream."""
    layers: int = 4
    """Number of transformer blocks."""
    mixers: Annotated[tuple[MixerKind, ...], _LAYERS] = ("attention",)
    heads: int = 4
    """Query heads; must divide the width, into an even head size."""
    kv_heads: int | None = None
    """Key and value heads (grouped queries); must divide heads. None: as many as heads."""
    mlp_width: int | None = None
    """Hidden size of the MLP. None: 4 x width, or 8/3 x width rounded up to 64 when gated."""
    activation: Literal["relu2", "gelu", "silu"] = "relu2"
    """Nonlinearity of the MLP; squared ReLU is about twice as fast as the others on CPU."""
    gated_mlp: bool = False
    """Multiply the activation by a second projection (SwiGLU and its kin)."""
    qk_norm: bool = True
    """Normalize queries and keys per head."""
    window: int | None = None
    """Positions each query sees, itself included (sliding window). None: all before it."""
    rope_base: float = 10_000.0
    """Base of the rotary position frequencies."""
    embedding: Annotated[EmbeddingKind, Doc(help_of("embeddings", "Input embedding."))] = "table"
    hash_rows: int = 4096
    """Rows of each table of ngram_hash."""
    tied_embeddings: bool = False
    """Use the input embedding as the output projection too."""
    stages: tuple[StageConfig, ...] = ()
    """Levels around the trunk, outermost (bytes) first."""
    mtp: MTPConfig = field(default_factory=MTPConfig)

    def __post_init__(self):
        check_values(self)
        check_positive(self, "width", "heads", "rope_base", "hash_rows")
        check_not_negative(self, "layers")
        check_heads("model", self.width, self.heads)
        _check_mixers("model", self.mixers)
        if self.kv_heads is not None:
            check_positive(self, "kv_heads")
            if self.heads % self.kv_heads:
                raise ConfigError(
                    f"model.kv_heads {self.kv_heads} does not divide model.heads {self.heads}; "
                    f"nearest that does: {nearest_divisors(self.heads, self.kv_heads)}."
                )
        for name in ("mlp_width", "window"):
            if getattr(self, name) is not None:
                check_positive(self, name)

    @property
    def widths(self) -> tuple[int, ...]:
        """Size of the residual stream per level, bytes first."""
        return (*(stage.width for stage in self.stages), self.width)

    def coder(self, stage: StageConfig, layers: int, scope: str) -> "ModelConfig":
        """The flat stack that a stage's encoder or decoder is."""
        # Nothing further away shares the unit.
        window = stage.max_unit + stage.slots if scope == "unit" else stage.window
        return dataclasses.replace(
            self, width=stage.width, heads=stage.heads, layers=layers, window=window,
            mixers=stage.mixers, kv_heads=None, mlp_width=None, stages=(),
        )  # fmt: skip

    def outermost(self, layers: int) -> "ModelConfig":
        """A flat stack of ``layers`` of attention beside the outermost level: over bytes, as
        wide."""
        stack = self.coder(self.stages[0], layers, "causal") if self.stages else self
        return dataclasses.replace(stack, layers=layers, mixers=("attention",))

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def hidden_width(self) -> int:
        if self.mlp_width is not None:
            return self.mlp_width
        return -(-8 * self.width // 3 // 64) * 64 if self.gated_mlp else 4 * self.width


def _check_mixers(name: str, mixers: tuple[str, ...]) -> None:
    if not mixers:
        raise ConfigError(f"{name}.mixers names at least one kind, as attention.")
