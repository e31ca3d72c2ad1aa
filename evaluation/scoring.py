"""A measure of checkpoints: of each what its folder holds already, or what is computed now; side by
side, and as tables."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from types import ModuleType
from typing import Any

import numpy as np

from octavo.arguments import check_outputs, read_file
from octavo.configs.checks import ConfigError
from octavo.data.heldout import Held, heldout_documents
from octavo.data.pipeline import folders_of, parse_source
from octavo.data.shards import Corpus
from octavo.evaluation import kept
from octavo.evaluation.parallel import read_parallel
from octavo.run.checkpoint import saved_steps
from octavo.run.mirror import fetched
from octavo.run.opened import open_run
from octavo.run.saved import read
from octavo.run.score import interval

_NO_SETTINGS = (
    "run", "more", "step", "length", "overlap", "text", "data", "parallel", "most_bytes", "other",
    "json", "csv", "markdown", "again", "plot", "certificate", "batch_size",
)  # fmt: skip
"""Arguments that never change a score, or are told otherwise where it is kept."""


_SAID = ("exact", "heads", "limit", "num_fewshot")
"""Arguments that make it another measurement, which its rows do not all tell."""


@dataclass
class Text:
    """What is measured."""

    held: list[Held]
    given: Any
    """What the measure gets."""
    of: int | None = None
    """Bytes of all that was held out."""
    digest: str | None = None


@dataclass
class Scored:
    """What a measure says of a checkpoint."""

    values: dict[str, Any]
    """What it is of."""
    rows: list[dict]
    text: Text
    nats: list[float] | None
    """Of each document, where the measure says so."""
    beside: dict[str, float | None] = field(default_factory=dict)
    """How it stands to the first (``compare``)."""


def text_from(arguments: Any, measure: ModuleType, source: str) -> Text:
    """The text of a source, as the measure wants it. arguments: of evaluate.py, for one run. Raises
    ConfigError or DataError if there is none."""
    if arguments.parallel is not None:
        return Text([], read_parallel(arguments.parallel, arguments.sentences))
    if not getattr(measure, "TEXTS", True):
        return Text([], [])
    choose, of = getattr(measure, "choose", None), None
    if arguments.text is not None:
        held = [Held(read_file(arguments.text, "--text"), source, None)]
        if not held[0].text:
            raise ConfigError(f"--text {arguments.text} is empty; there is nothing to score.")
    else:
        check_outputs(arguments.outputs, *folders_of(source))
        corpora = [Corpus(part) for part, _ in parse_source(source)]
        held = heldout_documents(corpora, 0 if choose else arguments.most_bytes)
        split = [c.of_split("heldout") for c in corpora if "heldout" in c.split_documents]
        of = sum(corpus.utf8_bytes for corpus in split)
    held = choose(held, arguments.most_bytes) if choose else held
    if not held:
        raise ConfigError(f"{source} has no held-out documents; score a file with --text.")
    named = held if arguments.text is None else [replace(one, corpus="") for one in held]
    given = held if getattr(measure, "HELD", False) else [one.text for one in held]
    return Text(held, given, of, kept.text_digest(named))


def score(
    arguments: Any, measure: ModuleType, step: int | None, text_of: Callable[[str], Text],
    progress: Callable[[int, int], None],
) -> Scored:  # fmt: skip
    """Of one checkpoint: what its folder holds, or what is computed now, and then is held there.

    step: None: the newest. text_of: the text of a source. Raises whatever comes of opening and
    reading.
    """
    asked: dict[str, Any] = {} if arguments.ends is None else {"ends": arguments.ends}
    reads_corpora = getattr(measure, "READS_CORPORA", False)
    with fetched(arguments.run, step, arrays=False) as folder:
        config, tokenizer, _ = read(folder, step)
        length = arguments.length or config.data.length
        overlap = length // 2 if arguments.overlap is None else arguments.overlap
        if not 0 <= overlap < length:
            raise ConfigError(f"--overlap lies in [0, {length}), the row length, not {overlap}.")
        source = arguments.text or arguments.data or arguments.parallel or config.data.source
        text = text_of(source)
        if reads_corpora:
            check_outputs(arguments.outputs, *folders_of(config.data.source))

        def place(step: int) -> tuple[str, dict[str, Any]]:
            """Where the score of a step is kept, and as what."""
            about = {
                "measure": arguments.what,
                "step": step,
                "checkpoint": kept.checkpoint_digest(arguments.run, folder, step),
                "text": text.digest,
                "length": length,
                "overlap": overlap,
                "code": kept.code_digest(),
                "corpora": kept.corpora_digest(config.data.source) if reads_corpora else None,
                "other": None if arguments.other is None else _newest(arguments.other),
                **{
                    name: getattr(arguments, name)
                    for name in (one.name for one in fields(arguments)) if name not in _NO_SETTINGS
                },
            }  # fmt: skip
            return kept.path_of(arguments.run, about), about

        steps, keeps = saved_steps(folder), getattr(measure, "KEPT", False)
        at = step if step is not None else steps[0] if steps else None
        where = place(at) if keeps and at is not None else None
        found = kept.find(*where) if where and not arguments.again else None
        if found is not None:
            rows, nats = found["rows"], found.get("document_nats")
        else:
            run = open_run(arguments.run, step, length=arguments.length, **asked)
            if keeps and (where is None or run.step != at):  # a newer one came meanwhile
                where = place(run.step)
            at = run.step
            rows = measure.measure(
                run, text.given, arguments, overlap=overlap, batch_size=arguments.batch_size,
                progress=progress,
            )  # fmt: skip
            if not rows:
                raise ConfigError(f"{arguments.what} has no row to show of {source}.")
            nats = rows[0].pop("document_nats", None)
            if where is not None:
                kept.keep(*where, rows, document_nats=nats)
    values = {
        "run": str(arguments.run),
        "step": at,
        **({"source": source} if getattr(measure, "TEXTS", True) else {}),
        "tokenizer": tokenizer.name,
        "length": length,
        "overlap": overlap,
    } | asked
    flags = (f"--{n.replace('_', '-')} {v}" for n in _SAID if (v := getattr(arguments, n)))
    if said := " ".join(flags).replace(" True", ""):
        values["asked"] = said
    return Scored(values, rows, text, nats)


def _newest(run: str) -> str:
    """The digest of a run's newest checkpoint."""
    with fetched(run, arrays=False) as folder:
        read(folder)
        steps = saved_steps(folder)
        return kept.checkpoint_digest(run, folder, steps[0]) if steps else ""


def compare(scored: list[Scored]) -> None:
    """Where a measure says what each document cost: bits per byte above the first checkpoint's, of
    the same text, and the 95% interval of that by a bootstrap over documents."""
    first = scored[0]
    for one in scored[1:]:
        if one.nats is not None and first.nats is not None and one.text.digest == first.text.digest:
            sizes = np.array([len(held.text) for held in one.text.held])
            more = np.array(one.nats, float) - np.array(first.nats, float)
            low, high = interval(more, sizes) or (None, None)
            bits = float(more.sum()) / math.log(2) / int(sizes.sum())
            one.beside = {"vs_first": bits, "vs_low": low, "vs_high": high}


def tables(scored: list[Scored], many: bool) -> dict[str, list[dict]]:
    """The table of all rows, by the name "", and one for each value of a row that is rows itself,
    by its name."""
    found: dict[str, list[dict]] = {"": []}
    for one in scored:
        lead = {name: one.values[name] for name in ("run", "step") if many}
        for row in one.rows:
            apart = {name: of for name, of in row.items() if isinstance(of, dict)}
            found[""].append(lead | {k: v for k, v in row.items() if k not in apart} | one.beside)
            for name, of in apart.items():
                key = name.removeprefix("by_")
                more = (lead | {key: each} | inside for each, inside in of.items())
                found.setdefault(name, []).extend(more)
    return {name: _alike(rows) for name, rows in found.items()}


def records(scored: list[Scored]) -> list[dict]:
    """All rows of all tables, and what they are of."""
    found = []
    for one in scored:
        for rows in tables([one], False).values():
            found += [one.values | row for row in rows]
    return _alike(found)


def _alike(rows: list[dict]) -> list[dict]:
    """With the same keys."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
