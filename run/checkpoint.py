"""Checkpoints with Orbax: asynchronous, the newest few kept, params / opt / data / meta apart.

A checkpoint is complete or ignored (Orbax renames it into place). Its arrays carry a checksum
computed on the devices and its record one of its own, so a damaged one is noticed and the one
before it is used. Only bytes that are not what was written are damage: a changed setting, a missing
permission or a fault of the storage changes nothing on disk.
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax import lax
from jax.experimental import multihost_utils

from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, from_json, to_json
from octavo.files import read_json
from octavo.run.errors import CheckpointError, StorageError
from octavo.run.identity import SAME, check_identity, differences
from octavo.run.mirror import RunMirror, mirror_of

FORMAT = 2
"""Of checkpoints. Format 1 had one checksum for all."""


class Damaged(Exception):
    """The bytes of a checkpoint are not those that were written."""


def checksum(tree: dict) -> int:
    """32 bits over every bit of every leaf and where it stands; the same for any sharding."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        # One after another: sums in flight at once may meet in another order on another host.
        total = (total * 0x01000193 + int(_of_leaf(leaf))) % 2**32
    return total


@jax.jit
def _of_leaf(leaf: jax.Array) -> jax.Array:
    """uint32: compiled once for all of a shape."""
    size = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = lax.bitcast_convert_type(leaf, size).astype(jnp.uint32).ravel()
    place = lax.iota(jnp.uint32, bits.size) * jnp.uint32(0x9E3779B1) | jnp.uint32(1)
    mixed = (bits ^ (bits >> 15)) * place
    return jnp.sum(mixed ^ (mixed >> 13), dtype=jnp.uint32)


def all_finite(tree: dict) -> bool:
    """Whether every number is."""
    return all(bool(_finite(leaf)) for leaf in jax.tree.leaves(tree))


@jax.jit
def _finite(leaf: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(leaf))


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of itself, beside its arrays."""

    step: int
    data: dict
    """The data plan's description."""
    meta: dict
    """``model``, ``config``, ``tokenizer`` (its fingerprint), ``schedule`` (where the learning rate
    was laid out anew), ``origin`` (the run whose parameters it began with), ``format``,
    ``checksums``, ``crc32c`` (of the record without it)."""

    @property
    def config(self) -> Config | None:
        """The settings it was trained with, defaults filled in where it is older than a setting.
        Raises ConfigError for settings that this version does not know."""
        if "config" not in self.meta:
            return None
        return from_json(self.meta["config"], f"the record of checkpoint {self.step}")


def saved_steps(workdir: Path) -> list[int]:
    """Steps of the complete checkpoints of a run directory, newest first."""
    folder = Path(workdir) / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(
        (int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.name.isascii()),
        reverse=True,
    )


def record_of(workdir: Path, step: int | None = None) -> Record | None:
    """The record of a step's checkpoint (None: the newest that has a readable one), or None if it
    cannot be read; nothing is written.

    Raises StorageError if the storage cannot be read.
    """
    for each in saved_steps(workdir) if step is None else [step]:
        folder = Path(workdir) / "checkpoints" / str(each)
        try:
            with _reading(folder):
                return _read_record(folder)
        except Damaged:  # said where it is restored
            continue
    return None


def _read_record(folder: Path) -> Record:
    # The files of Orbax's JSON handler: read without its barriers, by each host for itself.
    meta = read_json(folder / "meta" / "metadata", dict)
    plan = folder / "data" / "metadata"
    # Markers of earlier revisions have none.
    data = read_json(plan, dict) if plan.exists() or "crc32c" in meta else {}
    if "crc32c" in meta and meta["crc32c"] != _record_checksum(data, meta):
        raise Damaged("the checksum of its record does not match its content")
    return Record(int(folder.name), data, meta)


def _record_checksum(data: dict, meta: dict) -> str:
    rest = {name: value for name, value in meta.items() if name != "crc32c"}
    text = json.dumps([data, rest], sort_keys=True)
    return f"{google_crc32c.value(text.encode()):08x}"


@contextlib.contextmanager
def _reading(folder: Path):
    """While the checkpoint ``folder`` is read. What is raised becomes Damaged if the bytes on disk
    are to blame, StorageError if the storage is."""
    try:
        for path in folder.rglob("*"):  # before a library stumbles, in threads of its own
            if path.is_file():
                path.open("rb").close()
        yield
    except (ConfigError, CheckpointError, Damaged):
        raise
    except Exception as error:  # Orbax and TensorStore raise whatever they stumble over
        if fault := _fault(folder, error):
            raise StorageError(
                f"checkpoint {folder} cannot be read now: {fault}. Nothing was changed."
            ) from error
        raise Damaged((str(error).strip().splitlines() or [repr(error)])[0][:300]) from error


PASSING = (
    "permission_denied", "permission denied", "unavailable", "deadline_exceeded", "timed out",
    "resource_exhausted", "out of memory", "input/output error", "barrier", "unauthenticated",
)  # fmt: skip
"""What libraries say of faults that are none of the bytes on disk."""


def _fault(folder: Path, error: BaseException) -> str | None:
    """Why the storage or the machine, and not the content, is to blame; None if it is not."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return "there is not enough memory"
        if isinstance(seen, OSError) and not isinstance(seen, FileNotFoundError):
            return f"{seen.filename or folder}: {seen.strerror or seen}"
        said = str(seen)
        if any(word in said.lower() for word in PASSING):
            return said.strip().splitlines()[0][:300]
        seen = seen.__cause__ or seen.__context__
    try:
        for path in folder.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    while file.read(1 << 24):
                        pass
    except OSError as unreadable:
        return f"{unreadable.filename or folder}: {unreadable.strerror}"
    return None


def _quiet() -> None:
    """A failed save is logged once per thread, with tracebacks; we report it, once."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@dataclass
class _Kept:
    """Which checkpoints stay, as Orbax asks it: the newest few, milestones, and the best."""

    newest: int
    every: int
    best: int | None = None
    """Its step."""

    def should_preserve(self, checkpoints: Sequence, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        stay = {self.best, *steps[-self.newest :]}
        return [step in stay or bool(self.every and step % self.every == 0) for step in steps]


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, workdir: Path, keep: int, every: int = 0):
        """keep: the newest few that stay. every: those of its multiples stay, too; 0: none."""
        _quiet()
        self.folder = Path(workdir).absolute() / "checkpoints"
        self.kept, self._best = _Kept(keep, every), math.inf
        self.mirror = mirror_of(workdir)
        self._putting: Future | None = None
        self._pool = ThreadPoolExecutor(1)
        self.place: Path | epath.Path = self.folder
        """Where Orbax writes."""
        if self.mirror and jax.process_count() > 1:
            # Several hosts write parts of the same files, where all of them are.
            self.mirror.refresh()
            self.mirror.direct = True
            self.place = epath.Path(self.mirror.url) / "checkpoints"
        self.manager = ocp.CheckpointManager(
            self.place,
            options=ocp.CheckpointManagerOptions(preservation_policy=self.kept, create=True),
        )

    def save(self, state: dict, data: dict, meta: dict) -> None:
        """Begin to save; the state may be donated as soon as this returns. Raises CheckpointError
        if this or the save before it fails."""
        step = int(state["step"])
        rest = _rest(state)
        meta = meta | {"format": FORMAT, "checksums": _checksums(state)}
        meta |= {"crc32c": _record_checksum(data, meta)}
        save = ocp.args.Composite(
            params=ocp.args.StandardSave(state["params"]),
            opt=ocp.args.StandardSave(rest),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(meta),
        )
        self._put()
        self._report(lambda: self.manager.save(step, args=save))
        if self.mirror and jax.process_index() == 0:
            self._putting = self._pool.submit(self._put_there, self.mirror, self.mirror.rest())

    def _put_there(self, mirror: RunMirror, rest: dict) -> None:
        """Beside the training: what was saved last, and the rest of the run as it was then."""
        if not mirror.direct:
            self.manager.wait_until_finished()
        mirror.put_back(rest)

    def _put(self) -> None:
        """Until the newest save is where the run is."""
        if self._putting:
            putting, self._putting = self._putting, None
            self._report(putting.result)

    def wait(self) -> None:
        """Until the newest save is on disk. Raises CheckpointError if it failed."""
        self._put()
        self._report(self.manager.wait_until_finished)

    def close(self) -> None:
        self._put()
        self.manager.close()

    def offer(self, step: int, score: float) -> bool:
        """Whether a score (of which less is better) is the best that was offered; from then on the
        checkpoint of its step stays, in place of the best before."""
        if better := score < self._best:
            self._best, self.kept.best = score, step
        return better

    @property
    def steps(self) -> list[int]:
        """Those of the complete checkpoints."""
        return list(self.manager.all_steps())

    @property
    def newest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self.manager.latest_step()

    def _report(self, action: Callable) -> None:
        try:
            action()
        except Exception as error:  # Orbax and TensorStore raise whatever the storage gave
            kept = ", ".join(map(str, self.manager.all_steps())) or "none"
            reason = str(error).strip().splitlines()[0]
            raise StorageError(
                f"saving a checkpoint to {self.folder} failed: {reason}. Complete checkpoints "
                f"there: {kept}."
            ) from error

    def restore(
        self,
        abstract: dict,
        data: dict,
        meta: dict,
        warn: Callable[[str], None],
        allowed: tuple[str, ...] = (),
    ) -> dict | None:
        """The newest state that can be read, laid out like ``abstract``; None if there is none.

        allowed: settings, as "optimizer.learning_rate", that may differ. A damaged checkpoint is
        set aside as ``STEP.damaged``, and said. Raises ConfigError if the newest was made with
        other settings, data plan or format, CheckpointError if the storage cannot be read, or if
        there are checkpoints and all are damaged.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            folder = self.folder / str(step)
            try:
                with _reading(folder):
                    record = _read_record(folder)
                    _check_format(record.meta, self.folder)
                    check_settings(record, meta, self.folder, allowed)
                    _agree(record.data, data, "data plan", self.folder)
                    self._fill(step)
                    return self._read(record, abstract)
            except Damaged as error:
                warn(f"checkpoint {folder} cannot be read ({error}); set aside.")
                self.set_aside(step, "damaged")
        if steps or any(self.folder.glob("*.damaged")):
            raise CheckpointError(
                f"none of the checkpoints in {self.folder} can be read; they are kept as "
                "*.damaged. Start again with another --workdir."
            )
        return None

    def _read(self, record: Record, abstract: dict) -> dict:
        self._check_arrays(record.step, abstract)
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(abstract["params"]),
            opt=ocp.args.StandardRestore(_rest(abstract)),
        )
        read = self.manager.restore(record.step, args=items)
        counter = jax.device_put(jnp.asarray(record.step, jnp.int32), abstract["step"].sharding)
        state = {"step": counter, "params": read["params"], **read["opt"]}
        if _checksums(state) != record.meta["checksums"]:
            raise Damaged(_MISMATCH)
        return state

    def _check_arrays(self, step: int, abstract: dict) -> None:
        """Raise ConfigError if the arrays are others than this version makes of the settings."""
        handler = ocp.StandardCheckpointHandler()
        for item, expected in (("params", abstract["params"]), ("opt", _rest(abstract))):
            found = handler.metadata(self.place / str(step) / item)  # type: ignore[arg-type]
            if _shapes(found) != _shapes(expected):
                raise ConfigError(
                    f"the {item} in {self.folder / str(step)} are other arrays than this version "
                    "of Octavo makes of the same settings. Use the version that made them, or "
                    "choose another --workdir."
                )

    def set_aside(self, step: int, why: str) -> None:
        """Keep a checkpoint as ``STEP.why``, where nothing looks for it."""
        if jax.process_index() == 0:
            self._fill(step)
            for place in {self.folder, self.place}:
                aside = place / f"{step}.{why}"
                if aside.exists():
                    epath.Path(aside).rmtree()
                if (place / str(step)).exists():  # of several hosts, there may be no mirror of it
                    (place / str(step)).rename(aside)
        if jax.process_count() > 1:  # or some would still see it, and save no such step again
            multihost_utils.sync_global_devices(f"aside {step}")
        self.manager.reload()

    def _fill(self, step: int) -> None:
        """Fetch the arrays of a checkpoint, where they are read here."""
        if self.mirror and not self.mirror.direct:
            self.mirror.fill(f"checkpoints/{step}")


_MISMATCH = "its checksum does not match its content"


def _shapes(tree) -> list:
    leaves = jax.tree.leaves(tree)
    return sorted((tuple(leaf.shape), str(jnp.dtype(leaf.dtype))) for leaf in leaves)


def _checksums(state: dict) -> dict:
    """Of the parameters, which may be read alone, and of all else."""
    return {"params": checksum(state["params"]), "opt": checksum(_rest(state))}


def _rest(state: dict) -> dict:
    """What is saved beside the parameters."""
    return {name: value for name, value in state.items() if name not in ("step", "params")}


def check_settings(record: Record, meta: dict, folder: Path, allowed: tuple[str, ...] = ()) -> None:
    """Raise ConfigError unless the settings that make a run what it is are those of the record."""
    saved = record.config
    if saved is None or "config" not in meta:
        # Of a revision that kept no more; what it lacks has its default.
        before, now = (
            to_json(from_json({"model": of["model"]}).model) for of in (record.meta, meta)
        )
        _agree(before, now, "model", folder)
        return
    who = f"the checkpoints in {folder} were made"
    check_identity(saved, from_json(meta["config"]), who, allowed=allowed)


def _agree(saved: dict, asked: dict, what: str, folder: Path) -> None:
    if found := differences(saved, asked):
        raise ConfigError(
            f"the checkpoints in {folder} were made with another {what} ({'; '.join(found)}). "
            f"{SAME}"
        )


def _check_format(meta: dict, folder: Path) -> None:
    if (found := meta.get("format", 1)) != FORMAT:
        raise ConfigError(
            f"the checkpoints in {folder} have format {found}, and this version of Octavo reads "
            f"{FORMAT}. Use the version that made them, or choose another --workdir."
        )


def load_params(run: Path, abstract: dict, step: int | None = None) -> tuple[dict, int]:
    """The parameters of a run at a step (None: the newest), laid out like ``abstract``, and their
    step.

    Raises CheckpointError if the run has none that can be read, ConfigError if they have another
    format.
    """
    run = Path(run).absolute()
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run} is no run directory: it has no checkpoints folder.")
    steps = saved_steps(run)
    if not steps:
        raise CheckpointError(f"{run} has no complete checkpoint yet.")
    folder = run / "checkpoints" / str(steps[0] if step is None else step)
    _quiet()
    options = ocp.CheckpointManagerOptions(read_only=True)
    try:
        with _reading(folder), ocp.CheckpointManager(folder.parent, options=options) as manager:
            record = _read_record(folder)
            _check_format(record.meta, folder.parent)
            target = ocp.args.Composite(params=ocp.args.StandardRestore(abstract))
            params = manager.restore(record.step, args=target)["params"]
            if checksum(params) != record.meta["checksums"]["params"]:
                raise Damaged(_MISMATCH)
            return params, record.step
    except Damaged as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}.") from error
