"""What a corpus says of itself: its tokenizer, its splits, and the checksum of every shard."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import google_crc32c

from octavo import files
from octavo.data.errors import DataError
from octavo.tokenizers import load as tokenizer_loader
from octavo.tokenizers.interface import Tokenizer

FORMAT = 2
MANIFEST, RECIPE = "manifest.json", "recipe.json"
SplitName = Literal["train", "heldout"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
REMAKE = "Restore it, or delete it and run the same prepare.py command again."
_MOST = 1 << 60


MOST_LABELS = 4096
"""Of a corpus."""


@dataclass(frozen=True)
class Label:
    """What a language or source has in a shard."""

    name: str
    documents: int
    tokens: int
    utf8_bytes: int

    def __post_init__(self):
        _check_counts(self, ("documents", "tokens", "utf8_bytes"))
        if not self.name or len(self.name) > 1000:
            raise ValueError("name is empty, or longer than 1000 characters")


@dataclass(frozen=True)
class Shard:
    """One file of a split, as the manifest lists it."""

    file: str
    size: int
    """Bytes on disk."""
    crc32c: str
    documents: int
    tokens: int
    """Ids, the end of each document included."""
    utf8_bytes: int
    """Bytes of the original text; what bits per byte divide by."""
    labels: tuple[Label, ...] = ()
    """In the order of their numbers beside the documents. Empty: documents have no labels."""

    def __post_init__(self):
        if not re.fullmatch(r"[^./\\\0][^/\\\0]*", self.file):
            raise ValueError(f"file must be a name in this folder, not {self.file!r:.60}")
        if not re.fullmatch("[0-9a-f]{8}", self.crc32c):
            raise ValueError(f"crc32c is 8 hex digits, not {self.crc32c!r:.60}")
        _check_counts(self, ("size", "documents", "tokens", "utf8_bytes"))
        if self.labels:
            for name in ("documents", "tokens", "utf8_bytes"):
                if sum(getattr(label, name) for label in self.labels) != getattr(self, name):
                    raise ValueError(f"labels: their {name} are not those of the shard")


@dataclass(frozen=True)
class Split:
    """The shards of a split, in order, and their sums."""

    documents: int
    tokens: int
    utf8_bytes: int
    shards: tuple[Shard, ...]

    def __post_init__(self):
        _check_counts(self, ("documents", "tokens", "utf8_bytes"))
        for name in ("documents", "tokens", "utf8_bytes"):
            if (found := sum(getattr(shard, name) for shard in self.shards)) != getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)}, but its shards have {found}")

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> "Split":
        shards = tuple(shards)
        return cls(
            documents=sum(shard.documents for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
            utf8_bytes=sum(shard.utf8_bytes for shard in shards),
            shards=shards,
        )


@dataclass(frozen=True)
class Manifest:
    """Written last: with it, a corpus is finished."""

    format: int
    tokenizer: dict[str, Any]
    """As its ``to_json`` gives it."""
    tokenizer_fingerprint: str
    dtype: Literal["uint8", "uint16", "uint32"]
    marks: dict[str, Any] | None
    """What the marks are: ``kind`` "entropy" or "subwords", and how they were made."""
    source: dict[str, Any]
    """The recipe: what the shards depend on."""
    splits: dict[SplitName, Split]
    checksum: str | None = None
    """CRC-32C of all the rest. None: written by an older revision."""

    def __post_init__(self):
        if self.marks is not None and self.marks.get("kind") not in ("entropy", "subwords"):
            raise ValueError(f"marks.kind is {self.marks.get('kind')!r:.60}, unknown here")
        names = [shard.file for split in self.splits.values() for shard in split.shards]
        if len(set(names)) < len(names):
            raise ValueError("splits: a shard is listed twice")
        if self.checksum not in (None, self.own_checksum()):
            raise ValueError("the checksum differs from what is listed: it was changed by hand")

    def own_checksum(self) -> str:
        rest = self.to_json() | {"checksum": None}
        return f"{google_crc32c.value(files.json_text(rest).encode()):08x}"

    def to_json(self) -> dict[str, Any]:
        """As it is written. What has no labels is written as it was before there were any."""

        def shard_of(shard: Shard) -> dict:
            labels = {"labels": [vars(label) for label in shard.labels]} if shard.labels else {}
            return {name: vars(shard)[name] for name in vars(shard) if name != "labels"} | labels

        # A large corpus has many shards: dataclasses.asdict would copy each value deeply.
        splits = {
            name: vars(split) | {"shards": [shard_of(shard) for shard in split.shards]}
            for name, split in self.splits.items()
        }
        return vars(self) | {"splits": splits}


def by_label(shards: Iterable[Shard]) -> dict[str | None, tuple[int, int]]:
    """(documents, UTF-8 bytes) of each label; None: of what has none."""
    found: dict[str | None, tuple[int, int]] = {}
    for shard in shards:
        parts = [(label.name, label.documents, label.utf8_bytes) for label in shard.labels]
        for name, more, size in parts or [(None, shard.documents, shard.utf8_bytes)]:
            documents, utf8_bytes = found.get(name, (0, 0))
            found[name] = documents + more, utf8_bytes + size
    return found


def _check_counts(counts: Label | Shard | Split, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= (value := getattr(counts, name)) < _MOST:
            raise ValueError(f"{name} is {value}, outside 0 to {_MOST}")
    if counts.tokens < counts.documents:
        raise ValueError(f"tokens is {counts.tokens}, fewer than {counts.documents} documents")
    if counts.tokens > counts.documents and not counts.utf8_bytes:
        raise ValueError(f"utf8_bytes is 0, but tokens is {counts.tokens}")


def write_manifest(
    folder: Path,
    tokenizer: Tokenizer,
    splits: dict[SplitName, list[Shard]],
    source: dict,
    marks: dict | None,
) -> None:
    """Close a corpus: from here on it can be opened. marks: what the marks are, if it has any."""
    manifest = Manifest(
        format=FORMAT,
        tokenizer=tokenizer.to_json(),
        tokenizer_fingerprint=tokenizer.fingerprint,
        dtype=tokenizer.dtype.name,  # pyright: ignore[reportArgumentType]
        marks=marks,
        source=source,
        splits={name: Split.of(shards) for name, shards in splits.items()},
    )
    manifest = dataclasses.replace(manifest, checksum=manifest.own_checksum())
    files.write_json(folder / MANIFEST, manifest.to_json())


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a finished corpus. Raises DataError if there is none, or it is damaged."""
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        started = (folder / RECIPE).is_file() or any(folder.glob("*.array_record*"))
        why = (
            "was not finished: run the same prepare.py command again, it continues"
            if started
            else "is not a prepared corpus: make one with python prepare.py SOURCE --out DIR"
        )
        raise DataError(f"{folder} {why}.")
    data = path.read_bytes()
    told = {"name": str(path), "error": DataError, "advice": REMAKE}
    version = files.parse_json(data, dict[str, Any], **told).get("format", FORMAT)
    if version != FORMAT:
        raise DataError(
            f"{folder} has format {version!r:.60}, this version reads {FORMAT}; prepare it again."
        )
    return files.parse_json(data, Manifest, **told)


def tokenizer_of(folder: str | Path, manifest: Manifest) -> Tokenizer:
    """The tokenizer that a manifest holds. Raises DataError if it is none, or is not the one whose
    ids the manifest describes."""
    wrong = f"{Path(folder) / MANIFEST} is damaged, or of another version: "
    try:
        tokenizer = tokenizer_loader.from_json(manifest.tokenizer)
    except ValueError as error:
        raise DataError(f"{wrong}tokenizer: {error}. {REMAKE}") from error
    for field, told, found in (
        ("tokenizer_fingerprint", manifest.tokenizer_fingerprint, tokenizer.fingerprint),
        ("dtype", manifest.dtype, tokenizer.dtype.name),
    ):
        if told != found:
            raise DataError(
                f"{wrong}{field} is {told!r:.60}, but that of its tokenizer is {found!r}. {REMAKE}"
            )
    longest = int(tokenizer.bytes_per_id().max())
    for name, split in manifest.splits.items():
        if split.utf8_bytes > longest * (split.tokens - split.documents):
            raise DataError(
                f"{wrong}splits.{name}.utf8_bytes is {split.utf8_bytes}, more than its tokens can "
                f"stand for. {REMAKE}"
            )
    return tokenizer
