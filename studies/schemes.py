"""What is measured of schemes without a score, beside the scores of a study, and whether the one
foretells the other:

    python studies/schemes.py studies/schemes-english [--exact-bytes 4000]

Reads the study's results and its runs (seed 0), and writes measures.md and measures.csv beside
them. Spearman's rank correlation of each measure with bits per byte is over the arms that have a
vocabulary of subwords; its interval, 95%, by 2,000 draws of arms with replacement.
"""

import csv
import dataclasses
import lzma
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet
import tyro
from scipy.stats import spearmanr

from octavo import cli, files
from octavo.brief import beginning
from octavo.data.heldout import heldout_documents
from octavo.data.pipeline import parse_source
from octavo.data.shards import Corpus
from octavo.evaluation.intrinsic.cuts import Scheme, of_run
from octavo.evaluation.intrinsic.report import MEASURES, report
from octavo.evaluation.intrinsic.text import Text
from octavo.evaluation.measures import bits
from octavo.evaluation.parallel import read_parallel
from octavo.run.opened import open_run
from octavo.tokenizers.interface import SubwordTokenizer

DRAWS = 2_000
COLUMNS = (
    "bytes_per_token", "fertility", "continued_words", "word_f1", "context_dependence",
    "whole_characters", "renyi_2.5", "renyi_2", "used", "premium_mean", "gini", "digit_threes",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    study: Annotated[str, tyro.conf.Positional]
    """Folder of a finished study."""
    exact_bytes: int = 4_000
    """Text of which the exact scores are. 0: none."""
    text_bytes: int = 200_000
    """Text of which the other measures are."""
    parallel_lines: int = 200
    """Sentences in each language, of which the premiums are."""


def scores(study: Path) -> dict[str, dict[str, Any]]:
    """By arm: bits per byte of every seed, and the run of seed 0."""
    table = pyarrow.parquet.read_table(study / "results.parquet").to_pylist()
    found: dict[str, dict[str, Any]] = {}
    for row in table:
        if row["chosen"] and row["status"] == "done":
            arm = found.setdefault(row["arm"], {"bits": []})
            arm["bits"].append(row["bits_per_byte"])
            if row["seed"] == 0:
                arm["run"], arm["source"] = study / "runs" / row["name"], row["results.data"]
    return found


def measured(arms: dict[str, dict], most: int, sentences: int) -> None:
    """Add to every arm what ``schemes.py`` says of it."""
    run = open_run(str(next(iter(arms.values()))["run"]))
    corpora = [Corpus(folder) for folder, _ in parse_source(run.config.data.source)]
    held = heldout_documents(corpora, most)
    texts = [Text(one.text, one.label or one.corpus) for one in held]
    schemes: list[Scheme] = []
    for name, arm in arms.items():
        # Units of a learned segmenter come first; of a flat model of subwords, its tokens do.
        schemes.append(of_run(name, str(arm["run"]))[0])
        tokenizer = open_run(str(arm["run"])).tokenizer
        told = files.json_text(tokenizer.to_json()).encode()
        arm["tokenizer"] = len(lzma.compress(told)) / 1000
        arm["subwords"] = isinstance(tokenizer, SubwordTokenizer)
    parallel = None
    if len({text.label for text in texts}) > 1:
        parallel = {name: said[:sentences] for name, said in read_parallel("parallel").items()}
    for name, one in zip(arms, report(schemes, texts, 0, parallel, "eng", (), print), strict=True):
        arms[name] |= {key: value.value for key, value in one.about["measures"].items()}


def exact(arms: dict[str, dict], most: int) -> None:
    """Add the bits per byte of subword arms by all ids that spell a text, beside those by the
    tokenizer's own ids of the same text."""
    for name, arm in arms.items():
        run = open_run(str(arm["run"]))
        if not isinstance(run.tokenizer, SubwordTokenizer):
            continue
        corpora = [Corpus(folder) for folder, _ in parse_source(run.config.data.source)]
        # The beginnings of two documents: it is read again for each way to spell it.
        held = heldout_documents(corpora, 0)[:2]
        held = [dataclasses.replace(one, text=beginning(one.text, most // 2)) for one in held]
        row = bits.measure(run, held, SimpleNamespace(exact=True, heads=None, other=None))[0]
        arm |= {"canonical": row["bits_per_byte"], "exact": row["exact_bits_per_byte"]}
        print(f"{name}: {arm['canonical']:.4f} by its own ids, {arm['exact']:.4f} by all")


def correlations(arms: list[dict]) -> dict[str, tuple[float, float, float]]:
    """Spearman's correlation of each measure with mean bits per byte, and its interval."""
    scored = np.array([np.mean(arm["bits"]) for arm in arms])
    draws = np.random.default_rng(0).integers(0, len(arms), (DRAWS, len(arms)))
    found = {}
    for name in COLUMNS:
        values = np.array([arm.get(name, np.nan) for arm in arms], float)
        if np.isnan(values).any() or len(set(values)) < 3:
            continue
        drawn = [
            spearmanr(values[draw], scored[draw])[0] for draw in draws if len(set(values[draw])) > 1
        ]
        low, high = np.quantile(drawn, [0.025, 0.975])
        whole = np.asarray(spearmanr(values, scored))[0]
        found[name] = float(whole), float(low), float(high)
    return found


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    study = Path(arguments.study)
    arms = scores(study)
    measured(arms, arguments.text_bytes, arguments.parallel_lines)
    if arguments.exact_bytes:
        exact(arms, arguments.exact_bytes)
    names = [name for name in COLUMNS if any(name in arm for arm in arms.values())]
    order = sorted(arms, key=lambda name: np.mean(arms[name]["bits"]))
    exactly = ["own ids", "all ids"] if arguments.exact_bytes else []
    head = [
        "arm",
        "bits per byte",
        "tokenizer, kB",
        *exactly,
        *(MEASURES[name].title for name in names),
    ]
    rows = []
    for name in order:
        arm = arms[name]
        spread = np.std(arm["bits"], ddof=1) if len(arm["bits"]) > 1 else math.nan
        values = [arm.get(key) for key in ("canonical", "exact")] if exactly else []
        shown = ["" if value is None else f"{value:.4f}" for value in values]
        shown += ["" if arm.get(key) is None else f"{arm[key]:.3f}" for key in names]
        size = f"{arm['tokenizer']:.1f}"
        rows.append([name, f"{np.mean(arm['bits']):.3f} ± {spread:.3f}", size, *shown])
    found = correlations([arm for arm in arms.values() if arm["subwords"]])
    lines = [
        f"# {study.name}: scores beside what is measured without one", "",
        "Mean and standard deviation of seeds. The tokenizer is its file by xz: what decompression",
        "needs besides the model, and no score pays for. docs/schemes.md says what others are.",
        *([f"Own ids, all ids: {arguments.exact_bytes:,} bytes by the tokenizer's own ids, and by",
           "all that spell them; seed 0."] if exactly else []),
        "", *_markdown(head, rows), "", "## Rank correlation with bits per byte", "",
        *_markdown(
            ["measure", "Spearman", "95%"],
            [[MEASURES[k].title, f"{r:+.2f}", f"{low:+.2f} .. {high:+.2f}"]
             for k, (r, low, high) in found.items()],
        ),
    ]  # fmt: skip
    files.write(study / "measures.md", "\n".join(lines) + "\n")
    with (study / "measures.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    print(f"{study / 'measures.md'}")


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    cli.run(main)
