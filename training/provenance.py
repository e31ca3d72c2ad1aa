"""What a run was made with: data, versions, machine and command."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from octavo.files import shown
from octavo.run.versions import versions
from octavo.training.trainer import Trainer


def provenance(trainer: Trainer) -> dict[str, Any]:
    """The part of results.json that is known at the start."""
    found = versions()
    commit, changed = commit_of(Path(__file__).parents[1])
    return {
        "preset": trainer.config.preset,
        "parameters": trainer.definition.parameters,
        "seed": trainer.config.train.seed,
        "tokenizer": trainer.tokenizer.name,
        "data": [
            {
                "folder": shown(str(c.folder)),
                **({"label": c.label} if c.label else {}),
                "fingerprint": c.fingerprint,
                "bytes": c.utf8_bytes,
            }
            for c in trainer.plan.corpora
        ],
        "origin": trainer.origin,
        "device": str(trainer.mesh.devices.flat[0].device_kind),
        "devices": trainer.mesh.size,
        "hosts": jax.process_count(),
        "commit": commit,
        "commit_changed": changed,
        "revision": found.get("octavo"),
        "versions": found,
        "command": shlex.join(sys.argv),
    }


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """The commit of the git checkout that ``folder`` is the root of, and whether files differ from
    it; None and None if it is no checkout, or git is not there to ask."""
    if not (folder / ".git").exists():
        return None, None

    def ask(*arguments: str) -> str:
        asked = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "-uno"))
    except (OSError, subprocess.SubprocessError):
        return None, None
