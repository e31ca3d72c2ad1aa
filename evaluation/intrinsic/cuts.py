"""What cuts text: a scheme that needs no training, the tokenizer of a file or a corpus, the units
of a run."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octavo import files
from octavo.configs.checks import ConfigError
from octavo.data.folders import is_corpus
from octavo.data.manifest import read_manifest, tokenizer_of
from octavo.storage import is_url
from octavo.tokenizers import load
from octavo.tokenizers.interface import Tokenizer, TrainedTokenizer


@dataclass(frozen=True)
class Cut:
    """How a document is cut. Of n bytes and t tokens:"""

    ends: np.ndarray
    """Booleans ``[n]``: a token ends with the byte. The last byte ends one."""
    ids: np.ndarray | None = None
    """``[t]``, ids without bytes among them; None: units, which have none."""
    sizes: np.ndarray | None = None
    """``[t]``: bytes that each id stands for."""

    @property
    def tokens(self) -> int:
        return int(self.ends.sum()) if self.ids is None else len(self.ids)


@dataclass(frozen=True)
class Scheme:
    """Something that cuts text, by the name it has in a report."""

    name: str
    cut: Callable[[Sequence[bytes]], list[Cut]]
    tokenizer: Tokenizer | None = None
    """Whose ids are the tokens. None: units, which have neither ids nor a vocabulary."""

    def speed(self, documents: Sequence[bytes]) -> float | None:
        """Megabytes a second that this machine encodes, over documents again and again for at least
        0.2 seconds; None of units, which come of a whole model."""
        if self.tokenizer is None:
            return None
        self.tokenizer.encode(documents[0])  # what is built at first is no part of it
        done, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < 0.2:
            for document in documents:
                self.tokenizer.encode(document)
                done += len(document)
        return done / 1e6 / passed


def sizes_of(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """``[ids]`` int64: how many bytes of a document each of its ids stands for."""
    return _bytes_per_id(tokenizer)[ids].astype(np.int64)


@functools.lru_cache(maxsize=64)
def _bytes_per_id(tokenizer: Tokenizer) -> np.ndarray:
    """Made once: a document is a line, of parallel text."""
    return tokenizer.bytes_per_id()


def cut_by_tokens(tokenizer: Tokenizer, document: bytes) -> Cut:
    """The cut where ids of a document end."""
    ids = tokenizer.encode(document)
    sizes = sizes_of(tokenizer, ids)
    ends = np.zeros(len(document), bool)
    ends[np.cumsum(sizes)[sizes > 0] - 1] = True
    return Cut(ends, ids, sizes)


def cut_by_marks(tokenizer: Tokenizer, document: bytes) -> Cut:
    """The cut where a scheme marks the ends of units among its ids."""
    ids = tokenizer.encode(document)
    stops = np.cumsum(sizes_of(tokenizer, ids))
    marked = stops[ids == tokenizer.vocabulary.unit_mark]
    ends = np.zeros(len(document), bool)
    ends[marked[marked > 0] - 1] = True
    ends[-1:] = True
    return Cut(ends)


def tokens_of(name: str, tokenizer: Tokenizer) -> Scheme:
    return Scheme(name, lambda texts: [cut_by_tokens(tokenizer, x) for x in texts], tokenizer)


def schemes_of(name: str, tokenizer: Tokenizer) -> list[Scheme]:
    """The ids of a tokenizer, and the units that it marks, if it does."""
    found = [tokens_of(name, tokenizer)]
    if tokenizer.vocabulary.unit_mark is not None:
        marks = lambda texts: [cut_by_marks(tokenizer, x) for x in texts]  # noqa: E731
        found.append(Scheme(f"{name}, units", marks))
    return found


def of_run(name: str, path: str) -> list[Scheme]:
    """The units of a run, if its model has some, and its ids, unless they are bytes that units are
    made of. Raises as ``octavo.open_run``."""
    from octavo.run.opened import open_run
    from octavo.run.score import over_bytes

    run = open_run(path)
    tokenizer = run.tokenizer
    if not run.config.model.stages:
        return [tokens_of(name, tokenizer)]

    def cut(documents: Sequence[bytes]) -> list[Cut]:
        encoded = [tokenizer.encode(document) for document in documents]
        found = []
        for ids, one, text in zip(encoded, run.predictions(encoded), documents, strict=True):
            ends = over_bytes(ids, one, tokenizer, len(text)).ends
            ends[-1:] = True
            found.append(Cut(ends))
        return found

    units = Scheme(f"{name}, units", cut)
    return [units] if tokenizer.vocabulary.are_bytes else [tokens_of(name, tokenizer), units]


def named(specs: Sequence[str]) -> list[Scheme]:
    """What a person names: schemes that need no training, tokenizer files, prepared corpora, run
    directories. Raises ConfigError for what is none of them, or named twice; as ``of_run``."""
    names = _names(specs)
    return [scheme for spec, name in zip(specs, names, strict=True) for scheme in _of(spec, name)]


def _names(specs: Sequence[str]) -> list[str]:
    """Short names that tell what is named apart."""
    for spec in specs:
        if specs.count(spec) > 1:
            raise ConfigError(f"--of {spec} is named twice.")
    short = [_short(spec) for spec in specs]
    return [s if short.count(s) == 1 else spec for s, spec in zip(short, specs, strict=True)]


def _short(spec: str) -> str:
    """A scheme as it is, a folder's name, a file's name without its suffix; of a tokenizer.json,
    the folder's."""
    if _is_scheme(spec):
        return spec
    path = Path(spec if is_url(spec) else os.path.realpath(spec))
    if path.name == "tokenizer.json":
        path = path.parent
    return path.name if path.is_dir() or is_url(spec) else path.stem


def _is_scheme(spec: str) -> bool:
    return spec.partition(":")[0] in load.names()


def _of(spec: str, name: str) -> list[Scheme]:
    if _is_scheme(spec):
        return schemes_of(name, _untrained(spec))
    if is_url(spec) or (Path(spec) / "config.json").is_file():
        return of_run(name, spec)
    try:
        if Path(spec).is_dir():
            if not is_corpus(Path(spec)):
                raise ValueError("the folder is neither a run nor a prepared corpus")
            return schemes_of(name, tokenizer_of(spec, read_manifest(Path(spec))))
        if not Path(spec).exists():
            raise ValueError("there is no such file or folder")
        files.check_regular(spec)
        return schemes_of(name, load.load(Path(spec)))
    except (OSError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ConfigError(
            f"--of {spec} is neither a scheme ({', '.join(load.names())}), nor can it be read: "
            f"{reason}."
        ) from error


def _untrained(spec: str) -> Tokenizer:
    """The tokenizer that SCHEME or SCHEME:ARGUMENT names. Raises ConfigError for one that is
    trained, or an argument that is none."""
    scheme, colon, argument = spec.partition(":")
    try:
        found = load.scheme(scheme)
        if issubclass(found, TrainedTokenizer):
            raise ValueError(
                f"{scheme} is trained: prepare a corpus with --tokenizer {spec}, and name its "
                "folder"
            )
        return found.from_argument(argument if colon else None)
    except ValueError as error:
        raise ConfigError(f"--of {spec} names no tokenizer: {error}.") from error
