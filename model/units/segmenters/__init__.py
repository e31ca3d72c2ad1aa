"""What decides where units end: one kind a file, named as in ``StageConfig.segmenter``.

Every one decides at position t from positions up to t. ``decide`` serves the parallel pass, where
documents lie packed in a row (a position of 0 starts one), and stepwise decoding, where it takes up
what ``init_carry`` begins. Decisions are float32, products included, whatever the model computes in
and runs on. Noise is an input, of training only.

Letters: B batch, T positions, d width, K routes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from flax import nnx

from octavo.configs.model import StageConfig
from octavo.model.parts import find
from octavo.model.units.segmentation import Layout
from octavo.tokenizers.interface import Vocabulary


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decision:
    """What a segmenter decides, arrays ``[B, T]``; None: what a kind has not."""

    ends: jax.Array
    """Booleans: a unit should end here."""
    log_odds: Any = None
    """Of an end, before any noise."""
    count: Any = None
    """How many ends are counted here, float32: as ``ends``, or the probability where the sum of
    probabilities decides; with the estimator's gradient."""
    route: Any = None
    """Which predictor decided, from 0."""
    value: Any = None
    """What is still to be paid, as foreseen before the end is drawn (policy)."""
    offset: Any = None
    """Where the position lies from the middle of its unit, in units (soft frontiers)."""
    variance: Any = None
    """Of that place (soft frontiers)."""
    key_bias: Any = None
    """What the inner trunk adds to attention scores of this position (delete gate)."""

    @property
    def probability(self) -> Any:
        return None if self.log_odds is None else jax.nn.sigmoid(self.log_odds)


class Segmenter(nnx.Module):
    """A kind of segmenter, and what it declares of itself."""

    uses: ClassVar[tuple[str, ...]] = ("capacity",)
    """Settings of ``StageConfig`` that not every stage has a use for, but this one."""
    needs: ClassVar[dict[str, tuple | range]] = {}
    """Other settings of the stage, and the values that this kind goes with."""
    supervisions: ClassVar[tuple[str, ...]] = ()
    """What it may be held to; nothing: it does not learn."""
    reads_bytes: ClassVar[bool] = False
    """Whether its rule is one of bytes, and no other ids."""
    reads_unit_marks: ClassVar[bool] = False
    """Whether units end at ids that say so (``unit_mark`` or ``unit_ends`` of a Vocabulary)."""
    reads_marks: ClassVar[bool] = False
    """Whether units end at marks that the corpus stores."""
    goes_inside: ClassVar[bool] = False
    """Whether it can cut units too, in stages further in."""
    goes_last: ClassVar[bool] = False
    """Whether no stage may lie inside its own."""
    fixed: ClassVar[bool] = False
    """Whether units end by their length alone, and a document has no share of them."""
    biases_keys: ClassVar[bool] = False
    """Whether the inner trunk's attention is biased by ``Decision.key_bias`` (softly deleted
    positions), and unit k stands there where the position it keeps stood."""

    def __init__(self, stage: StageConfig, rngs: nnx.Rngs):
        """Raises ConfigError for settings that cannot work."""

    @classmethod
    def refuse(cls, stage: StageConfig) -> str | None:
        """What else of the stage this kind does not go with, as a sentence; None if nothing."""
        return None

    @classmethod
    def rule(cls, ids: Any, before: Any, vocabulary: Vocabulary) -> Any:
        """Where a rule over ids ends a unit: booleans like ``ids``, NumPy arrays or JAX's.

        before: the id before each, -1 where there is none. The begin-of-document id is always a
        unit of its own, which gives the trunk a state before the first byte.
        """
        return ids == vocabulary.bos_id

    def init_carry(self, batch: int) -> dict:
        """What ``decide`` takes up of nothing."""
        return {}

    def decide(
        self, x: jax.Array, layout: Layout, carry: dict, valid: jax.Array | None = None,
        noise: jax.Array | None = None,
    ) -> tuple[Decision, dict]:  # fmt: skip
        """Of the encoder's states x ``[B, T, d]``; valid ``[B]``: how many of the T count, in
        decoding; noise ``[B, T]``: standard logistic, or None. Without a predictor: by the rule."""
        return Decision(layout.ends), carry

    def inner(
        self, decision: Decision, layout: Layout, at: jax.Array
    ) -> tuple[jax.Array | None, dict]:
        """What the inner trunk is told of units whose last positions are ``at [B, S]``: their
        positions, if not their numbers, and biases of their keys."""
        return None, {}

    @staticmethod
    def flops(stage: StageConfig, length: float) -> float:
        """Of deciding over a row of ``length`` positions."""
        return 0.0


def segmenter(kind: str) -> type[Segmenter]:
    """The class of a kind."""
    return find(Segmenter, "units/segmenters", kind)
