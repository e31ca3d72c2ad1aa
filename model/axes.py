"""Logical axes of parameters and activations, and the rules that map them to axes of the mesh.

A parameter carries a name per axis, and an activation is given names where it is constrained. Each
table here says which mesh axes split what has a name. With that, the compiler inserts what devices
have to tell each other, and computes what one device would.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from octavo.configs.checks import ConfigError

AXES = ("replica", "fsdp", "sequence", "tensor")
"""Of the mesh, neighbours last."""


@dataclass(frozen=True)
class Rules:
    """Mesh axes by logical axis, each a field. None: every device has it all."""

    def spec(self, names: tuple[str | None, ...]) -> jax.P:
        """Of an array with these names. Raises ConfigError if two of its axes would be split by
        the same axis of the mesh."""
        found = [name and getattr(self, name) for name in names]
        by: dict[str, str] = {}
        for name, axes in zip(names, found, strict=True):
            for axis in (axes,) if isinstance(axes, str) else axes or ():
                if axis in by:
                    raise ConfigError(
                        f"{type(self).__name__}: mesh.{axis} cannot split both {by[axis]} and "
                        f"{name} of an array {names}; give one of them another axis, or None."
                    )
                by[axis] = str(name)
        return jax.P(*found)


@dataclass(frozen=True)
class ShardingRules(Rules):
    """For parameters. Devices that share rows share the parameters, too."""

    layers: str | None = None
    embed: str | tuple[str, ...] | None = ("fsdp", "sequence")
    heads: str | None = "tensor"
    kv_heads: str | None = "tensor"
    mlp: str | None = "tensor"
    vocab: str | None = None


@dataclass(frozen=True)
class ActivationRules(Rules):
    """For activations. What has no name here (widths, logits) is whole."""

    rows: str | tuple[str, ...] | None = ("replica", "fsdp")
    positions: str | None = "sequence"
    """Of rows at any level: bytes, or slots of units."""
    heads: str | None = "tensor"


ACTIVATIONS = ActivationRules()
ROWS, POSITIONS = ("rows",), ("rows", "positions")
"""Names of the leading axes of ``[B, ...]`` and of ``[B, T, ...]``."""


def mesh_axes(*names: str) -> tuple[str, ...]:
    """The mesh axes that split activations with these names."""
    found: list[str] = []
    for name in names:
        axes = getattr(ACTIVATIONS, name)
        found += [axes] if isinstance(axes, str) else axes or ()
    return tuple(found)


def split(*names: str) -> int:
    """How many devices of the current mesh split activations with these names."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in mesh_axes(*names))


def divides(x: jax.Array, names: tuple[str, ...]) -> bool:
    """Whether the current mesh divides the leading axes of x, which have these names."""
    return all(size % split(name) == 0 for size, name in zip(x.shape, names, strict=False))


def spec(x: jax.Array, names: tuple[str | None, ...]) -> jax.P:
    """How the current mesh splits x, whose leading axes have these names. An axis that it does not
    divide is whole on every device."""
    return ACTIVATIONS.spec(
        tuple(
            name if name and size % split(name) == 0 else None
            for name, size in zip(names, x.shape, strict=False)
        )
    )


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Say how activations are split, where a mesh is set: by the names of the leading axes, and by
    no other. Without names, every device has all of x (a table that rows look things up in).

    Once a block is enough; without it the compiler may prefer to split activations like weights.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(x, names))


def on_own(function: Callable, arrays: Sequence, names: Sequence[tuple], out: tuple) -> Any:
    """``function(*arrays)`` by each device for what it has of them, where the mesh splits rows or
    positions. Names are of the leading axes of each (array, or tree of arrays), out of those of all
    results; the mesh must divide what they name, and devices have all of what they do not."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    return jax.shard_map(
        function, in_specs=tuple(map(ACTIVATIONS.spec, names)), out_specs=ACTIVATIONS.spec(out),
        axis_names=set(mesh_axes(*POSITIONS)), check_vma=False,
    )(*arrays)  # fmt: skip
