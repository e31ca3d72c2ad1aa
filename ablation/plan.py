"""The cells of a study: which run each of them is, and what it will cost."""

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octavo.ablation import corpora
from octavo.ablation.place import FORMAT, STUDY, Place
from octavo.ablation.study import Arm, Study
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, from_json, to_json
from octavo.evaluation.parallel import read_parallel
from octavo.run.size import resized, vocabulary_of
from octavo.settings import parse_config
from octavo.training.expected import Cost, cost_of
from octavo.training.trainer import plan_of

WIDER = -0.6
"""Learning rates of the rungs of a ladder go with the width of the model to this power: 3e-3 at a
width of 128 and 1e-3 at 768, as the presets have it."""
WARMUP = 10
"""Warm-up is a tenth of the steps, where the preset's is longer."""
LEAST_STEPS = 20
CLOSE = 0.1
"""How far the FLOPs per byte of an arm may be from those it is scaled to."""
RULE = (
    "Each arm trains at every multiple of its own learning rate at the smallest budget, with seed "
    "0. The one with the lowest bits per byte over the last tenth of its training text is chosen: "
    "no held-out byte chooses."
)
TRANSFER = (
    "The chosen multiple holds at larger budgets; on a ladder of sizes it is chosen at the first, "
    "and the learning rate of the others goes with the width to the power of -0.6."
)


@dataclass(frozen=True)
class Rung:
    """An arm at one of its sizes."""

    arm: Arm
    size: str | None
    config: Config
    cost: Cost
    step_bytes: float
    """Bytes of text of a step."""
    vocabulary: int
    tokenizer: str

    def steps(self, study: Study, budget: float) -> int:
        """How many come nearest to a budget. Raises ConfigError if they are too few."""
        flops = self.cost.train_useful if study.counted == "useful" else self.cost.train_paid
        each = {"flops": flops * self.step_bytes, "bytes": self.step_bytes, "steps": 1}[study.by]
        steps = round(budget / each)
        if steps < LEAST_STEPS:
            raise ConfigError(
                f"--{study.by} {budget:g} are {steps} steps of {self.arm.name}; ask for "
                f"{LEAST_STEPS * each:.2g} or more, or for smaller steps "
                '(--common "--data.batch-size 4").'
            )
        return steps


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    number: int
    name: str
    """Of its folder below runs/."""
    arm: str
    size: str | None
    budget: int
    """Which of the study's budgets."""
    seed: int
    rate: float | None
    """Multiple of the arm's learning rate that is tried; None: that which was chosen."""
    steps: int
    bytes: float
    flops_useful: float
    flops_paid: float
    parameters: int
    command: str
    """That makes the run anew, less the learning rate where that is chosen."""
    tried: bool = False
    """It is one of several learning rates, of which one is chosen."""


@dataclass(frozen=True)
class Planned:
    """What study.json says: all that a cell needs."""

    about: dict[str, Any]
    """What was asked for, without the cells."""
    cells: tuple[Cell, ...]
    configs: dict[str, dict[str, Any]]
    """Of each rung (``key_of``), as JSON: what its cells have in common."""

    def to_json(self) -> dict[str, Any]:
        cells = [dataclasses.asdict(cell) for cell in self.cells]
        return {"format": FORMAT, **self.about, "cells": cells, "configs": self.configs}

    @classmethod
    def from_json(cls, data: dict[str, Any], name: str) -> "Planned":
        """Raises ConfigError for what this version did not write."""
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"it has format {data['format']}")
            about = {k: v for k, v in data.items() if k not in ("format", "cells", "configs")}
            return cls(about, tuple(Cell(**cell) for cell in data["cells"]), data["configs"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{name} is damaged, or of another version: {error}. Name another --out."
            ) from error

    def tries_of(self, arm: str) -> list[Cell]:
        """The cells that try learning rates for an arm."""
        return [cell for cell in self.cells if cell.tried and cell.arm == arm]

    def config(self, cell: Cell, learning_rate: float, workdir: str) -> Config:
        """The run that a cell is. learning_rate: a multiple of the rung's."""
        config = from_json(self.configs[key_of(cell.arm, cell.size)], f"the study's {cell.arm}")
        return _of_cell(config, cell.steps, cell.seed, learning_rate, workdir)


def key_of(arm: str, size: str | None) -> str:
    return arm if size is None else f"{arm} {size}"


def _of_cell(config: Config, steps: int, seed: int, rate: float, workdir: str) -> Config:
    warmup = min(config.optimizer.warmup_steps, steps // WARMUP)
    peak = config.optimizer.learning_rate * rate
    train = replace(
        config.train, steps=steps, seed=seed, checkpoint_every=max(50, math.ceil(steps / 4)),
        keep_checkpoints=1,
    )  # fmt: skip
    optimizer = replace(config.optimizer, learning_rate=peak, warmup_steps=warmup)
    return replace(config, train=train, optimizer=optimizer, workdir=workdir)


def rungs_of(study: Study, out: str) -> list[Rung]:
    """Every arm at every size; corpora that are not there are made. Raises ConfigError or DataError
    for what cannot work, or compares what is unequal."""
    arms = [(arm, _config(arm, None, study)) for arm in study.arms]
    sources = {}
    for arm, config in arms:
        made = None if arm.names_source else corpora.source_of(arm, config.model, study, out)
        sources[arm.name] = made or config.data.source
    corpora.check_equal(sources, study.baseline, study)
    found: list[Rung] = []
    for arm, config in arms:
        first = None
        with _named(arm):
            for size in _sizes(arm, config, sources[arm.name], study):
                found.append(_rung(arm, size, sources[arm.name], study, first))
                first = first or found[-1]
    return found


@contextlib.contextmanager
def _named(arm: Arm):
    """Errors name the arm."""
    try:
        yield
    except ConfigError as error:
        if arm.name in str(error):
            raise
        raise ConfigError(f"the arm {arm.name}: {error}") from error


def _config(arm: Arm, size: str | None, study: Study, source: str | None = None) -> Config:
    preset, *own = arm.words
    words = [preset, *shlex.split(study.common), *own]
    words += ["--data.source", source] if source else []
    words += ["--model.size", size] if size else []
    with _named(arm):
        config = parse_config(f"the arm {arm.name}:", "", words)
    if config.train.init_from is not None:  # of a file of settings: the flag was refused
        raise ConfigError(
            f"the arm {arm.name} begins with parameters of {config.train.init_from}, which were "
            "trained on more than the others are."
        )
    train = replace(config.train, evaluation_bytes=study.heldout_bytes, sample_bytes=0)
    return replace(config, train=train, workdir=None)


def _rung(arm: Arm, size: str | None, source: str, study: Study, first: Rung | None) -> Rung:
    """first: of the same arm; None: this one."""
    config = _config(arm, size, study, source)
    if first:
        wider = config.model.width / first.config.model.width
        peak = first.config.optimizer.learning_rate * wider**WIDER
        config = replace(config, optimizer=replace(config.optimizer, learning_rate=peak))
    plan = plan_of(config)
    tokenizer = plan.corpora[0].tokenizer
    step_bytes = config.data.batch_size * config.data.length * plan.bytes_per_id()
    return Rung(
        arm, size, config, cost_of(config, plan), step_bytes, tokenizer.vocab_size, tokenizer.name
    )


def _sizes(arm: Arm, config: Config, source: str, study: Study) -> tuple[str | None, ...]:
    """The sizes of an arm: those it names or, for so many FLOPs per byte, the one that has them."""
    target = study.inference_flops
    if target is None:
        return arm.sizes
    config = _config(arm, None, study, source)
    plan = plan_of(config)
    vocabulary = vocabulary_of(source, config.model)

    tried: dict[int, float] = {}

    def misses(parameters: int) -> float | None:
        """By how much of the target; None if there is no such model."""
        with contextlib.suppress(ConfigError):
            model = resized(config.model, parameters, vocabulary)
            found = cost_of(replace(config, model=model), plan).infer_useful
            tried[parameters] = found
            return found / target - 1
        return None

    own = low = high = cost_of(config, plan).parameters
    while (miss := misses(low)) is not None and miss > 0:
        low = int(low / 1.5)
    while (miss := misses(high)) is not None and miss < 0:
        high = int(high * 1.5)
    for _ in range(12):
        middle = round(math.sqrt(low * high))
        miss = misses(middle)
        if miss is None:  # too small, or too large
            miss = middle - own
        low, high = (middle, high) if miss < 0 else (low, middle)
    best = min(tried, key=lambda n: abs(tried[n] - target), default=None)
    if best is None or abs(tried[best] / target - 1) > CLOSE:
        around = [
            pick(found)
            for pick, found in (
                (max, [x for x in tried.values() if x < target]),
                (min, [x for x in tried.values() if x >= target]),
            )
            if found
        ]
        nearest = f"; the nearest are {' and '.join(f'{x:.4g}' for x in around)}" if around else ""
        raise ConfigError(
            f"{arm.name} does not come within {CLOSE:.0%} of {target:g} FLOPs per byte by its "
            f"width and depth{nearest}."
        )
    return (str(best),)


def plan(study: Study, place: Place) -> tuple[Planned, dict[str, Any]]:
    """The cells of a study, tries of learning rates first, and text.json.

    Raises as ``rungs_of``."""
    if study.parallel:  # what is wrong with it is said before anything is trained
        read_parallel(study.parallel)
    out = place.out
    rungs = rungs_of(study, out)
    cells = [replace(cell, number=number) for number, cell in enumerate(_cells(study, rungs))]
    _check_names(cells)
    text = corpora.text_json(_source(rungs, study.baseline), study.heldout_bytes)
    about = {
        "name": Path(out.rstrip("/")).name,
        "title": study.title,
        "budget": {"by": study.by, "counted": study.counted, "values": list(study.budgets)},
        "inference_flops": study.inference_flops,
        "seeds": study.seeds,
        "baseline": study.baseline,
        "tuning": {"grid": list(study.rates), "rule": RULE, "transfer": TRANSFER},
        "unequal": list(study.allow),
        "existing": False,
        "parallel": study.parallel,
        "heldout_bytes": study.heldout_bytes,
        "text": corpora.told(text),
        "arms": [_arm_json(arm, rungs) for arm in study.arms],
    }  # fmt: skip
    configs = {key_of(r.arm.name, r.size): to_json(r.config) for r in rungs}
    return Planned(about, tuple(cells), configs), text


def _check_names(cells: list[Cell]) -> None:
    """Raise ConfigError if two cells are one folder, if only on file systems that take small and
    large letters for the same."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.name.casefold(), cell)
        if other is not cell:
            two = sorted({key_of(c.arm, c.size) for c in (other, cell)})
            raise ConfigError(
                f"two cells are called {cell.name}: "
                + (
                    f'give {two[1]} another name, as "other={two[1].split()[0]} ...".'
                    if len(two) > 1
                    else "budgets and rates that differ by less than a millionth are one."
                )
            )


def _source(rungs: list[Rung], arm: str) -> str:
    return next(rung.config.data.source for rung in rungs if rung.arm.name == arm)


def _arm_json(arm: Arm, rungs: list[Rung]) -> dict[str, Any]:
    mine = [rung for rung in rungs if rung.arm is arm]
    first = mine[0]
    return {
        "name": arm.name, "asked": arm.asked, "preset": first.config.preset,
        "sizes": [rung.size for rung in mine], "source": first.config.data.source,
        "tokenizer": first.tokenizer, "vocabulary": first.vocabulary,
        "learning_rate": first.config.optimizer.learning_rate,
    }  # fmt: skip


def _cells(study: Study, rungs: list[Rung]) -> Iterator[Cell]:
    """Tries, then the rest, smallest budgets first: what is there is comparable at any time."""
    tried = len(study.rates) > 1
    firsts = [rung for rung in rungs if rung.size == rung.arm.sizes[0] or study.inference_flops]
    for rung in firsts if tried else ():
        for rate in study.rates:
            yield _cell(study, rung, 0, 0, rate)
    for budget in range(len(study.budgets)):
        for seed in range(study.seeds):
            for rung in rungs:
                if not (tried and budget == seed == 0 and rung in firsts):
                    yield _cell(study, rung, budget, seed, None if tried else study.rates[0])


def _value(budget: float) -> str:
    """A budget, as names of cells have it."""
    return f"{budget:.6g}".replace("e+", "e")


def _cell(study: Study, rung: Rung, budget: int, seed: int, rate: float | None) -> Cell:
    steps = rung.steps(study, study.budgets[budget])
    size = steps * rung.step_bytes
    parts = [rung.arm.name, *([rung.size] if rung.size else [])]
    parts += [_value(study.budgets[budget]), f"s{seed}"]
    tried = rate is not None and len(study.rates) > 1
    if tried:
        parts.append(f"x{rate:g}")
    return Cell(
        0, "-".join(parts), rung.arm.name, rung.size, budget, seed, rate, steps, size,
        rung.cost.train_useful * size, rung.cost.train_paid * size, rung.cost.parameters,
        _command(study, rung, steps, seed, rate), tried,
    )  # fmt: skip


def _command(study: Study, rung: Rung, steps: int, seed: int, rate: float | None) -> str:
    config = _of_cell(rung.config, steps, seed, rate or 1.0, "RUN")
    preset, *own = rung.arm.words
    words = ["python", "train.py", preset, *shlex.split(study.common), *own]
    words += [] if rung.arm.names_source else ["--data.source", config.data.source]
    words += ["--model.size", rung.size] if rung.size else []
    settings = {
        "train.steps": steps,
        "train.seed": seed,
        "train.evaluation-bytes": config.train.evaluation_bytes,
        "train.sample-bytes": 0,
        "train.checkpoint-every": config.train.checkpoint_every,
        "optimizer.warmup-steps": config.optimizer.warmup_steps,
    }
    for name, value in settings.items():
        words += [f"--{name}", str(value)]
    if rate is not None:
        words += ["--optimizer.learning-rate", repr(config.optimizer.learning_rate)]
    return shlex.join(words)


def continued(planned: Planned, place: Place) -> Planned:
    """The plan, with that of the study which is there already: its cells stay as they are and keep
    their numbers, and what is new comes after them. Raises ConfigError if the same arm was another
    one there, or was scored on other text."""
    if (found := place.read(STUDY)) is None:
        return planned
    before = Planned.from_json(found, place.at(STUDY))
    same = (
        "budget", "heldout_bytes", "text", "existing", "inference_flops", "tuning", "parallel",
    )  # fmt: skip
    for name in same:
        old, new = (
            one.about["budget"] | {"values": min(one.about["budget"]["values"])}
            if name == "budget" else one.about.get(name)
            for one in (before, planned)
        )  # fmt: skip
        if old != new:
            raise ConfigError(
                f"{place} holds another study: {_difference(name, old, new)}. Ask for the same, or "
                "name another --out."
            )
    for key in before.configs.keys() & planned.configs.keys():
        if before.configs[key] != planned.configs[key]:
            raise ConfigError(
                f"{place} holds another study, in which {key} has other settings: "
                f"{_first(before.configs[key], planned.configs[key])}. Give the arm another name "
                '("name=..."), or name another --out.'
            )
    kept, asked = ({cell.name for cell in one.cells} for one in (before, planned))
    index = {_value(v): i for i, v in enumerate(planned.about["budget"]["values"])}
    values = before.about["budget"]["values"]
    old = [
        replace(cell, budget=index[_value(values[cell.budget])])
        for cell in before.cells
        if cell.name in asked
    ]
    new = [cell for cell in planned.cells if cell.name not in kept]
    after = 1 + max(cell.number for cell in before.cells)
    new = [replace(cell, number=after + i) for i, cell in enumerate(new)]
    return replace(planned, cells=(*old, *new))


def _difference(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        return f"{name} has {_first(old, new)}"
    return f"{name} is {old}, asked for {new}"


def _first(old: Any, new: Any, at: str = "") -> str:
    """The first difference of two values of JSON."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *new):
            if old.get(key) != new.get(key):
                return _first(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))
    return f"{at} {old!r:.80}, asked for {new!r:.80}"
