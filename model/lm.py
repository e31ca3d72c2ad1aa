"""The language model: embedding, trunk, head."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from octavo.batch import Batch
from octavo.configs.model import ModelConfig
from octavo.model.axes import POSITIONS, ROWS, constrain
from octavo.model.embeddings import embedding
from octavo.model.layers import Execution, Linear, RMSNorm, take
from octavo.model.mtp import mtp
from octavo.model.trunk import first_seen
from octavo.model.units.hourglass import Level, make_trunk
from octavo.model.units.segmentation import Layout
from octavo.model.units.segmenters import segmenter
from octavo.tokenizers.interface import Vocabulary
from octavo.tokenizers.unicode import scripts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Output:
    """What a forward pass gives."""

    logits: jax.Array
    """Float32 ``[B, T, vocab_size]``; those at t depend on the batch's tokens up to t of the same
    segment, and on nothing else."""
    levels: tuple[Level, ...] = ()
    """How each level of an hourglass cut its positions into units, outermost first."""
    states: Any = None
    """What further ids are predicted from: the trunk's states ``[B, T, d]``."""
    extra_states: Any = None
    """Those of extra positions, ``[B, G * L, d]``."""
    statistics: dict[str, jax.Array] = field(default_factory=dict)
    """Sums over the batch, by name."""


def layout_of(batch: Batch, config: ModelConfig, vocabulary: Vocabulary) -> Layout:
    """What the trunk is told of the positions of a batch's rows."""
    tokens = batch.tokens
    shifted = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    before = jnp.where(batch.positions > 0, shifted, -1)
    ends = _ends(tokens, before, batch.marks, config, vocabulary)
    written = jnp.zeros_like(tokens)
    if _routed(config):
        known, documents = (
            jnp.pad(x, ((0, 0), (3, 0)), constant_values=-1) for x in (tokens, batch.segment_ids)
        )
        written = _scripts(known, documents, written[:, 0])
    return Layout(batch.positions, batch.segment_ids, ends, written)


def _routed(config: ModelConfig) -> bool:
    return any(stage.scripts for stage in config.stages)


def _ends(
    tokens: jax.Array, before: jax.Array, marks: jax.Array, config: ModelConfig,
    vocabulary: Vocabulary,
) -> jax.Array:  # fmt: skip
    """Where the first stage's rule ends a unit."""
    if not config.stages:
        return jnp.zeros_like(tokens, bool)
    cut = segmenter(config.stages[0].segmenter)
    ends = cut.rule(tokens, before, vocabulary)
    return ends | (marks > 0) if cut.reads_marks else ends


def _scripts(known: jax.Array, documents: jax.Array, before: jax.Array) -> jax.Array:
    """The newest writing system at each id, ``[B, N]``.

    known ``[B, 3 + N]``: the ids, and three before them; documents ``[B, 3 + N]``: equal within a
    document; before ``[B]``: the newest system before the first of the N.
    """
    N = known.shape[1] - 3
    ids = [
        jnp.where(documents[:, at : at + N] == documents[:, 3:], known[:, at : at + N], -1)
        for at in range(3, -1, -1)
    ]
    first, values = (jnp.asarray(table) for table in scripts.pages())
    own = scripts.script_of_character(ids[0], ids[1:], values, first)
    t = jnp.arange(N)[None]
    newest = lax.cummax(jnp.where(own > 0, t, -1), axis=1)
    at = jnp.maximum(newest, 0)
    same = take(documents[:, 3:], at) == documents[:, 3:]
    taken_up = jnp.where(documents[:, 3:] == documents[:, :1], before[:, None], 0)
    return jnp.where((newest >= 0) & same, take(own, at), taken_up)


def _kept(noise: jax.Array, dropped: float) -> jax.Array:
    """Booleans like noise, standard logistic: all but the share ``dropped``. By digits that say
    nothing of what a segmenter draws with the same noise."""
    return jax.nn.sigmoid(noise) * 4096 % 1 >= dropped


class ByteLM(nnx.Module):
    """Predicts the next id at every position. Raises ConfigError where the config does not fit the
    vocabulary or the platform."""

    def __init__(
        self, config: ModelConfig, vocabulary: Vocabulary, execution: Execution, rngs: nnx.Rngs
    ):
        self.config, self.vocabulary = config, vocabulary
        dtype, width = execution.dtype, config.widths[0]
        kind = mtp(config.mtp.kind)
        self.embedding = embedding(config.embedding)(config, vocabulary, dtype, rngs)
        extra = kind is not None and kind.extra
        self.trunk: Any = make_trunk(config, 0, extra, execution, rngs)
        self.norm = RMSNorm(width, config.norm_eps)
        # A small head: the first predictions are close to uniform, whatever the width.
        untied = not config.tied_embeddings
        shape = (width, vocabulary.size)
        self.head = Linear(*shape, ("embed", "vocab"), dtype, rngs, 0.1) if untied else None
        self.mtp: Any = None if kind is None else kind(config, vocabulary.size, execution, rngs)
        self.routed = _routed(config)
        # How many ids before the new ones the embedding, the segmenter's rule and characters reach.
        self.history = max(1, self.embedding.reach, 3 if self.routed else 0)

    def logits(self, x: jax.Array) -> jax.Array:
        """Float32 ``[..., V]`` of states ``[..., d]`` of the trunk, or of what predicts further."""
        x = self.norm(x)
        if self.head is None:
            return self.embedding.logits(x)
        return self.head(x).astype(jnp.float32)

    @property
    def _next(self):
        """What the next id's states go through behind the trunk, if anything."""
        return None if self.mtp is None else self.mtp.next

    def __call__(
        self, batch: Batch, noise: jax.Array | None = None, ahead: jax.Array | None = None
    ) -> Output:
        """noise ``[B, T]``: standard logistic, in training; without, all is deterministic. ahead
        ``[L]``: for extra positions, which only training has, how far they predict."""
        tokens, positions = batch.tokens, batch.positions
        layout = layout_of(batch, self.config, self.vocabulary)
        if self.config.stages:
            layout = jax.tree.map(lambda each: constrain(each, *ROWS), layout)
        x = constrain(self.embedding(tokens, positions), *POSITIONS)
        if self.config.token_dropout and noise is not None:
            x = jnp.where(_kept(noise, self.config.token_dropout)[..., None], x, 0)
        extra = None if ahead is None else self.mtp.positions(ahead)
        x, statistics, levels = self.trunk(x, layout, noise, extra=extra)
        states, extra_states = (
            constrain(part, *POSITIONS) for part in jnp.split(x, [tokens.shape[1]], axis=1)
        )
        x = states
        if self._next is not None:
            x = self._next(x, positions, batch.segment_ids)
        return Output(self.logits(x), levels, states, extra_states, statistics)

    def predict_ahead(
        self, batch: Batch, output: Output, ahead: jax.Array | None, each: Callable
    ) -> tuple | None:
        """``each(k, places, logits)`` for every k ids after the next one that are predicted,
        stacked; None if none are. logits ``[B, P, V]``: at positions ``places [P]`` of the rows,
        or at all (None). No two of them exist at a time."""
        if self.mtp is None or self.config.mtp.count == 1:
            return None
        return self.mtp.predict(self, output, batch, ahead, each)

    def init_cache(self, batch: int, slots: int) -> dict:
        """An empty cache for documents of up to ``slots`` ids, one a row."""
        cache: dict = {
            "length": jnp.zeros((batch,), jnp.int32),
            "ids": jnp.full((batch, self.history), -1, jnp.int32),
            "script": jnp.zeros((batch,), jnp.int32),
            "trunk": self.trunk.init_cache(batch, slots),
        }
        if self._next is not None:
            cache["next"] = self._next.init_cache(batch, slots)
        return cache

    def advance(
        self,
        tokens: jax.Array,
        cache: dict,
        marks: jax.Array | None = None,
        valid: jax.Array | None = None,
        context: int | None = None,
    ) -> tuple[Output, dict]:
        """Continue each row of the cache by tokens ``[B, N]``: an output equal to the parallel
        pass (logits and states), and what ``settle`` makes the longer cache of.

        marks ``[B, N]``: stored unit ends, for a segmenter that reads them. valid ``[B]``: how many
        of the N count, for rows of unequal length; all by default. context: how far back to look at
        most, for documents longer than the rows of training.
        """
        B, N = tokens.shape
        length = cache["length"]
        valid = jnp.full((B,), N, jnp.int32) if valid is None else valid
        marks = jnp.zeros_like(tokens) if marks is None else marks
        known = jnp.concatenate([cache["ids"], tokens], axis=1)
        before = known[:, self.history - 1 : -1]
        ends = _ends(tokens, before, marks, self.config, self.vocabulary)
        at = length[:, None] + jnp.arange(-self.history, N)[None]
        x = self.embedding(known, at)[:, self.history :]
        written = jnp.zeros_like(tokens)
        if self.routed:
            recent = known[:, self.history - 3 :]
            written = _scripts(recent, jnp.zeros_like(recent), cache["script"])
        layout = Layout(at[:, self.history :], jnp.ones_like(tokens), ends, written)
        states, trunk = self.trunk.advance(x, layout, cache["trunk"], valid, context)
        x = states
        pending: dict = {"known": known, "written": written}
        if self._next is not None:
            first = first_seen(length, N, context)
            x, pending["next"] = self._next.extend(x, cache["next"], length, first)
        pending["before"] = cache | {"trunk": trunk}
        return Output(self.logits(x), states=states), pending

    def settle(self, pending: dict, kept: jax.Array) -> dict:
        """The cache after the first ``kept [B]`` of the tokens that counted in ``advance``: as if
        no others had come."""
        before, written = pending["before"], pending["written"]
        keep = jax.vmap(lambda ids, n: lax.dynamic_slice_in_dim(ids, n, self.history))
        newest = take(written, jnp.maximum(kept - 1, 0)[:, None])[:, 0]
        cache: dict = {
            "length": before["length"] + kept,
            "ids": keep(pending["known"], kept),
            "script": jnp.where(kept > 0, newest, before["script"]),
            "trunk": self.trunk.settle(before["trunk"], kept),
        }
        if self._next is not None:
            cache["next"] = self._next.settle(pending["next"], kept)
        return cache

    def extend(
        self, tokens: jax.Array, cache: dict, marks=None, valid=None, context=None
    ) -> tuple[jax.Array, dict]:
        """``advance``, all that counts kept: float32 logits ``[B, N, vocab_size]``, and the longer
        cache."""
        output, pending = self.advance(tokens, cache, marks, valid, context)
        kept = jnp.full(len(tokens), tokens.shape[1], jnp.int32) if valid is None else valid
        return output.logits, self.settle(pending, kept)
