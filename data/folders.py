"""The files of a folder that are its text, and what is left out of it, and why."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from octavo.data.errors import DataError
from octavo.data.formats import Look, look, special
from octavo.data.manifest import MANIFEST, RECIPE

_ABOUT = re.compile(r"(readme|licen[cs]e|notice|citation|changelog)\b.*", re.IGNORECASE)
"""Files that tell of a data set and are none of it."""
_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
_OF_SPLIT = re.compile(
    rf"(.*[-_.])?({'|'.join(_SPLITS)})([-_.]\d+([-_]of[-_]\d+)?)?(\.[a-z0-9]+)*", re.IGNORECASE
)
"""Names as datasets have them: test.jsonl, c4-validation.00000-of-00008.json.gz."""


@dataclass
class Survey:
    """What a search for text found."""

    read: Counter = field(default_factory=Counter)
    """Files by kind."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """What was left out: a sentence that says why, and the kind it is counted as."""
    notes: list[str] = field(default_factory=list)
    """What was read in a way that its name does not say."""

    def counted(self) -> Counter:
        """What was left out, by kind."""
        return Counter(kind for _, kind in self.left_out)

    def leave(self, path: str | Path, why: str, short: str) -> None:
        self.left_out.append((f"{path} {why}.", short))


def is_corpus(folder: Path) -> bool:
    """A prepared corpus, finished or not."""
    for name in (MANIFEST, RECIPE):
        if (folder / name).is_file():
            if any(folder.glob("*.array_record*")):
                return True
            with open(folder / name, "rb") as file:
                return b'"tokenizer"' in file.read(4096)
    return False


def files_in(folder: Path, survey: Survey) -> list[Path]:
    """All files below a folder, in the order of their paths. Linked folders and files are followed,
    and none is read twice. What is hidden is left out, and so are corpora.

    Raises OSError for a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    linked_folders: list[Path] = []
    linked_files: list[Path] = []
    waiting = [folder]
    while waiting or linked_folders:
        # What lies in the folder itself first: a link to it is the second reading.
        here = (waiting or linked_folders).pop(0)
        at = here.stat()
        if (at.st_dev, at.st_ino) in seen:
            survey.leave(here, "is a link to a folder that is read already", "a link, read once")
            continue
        seen.add((at.st_dev, at.st_ino))
        if here != folder and is_corpus(here):
            survey.leave(here, "is a prepared corpus: name it as a source of its own", "a corpus")
            continue
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                _sort(Path(here, entry.name), found, waiting, linked_files, linked_folders, survey)
    inside = {(s.st_dev, s.st_ino) for s in map(os.stat, found)} if linked_files else set()
    for path in linked_files:
        s = path.stat()
        if (s.st_dev, s.st_ino) in inside:
            survey.leave(path, "is a link to a file that is read already", "a link, read once")
        else:
            inside.add((s.st_dev, s.st_ino))
            found.append(path)
    return sorted(found)


def _sort(path: Path, found, waiting, linked_files, linked_folders, survey: Survey) -> None:
    if path.name.startswith("."):
        survey.leave(path, "is hidden", "hidden")
    elif path.is_symlink() and not path.exists():
        survey.leave(path, "is a link to nothing", "a link to nothing")
    elif path.is_dir():
        (linked_folders if path.is_symlink() else waiting).append(path)
    elif what := special(path):
        survey.leave(path, f"is {what}, not a file", what)
    else:
        (linked_files if path.is_symlink() else found).append(path)


def sorted_out(files: list[Path], text_field: str, survey: Survey) -> list[tuple[Path, Look]]:
    """Those of a folder's files that are text, or hold records with text, and what each is."""
    looked: list[tuple[Path, Look]] = []
    for path in files:
        try:
            seen = look(path, text_field)
        except DataError as error:
            survey.left_out.append((str(error), "damaged"))
            continue
        if not seen.kind:
            survey.leave(path, seen.why, seen.short)
        elif seen.records is False and (seen.single or not seen.by_name):
            why = f"is JSON without text in field {text_field!r} (see --text-field)"
            survey.leave(path, why, "JSON without text")
        else:
            looked.append((path, seen))
    others = _other_splits([path for path, _ in looked])
    for path, split in others.items():
        why = f"is of the split {split}, and train lies beside it: name it as a source to read it"
        survey.leave(path, why, "another split")
    looked = [(path, seen) for path, seen in looked if path not in others]
    if all(seen.kind == "text" for _, seen in looked):
        return looked
    about = {path for path, seen in looked if seen.kind == "text" and _ABOUT.match(path.name)}
    for path in sorted(about):
        survey.leave(path, "lies beside records of text and tells about them", "about the data")
    return [(path, seen) for path, seen in looked if path not in about]


def _other_splits(paths: list[Path]) -> dict[Path, str]:
    """Which files are of a split beside which train lies, by their names or those of folders, and
    of which one: what others score on is not trained on."""
    trains, found = set(), {}
    for path in paths:
        places = [
            (path.parts[:i], name.lower())
            for i, name in enumerate(path.parts[:-1])
            if name.lower() in _SPLITS
        ]
        if named := _OF_SPLIT.fullmatch(path.name):
            places.append(((*path.parts[:-1], named[1]), named[2].lower()))
        trains |= {place for place, split in places if split == "train"}
        found[path] = [(place, split) for place, split in places if split != "train"]
    return {
        path: split for path, places in found.items() for place, split in places if place in trains
    }
