"""Another tokenizer for a trained model: rows drawn anew, the mean of their parts, or FOCUS.

    python studies/tokenizer_change.py BASE TEXT --out DIR [--tokenizer bpe:1024] [--steps 200]

BASE is a run, TEXT what it is trained on with another tokenizer, which is trained on it, too. Each
way and each seed is a run in DIR, which goes on where it was stopped; DIR/table.md is bits per byte
of held-out text against the bytes trained on, mean and range of the seeds.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WAYS = {
    "drawn anew": ["tokenizer", "embedding.*", "head.*"],
    "mean": ["tokenizer", "--train.init-embeddings", "mean"],
    "FOCUS": ["tokenizer", "--train.init-embeddings", "focus"],
}


def run(*arguments) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def scores(folder: Path) -> dict[int, tuple[float, float]]:
    """Bytes trained on and held-out bits per byte, by step."""
    found, size = {}, 0.0
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        size = row.get("train/bytes", size)
        if "heldout/bits_per_byte" in row:
            found[row["step"]] = size, row["heldout/bits_per_byte"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", metavar="BASE")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", default="bpe:1024")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2e-3)
    asked = parser.parse_args()
    corpus, found = asked.out / "corpus", {}
    prepare = ["--tokenizer", asked.tokenizer, "--heldout", "0.05"]
    run(ROOT / "prepare.py", asked.text, "--out", corpus, *prepare)
    for way, how in WAYS.items():
        for seed in range(asked.seeds):
            folder = asked.out / f"{way.replace(' ', '-').lower()}-{seed}"
            found.setdefault(way, []).append(folder)
            if (folder / "results.json").exists():
                continue
            run(
                ROOT / "train.py", "--config", f"{asked.base}/config.json", "--workdir", folder,
                "--data.source", corpus, "--train.init-from", asked.base, "--train.seed", seed,
                "--train.steps", asked.steps, "--train.evaluate-every", max(asked.steps // 5, 1),
                "--train.sample-bytes", 0, "--optimizer.learning-rate", asked.rate,
                "--optimizer.warmup-steps", 20, "--train.init-allow", *how,
            )  # fmt: skip
    table = {way: [scores(folder) for folder in folders] for way, folders in found.items()}
    steps = sorted(set.intersection(*({*each} for seeds in table.values() for each in seeds)))
    sizes = [next(iter(table.values()))[0][step][0] / 1e6 for step in steps]
    lines = [
        "| MB trained on | " + " | ".join(f"{size:.2f}" for size in sizes) + " |",
        "|---" * (len(steps) + 1) + "|",
    ]
    for way, seeds in table.items():
        cells = []
        for step in steps:
            bits = [each[step][1] for each in seeds]
            cells.append(f"{sum(bits) / len(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    (asked.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
