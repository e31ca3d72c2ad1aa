"""Make the text of studies/markov.toml: documents of a Markov source whose entropy is known.

    python studies/markov.py [--order 2] [--switch 0.1] [--bytes 4000000] [--seed 0] OUT

Writes OUT/markov.jsonl, for prepare.py, and OUT/markov.json, which says what the text costs a model
that knows the source, and one that only knows how often each letter comes.

The source (Makkuva et al. 2024, 2402.04161; Rajaraman et al. 2024, 2404.08335): the letters a and
b; each is the one ``order`` letters before or, with probability ``switch``, the other. The first
``order`` letters are drawn evenly. Both letters come equally often, whatever the order, so a model
that sees no further than that pays 1 bit for each. Behind every letter the document ends with
probability 1/512, so that the end, which is paid for, is known too.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

END = 1 / 512


def document(rng: np.random.Generator, order: int, switch: float) -> str:
    size = int(rng.geometric(END))
    # A switch, summed along each of the order chains that are woven into one.
    turns = rng.random(size) < switch
    turns[:order] = rng.random(min(order, size)) < 0.5
    letters = np.zeros(size, int)
    for first in range(min(order, size)):
        letters[first::order] = np.cumsum(turns[first::order]) % 2
    return "".join("ab"[letter] for letter in letters.tolist())


def entropy(p: float) -> float:
    """Bits of an event of probability p."""
    return sum(-q * math.log2(q) for q in (p, 1 - p) if q)


def bits_per_byte(order: int, bits: float) -> float:
    """Expected bits of a text over its expected bytes, ends of documents included, where each
    letter but the first ``order`` of a document costs ``bits``."""
    drawn = sum((1 - END) ** place for place in range(order))  # of the first, as many as come
    mean = 1 / END
    ends = (mean - 1) * -math.log2(1 - END) - math.log2(END)
    return (drawn + (mean - drawn) * bits + ends) / mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--switch", type=float, default=0.1)
    parser.add_argument("--bytes", type=int, default=4_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", metavar="OUT", type=Path)
    asked = parser.parse_args()
    if asked.order < 1 or asked.bytes < 1 or asked.seed < 0 or not 0 < asked.switch < 1:
        parser.error("--order and --bytes are 1 or more, --seed 0 or more, --switch inside (0, 1)")
    rng, left = np.random.default_rng(asked.seed), asked.bytes
    asked.out.mkdir(parents=True, exist_ok=True)
    with open(asked.out / "markov.jsonl", "w") as file:
        while left > 0:
            text = document(rng, asked.order, asked.switch)
            file.write(json.dumps({"text": text}) + "\n")
            left -= len(text)
    about = {
        "order": asked.order,
        "switch": asked.switch,
        "seed": asked.seed,
        "entropy_rate": entropy(asked.switch),
        "bits_per_byte": bits_per_byte(asked.order, entropy(asked.switch)),
        "unigram_bits_per_byte": bits_per_byte(asked.order, 1),
    }
    (asked.out / "markov.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
