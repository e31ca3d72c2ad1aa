"""A run's folder: its name, its one owner, and what it holds."""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from octavo import locks, storage
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, to_json
from octavo.data.manifest import MANIFEST
from octavo.files import json_text, read_json, write_json
from octavo.run import mirror as runs
from octavo.run.checkpoint import Checkpoints, saved_steps
from octavo.run.directory import (
    CONFIG,
    DIVERGED,
    GOODPUT,
    LOCK,
    MARKER,
    METRICS,
    REPORT,
    RESULTS,
    SAMPLE,
    SAMPLES,
    TOKENIZER,
    read_config,
)
from octavo.run.errors import CheckpointError
from octavo.run.identity import check_identity, differences
from octavo.run.marks import keep_marker
from octavo.training.trainer import Trainer

SEEN_WITHIN = 30.0
"""Seconds after which other hosts see what the first one wrote."""
MADE = (METRICS, SAMPLES, RESULTS, REPORT, SAMPLE, TOKENIZER, GOODPUT, "tensorboard")
"""What only a run that has a ``CONFIG`` makes."""


_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
"""Why a folder that a person named cannot be made, whatever is tried again."""


@dataclasses.dataclass(frozen=True)
class Diverged:
    """Says that the run gave up, after which step, and at which learning rate."""

    step: int
    learning_rate: float


def new_folder(preset: str, root: Path = Path("runs")) -> Path:
    """Make a folder that nobody has, named after the preset and the time."""
    name = f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise ConfigError(f"{root / name} and 999 like it exist; name a folder with --workdir.")


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """While this process trains in ``folder``, no other does.

    A lock of the file system, which ends with its holder however that ends; of a mirror, one of its
    storage. Raises ConfigError with the holder's name if there is one.
    """
    if (folder / MANIFEST).exists():
        raise ConfigError(f"--workdir {folder} is a prepared corpus; name a folder for the run.")
    if mirror := runs.mirror_of(folder):
        with runs.owned(mirror):
            yield
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--workdir {folder} is a file; name a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise ConfigError(f"--workdir {folder} cannot be made: {error.strerror}.") from error
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise locks.in_use(folder, _holder(path)) from None
        except OSError as error:  # a file system without locks
            print(
                f"warning: {path} cannot be locked ({error.strerror}); see to it that no other "
                "training uses this folder.",
                file=sys.stderr,
            )
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                break
        os.close(handle)  # its holder ended just now, and took the file away
    about = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
    }
    try:
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # of a full disk: the lock holds without it
            os.pwrite(handle, json_text(about).encode(), 0)
        for name in (CONFIG, *MADE):  # what was killed while it wrote them
            for partial in folder.glob(f"{name}.*.partial"):
                partial.unlink(missing_ok=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_bytes())
        return locks.told(about["process"], about["host"], about["since"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # it is just being written
        return "another process trains there"


def check_named(config: Config) -> None:
    """Raise ConfigError for several hosts without the name of a folder: a new one for each start
    would not be continued by the same command, which is how they come back from a preemption."""
    if config.train.distributed and config.workdir is None:
        raise ConfigError(
            "several hosts keep a run in a folder that all of them see, and that the same command "
            "continues: name it with --workdir RUN."
        )


def claim(config: Config, held: contextlib.ExitStack) -> Path:
    """The folder of the run, the same on all hosts; the first of them owns it while ``held``.
    Raises ConfigError on a host that does not see it."""
    name = None
    if jax.process_index() == 0:
        name = config.workdir or str(new_folder(config.preset or "custom"))
        if storage.is_url(name) and jax.process_count() > 1 and not name.startswith("gs://"):
            raise ConfigError(
                f"--workdir {name}: several hosts write their parts of a checkpoint to the same "
                "place, which Orbax does on gs:// and in folders; mount other storage as one."
            )
        held.enter_context(owned(runs.folder(name)))
    name = from_leader(name)
    folder = runs.folder(name)
    deadline = time.monotonic() + SEEN_WITHIN
    while not (storage.is_url(name) or (folder / LOCK).exists()):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"host {jax.process_index()} does not see the run directory {folder} of the first "
                "host: name one on storage that all of them share, with --workdir RUN."
            )
        time.sleep(0.2)
    return folder


def check_hosts_agree(config: Config, plan: dict, origin: dict | None) -> None:
    """Raise ConfigError on a host whose settings, data plan or beginning (``Source.origin``) are
    not those of the first."""
    mine = to_json(config) | {"workdir": None, "data plan": plan, "beginning": origin or {}}
    words = ("the first has", "this one")
    if found := differences(from_leader(mine), mine, words=words):
        raise ConfigError(
            f"host {jax.process_index()} was started in another way than the first: "
            f"{'; '.join(found)}. Give all the same command, and the same data."
        )


def from_leader(value: Any) -> Any:
    """What the first host has, on all of them; plain JSON."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json_text(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(size, np.uint8)
    padded[: len(text)] = text[:size]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def unsaved_start(folder: Path, config: Config, allowed: tuple[str, ...]) -> Config | None:
    """The settings of the run in ``folder`` if it was stopped before its first checkpoint, and may
    start again. None: it holds nothing of a run, or more.

    Raises CheckpointError if its checkpoints are gone, ConfigError if it was another run.
    """
    held = [name for name in (CONFIG, *MADE) if (folder / name).exists()]
    if saved_steps(folder) or not held:
        return None
    if CONFIG not in held:
        raise CheckpointError(
            f"{folder} holds {held[0]} of a run, but neither its config.json nor a checkpoint. "
            "Choose another --workdir, or clear this one."
        )
    saved = read_config(folder, "Delete it, or choose another --workdir.")
    check_identity(saved, config, f"the run in {folder} was begun", allowed=allowed)
    logged = last_logged(folder)
    if logged > saved.train.checkpoint_every and not (folder / DIVERGED).exists():
        raise CheckpointError(
            f"{folder} has metrics of {logged} steps, but its checkpoints are gone. Put them back, "
            "choose another --workdir, or clear this one."
        )
    return saved


def describe(folder: Path, trainer: Trainer) -> None:
    """Write what the run is: all that is needed to open a checkpoint of it."""
    write_json(folder / CONFIG, to_json(trainer.config))
    write_json(folder / TOKENIZER, trainer.tokenizer.to_json())
    marked_by = trainer.plan.corpora[0].folder / MARKER
    if marked_by.is_dir():
        keep_marker(marked_by, None, folder)


def last_logged(folder: Path) -> int:
    """The last step in metrics.jsonl; 0 without one."""
    try:
        with open(folder / METRICS, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 16)))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):  # the last may be cut short
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            return int(json.loads(line)["step"])
    return 0


def give_up(folder: Path, checkpoints: Checkpoints, config: Config, step: int, skipped: int) -> str:
    """Leave a run that diverged so that it can go on at a lower learning rate, and say how.

    A checkpoint of which no step was finite, the ``skipped`` ones up to ``step``, is set aside: its
    parameters are what went wrong.
    """
    if skipped and checkpoints.newest == step - skipped:
        checkpoints.set_aside(step - skipped, "diverged")
    rate = config.optimizer.learning_rate
    if jax.process_index() == 0:
        write_json(folder / DIVERGED, dataclasses.asdict(Diverged(step, rate)))
    kept = checkpoints.newest
    start = "from its start" if kept is None else f"from step {kept}"
    return (
        f"Lower --optimizer.learning-rate (it is {rate:g}): with that alone changed, the run goes "
        f"on {start}."
    )


def given_up(folder: Path, config: Config) -> tuple[str, ...]:
    """Settings that may differ from those of a run: its learning rate may be lower after it
    diverged."""
    path = folder / DIVERGED
    if not path.exists():
        return ()
    rate = read_json(path, Diverged, error=CheckpointError, advice="Delete it.").learning_rate
    return ("optimizer.learning_rate",) if config.optimizer.learning_rate < rate else ()
