"""The results of a study as tables: for people (Markdown), for papers (LaTeX), for programs (CSV,
and Parquet with all that was measured of each cell)."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from octavo import files
from octavo.ablation.results import Cell, read_cells, read_study
from octavo.ablation.verdict import decisive
from octavo.ablation.words import budget_value, counted, digits, matched, signed
from octavo.brief import human

MARKDOWN, CSV, LATEX, PARQUET = "table.md", "table.csv", "table.tex", "results.parquet"
PROVEN, UNPROVEN = "proven", "NOT PROVEN"


def write(out: Path, summary: dict[str, Any], study: Path) -> None:
    """Write ``table.md``, ``table.csv``, ``table.tex`` and ``results.parquet`` to ``out``, each
    whole or not at all. study: the folder in which what Parquet has of each document is read.
    Raises OSError."""
    files.write(out / MARKDOWN, markdown(summary))
    files.write(out / CSV, comma_separated(summary))
    files.write(out / LATEX, latex(summary))
    files.write(out / PARQUET, parquet(summary, read_cells(study, read_study(study))))


# For people.


def _rows(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table for people, best arm at the decisive budget first."""
    budget = summary["budget"]
    shown = sorted({point["budget"] for point in summary["points"]},
                   key=lambda i: budget["values"][i] or 0)  # fmt: skip
    at = decisive(summary)
    at = shown[-1] if at is None and shown else at
    lines: dict[tuple, dict[int, dict]] = {}
    for point in summary["points"]:
        lines.setdefault((point["arm"], point["size"]), {})[point["budget"]] = point

    def place(line: dict[int, dict]) -> tuple:
        point = line.get(at)  # type: ignore[arg-type]
        if point is None:
            return 2, 0.0
        return (0 if point["certified"] else 1), point["mean"]

    heads = ["rank", "arm", *(budget_value(budget, i) or "bits per byte" for i in shown)]
    heads += [
        f"− {summary['baseline']}",
        "bytes/unit",
        "next word",
        "training",
        "decoding",
        "score",
    ]
    rows = []
    for (arm, size), line in sorted(lines.items(), key=lambda item: place(item[1])):
        point = line.get(at)  # type: ignore[arg-type]
        last = point or line[max(line, key=shown.index)]
        proven = all(each["certified"] for each in line.values())
        rows.append([
            "" if point is None or not point["rank"] else
            f"{point['rank']}{'=' * bool(point['tied'])}",
            arm if size is None else f"{arm} {size}",
            *(_mean(line.get(i)) for i in shown),
            "" if point is None else _difference(point["difference"]),
            _number(last["bytes_per_unit"], ".2f"), _number(last["next_word_accuracy"], ".1%"),
            _speed(last["train_bytes_per_second"]), _speed(last["decode_bytes_per_second"]),
            PROVEN if proven else UNPROVEN,
        ])  # fmt: skip
    kept = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _mean(point: dict[str, Any] | None) -> str:
    if point is None:
        return ""
    mark = "" if point["certified"] else "†"
    if point["spread"] is None:
        return f"{point['mean']:.3f}{mark}"
    places = digits(point["spread"])
    return f"{point['mean']:.{places}f} ± {point['spread']:.{places}f}{mark}"


def _difference(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    told = signed(difference["mean"], difference["margin"])
    return told if difference["clear"] else f"({told})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _speed(value: float | None) -> str:
    return "" if value is None else f"{human(value)}B/s"


def caption(summary: dict[str, Any]) -> str:
    """What the table shows, and how the arms were matched."""
    text, budget = summary["text"], summary["budget"]
    seeds = summary["seeds"]
    how = "Runs that were there, not matched" if summary["existing"] else (
        f"Matched by {matched(budget)}"
    )  # fmt: skip
    if summary["inference_flops"]:
        how += f" and by {human(summary['inference_flops'])}FLOPs per byte of inference"
    over = "of one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    grid = summary["tuning"]["grid"]
    tuned = (
        f" The learning rate of each arm was chosen among {len(grid)}, which took "
        f"{summary['tuning_cost']['share']:.0%} of all FLOPs." if len(grid) > 1 else ""
    )  # fmt: skip
    largest = ", at the largest budget" if len(budget["values"]) > 1 else ""
    marks = []
    if any(p["difference"] and not p["difference"]["clear"] for p in summary["points"]):
        marks.append("in brackets, it is not told apart from 0")
    if any(p["tied"] for p in summary["points"]):
        marks.append("= behind a rank, another arm is not told apart from this one")
    if not all(p["certified"] for p in summary["points"]):
        marks.append("†, no certificate proves the score")
    marked = f" Marks: {'; '.join(marks)}." if marks else ""
    return (
        f"Bits per byte of held-out text (less is better), {over}. {how}. Text: {text['source']}, "
        f"{human(text['bytes'])}B in {counted(text['documents'], 'document')}. − "
        f"{summary['baseline']}: the difference and its 95% margin{largest}.{tuned}"
        f"{marked}"
    )


def markdown(summary: dict[str, Any]) -> str:
    """The table with the answer, the loud warnings and what cannot be told."""
    heads, rows = _rows(summary)
    parts = [f"# {_md(summary['title'] or summary['name'])}", _md(" ".join(summary["answer"]))]
    if rows:
        left = {"rank", "arm", "score"}
        rule = [":---" if head in left else "---:" for head in heads]
        lines = [
            [_md(head) for head in heads],
            rule,
            *([_md(cell) for cell in row] for row in rows),
        ]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append(_md(caption(summary)))
    loud = [each["text"] for each in summary["warnings"] if each["level"] == "loud"]
    if loud:
        parts += ["## Warnings", "\n".join(f"- {_md(text)}" for text in loud)]
    if summary["cannot"]:
        parts += [
            "## What this study cannot tell",
            "\n".join(f"- {_md(text)}" for text in summary["cannot"]),
        ]
    return "\n\n".join(parts) + "\n"


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for mark in "\\`*_[]<|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "±": r"$\pm$", "−": r"$-$", "†": r"$\dagger$", "×": r"$\times$", "\n": " ",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def latex(summary: dict[str, Any]) -> str:
    """A table for booktabs, to be read with ``\\input``."""
    heads, rows = _rows(summary)
    columns = "".join("l" if head in ("rank", "arm", "score") else "r" for head in heads)
    lines = [" & ".join(map(_tex, line)) + r" \\" for line in (heads, *rows)]
    head, body = lines[0], "\n".join(lines[1:])
    loud = sum(each["level"] == "loud" for each in summary["warnings"])
    noted = f" {counted(loud, 'warning')}: see {MARKDOWN}." if loud else ""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in summary["name"])
    return (
        "% Needs \\usepackage{booktabs}.\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_tex(caption(summary) + noted)}}}\n\\label{{tab:{name}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


# For programs.


def comma_separated(summary: dict[str, Any]) -> str:
    """A row a point, with every number of it in full; what is nested has dotted names."""
    nested = ("difference", "behind", "languages")
    rows = [
        _flat({k: v for k, v in point.items() if v is not None or k not in nested})
        for point in summary["points"]
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_KEYS = {
    "seeds": ("seed",), "noise": ("noise", "rate"), "bands": ("band",), "languages": ("language",)
}  # fmt: skip
"""What tells rows of a list apart."""


def _flat(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in value.items():
        path = f"{before}{name}"
        if isinstance(each, dict):
            found |= _flat(each, f"{path}.")
        elif name in _KEYS and isinstance(each, list):
            keys = _KEYS[name]
            for row in each:
                if isinstance(row, dict) and all(key in row for key in keys):
                    key = ".".join(str(row[key]) for key in keys)
                    rest = {k: v for k, v in row.items() if k not in keys}
                    found |= _flat(rest, f"{path}.{key}.")
        elif isinstance(each, list):
            found[path] = " ".join(str(item) for item in each)
        else:
            found[path] = each
    return found


def parquet(summary: dict[str, Any], cells: list[Cell]) -> bytes:
    """A row a cell: what was planned, its settings (those that differ between cells), what the run
    came to, and all that was measured, with lists as lists; ``document_nats`` and
    ``document_bytes`` are what a bootstrap takes."""
    import pyarrow
    import pyarrow.parquet

    shown = {cell["name"]: cell for cell in summary["cells"]}
    rows = [_record(shown[cell.name], cell.measured) for cell in cells]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def _record(shown: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    planned = {
        k: v for k, v in shown.items()
        if k not in ("settings", "results", "certificate", "collapsed", "unproven")
    }  # fmt: skip
    certificate = shown["certificate"] if isinstance(shown["certificate"], dict) else {}
    pieces = certificate.get("pieces")
    found = {
        **planned,
        **{f"settings.{name}": value for name, value in shown["settings"].items()},
        **{f"results.{name}": value for name, value in _flat(shown["results"]).items()},
    }
    documents = measured.get("documents")
    if isinstance(documents, dict):
        found["document_nats"] = documents.get("nats")
        found["document_bytes"] = documents.get("bytes")
    for name, value in measured.items():
        if name in ("by_label", "by_script") and isinstance(value, dict):
            found[name] = [{"name": k, **v} for k, v in value.items() if isinstance(v, dict)]
        elif name in ("noise", "bands"):
            found[name] = value
        elif name == "fairness" and isinstance(value, dict):
            found["fairness_premium"] = value.get("premium")
            found["languages"] = value.get("languages")
        elif name not in ("documents", "cuts", "certificate", "format"):
            found |= _flat({name: value})
    return found | {
        "certificate.proves": not shown["unproven"] if shown["status"] == "done" else None,
        "certificate.why": shown["unproven"],
        **{
            f"certificate.{name}": certificate.get(name)
            for name in ("checkpoint", "bytes", "compressed_bytes", "overhead_bytes",
                         "bits_per_byte_score", "bits_per_byte_file", "decoder")
        },
        "certificate.pieces": pieces,
    }  # fmt: skip


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: numbers, text, lists of numbers or of rows; else JSON."""
    there = [value for value in values if value is not None]
    if not there or all(isinstance(value, bool) for value in there) or _are(there, str):
        return values
    if _numbers(there):
        kind = _kind(there)
        return [None if value is None else kind(value) for value in values]
    if _are(there, list):
        items = [item for value in there for item in value if item is not None]
        if _are(items, str):
            return values
        if _numbers(items):
            kind = _kind(items)
            return [
                value and [None if item is None else kind(item) for item in value]
                for value in values
            ]
        if _are(items, dict):
            keys = list(dict.fromkeys(key for item in items for key in item))
            columns = {key: iter(_column([item.get(key) for item in items])) for key in keys}
            return [
                value if value is None else [
                    {key: next(columns[key]) for key in keys} for item in value if item is not None
                ]
                for value in values
            ]  # fmt: skip
    return [None if value is None else json.dumps(value) for value in values]


def _are(values: list[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _kind(numbers: list[Any]) -> type:
    """Whole numbers among others become floats, as do those that 64 bits do not hold."""
    return int if all(isinstance(n, int) and abs(n) < 2**63 for n in numbers) else float
