"""The embedded corpus, prepared once per user and Python version."""

import os
import platform
import shutil
from pathlib import Path

from octavo.data.errors import DataError
from octavo.data.prepare import prepare
from octavo.data.shards import MANIFEST
from octavo.data.sources import find_units
from octavo.tokenizers.bytes import ByteTokenizer


def embedded_corpus() -> Path:
    """The prepared folder of the embedded text, made on first use (seconds). Raises DataError if
    the cache folder cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo"
    folder = cache / f"stdlib-{platform.python_version()}-bytes-v1"
    if (folder / MANIFEST).exists():
        return folder
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        units = find_units(["stdlib"], "text", None)
        prepare(units, building, ByteTokenizer(), heldout=0.05, processes=1)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / MANIFEST).exists():  # else another process was faster
                raise
    except OSError as error:
        raise DataError(f"cannot prepare the embedded corpus in {cache}: {error}.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
