"""Checkpoints with Orbax: asynchronous, the newest few kept, params / opt / data / meta apart.

A checkpoint is complete or ignored (Orbax renames it into place), and its arrays carry a checksum
computed on the devices, so a damaged one is noticed and the one before it is used.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import lax

from octavo.configs.schema import ConfigError
from octavo.training.errors import CheckpointError

FORMAT = 2
"""Of checkpoints. Format 1 had one checksum for all."""


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


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, workdir: Path, keep: int):
        # A failed save is logged once per thread, with tracebacks; we report it, once.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.folder = Path(workdir).absolute() / "checkpoints"
        self.manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        )

    def save(self, state: dict, data: dict, meta: dict) -> None:
        """Begin to save; the state may be donated as soon as this returns. Raises CheckpointError
        if this or the save before it fails."""
        step = int(state["step"])
        rest = _rest(state)
        meta = meta | {"format": FORMAT, "checksums": _checksums(state)}
        save = ocp.args.Composite(
            params=ocp.args.StandardSave(state["params"]),
            opt=ocp.args.StandardSave(rest),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(meta),
        )
        self._report(lambda: self.manager.save(step, args=save))

    def wait(self) -> None:
        """Until the newest save is on disk. Raises CheckpointError if it failed."""
        self._report(self.manager.wait_until_finished)

    def close(self) -> None:
        self.manager.close()

    def _report(self, action: Callable) -> None:
        try:
            action()
        except Exception as error:  # Orbax and TensorStore raise whatever the storage gave
            kept = ", ".join(map(str, self.manager.all_steps())) or "none"
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"saving a checkpoint to {self.folder} failed: {reason}. Complete checkpoints "
                f"there: {kept}. Free space or mend the storage, then run the same command again."
            ) from error

    def restore(
        self, abstract: dict, data: dict, meta: dict, warn: Callable[[str], None]
    ) -> dict | None:
        """The newest state that can be read, laid out like ``abstract``; None if there is none.

        Raises ConfigError if it has another model, data plan or format, CheckpointError if there
        are checkpoints but none can be read. A damaged one is set aside as ``STEP.damaged``.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            try:
                saved = self.manager.restore(step, args=ocp.args.Composite(data=_JSON, meta=_JSON))
                _check_format(saved["meta"], self.folder)
                _agree(saved["meta"]["model"], meta["model"], "model", self.folder)
                _agree(saved["data"], data, "data plan", self.folder)
                state = self._read(step, abstract)
                if _checksums(state) != saved["meta"]["checksums"]:
                    raise CheckpointError(_DAMAGED)
                return state
            except ConfigError:
                raise
            except Exception as error:  # whatever damage makes of reading it
                reason = (str(error).strip().splitlines() or [repr(error)])[0][:300]
                warn(f"checkpoint {self.folder / str(step)} cannot be read ({reason}); set aside.")
                self._set_aside(step)
        if steps:
            raise CheckpointError(
                f"none of the checkpoints in {self.folder} can be read; they are kept as "
                "*.damaged. Start again with another --workdir."
            )
        return None

    def _read(self, step: int, abstract: dict) -> dict:
        rest = _rest(abstract)
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(abstract["params"]),
            opt=ocp.args.StandardRestore(rest),
        )
        read = self.manager.restore(step, args=items)
        counter = jax.device_put(jnp.asarray(step, jnp.int32), abstract["step"].sharding)
        return {"step": counter, "params": read["params"], **read["opt"]}

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            aside = self.folder / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        self.manager.reload()


_JSON = ocp.args.JsonRestore()
_DAMAGED = "its checksum does not match its content"


def _checksums(state: dict) -> dict:
    """Of the parameters, which may be read alone, and of all else."""
    return {"params": checksum(state["params"]), "opt": checksum(_rest(state))}


def _rest(state: dict) -> dict:
    """What is saved beside the parameters."""
    return {name: value for name, value in state.items() if name not in ("step", "params")}


def differences(saved: dict, asked: dict, prefix: str = "") -> list[str]:
    """Every value of two nested dicts that is not the same, as text."""
    found = []
    for key in saved | asked:
        old, new = saved.get(key, "nothing"), asked.get(key, "nothing")
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: saved {old!r}, asked for {new!r}")
    return found


def _agree(saved: dict, asked: dict, what: str, folder: Path) -> None:
    if found := differences(saved, asked):
        raise ConfigError(
            f"the checkpoints in {folder} were made with another {what} ({'; '.join(found)}). Ask "
            "for the same, or choose another --workdir."
        )


def _check_format(meta: dict, folder: Path) -> None:
    if (found := meta.get("format", 1)) != FORMAT:
        raise ConfigError(
            f"the checkpoints in {folder} have format {found}, and this version of Octavo reads "
            f"{FORMAT}. Use the version that made them, or choose another --workdir."
        )


def load_params(run: Path, abstract: dict) -> tuple[dict, int]:
    """The newest parameters of a run, laid out like ``abstract``, and their step.

    Raises CheckpointError if the run has none that can be read, ConfigError if they have another
    format.
    """
    folder = Path(run).absolute() / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{run} is no run directory: it has no checkpoints folder.")
    with ocp.CheckpointManager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"{run} has no complete checkpoint yet.")
        try:
            meta = manager.restore(step, args=ocp.args.Composite(meta=_JSON))["meta"]
            _check_format(meta, folder)
            target = ocp.args.Composite(params=ocp.args.StandardRestore(abstract))
            params = manager.restore(step, args=target)["params"]
            if checksum(params) != meta["checksums"]["params"]:
                raise CheckpointError(_DAMAGED)
            return params, step
        except ConfigError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"checkpoint {folder / str(step)}: {reason}.") from error
