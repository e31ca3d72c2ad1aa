"""Draw how each scheme cuts a sentence, for docs/tokenizers.md:

    python docs/tokenizers/draw.py FOLDER_OF_TEXT [--size 2048]

Learns every scheme from the text (files of UTF-8, a language each) and writes an SVG a scheme.
"""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from octavo import cli
from octavo.tokenizers import load
from octavo.tokenizers.interface import Tokenizer, TrainedTokenizer
from octavo.tokenizers.parts.text import Labelled

SENTENCE = "Everyone has the right to life; in 1948, 12345 words of unhappiness."
COLOURS = ("#4477aa", "#ccbb44")
"""Of every other piece; told apart without hue too."""
WIDTH, HEIGHT = 9.4, 20
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Arguments:
    text: Annotated[str, tyro.conf.Positional]
    size: int = 2048


def parts_of(tokenizer: Tokenizer, data: bytes, ids: np.ndarray) -> list[str]:
    """What each id stands for; ids without bytes belong to the one before."""
    found: list[bytes] = []
    at = 0
    for size in tokenizer.bytes_per_id()[ids].tolist():
        if size:
            found.append(data[at : at + size])
            at += size
    return [part.decode("utf-8", "replace") for part in found]


def svg(parts: list[str]) -> str:
    """Parts as boxes behind each other."""
    boxes, x = [], 2.0
    for i, part in enumerate(parts):
        width = WIDTH * len(part)
        shown = html.escape(part.replace(" ", "\u2423"))
        boxes.append(
            f'<rect x="{x:.1f}" y="2" width="{width - 1.5:.1f}" height="{HEIGHT}" rx="3" '
            f'fill="{COLOURS[i % 2]}" fill-opacity="0.35" stroke="{COLOURS[i % 2]}"/>'
            f'<text x="{x - 0.75 + width / 2:.1f}" y="{HEIGHT - 4}" '
            f'text-anchor="middle">{shown}</text>'
        )
        x += width
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x + 2:.0f}" height="{HEIGHT + 4}" '
        f'viewBox="0 0 {x + 2:.0f} {HEIGHT + 4}" font-family="monospace" font-size="14" '
        f'fill="#777">{"".join(boxes)}</svg>\n'
    )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    documents = []
    for path in sorted(Path(arguments.text).glob("*.txt")):
        documents.append(Labelled.of(path.read_bytes()[:2_000_000], path.stem))
    data = SENTENCE.encode()
    for name in load.names():
        scheme = load.scheme(name)
        if issubclass(scheme, TrainedTokenizer) and scheme.usage:
            size = arguments.size if arguments.size in scheme.numbers else 4
            # Of ten scripts, sentencepiece alone asks for more ids than these.
            how = {"splitter": "cl100k"} if name == "unigram" else {}
            tokenizer = scheme.train(documents, size, **how)
        elif name in scheme.usage:
            tokenizer = scheme.from_argument(None)
        else:
            continue
        (HERE / f"{name}.svg").write_text(svg(parts_of(tokenizer, data, tokenizer.encode(data))))
        if name == "stochastok":
            again = parts_of(tokenizer, data, tokenizer.encode_training(data))
            (HERE / "stochastok-training.svg").write_text(svg(again))


if __name__ == "__main__":
    cli.run(main)
