"""Rates of unit ends that treat scripts alike, from parallel text."""

import difflib

import numpy as np
from scipy.optimize import lsq_linear

from octavo.configs.checks import ConfigError
from octavo.tokenizers.unicode import scripts

LEAST, MOST = 0.01, 0.5
"""Rates that may come out."""


def fair_rates(
    texts: dict[str, list[bytes]], routes: tuple[str, ...], anchor: str, rate: float
) -> tuple[float, ...]:
    """A rate of unit ends for other scripts and for each of ``routes`` (as ``stage.scripts``), so
    that every language's text gets as many units as the anchor's does at ``rate`` (least squares of
    the relative differences; MAGNET, 2407.08818, sets rates by bytes per word).

    Raises ConfigError for an anchor that is not there, or a script that is none or comes twice.
    """
    if anchor not in texts:
        raise ConfigError(f"no language {anchor!r}; there are {', '.join(texts)}.")
    index = {name: i for i, name in enumerate(scripts.names()) if i}
    asked = [name for group in routes for name in group.split("+")]
    for name in asked:
        if name not in index:
            near = difflib.get_close_matches(name, index, 1)
            hint = f" Did you mean {near[0]}?" if near else f" The text has {_listed(texts)}."
            raise ConfigError(f"no script {name!r}.{hint}")
        if asked.count(name) > 1:
            raise ConfigError(f"script {name} is asked for {asked.count(name)} times.")
    shares = []
    for found in texts.values():
        each = [np.bincount(scripts.scripts_of(line), minlength=len(index)) for line in found]
        counts = np.sum(each, axis=0)
        of_routes = [sum(counts[index[name]] for name in group.split("+")) for group in routes]
        shares.append([counts.sum() - sum(of_routes), *of_routes])
    wanted = rate * sum(shares[list(texts).index(anchor)])
    bytes_of = np.array(shares, float)
    # A script that hardly occurs gets the anchor's rate.
    weight = 0.03
    system = np.concatenate([bytes_of / wanted, weight * np.eye(bytes_of.shape[1])])
    target = np.append(np.ones(len(shares)), np.full(bytes_of.shape[1], weight * rate))
    solved = lsq_linear(system, target, bounds=(LEAST, MOST)).x
    return tuple(round(float(x), 3) for x in solved)


def _listed(texts: dict[str, list[bytes]]) -> str:
    return ", ".join(written_in(texts)) or "none"


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
