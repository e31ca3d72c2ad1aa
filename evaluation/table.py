"""Rows as a table of text that never crops a number: too wide for a terminal, it becomes several
tables one below the other; in a pipe it is as wide as it is."""

import csv
import io
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

FRAME = 3
"""What a column takes beside its cells: a space on both sides and a line."""
LEAST = 4
"""Cells that are left of a column of names, which are folded where there is no room."""
ANY = 1 << 16
"""Wider than any table."""


def show(title: str, rows: list[dict], console: Console) -> None:
    """Print a title and rows that have the same keys; strings are names, all else numbers."""
    width = console.width if console.is_terminal else ANY
    console.print(title)
    for table in tables(rows, width):
        # A pipe's console has some width, too, which must not count.
        wide = Console(file=console.file, width=width, highlight=False, markup=False, emoji=False)
        (console if console.is_terminal else wide).print(table)


def tables(rows: list[dict], width: int) -> Iterator[Table]:
    """Tables of at most ``width`` cells that hold all rows, each with the columns of names."""
    cells = {name: [_shown(row[name]) for row in rows] for name in rows[0]}
    names = [name for name in cells if any(isinstance(row[name], str) for row in rows)]
    numbers = [name for name in cells if name not in names]
    sizes = {name: _widest([name, *cells[name]]) for name in cells}
    heads = {name: name for name in cells}
    if 1 + sum(sizes.values()) + FRAME * len(cells) > width:
        heads = {name: name.replace("_", "\n") for name in cells}
        sizes = {name: _widest([*heads[name].split("\n"), *cells[name]]) for name in cells}
    room = width - 1 - FRAME * len(names)
    widest = max((sizes[name] + FRAME for name in numbers), default=0)
    while sum(sizes[name] for name in names) > max(room - widest, LEAST * len(names)):
        sizes[max(names, key=sizes.__getitem__)] -= 1
    room -= sum(sizes[name] for name in names)

    while True:
        block, left = [], room
        while numbers and (not block or sizes[numbers[0]] + FRAME <= left):
            left -= sizes[numbers[0]] + FRAME
            block.append(numbers.pop(0))
        table = Table()
        for name in names:
            table.add_column(heads[name], overflow="fold", width=sizes[name])
        for name in block:
            table.add_column(heads[name], justify="right", no_wrap=True, width=sizes[name])
        for row in range(len(rows)):
            table.add_row(*(Text(cells[name][row]) for name in (*names, *block)))
        yield table
        if not numbers:
            return


def _widest(texts: list[str]) -> int:
    return max(map(cell_len, texts))


def _shown(value: object) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else "" if value is None else f"{value}"


def csv_text(rows: list[dict]) -> str:
    """Rows that have the same keys as CSV, numbers in full."""
    found = io.StringIO()
    writer = csv.DictWriter(found, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return found.getvalue()


def markdown_text(tables: dict[str, list[dict]]) -> str:
    """Tables by name, of rows that have the same keys, as Markdown."""

    def line(cells) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"

    parts = []
    for name, rows in tables.items():
        text = f"## {name.replace('_', ' ')}\n\n" if name else ""
        text += line(rows[0])
        text += line("---" if isinstance(value, str) else "---:" for value in rows[0].values())
        parts.append(text + "".join(line(map(_shown, row.values())) for row in rows))
    return "\n".join(parts)
