"""The embedded corpus, prepared once per user, Python version and variant."""

import contextlib
import os
import platform
import shutil
from pathlib import Path

from octavo.data.errors import DataError
from octavo.data.manifest import SPLITS
from octavo.data.marks import SubwordMarks
from octavo.data.prepare import Splitting, prepare
from octavo.data.shards import Corpus, check
from octavo.data.sources import find_units, stdlib_documents
from octavo.files import cache_folder
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.unigram import UnigramTokenizer
from octavo.tokenizers.words import WordTokenizer

VARIANTS = {
    "stdlib": (ByteTokenizer, None),
    "stdlib-words": (WordTokenizer, None),
    "stdlib-unigram": (ByteTokenizer, 5000),
}
"""What ``data.source`` may name: a tokenizer, and the size of a Unigram vocabulary whose subwords
are marked."""


def embedded_corpus(variant: str = "stdlib") -> Path:
    """The prepared folder of the embedded text, made on first use (seconds), and again if it is
    damaged. Raises DataError if the cache folder cannot be written."""
    try:
        folder = _folder(variant)
        if not _usable(folder):
            _make(variant, folder)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"cannot prepare the embedded corpus in this user's cache folder: {error}. Set "
            "XDG_CACHE_HOME to a folder that can be written, or name another --data.source."
        ) from error
    return folder


def _folder(variant: str) -> Path:
    return cache_folder() / _folder_name(variant)


def _folder_name(variant: str) -> str:
    return f"{variant}-{platform.python_version()}-v3"


def name_of(folder: Path) -> str:
    """What ``data.source`` calls a corpus: its variant if it is embedded, else its folder's
    name."""
    names = {_folder_name(variant): variant for variant in VARIANTS}
    return names.get(folder.name) or Path(os.path.abspath(folder)).name


def _usable(folder: Path) -> bool:
    try:
        for split in SPLITS:
            check(folder, Corpus(folder, split).shards)
    except DataError:
        return False
    return True


def _make(variant: str, folder: Path) -> None:
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    damaged = folder.with_name(f"{building.name}.damaged")
    try:
        units = find_units(["stdlib"], "text", None)
        scheme, subwords = VARIANTS[variant]
        tokenizer, mark = scheme(), None
        if subwords:
            mark = SubwordMarks(UnigramTokenizer.train(stdlib_documents(), subwords), tokenizer)
        shutil.rmtree(building, ignore_errors=True)
        by_chance = Splitting(units, 0.05, building, by_chance=True)
        prepare(units, building, tokenizer, heldout=by_chance, processes=1, mark=mark)
        if not _usable(folder):
            with contextlib.suppress(OSError):  # not there, or another process was faster
                folder.rename(damaged)
        try:
            building.rename(folder)
        except OSError:
            if not _usable(folder):  # else another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(damaged, ignore_errors=True)
