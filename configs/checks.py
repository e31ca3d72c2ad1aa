"""What settings are checked with, and the error that says what cannot work."""

import dataclasses
import functools
import math
import re
import types
import typing
from typing import Any


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
    "length": 2**24,  # of places in float32, as rotary positions turn by them
    "hash_rows": 2**24,
    "sample_bytes": 1_000_000,
    "watchdog_seconds": 10**9,
    "workers": 1024,
}
"""Largest values of fields that have one of their own."""


def section(config: object) -> str:
    """What a part of a config is called on the command line."""
    name = type(config).__name__.removesuffix("Config")
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def check_values(config: object) -> None:
    """Raise ConfigError for a value of another type than its field's, which Python would take, and
    for a number that no computation can hold."""
    hints = _hints(type(config))
    for f in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, f.name)
        name = f"{section(config)}.{f.name}".lstrip(".")
        if not _fits(value, hints[f.name]):
            raise ConfigError(f"{name} is {_in_words(hints[f.name])}, not {value!r:.60}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{name} must be a finite number, not {number}.")
            if isinstance(number, int | float):
                most = _LIMITS.get(f.name, MOST if isinstance(number, int) else MOST_FLOAT)
                if not -most <= number <= most:
                    raise ConfigError(f"{name} is at most {most}, not {number}.")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is types.UnionType:
        return any(_fits(value, each) for each in arguments)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _in_words(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return f"a tuple of which each is {_in_words(arguments[0])}"
    if origin is types.UnionType:
        return " or ".join(map(_in_words, arguments))
    return "None" if hint is types.NoneType else f"of type {hint.__name__}"


def check_positive(config: object, *names: str) -> None:
    """Raise ConfigError unless these settings are above 0."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigError(
                f"{section(config)}.{name} must be above 0, not {getattr(config, name)}."
            )


def check_not_negative(config: object, *names: str) -> None:
    """Raise ConfigError unless these settings are 0 or above."""
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(
                f"{section(config)}.{name} is 0 or more, not {getattr(config, name)}."
            )


def check_name(name: str, path: str) -> None:
    """Raise ConfigError for a path that the libraries of shards and checkpoints cannot take."""
    try:
        path.encode()
    except UnicodeEncodeError as error:  # bytes of a name that the system passed on as they are
        raise ConfigError(f"{name} {path!a} is no UTF-8; name another folder.") from error


def check_heads(name: str, width: int, heads: int) -> None:
    """Raise ConfigError unless ``heads`` share the width, each an even part of it."""
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
