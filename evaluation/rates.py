"""Rates of unit ends that treat scripts alike, from parallel text."""

import numpy as np
from scipy.optimize import lsq_linear

from octavo.configs.schema import ConfigError
from octavo.tokenizers import scripts


def fair_rates(
    texts: dict[str, list[bytes]], routes: tuple[str, ...], anchor: str, rate: float
) -> tuple[float, ...]:
    """A rate of unit ends for other scripts and for each of ``routes`` (as ``stage.scripts``), so
    that every language's text gets as many units as the anchor's does at ``rate`` (least squares of
    the relative differences; MAGNET, 2407.08818, sets rates by bytes per word).

    Raises ConfigError for an anchor that is not there.
    """
    if anchor not in texts:
        raise ConfigError(f"no language {anchor!r}; there are {', '.join(texts)}.")
    index = {name: i for i, name in enumerate(scripts.names())}
    shares = []
    for found in texts.values():
        counts = sum(np.bincount(scripts.scripts_of(line), minlength=len(index)) for line in found)
        of_routes = [sum(counts[index[name]] for name in group.split("+")) for group in routes]
        shares.append([counts.sum() - sum(of_routes), *of_routes])
    wanted = rate * sum(shares[list(texts).index(anchor)])
    bytes_of = np.array(shares, float)
    # A script that hardly occurs gets the anchor's rate.
    weight = 0.03
    system = np.concatenate([bytes_of / wanted, weight * np.eye(bytes_of.shape[1])])
    target = np.append(np.ones(len(shares)), np.full(bytes_of.shape[1], weight * rate))
    solved = lsq_linear(system, target, bounds=(0.01, 0.5)).x
    return tuple(round(float(x), 3) for x in solved)


def written_in(texts: dict[str, list[bytes]], least: float = 0.02) -> tuple[str, ...]:
    """Scripts that hold a ``least`` share of some language's bytes."""
    found = set()
    for lines in texts.values():
        counts = np.bincount(
            np.concatenate([scripts.scripts_of(line) for line in lines]),
            minlength=len(scripts.names()),
        )
        found |= set(np.flatnonzero(counts > least * counts.sum()))
    return tuple(scripts.names()[i] for i in sorted(found - {0}))
