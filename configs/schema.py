"""Every setting of a run, as frozen dataclasses. Field docstrings are the command line's help.

A value that can never work raises ``ConfigError`` here, in one sentence, before anything starts.
What depends on the machine (devices, files) is checked where the machine is known.
"""

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tyro import conf

from octavo.configs.checks import (
    MOST,
    ConfigError,
    check_name,
    check_not_negative,
    check_positive,
    check_values,
    nearest_divisors,
)
from octavo.configs.model import ModelConfig
from octavo.files import parse_json


@dataclass(frozen=True)
class ExecutionConfig:
    """How a model is computed: what may change within a run, and moves its losses by rounding at
    most."""

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products; parameters, norms, softmax and the loss stay float32."""
    attention: Literal["auto", "reference", "splash", "cudnn"] = "auto"
    """Attention kernel. auto: for each stack splash on TPU or cudnn on NVIDIA, where they can serve
    (cudnn: bfloat16, no window), and reference elsewhere."""
    scan_layers: bool | None = None
    """Compile one block and scan over the stack, rather than unrolling every layer. Not given:
    scan, but for trunks of up to 8 layers on CPU and 12 on GPUs."""
    remat: Literal["auto", "none", "dots", "qkv", "inner", "full"] = "auto"
    """What the backward pass computes again: nothing, all but matrix products and attention, or
    everything of a block. inner: all but what attention gives and what enters the MLP's
    nonlinearity. qkv: as inner, but for queries, keys and values, which pays in wide models. auto:
    nothing on CPU, where what is kept of a step takes less than 2 GiB, and on GPUs whose memory
    holds it; inner on TPU, where that takes less than a quarter of a chip; full elsewhere."""

    def __post_init__(self):
        check_values(self)


@dataclass(frozen=True)
class DataConfig:
    """Which text, and how it is cut into rows."""

    source: Annotated[str, conf.arg(metavar="DIR")] = "stdlib"
    """A folder made by prepare.py, or its URL; several as "a:0.7,b:0.3" (weights);
    "a[eng]:0.7,a[ell]:0.3": what of a folder has these labels; "stdlib": the embedded corpus,
    prepared on first use (also stdlib-words, with the ends of words marked by ids, and
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
        check_values(self)
        check_positive(self, "length", "batch_size", "shuffle_window_mib")
        if self.length * self.batch_size > MOST:
            raise ConfigError(
                f"data.length {self.length} x data.batch_size {self.batch_size} is more than the "
                f"{MOST} positions that a step can have; ask for fewer rows."
            )
        check_name("data.source", self.source)
        check_not_negative(self, "workers")


_MULTIPLIER = re.compile(
    r"(embedding|head|mtp|segmenters|norms|level[0-9])=([0-9]*[.])?[0-9]+(e-?[0-9]+)?"
)


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: str = "adamw"
    """A file of training/optimizers/. muon: orthogonalized momentum for the matrices of the blocks,
    AdamW for the rest; both at the same learning rate."""
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
    multipliers: tuple[str, ...] = ()
    """Of the learning rate, by part, as embedding=0.5: embedding, head, mtp, segmenters, norms, or
    level0 (what reads and writes ids), level1 and on (what is further in). Of two that fit, the
    later one holds."""
    base_width: int | None = None
    """The width that learning_rate is meant for: a matrix inside the stacks of blocks with n
    inputs has base_width / n of it, so that one rate serves every size (Yang et al. 2022, for
    Adam; not for muon). None: all have the same."""

    def __post_init__(self):
        check_values(self)
        check_positive(self, "learning_rate")
        if self.base_width is not None:
            check_positive(self, "base_width")
        for one in self.multipliers:
            if not _MULTIPLIER.fullmatch(one) or not math.isfinite(float(one.partition("=")[2])):
                raise ConfigError(
                    f"optimizer.multipliers are as embedding=0.5, of embedding, head, mtp, "
                    f"segmenters, norms or levelN; not {one!r}."
                )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimizer.{name} lies in [0, 1), not {getattr(self, name)}.")
        if not 0 <= self.decay_fraction <= 1:
            raise ConfigError(
                f"optimizer.decay_fraction lies in [0, 1], not {self.decay_fraction}."
            )
        check_not_negative(self, "warmup_steps", "weight_decay", "clip_norm")


@dataclass(frozen=True)
class MeshConfig:
    """How devices are arranged. One axis may be -1: all the devices that are left."""

    replica: int | None = None
    """Data-parallel copies of the parameters (across slices, for instance). None: all the devices
    that are left or, where mesh.fsdp is -1, as few as leave a device 16 rows of every width that
    fsdp splits: a tile of the TPU, without which gathers and reductions wait for each other."""
    fsdp: int = -1
    """Data-parallel devices that share one copy of the parameters between them."""
    tensor: int = 1
    """Devices that split each matrix product (heads and MLP hidden units)."""
    sequence: int = 1
    """Devices that split the positions of each row, at every level, and share its parameters too:
    for rows too long for one device, and for more devices than rows."""

    def __post_init__(self):
        check_values(self)
        sizes = [1 if size is None else size for size in dataclasses.astuple(self)]
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
    z_loss: float = 0.0
    """Weight of the squared log-normalizer of the output softmax."""
    log_every: int = 10
    """Steps between lines of progress (metrics.jsonl gets every step)."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step always saves one."""
    keep_checkpoints: int = 3
    """Newest checkpoints that stay on disk."""
    keep_every: int = 0
    """Steps between milestones: checkpoints that are made at its multiples and always stay. 0:
    none."""
    keep_best: bool = False
    """Also make and keep the checkpoint with the best score of those during training."""
    give_up_after: int = 20
    """Non-finite updates are skipped; this many in a row end the run."""
    init_from: Annotated[str | None, conf.arg(metavar="RUN[@STEP]")] = None
    """Begin with the parameters of another run, of its newest checkpoint or of that of STEP, or of
    a Hugging Face folder (docs/interchange.md), and a fresh optimizer, schedule and data order.
    Those of a flat model become the trunk inside a model with stages."""
    init_allow: Annotated[tuple[str, ...], conf.arg(metavar="NAME [NAME ...]")] = ()
    """Parameters that need not fit those of train.init_from, by name or pattern ("mtp.*"): what is
    missing there, or of another shape, begins fresh; what is too many is left out. tokenizer: the
    ids may mean something else."""
    init_embeddings: Literal["rows", "mean", "focus"] = "rows"
    """What of train.init_from becomes the embedding and output rows of another tokenizer's ids.
    rows: those of the same numbers. Or those of the same bytes and, for other ids, mean: the mean
    over the ids that spell their bytes there. focus: an average of those of like company in the
    corpus (FOCUS, Dobler & de Melo 2023)."""
    freeze: Annotated[tuple[str, ...], conf.arg(metavar="NAME [NAME ...]")] = ()
    """Parameters that stay as they are, by name or pattern ("trunk.inner.*")."""
    freeze_steps: int | None = None
    """For how many steps; then they are trained, too. None: for all."""
    rewarm: bool = False
    """More steps for a run whose learning rate has begun to decay take it up again to that of the
    new plan, within optimizer.warmup_steps, instead of going on from what it came down to."""
    distributed: bool = False
    """Several hosts: start jax.distributed. Found on TPU pods and under SLURM; elsewhere set
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    watchdog_seconds: float = 1800.0
    """End with code 70, and every thread's stack, when no step finishes for this long, or nothing
    moves for four times as long where the run starts, compiles or saves. 0: never."""
    evaluation_bytes: int = 100_000
    """Held-out bytes of each corpus scored at the end, spread over its labels. 0: nothing is
    scored."""
    evaluate_every: int | None = None
    """Steps between scores during training, of a fixed part of that text: as much as six steps
    train on, at most. None: a tenth of the steps, or 100 if that is more. 0: never."""
    sample_bytes: int = 300
    """Bytes of text sampled at the end, and the first hundred or so at each score."""
    tracker: Literal["none", "wandb", "trackio"] = "none"
    """Send the metrics to Weights & Biases or trackio, too: pip install wandb, or trackio."""
    profile: Annotated[str | None, conf.arg(metavar="FIRST:LAST")] = None
    """Trace these steps, both included, on the first host, into RUN/profile: 20:25. Others are no
    slower."""

    def __post_init__(self):
        check_values(self)
        check_positive(
            self, "steps", "accumulation", "log_every", "checkpoint_every", "keep_checkpoints",
            "give_up_after",
        )  # fmt: skip
        check_not_negative(
            self, "z_loss", "watchdog_seconds", "evaluation_bytes", "sample_bytes", "seed",
            "keep_every",
        )  # fmt: skip
        if self.evaluate_every is not None:
            check_not_negative(self, "evaluate_every")
        if self.init_allow and self.init_from is None:
            raise ConfigError("train.init_allow is of no use without train.init_from.")
        if self.init_embeddings != "rows" and self.init_from is None:
            raise ConfigError("train.init_embeddings is of no use without train.init_from.")
        if self.freeze_steps is not None:
            check_positive(self, "freeze_steps")
            if not self.freeze:
                raise ConfigError("train.freeze_steps is of no use without train.freeze.")
        if self.keep_best and (self.evaluate_every == 0 or self.evaluation_bytes == 0):
            nothing = "evaluate_every" if self.evaluate_every == 0 else "evaluation_bytes"
            raise ConfigError(f"train.keep_best needs scores, but train.{nothing} is 0.")
        if self.profile is not None and profiled(self.profile)[1] > self.steps:
            raise ConfigError(
                f"train.profile {self.profile} ends after the last step, {self.steps}."
            )


def profiled(steps: str) -> tuple[int, int]:
    """The first and last step of ``train.profile``. Raises ConfigError for what is no range."""
    found = re.fullmatch(r"(\d{1,15}):(\d{1,15})", steps, re.ASCII)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 0 < first <= last:
        raise ConfigError(
            f"train.profile is FIRST:LAST, two steps from 1 on, as 20:25, not {steps!r:.40}."
        )
    return first, last


@dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    workdir: Annotated[str | None, conf.arg(metavar="RUN")] = None
    """Folder of the run, or its URL on gs://, s3:// and the like; a run found there is continued,
    with its own settings where no flag says otherwise. None: a new one under runs/."""
    preset: Annotated[str | None, conf.Suppress] = None
    """The preset that this was, before any flag: it names new folders, and no more."""

    def __post_init__(self):
        check_values(self)
        check_name("workdir", self.workdir or "")
        if self.workdir == "":
            raise ConfigError("workdir is the name of a folder, not empty.")
        if self.data.batch_size % self.train.accumulation:
            raise ConfigError(
                f"train.accumulation {self.train.accumulation} does not divide data.batch_size "
                f"{self.data.batch_size}; nearest that does: "
                f"{nearest_divisors(self.data.batch_size, self.train.accumulation)}."
            )


def to_json(config: Any) -> dict:
    """The config as nested plain dicts and lists, as JSON gives them back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(data: dict, name: str = "this config", **about: str) -> Config:
    """The config that ``to_json`` gave; what an older one lacks has its default. Raises ConfigError
    for fields and values unknown to this version; ``name`` says whose they are, and ``about`` more
    (``files.parse_json``)."""
    text = json.dumps(moved(data), default=str)
    return parse_json(text, Config, name=name, error=ConfigError, **about)


MOVED = {
    ("model", "scan_layers"): ("execution", "scan_layers"),
    ("model", "remat"): ("execution", "remat"),
    ("model", "attention"): ("execution", "attention"),
    ("train", "compute_dtype"): ("execution", "compute_dtype"),
}
"""Where settings of earlier revisions stand now."""


def moved(data: dict) -> dict:
    """A config of an earlier revision with its settings where they stand now."""
    sections = {name: dict(part) if isinstance(part, dict) else part for name, part in data.items()}
    for (section, name), (new_section, new_name) in MOVED.items():
        part = sections.get(section)
        if isinstance(part, dict) and name in part:
            target = sections.setdefault(new_section, {})
            if isinstance(target, dict):
                target[new_name] = part.pop(name)
    return sections


def identity(config: Config) -> dict[str, dict]:
    """What makes a run what it is, by section of the config: model, length of rows, optimizer, and
    the part of ``train`` that is in the loss, in what is trained, or in the parameters it began
    with. The data plan is compared beside it, and ``train.steps`` may grow."""
    made = to_json(config)
    names = (
        "seed", "z_loss", "init_from", "init_allow", "init_embeddings", "freeze", "freeze_steps",
    )  # fmt: skip
    return {
        "model": made["model"],
        "data": {"length": made["data"]["length"]},
        "optimizer": made["optimizer"],
        "train": {name: made["train"][name] for name in names},
    }
