"""Preparation on one core, by kind of source and tokenizer: MB of text for a second of its time.

    python benchmarks/preparation.py

Text of the embedded corpus, numbered so that no document is a copy, as JSON lines (plain, gzip,
zstd), Parquet and files of text; half a unit of each is prepared, several rounds.
"""

import gzip
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.data.prepare import prepare
from octavo.data.sources import UNIT_BYTES, find_units, stdlib_documents
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer

ROUNDS = 3


def write_sources(folder: Path) -> int:
    """About half a unit of text, in every kind of file; returns its bytes."""
    originals, documents, size = [*stdlib_documents()], [], 0
    while size < UNIT_BYTES // 2:
        text = f"{len(documents)} {originals[len(documents) % len(originals)].decode()}"
        documents.append(text)
        size += len(text.encode())
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
    (folder / "jsonl").write_bytes(lines)
    (folder / "jsonl, gzip").write_bytes(gzip.compress(lines, 6))
    (folder / "jsonl, zstd").write_bytes(pa.Codec("zstd").compress(lines, asbytes=True))
    pyarrow.parquet.write_table(pa.table({"text": documents}), folder / "parquet")
    (folder / "text").write_text("\n\n".join(documents))
    return size


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "in").mkdir()
        size = write_sources(root / "in")
        bpe = BPETokenizer.train(stdlib_documents(), 8192)
        table = Table("source", "tokenizer", "MB/s")
        for name, tokenizer in (("bytes", ByteTokenizer()), ("bpe:8192", bpe)):
            for file in sorted((root / "in").iterdir()):
                units, speeds = find_units([str(file)], "text", None), []
                for i in range(ROUNDS):
                    began = time.process_time()
                    out = root / f"{name} {file.name} {i}"
                    prepare(units, out, tokenizer, heldout=0.05, processes=1)
                    speeds.append(size / (time.process_time() - began) / 1e6)
                table.add_row(file.name, name, f"{statistics.median(speeds):.0f}")
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
