"""Subword schemes beside the libraries that do the same, on one core:

    python benchmarks/schemes.py FILE [--size 8192] [--megabytes 10] [--schemes bpe superbpe]

Learning: seconds once, of the file's first half. Encoding: MB/s of the second half in documents of
20 kB, median of rounds in which all take turns. What the libraries do is done with the vocabulary
or the options of the scheme above them: `rustbpe` and Hugging Face learn BPE with the same
pattern, `tiktoken` and Hugging Face encode with the vocabulary that was learned here.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.tokenizers import load
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.interface import SubwordTokenizer
from octavo.tokenizers.parts.pieces import PATTERN

ROUNDS = 5


@dataclass(frozen=True)
class Arguments:
    text: Annotated[str, tyro.conf.Positional]
    """A file of UTF-8."""
    size: int = 8192
    """Ids of a vocabulary."""
    megabytes: int = 10
    """Of the file."""
    schemes: tuple[str, ...] = (
        "bpe", "superbpe", "boundlessbpe", "pathpiece", "bytespan", "parity-bpe", "stochastok",
        "rgrams", "huffman", "randomsplits", "unigram",
    )  # fmt: skip


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    text = Path(arguments.text).read_bytes()[: arguments.megabytes * 1_000_000]
    half = text.decode("utf-8", "ignore")
    documents = [half[i : i + 20_000].encode() for i in range(0, len(half), 20_000)]
    learned, held = documents[: len(documents) // 2], documents[len(documents) // 2 :]
    compiled = [words[:1000] for words in learned[:2]]
    learning: dict[str, float] = {}
    encoders: dict[str, Callable[[bytes], int]] = {}
    for name in arguments.schemes:
        scheme = load.scheme(name)
        assert issubclass(scheme, SubwordTokenizer) or name == "huffman"
        scheme.train(compiled, 300).encode(held[0])  # type: ignore[attr-defined]
        learning[name], tokenizer = timed(
            lambda scheme=scheme: scheme.train(learned, arguments.size)
        )
        encoders[name] = lambda data, encode=tokenizer.encode: len(encode(data))
        if name == "bpe":
            libraries(tokenizer, learned, arguments.size, learning, encoders)
    counts = {name: sum(map(encode, held)) for name, encode in encoders.items()}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(ROUNDS):
        for name, encode in encoders.items():
            times[name].append(timed(lambda encode=encode: sum(map(encode, held)))[0])
    size = sum(map(len, held))
    table = Table("scheme", "learning, s", "encoding, MB/s", "bytes per token")
    for name in encoders:
        seconds = learning.get(name)
        table.add_row(
            name, "" if seconds is None else f"{seconds:.1f}",
            f"{size / statistics.median(times[name]) / 1e6:.1f}", f"{size / counts[name]:.3f}",
        )  # fmt: skip
    Console().print(f"{size / 1e6:.1f} MB encoded, {len(held)} documents; as much learned from")
    Console().print(table)


def timed(work: Callable):
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def libraries(
    ours: BPETokenizer, learned: list[bytes], size: int, learning: dict, encoders: dict
) -> None:
    """What rustbpe, tiktoken, Hugging Face and sentencepiece take for the same."""
    import rustbpe
    import tiktoken

    trainer = rustbpe.Tokenizer()  # type: ignore[attr-defined]
    texts = [document.decode() for document in learned]
    learning["  rustbpe, tiktoken"], _ = timed(
        lambda: trainer.train_from_iterator(iter(texts), size - 1, pattern=PATTERN)
    )
    encoding = tiktoken.Encoding(
        name="same", pat_str=PATTERN, special_tokens={},
        mergeable_ranks={piece: i for i, piece in enumerate(ours.pieces)},
    )  # fmt: skip
    encoders["  rustbpe, tiktoken"] = lambda data: len(encoding.encode_ordinary(data.decode()))
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    how = trainers.BpeTrainer(
        vocab_size=size - 1, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learning["  Hugging Face"], _ = timed(lambda: peer.train_from_iterator(texts, how))
    encoders["  Hugging Face"] = lambda data: len(peer.encode(data.decode()).ids)


if __name__ == "__main__":
    cli.run(main)
