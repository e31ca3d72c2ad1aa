"""A subword model becomes a byte model, at a tenth of its training bytes.

    python studies/byteify.py TEXT --out DIR

Trains a flat model of a BPE of 512 ids on TEXT, then the byte model of studies/byteify-model.toml
around its trunk, and compares bits per byte of the same held-out text. What is done in DIR already
stays; a run that was stopped goes on. DIR/table.md is the result.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from octavo.training import byteify

ROOT = Path(__file__).parent.parent
COMMON = ["--train.sample-bytes", 0, "--train.evaluate-every", 0]
SUBWORDS = [
    "flat", "--model.width", 64, "--model.heads", 2, "--model.layers", 3, "--data.length", 256,
    "--data.batch-size", 8, "--optimizer.learning-rate", 0.004, "--train.steps", 2500,
]  # fmt: skip
BYTES = [
    "--config", ROOT / "studies" / "byteify-model.toml", "--train.freeze", "trunk.inner.*",
    "--train.freeze-steps", 200, "--train.steps", 700, "--optimizer.learning-rate", 0.0003,
    "--optimizer.warmup-steps", 50, "--optimizer.decay-fraction", 0.6,
]  # fmt: skip


def run(*arguments) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def trained(folder: Path, *arguments) -> dict:
    if not (folder / "results.json").exists():
        run(ROOT / "train.py", *arguments, "--workdir", folder, *COMMON)
    return json.loads((folder / "results.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    subwords, fused = asked.out / "corpus-subwords", asked.out / "corpus-fused"
    run(ROOT / "prepare.py", asked.text, "--out", subwords, "--tokenizer", "bpe:512")
    of = f"fused:{subwords / 'tokenizer.json'}"
    run(ROOT / "prepare.py", asked.text, "--out", fused, "--tokenizer", of)
    lines = [
        "| seed | | MB trained on | held-out bits/byte |",
        "|---|---|---|---|",
    ]
    for seed in range(asked.seeds):
        flat, seeded = asked.out / f"subwords-{seed}", ["--train.seed", seed]
        old = trained(flat, *SUBWORDS, "--data.source", subwords, *seeded)
        start = ["--config", flat, *BYTES, "--data.source", fused, "--train.init-from", flat]
        new = trained(asked.out / f"bytes-{seed}", *start, *seeded)
        bits = [each["heldout/bits_per_byte"] for each in (old, new)]
        spent = [old["bytes"], new["bytes"] + byteify.TEXT]
        lines += [
            f"| {seed} | subwords | {spent[0] / 1e6:.2f} | {bits[0]:.3f} |",
            f"| {seed} | byteified | {spent[1] / 1e6:.2f} ({spent[1] / spent[0]:.1%}) "
            f"| {bits[1]:.3f} ({bits[1] / bits[0] - 1:+.1%}) |",
        ]
    (asked.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
