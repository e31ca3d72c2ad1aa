"""Units and bits that the same sentences cost in each language of --parallel DIR (a file
LANGUAGE.txt each, line by line the same), beside bytes, white space and a BPE, with a plot."""

import io
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from octavo import files
from octavo.arguments import check_output
from octavo.configs.checks import ConfigError
from octavo.data.pipeline import parse_source
from octavo.data.shards import Corpus
from octavo.model.units.segmenters.whitespace import WhiteSpace
from octavo.storage import is_url
from octavo.tokenizers import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import BYTES
from octavo.tokenizers.interface import Tokenizer
from octavo.tokenizers.unicode import scripts

PARALLEL = True


def check(arguments, inputs: tuple) -> None:
    """Raise ConfigError if the plot cannot be written, or is of no kind there is."""
    if is_url(arguments.run):
        if arguments.plot is None:
            raise ConfigError(f"{arguments.run} lies on other storage: name a file with --plot.")
    elif not Path(arguments.run).is_dir():
        return  # which is said where it is opened
    plot = Path(check_output(str(_plot(arguments)), "--plot", *inputs, arguments.json))
    if plot.suffix[1:].lower() not in picture_kinds():
        known = ", ".join(sorted(picture_kinds()))
        raise ConfigError(f"--plot {plot} ends in no kind of picture: {known}.")


def measure(run, texts: dict[str, list[bytes]], arguments, **scoring) -> list[dict]:
    """``fairness``, and its plot."""
    name = Path(os.path.realpath(arguments.run)).name
    bpe = _beside(run, arguments.tokenizer)
    rows = fairness(run, name, texts, arguments.anchor, bpe, scoring)
    out = _plot(arguments)
    plot(rows, arguments.anchor, out)
    print(f"the plot is in {out}")
    return rows


def _plot(arguments) -> Path:
    return Path(arguments.plot or Path(arguments.run) / "fairness.svg")


def _beside(run, file: str | None) -> Tokenizer:
    """The subword tokenizer that stands beside the run."""
    if file:
        try:
            files.check_regular(file)
            return load.load(Path(file))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--tokenizer {file} cannot be read: {error}.") from error
    folders = [folder for folder, _ in parse_source(run.config.data.source)]
    texts = (text for folder in folders for text in Corpus(folder).documents_in(0))
    try:
        return BPETokenizer.train(itertools.islice(texts, 20_000), 8192)
    except ValueError as error:
        raise ConfigError(f"no BPE comes of the run's text: {error}. Give --tokenizer.") from error


def units_of(run, documents: list[bytes], scoring: dict) -> tuple[np.ndarray, np.ndarray]:
    """Units of the first level and nats of each document, by a run; what follows the last end is a
    unit."""
    encoded = [run.tokenizer.encode(document) for document in documents]
    found = run.predictions(encoded, **scoring)
    units = np.array([one.units for one in found])
    return units, np.array([one.nats.sum(dtype=np.float64) for one in found])


def whitespace_units(document: bytes) -> int:
    """Units that end at white space."""
    ids = np.frombuffer(document, np.uint8).astype(np.int32)
    ends = WhiteSpace.rule(ids, np.append(-1, ids[:-1]), BYTES)
    return int(ends.sum()) + int(not ends[-1:].all())


def by_language(
    system: str,
    texts: dict[str, list[bytes]],
    count: Callable[[list[bytes]], tuple[np.ndarray, np.ndarray | None]],
    anchor: str,
) -> list[dict]:
    """A row for each language, and one for the ``spread`` (most over least).

    count: units, and nats or None, of each line. premium: units relative to the anchor's.
    """
    counted = {language: count(lines) for language, lines in texts.items()}
    rows = []
    for language, (units, nats) in counted.items():
        lines = texts[language]
        size = sum(map(len, lines))
        bits = None if nats is None else float(nats.sum() / np.log(2))
        rows.append({
            "system": system,
            "language": language,
            "script": scripts.main_script(b"\n".join(lines)),
            "bytes_per_unit": float(size / units.sum()),
            "units_per_sentence": float(units.mean()),
            "premium": float(units.sum() / counted[anchor][0].sum()),
            "bits_per_sentence": None if bits is None else bits / len(lines),
            "bits_per_byte": None if bits is None else bits / size,
        })  # fmt: skip
    spread: dict = {"system": system, "language": "spread", "script": ""}
    for name in list(rows[0])[3:]:
        values = [row[name] for row in rows]
        spread[name] = None if None in values or not min(values) else max(values) / min(values)
    return [*rows, spread]


def fairness(
    run, name: str, texts: dict[str, list[bytes]], anchor: str, bpe: Tokenizer, scoring: dict
) -> list[dict]:
    """``by_language`` of a run, and of bytes, white space and a BPE beside it.

    Raises ConfigError if the anchor is no language of the texts.
    """
    if anchor not in texts:
        raise ConfigError(f"no language {anchor!r}; there are {', '.join(texts)}.")

    def sizes(of: Callable[[bytes], int]):
        return lambda lines: (np.array([of(line) for line in lines]), None)

    systems = {
        "bytes": sizes(len),
        "whitespace": sizes(whitespace_units),
        bpe.name if bpe.name not in ("bytes", "whitespace") else f"{bpe.name} (--tokenizer)": sizes(
            lambda line: len(bpe.encode(line))
        ),
    }
    if name in systems:  # as a folder may be called
        name = f"{name} (run)"
    systems = {name: lambda lines: units_of(run, lines, scoring)} | systems
    return [
        row for system in systems for row in by_language(system, texts, systems[system], anchor)
    ]


def picture_kinds() -> set[str]:
    """Suffixes that ``plot`` can write, without their dots."""
    from matplotlib.backend_bases import FigureCanvasBase

    return set(FigureCanvasBase.filetypes)


def plot(rows: list[dict], anchor: str, out: Path) -> None:
    """Premiums of every system by language, as a picture (the suffix of ``out`` says which)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    systems = list(dict.fromkeys(row["system"] for row in rows))
    kept = [row for row in rows if row["language"] != "spread"]
    languages = list(dict.fromkeys(row["language"] for row in kept))
    figure, axes = pyplot.subplots(figsize=(2 + 0.7 * len(languages), 4), layout="constrained")
    width = 0.8 / len(systems)
    # Names are shown as they are, also those with signs of formulas.
    plain = {
        name: name.encode(errors="replace").decode().replace("$", r"\$")
        for name in (*systems, *languages, anchor)
    }
    for i, system in enumerate(systems):
        mine = [row["premium"] for row in kept if row["system"] == system]
        at = np.arange(len(languages)) + (i - (len(systems) - 1) / 2) * width
        axes.bar(at, mine, width)
    axes.set_xticks(np.arange(len(languages)), [plain[name] for name in languages])
    axes.set_ylabel(f"units per sentence, {plain[anchor]} = 1")
    axes.axhline(1, color="black", linewidth=0.8)
    labels = [plain[name] for name in systems]
    bars: list[Any] = list(axes.containers)
    figure.legend(bars, labels, frameon=False, ncols=len(systems), loc="outside upper left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix[1:].lower())
    pyplot.close(figure)
    files.write(out, picture.getvalue())
