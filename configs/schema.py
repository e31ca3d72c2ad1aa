"""Every setting of a run, as frozen dataclasses. Field docstrings are the command line's help.

A value that can never work raises ``ConfigError`` here, in one sentence, before anything starts.
What depends on the machine (devices, files) is checked where the machine is known.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal


class ConfigError(ValueError):
    """A setting that cannot work. The message says what, where, and what to do."""


def nearest_divisors(whole: int, part: int) -> str:
    """The divisors of ``whole`` around ``part``, as text: what would have worked."""
    below = max((d for d in range(1, part + 1) if whole % d == 0), default=1)
    above = min((d for d in range(part, whole + 1) if whole % d == 0), default=whole)
    return str(below) if below == above else f"{below} or {above}"


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            kind = type(config).__name__.removesuffix("Config").lower()
            raise ConfigError(f"{kind}.{name} must be above 0, not {getattr(config, name)}.")


@dataclass(frozen=True)
class ModelConfig:
    """A flat decoder-only transformer."""

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
    embedding: Literal["table", "one_hot", "bit_biased"] = "table"
    """Input embedding. one_hot: frozen identity rows, no parameters. bit_biased: a table plus a
    projection of the eight bits of the byte."""
    tied_embeddings: bool = False
    """Use the input embedding as the output projection too."""
    scan_layers: bool = True
    """Compile one block and scan over the stack, rather than unrolling every layer."""
    remat: Literal["none", "dots", "full"] = "full"
    """What the backward pass computes again: nothing, all but matrix products, or everything of a
    block. full is also the fastest on CPU, where memory costs more than arithmetic."""
    attention: Literal["auto", "reference", "splash", "cudnn"] = "auto"
    """Attention kernel. auto: splash on TPU, cudnn on GPU, reference elsewhere."""

    def __post_init__(self):
        _positive(self, "width", "layers", "heads", "rope_base")
        if self.width % self.heads:
            raise ConfigError(
                f"model.heads {self.heads} does not divide model.width {self.width}; "
                f"nearest that does: {nearest_divisors(self.width, self.heads)}."
            )
        if self.head_size % 2:
            raise ConfigError(
                f"rotary positions need an even head size, but model.width {self.width} / "
                f"model.heads {self.heads} is {self.head_size}; halve or double model.heads."
            )
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
    corpus, prepared on first use."""
    length: int = 256
    """Positions per row."""
    batch_size: int = 16
    """Rows per optimizer step, over all hosts."""
    packing: Literal["concat", "best_fit"] = "concat"
    """concat: documents end to end, cut at row edges, no padding. best_fit: documents cut only
    when longer than a row, packed into the fullest row that still fits."""
    workers: int = 0
    """Processes that assemble batches. 0: threads of this process. Never changes the data."""
    shuffle_window_mib: int = 256
    """Rows are shuffled within windows of this much text; smaller corpora fully."""

    def __post_init__(self):
        _positive(self, "length", "batch_size", "shuffle_window_mib")
        if self.length > 65_535:
            raise ConfigError(f"data.length is at most 65535, not {self.length}.")
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
    """Print every thread's stack when no step finishes for this long. 0: never."""
    evaluation_bytes: int = 100_000
    """Held-out bytes scored at the end (whole documents, until this many)."""
    sample_bytes: int = 300
    """Bytes of text sampled at the end."""

    def __post_init__(self):
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
        if self.data.batch_size % self.train.accumulation:
            raise ConfigError(
                f"train.accumulation {self.train.accumulation} does not divide data.batch_size "
                f"{self.data.batch_size}; nearest that does: "
                f"{nearest_divisors(self.data.batch_size, self.train.accumulation)}."
            )


def to_json(config: object) -> dict:
    """The config as nested plain dicts."""
    return dataclasses.asdict(config)


def from_json(data: dict) -> Config:
    """The config that ``to_json`` gave. Raises ConfigError for fields unknown to this version."""
    parts = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    try:
        sections = {k: parts[k](**v) for k, v in data.items() if isinstance(v, dict)}
        return Config(**data | sections)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"this config was written by another version: {error}.") from error
