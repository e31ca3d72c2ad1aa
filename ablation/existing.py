"""Runs that are there, scored on the same text and shown side by side: nothing is trained."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from octavo import files, storage
from octavo.ablation import corpora
from octavo.ablation.place import MEASURED, RUNS, STUDY, Place
from octavo.ablation.plan import Cell, Planned
from octavo.ablation.study import BUDGETS, Arguments, allowed
from octavo.configs.checks import ConfigError
from octavo.configs.schema import identity
from octavo.data.errors import DataError
from octavo.evaluation.curves import number
from octavo.evaluation.parallel import read_parallel
from octavo.run.directory import CONFIG, METRICS, RESULTS, read_config
from octavo.run.errors import CheckpointError
from octavo.run.mirror import fetched

CLOSE = 0.05
"""Runs whose useful FLOPs differ by more were given unequal budgets."""


def are_runs(arms: tuple[str, ...]) -> bool:
    """Whether what was named is run directories."""
    return bool(arms) and all(storage.is_url(arm) or (Path(arm) / CONFIG).is_file() for arm in arms)


@dataclasses.dataclass(frozen=True)
class _Run:
    name: str
    folder: str
    config: Any
    results: dict[str, Any]


def plan(arguments: Arguments) -> tuple[Place, Planned, dict[str, Any]]:
    """A study of runs that are there, and its text.json. Raises ConfigError for runs that cannot be
    compared."""
    arguments = dataclasses.replace(arguments, allow=allowed(arguments.allow))
    _check(arguments)
    assert arguments.out
    place = Place(arguments.out)
    before = place.read(STUDY)
    if before is not None and not before.get("existing"):
        raise ConfigError(
            f"{place} holds a study of runs that it trained; name another --out for these."
        )
    names = _names([folder.rstrip("/") for folder in arguments.arms])
    runs = [_read(folder, name) for folder, name in zip(arguments.arms, names, strict=True)]
    baseline = runs[0].name if arguments.baseline is None else arguments.baseline
    source = arguments.data[0] if arguments.data else runs[0].config.data.source
    most = arguments.heldout_bytes or 200_000
    if arguments.parallel:
        read_parallel(arguments.parallel)
    _check_text(runs, source, most, arguments.allow)
    groups = _groups(runs)
    if baseline not in groups:
        raise ConfigError(f"--baseline {baseline} is no arm; there are {', '.join(groups)}.")
    spent = [float(run.results["flops_useful"]) for run in runs]
    if max(spent) > (1 + CLOSE) * min(spent) and "budget" not in arguments.allow:
        few, many = (runs[spent.index(f(spent))].name for f in (min, max))
        raise ConfigError(
            f"{few} was trained with {min(spent):.3g} useful FLOPs and {many} with "
            f"{max(spent):.3g}: no fair comparison. Train both with as many (python ablate.py with "
            "presets and --flops), or compare them anyway with --allow budget."
        )
    text = corpora.text_json(source, most)
    cells = []
    for arm, mine in groups.items():
        for run in mine:
            about = run.results
            cells.append(Cell(
                len(cells), run.name, arm, None, 0, int(run.config.train.seed), 1.0,
                int(about["step"]), about["bytes"], about["flops_useful"], about["flops"],
                about["parameters"], about.get("command", ""),
            ))  # fmt: skip
    firsts = {arm: mine[0] for arm, mine in groups.items()}
    about = {
        "name": Path(place.out).name,
        "title": arguments.title,
        "budget": {"by": "flops", "counted": "useful", "values": [sum(spent) / len(spent)]},
        "inference_flops": None,
        "seeds": max(map(len, groups.values())),
        "baseline": baseline,
        "tuning": {"grid": [1.0], "rule": "The runs were there already.", "transfer": ""},
        "unequal": list(arguments.allow),
        "existing": True,
        "parallel": arguments.parallel,
        "heldout_bytes": most,
        "text": corpora.told(text),
        "arms": [
            {
                "name": arm, "asked": run.folder, "preset": run.results.get("preset"),
                "sizes": [None], "source": run.config.data.source,
                "tokenizer": run.results.get("tokenizer"), "vocabulary": None,
                "learning_rate": run.config.optimizer.learning_rate,
            }
            for arm, run in firsts.items()
        ],
        "folders": {run.name: run.folder for run in runs},
    }  # fmt: skip
    return place, Planned(about, tuple(cells), {}), text


def _check(arguments: Arguments) -> None:
    if not arguments.out:
        raise ConfigError("name a folder for what comes of it: --out DIR.")
    named = [*BUDGETS, "counted", "inference_flops", "seeds", "rates", "common"]
    if given := next((name for name in named if getattr(arguments, name)), None):
        raise ConfigError(
            f"--{given.replace('_', '-')} is for runs that are to be trained; these are there."
        )
    if len(arguments.data) > 1:
        raise ConfigError("runs are scored on the held-out text of one folder: --data DIR.")


def _names(folders: list[str]) -> list[str]:
    """Of the folders of runs, each another: the last part of a path or, where that is not
    enough, all of it. Raises ConfigError for a run that is named twice."""
    whole = [one if storage.is_url(one) else os.path.realpath(one) for one in folders]
    if twice := next((one for one in whole if whole.count(one) > 1), None):
        raise ConfigError(f"{twice} is named twice.")
    last = [_plain(os.path.basename(one)) for one in whole]
    long = [_plain(one) for one in folders]
    names = [n if last.count(n) == 1 else m for n, m in zip(last, long, strict=True)]
    return [f"{name}-{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _plain(name: str) -> str:
    """As a folder below runs/ may be called."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "run"


def _read(folder: str, name: str) -> _Run:
    bare = folder.rstrip("/") or folder
    with fetched(bare, arrays=False) as here:
        try:
            results = files.read_json(here / RESULTS, dict[str, Any])
            config = read_config(here)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{folder} has no {Path(error.filename).name}: it is no run that was finished or "
                f"stopped in order. Go on with it: python train.py --workdir {folder}."
            ) from error
        except (CheckpointError, files.FileError) as error:
            raise ConfigError(str(error)) from error
    named = ("step", "bytes", "flops_useful", "flops", "parameters")
    if lacking := {name for name in named if not (number(results.get(name)) or 0) > 0}:
        raise ConfigError(
            f"{folder}/{RESULTS} is of an earlier revision and has no {sorted(lacking)[0]}: "
            f"python train.py --workdir {folder} writes it anew."
        )
    return _Run(name, bare if storage.is_url(bare) else os.path.abspath(bare), config, results)


def _groups(runs: list[_Run]) -> dict[str, list[_Run]]:
    """Runs by arm: those that differ in nothing but their seed are one."""
    found: list[tuple[Any, list[_Run]]] = []
    for run in runs:
        made = identity(run.config)
        made["train"].pop("seed")
        data = run.config.data
        key = made, data.source, data.batch_size, data.packing, run.results["step"]
        for other, mine in found:
            if other == key and all(r.config.train.seed != run.config.train.seed for r in mine):
                mine.append(run)
                break
        else:
            found.append((key, [run]))
    return {mine[0].name: mine for _, mine in found}


def _check_text(runs: list[_Run], source: str, most: int, allow: tuple[str, ...]) -> None:
    """Raise ConfigError for a run that was trained on other text than belongs to the held-out text,
    which may then lie in it."""
    if "text" in allow:
        return
    first = corpora.Text.of(source, most)
    for run in runs:
        try:
            own = corpora.Text.of(run.config.data.source, most)
            why = "" if own.train == first.train else "on other text"
        except (DataError, OSError):
            why = "on text that is not there any more"
        if why:
            raise ConfigError(
                f"{run.folder} was trained {why} ({run.config.data.source}) than {source}, whose "
                "held-out text may have been part of it. Name the text that all were trained on "
                "with --data DIR, or compare them anyway with --allow text."
            )


def keep_files(place: Place, planned: Planned) -> None:
    """Copies of what runs say of themselves, in the folder of the study."""
    for name, folder in planned.about.get("folders", {}).items():
        with fetched(folder, arrays=False) as here, place.folder(f"{RUNS}/{name}") as there:
            told = f"{RUNS}/{name}/{RESULTS}"
            if place.read(told) != files.read_json(here / RESULTS):  # another run, or it went on
                place.remove(f"{RUNS}/{name}/{MEASURED}")
            for file in (CONFIG, METRICS, RESULTS):
                if (here / file).is_file():
                    files.write(there / file, (here / file).read_bytes())
