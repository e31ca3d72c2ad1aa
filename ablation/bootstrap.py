"""How sure a difference is: as the choice of documents goes, by a bootstrap; as the seed goes, by a
t interval.

All of it can be computed anew from the nats and bytes of each document, which ``results.parquet``
and the ``measured.json`` of each run hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

DRAWS = 10_000
"""Of documents with replacement."""
LEVEL = 0.95
_AT_A_TIME = 250


def resampled(nats: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Bits per byte of each draw of documents: float64 ``[draws, cells]``.

    nats: float64 ``[cells, n]``, what each document costs in each cell; sizes: int ``[n]``, bytes.
    Draw d is ``w = np.random.default_rng(0).multinomial(n, [1 / n] * n, DRAWS)[d]``, how often each
    document was drawn, and gives ``(w @ nats[c]) / ln 2 / (w @ sizes)``: the same documents for all
    cells, so that differences between cells are paired. Draws of empty documents alone are left
    out.
    """
    rng, n = np.random.default_rng(0), len(sizes)
    share, parts = np.full(n, 1 / n), []
    for start in range(0, DRAWS, _AT_A_TIME):  # one after another, they are the same draws
        drawn = rng.multinomial(n, share, min(_AT_A_TIME, DRAWS - start)).astype(np.float64)
        total = drawn @ sizes
        drawn, total = drawn[total > 0], total[total > 0]
        parts.append(drawn @ nats.T / math.log(2) / total[:, None])
    return np.concatenate(parts)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 2.5% and 97.5% percentiles (interpolated linearly, as numpy does)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample, ``sqrt(sum((x - mean)^2) / (n - 1))``; None of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Noise:
    """What the seed does at one budget, the same for all arms."""

    sd: float
    """Bits per byte."""
    df: int
    """Degrees of freedom."""

    def half_width(self, n: int, m: int) -> float:
        """Of the 95% interval of a difference between means over n and m seeds:
        ``t(0.975, df) * sd * sqrt(1 / n + 1 / m)``."""
        t = float(stdtrit(self.df, (1 + LEVEL) / 2))
        return t * self.sd * math.sqrt(1 / n + 1 / m)


def pooled(groups: Sequence[Sequence[float]]) -> Noise | None:
    """The standard deviation over seeds, pooled over groups (arms) of bits per byte:
    ``sqrt(sum over groups of sum((x - mean of the group)^2) / df)`` with ``df = sum(n - 1)``. None
    if no group has two seeds."""
    df = sum(len(group) - 1 for group in groups)
    if df < 1:
        return None
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    return Noise(math.sqrt(squares / df), df)


@dataclass(frozen=True)
class Sample:
    """Cells of one arm at one budget, that differ by their seed."""

    bits: dict[int, float]
    """Bits per byte by seed."""
    draws: np.ndarray | None
    """float64 ``[draws]``: mean over the seeds of each draw of documents; None of one document."""

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.bits.values())))


def difference(one: Sample, other: Sample, noise: Noise | None) -> dict[str, Any]:
    """``one - other`` in bits per byte, of the means over seeds.

    low, high: 95% interval over draws of documents, paired: percentiles of the differences of each
    draw. documents: half of its width. seeds: ``Noise.half_width``. margin:
    ``sqrt(documents^2 + seeds^2)``, of those that are known. by_seed: of the seeds that both have.
    clear: the difference is told apart from none: both have more than one seed, it is more than the
    margin, and 0 lies outside of low and high.
    """
    mean = one.mean - other.mean
    low = high = documents = seeds = None
    if one.draws is not None and other.draws is not None:
        low, high = interval(one.draws - other.draws)
        documents = (high - low) / 2
    if noise is not None:
        seeds = noise.half_width(len(one.bits), len(other.bits))
    known = [each for each in (documents, seeds) if each is not None]
    margin = math.hypot(*known) if known else None
    clear = (
        min(len(one.bits), len(other.bits)) > 1
        and seeds is not None and low is not None and high is not None and margin is not None
        and abs(mean) > margin and not low <= 0 <= high
    )  # fmt: skip
    return {
        "mean": mean, "low": low, "high": high, "documents": documents, "seeds": seeds,
        "margin": margin,
        "by_seed": [
            one.bits[seed] - other.bits[seed] for seed in sorted(one.bits) if seed in other.bits
        ],
        "clear": clear,
    }  # fmt: skip
