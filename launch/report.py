"""Where the time of runs went, from their folders alone:

    python -m octavo.launch.report RUN [RUN ...] [--json OUT]

Goodput over all starts, how long steps take, speed, share of the devices' peak, memory. Needs no
device.
"""

from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from octavo import cli, process, storage
from octavo.arguments import check_output
from octavo.brief import human
from octavo.configs.checks import ConfigError
from octavo.evaluation.curves import SKIPPED, Curves, number, read_row
from octavo.evaluation.folder import Folder, check_run, read_object
from octavo.run.directory import CONFIG, GOODPUT, METRICS, RESULTS
from octavo.run.goodput import pace, percentiles, where_time_went
from octavo.run.mirror import fetched

BYTES, LAP, WAIT = "train/bytes", "perf/step_seconds", "perf/data_wait_seconds"
MFU, HFU = "perf/mfu", "perf/hfu"


@dataclass(frozen=True)
class Arguments:
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run directories, as train.py printed them, or their URLs."""
    json: Annotated[str | None, tyro.conf.arg(metavar="OUT")] = None
    """Write what is found to this file too: a list, with an object for each run."""


def main() -> None:
    about = (__doc__ or "").split("\n\n")[2]
    arguments = cli.parse(Arguments, "python -m octavo.launch.report", about, flags=True)
    if not arguments.runs:
        raise ConfigError("name at least one RUN.")
    if arguments.json is not None:
        check_output(arguments.json, "--json", *arguments.runs)
    found = []
    for name in arguments.runs:
        with fetched(name, arrays=False) as path:
            values, lines = report(name, path)
        print("\n" * bool(found) + "\n".join(lines), flush=True)
        found.append(values)
    if arguments.json is not None:
        storage.write_json(arguments.json, found)


def report(name: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a run's folder says: as ``--json`` writes it, with None for what it does not say, and
    in lines. name: what a person called it. Raises ConfigError for what is no run, RunError for
    one that has logged no step."""
    check_run(name, path)
    logged, skipped = _read(name, path / METRICS)
    config, results = read_object(path / CONFIG), read_object(path / RESULTS)
    last = int(logged["step"].max())
    curves = Curves(steps=len(logged["step"]), last=last)
    folder = Folder(name, path, config, results, curves, [])
    status, spent = folder.status[0], folder.time
    found: dict[str, Any] = {"run": name, "status": status, "step": last, "skipped": skipped}
    lines = [f"{name}: {status}"]
    if spent is None:
        lines.append(f"goodput    not known: no {GOODPUT}, which earlier revisions did not write")
    else:
        found |= asdict(spent) | {"goodput": spent.goodput}
        lines += where_time_went(spent)

    known = np.isfinite(logged[LAP])
    if not known.any():
        lines.append("step time  not known: earlier revisions did not log it")
        speed = number(results.get("bytes_per_second"))
    else:
        steps, laps, waits = (logged[key][known] for key in ("step", LAP, WAIT))
        speed = float(np.nansum(np.diff(logged[BYTES], prepend=0)[known]) / max(laps.sum(), 1e-9))
        found |= {
            "step_seconds": percentiles(laps),
            "data_wait": float(np.nansum(waits) / max(laps.sum(), 1e-9)),
        }
        lines.append(pace(laps, waits, steps))
    if speed is not None:
        found["bytes_per_second"] = speed
        lines.append(f"speed      {human(speed)}B/s, scores and saving not counted")
    for key, called in ((MFU, "mfu"), (HFU, "hfu")):
        if (values := logged[key][np.isfinite(logged[key])]).size:
            found[called] = float(np.median(values))
            lines.append(f"{called:<10} {found[called]:.1%} of the devices' peak (median)")
    if skipped:
        lines.append(f"skipped    {skipped} steps, which were not finite")
    return found, lines


def _read(name: str, path: Path) -> tuple[dict[str, np.ndarray], int]:
    """Metrics by name, of each step, NaN where there is none; and how many steps were skipped."""
    columns = {key: array("d") for key in ("step", BYTES, LAP, WAIT, MFU, HFU)}
    skipped, damaged = 0, []
    try:
        with path.open("rb") as file:
            for at, line in enumerate(file, 1):
                if (row := read_row(line)) is None:
                    if line.endswith(b"\n"):  # else it is being written, or a kill cut it short
                        damaged.append(at)
                    continue
                for key, column in columns.items():
                    value = number(row.get(key))
                    column.append(np.nan if value is None else value)
                skipped += (number(row.get(SKIPPED)) or 0) > 0
    except FileNotFoundError:
        pass
    if damaged:
        process.warn(
            f"{name}: {len(damaged)} of the lines of {path.name} hold no step and are left out, "
            f"the first of them line {damaged[0]}"
        )
    if not columns["step"]:
        raise cli.RunError(f"{name} has logged no step yet: there is none in its {path.name}.")
    return {key: np.array(column) for key, column in columns.items()}, skipped


if __name__ == "__main__":
    cli.run(main)
