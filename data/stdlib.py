"""The embedded corpus, prepared once per user, Python version and variant."""

import os
import platform
import shutil
from pathlib import Path

from octavo.data.errors import DataError
from octavo.data.marks import SubwordMarks
from octavo.data.prepare import prepare
from octavo.data.shards import MANIFEST
from octavo.data.sources import find_units, stdlib_documents
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
    """The prepared folder of the embedded text, made on first use (seconds). Raises DataError if
    the cache folder cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo"
    folder = cache / f"{variant}-{platform.python_version()}-v3"
    if (folder / MANIFEST).exists():
        return folder
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        units = find_units(["stdlib"], "text", None)
        scheme, subwords = VARIANTS[variant]
        tokenizer, mark = scheme(), None
        if subwords:
            mark = SubwordMarks(UnigramTokenizer.train(stdlib_documents(), subwords), tokenizer)
        prepare(units, building, tokenizer, heldout=0.05, processes=1, mark=mark)
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
