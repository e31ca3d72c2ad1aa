"""Why the numbers of a study are to be doubted: sentences that name arms and cells.

Each is ``{"level": "loud" or "note", "kind", "text", "arms", "cells"}``: loud is what may change the
answer, a note what one should know. All are found in the summary alone."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from octavo.ablation.verdict import decisive, sentence
from octavo.ablation.words import budget_value, counted, listed, short, verb, within
from octavo.evaluation.curves import number

OFF_BUDGET, MERGED = 0.05, 0.001
EPOCHS = 4
"""Text that is read more often teaches less than new text (Muennighoff et al. 2023)."""
FEW_DOCUMENTS, FEW_SEEDS = 20, 3
MOST_NAMED = 6

Warning = dict[str, Any]


def warnings(summary: dict[str, Any]) -> list[Warning]:
    """All of them, the loud ones first."""
    found = [each for check in _CHECKS for each in check(summary)]
    return sorted(found, key=lambda each: each["level"] != "loud")


def _say(
    level: str, kind: str, text: str, arms: Iterable[str] = (), cells: Iterable[str] = ()
) -> Warning:
    return {
        "level": level, "kind": kind, "text": text, "arms": list(dict.fromkeys(arms)),
        "cells": list(dict.fromkeys(cells)),
    }  # fmt: skip


def _unequal(summary: dict[str, Any]) -> Iterator[Warning]:
    what = {
        "text": "the text that arms were trained on", "heldout": "the text that runs held out",
        "budget": "the budgets",
    }  # fmt: skip
    if summary["unequal"]:
        told = listed([what.get(name, name) for name in summary["unequal"]])
        yield _say(
            "loud", "unequal",
            f"The comparison is unequal, as was asked for: {told} may differ between arms.",
        )  # fmt: skip
    if summary["existing"]:
        yield _say(
            "loud", "unequal",
            "These are runs that were there: neither their training, nor their text, nor their "
            "learning rates were matched.",
        )  # fmt: skip


def _unfinished(summary: dict[str, Any]) -> Iterator[Warning]:
    done, arm_of = summary["done"], {each["name"]: each["arm"] for each in summary["cells"]}
    if missing := done["missing"]:
        yield _say(
            "loud", "missing",
            f"{counted(len(missing), 'cell')} of {done['cells']} {verb(missing, 'is', 'are')} "
            f"missing: {listed(missing, MOST_NAMED)}.",
            (arm_of[name] for name in missing), missing,
        )  # fmt: skip
    for each in done["failed"]:
        yield _say(
            "loud", "failed", f"{each['cell']} failed: {each['why']}.", [arm_of[each["cell"]]],
            [each["cell"]],
        )  # fmt: skip
    for arm in dict.fromkeys(each["arm"] for each in summary["tries"]):
        tries = [each for each in summary["tries"] if each["arm"] == arm]
        lost = [each for each in tries if each["bits_per_byte"] is None]
        rates = listed([f"{short(each['rate'])} times" for each in lost])
        if len(lost) == len(tries):
            yield _say(
                "loud", "tuning",
                f"{arm} has no learning rate: its {counted(len(tries), 'try')[:-1]}s were all lost."
                if len(tries) == 1 else
                f"{arm} has no learning rate: all of its {len(tries)} tries were lost.",
                [arm], [each["cell"] for each in lost],
            )  # fmt: skip
        elif lost:
            yield _say(
                "note", "tuning",
                f"{arm} did not train at {rates} its preset's learning rate: "
                f"{lost[0]['why']}.", [arm], [each["cell"] for each in lost],
            )  # fmt: skip


def _certificates(summary: dict[str, Any]) -> Iterator[Warning]:
    for point in summary["points"]:
        if not point["certified"]:
            where = _where(summary, point)
            yield _say(
                "loud", "certificate",
                f"The score of {point['arm']}{where} is not proven, so it has no rank and no part "
                f"in the answer ({point['unproven']}).",
                [point["arm"]], [each["cell"] for each in point["seeds"]],
            )  # fmt: skip


def _seeds(summary: dict[str, Any]) -> Iterator[Warning]:
    if not summary["points"]:
        return
    seeds = summary["seeds"]
    if seeds == 1:
        yield _say(
            "loud", "seeds",
            "There is one seed only: no difference can be told apart from what another seed would "
            "do, and ± is that of the documents alone.",
        )  # fmt: skip
    elif seeds < FEW_SEEDS:
        yield _say(
            "note", "seeds",
            f"With {seeds} seeds an arm, what the seed does is known only as pooled over all arms.",
        )  # fmt: skip
    alone = [p for p in summary["points"] if len(p["seeds"]) == 1 and seeds > 1]
    if alone:
        names = [p["arm"] + _where(summary, p) for p in alone]
        yield _say(
            "loud", "seeds",
            f"Of {listed(names, MOST_NAMED)} only one seed is done, so no difference to "
            f"{verb(names, 'it', 'them')} can be told apart from chance.",
            (p["arm"] for p in alone),
        )  # fmt: skip
    for place in summary["ranks"]:
        mine = [p for p in summary["points"] if p["budget"] == place["budget"] and p["spread"]]
        for point in mine:
            others = [p["spread"] for p in mine if p is not point]
            usual = (sum(s**2 for s in others) / len(others)) ** 0.5 if len(others) > 1 else 0.0
            if usual and point["spread"] > 3 * usual:
                yield _say(
                    "note", "seeds",
                    f"{point['arm']}{_where(summary, point)} moves with the seed "
                    f"{point['spread'] / usual:.1f} times as much as the other arms, so its margin "
                    "there is larger than is said.", [point["arm"]],
                )  # fmt: skip


def _order(summary: dict[str, Any]) -> Iterator[Warning]:
    budget = summary["budget"]
    clear = [flip for flip in summary["flips"] if flip["clear"]]
    within_noise = [flip for flip in summary["flips"] if not flip["clear"]]

    def told(flip: dict[str, Any]) -> str:
        i, j = (budget_value(budget, index) for index in flip["budgets"])
        return f"{flip['a']} is better than {flip['b']} at {i} and worse at {j}"

    if clear:
        yield _say(
            "loud", "flip",
            f"Ranks flip between budgets, by more than the noise: "
            f"{listed([told(flip) for flip in clear], MOST_NAMED)}.",
            (arm for flip in clear for arm in (flip["a"], flip["b"])),
        )  # fmt: skip
    if within_noise:
        yield _say(
            "loud", "flip",
            f"Ranks flip between budgets, within the noise of at least one of them: "
            f"{listed([told(flip) for flip in within_noise], MOST_NAMED)}.",
            (arm for flip in within_noise for arm in (flip["a"], flip["b"])),
        )  # fmt: skip
    for place in summary["ranks"]:
        if place["ties"]:
            at = budget_value(budget, place["budget"])
            groups = "; ".join(listed(group) for group in place["ties"])
            yield _say(
                "loud", "tie",
                f"{f'At {at}, these' if at else 'These'} are not told apart, whatever their order: "
                f"{groups}.", (arm for group in place["ties"] for arm in group),
            )  # fmt: skip


def _text(summary: dict[str, Any]) -> Iterator[Warning]:
    documents = summary["text"]["documents"]
    if documents < 2:
        yield _say(
            "loud", "text",
            "The text that is scored is one document, of which no interval can be drawn.",
        )  # fmt: skip
        return
    if documents < FEW_DOCUMENTS:
        yield _say(
            "note", "text",
            f"The text that is scored has {documents} documents only: intervals of so few are too "
            "narrow.",
        )  # fmt: skip
    at = decisive(summary)
    blurred = [
        point for point in summary["points"]
        if point["budget"] == at and point["rank"] and point["difference"]
        and point["difference"]["documents"] is not None
        and point["difference"]["documents"] > abs(point["difference"]["mean"])
    ]  # fmt: skip
    if blurred:
        names = [
            f"{point['arm']} ({within(point['difference']['mean'], None)}, and ± "
            f"{within(point['difference']['documents'], None)} of the documents)"
            for point in blurred
        ]  # fmt: skip
        yield _say(
            "loud", "text",
            f"The text that is scored is too small to tell {summary['baseline']} from "
            f"{listed(names, MOST_NAMED)}.", (point["arm"] for point in blurred),
        )  # fmt: skip


def _tuning(summary: dict[str, Any]) -> Iterator[Warning]:
    for each in summary["tries"]:
        if each["edge"]:
            grid = summary["tuning"]["grid"]
            side = "lowest" if each["rate"] == min(grid) else "highest"
            yield _say(
                "loud", "edge",
                f"The learning rate of {each['arm']} is the {side} that was tried "
                f"({short(each['rate'])} times its preset's), so a better one may lie beyond.",
                [each["arm"]], [each["cell"]],
            )  # fmt: skip


def _budgets(summary: dict[str, Any]) -> Iterator[Warning]:
    budget = summary["budget"]
    field = {"flops": f"flops_{budget['counted']}", "bytes": "bytes", "steps": "steps"}
    off = []
    for point in summary["points"]:
        spent, value = point[field[budget["by"]]], point["value"]
        if value and spent is not None and abs(spent / value - 1) > OFF_BUDGET:
            off.append((point, spent / value - 1))
    if off:
        names = [f"{p['arm']}{_where(summary, p)} by {share:+.0%}" for p, share in off]
        yield _say(
            "loud", "budget",
            f"What runs spent is off the budget by more than {OFF_BUDGET:.0%}: "
            f"{listed(names, MOST_NAMED)}.",
            (p["arm"] for p, _ in off), (s["cell"] for p, _ in off for s in p["seeds"]),
        )  # fmt: skip


def _runs(summary: dict[str, Any]) -> Iterator[Warning]:
    """What went wrong in runs that count."""
    for cell in _counted(summary):
        if cell["collapsed"]:
            yield _say(
                "loud", "collapsed",
                f"{cell['name']} has collapsed: {sentence(cell['collapsed'])}", [cell["arm"]],
                [cell["name"]],
            )  # fmt: skip
    lost = [point for point in summary["points"] if (point["merged"] or 0) > MERGED]
    if lost:
        names = [f"{p['arm']}{_where(summary, p)} {p['merged']:.2%}" for p in lost]
        yield _say(
            "loud", "merged",
            f"Rows had no room for some units, whose ends were merged: {listed(names, MOST_NAMED)} "
            f"of them. Raise the capacity of these arms.", (p["arm"] for p in lost),
        )  # fmt: skip
    read = {}
    for cell in _counted(summary):
        data = cell["results"].get("data")
        whole = sum(number(c.get("bytes")) or 0 for c in data) if isinstance(data, list) else 0
        if whole and (epochs := (number(cell["results"].get("bytes")) or 0) / whole) > 1:
            read[cell["arm"]] = max(read.get(cell["arm"], 0.0), epochs)
    if read:
        level = "loud" if max(read.values()) > EPOCHS else "note"
        names = [f"{arm} {epochs:.1f} times" for arm, epochs in read.items()]
        yield _say(
            level, "epochs",
            f"Text was read more than once at the largest budget: {listed(names, 12)}. What is read "
            "again teaches less than new text.", read,
        )  # fmt: skip


def _provenance(summary: dict[str, Any]) -> Iterator[Warning]:
    cells = _counted(summary)

    def groups(value: Callable[[dict], Any]) -> dict[str, list[dict]]:
        found: dict[str, list[dict]] = {}
        for cell in cells:
            found.setdefault(str(value(cell["results"])), []).append(cell)
        return found

    def versions(results: dict) -> str:
        told = results.get("versions")
        return ", ".join(f"{k} {v}" for k, v in told.items()) if isinstance(told, dict) else ""

    def device(results: dict) -> str:
        return f"{results.get('devices') or 1} × {results.get('device')}"

    about = {
        "commits": lambda results: str(results.get("commit"))[:12],
        "versions of libraries": versions,
        "devices": device,
    }
    for what, value in about.items():
        if len(found := groups(value)) > 1:
            usual = max(found.values(), key=len)
            others = [cell for mine in found.values() if mine is not usual for cell in mine]
            told = "; ".join(
                f"{name}: {counted(len(mine), 'cell')}" for name, mine in found.items()
            )
            yield _say(
                "loud", "provenance", f"Cells were made with different {what} ({told}).",
                (cell["arm"] for cell in others), (cell["name"] for cell in others),
            )  # fmt: skip
    if changed := [cell for cell in cells if cell["results"].get("commit_changed") is True]:
        yield _say(
            "loud", "provenance",
            f"{counted(len(changed), 'cell')} {verb(changed, 'was', 'were')} made with changes "
            "that are in no commit, so nobody can make "
            f"{verb(changed, 'it', 'them')} again: "
            f"{listed([cell['name'] for cell in changed], MOST_NAMED)}.",
            (cell["arm"] for cell in changed), (cell["name"] for cell in changed),
        )  # fmt: skip


def _counted(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells whose score is a result."""
    return [cell for cell in summary["cells"] if cell["chosen"] and cell["status"] == "done"]


def _where(summary: dict[str, Any], point: dict[str, Any]) -> str:
    at = budget_value(summary["budget"], point["budget"])
    size = f" of size {point['size']}" if point["size"] else ""
    return f"{size} at {at}" if at else size


_CHECKS = (
    _unequal, _unfinished, _certificates, _order, _seeds, _text, _tuning, _budgets, _runs,
    _provenance,
)  # fmt: skip
