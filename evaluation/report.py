"""The page of a run, made of the files in its directory alone."""

import html
import json
from pathlib import Path

from octavo import files


def write_report(workdirs: list[Path], out: Path) -> None:
    """Write a page of runs, side by side. Raises OSError."""
    parts = []
    for workdir in workdirs:
        results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
        shown = html.escape(json.dumps(results, indent=1))
        parts.append(f"<h1>{html.escape(workdir.name)}</h1><pre>{shown}</pre>")
    files.write(out, f"<!DOCTYPE html><meta charset=utf-8>{''.join(parts)}")
