"""What a model reads and an objective scores."""

from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows of packed documents, every field ``[batch, length]``.

    Arrives in the narrow types of the pipeline and is widened by ``widen`` on the device.
    """

    tokens: jax.Array
    """The id before each target: what the model reads."""
    targets: jax.Array
    """The ids to predict."""
    segment_ids: jax.Array
    """Which document of the row, from 1; 0 is padding. Segments never see each other."""
    positions: jax.Array
    """Place within the segment, from 0."""
    loss_weights: jax.Array
    """1 where the target counts, 0 where it does not (padding, context that is not scored)."""
    marks: jax.Array
    """1 where a unit that was marked beforehand ends with the token; 0 everywhere without marks."""

    def widen(self) -> "Batch":
        """The same batch with int32 ids and float32 weights."""
        wide = {
            name: getattr(self, name).astype(jnp.int32)
            for name in ("tokens", "targets", "segment_ids", "positions", "marks")
        }
        return Batch(**wide, loss_weights=self.loss_weights.astype(jnp.float32))


FIELDS = tuple(field.name for field in fields(Batch))
