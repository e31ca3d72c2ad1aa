"""What is measured of a run of a study, on the text that all are scored on: ``measured.json``."""

import contextlib
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from octavo import files
from octavo.ablation.place import FORMAT, MEASURED
from octavo.brief import beginning
from octavo.configs.schema import Config
from octavo.data.errors import DataError
from octavo.data.heldout import Held, shortened
from octavo.evaluation.curves import number, read_rows
from octavo.evaluation.measures import capacity, certify, fairness, noise, words
from octavo.run.directory import CERTIFICATE, METRICS
from octavo.run.opened import Run
from octavo.run.score import Predictions, Score, by_label, score_of
from octavo.training.evaluation import CUT_BYTES, shown

SENTENCES = 100
"""Of each language of parallel text."""
NOISE_BYTES = 5_000
"""Each kind of noise at each rate costs as much as so many bytes of the score."""
NOISE_PIECE = 240
"""Bytes: shorter beginnings than this are not disturbed, but fewer of them."""
ROWS = 16
"""At a time: what training has, but no more."""
CUTS = 3
HARDLY, NEARLY = 0.1, 0.9
"""Of the share of ends that was asked for, and of all positions: below and above, units collapsed
(as ``training.objective.rates`` has it)."""


def measure(
    run: Run,
    text: dict[str, Any],
    held: list[Held],
    folder: Path,
    parallel: dict[str, list[bytes]] | None,
    *,
    path: str | None = None,
    noise_bytes: int = NOISE_BYTES,
    certify_bytes: int = certify.MOST_BYTES,
) -> dict[str, Any]:
    """Measure a run, and write ``measured.json`` and a certificate to the folder, where its
    ``metrics.jsonl`` lies; returns what it says.

    text: what text.json says. held: the documents that are scored. parallel: lines of several
    languages (``evaluation.parallel``). path: the run, as a decoder is told; None: the folder.
    Raises DataError if the documents are not those of text.json, OSError.
    """
    about = _checked(text, held)
    held = [
        Held(one.text, told["corpus"], told["label"]) for one, told in zip(held, about, strict=True)
    ]
    config, seconds = run.config, {}
    rows = min(ROWS, config.data.batch_size // config.train.accumulation)

    with _timed(seconds, "score"):
        documents = [one.text for one in held]
        encoded = [run.tokenizer.encode(document) for document in documents]
        found = run.predictions(encoded, batch_size=rows)
        score = score_of(run.tokenizer, documents, encoded, found)
        counts = Counter({
            word.encode("utf-8", "surrogateescape"): count for word, count in text["words"].items()
        })  # fmt: skip
        bands = words.bands(documents, encoded, found, run.tokenizer, counts)
    pieces = certify.choose(held, certify_bytes)
    with _timed(seconds, "noise"):
        disturbed, nats = _noise(run, held, noise_bytes, pieces, rows)
    with _timed(seconds, "certify"):
        where = folder / CERTIFICATE
        certificate = certify.certify(run, path or str(folder), pieces, nats, where)
    with _timed(seconds, "fairness"):
        fair = _fairness(run, parallel, rows) if parallel else None

    scripts = [told["script"] for told in about]
    low, high = score.interval or (None, None)
    units = capacity.units_per_id(found, len(config.model.stages))
    values = {
        "format": FORMAT,
        "step": run.step,
        "fingerprint": text["fingerprint"],
        "bits_per_byte": score.bits_per_byte,
        "low": low,
        "high": high,
        "documents": {
            "nats": score.document_nats.tolist(), "bytes": score.document_bytes.tolist(),
        },
        "by_label": by_label(score, held),
        "by_script": by_label(score, [Held(b"", "", script) for script in scripts]),
        "noise": disturbed,
        "bands": bands,
        "next_word_accuracy": bands[0]["accuracy"],
        "bytes_per_unit": score.bytes / max(sum(one.units for one in found), 1),
        "units_by_script": _units_by_script(documents, found, scripts),
        "ids_per_byte": score.ids / score.bytes,
        "fairness": fair,
        "inference": _inference(run, score, units),
        "units": {str(level): each for level, each in enumerate(units)},
        "collapsed": _collapsed(config, units, folder / METRICS),
        "cuts": [
            {"label": held[i].label} | shown(beginning(documents[i], CUT_BYTES), score.units[i])
            for i in _shown(documents, held, scripts)
        ],
        "certificate": certificate,
        "seconds": seconds,
    }  # fmt: skip
    files.write_json(folder / MEASURED, values)
    return values


def read_measured(folder: Path) -> dict[str, Any] | None:
    """What ``measured.json`` says; None if there is none, or none of this format that is whole."""
    with contextlib.suppress(OSError, files.FileError):
        found = files.read_json(folder / MEASURED, dict[str, Any])
        return found if found.get("format") == FORMAT else None
    return None


def _checked(text: dict[str, Any], held: list[Held]) -> list[dict[str, Any]]:
    """What text.json says of each document. Raises DataError if they are others."""
    about = text["documents"]
    if len(about) != len(held):
        raise DataError(
            f"the study scores {len(about):,} documents, but {text.get('source', 'its text')} has "
            f"{len(held):,} of them now. Put the text back that the study began with, or begin "
            "another study."
        )
    for i, (told, one) in enumerate(zip(about, held, strict=True)):
        if told["sha256"] != hashlib.sha256(one.text).hexdigest():
            raise DataError(
                f"document {i} that the study scores (label {told['label']}) is not what it was "
                f"when {text.get('source', 'its text')} was first read. Put the text back that the "
                "study began with, or begin another study."
            )
    return about


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 3)


def _units_by_script(
    documents: list[bytes], found: list[Predictions], scripts: list[str]
) -> dict[str, float]:
    """Bytes per unit of the first level."""
    sizes, units = Counter(), Counter()
    for document, one, script in zip(documents, found, scripts, strict=True):
        sizes[script] += len(document)
        units[script] += one.units
    return {script: size / units[script] for script, size in sizes.items() if size}


def _noise(
    run: Run, held: list[Held], most: int, pieces: list[Held], rows: int
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows of ``noise.measure``, of beginnings, and nats of the pieces of the certificate: all of
    it in one pass, which is compiled for full batches."""
    clean = [one.text for one in shortened(held, most, NOISE_PIECE) if one.text]
    kinds = noise.variants(clean)
    groups = [clean, *(texts for _, _, texts in kinds), [one.text for one in pieces]]
    score = run.score([text for texts in groups for text in texts], batch_size=rows)
    parts = np.split(score.document_nats, np.cumsum([len(texts) for texts in groups])[:-1])

    def bits(i: int) -> float:
        return float(parts[i].sum()) / math.log(2) / sum(map(len, groups[i]))

    found = [noise.row("none", 0.0, bits(0), bits(0))]
    for i, (kind, rate, texts) in enumerate(kinds, 1):
        found.append(noise.row(kind, rate, bits(i) if texts else None, bits(0)))
    return found, parts[-1]


def _fairness(run: Run, parallel: dict[str, list[bytes]], rows: int) -> dict[str, Any]:
    """Units and bits of the same sentences in each language, premiums against English, or the first
    language without it; ``premium``: most units over fewest."""
    lines = [line for each in parallel.values() for line in each]
    counted = fairness.units_of(run, lines, {"batch_size": rows})
    edges = np.cumsum([len(each) for each in parallel.values()])[:-1]
    parts = iter(zip(*(np.split(each, edges) for each in counted), strict=True))
    anchor = "eng" if "eng" in parallel else next(iter(parallel))
    *languages, spread = fairness.by_language(run.name, parallel, lambda _: next(parts), anchor)
    names = (
        "language", "script", "units_per_sentence", "premium", "bits_per_sentence", "bits_per_byte"
    )  # fmt: skip
    return {
        "premium": spread["units_per_sentence"],
        "languages": [{name: row[name] for name in names} for row in languages],
    }


def _inference(run: Run, score: Score, units: tuple[float, ...]) -> dict[str, Any]:
    """What a byte of the text costs to predict: FLOPs of a pass forward over the units that there
    are, and over as many as rows have room for; and bytes of the parameters."""
    sizes = run, score.ids, score.bytes
    return {
        "flops_per_byte_useful": capacity.flops_per_byte(*sizes, units),
        "flops_per_byte_paid": capacity.flops_per_byte(*sizes),
        "parameter_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(run.params)),
    }


def _collapsed(config: Config, units: tuple[float, ...], metrics: Path) -> str | None:
    """How learned units collapsed, in a sentence; None if they did not."""
    for level, stage in enumerate(config.model.stages):
        if stage.supervision == "none":
            continue
        positions = units[level - 1] if level else 1.0
        share, asked = units[level] / max(positions, 1e-9), min(stage.rates)
        told = (
            f"units of level {level} end at {share:.1%} of its positions, and {asked:.1%} is asked"
        )
        if share < HARDLY * asked:
            return f"{told}: hardly any unit ends."
        if share > NEARLY:
            return f"{told}: nearly every position is a unit."
        late = _late(metrics, f"collapsed/{level}")
        if late is not None and late > 0.5:
            return (
                f"at the end of training, {late:.0%} of positions lay in rows in which hardly any "
                f"unit of level {level} ended, or nearly every position was one."
            )
    return None


def _late(metrics: Path, name: str) -> float | None:
    """The mean of a metric over the last tenth of the steps that are logged."""
    found: list[tuple[int, float]] = []
    with contextlib.suppress(OSError):
        for row in read_rows(metrics):
            if (value := number(row.get(name))) is not None:
                found.append((row["step"], value))
    late = [value for step, value in found if step > 0.9 * found[-1][0]]
    return sum(late) / len(late) if late else None


def _shown(documents: list[bytes], held: list[Held], scripts: list[str]) -> list[int]:
    """The few documents whose cuts are kept: UTF-8 at their beginning, long where there are long
    ones, of as many labels and writing systems as there are."""
    ranked, labels, systems = [], Counter(), Counter()
    for i, document in enumerate(documents):
        try:
            beginning(document, CUT_BYTES).decode()
        except UnicodeDecodeError:
            continue
        label, script = held[i].label, scripts[i]
        ranked.append((len(document) < CUT_BYTES, labels[label], systems[script], i))
        labels[label] += 1
        systems[script] += 1
    return sorted(i for *_, i in sorted(ranked)[:CUTS])
