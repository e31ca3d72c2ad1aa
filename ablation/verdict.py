"""The answer of a study in three sentences made of its numbers, and what it cannot tell."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from octavo.ablation.words import (
    budget_value,
    counted,
    digits,
    listed,
    matched,
    point_name,
    short,
    signed,
    verb,
    within,
)
from octavo.brief import human

PUBLISHED = 1e19
"""FLOPs from which on ways of cutting text have been compared in print (BLT, H-Net)."""
ALIKE = 1.2
"""Times as many parameters as another arm, from which on that is said."""
FEW_EACH = 20
"""Documents of a label, for an interval of it."""


def decisive(summary: dict[str, Any]) -> int | None:
    """The budget that the answer is of: the largest at which at least two thirds of the arms are
    ranked that are ranked anywhere. None if none is."""
    sizes = {place["budget"]: len(place["order"]) for place in summary["ranks"]}
    most = max(sizes.values(), default=0)
    enough = [place for place, size in sizes.items() if size and 3 * size >= 2 * most]
    return enough[-1] if enough else None


def sentence(text: str) -> str:
    """With one full stop."""
    return f"{text.strip().rstrip('.')}."


def answer(summary: dict[str, Any]) -> list[str]:
    """Who won, by how much, and whether that is told apart; how it changes with the budget; what it
    rests on."""
    at = decisive(summary)
    if at is None:
        return [_nothing(summary), _no_change(summary), _basis(summary, None)]
    return [_winner(summary, at), _change(summary, at), _basis(summary, at)]


def best_points(summary: dict[str, Any], budget: int) -> list[dict[str, Any]]:
    """The ranked points of a budget, best first."""
    mine = [p for p in summary["points"] if p["budget"] == budget and p["rank"]]
    return sorted(mine, key=lambda point: point["rank"])


def _nothing(summary: dict[str, Any]) -> str:
    if summary["points"]:
        arms = list(dict.fromkeys(point["arm"] for point in summary["points"]))
        return (
            f"No arm can be said to have won: no score of {listed(arms)} is proven by a "
            "certificate."
        )
    return "No arm can be said to have won: no cell is done."


def _no_change(summary: dict[str, Any]) -> str:
    return "Nor can anything be said of how the ranking changes with the budget."


def _where(summary: dict[str, Any], at: int) -> str:
    budget = summary["budget"]
    value = budget["values"][at]
    if value is None:
        return ""
    what = {"flops": f"{short(value)} {matched(budget)}", "bytes": f"{human(value)}B of text",
            "steps": f"{short(value)} steps"}[budget["by"]]  # fmt: skip
    several = len(budget["values"])
    if several == 1:
        return f" at {what}"
    largest = max(range(several), key=budget["values"].__getitem__)
    rest = f"the largest of {several} budgets" if at == largest else "the largest budget so far"
    return f" at {what}, {rest}"


def _winner(summary: dict[str, Any], at: int) -> str:
    ranked, baseline = best_points(summary, at), summary["baseline"]
    first, others = ranked[0], ranked[1:]
    where, bits = _where(summary, at), f"{first['mean']:.3f} bits per byte"
    if not others:
        left = any(p["budget"] == at and p["arm"] != first["arm"] for p in summary["points"])
        proven = " whose score is proven" if left else ""
        return (
            f"{point_name(first)} has {bits}{where}, and there is no other arm{proven} to compare "
            "it with."
        )
    second = others[0]
    clear = second["behind"]["clear"]
    held = [(second, second["behind"], "the runner-up")]
    base = next((point for point in others if point["arm"] == baseline), None)
    if base is second:
        held = [(second, second["behind"], "the baseline and runner-up")]
    elif base:
        held.insert(0, (base, base["behind"], "the baseline"))
    than = [
        f"{within(diff['mean'], diff['margin'])} less than {what} {point_name(point)} "
        f"({_sure(diff)})"
        for point, diff, what in held
    ]  # fmt: skip
    head = "is best" if clear else "has the lowest mean but no clear lead"
    its = " (the baseline)" if first["arm"] == baseline else ""
    more = [arm for arm in first["tied"] if arm not in {point["arm"] for point, _, _ in held}]
    tail = f"; nor is it told apart from {listed(more, 6)}" if more else ""
    if baseline not in {point["arm"] for point in ranked}:
        tail += f"; the baseline {baseline} is not ranked there"
    return f"{point_name(first)}{its} {head}{where}: {bits}, {listed(than)}{tail}."


def _sure(difference: dict[str, Any]) -> str:
    if difference["clear"]:
        return "clear"
    return "of one seed" if difference["seeds"] is None else "within the noise"


def _change(summary: dict[str, Any], at: int) -> str:
    values = summary["budget"]["values"]
    ranked = [place for place in summary["ranks"] if place["order"]]
    if values == [None]:
        return (
            "The runs had no budget in common, so how their order changes with more training is "
            "not known."
        )
    if len(ranked) < 2:
        some = (
            "There is one budget" if len(values) == 1 else f"One of {len(values)} budgets is done"
        )
        return f"{some}, so how the order changes with more training is not known."
    if max(len(place["order"]) for place in ranked) < 2:
        return "With one arm there is no order that could change with the budget."
    flips = summary["flips"]
    arms = {arm for place in ranked for arm in place["order"]}
    pairs = len(arms) * (len(arms) - 1) // 2
    moved = {frozenset((flip["a"], flip["b"])) for flip in flips}
    surely = {frozenset((flip["a"], flip["b"])) for flip in flips if flip["clear"]}
    leaders = _leaders(summary, at)
    all_of = "both budgets" if len(ranked) == 2 else f"all {len(ranked)} budgets"
    how = f"{len(surely)} of them by more than the noise"
    if len(surely) in (0, len(moved)):
        how = "by more than the noise" if surely else "within the noise"
    places = f"{len(moved)} of {counted(pairs, 'pair')} of arms changed places, {how}"
    if not flips:
        text = f"The order of the arms is the same at {all_of}"
    elif len(leaders) == 1:
        text = f"{next(iter(leaders))} leads at {all_of}, and {places}"
    else:
        told = [
            f"{arm} at {listed([budget_value(summary['budget'], i) for i in budgets])}"
            for arm, budgets in leaders.items()
        ]  # fmt: skip
        text = f"The lead changes with the budget ({', '.join(told)}), and {places}"
    return sentence(text + _trend(summary, at, ranked))


def _leaders(summary: dict[str, Any], at: int) -> dict[str, list[int]]:
    """Which of the arms that are ranked at a budget are the first of them, at which budgets."""
    there = {point["arm"] for point in best_points(summary, at)}
    found: dict[str, list[int]] = {}
    for place in summary["ranks"]:
        if mine := [arm for arm in place["order"] if arm in there]:
            found.setdefault(mine[0], []).append(place["budget"])
    return found


def _trend(summary: dict[str, Any], at: int, ranked: list[dict[str, Any]]) -> str:
    """How the difference between the winner and the baseline (or, if that won, the runner-up)
    changes from the first budget that has both."""
    winner, *others = [point["arm"] for point in best_points(summary, at)]
    if not others:
        return ""
    partner = summary["baseline"] if summary["baseline"] in others else others[0]
    gaps = []
    for place in ranked:
        points = {point["arm"]: point for point in best_points(summary, place["budget"])}
        if winner in points and partner in points:
            of = points[partner if winner == summary["baseline"] else winner]["difference"]
            gap = points[partner]["mean"] - points[winner]["mean"]
            gaps.append((gap, of["margin"] if of else None))
    if len(gaps) < 2:
        return ""
    (first, margin), (last, other) = gaps[0], gaps[-1]
    still = ""
    if margin is not None and other is not None and abs(last - first) <= math.hypot(margin, other):
        still = ", a change that is within the noise"
    return (
        f"; the lead of {winner} over {partner} goes from {signed(first)} to {signed(last)}{still}"
    )


def usual_spread(points: Iterable[dict[str, Any]]) -> float | None:
    """The standard deviation over seeds, pooled over points; None if none has several seeds."""
    spreads = [point["spread"] for point in points if point["spread"] is not None]
    return math.sqrt(sum(each**2 for each in spreads) / len(spreads)) if spreads else None


def _basis(summary: dict[str, Any], at: int | None) -> str:
    text, points = summary["text"], summary["points"]
    mine = [point for point in points if point["budget"] == at] or points
    differ = ""
    if (usual := usual_spread(mine)) is not None:
        differ = f" (standard deviation {usual:.{digits(usual)}f} bits per byte)"
    unproven = list(dict.fromkeys(point["arm"] for point in points if not point["certified"]))
    if not points:
        proof = ""
    elif not unproven:
        proof = ", every score proven by a certificate"
    elif all(not point["certified"] for point in points):
        proof = ", no score proven by a certificate"
    else:
        proof = f", scores proven by certificates but for {listed(unproven, 6)}"
    runs = "single runs" if summary["existing"] else f"{counted(summary['seeds'], 'seed')} per arm"
    return (
        f"This rests on {runs}{differ} and "
        f"{counted(text['documents'], 'document')} ({human(text['bytes'])}B) of held-out text"
        f"{proof}: {_belief(summary, at)}."
    )


def _belief(summary: dict[str, Any], at: int | None) -> str:
    """Whether to believe the first sentence."""
    if at is None:
        return "there is nothing to believe yet"
    first, *others = best_points(summary, at)
    if not others:
        return "there is nothing to compare yet"
    second = others[0]
    base = next((point for point in others if point["arm"] == summary["baseline"]), None)
    if summary["existing"]:
        return "it compares these runs, not ways of cutting text, as they were not matched"
    against = []
    if summary["unequal"]:
        against.append(f"the comparison is unequal ({listed(summary['unequal'])})")
    left = len(summary["done"]["missing"]) + len(summary["done"]["failed"])
    if left:
        against.append(f"{counted(left, 'cell')} {'is' if left == 1 else 'are'} not there")
    if min(len(point["seeds"]) for point in (first, second, base or second)) == 1:
        against.append("one seed cannot tell a difference from chance")
    if against:
        return f"do not believe it yet, as {listed(against)}"
    mind = _to_mind(summary, {point["arm"] for point in (first, second, base) if point})
    if second["behind"]["clear"]:
        if len(_leaders(summary, at)) > 1:
            return f"believe it at this budget alone, as the lead has changed with it{mind}"
        return f"believe it, for this text and this scale{mind}"
    names = listed([point_name(second), *(a for a in first["tied"] if a != second["arm"])], 4)
    if base and base["behind"]["clear"]:
        return (
            f"believe that {point_name(first)} is better than {point_name(base)}, but not that it "
            f"is better than {names}{mind}"
        )
    return f"do not believe that {point_name(first)} is better than {names}{mind}"


_MINDED = ("edge", "budget", "collapsed", "merged", "epochs", "provenance", "certificate", "tuning")


def _to_mind(summary: dict[str, Any], arms: set[str]) -> str:
    """Loud warnings that touch these arms, or all of them."""
    mine = [
        each for each in summary["warnings"]
        if each["level"] == "loud" and each["kind"] in _MINDED
        and (each["kind"] == "certificate" or not each["arms"] or arms & set(each["arms"]))
    ]  # fmt: skip
    if not mine:
        return ""
    return f", but mind {counted(len(mine), 'warning')} below"


# What the study cannot tell.


def cannot(summary: dict[str, Any]) -> list[str]:
    """Sentences."""
    return [sentence(each) for each in _limits(summary)]


def _limits(summary: dict[str, Any]) -> Iterator[str]:
    points, text = summary["points"], summary["text"]
    flops = max((p["flops_useful"] for p in points if p["flops_useful"]), default=0)
    if flops:
        parameters = max((p["parameters"] for p in points if p["parameters"]), default=0)
        size = max((p["bytes"] for p in points if p["bytes"]), default=0)
        yield (
            f"What holds at larger scale: no run spends more than {short(flops)} useful FLOPs, "
            f"reads more than {human(size)}B of text or has more than "
            f"{human(parameters).rstrip()} parameters; published comparisons begin at about "
            f"{short(PUBLISHED)} FLOPs, {_times(PUBLISHED / flops)} times as many"
        )
    labels = list(dict.fromkeys(label for point in points for label in point["by_label"]))
    script = list(dict.fromkeys(script for point in points for script in point["by_script"]))
    there = f" ({listed(labels, 8)})" if labels else ""
    names = [name[:1].upper() + name[1:] for name in script]
    written = f", written in {listed(names, 6)}" if names else ""
    yield (
        f"What holds for other text: all was trained and scored on {text['source']}{there}{written}"
    )
    if len(labels) > 1 and text["documents"] < FEW_EACH * len(labels):
        yield (
            f"How the arms do in one of these {len(labels)}, but roughly: they share "
            f"{text['documents']} documents"
        )
    budget, tuning = summary["budget"], summary["tuning"]
    if summary["existing"]:
        yield (
            "Which way of cutting text is better: the runs may differ in everything else, as in "
            "training, size and text"
        )
    else:
        others = {
            "flops": "the same time or the same text", "bytes": "the same FLOPs or the same time",
            "steps": "the same FLOPs, the same time or the same text",
        }[budget["by"]]  # fmt: skip
        sizes = [point["parameters"] for point in points if point["parameters"]]
        if sizes and max(sizes) > ALIKE * min(sizes):
            least, most = (human(size(sizes)).rstrip() for size in (min, max))
            others += f", or the same parameters (they have {least} to {most})"
        yield f"Which arm is best for {others}: they were matched by {matched(budget)}"
        if len(tuning["grid"]) > 1:
            rates = listed([short(rate) for rate in tuning["grid"]])
            more = "" if len(budget["values"]) == 1 else (
                "; whether the rate is still the best at larger budgets was not tried"
            )  # fmt: skip
            yield (
                f"What more tuning would bring: of each arm only the learning rate was tuned, "
                f"among {rates} times its preset's, at the smallest budget with one seed{more}"
            )
        else:
            yield "What tuning would bring: nothing was tuned, all is as the presets have it"
    learned = [
        cut["arm"] for group in summary["cuts"][:1] for cut in group["arms"]
        if any(each is not None for each in cut["probability"])
    ]  # fmt: skip
    if learned:
        yield (
            f"What {listed(learned)} would do at other rates of cutting: "
            f"{verb(learned, 'it learns', 'they learn')} where to cut, and how often was left as "
            f"the {verb(learned, 'preset has', 'presets have')} it"
        )
    if ladders := list(dict.fromkeys(each["arm"] for each in summary["envelope"])):
        yield (
            f"How good {listed(ladders)} would be at a size named beforehand: the best of several "
            f"sizes was taken by the score itself, which flatters"
        )
    compared = max((len(place["order"]) for place in summary["ranks"]), default=0) - 1
    if compared > 2:
        yield (
            f"That no difference is chance: each ± is for one comparison at 95%, and {compared} "
            "arms are compared with the baseline at every budget, of which one in twenty may be "
            "called clear by chance"
        )
    if summary["speed"]:
        yield (
            f"How fast the arms are elsewhere: bytes per second are of this code on "
            f"{summary['speed'].get('device') or 'one device'}"
        )


def _times(factor: float) -> str:
    return f"{float(f'{factor:.1g}'):,.0f}"
