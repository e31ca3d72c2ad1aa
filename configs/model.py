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
    from typing import TypeAlias

    SegmenterKind: TypeAlias = str
    PoolKind: TypeAlias = str
    UnpoolKind: TypeAlias = str
    EmbeddingKind: TypeAlias = str
    MixerKind: TypeAlias = str
    MTPKind: TypeAlias = str
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
    supervision: Literal[
        "none", "marks", "entropy", "binomial", "hinge", "policy", "ratio", "controller", "kept"
    ] = "none"
    """What a learned segmenter is held to. marks: ends stored in the corpus (of subwords). entropy:
    the places where the model's own next-id entropy rises. Or a share of positions, ``rates``:
    binomial: by a binomial prior on their number. hinge: only where more than ``rates`` end, or
    fewer by ``margin`` (FLEXITOKENS). policy: what is drawn is rewarded by the bits that follow,
    under the binomial prior. ratio: by H-Net's ratio loss. controller: by a weight on deletion that
    a controller steers. kept: by how the segmenter decides."""
    supervision_weight: float = 1.0
    """Weight of that loss."""
    rates: tuple[float, ...] = (0.2,)
    """Share of positions that end a unit: for all, or for other scripts and then for each of
    ``scripts``."""
    margin: float = 0.2
    """hinge: by what part of its rate the share of ends may fall short of it."""
    evaluation: Literal["sum", "threshold", "sampled"] = "sum"
    """Where a predictor that draws ends in training ends units otherwise. sum: where the sum of its
    probabilities passes another whole unit, which keeps the rate. threshold: where the probability
    is above a half. sampled: drawn, by noise that is the same at each scoring (the official code of
    dynamic pooling and MAGNET draws)."""
    scripts: tuple[str, ...] = ()
    """Writing systems with a predictor and a rate of their own (predicted, where ends are drawn),
    by Unicode names such as latin or cyrillic; han+hiragana+katakana share one."""
    predictor_width: int | None = None
    """Hidden size of the MLP of predicted. None: 4 x width."""
    predictor_released: bool = False
    """The MLP of predicted as in the code of dynamic pooling and MAGNET: its hidden units have a
    bias, and GELU itself, not its tanh form."""
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
    spread: Literal["document", "unit"] = "document"
    """Over what the variance of a position's place is summed (frontier): all of the document before
    it, as MANTa's equation has it, or the unit that is open."""
    end_norms: bool = False
    """Encoder, decoder and the trunk inside each end in a norm, so that all that cuts, pools and
    unpools reads normed states; residual branches start the smaller, the further in (H-Net)."""
    predict_ends: bool = False
    """Learn to foresee a unit's end from the decoder's states, so that a whole unit can be drafted
    without the encoder (Toucan)."""

    def __post_init__(self):
        check_values(self)
        check_positive(self, "max_unit", "capacity", "width", "heads", "slots")
        check_positive(self, "supervision_weight")
        if not 0 <= self.margin <= 1:
            raise ConfigError(f"stage.margin lies between 0 and 1, not {self.margin}.")
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
class RopeScaling:
    """Slower rotary frequencies, as of models whose rows were made longer (Llama 3.1): those of a
    wave longer than ``original_length / low`` positions are divided by ``factor``, those of one
    shorter than ``original_length / high`` stay, and between them its share falls evenly with the
    frequency."""

    factor: float = 1.0
    """1: nothing is divided."""
    original_length: int = 8192
    """Positions of a row before. 1, where low is 1: all frequencies are divided."""
    low: float = 1.0
    high: float = 4.0

    def __post_init__(self):
        check_values(self)
        check_positive(self, "factor", "original_length", "low")
        if self.high <= self.low:
            raise ConfigError(f"rope_scaling.high is above low {self.low}, not {self.high}.")


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
    head_dim: int | None = None
    """Size of a head of attention; even. None: width / heads."""
    mlp_width: int | None = None
    """Hidden size of the MLP. None: 4 x width, or 8/3 x width rounded up to 64 when gated."""
    activation: Literal["relu2", "gelu", "silu"] = "relu2"
    """Nonlinearity of the MLP; squared ReLU is about twice as fast as the others on CPU."""
    gated_mlp: bool = False
    """Multiply the activation by a second projection (SwiGLU and its kin)."""
    qk_norm: bool = True
    """Normalize queries and keys per head."""
    qkv_bias: bool = False
    """Add learned biases to queries, keys and values (Qwen2)."""
    window: int | None = None
    """Positions each query sees, itself included (sliding window). None: all before it."""
    rope_base: float = 10_000.0
    """Base of the rotary position frequencies."""
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    norm_eps: float = 1e-6
    """Added to mean squares in the norms of blocks, and of the output."""
    embedding: Annotated[EmbeddingKind, Doc(help_of("embeddings", "Input embedding."))] = "table"
    token_dropout: float = 0.0
    """Share of ids whose embeddings training hides (Shaham & Levy 2021 have 0.2, of one_hot)."""
    hash_rows: int = 4096
    """Rows of each table of ngram_hash."""
    tied_embeddings: bool = False
    """Use the input embedding as the output projection too."""
    stages: tuple[StageConfig, ...] = ()
    """Levels around the trunk, outermost (bytes) first."""
    mtp: MTPConfig = field(default_factory=MTPConfig)

    def __post_init__(self):
        check_values(self)
        check_positive(self, "width", "heads", "rope_base", "norm_eps", "hash_rows")
        check_not_negative(self, "layers")
        if self.head_dim is None:
            check_heads("model", self.width, self.heads)
        elif self.head_dim < 2 or self.head_dim % 2:
            raise ConfigError(f"model.head_dim is even and above 0, not {self.head_dim}.")
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
        if not 0 <= self.token_dropout < 1:
            raise ConfigError(f"model.token_dropout lies in [0, 1), not {self.token_dropout}.")

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
            mixers=stage.mixers, kv_heads=None, head_dim=None, mlp_width=None, stages=(),
        )  # fmt: skip

    def depth(self, level: int) -> int | None:
        """As of how many layers residual branches of a level, or of the trunk, start: those of
        encoders and decoders down to it, and its own; None where no ``end_norms`` ask for it."""
        if not self.stages or not self.stages[min(level, len(self.stages) - 1)].end_norms:
            return None
        coders = sum(s.encoder_layers + s.decoder_layers for s in self.stages[: level + 1])
        return coders + (self.layers if level == len(self.stages) else 0)

    def outermost(self, layers: int) -> "ModelConfig":
        """A flat stack of ``layers`` of attention beside the outermost level: over bytes, as
        wide."""
        stack = self.coder(self.stages[0], layers, "causal") if self.stages else self
        return dataclasses.replace(stack, layers=layers, mixers=("attention",))

    @property
    def head_size(self) -> int:
        return self.head_dim or self.width // self.heads

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
