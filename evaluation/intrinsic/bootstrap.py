"""How a number moves with the choice of documents: a bootstrap, with the same draws for all."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

RESAMPLES = 1000
_GROUPS = 2000


class Measured(NamedTuple):
    """A number, and the ends of its 95% interval; None: it cannot be said."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Draws:
    """``RESAMPLES`` draws of documents with replacement. More than 2,000 documents are drawn in so
    many groups, document i in group i mod 2,000."""

    def __init__(self, documents: int):
        self.groups = min(documents, _GROUPS)
        at = np.arange(documents)
        members = (np.ones(documents), (at % max(self.groups, 1), at))
        self._members = csr_array(members, shape=(self.groups, documents))

    @functools.cached_property
    def _weights(self) -> np.ndarray:
        """How often each group is drawn, ``[draws, groups]``."""
        share = np.full(self.groups, 1 / self.groups)
        drawn = np.random.default_rng(0).multinomial(self.groups, share, RESAMPLES)
        return drawn.astype(np.float64)

    def measured(self, sums: Any, value: Callable[[np.ndarray], np.ndarray]) -> list[Measured]:
        """Numbers that are functions of sums over documents.

        sums: float64 ``[documents, k]``, of NumPy or a sparse array of SciPy; value: of sums
        ``[n, k]`` the numbers ``[n, m]``, NaN for what cannot be said. The interval (percentiles)
        is over the draws of which it can; there is none of fewer than two documents.
        """
        whole = value(np.asarray(sums.sum(axis=0), np.float64).reshape(1, -1))[0].tolist()
        if self.groups < 2:
            return [Measured(_finite(one)) for one in whole]
        grouped, drawn = self._members @ sums, []
        for start in range(0, RESAMPLES, 50):  # sums may be as many as a vocabulary has ids
            drawn.append(value(self._weights[start : start + 50] @ grouped))
        found = []
        for one, draws in zip(whole, np.concatenate(drawn).T, strict=True):
            draws = draws[np.isfinite(draws)]
            if _finite(one) is None or not len(draws):
                found.append(Measured(_finite(one)))
            else:
                low, high = np.quantile(draws, [0.025, 0.975])
                found.append(Measured(one, float(low), float(high)))
        return found


def divided(top: Any, bottom: Any) -> np.ndarray:
    """A quotient; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
