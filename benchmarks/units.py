"""Where units end, in MB/s on one core:

    python benchmarks/units.py

Rules over bytes (which training runs on the device) and Unicode words (which prepare.py runs), on
the embedded corpus with a sixth of its bytes in other scripts. Median of several rounds.
"""

import os
import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.data.sources import stdlib_documents
from octavo.model.units.segmenters import segmenter
from octavo.tokenizers.unicode.words import hat_ends, word_ends
from octavo.tokenizers.words import WORDS

OTHER = "Съешь же ещё этих мягких булок. 日本語の文章です。 नमस्ते दुनिया، مرحبا بالعالم! "
ROUNDS = 7


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    text = b"".join(stdlib_documents())[:8_000_000]
    other = OTHER.encode()
    text += other * (len(text) // 5 // len(other))
    ids = np.frombuffer(text, np.uint8)
    before = np.append(np.uint8(0), ids[:-1])
    rules = {
        name: lambda name=name: segmenter(name).rule(ids, before, WORDS)
        for name in ("whitespace", "spacelike", "unit_mark", "stride")
    } | {
        "Unicode words (UAX 29)": lambda: word_ends(ids),
        "HAT words": lambda: hat_ends(ids, 64),
    }
    table = Table("rule", "MB/s", "bytes per unit")
    for name, rule in rules.items():
        ends = rule()
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            rule()
            times.append(time.perf_counter() - began)
        speed = len(ids) / statistics.median(times) / 1e6
        table.add_row(name, f"{speed:,.0f}", f"{len(ids) / max(int(ends.sum()), 1):,.1f}")
    Console().print(f"{len(ids) / 1e6:.1f} MB, {(ids > 127).mean():.0%} of it not ASCII")
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
