"""Tasks that lie in files, in the layout in which they are published: KIND:PATH.

``cute:DIR`` (Edman et al. 2024, 2409.15452) and ``execute:DIR`` (2505.17784): a file for each task,
or a folder with several, of rows with ``prompt`` and ``answer`` (.jsonl, .json, .csv, .parquet).
``blimp:DIR`` (Warstadt et al. 2020, 1912.00582): a .jsonl file for each paradigm, of rows with
``sentence_good`` and ``sentence_bad``. ``lambada:FILE`` (Paperno et al. 2016, 1606.06031): a .jsonl
file of rows with ``text``.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from octavo.configs.checks import ConfigError
from octavo.evaluation.bytetasks.asking import share
from octavo.files import reason

Rows = list[dict]
Groups = dict[str, Rows]
"""Rows of each task or paradigm, by name."""

ENDINGS = ".jsonl", ".json", ".csv", ".parquet"
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")


def read(name: str, columns: tuple[str, ...]) -> Groups:
    """What lies at the path of a name: of a folder all files in it, by where they are; of a file
    that file. Raises ConfigError if there is nothing, or a row lacks a column."""
    kind, _, path = name.partition(":")
    place = Path(path)
    if not path or not place.exists():
        raise ConfigError(f"--tasks {name}: there is no {path or 'path'!r}; give {kind}:PATH.")
    files = [place]
    if place.is_dir():
        files = sorted(each for each in place.rglob("*") if each.suffix in ENDINGS)
    if not files or files[0].suffix not in ENDINGS:
        raise ConfigError(f"--tasks {name}: there is no file that ends in {', '.join(ENDINGS)}.")
    groups: Groups = {}
    for file in files:
        for number, row in enumerate(_rows(file), 1):
            for column in columns:
                if not isinstance(row, dict) or not isinstance(row.get(column), str):
                    raise ConfigError(f"{file} is no file of {kind}: row {number} has no {column}.")
            groups.setdefault(_task(file, place), []).append(row)
    if not groups:
        raise ConfigError(f"--tasks {name}: no file there has a row.")
    return groups


def _task(file: Path, place: Path) -> str:
    """The name of a file, without the number of a part, behind those of its folders."""
    parts = [] if file == place else list(file.relative_to(place).parts[:-1])
    stem = _SPLIT.sub("", file.name.removesuffix(file.suffix))
    return "/".join([*(part for part in parts if part != "data"), stem])


def _rows(file: Path) -> Iterator:
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as parquet

            yield from parquet.read_table(file).to_pylist()
        elif file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as text:
                yield from csv.DictReader(text)
        else:
            text = file.read_text("utf-8")
            whole = file.suffix == ".json" and text.lstrip().startswith("[")
            lines = (line for line in text.split("\n") if line.strip())
            yield from json.loads(text) if whole else map(json.loads, lines)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read: {reason(error)}.") from error


def _every(groups: Groups) -> Rows:
    return [row for each in groups.values() for row in each]


def paired(run, name: str, groups: Groups, **scoring) -> list[dict]:
    """Of each paradigm and of all, how often the good sentence costs less than the bad one, each as
    the beginning of a document (its end is not asked for); half a point where they cost the
    same."""
    rows = _every(groups)
    pairs = [("", row[key]) for row in rows for key in ("sentence_good", "sentence_bad")]
    nats = np.array([one.nats for one in run.costs(pairs, **scoring)]).reshape(-1, 2)
    right = (nats[:, 0] < nats[:, 1]) + 0.5 * (nats[:, 0] == nats[:, 1])
    return list(_told(name, groups, right, 0.5))


def prompted(run, name: str, groups: Groups, **scoring) -> list[dict]:
    """Of each task and of all, how often greedy decoding gives the answer behind the prompt, in
    quotation marks, as the examples of the prompt have it. Prompts may begin the answer or not."""
    rows = _every(groups)
    found = run.costs([_answering(row) for row in rows], **scoring)
    return list(_told(name, groups, np.array([one.greedy for one in found], float), None))


def _answering(row: dict) -> tuple[str, str]:
    prompt, answer = row["prompt"].rstrip(), row["answer"].strip().strip('"')
    if re.search(r'Answer: *"$', prompt):
        return prompt, f'{answer}"'
    if not prompt.endswith("Answer:"):
        # As an example has it: on its line, or on one of its own.
        before = re.search(r"(\s+)Answer:", prompt)
        prompt += f"{before[1] if before else ' '}Answer:"
    return prompt, f' "{answer}"'


def last_words(run, name: str, groups: Groups, **scoring) -> list[dict]:
    """How often greedy decoding gives the last word of a text, with the space before it; its bits
    per byte, and its perplexity: what the word costs in nats, in the mean, as a power of e. Of
    several files, the former for each too."""
    pairs = []
    for number, row in enumerate(_every(groups), 1):
        before, space, word = row["text"].strip().rpartition(" ")
        if not space:
            raise ConfigError(f"{name}: the text of row {number} has one word alone.")
        pairs.append((before, f" {word}"))
    found = run.costs(pairs, **scoring)
    nats = sum(one.nats for one in found)
    size = sum(len(word.encode()) for _, word in pairs)
    right = np.array([one.greedy for one in found], float)
    told, *parts = _told(name, groups, right, None)
    bits = {"bits_per_byte": nats / math.log(2) / size, "perplexity": math.exp(nats / len(pairs))}
    return [told | bits, *parts]


def _told(name: str, groups: Groups, right: np.ndarray, chance: float | None) -> Iterator[dict]:
    """A row for all and, of several, for each."""
    kind = name.partition(":")[0]
    parts = {kind: right}
    if len(groups) > 1:
        edges = np.cumsum([len(each) for each in groups.values()])[:-1]
        each = np.split(right, edges)
        parts |= {f"{kind}/{key}": one for key, one in zip(groups, each, strict=True)}
    for key, one in parts.items():
        yield {"task": key, **share(one), "chance": chance, "questions": len(one)}


KINDS: dict[str, tuple[tuple[str, ...], Callable[..., list[dict]]]] = {
    "cute": (("prompt", "answer"), prompted),
    "execute": (("prompt", "answer"), prompted),
    "blimp": (("sentence_good", "sentence_bad"), paired),
    "lambada": (("text",), last_words),
}
"""The columns of each kind, and what measures it."""
