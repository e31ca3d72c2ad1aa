"""The schedule of the learning rate, and the optimizer that follows it."""

import dataclasses
import fnmatch
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, OptimizerConfig
from octavo.run.checkpoint import Record
from octavo.training import optimizers


@dataclass(frozen=True)
class Replanned:
    """Where the learning rate was laid out anew, for another number of steps."""

    step: int
    rate: float
    """What it was there."""
    rewarm: bool = True
    """Whether it may rise to the new plan's. (What earlier revisions did, and said nothing of.)"""

    def sentence(self, config: Config) -> str:
        """For people."""
        steps, warmup = config.train.steps, max(config.optimizer.warmup_steps, 1)
        planned = _at(_planned(config.optimizer, steps), self.step)
        anew = f"learning rate laid out anew over {steps} steps"
        if self.rate < planned and not self.rewarm:
            return (
                f"{anew}: on from the {self.rate:.3g} that it had come down to at step {self.step} "
                f"(--train.rewarm True takes it up again, to {planned:.3g})"
            )
        to = _at(learning_rate(config.optimizer, steps, self), self.step + warmup)
        return f"{anew}: from {self.rate:.3g} at step {self.step} to {to:.3g} within {warmup} steps"


def replan(config: Config, record: Record | None) -> Replanned | None:
    """How the learning rate of ``config`` goes on from a checkpoint: anew if that was trained for
    another number of steps. Raises ConfigError if it has done more steps than are asked for, or if
    the rate has decayed to nothing and is not asked to rise again."""
    if record is None:
        return None
    if record.step > config.train.steps:
        raise ConfigError(
            f"train.steps {config.train.steps}: the run has done {record.step} already. Ask for "
            f"{record.step} or more."
        )
    saved, before = record.config, record.meta.get("schedule")
    if saved is None:
        return None
    before = before and Replanned(**before)
    # After it diverged, a lower rate at once, and in proportion what it had come down to.
    lower = config.optimizer.learning_rate / saved.optimizer.learning_rate
    if saved.train.steps == config.train.steps:
        return before and dataclasses.replace(before, rate=before.rate * lower)
    rate = lower * rate_after(saved, record.step, before)
    if not rate and not config.train.rewarm:
        raise ConfigError(
            f"the learning rate of {config.workdir or 'this run'} has decayed to 0 at step "
            f"{record.step}: more steps would change nothing. --train.rewarm True takes it back to "
            f"{config.optimizer.learning_rate:g}; or begin another run with what this one had "
            f"before its decay, up to step {_hold(saved)}: --train.init-from RUN@STEP."
        )
    return Replanned(record.step, rate, config.train.rewarm)


def rate_after(config: Config, step: int, replanned: Replanned | None) -> float:
    """What a run of ``config`` goes on from where it is asked for more steps after ``step``."""
    optimizer, steps = config.optimizer, config.train.steps
    # A plan that never decays says nothing of what follows its last step.
    ended = step == steps and not optimizer.decay_fraction
    return _at(learning_rate(optimizer, steps, replanned), step - 1 if ended else step)


def _hold(config: Config) -> int:
    """The step up to which wsd holds its peak."""
    optimizer, steps = config.optimizer, config.train.steps
    decay = max(round(optimizer.decay_fraction * steps), 1)
    return max(steps - decay, min(optimizer.warmup_steps, steps))


def _at(schedule: optax.Schedule, step: int) -> float:
    return float(jnp.asarray(schedule(step)))


def learning_rate(
    config: OptimizerConfig, steps: int, replanned: Replanned | None = None
) -> optax.Schedule:
    """Learning rate at a step; see ``OptimizerConfig.schedule``.

    A run that goes on for another number of steps than was planned comes down, or rises where it
    was asked to, from the rate it had to that of the new plan within ``warmup_steps``, linearly.
    One that had begun to decay, and was not asked to rise, follows the new plan in proportion to
    what it had come down to.
    """
    plan = _planned(config, steps)
    if replanned is None:
        return plan
    rate, planned = replanned.rate, _at(plan, replanned.step)
    if rate <= planned and not replanned.rewarm:
        return lambda count: plan(count) * (rate / planned)

    def joined(count):
        share = jnp.clip((count + 1 - replanned.step) / max(config.warmup_steps, 1), 0, 1)
        return rate + share * (plan(count) - rate)

    return joined


def _planned(config: OptimizerConfig, steps: int) -> optax.Schedule:
    peak, warmup = config.learning_rate, min(config.warmup_steps, steps)
    if config.schedule == "cosine":
        # A run shorter than its warm-up still needs one step to fall in.
        after = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), alpha=0.1)
    else:
        # Down to nothing at the last step, also where the warm-up leaves less than the fraction.
        decay = max(min(round(config.decay_fraction * steps), steps - warmup), 1)
        after = optax.schedules.linear_schedule(
            peak, 0.0, decay, transition_begin=max(steps - warmup - decay, 0)
        )
    # The first update already moves: step 0 of n warm-up steps has 1/n of the peak.
    start = optax.schedules.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
    return optax.schedules.join_schedules([start, after], [warmup])


FROZEN = "frozen "
"""Begins the labels of what is frozen for some steps."""


def frozen_of(names: dict, patterns: tuple[str, ...]) -> dict:
    """Which parameters ``train.freeze`` names: booleans in the tree of ``names``. Raises
    ConfigError for a pattern that names none, and if all are named."""
    found = {path: ".".join(map(str, path)) for path in flatten_dict(names)}
    for pattern in patterns:
        if not fnmatch.filter(found.values(), pattern):
            raise ConfigError(f"train.freeze {pattern}: no parameter is called so.")
    frozen = {
        path: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        for path, name in found.items()
    }
    if all(frozen.values()):
        raise ConfigError(f"train.freeze {' '.join(patterns)}: there is nothing left to train.")
    return unflatten_dict(frozen)


def make_optimizer(
    config: OptimizerConfig,
    steps: int,
    names: dict,
    replanned: Replanned | None = None,
    frozen: dict | None = None,
    until: int | None = None,
) -> optax.GradientTransformation:
    """The configured optimizer for parameters with these logical axis names (tuples, in the
    parameters' tree). frozen: of ``frozen_of``: what is left as it is for ``until`` steps (None:
    for all), and then begins with statistics of its own. Raises ConfigError if there is no
    optimizer of its name, or its file cannot be used."""
    rate = learning_rate(config, steps, replanned)
    transforms = optimizers.load(config.name).transforms(config, rate)
    # One of another label would serve no parameter, unsaid.
    if transforms.keys() - {config.name} != {"matrix", "vector"}:
        raise ConfigError(
            f"transforms of training/optimizers/{config.name}.py has matrix, vector and, if need "
            f"be, {config.name}; not {', '.join(sorted(transforms))}."
        )

    def label(logical: tuple) -> str:
        if len(logical) - (logical[:1] == ("layers",)) < 2:
            return "vector"
        return config.name if _in_blocks(logical) and config.name in transforms else "matrix"

    is_logical = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    labels = jax.tree.map(label, names, is_leaf=is_logical)
    if frozen is not None:
        labels = jax.tree.map(lambda name, held: FROZEN * held + name, labels, frozen)
        if until is None:
            held = {name: optax.set_to_zero() for name in transforms}
        else:
            held = _frozen_until(until, config, rate)
        transforms |= {FROZEN + name: each for name, each in held.items()}
    partitioned = optax.partition(transforms, labels)
    if not config.multipliers and config.base_width is None:
        return partitioned

    if config.base_width is not None and config.name in transforms:
        raise ConfigError(f"optimizer.base_width is not for {config.name}: use adamw.")
    leaves = jax.tree.leaves_with_path(names, is_leaf=is_logical)
    _check_parts(config, [_keys(path) for path, _ in leaves])

    def multiplied(updates, params):
        def one(path, logical, update):
            return update * multiplier(config, _keys(path), logical, update.shape)

        return jax.tree.map_with_path(one, names, updates, is_leaf=is_logical)

    return optax.chain(partitioned, optax.stateless(multiplied))


def _frozen_until(first: int, config: OptimizerConfig, rate: optax.Schedule) -> dict:
    """The transforms of what sees no step before ``first``, and counts from there, by label."""
    made = optimizers.load(config.name).transforms(config, lambda count: rate(count + first))

    def thawed(step, **_):
        return step >= first

    return {label: optax.conditionally_mask(each, thawed) for label, each in made.items()}


def multiplier(
    config: OptimizerConfig, path: tuple, logical: tuple, shape: tuple[int, ...]
) -> float:
    """Of the learning rate, for the parameter at a path, with logical axes and a shape: that of its
    part, and of its width."""
    factor = 1.0
    for one in config.multipliers:
        part, _, value = one.partition("=")
        if part in parts_of(path):
            factor = float(value)
    if config.base_width is not None and _in_blocks(logical) and path[-1] == "weight":
        factor *= config.base_width / shape[-2]
    return factor


def _in_blocks(logical: tuple) -> bool:
    """Whether these are the axes of a matrix inside a stack of blocks."""
    return logical[:1] == ("layers",) and len(logical) > 2 and "vocab" not in logical


def parts_of(path: tuple) -> set[str]:
    """Names under which a parameter's learning rate can be multiplied."""
    found = {f"level{path.count('inner')}"}
    if path[0] in ("embedding", "head", "mtp"):
        found.add(path[0])
    if "segmenter" in path:
        found.add("segmenters")
    if path[-1] == "gain":
        found.add("norms")
    return found


def _keys(path: tuple) -> tuple:
    return tuple(key.key for key in path)


def _check_parts(config: OptimizerConfig, paths: list[tuple]) -> None:
    there = set().union(*map(parts_of, paths))
    for one in config.multipliers:
        if (part := one.partition("=")[0]) not in there:
            raise ConfigError(
                f"optimizer.multipliers {one}: the model has no {part}; it has "
                f"{', '.join(sorted(there))}."
            )
