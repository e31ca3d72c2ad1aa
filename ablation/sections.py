"""What the page of a study says in words and tables, as HTML."""

import math
from typing import Any

from octavo.ablation.forest import forest
from octavo.ablation.labels import (
    bits,
    budget_label,
    colour_of,
    index_of,
    section,
    swatch,
)
from octavo.ablation.words import counted, matched, point_name
from octavo.brief import clock, human
from octavo.evaluation import parts, viewer
from octavo.evaluation.curves import number
from octavo.evaluation.folder import cut_of
from octavo.evaluation.viewer import readable

_LOUD = 4
"""Warnings that stand open."""
_MOST_CUT_BYTES = 40_000
"""Bytes of text, over all arms, that the page shows as they are cut."""


def header(summary: dict[str, Any]) -> str:
    arms, budgets = summary["arms"], summary["budget"]["values"]
    about = f"{counted(len(arms), 'arm')} × {counted(len(budgets), 'budget')}"
    about += f" × {counted(summary['seeds'], 'seed')}"
    files = ("table.md", "table.csv", "table.tex", "results.parquet")
    links = " · ".join(f'<a href="{name}">{name}</a>' for name in files)
    title = readable(summary.get("title") or summary["name"])
    return (
        f"<header><div><h1>{title}</h1><p>An Octavo study: {about}</p></div>"
        f'<p class="links">beside this page: {links}</p></header>'
    )


def answer(summary: dict[str, Any]) -> str:
    """Three sentences, what speaks against them, and the picture of them."""
    first, *others = summary.get("answer") or ["There is no result yet."]
    said = f'<p class="first">{readable(first)}</p>'
    said += "".join(f"<p>{readable(sentence)}</p>" for sentence in others)
    cannot = "".join(f"<li>{readable(sentence)}</li>" for sentence in summary.get("cannot") or [])
    if cannot:
        cannot = f"<h2>What this study cannot tell</h2><ul>{cannot}</ul>"
    return section("answer", "Answer", "", (
        f'<div class="answer"><div class="said">{said}{_warnings(summary)}</div>'
        f'<div class="picture">{forest(summary)}{_reading(summary)}</div>'
        f'<div class="cannot">{cannot}</div></div>{_facts(summary)}'
    ))  # fmt: skip


def _warnings(summary: dict[str, Any]) -> str:
    told = summary.get("warnings") or []
    loud = [_warning(each, "loud") for each in told if each["level"] == "loud"]
    notes = [_warning(each, "note") for each in told if each["level"] != "loud"]
    shown, more = loud[:_LOUD], loud[_LOUD:]
    found = "".join(shown)
    if more:
        found += f"<details><summary>{counted(len(more), 'more warning')}</summary>"
        found += f"{''.join(more)}</details>"
    if notes:
        found += (
            f"<details><summary>{counted(len(notes), 'note')}</summary>{''.join(notes)}</details>"
        )
    return f'<div class="warnings" role="group" aria-label="warnings">{found}</div>'


def _warning(warning: dict[str, Any], kind: str) -> str:
    mark = "<b>Warning</b> " if kind == "loud" else ""
    return f'<p class="{kind}">{mark}{readable(warning["text"])}</p>'


def _reading(summary: dict[str, Any]) -> str:
    how = _matched(summary)
    seeds = f"; each was trained with {counted(summary['seeds'], 'seed')}"
    seeds = "" if summary.get("existing") else seeds
    return (
        '<p class="reading"><b>Bits per byte</b>: what the model needs to write down a byte of '
        "text that it has not seen; <b>lower is better</b>. "
        f"{readable(how)}. They were scored on the same held-out text{seeds}. "
        "<b>±</b> is half of a 95% interval.</p>"
    )


def _matched(summary: dict[str, Any]) -> str:
    if summary.get("existing"):
        return "These runs were there before, and nothing was matched"
    budget = summary["budget"]
    told = matched(budget)
    if budget["by"] == "flops":
        kinds = {"useful": "of units that exist", "paid": "of all room that rows have for units"}
        told += f" ({kinds[budget['counted']]})"
    if summary.get("inference_flops"):
        told += f", and were scaled to {human(summary['inference_flops'])}FLOPs a byte to run"
    return f"All arms were given the same {told}"


def _facts(summary: dict[str, Any]) -> str:
    text, done, tuning = summary["text"], summary.get("done") or {}, summary.get("tuning") or {}
    budgets = [budget_label(summary, i) for i in range(len(summary["budget"]["values"]))]
    cost, grid = summary.get("tuning_cost") or {}, tuning.get("grid") or []
    tried = ""
    if len(grid) > 1:
        tried = f"the best of {len(grid)} an arm"
        if share := number(cost.get("share")):
            tried += f"; {share:.0%} of all FLOPs that were paid"
    certified = [point.get("certified") for point in summary["points"]]
    told = {
        "matched by": "nothing: runs that were there"
        if summary.get("existing")
        else matched(summary["budget"]),
        "budgets": ", ".join(budgets),
        "baseline": summary["baseline"],
        "seeds": f"{summary['seeds']}",
        "scored on": f"{parts.si(text.get('bytes'), 'B')} of {text.get('source')}, "
        f"{counted(text.get('documents') or 0, 'document')}",
        "learning rates": tried,
        "cells": f"{done.get('done', 0):,} of {done.get('cells', 0):,} done",
        "certified": certified and f"{sum(map(bool, certified))} of {len(certified)} results",
        "unequal, as allowed": ", ".join(summary.get("unequal") or []),
    }
    rows = [f"<div><dt>{name}</dt><dd>{readable(v)}</dd></div>" for name, v in told.items() if v]
    return f"<dl>{''.join(rows)}</dl>{_missing(done)}"


def _missing(done: dict[str, Any]) -> str:
    missing, failed = done.get("missing") or [], done.get("failed") or []
    found = ""
    if failed:
        rows = [f"<li>{parts.code(one['cell'])}: {readable(one['why'])}</li>" for one in failed]
        found += parts.fold(f"{counted(len(failed), 'cell')} failed", f"<ul>{''.join(rows)}</ul>")
    if missing:
        names = ", ".join(parts.code(name) for name in missing)
        found += parts.fold(f"{counted(len(missing), 'cell')} not done", f"<p>{names}</p>")
    return found


# Learning rates.


def rates(summary: dict[str, Any]) -> str:
    """The learning rates that were tried: a small chart an arm."""
    tries = summary.get("tries") or []
    if not tries:
        return ""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for each in tries:
        groups.setdefault((each["arm"], each.get("size")), []).append(each)
    tuning = summary.get("tuning") or {}
    told = [tuning.get("rule"), tuning.get("transfer")]
    cost = summary.get("tuning_cost") or {}
    if number(cost.get("flops")):
        spent = f"This took {human(cost['flops'])}FLOPs, paid"
        spent += f", {share:.0%} of the study's" if (share := number(cost.get("share"))) else ""
        spent += f", and {clock(cost['seconds'])}" if number(cost.get("seconds")) else ""
        told.append(spent)
    sentences = " ".join(f"{one[:1].upper()}{one[1:].rstrip('.')}." for one in told if one)
    charts = "".join(_rate_chart(summary, each) for each in groups.values())
    return (
        f'<h3>Learning rates tried</h3><p class="quiet">{readable(sentences)} Training bits per '
        f'byte against the rate; filled: chosen.</p><div class="rates">{charts}</div>'
    )


def _rate_chart(summary: dict[str, Any], tries: list[dict[str, Any]]) -> str:
    tries = sorted(tries, key=lambda each: each["rate"])
    found = [each for each in tries if number(each.get("bits_per_byte")) is not None]
    rates = [math.log(each["rate"]) for each in tries]
    values = [each["bits_per_byte"] for each in found]
    wide, deep = (rates[-1] - rates[0]) or 1, (max(values) - min(values) if values else 0) or 1
    marks, line = "", []
    arm = tries[0]["arm"]
    place = colour_of(summary, arm)
    for each, rate in zip(tries, rates, strict=True):
        x = 24 + 112 * (rate - rates[0]) / wide
        marks += f'<text x="{x:.1f}" y="86" text-anchor="middle">{each["rate"]:g}×</text>'
        if each not in found:
            marks += f'<text class="lost" x="{x:.1f}" y="42" text-anchor="middle">lost</text>'
            continue
        y = 22 + 44 * (max(values) - each["bits_per_byte"]) / deep  # fewer bits are lower
        line.append(f"{x:.1f} {y:.1f}")
        fill = f"var(--c{place % 8})" if each.get("chosen") else "var(--card)"
        marks += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" style="fill:{fill}"/>'
        marks += f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">'
        marks += f"{bits(each['bits_per_byte'])}</text>"
    chosen = next((each for each in tries if each.get("chosen")), {})
    rate = number(chosen.get("learning_rate"))
    told = "none" if rate is None else f"{rate:.3g}"
    edge = any(each.get("edge") for each in tries)
    flag = '<b class="edge">at the edge</b>' if edge else ""
    return (
        f'<figure data-arm="{index_of(summary, arm)}"><figcaption>{swatch(summary, arm)}'
        f"<span>{readable(point_name(tries[0]))}</span></figcaption>"
        f'<svg viewBox="0 0 160 90" role="img" aria-label="chosen: {told}" '
        f'style="--arm:var(--c{place % 8})"><path d="M{"L".join(line)}"/>{marks}</svg>'
        f'<p class="quiet">chosen {told} {flag}</p></figure>'
    )


def collapsed(summary: dict[str, Any]) -> str:
    """The runs whose units came to nothing."""
    rows = [
        f"<li>{parts.code(cell['name'])}: {readable(cell['collapsed'])}</li>"
        for cell in summary.get("cells") or []
        if cell.get("collapsed")
    ]
    if not rows:
        return ""
    told = f"<b>Collapsed</b> {counted(len(rows), 'run')}:<ul>{''.join(rows)}</ul>"
    return f'<div class="loud">{told}</div>'


# How text is cut.


def cuts(summary: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The same texts cut by every arm, and the data to point at; as many as there is room for."""
    shown, data, options, size = [], [], [], 0
    for each in summary.get("cuts") or []:
        views, places, text = [], [], b""
        for one in each["arms"]:
            about = {"text": each["text"], **one}
            if (cut := cut_of(one["arm"], about)) is not None:
                views.append((cut.name, cut))
                places.append(index_of(summary, one["arm"]))
                text = cut.text
        size += len(text) * len(views)
        if not views or (shown and size > _MOST_CUT_BYTES):
            continue
        inside, about = viewer.columns(text, views, "h3")
        hidden = " hidden" * bool(shown)
        options.append(f'<option value="{len(shown)}">{readable(str(each["label"]))}</option>')
        shown.append(f'<div class="units" id="cut{len(shown)}"{hidden}>{inside}</div>')
        data.append(about | {"arms": places})
    if not shown:
        return "", []
    return section("cuts", "Cuts", "The same text, cut by every arm", (
        '<div class="bar">'
        f'<label>text <select id="text">{"".join(options)}</select></label>'
        '<label><input type="checkbox" id="heat"> colour by surprisal instead of units</label>'
        '<div class="arms"></div></div><p class="quiet">Of the first seed at the largest budget. '
        "Units alternate in colour; the line below says how many bits a character cost, more the "
        "stronger it is. Point at a character, or use the arrow keys, for all arms side by side. A "
        "dotted bar is a cut inside a character.</p>"
        f'<div class="cuts">{"".join(shown)}</div>'
    )), data  # fmt: skip


# What a script fills.


def chart(summary: dict[str, Any]) -> str:
    if not summary["points"]:
        return ""
    differences = ""
    if any(point.get("difference") for point in summary["points"]):
        differences = '<fieldset class="choice" id="y" aria-label="y axis"></fieldset>'
    return section("compute", "Compute", "Bits per byte against what was spent", (
        "<noscript><p>The charts need JavaScript.</p></noscript>"
        '<div class="bar controls"><span>against</span><fieldset class="choice" id="x" '
        f'aria-label="x axis"></fieldset>{differences}</div><div class="arms"></div>'
        '<figure class="chart wide" id="budgets"></figure><p class="quiet">Shaded: 95% '
        "interval over documents; small dots: each seed. Point at it, or use the arrow keys, to "
        "read it.</p>"
    ))  # fmt: skip


def costs(summary: dict[str, Any]) -> str:
    if not any(point.get("inference") for point in summary["points"]):
        return ""
    now = summary["budget"]["counted"]
    kinds = "".join(
        f'<option value="{i}"{" selected" * (kind == now)}>{kind}</option>'
        for i, kind in enumerate(("useful", "paid"))
    )
    prices = "".join(
        f'<label>{text} <input type="number" id="{name}" min="0" step="any" value="{value}">'
        "</label>"
        for name, text, value in (
            ("flops", "price of 10¹² FLOPs", 1),
            ("memory", "of a GB of parameters read", 0),
            ("unit", "of a million units", 0),
        )
    )
    return section("cost", "Cost", "Quality against the cost of reading text", (
        '<p class="quiet">What a million bytes of text cost each arm at these prices, and its bits '
        "per byte times that cost: fewer is better. Change the prices; nothing has to be run "
        "again.</p>"
        '<div class="bar controls prices"><label>FLOPs counted '
        f'<select id="counted">{kinds}</select></label>{prices}'
        '<button type="button" id="reset">as at first</button>'
        '<label class="budget"></label></div><p id="formula" class="quiet"></p>'
        '<div class="pair"><figure class="chart" id="pareto"></figure>'
        '<div class="scroll" tabindex="0" role="region" aria-label="ranking by cost">'
        '<table class="facts sortable" id="costs"><thead></thead><tbody></tbody></table></div>'
        '</div><p class="quiet">The line is the Pareto front: no other arm has both fewer bits and '
        "a lower cost. Parameters count as read once a unit, which is what decoding one text costs "
        "at least; several texts at a time share it.</p>"
    ))  # fmt: skip


def heat(there: bool) -> str:
    if not there:
        return ""
    return section("where", "Where", "Where the differences are", (
        '<div class="bar controls"><fieldset class="choice" id="mode" aria-label="what is shown">'
        "</fieldset>"
        '<label class="budget"></label></div><p class="quiet">Blue: better than the baseline; '
        "orange: worse; bold: the best of a column. These numbers have no intervals: "
        "a small difference, or one in little text, may be chance.</p>"
        '<div id="heats"></div>'
    ))  # fmt: skip


def training(summary: dict[str, Any], curves: bool) -> str:
    """How the runs went: collapses, curves, learning rates."""
    flags, tried = collapsed(summary), rates(summary)
    drawn = ""
    if curves:
        drawn = (
            '<div class="bar controls"><span>against</span><fieldset class="choice" id="curvex" '
            'aria-label="x axis of curves"></fieldset><label><input type="checkbox" id="log"> '
            'logarithmic</label><label class="budget"></label></div><div class="arms"></div>'
            '<div class="charts" id="curves"></div>'
        )
    if not (flags or tried or drawn):
        return ""
    return section("training", "Runs", "How the runs went", flags + drawn + tried)
