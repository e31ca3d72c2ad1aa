"""What a study has come to: the means and differences of its arms at every budget, their order,
what is to be doubted, and the answer in words. The page and the tables are made of it."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octavo.ablation import doubts, verdict
from octavo.ablation.bootstrap import Noise, Sample, difference, interval, pooled, resampled, spread
from octavo.ablation.results import (
    Cell,
    chosen_rate,
    read_cells,
    read_speed,
    read_study,
    tries_of,
)
from octavo.ablation.shown import cell_json, curve_json, cuts, settings_of
from octavo.evaluation.curves import number


@dataclass
class Point:
    """Done cells of an arm, at one size and budget, by seed."""

    arm: str
    size: str | None
    budget: int
    cells: list[Cell]
    sample: Sample
    reason: str | None
    """Why its score is not proven, as the end of a sentence."""

    @property
    def mean(self) -> float:
        return self.sample.mean


def summary(out: Path) -> dict[str, Any]:
    """All that the page and the tables of a study say, as JSON has it.

    Bits per byte of a cell: the nats of all scored documents / ln 2 / their bytes. Of a point (an
    arm at a size and a budget): the mean over its seeds; ``low`` and ``high`` are the 95% interval
    of that mean by a bootstrap over documents, ``spread`` the standard deviation over seeds.
    Differences, and when one is told apart from none: ``octavo.ablation.bootstrap.difference``,
    with what the seed does pooled over all points of the budget whose score is proven (over all, if
    none is); ``difference`` is to the baseline, ``behind`` to the best arm of the budget. Ranks:
    the order of the means at each budget of the arms whose score is proven; an arm of several sizes
    has its best one.

    Raises ConfigError if the folder holds no study, DataError if study.json cannot be read; of the
    files of cells, it takes those that there are.
    """
    study = read_study(out)
    cells = read_cells(out, study)
    by_name = {cell.name: cell for cell in cells}
    tuned = {}
    for arm in study["arms"]:
        mine = [by_name[planned["name"]] for planned in tries_of(study, arm["name"])]
        tuned[arm["name"]] = chosen_rate(mine) if mine else None
    tried = {p["name"] for arm in study["arms"] for p in tries_of(study, arm["name"])}
    chosen = {found["cell"] for found in tuned.values() if found}
    kept = [cell for cell in cells if cell.name not in tried or cell.name in chosen]
    points = _points([cell for cell in kept if cell.status == "done"])
    budgets = _increasing(study)
    noise = {budget: _noise(points, budget) for budget in budgets}
    best = {budget: _best(points, budget) for budget in budgets}
    clear = {budget: _clear(best[budget], noise[budget]) for budget in budgets}
    speed = read_speed(out)
    found = {
        name: study.get(name)
        for name in (
            "name", "title", "budget", "inference_flops", "seeds", "baseline", "tuning", "unequal",
            "existing", "text",
        )
    }  # fmt: skip
    found |= {
        "arms": [arm | {"colour": i} for i, arm in enumerate(study["arms"])],
        "done": _done(cells, tried, chosen),
        "points": [
            _point_json(point, study, noise[point.budget], best[point.budget],
                        clear[point.budget], points, speed)
            for point in points
        ],
        "envelope": [
            {"budget": budget, "arm": arm, "size": point.size, "bits_per_byte": point.mean}
            for budget in budgets
            for arm, point in best[budget].items()
            if any(a["name"] == arm and len(a["sizes"]) > 1 for a in study["arms"])
        ],
        "ranks": [_ranks(budget, best[budget], clear[budget]) for budget in budgets],
        "flips": _flips(budgets, best, clear),
        "tries": [each for found in tuned.values() if found for each in found["tries"]],
        "tuning_cost": _tuning_cost(cells, tried - chosen),
        "speed": speed,
    }  # fmt: skip
    settings = settings_of(cells)
    found["cells"] = [
        cell_json(cell, cell.name not in tried or cell.name in chosen, settings[cell.name])
        for cell in cells
    ]
    found["curves"] = [
        curve_json(cell, cell.name not in tried or cell.name in chosen)
        for cell in cells
        if cell.curves.steps
    ]
    at = verdict.decisive(found)
    at = max((p.budget for p in points), key=budgets.index, default=0) if at is None else at
    found["cuts"] = cuts(
        {arm: point.cells[0] for arm, point in _best(points, at, proven=False).items()},
        [arm["name"] for arm in study["arms"]],
    )
    found["warnings"] = doubts.warnings(found)
    found["answer"] = verdict.answer(found)
    found["cannot"] = verdict.cannot(found)
    return found


def _increasing(study: dict[str, Any]) -> list[int]:
    """The budgets by number, smallest first."""
    values = study["budget"]["values"]
    return sorted(range(len(values)), key=lambda i: values[i] or 0)


def _points(cells: list[Cell]) -> list[Point]:
    """Of done cells, in their order; all that are paired are drawn at once."""
    if not cells:
        return []
    sizes = cells[0].sizes
    draws = None
    if (sizes > 0).sum() > 1:
        draws = resampled(np.stack([cell.nats for cell in cells]), sizes)
    groups: dict[tuple, list[int]] = {}
    for i, cell in enumerate(cells):
        key = cell.planned["arm"], cell.planned["size"], cell.planned["budget"]
        groups.setdefault(key, []).append(i)
    found = []
    for (arm, size, budget), mine in groups.items():
        mine.sort(key=lambda i: cells[i].planned["seed"])
        of = [cells[i] for i in mine]
        drawn = None if draws is None else draws[:, mine].mean(axis=1)
        sample = Sample({cell.planned["seed"]: cell.bits_per_byte for cell in of}, drawn)
        found.append(Point(arm, size, budget, of, sample, _reason(of)))
    return found


def _reason(cells: list[Cell]) -> str | None:
    """Why not all of their scores are proven."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.unproven:
            reasons.setdefault(cell.unproven, []).append(cell.name)
    told = [
        why if len(names) == len(cells) else f"{', '.join(names)}: {why}"
        for why, names in reasons.items()
    ]
    return "; ".join(told) or None


def _noise(points: list[Point], budget: int) -> Noise | None:
    mine = [point for point in points if point.budget == budget]
    proven = [point for point in mine if not point.reason]
    return pooled([list(point.sample.bits.values()) for point in proven or mine])


def _best(points: list[Point], budget: int, proven: bool = True) -> dict[str, Point]:
    """The best size of each arm at a budget, best arm first."""
    found: dict[str, Point] = {}
    for point in sorted(points, key=lambda point: point.mean):
        if point.budget == budget and not (proven and point.reason):
            found.setdefault(point.arm, point)
    return found


def _clear(best: dict[str, Point], noise: Noise | None) -> dict[frozenset, bool]:
    """Whether two arms are told apart, by pair."""
    return {
        frozenset(pair): difference(best[pair[0]].sample, best[pair[1]].sample, noise)["clear"]
        for pair in itertools.combinations(best, 2)
    }


def _ranks(
    budget: int, best: dict[str, Point], clear: dict[frozenset, bool]
) -> dict[str, Any]:  # fmt: skip
    """The order at a budget; ties: the largest groups in which no two are told apart, which may
    have arms in common."""
    ties: list[list[str]] = []

    def grow(group: list[str], more: list[str], left: list[str]) -> None:
        """By Bron and Kerbosch. left: what would go with the group, and is in larger ones."""
        if not more and not left and len(group) > 1:
            ties.append(group)
        while more:
            arm, *more = more
            tied = [[o for o in of if not clear[frozenset((arm, o))]] for of in (more, left)]
            grow([*group, arm], *tied)
            left = [*left, arm]

    grow([], list(best), [])
    return {"budget": budget, "order": list(best), "ties": ties}


def _flips(
    budgets: list[int], best: dict[int, dict[str, Point]], clear: dict[int, dict[frozenset, bool]]
) -> list[dict[str, Any]]:
    """Pairs whose order changes from one budget to the next that has both: ``a`` is the better one
    at the first; clear: they are told apart at both."""
    found = []
    arms = list(dict.fromkeys(arm for budget in budgets for arm in best[budget]))
    for pair in itertools.combinations(arms, 2):
        both = [budget for budget in budgets if all(arm in best[budget] for arm in pair)]
        for i, j in itertools.pairwise(both):
            a, b = sorted(pair, key=lambda arm: best[i][arm].mean)
            if best[j][a].mean > best[j][b].mean:
                apart = clear[i][frozenset(pair)] and clear[j][frozenset(pair)]
                found.append({"a": a, "b": b, "budgets": [i, j], "clear": apart})
    return found


def _done(cells: list[Cell], tried: set[str], chosen: set[str]) -> dict[str, Any]:
    """How far the study is. A try that is not chosen need not be measured, nor come to an end."""
    done, missing, failed = 0, [], []
    for cell in cells:
        lost = cell.name in tried and cell.name not in chosen
        if cell.status == "done" or (lost and cell.status in ("trained", "lost")):
            done += 1
        elif cell.status in ("failed", "lost"):
            failed.append({"cell": cell.name, "why": cell.why})
        else:
            missing.append(cell.name)
    return {"cells": len(cells), "done": done, "missing": missing, "failed": failed}


def _tuning_cost(cells: list[Cell], lost: set[str]) -> dict[str, Any]:
    """What the tries took that were not chosen: FLOPs (paid), their share of those of all cells,
    and seconds."""

    def total(name: str, mine: Iterable[Cell]) -> float:
        return math.fsum(number(cell.results.get(name)) or 0.0 for cell in mine)

    tries = [cell for cell in cells if cell.name in lost]
    flops, every = total("flops", tries), total("flops", cells)
    share = flops / every if every else 0.0
    return {"flops": flops, "share": share, "seconds": total("seconds", tries)}


def _point_json(
    point: Point, study: dict[str, Any], noise: Noise | None, best: dict[str, Point],
    clear: dict[frozenset, bool], points: list[Point], speed: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    sample, first = point.sample, point.cells[0]
    low, high = (None, None) if sample.draws is None else interval(sample.draws)
    base = _best(points, point.budget, proven=False).get(study["baseline"])
    base = best.get(study["baseline"], base)
    against = None
    if base is not None and base is not point:
        against = difference(sample, base.sample, noise)
        against["clear"] = against["clear"] and not (point.reason or base.reason)
    ranked, leader = best.get(point.arm) is point, next(iter(best.values()), point)
    rows = _Rows(point.cells)
    return {
        "arm": point.arm, "size": point.size, "budget": point.budget,
        "value": study["budget"]["values"][point.budget],
        "seeds": [
            {"seed": cell.planned["seed"], "cell": cell.name, "bits_per_byte": cell.bits_per_byte}
            for cell in point.cells
        ],
        "mean": sample.mean, "spread": spread(list(sample.bits.values())), "low": low, "high": high,
        "difference": against,
        "behind": difference(sample, leader.sample, noise)
        if ranked and leader is not point else None,
        "rank": list(best).index(point.arm) + 1 if ranked else None,
        "tied": [
            arm for arm in best if arm != point.arm and not clear[frozenset((arm, point.arm))]
        ] if ranked else [],
        "flops_useful": rows.mean("results", "flops_useful"),
        "flops_paid": rows.mean("results", "flops"),
        "bytes": rows.mean("results", "bytes"), "seconds": rows.mean("results", "seconds"),
        "steps": rows.mean("results", "step"), "parameters": rows.mean("results", "parameters"),
        "learning_rate": _mean(cell.learning_rate for cell in point.cells),
        "next_word_accuracy": rows.mean("measured", "next_word_accuracy"),
        "bytes_per_unit": rows.mean("measured", "bytes_per_unit"),
        "ids_per_byte": rows.mean("measured", "ids_per_byte"),
        "fairness_premium": rows.mean("measured", "fairness", "premium"),
        "train_bytes_per_second": _speed(speed, point, "train_bytes_per_second"),
        "decode_bytes_per_second": _speed(speed, point, "decode_bytes_per_second"),
        "inference": {
            name: rows.mean("measured", "inference", name)
            for name in ("flops_per_byte_useful", "flops_per_byte_paid", "parameter_bytes")
        },
        "by_label": rows.of_each("by_label"), "by_script": rows.of_each("by_script"),
        "units_by_script": {
            script: rows.mean("measured", "units_by_script", script)
            for script in _part(first.measured, "units_by_script")
        },
        "noise": rows.averaged(("noise",), ("noise", "rate")),
        "bands": rows.averaged(("bands",), ("band",)),
        "languages": rows.averaged(("fairness", "languages"), ("language", "script")) or None,
        "merged": _mean(merged(cell) for cell in point.cells),
        "certified": point.reason is None, "unproven": point.reason,
    }  # fmt: skip


class _Rows:
    """Means over the cells of a point, of what their files say; None where none says it."""

    def __init__(self, cells: list[Cell]):
        self._cells = cells

    def mean(self, *path: str) -> float | None:
        return _mean(number(_at(cell, path)) for cell in self._cells)

    def of_each(self, part: str) -> dict[str, float | None]:
        """Bits per byte of each label or script."""
        names = dict.fromkeys(n for cell in self._cells for n in _part(cell.measured, part))
        return {name: self.mean("measured", part, name, "bits_per_byte") for name in names}

    def averaged(self, path: tuple[str, ...], keys: tuple[str, ...]) -> list[dict[str, Any]]:
        """Rows that are alike in ``keys``, their other values averaged."""
        groups: dict[tuple, list[dict]] = {}
        for cell in self._cells:
            rows = _at(cell, ("measured", *path))
            for row in rows if isinstance(rows, list) else ():
                if isinstance(row, dict) and all(_is_key(name, row.get(name)) for name in keys):
                    groups.setdefault(tuple(row[name] for name in keys), []).append(row)
        return [
            {
                name: rows[0][name] if name in keys else _mean(number(r.get(name)) for r in rows)
                for name in rows[0]
            }
            for rows in groups.values()
        ]


def _is_key(name: str, value: Any) -> bool:
    return number(value) is not None if name == "rate" else isinstance(value, str)


def _at(cell: Cell, path: tuple[str, ...]) -> Any:
    found: Any = getattr(cell, path[0])
    for name in path[1:]:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _part(measured: dict[str, Any], name: str) -> dict[str, Any]:
    found = measured.get(name)
    return found if isinstance(found, dict) else {}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(set(known)) == 1:
        return known[0]  # as it is, whatever a sum would make of it
    return math.fsum(known) / len(known) if known else None


def _speed(speed: dict[str, Any] | None, point: Point, name: str) -> float | None:
    """The mean over rounds."""
    for row in speed["arms"] if speed else ():
        if (row["arm"], row.get("size")) == (point.arm, point.size):
            rounds = row.get(name)
            return _mean(number(each) for each in rounds if isinstance(rounds, list))
    return None


def merged(cell: Cell) -> float | None:
    """Of the ends that were asked for, the share for which a row had no room, over about the last
    tenth of the steps: the most of any level. None without levels."""
    of, last = cell.curves.of, cell.curves.last
    shares = []
    for name, curve in of.items():
        if name.startswith("merged/") and (units := of.get(name.replace("merged", "units"))):
            late = of["step"].mean > 0.9 * last
            lost, kept = (np.nanmean(each.mean[late]) if late.any() else np.nan
                          for each in (curve, units))  # fmt: skip
            if np.isfinite(lost + kept) and lost + kept > 0:
                shares.append(float(lost / (lost + kept)))
    return max(shares, default=None)
