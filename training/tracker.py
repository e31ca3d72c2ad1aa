"""The metrics of a run in an experiment tracker, beside its own files: Weights & Biases or trackio.

Where they keep them, and how one logs in or stays offline, is theirs to say: WANDB_MODE, WANDB_DIR,
TRACKIO_DIR and so on. Each is a library that a person installs.
"""

import contextlib
import importlib
import importlib.util
import secrets
import sys
from pathlib import Path
from typing import Any

from octavo import files, process
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, to_json

TRACKER = "tracker.json"
"""In a run's directory: which run of a tracker it is."""
PROJECT = "octavo"
_PATIENCE = 20.0
"""Seconds for what is still to be sent when a run ends."""


def check_tracker(library: str) -> None:
    """Raise ConfigError if the library is not installed."""
    if library == "none":
        return
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:  # a mere folder of this name
        raise ConfigError(
            f"--train.tracker {library} needs the library {library}, which is not installed: "
            f"pip install {library}, or leave the flag out; metrics.jsonl has the same numbers."
        )


class Tracker:
    """A run of a tracker, gone on with when ours is continued. After a failure, with one warning,
    there is no more of it."""

    def __init__(self, config: Config, workdir: Path):
        self._library = config.train.tracker
        self._run: Any = None
        self._next = 0
        """The first step that the tracker does not have: those of a killed run come again, the
        same, and are not taken twice."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what they say is not our output
                self._run = self._start(workdir, _id(workdir, self._library), to_json(config))
            wandb = self._library == "wandb"
            self._next = self._run.step if wandb else getattr(self._run, "_next_step", 0)
        except Exception as error:
            self._give_up(error)

    def write(self, step: int, values: dict[str, float]) -> None:
        """values: finite."""
        if self._run is None or step < self._next:
            return
        try:
            self._run.log(dict(values), step=step)
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Wait a while for what is still to be sent."""
        run, self._run = self._run, None
        if run is None:
            return
        done = []

        def finish() -> None:
            try:
                run.finish()
            except Exception as error:
                self._give_up(error)
            done.append(True)

        with contextlib.redirect_stdout(sys.stderr):
            process.within(_PATIENCE, finish)
        if not done:
            process.warn(f"{self._library} has not sent everything after {_PATIENCE:.0f} s")

    def _start(self, workdir: Path, id: str, config: dict) -> Any:
        module: Any = importlib.import_module(self._library)
        name = f"{workdir.resolve().name}-{id}"
        how = {"project": PROJECT, "name": name, "config": config, "resume": "allow"}
        if self._library == "trackio":
            # It would measure the machine, which is in our own metrics.
            return module.init(**how, auto_log_cpu=False, auto_log_gpu=False)
        settings = module.Settings(console="off", quiet=True, login_timeout=60)
        return module.init(**how, id=id, dir=str(workdir), settings=settings)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        process.warn(f"no more metrics to {self._library}: {files.reason(error)}")


def _id(workdir: Path, library: str) -> str:
    """Of the tracker's run, the same whenever ours is continued."""
    path = workdir / TRACKER
    ids = files.read_json(path, dict[str, str]) if path.exists() else {}
    if library not in ids:
        ids[library] = secrets.token_hex(4)
        files.write_json(path, ids)
    return ids[library]
