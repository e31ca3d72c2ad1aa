"""Every setting of a run, as frozen dataclasses. Field docstrings are the command line's help.

A value that can never work raises ``ConfigError`` here, in one sentence, before anything starts.
What depends on the machine (devices, files) is checked where the machine is known.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Literal

from octavo.files import parse_json


class ConfigError(ValueError):
    """A setting that cannot work. The message says what, where, and what to do."""


def nearest_divisors(whole: int, part: int) -> str:
    """The divisors of ``whole`` around ``part``, as text: what would have worked."""
    small = [d for d in range(1, math.isqrt(whole) + 1) if whole % d == 0]
    divisors = [*small, *(whole // d for d in small)]
    below = max((d for d in divisors if d <= part), default=1)
    above = min((d for d in divisors if d >= part), default=whole)
    return str(below) if below == above else f"{below} or {above}"


MOST = 2**31 - 1
"""Largest whole number of any setting but the seed: counters on the devices have 32 bits."""
MOST_FLOAT = 3e38
"""Largest number of any other setting: float32 is infinite a little above."""
MOST_WIDE, MOST_DEEP = 2**20, 2**12
"""Largest width and number of layers: past them, compilers overflow or never end."""
SEEDS = 2**32
"""How many seeds there are: JAX makes its keys of 32 bits, and would read others as one of them."""


_LIMITS = {
    "seed": SEEDS - 1,
    **dict.fromkeys(("width", "mlp_width", "predictor_width"), MOST_WIDE),
    **dict.fromkeys(("layers", "encoder_layers", "decoder_layers"), MOST_DEEP),
    "length": 65_535,
    "hash_rows": 2**24,
    "sample_bytes": 1_000_000,
    "watchdog_seconds": 10**9,
    "workers": 1024,
}
"""Largest values of fields that have one of their own."""


def _section(config: object) -> str:
    return type(config).__name__.removesuffix("Config").lower()


def _check_numbers(config: object) -> None:
    """Raise ConfigError for a number that no computation can hold."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        for number in value if isinstance(value, tuple) else (value,):
            name = f"{_section(config)}.{f.name}"
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{name} must be a finite number, not {number}.")
            if isinstance(number, int | float):
                most = _LIMITS.get(f.name, MOST if isinstance(number, int) else MOST_FLOAT)
                if not -most <= number <= most:
                    raise ConfigError(f"{name} is at most {most}, not {number}.")


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigError(
                f"{_section(config)}.{name} must be above 0, not {getattr(config, name)}."
            )


def check_name(name: str, path: str) -> None:
    """Raise ConfigError for a path that the libraries of shards and checkpoints cannot take."""
    try:
        path.encode()
    except UnicodeEncodeError as error:  # bytes of a name that the system passed on as they are
        raise ConfigError(f"{name} {path!a} is no UTF-8; name another folder.") from error


def _check_heads(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise ConfigError(
            f"{name}.heads {heads} does not divide {name}.width {width}; "
            f"nearest that does: {nearest_divisors(width, heads)}."
        )
    if width // heads % 2:
        raise ConfigError(
            f"rotary positions need an even head size, but {name}.width {width} / {name}.heads "
            f"{heads} is {width // heads}; halve or double {name}.heads."
        )


SUPERVISIONS = {
    "predicted": ("binomial", "marks", "entropy"),
    "routing": ("ratio",),
    "frontier": ("binomial",),
    "deletion": ("controller",),
}
"""How each learned segmenter may be supervised."""


@dataclass(frozen=True)
class StageConfig:
    """One level of an hourglass: positions are cut into units, units go through the next level."""

    segmenter: Literal[
        "whitespace", "spacelike", "unit_mark", "stride", "marks",
        "predicted", "routing", "frontier", "deletion",
    ] = "whitespace"  # fmt: skip
    """What ends a unit. whitespace: the first whitespace byte after a word. spacelike: the first
    byte of a run that is neither letter, digit nor inside a character. unit_mark: the end-of-word
    id of the "words" tokenizer. stride: every max_unit positions. marks: marks stored in the corpus
    (entropy spikes). Learned, as ``supervision`` says: predicted: an MLP per position (dynamic
    pooling; MAGNET with ``scripts``). routing: where a state is unlike the one before (H-Net).
    frontier: where the expected number of frontiers passes a half (MANTa). deletion: at what a
    delete gate keeps (MrT5)."""
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
    encoder_layers: int = 1
    """Blocks before pooling."""
    encoder_scope: Literal["causal", "unit"] = "causal"
    """unit: bidirectional, inside the unit only; the decoder then starts from embeddings."""
    pool: Literal["mean", "last", "prefix", "concat", "cross", "soft"] = "last"
    """How a unit's positions become its vector. mean; last: the state at its last position; prefix:
    learned positions added to each unit; concat: embeddings side by side (fixed stride); cross:
    queries of the unit attend to its positions; soft: weighed by the probability that they are its
    own (frontier)."""
    slots: int = 1
    """Vectors per unit: learned positions of prefix, queries of cross."""
    unpool: Literal[
        "repeat", "at_end", "multilinear", "prefix", "split", "cross", "smooth"
    ] = "repeat"  # fmt: skip
    """How the newest complete unit reaches the positions after it. repeat: added to each; at_end:
    added where the unit ended only; multilinear: added through a projection that depends on the
    distance; prefix: it begins the next unit; split: a piece for each position; cross: decoder
    blocks attend to its slots; smooth: an average that trusts units by their probability (routing),
    beside a projection of the encoder's states."""
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
        _check_numbers(self)
        _positive(self, "max_unit", "capacity", "width", "heads", "slots", "supervision_weight")
        _check_heads("model.stages", self.width, self.heads)
        if self.window is not None:
            _positive(self, "window")
        for name in ("encoder_layers", "decoder_layers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"stage.{name} is 0 or more, not {getattr(self, name)}.")
        allowed = SUPERVISIONS.get(self.segmenter, ("none",))
        if self.supervision not in allowed:
            raise ConfigError(
                f"stage.supervision of stage.segmenter {self.segmenter} is {' or '.join(allowed)}, "
                f"not {self.supervision}."
            )
        if len(self.rates) != 1 + len(self.scripts):
            raise ConfigError(
                f"stage.rates has one rate for other scripts and one for each of stage.scripts: "
                f"{1 + len(self.scripts)}, not {len(self.rates)}."
            )
        for rate in self.rates:
            if not 0 < rate < 1:
                raise ConfigError(f"stage.rates lie between 0 and 1, not {rate}.")
        if self.scripts and (self.segmenter, self.supervision) != ("predicted", "binomial"):
            raise ConfigError("stage.scripts needs segmenter predicted and supervision binomial.")
        if self.predictor_width is not None:
            _positive(self, "predictor_width")
        if self.pool == "soft" and self.segmenter != "frontier":
            raise ConfigError("stage.pool soft needs segmenter frontier.")
        if self.pool == "soft" and self.max_unit < 2:
            raise ConfigError("stage.pool soft needs a max_unit of 2 or more.")
        if self.unpool == "smooth" and self.segmenter != "routing":
            raise ConfigError("stage.unpool smooth needs segmenter routing.")
        if self.segmenter == "routing" and self.pool != "last":
            raise ConfigError("stage.segmenter routing needs pool last: it opens units.")
        if self.segmenter == "deletion" and (self.pool, self.unpool) != ("last", "repeat"):
            raise ConfigError("stage.segmenter deletion needs pool last and unpool repeat.")
        if self.predict_ends and (self.unpool, self.decoder_scope) != ("prefix", "unit"):
            raise ConfigError("stage.predict_ends needs unpool prefix and decoder_scope unit.")
        if self.slots > 1 and (self.pool, self.unpool) not in (
            ("prefix", "prefix"), ("cross", "cross"),
        ):  # fmt: skip
            raise ConfigError("stage.slots above 1 needs pool and unpool prefix, or both cross.")
        if self.pool == "prefix" and self.encoder_scope != "unit":
            raise ConfigError("stage.pool prefix needs stage.encoder_scope unit.")
        if self.encoder_scope == "unit" and (
            not self.encoder_layers or self.pool not in ("prefix", "last")
        ):
            raise ConfigError(
                "stage.encoder_scope unit needs encoder_layers of 1 or more, and pool prefix or "
                "last."
            )
        if self.encoder_scope == "unit" and self.unpool not in ("prefix", "split"):
            raise ConfigError(
                "stage.encoder_scope unit looks ahead inside a unit, so its states may not reach "
                "the decoder: set unpool prefix or split."
            )
        if self.pool == "concat" and (self.segmenter != "stride" or self.encoder_layers):
            raise ConfigError("stage.pool concat needs segmenter stride and encoder_layers 0.")
        if self.unpool == "split" and (self.segmenter != "stride"):
            raise ConfigError("stage.unpool split needs segmenter stride.")
        if self.unpool == "cross" and not self.decoder_layers:
            raise ConfigError("stage.unpool cross needs decoder_layers of 1 or more.")

    def units(self, length: int) -> int:
        """Units that a row of ``length`` positions has room for: its share, those that cutting long
        units adds, and two for each of some documents."""
        share = 0 if self.segmenter == "stride" else self.capacity
        room = 8 + length // 64 + -(-length // self.max_unit) + math.ceil(share * length)
        return min(-(-room // 8) * 8, length)

    def whole_units(self, length: int) -> int:
        """Those of them that can be complete in the row: not the last, into which all is merged
        that has no room. Where each position has a unit, none is merged."""
        return self.units(length) if self.units(length) == length else self.units(length) - 1

    def most_units(self, length: int) -> int:
        """The most units that a document of ``length`` positions takes, wherever ends are asked
        for (model/segmentation.py, ``bounded``): its last one, open or not, included."""
        if length == 0:
            return 0
        # Units as granted: the ends of all but the last lie before the last position. The share is
        # rounded in float32 there, so a little more counts as a whole one. A stride grants but the
        # begin-of-document id.
        share = math.floor(self.capacity * (length - 1) * (1 + 2**-20))
        granted = min(2 if self.segmenter == "stride" else 3 + share, length)
        # Cutting one that is too long adds a unit for every max_unit positions beyond its first.
        return granted + (length - granted) // self.max_unit


@dataclass(frozen=True)
class MTPConfig:
    """Multi-token prediction: what positions predict beyond the next id, in training."""

    kind: Literal["none", "heads", "linear", "modules", "registers", "lookahead"] = "none"
    """heads: a block of its own for each id, all on the trunk's states (Gloeckle et al.). linear: a
    matrix of its own for each further id, on the normed states (EvaByte). modules: a chain of
    blocks, each fed by the one before and the next id (DeepSeek-V3). registers: extra positions
    that see what stands before them and predict further ahead, unseen by all others
    (MuToR). lookahead: runs of extra positions that predict one id each and see those before them
    (PaSS)."""
    count: int = 8
    """How many ids ahead are predicted, the next one included."""
    weight: float = 1.0
    """Weight of each further id's cross-entropy; that of the next id is 1."""
    every: int = 8
    """registers, lookahead: after how many positions they stand; must divide data.length."""

    def __post_init__(self):
        _check_numbers(self)
        _positive(self, "count", "weight", "every")
        if self.count < 2 and self.kind not in ("none", "heads"):
            raise ConfigError(f"mtp.count of mtp.kind {self.kind} is 2 or more, not {self.count}.")

    @property
    def aside(self) -> bool:
        """Whether extra positions predict."""
        return self.kind in ("registers", "lookahead")


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only language model. Without stages: a flat transformer. With: an hourglass, whose
    innermost trunk the other fields describe."""

    width: int = 128
    """Size of the residual stream."""
    layers: int = 4
    """Number of transformer blocks."""
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
    embedding: Literal["table", "one_hot", "bit_biased", "ngram_hash", "ngram_conv"] = "table"
    """Input embedding. one_hot: frozen identity rows, no parameters. bit_biased: a table plus a
    projection of the eight bits of the byte. ngram_hash: a table plus hashed tables of the 3 to 8
    ids up to each. ngram_conv: a table mixed with causal convolutions over 2 to 4 ids."""
    hash_rows: int = 4096
    """Rows of each table of ngram_hash."""
    tied_embeddings: bool = False
    """Use the input embedding as the output projection too."""
    scan_layers: bool = True
    """Compile one block and scan over the stack, rather than unrolling every layer."""
    remat: Literal["none", "dots", "full"] = "full"
    """What the backward pass computes again: nothing, all but matrix products, or everything of a
    block. full is also the fastest on CPU, where memory costs more than arithmetic."""
    attention: Literal["auto", "reference", "splash", "cudnn"] = "auto"
    """Attention kernel. auto: for each stack splash on TPU or cudnn on NVIDIA, where they can serve
    (cudnn: bfloat16, causal, no window), and reference elsewhere."""
    stages: tuple[StageConfig, ...] = ()
    """Levels around the trunk, outermost (bytes) first."""
    mtp: MTPConfig = field(default_factory=MTPConfig)

    def __post_init__(self):
        _check_numbers(self)
        _positive(self, "width", "heads", "rope_base", "hash_rows")
        if self.layers < 0:
            raise ConfigError(f"model.layers is 0 or more, not {self.layers}.")
        _check_heads("model", self.width, self.heads)
        if self.kv_heads is not None:
            _positive(self, "kv_heads")
            if self.heads % self.kv_heads:
                raise ConfigError(
                    f"model.kv_heads {self.kv_heads} does not divide model.heads {self.heads}; "
                    f"nearest that does: {nearest_divisors(self.heads, self.kv_heads)}."
                )
        if self.mlp_width is not None:
            _positive(self, "mlp_width")
        if self.window is not None:
            _positive(self, "window")
        if self.mtp.aside and self.stages:
            if not self.stages[0].decoder_layers:
                raise ConfigError(f"mtp.kind {self.mtp.kind} needs decoder_layers of 1 or more.")
            if self.stages[0].unpool == "prefix" and self.stages[0].slots > 1:
                raise ConfigError(f"mtp.kind {self.mtp.kind} needs units of one vector (slots 1).")
        for stage in self.stages[1:]:
            if stage.segmenter not in ("stride", "routing"):
                raise ConfigError(
                    "only the first of model.stages reads bytes; set segmenter stride or routing "
                    "further in."
                )
        if any(s.predict_ends for s in self.stages[1:]):
            raise ConfigError("stage.predict_ends goes with the first of model.stages.")
        if self.embedding.startswith("ngram") and any(s.predict_ends for s in self.stages):
            raise ConfigError(
                f"stage.predict_ends needs embeddings of single ids, not {self.embedding}."
            )
        for stage in self.stages[:-1]:
            if stage.segmenter == "deletion":
                raise ConfigError("segmenter deletion goes with the last of model.stages.")
        for stage, inner in zip(self.stages, self.widths[1:], strict=True):
            if stage.projection != "linear" and inner < stage.width:
                raise ConfigError(
                    f"stage.projection {stage.projection} needs levels that widen inwards."
                )
            in_pieces = stage.pool == "concat" or stage.unpool == "split"
            if in_pieces and inner % stage.max_unit:
                raise ConfigError(
                    f"pool concat and unpool split need max_unit {stage.max_unit} to divide the "
                    f"inner width {inner}; nearest: {nearest_divisors(inner, stage.max_unit)}."
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Size of the residual stream per level, bytes first."""
        return (*(stage.width for stage in self.stages), self.width)

    @property
    def needs_marks(self) -> bool:
        """Whether training reads marks stored in the corpus."""
        return any("marks" in (stage.segmenter, stage.supervision) for stage in self.stages)

    def blocks(self, stage: StageConfig, layers: int, scope: str) -> "ModelConfig":
        """The flat stack that a stage's encoder or decoder is."""
        # Nothing further away shares the unit.
        window = stage.max_unit + stage.slots if scope == "unit" else stage.window
        return dataclasses.replace(
            self, width=stage.width, heads=stage.heads, layers=layers, window=window,
            kv_heads=None, mlp_width=None, stages=(),
        )  # fmt: skip

    def outermost(self, layers: int) -> "ModelConfig":
        """A flat stack of ``layers`` beside the outermost level: over bytes, as wide."""
        if self.stages:
            return self.blocks(self.stages[0], layers, "causal")
        return dataclasses.replace(self, layers=layers)

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


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how it is cut into rows."""

    source: str = "stdlib"
    """A folder made by prepare.py; several as "a:0.7,b:0.3" (weights); "stdlib": the embedded
    corpus, prepared on first use (also stdlib-words, with the ends of words marked by ids, and
    stdlib-unigram, with those of subwords marked beside them)."""
    length: int = 256
    """Positions per row."""
    batch_size: int = 16
    """Rows per optimizer step, over all hosts."""
    packing: Literal["concat", "best_fit"] = "concat"
    """concat: documents end to end, cut at row edges, no padding but where so many short documents
    meet that the model has no units for all. best_fit: documents cut only when longer than a row,
    packed into the fullest row that still fits."""
    workers: int = 0
    """Processes that assemble batches. 0: threads of this process. Never changes the data."""
    shuffle_window_mib: int = 256
    """Rows are shuffled within windows of this much text; smaller corpora fully."""

    def __post_init__(self):
        _check_numbers(self)
        _positive(self, "length", "batch_size", "shuffle_window_mib")
        if self.length * self.batch_size > MOST:
            raise ConfigError(
                f"data.length {self.length} x data.batch_size {self.batch_size} is more than the "
                f"{MOST} positions that a step can have; ask for fewer rows."
            )
        check_name("data.source", self.source)
        if self.workers < 0:
            raise ConfigError(f"data.workers is 0 or more, not {self.workers}.")


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalized momentum for the matrices of the blocks, AdamW for the rest; both at
    the same learning rate."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """wsd: warm up, hold, decay linearly to zero. cosine: warm up, then half a cosine down to a
    tenth."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    decay_fraction: float = 0.3
    """Share of all steps that wsd spends decaying."""
    beta1: float = 0.9
    """Decay of AdamW's first moment (muon's momentum is 0.95)."""
    beta2: float = 0.95
    """Decay of AdamW's second moment."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; vectors (norms, biases) are never decayed."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm. 0: never."""

    def __post_init__(self):
        _check_numbers(self)
        _positive(self, "learning_rate")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimizer.{name} lies in [0, 1), not {getattr(self, name)}.")
        if not 0 <= self.decay_fraction <= 1:
            raise ConfigError(
                f"optimizer.decay_fraction lies in [0, 1], not {self.decay_fraction}."
            )
        for name in ("warmup_steps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optimizer.{name} is 0 or more, not {getattr(self, name)}.")


@dataclass(frozen=True)
class MeshConfig:
    """How devices are arranged. One axis may be -1: all the devices that are left."""

    replica: int = 1
    """Data-parallel copies of the parameters (across slices, for instance)."""
    fsdp: int = -1
    """Data-parallel devices that share one copy of the parameters between them."""
    tensor: int = 1
    """Devices that split each matrix product (heads and MLP hidden units)."""

    def __post_init__(self):
        _check_numbers(self)
        sizes = dataclasses.astuple(self)
        if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise ConfigError(
                f"mesh sizes are positive, and at most one is -1 (all that are left), not "
                f"{', '.join(f'{k} {v}' for k, v in dataclasses.asdict(self).items())}."
            )


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 1000
    """Optimizer steps."""
    seed: int = 0
    """Seed of the parameters, the data order and all noise."""
    accumulation: int = 1
    """Each step's rows go through the model in this many equal parts."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products; parameters, norms, softmax and the loss stay float32."""
    z_loss: float = 0.0
    """Weight of the squared log-normalizer of the output softmax."""
    log_every: int = 10
    """Steps between lines of progress (metrics.jsonl gets every step)."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step always saves one."""
    keep_checkpoints: int = 3
    """Newest checkpoints that stay on disk."""
    give_up_after: int = 20
    """Non-finite updates are skipped; this many in a row end the run."""
    distributed: bool = False
    """Several hosts: start jax.distributed. Found on TPU pods and under SLURM; elsewhere set
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    watchdog_seconds: float = 1800.0
    """End with code 70, and every thread's stack, when no step finishes for this long, or nothing
    moves for four times as long where the run starts, compiles or saves. 0: never."""
    evaluation_bytes: int = 100_000
    """Held-out bytes scored at the end (whole documents, until this many)."""
    sample_bytes: int = 300
    """Bytes of text sampled at the end."""

    def __post_init__(self):
        _check_numbers(self)
        _positive(
            self, "steps", "accumulation", "log_every", "checkpoint_every", "keep_checkpoints",
            "give_up_after",
        )  # fmt: skip
        for name in ("z_loss", "watchdog_seconds", "evaluation_bytes", "sample_bytes", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} is 0 or more, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    workdir: str | None = None
    """Folder of the run; a run found there is continued. None: a new one under runs/."""

    def __post_init__(self):
        _check_numbers(self)
        check_name("workdir", self.workdir or "")
        if self.workdir is not None and (not self.workdir or "://" in self.workdir):
            raise ConfigError(
                f"workdir {self.workdir!r} is no folder of this machine, the only kind that runs "
                "are kept in; mount other storage as one."
            )
        if self.model.mtp.aside and self.data.length % self.model.mtp.every:
            raise ConfigError(
                f"model.mtp.every {self.model.mtp.every} does not divide data.length "
                f"{self.data.length}; nearest that does: "
                f"{nearest_divisors(self.data.length, self.model.mtp.every)}."
            )
        if self.data.batch_size % self.train.accumulation:
            raise ConfigError(
                f"train.accumulation {self.train.accumulation} does not divide data.batch_size "
                f"{self.data.batch_size}; nearest that does: "
                f"{nearest_divisors(self.data.batch_size, self.train.accumulation)}."
            )


def to_json(config: object) -> dict:
    """The config as nested plain dicts and lists, as JSON gives them back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(data: dict, name: str = "this config") -> Config:
    """The config that ``to_json`` gave; what an older one lacks has its default. Raises ConfigError
    for fields and values unknown to this version; ``name`` says whose they are."""
    return parse_json(json.dumps(data), Config, name=name, error=ConfigError)


HOW = ("scan_layers", "remat", "attention")
"""Fields of the model that say how it is computed, not what: they may change within a run."""


def identity(config: Config) -> dict[str, dict]:
    """What makes a run what it is, by section of the config: model, length of rows, optimizer, and
    the part of ``train`` that is in the loss. The data plan is compared beside it, and
    ``train.steps`` may grow."""
    made = to_json(config)
    return {
        "model": {name: value for name, value in made["model"].items() if name not in HOW},
        "data": {"length": made["data"]["length"]},
        "optimizer": made["optimizer"],
        "train": {name: made["train"][name] for name in ("seed", "z_loss")},
    }
