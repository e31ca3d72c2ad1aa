"""Labels of documents: the language or source that their file is of, by its name or its folder."""

import os
import re
from collections.abc import Callable
from pathlib import Path

MOST_LABELS = 64
"""So many labels are taken from names of files; where there would be more, they are coarser."""
_SUFFIX = re.compile(
    r"(\.(txt|text|md|rst|jsonl?|ndjson|jsonlines|parquet|arrow|csv|tsv|html?|xml)"
    r"|\.(gz|gzip|zst|zstd|bz2|xz))$",
    re.IGNORECASE,
)
_PART = re.compile(r"[-._]?\d+[-_]of[-_]\d+$")
"""Of a file that is a part of several: train-00000-of-00042."""
_NUMBER = re.compile(r"[-._]?(part[-._]?)?\d[\d_]*$")


def labels_of(files: list[str], by: str | None) -> dict[str, str]:
    """The label of each file.

    by: "file", its name without suffixes and the number of a part; "folder", the first folder in
    which the files differ. None: the name, with folders where the name would not tell files
    apart; beyond ``MOST_LABELS`` of them without numbers, then by folder, then one for all.
    """
    return {file: clean(label) for file, label in _labels_of(files, by).items()}


def _labels_of(files: list[str], by: str | None) -> dict[str, str]:
    if not files:
        return {}
    if by == "file":
        return {file: stem(file) for file in files}
    common = os.path.commonpath([os.path.abspath(Path(file).parent) for file in files])
    if by == "folder":
        return {file: _first_folder(file, common) for file in files}

    def within(file: str) -> str:
        """Its folders below what all have in common."""
        return os.path.relpath(Path(os.path.abspath(file)).parent, common)

    paths = {file: (*Path(within(file)).parts, stem(file)) for file in files}
    # Where all lie as deep, what is the same for all tells nothing.
    same = set()
    if len({*map(len, paths.values())}) == 1:
        same = {
            i for i, names in enumerate(zip(*paths.values(), strict=True)) if len({*names}) == 1
        }

    def path(file: str) -> str:
        return "/".join(name for i, name in enumerate(paths[file]) if i not in same)

    kinds: tuple[Callable[[str], str], ...] = (
        stem if len({*map(stem, files)}) == len({*paths.values()}) else path,
        lambda file: os.path.normpath(f"{within(file)}/{_NUMBER.sub('', stem(file))}"),
        within,
        lambda file: _first_folder(file, common),
    )
    own = Path(common).name or "all"
    for kind in kinds:
        found = {file: kind(file) for file in files}
        if len({*found.values()}) <= MOST_LABELS:
            return {file: own if label in ("", ".") else label for file, label in found.items()}
    return dict.fromkeys(files, own)


def stem(file: str) -> str:
    """The name of a file without what says its format, and which part of several it is."""
    name = Path(file).name
    while (shorter := _SUFFIX.sub("", name)) != name and shorter:
        name = shorter
    return _PART.sub("", name) or name


def _first_folder(file: str, common: str) -> str:
    parts = Path(os.path.relpath(Path(os.path.abspath(file)).parent, common)).parts
    return parts[0] if parts else Path(common).name or "all"


def clean(label: str) -> str:
    """A label in one short printable line, without the brackets in which data.source names it."""
    line = "".join(c if c.isprintable() else " " for c in label.translate(_BRACKETS))
    return line.strip()[:100].rstrip() or "none"


_BRACKETS = str.maketrans("[]", "()")
