"""What a study says on the screen, and the files that show what came of it."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from octavo.ablation import analysis, page, results, tables
from octavo.ablation.place import Place
from octavo.ablation.plan import Cell, Planned, key_of
from octavo.brief import clock, human

SHARE = 0.3
"""Of a quick matrix product's FLOP/s that the training of a small model comes to on a CPU."""
BESIDE_SECONDS = 40.0
"""That a cell takes beside its training: to start, compile, and measure."""


def plan_lines(planned: Planned, place: Place, jobs: int) -> Iterator[str | Table]:
    """The plan: what each cell costs, and how long it may take."""
    about, budget = planned.about, planned.about["budget"]
    with place.files() as folder:
        done = {cell.name for cell in planned.cells if results.done(folder, cell.name)}
        speed = _speed(folder, planned, done)
    if about["existing"]:
        yield f"{len(planned.cells)} runs, scored on the same text: {_of_text(about)}"
        return
    counted = f" ({budget['counted']})" if budget["by"] == "flops" else ""
    yield (
        f"study      {place}: {len(about['arms'])} arms, matched by {budget['by']} of training"
        f"{counted}, {about['seeds']} seed{'s' * (about['seeds'] > 1)} each"
    )
    if about["inference_flops"]:
        yield f"sizes      such that a byte costs {human(about['inference_flops'])}FLOPs to predict"
    yield f"scored     {_of_text(about)}"
    grid = about["tuning"]["grid"]
    if len(grid) > 1:
        yield f"rates      {', '.join(f'{rate:g}' for rate in grid)} times an arm's own. "
        yield f"           {about['tuning']['rule']} {about['tuning']['transfer']}"
    yield _table(planned, done, speed)
    left = [cell for cell in planned.cells if cell.name not in done]
    flops = [sum(getattr(c, f"flops_{kind}") for c in left) for kind in ("useful", "paid")]
    took = sum(_seconds(cell, speed) for cell in left)
    yield (
        f"{len(left)} of {len(planned.cells)} cells are to be done: {human(flops[0])}FLOPs useful, "
        f"{human(flops[1])}FLOPs paid; about {clock(took)} on this machine"
        + (f", less with {jobs} at a time" if jobs > 1 else "")
    )
    tries = [cell for cell in planned.cells if cell.rate is not None]
    if len(grid) > 1:
        lost = sum(c.flops_useful for c in tries) * (1 - 1 / len(grid))
        whole = sum(c.flops_useful for c in planned.cells)
        yield f"choosing learning rates costs {lost / whole:.0%} of it: {len(grid)} tries for each arm"


def _of_text(about: dict[str, Any]) -> str:
    text = about["text"]
    return (
        f"{human(text['bytes'])}B held out of {text['source']}, {text['documents']} documents, "
        f"fingerprint {text['fingerprint']}"
    )


def _table(planned: Planned, done: set[str], speed: float) -> Table:
    table = Table(show_edge=False)
    for name in ("arm", "budget"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "bytes", "FLOPs useful", "paid", "parameters", "each", "cells"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple, list[Cell]] = {}
    for cell in planned.cells:
        groups.setdefault((key_of(cell.arm, cell.size), cell.budget), []).append(cell)
    values = planned.about["budget"]["values"]
    for (arm, budget), cells in sorted(groups.items(), key=lambda item: item[0][1]):
        cell = cells[0]
        numbers = ",".join(f"{c.number}{'*' * (c.name in done)}" for c in cells)
        table.add_row(
            arm, f"{values[budget]:g}", f"{cell.steps:,}", human(cell.bytes),
            human(cell.flops_useful), human(cell.flops_paid), human(cell.parameters),
            clock(_seconds(cell, speed)), numbers,
        )  # fmt: skip
    table.caption = "*: done" if done else None
    return table


def _seconds(cell: Cell, speed: float) -> float:
    return cell.flops_paid / speed + BESIDE_SECONDS


def _speed(folder: Path, planned: Planned, done: set[str]) -> float:
    """Paid FLOP/s: of the cells that are done or, as long as none is, a guess."""
    spent = [(cell, results.spent(folder, cell.name)) for cell in planned.cells if cell.name in done]
    seconds = sum(found for _, found in spent if found)
    if seconds:
        return sum(cell.flops_paid for cell, found in spent if found) / seconds
    a = np.ones((512, 512), np.float32)
    best = min(_timed(lambda: a @ a) for _ in range(4))
    return SHARE * 2 * 512**3 / best


def _timed(action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def commands(planned: Planned, place: Place) -> Iterator[str]:
    """A command a line for each cell that is not done; those after the comment take the learning
    rate that those before it choose."""
    with place.files() as folder:
        left = [cell for cell in planned.cells if not results.done(folder, cell.name)]
    tried = {cell.arm for cell in left if cell.rate is not None}
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
    with place.files() as here:
        found = analysis.summary(here)
        with place.folder("") as out:
            page.write(out, found)
            tables.write(out, found)
    if not found["points"]:
        return ["nothing to show yet"]
    loud = [one["text"] for one in found["warnings"] if one["level"] == "loud"]
    return [
        "", *found["answer"], *(f"warning    {text}" for text in loud), "",
        f"page       {place.at('index.html')}",
        f"tables     {place.at('table.md')}, table.csv, table.tex, results.parquet",
    ]  # fmt: skip
