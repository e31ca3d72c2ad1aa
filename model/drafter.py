"""What drafters are: guesses of the next ids, which one pass of the model then verifies.

Whatever a drafter guesses, what comes out is what the model alone would draw (octavo.decoding); a
good guess only saves passes. A drafter has a ``size`` (ids it drafts a pass), ``params`` of its
own, and three functions of arrays:

- ``init(model, params, rows, slots)``: what it remembers, a pytree;
- ``observe(model, params, carry, seen)``: what it remembers after a pass;
- ``draft(model, params, carry, now)``: a ``Draft``, and what it remembers.

Letters: B rows, N ids of a pass, S slots, V vocabulary, d width, D ids drafted.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from octavo.model.layers import take

if TYPE_CHECKING:
    from octavo.model.lm import ByteLM, Output

DRAFT = 7
"""Ids drafted a pass, where the model does not say."""


@dataclass(frozen=True)
class Seen:
    """A pass of the model."""

    tokens: jax.Array
    """``[B, N]``: what it read."""
    output: Output
    """Logits and states behind each of them."""
    kept: jax.Array
    """``[B]``: how many of them stay."""
    ids: jax.Array
    """``[B, S]``: all ids, those of the pass included."""
    length: jax.Array
    """``[B]``: how many ids there were before the pass."""
    context: int | None


@dataclass(frozen=True)
class Now:
    """What is known when a draft is asked for."""

    cache: dict
    """Of the model, up to the id before ``first``."""
    ids: jax.Array
    """``[B, S]``: all ids, ``first`` included."""
    length: jax.Array
    """``[B]``: how many ids there are before ``first``."""
    first: jax.Array
    """``[B]``: the next id, already drawn."""
    choose: Callable
    """``choose(i, logits [B, n, V])``: the i-th id after ``first`` and those behind it, ``[B,
    n]``, drawn with the very noise that the model's own draws there will see: like logits choose
    alike."""
    sample: Callable
    """``sample(i, logits)``: the same with noise of its own, and log-probabilities ``[B, n,
    V]``."""
    context: int | None


@dataclass(frozen=True)
class Draft:
    """Guesses of the ids after ``Now.first``."""

    ids: jax.Array
    """``[B, D]``"""
    count: jax.Array | None = None
    """``[B]``: how many of them; all, if None."""
    log_q: jax.Array | None = None
    """``[B, D, V]``: the distributions they were sampled from, for rejection sampling; None: each
    is to be the id that the model draws itself."""


class Drafter(abc.ABC):
    """What most drafters have: nothing to remember."""

    size: int = DRAFT
    params: dict = {}

    def init(self, model: ByteLM, params: dict, rows: int, slots: int) -> dict:
        return {}

    def observe(self, model: ByteLM, params: dict, carry: dict, seen: Seen) -> dict:
        return carry

    @abc.abstractmethod
    def draft(self, model: ByteLM, params: dict, carry: dict, now: Now) -> tuple[Draft, dict]:
        """Guesses, and what it remembers."""


def rested(seen: Seen, new: jax.Array, old: jax.Array) -> jax.Array:
    """The new, ``[B, ...]``, but the old in rows of which the pass kept nothing."""
    return jnp.where((seen.kept > 0)[:, None, None], new, old)


def put(ids: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
    """ids ``[B, S]`` with values ``[B]`` at places ``at [B]``."""
    return jax.vmap(lambda row, place, value: row.at[place].set(value))(ids, at, values)


def embedded(model: ByteLM, ids: jax.Array, begin: jax.Array, count: int) -> jax.Array:
    """Embeddings ``[B, count, d]`` of ids ``[B, S]`` from places ``begin [B]`` on."""
    at = begin[:, None] + jnp.arange(-model.history, count)
    known = jnp.where(at >= 0, take(ids, jnp.clip(at, 0, ids.shape[1] - 1)), -1)
    return model.embedding(known, at)[:, model.history :]
