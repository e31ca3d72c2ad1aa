"""Why the numbers of a study are to be doubted: sentences that name arms and cells.

Each is ``{"level", "kind", "text", "arms", "cells"}``. Its level is ``loud`` if it may change the
answer, else ``note``. All are found in the summary alone."""

from collections.abc import Iterable, Iterator
from typing import Any

from scipy.special import fdtri

from octavo.ablation.verdict import decisive, sentence, usual_spread
from octavo.ablation.words import budget_value, counted, listed, point_name, short, verb, within
from octavo.evaluation.curves import HELDOUT, number

OFF_BUDGET, OFF_TEXT, OFF_SCORE, MERGED = 0.05, 0.001, 0.001, 0.001
"""Shares; of the score, bits per byte."""
EPOCHS = 4
"""Text that is read more often teaches less than new text (Muennighoff et al. 2023)."""
FEW_DOCUMENTS, FEW_SEEDS = 20, 3
UNSTEADY = 0.999
"""How sure it must be that an arm moves more with its seed than the others."""
MOST = 6
"""Things that a sentence names."""


def warnings(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """All of them, the loud ones first."""
    found = [each for check in _CHECKS for each in check(summary)]
    return sorted(found, key=lambda each: each["level"] != "loud")


def _say(
    level: str, kind: str, text: str, arms: Iterable[str] = (), cells: Iterable[str] = ()
) -> dict[str, Any]:
    return {
        "level": level, "kind": kind, "text": text, "arms": list(dict.fromkeys(arms)),
        "cells": list(dict.fromkeys(cells)),
    }  # fmt: skip


def _of_cells(level: str, kind: str, text: str, cells: Iterable[dict]) -> dict[str, Any]:
    cells = list(cells)
    return _say(level, kind, text, (c["arm"] for c in cells), (c["name"] for c in cells))


def _of_points(level: str, kind: str, text: str, points: Iterable[dict]) -> dict[str, Any]:
    points = list(points)
    cells = (seed["cell"] for point in points for seed in point["seeds"])
    return _say(level, kind, text, (point["arm"] for point in points), cells)


def _counted(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells whose score is a result."""
    return [cell for cell in summary["cells"] if cell["chosen"] and cell["status"] == "done"]


def _named(summary: dict[str, Any], point: dict[str, Any]) -> str:
    at = budget_value(summary["budget"], point["budget"])
    name = point_name(point)
    return f"{name} at {at}" if at else name


def _arms(items: Iterable[dict]) -> str:
    return listed(list(dict.fromkeys(item["arm"] for item in items)), MOST)


# What was asked for, and what is there of it.


def _unequal(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    what = {
        "text": "the text that they were trained on", "heldout": "the text that they held out",
        "budget": "their budgets",
    }  # fmt: skip
    if summary["unequal"]:
        told = listed([what.get(name, name) for name in summary["unequal"]])
        text = f"The arms are not compared on equal terms, as was asked for: {told} may differ."
        yield _say("loud", "unequal", text)
    if summary["existing"]:
        text = "These runs were not matched: their training, size, text and tuning may all differ."
        yield _say("loud", "unequal", text)


def _unfinished(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    done, cells = summary["done"], {cell["name"]: cell for cell in summary["cells"]}
    if missing := done["missing"]:
        text = (
            f"{counted(len(missing), 'cell')} of {done['cells']} {verb(missing, 'is', 'are')} "
            f"missing: {listed(missing, MOST)}."
        )
        yield _of_cells("loud", "missing", text, (cells[name] for name in missing))
    for each in done["failed"]:
        text = f"{each['cell']} failed: {sentence(each['why'])}"
        yield _of_cells("loud", "failed", text, [cells[each["cell"]]])
    for arm in dict.fromkeys(each["arm"] for each in summary["tries"]):
        tries = [each for each in summary["tries"] if each["arm"] == arm]
        lost = [each for each in tries if each["bits_per_byte"] is None]
        of = [cells[each["cell"]] for each in lost]
        if len(lost) == len(tries):
            text = f"{arm} has no learning rate: it trained with none of those that were tried."
            yield _of_cells("loud", "tuning", text, of)
        elif lost:
            rates = listed([short(each["rate"]) for each in lost])
            text = f"{arm} did not train at {rates} times its learning rate ({lost[0]['why']})."
            yield _of_cells("note", "tuning", text, of)


def _certificates(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    points = summary["points"]
    unproven = [point for point in points if not point["certified"]]
    if unproven and len(unproven) == len(points):
        why = points[0]["unproven"]
        text = f"No score is proven by a certificate, so nothing is ranked ({why})."
        yield _of_points("loud", "certificate", text, unproven)
        return
    for arm in dict.fromkeys(point["arm"] for point in unproven):
        mine = [point for point in unproven if point["arm"] == arm]
        text = (
            f"No certificate proves the {verb(mine, 'score', 'scores')} of "
            f"{listed([_named(summary, point) for point in mine], MOST)}, so "
            f"{verb(mine, 'it has', 'they have')} no rank and no part in the answer "
            f"({mine[0]['unproven']})."
        )
        yield _of_points("loud", "certificate", text, mine)


# How sure the order is.


def _order(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    budget = summary["budget"]

    def told(flip: dict[str, Any]) -> str:
        i, j = (budget_value(budget, index) for index in flip["budgets"])
        return f"{flip['a']} is better than {flip['b']} at {i} and worse at {j}"

    for clear, how in (
        (True, "by more than the noise"),
        (False, "but the order at one of them or at both is not told apart from chance"),
    ):
        flips = [flip for flip in summary["flips"] if flip["clear"] is clear]
        if flips:
            text = f"Ranks flip between budgets, {how}: {'; '.join(map(told, flips[:MOST]))}"
            text += f"; and {len(flips) - MOST} more." if len(flips) > MOST else "."
            arms = (arm for flip in flips for arm in (flip["a"], flip["b"]))
            yield _say("loud", "flip", text, arms)
    for place in summary["ranks"]:
        if place["ties"] and summary["seeds"] > 1:  # of one seed, nothing is told apart
            at = budget_value(budget, place["budget"])
            groups = "; ".join(listed(group) for group in place["ties"])
            start = f"At {at}, " if at else ""
            said = "these are not told apart, whatever their order"
            if len(place["ties"]) > 1:
                said = "arms of one group are not told apart (some are in several)"
            text = f"{start}{said}: {groups}."
            text = text[:1].upper() + text[1:]
            yield _say("loud", "tie", text, (arm for group in place["ties"] for arm in group))


def _seeds(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    seeds, points = summary["seeds"], summary["points"]
    if not points:
        return
    if seeds == 1:
        text = (
            "There is one seed only, so no difference is told apart from what another seed would "
            "do; ± is of the documents alone."
        )
        yield _say("loud", "seeds", text)
    elif seeds < FEW_SEEDS:
        text = f"There are {seeds} seeds only; how much they matter is pooled over all arms."
        yield _say("note", "seeds", text)
    alone = [point for point in points if len(point["seeds"]) == 1 and seeds > 1]
    if alone:
        text = (
            f"Only one seed is there of {listed([_named(summary, each) for each in alone], MOST)}, "
            "which is told apart from nothing."
        )
        yield _of_points("loud", "seeds", text, alone)
    for place in summary["ranks"]:
        yield from _unsteady(summary, [p for p in points if p["budget"] == place["budget"]])


def _unsteady(summary: dict[str, Any], points: list[dict]) -> Iterator[dict[str, Any]]:
    """Arms for which the pooled standard deviation is too small, by an F test."""
    spreads = [(p, p["spread"], len(p["seeds"]) - 1) for p in points if p["spread"] is not None]
    for point, mine, df in spreads:
        others = [(spread, n) for other, spread, n in spreads if other is not point]
        total = sum(n for _, n in others)
        usual = sum(n * spread**2 for spread, n in others) / total if total else 0.0
        if usual and mine**2 / usual > fdtri(df, total, UNSTEADY):
            text = (
                f"{_named(summary, point)} moves with the seed {mine / usual**0.5:.0f} times as "
                "much as the other arms, so its differences are less sure than is said, and those "
                "of the others surer."
            )
            yield _of_points("loud", "seeds", text, [point])


def _text(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    documents, at = summary["text"]["documents"], decisive(summary)
    if documents < 2:
        text = "One document is scored, so what other text would give is not known."
        yield _say("loud", "text", text)
        return
    if documents < FEW_DOCUMENTS:
        text = f"{documents} documents are scored; intervals of so few are too narrow."
        yield _say("note", "text", text)
    blurred = []
    for point in summary["points"]:
        against = point["difference"] if point["budget"] == at and point["rank"] else None
        if against and (against["documents"] or 0) > abs(against["mean"]):
            blurred.append((point, against))
    if blurred:
        names = [
            f"{point['arm']} ({within(against['mean'], against['documents'])})"
            for point, against in blurred
        ]
        text = (
            "The scored text is too small: its choice alone moves differences to "
            f"{summary['baseline']} by more than they are (± of the documents alone), for "
            f"{listed(names, MOST)}."
        )
        yield _of_points("loud", "text", text, (point for point, _ in blurred))


# How the runs were made.


def _tuning(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    grid, close = summary["tuning"]["grid"], _close_tries(summary)
    for each in summary["tries"]:
        if each["edge"]:
            side = "lowest" if each["rate"] == min(grid) else "highest"
            text = (
                f"{each['arm']} has the {side} learning rate that was tried, {short(each['rate'])} "
                "times its preset's, so a better one may lie beyond (wider --rates, in another "
                "--out)"
            )
            if each["arm"] in close:
                text += "; or it is no better than the next one, which did as well within the noise"
            yield _say("loud", "edge", f"{text}.", [each["arm"]], [each["cell"]])
    if close:
        text = (
            f"Which learning rate is best is within the noise for {listed(close, 2 * MOST)}: "
            "their best two tries differ by less than two seeds do."
        )
        yield _say("note", "tuning", text, close)


def _close_tries(summary: dict[str, Any]) -> list[str]:
    """Arms whose best two tries differ by less than the standard deviation over seeds at the
    smallest budget."""
    usual = usual_spread(point for point in summary["points"] if point["budget"] == 0) or 0.0
    found = []
    for arm in dict.fromkeys(each["arm"] for each in summary["tries"]):
        bits = sorted(
            each["bits_per_byte"] for each in summary["tries"]
            if each["arm"] == arm and each["bits_per_byte"] is not None
        )  # fmt: skip
        if len(bits) > 1 and bits[1] - bits[0] < usual:
            found.append(arm)
    return found


def _budgets(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    by, counting = summary["budget"]["by"], summary["budget"]["counted"]
    off = []
    for point in summary["points"]:
        spent, value = point[f"flops_{counting}" if by == "flops" else by], point["value"]
        if value and spent is not None and abs(spent / value - 1) > OFF_BUDGET:
            off.append((point, spent / value - 1))
    if off:
        names = [f"{_named(summary, point)} by {share:+.0%}" for point, share in off]
        text = f"What runs spent is off their budget by more than {OFF_BUDGET:.0%}: "
        text += f"{listed(names, MOST)}."
        yield _of_points("loud", "budget", text, (point for point, _ in off))


def _trained_on(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Text of training and held-out text, as the runs had them."""
    cells = _counted(summary)
    sizes = {cell["name"]: _text_bytes(cell) for cell in cells}
    most = max(sizes.values(), default=0)
    less = [c for c in cells if 0 < sizes[c["name"]] < (1 - OFF_TEXT) * most]
    if less:
        text = f"{_arms(less)} had less text to train on than the other arms."
        yield _of_cells("loud", "unequal", text, less)
    held = {cell["name"]: _held(cell) for cell in cells}
    usual = max(held.values(), key=list(held.values()).count, default=())
    other = [cell for cell in cells if held[cell["name"]] != usual]
    if other:
        text = (
            f"{_arms(other)} held out another part of the text than the other arms, so what is "
            "scored may be among what was trained on."
        )
        yield _of_cells("loud", "unequal", text, other)
    same = (summary["text"]["bytes"], summary["text"]["documents"])
    scores = {s["cell"]: s["bits_per_byte"] for p in summary["points"] for s in p["seeds"]}
    for cell in cells:
        trained, scored = cell["results"].get(HELDOUT), scores[cell["name"]]
        differs = trained is not None and abs(trained - scored) > OFF_SCORE
        if differs and held[cell["name"]] == same:
            text = (
                f"{cell['name']} had {trained:.4f} bits per byte when its training ended and "
                f"{scored:.4f} when it was measured, of the same text."
            )
            yield _of_cells("loud", "score", text, [cell])
    read: dict[str, float] = {}
    for cell in cells:
        spent, whole = cell["results"].get("bytes", 0), sizes[cell["name"]]
        if spent > whole > 0:
            read[cell["arm"]] = max(read.get(cell["arm"], 0.0), spent / whole)
    if read:
        level = "loud" if max(read.values()) > EPOCHS else "note"
        names = [f"{arm} {epochs:.1f} times" for arm, epochs in read.items()]
        text = (
            f"Training text was read more than once, at most: {listed(names, 2 * MOST)}. Past "
            f"{EPOCHS} times, it teaches less than new text."
        )
        yield _say(level, "epochs", text, read)


def _text_bytes(cell: dict[str, Any]) -> float:
    return sum(number(each.get("bytes")) or 0 for each in cell["results"].get("data", ()))


def _held(cell: dict[str, Any]) -> tuple:
    return tuple(cell["results"].get(f"heldout/{what}") for what in ("bytes", "documents"))


def _runs(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What went wrong in runs that count."""
    bad = [cell for cell in _counted(summary) if cell["collapsed"]]
    for arm in dict.fromkeys(cell["arm"] for cell in bad):
        mine = [cell for cell in bad if cell["arm"] == arm]
        text = (
            f"How {arm} cuts text has collapsed in {counted(len(mine), 'run')}: "
            f"{sentence(mine[0]['collapsed'])}"
        )
        yield _of_cells("loud", "collapsed", text, mine)
    lost = [point for point in summary["points"] if (point["merged"] or 0) > MERGED]
    if lost:
        names = [f"{point['merged']:.2%} of those of {_named(summary, point)}" for point in lost]
        text = (
            f"Rows had no room for all units, and ends were merged: {listed(names, MOST)}. "
            "Raise the capacity of their stages."
        )
        yield _of_points("loud", "merged", text, lost)


def _provenance(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cells = _counted(summary)
    told: dict[str, dict[str, str]] = {}
    """By what is compared, then by cell."""
    for cell in cells:
        results, versions = cell["results"], cell["results"].get("versions", {})
        about = {
            "commits": results.get("commit", "unknown")[:12],
            "devices": f"{results.get('devices') or 1} × {results.get('device')}",
        }
        for name, version in versions.items():
            about[f"versions of {name}"] = str(version)
        for what, value in about.items():
            told.setdefault(what, {})[cell["name"]] = value
    for what, by_cell in told.items():
        values = [by_cell.get(cell["name"], "unknown") for cell in cells]
        names = sorted(dict.fromkeys(values), key=values.count, reverse=True)
        if len(names) > 1:
            counts = [f"{name} in {counted(values.count(name), 'cell')}" for name in names]
            others = [c for c, value in zip(cells, values, strict=True) if value != names[0]]
            text = f"Cells were made with different {what}: {listed(counts, MOST)}."
            yield _of_cells("loud", "provenance", text, others)
    changed = [cell for cell in cells if cell["results"].get("commit_changed") is True]
    if changed:
        names = listed([cell["name"] for cell in changed], MOST)
        text = f"Changes that are in no commit were there when these cells were made: {names}."
        yield _of_cells("loud", "provenance", text, changed)


_CHECKS = (
    _unequal, _unfinished, _certificates, _order, _seeds, _text, _tuning, _budgets, _trained_on,
    _runs, _provenance,
)  # fmt: skip
