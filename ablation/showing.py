"""What a study says on the screen, and the files that show what came of it."""

import os
import shlex
from collections.abc import Iterator
from typing import Any

import jax

from octavo.ablation import analysis, page, tables
from octavo.ablation.place import Place
from octavo.ablation.plan import Cell, Planned, key_of
from octavo.ablation.running import Progress, progress
from octavo.brief import clock, human
from octavo.evaluation.table import show
from octavo.model import flops

CORE_FLOPS = 25e9
"""FLOP/s that the training of a small model comes to on a core of a CPU."""
SHARE = 0.3
"""Of the peak of another device."""
BESIDE_SECONDS = 40.0
"""That a cell takes beside its training: to start, compile, and measure."""


def show_plan(planned: Planned, place: Place, jobs: int, console) -> None:
    """The plan: what each cell costs, and how long it may take."""
    about, budget = planned.about, planned.about["budget"]
    now = progress(place, planned)
    done, speed = {cell.name for cell in planned.cells if now.over(cell)}, _speed(planned, now)
    say = console.print
    if about["existing"]:
        say(f"{len(planned.cells)} runs, scored on the same text: {_of_text(about)}")
        return
    counted = f" ({budget['counted']})" if budget["by"] == "flops" else ""
    say(
        f"study      {place}: {len(about['arms'])} arms, matched by {budget['by']} of training"
        f"{counted}, {about['seeds']} seed{'s' * (about['seeds'] > 1)} each"
    )
    if about["inference_flops"]:
        say(f"sizes      such that a byte costs {human(about['inference_flops'])}FLOPs to predict")
    say(f"scored     {_of_text(about)}")
    grid = about["tuning"]["grid"]
    if len(grid) > 1:
        say(f"rates      {', '.join(f'{rate:g}' for rate in grid)} times an arm's own. ")
        say(f"           {about['tuning']['rule']} {about['tuning']['transfer']}")
    show("", _rows(planned, done, speed), console)
    left = [cell for cell in planned.cells if cell.name not in done]
    useful, paid = (sum(getattr(c, f"flops_{kind}") for c in left) for kind in ("useful", "paid"))
    took = sum(_seconds(cell, speed) for cell in left)
    say(
        f"{len(left)} of {len(planned.cells)} cells are to be done: {human(useful)}FLOPs useful, "
        f"{human(paid)}FLOPs paid; about {clock(took)} on this machine"
        + (f", less with {jobs} at a time" if jobs > 1 else "")
    )
    tries = [cell for cell in planned.cells if cell.tried]
    if len(grid) > 1:
        lost = sum(c.flops_useful for c in tries) * (1 - 1 / len(grid))
        whole = sum(c.flops_useful for c in planned.cells)
        say(f"choosing learning rates costs {lost / whole:.0%} of it: {len(grid)} tries an arm")


def _of_text(about: dict[str, Any]) -> str:
    text = about["text"]
    return (
        f"{human(text['bytes'])}B held out of {text['source']}, {text['documents']} documents, "
        f"fingerprint {text['fingerprint']}"
    )


def _rows(planned: Planned, done: set[str], speed: float) -> list[dict[str, Any]]:
    """A row for each arm at each budget, with the numbers of its cells; * where one is done."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in planned.cells:
        groups.setdefault((key_of(cell.arm, cell.size), cell.budget), []).append(cell)
    values = planned.about["budget"]["values"]
    return [
        {
            "arm": arm, "budget": f"{values[budget]:g}", "steps": f"{cells[0].steps:,}",
            "bytes": human(cells[0].bytes), "FLOPs useful": human(cells[0].flops_useful),
            "paid": human(cells[0].flops_paid), "parameters": human(cells[0].parameters),
            "time each": clock(_seconds(cells[0], speed)),
            "cells": ", ".join(f"{c.number}{'*' * (c.name in done)}" for c in cells),
        }
        for (arm, budget), cells in sorted(groups.items(), key=lambda item: item[0][1])
    ]  # fmt: skip


def _seconds(cell: Cell, speed: float) -> float:
    return cell.flops_paid / speed + BESIDE_SECONDS


def _speed(planned: Planned, now: Progress) -> float:
    """Paid FLOP/s: of the cells that are trained or, as long as none is, a guess."""
    over = [cell for cell in planned.cells if now.seconds.get(cell.name)]
    if over:
        return sum(c.flops_paid for c in over) / sum(now.seconds[c.name] for c in over)
    device = jax.devices()[0].device_kind
    return SHARE * (flops.peak_flops(device) or 0.0) or CORE_FLOPS * (os.cpu_count() or 1)


def commands(planned: Planned, place: Place) -> Iterator[str]:
    """A command a line for each cell that is not done; those after the comment take the learning
    rate that those before it choose."""
    now = progress(place, planned)
    left = [cell for cell in planned.cells if not now.over(cell)]
    tried = {cell.arm for cell in left if cell.tried}
    last = [cell for cell in left if cell.rate is None and cell.arm in tried]
    for cell in left:
        if cell not in last:
            yield command(place, cell)
    if last:
        yield "# when all of these are done:"
    for cell in last:
        yield command(place, cell)


def command(place: Place, cell: Cell) -> str:
    return f"python ablate.py --out {shlex.quote(place.out)} --cell {cell.number}"


def write_page(place: Place) -> list[str]:
    """Write the page and the tables of what is done; returns what to say."""
    here = place.files()
    found = analysis.summary(here)
    with place.folder("") as out:
        page.write(out, found)
        tables.write(out, found, here)
    if not found["points"]:
        return ["nothing to show yet"]
    loud = [one["text"] for one in found["warnings"] if one["level"] == "loud"]
    return [
        "", *found["answer"], *(f"warning    {text}" for text in loud), "",
        f"page       {place.at('index.html')}",
        f"tables     {place.at('table.md')}, table.csv, table.tex, results.parquet",
    ]  # fmt: skip
