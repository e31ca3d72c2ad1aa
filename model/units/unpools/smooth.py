"""an average that trusts units by their probability (routing), beside a projection of the encoder's
states."""

from typing import Any

import jax
import jax.numpy as jnp

from octavo.model.layers import Linear, parameter
from octavo.model.units.unpools import Unpool, read


class Smooth(Unpool):
    """The smoothing module of H-Net (Hwang et al. 2025, 2507.07955, equation 5)."""

    needs = {"segmenter": ("routing",)}
    averages = True

    def _make(self, stage, rngs):
        # Starts at nothing: at first, all comes through the units.
        d = stage.width
        self.skip = Linear(d, d, ("embed", None), jnp.float32, rngs, 0.0)
        # The official code's, which came with the norms here.
        self.bias: Any = parameter(jnp.zeros(d), "embed") if stage.end_norms else None

    @classmethod
    def flops(cls, stage, inner_width, length, units):
        skip = 2 * length * stage.width**2
        return skip + super().flops(stage, inner_width, length, units)

    def averaged(self, made, p, before):
        """Each counts by its probability, the average before it by the rest."""
        p = p[..., None, None]

        def join(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        kept, added = jax.lax.associative_scan(join, (1 - p, p * made.astype(jnp.float32)), axis=1)
        return (added + kept * before[:, None]).astype(made.dtype)

    def __call__(self, x, memory, index, boundary, since, p=None):
        # Worth exactly 1, with the gradient of the probability of what was decided.
        sure = jnp.where(boundary, p, 1 - p)  # type: ignore[operator,arg-type]
        sure = 1 + (sure - jax.lax.stop_gradient(sure))
        skip = self.skip(x) if self.bias is None else self.skip(x) + self.bias[...]
        return (read(memory, index) * sure[..., None] + skip).astype(x.dtype)
