"""The text of a study: the same for every arm, in the ids that each arm reads."""

import contextlib
import hashlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo import files, process, storage
from octavo.ablation.claims import Claims
from octavo.ablation.study import Arm, Study
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.data.errors import DataError
from octavo.data.heldout import Held, heldout_documents
from octavo.data.manifest import MANIFEST, read_manifest, tokenizer_of
from octavo.data.pipeline import folders_of, parse_source
from octavo.data.shards import Corpus
from octavo.data.stdlib import embedded_corpus
from octavo.evaluation.measures.words import frequencies
from octavo.locks import InUse
from octavo.model.check import ends_at_marks, reads_marks, reads_unit_marks
from octavo.run.marks import commands_for
from octavo.tokenizers.unicode.scripts import main_script

PREPARE = Path(__file__).parents[1] / "prepare.py"
SUBWORDS = "unigram:5000"
"""Of a model whose units end where subwords do."""
SAMPLED = 256
"""Documents of a training text that are compared, evenly spaced."""
MOST_COUNTED = 1 << 30
"""Bytes of training text in which words are counted."""


@dataclass(frozen=True)
class Wanted:
    """The corpus that an arm reads, made of the text of the study."""

    tokenizer: str
    marks: str | None

    @property
    def name(self) -> str:
        """Of its folder: another for other content of a file of the same name."""
        parts = [self.tokenizer, *([f"marks-{self.marks}"] if self.marks else [])]
        name = "-".join(Path(part).name.replace(":", "") for part in parts)
        name = re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).lstrip(".") or "other"
        if Path(self.tokenizer).is_file():
            name += f"-{hashlib.sha256(files.read(self.tokenizer)).hexdigest()[:8]}"
        return name


def source_of(arm: Arm, model: ModelConfig, study: Study, out: str) -> str | None:
    """What ``data.source`` is for an arm that names none; None: as its preset says. The corpus is
    made if it is not there. Raises ConfigError or DataError if it cannot be."""
    if arm.tokenizer is None and not study.data:
        return None
    marks = None
    if ends_at_marks(model):
        raise ConfigError(
            f"{arm.name} needs text that a small model marked, which a study does not train: make "
            f"it with {commands_for(model)}, and name it in the arm: --data.source DIR."
        )
    if reads_marks(model):
        marks = SUBWORDS
    of_words = reads_unit_marks(model)
    wanted = Wanted(arm.tokenizer or ("words" if of_words else "bytes"), marks)
    base = _base(study, out)
    if wanted == Wanted("bytes", None) and _of_bytes(base):
        return base
    return made([base], f"{out}/corpora/{wanted.name}", wanted)


def _base(study: Study, out: str) -> str:
    """The prepared folder that all others are made of."""
    if not study.data:
        return str(embedded_corpus())
    if len(study.data) == 1 and _prepared(study.data[0]):
        return study.data[0]
    return made(list(study.data), f"{out}/corpora/bytes", Wanted("bytes", None))


def _prepared(name: str) -> bool:
    if storage.is_url(name):
        return MANIFEST in storage.listed(name)
    return (Path(name) / MANIFEST).is_file()


def _of_bytes(folder: str) -> bool:
    (here,) = folders_of(folder)
    manifest = read_manifest(here)
    return tokenizer_of(here, manifest).name == "bytes" and not manifest.marks


def made(sources: list[str], folder: str, wanted: Wanted) -> str:
    """A corpus, made by prepare.py unless it is there. Raises ConfigError if that fails, or what is
    there was made of other text."""
    note, of = f"{folder}.json", [_state(source) for source in sources]
    if _prepared(folder):
        if (before := _noted(note)) not in (None, of):
            raise ConfigError(
                f"{folder} was made of other text: of {_listed(before)}, and now it is "
                f"{_listed(of)}. Name another --out, or remove {folder} to make it anew."
            )
        return folder
    command = [*sources, "--out", folder, "--tokenizer", wanted.tokenizer]
    command += ["--marks", wanted.marks] if wanted.marks else []
    with _alone(folder):
        if _prepared(folder):  # by another process, just now
            return made(sources, folder, wanted)
        if not storage.is_url(note):
            Path(note).parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(note, of)
        print(f"python prepare.py {shlex.join(command)}", flush=True)
        script = [sys.executable, str(PREPARE), *command]
        if subprocess.run(script, env=process.with_starter()).returncode:
            raise ConfigError(f"{folder} could not be made, as prepare.py says above.")
    return folder


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Wait until no other process makes the corpus, on this machine or another."""
    where, _, name = folder.rpartition("/")
    claims, told = Claims(where or "."), False
    with contextlib.ExitStack() as stack:
        while True:
            if (other := claims.held(name)) is None:
                with contextlib.suppress(InUse):
                    stack.enter_context(claims.of(name))
                    break
            elif not told:
                print(f"waiting for {folder}, which {other} makes", flush=True)
                told = True
            time.sleep(0.5)
        yield


def _state(source: str) -> list:
    """What tells a text from another: its name, and a checksum or how many bytes it has."""
    if _prepared(source):
        (here,) = folders_of(source)
        return [source, read_manifest(here).own_checksum()]
    if storage.is_url(source):
        return [source, sum(storage.listed(source).values())]
    path = Path(source)
    within = path.rglob("*") if path.is_dir() else [path]
    return [source, sum(one.stat().st_size for one in within if one.is_file())]


def _noted(note: str) -> Any:
    """What a corpus was made of; None where that is not known."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(storage.read(note) if storage.is_url(note) else files.read(note))
    return None


def _listed(of: list) -> str:
    return ", ".join(f"{name} ({about})" for name, about in of)


@dataclass(frozen=True)
class Text:
    """What an arm is trained on and scored by, whatever its ids."""

    train: tuple
    """Of each corpus: documents, bytes, a checksum over some of them, and its share in what is
    drawn."""
    held: tuple[str, ...]
    """SHA-256 of each document that is scored."""

    @classmethod
    def of(cls, source: str, most: int) -> "Text":
        """most: bytes of held-out text that are scored of each corpus. Raises DataError."""
        parts = parse_source(source)
        corpora = [Corpus(folder) for folder, _ in parts]
        held = heldout_documents(corpora, most)
        whole = sum(weight for _, weight in parts)
        train = (
            (*_summary(corpus), round(weight / whole, 6))
            for corpus, (_, weight) in zip(corpora, parts, strict=True)
        )
        return cls(tuple(train), tuple(_sha(one.text) for one in held))


def _sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _summary(corpus: Corpus) -> tuple[int, int, str]:
    count = corpus.documents
    digest = hashlib.sha256()
    for i in sorted({i * count // SAMPLED for i in range(SAMPLED)}) if count else ():
        (document,) = corpus.documents_in(i, i + 1)
        digest.update(hashlib.sha256(bytes(document)).digest())
    return count, corpus.utf8_bytes, digest.hexdigest()


def check_equal(sources: dict[str, str], baseline: str, study: Study) -> None:
    """Raise ConfigError, naming the arm and the difference, unless all arms are trained on the same
    text and score the same, or the difference was asked for. sources: ``data.source`` by arm."""
    texts = {source: Text.of(source, study.heldout_bytes) for source in set(sources.values())}
    first = texts[sources[baseline]]
    if not first.held:
        raise DataError(f"{sources[baseline]}: no text was held out, so there is nothing to score.")
    for arm, source in sources.items():
        text = texts[source]
        if text.held != first.held and "heldout" not in study.allow:
            differ = sum(a != b for a, b in zip(text.held, first.held, strict=False))
            differ += abs(len(text.held) - len(first.held))
            raise ConfigError(
                f"{arm} holds out other text ({source}) than {baseline} ({sources[baseline]}): "
                f"{differ} of {max(len(text.held), len(first.held))} documents differ. Make both "
                "of one corpus (prepare.py CORPUS --tokenizer ...), or score all on the text of "
                f"{baseline} with --allow {','.join((*study.allow, 'heldout'))}."
            )
        if text.train != first.train and "text" not in study.allow:
            raise ConfigError(
                f"{arm} is trained on other text ({source}: {_told(text)}) than {baseline} "
                f"({sources[baseline]}: {_told(first)}). Make both of one corpus (prepare.py "
                "CORPUS --tokenizer ...), or compare them anyway with --allow "
                f"{','.join((*study.allow, 'text'))}."
            )


def _told(text: Text) -> str:
    documents, size = (sum(part[i] for part in text.train) for i in (0, 1))
    shares = ":".join(f"{part[3]:g}" for part in text.train)
    return (
        f"{documents:,} documents, {size:,} bytes, checksum {text.train[0][2][:8]}"
        + f", in shares of {shares}" * (len(text.train) > 1)
    )


def scored(source: str, most: int) -> list[Held]:
    """The documents that every arm is scored on."""
    return heldout_documents([Corpus(folder) for folder, _ in parse_source(source)], most)


def text_json(source: str, most: int) -> dict[str, Any]:
    """What text.json says of the scored documents, and how often their words occur in the training
    text."""
    held = scored(source, most)
    wanted = set(frequencies(one.text for one in held))
    counts: Counter = Counter()
    for folder, _ in parse_source(source):
        left = MOST_COUNTED
        for document in Corpus(folder).documents_in(0):
            found = frequencies([bytes(document)])
            counts.update({word: found[word] for word in wanted & found.keys()})
            left -= len(document)
            if left < 0:
                break
    documents = [
        {
            "sha256": _sha(one.text), "bytes": len(one.text), "label": one.label,
            "corpus": one.corpus, "script": main_script(one.text),
        }
        for one in held
    ]  # fmt: skip
    every = "".join(one["sha256"] for one in documents)
    words = {word.decode("utf-8", "surrogateescape"): counts[word] for word in sorted(wanted)}
    return {
        "fingerprint": _sha(every.encode())[:16],
        "source": source,
        "documents": documents,
        "words": words,
    }


def told(text: dict[str, Any]) -> dict[str, Any]:
    """What study.json says of the text that text.json is of."""
    documents = text["documents"]
    return {
        "source": text["source"], "documents": len(documents),
        "bytes": sum(one["bytes"] for one in documents), "fingerprint": text["fingerprint"],
    }  # fmt: skip
