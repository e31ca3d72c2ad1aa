"""Drafters against plain decoding, one text at a time, side by side in one run:

    python benchmarks/speculative.py RUN [--small RUN] [--temperature T] [--bytes N]

RUN decodes the continuation of held-out documents of its corpus id by id, then with each drafter
that goes with it; drafters take turns. Tells ids per second, ids per pass of the model, the ratio
to plain decoding (median over prompts), and whether the text was the same.
"""

import argparse
import statistics
import time
from types import SimpleNamespace

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from octavo import cli
from octavo.configs.checks import ConfigError
from octavo.data.heldout import heldout_documents
from octavo.data.pipeline import parse_source
from octavo.data.shards import Corpus
from octavo.decoding.drafting import Plain
from octavo.decoding.sampling import Loop, Sampling
from octavo.generate import drafter_for
from octavo.run.opened import open_run

PROMPT = 200
"""Bytes of each document that are read."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run")
    parser.add_argument("--small", help="run of a smaller model, for rejection sampling")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--bytes", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=5)
    given = parser.parse_args()
    run = open_run(given.run)
    corpus = Corpus(parse_source(run.config.data.source)[0][0])
    held = heldout_documents([corpus], 1 << 20)
    documents = (run.tokenizer.encode(one.text) for one in held)
    prompts = [ids[:PROMPT] for ids in documents if len(ids) >= PROMPT][: given.prompts]
    width = 1 << PROMPT.bit_length()
    loops = {}
    for name in ("none", "own", "auto", "lookup", "recycling", "exit:1", given.small):
        try:
            asked = SimpleNamespace(speculative=name, draft=7, run=given.run)
            drafter = drafter_for(asked, run) if name else None
            drafter = Plain() if name == "none" else drafter
        except ConfigError as error:
            print(f"left out {name}: {error}")
            continue
        if drafter is None:
            continue
        slots = 1 << (PROMPT + 1 + given.bytes + 8).bit_length()
        loops[name] = loop, params = (
            Loop(
                run.definition.bind, run.marker, drafter, Sampling(given.temperature), -1,
                run.length, given.bytes, slots,
            ),
            (run.apart, run.marker.params, drafter.params),
        )  # fmt: skip

    def decode(loop, params, prompt):
        tokens = np.full((1, width), run.tokenizer.bos_id, np.int32)
        tokens[0, 1 : PROMPT + 1] = prompt
        lengths = np.array([PROMPT + 1], np.int32)
        with jax.set_mesh(run.mesh):
            state = jax.block_until_ready(loop.start(params, tokens, lengths, jax.random.key(0)))
            began = time.perf_counter()
            state = jax.block_until_ready(loop.proceed(params, state, given.bytes))
            seconds = time.perf_counter() - began
        ids = np.asarray(state["ids"][0])[PROMPT + 1 : PROMPT + 1 + given.bytes]
        return seconds, int(state["counts"][0]), ids

    found = {name: [] for name in loops}
    for loop, params in loops.values():
        decode(loop, params, prompts[0])  # compiles
    for prompt in prompts:
        for name, (loop, params) in loops.items():
            found[name].append(decode(loop, params, prompt))
    table = Table("drafter", "bytes/s", "ids a pass", "speed-up", "same text")
    for name, results in found.items():
        pairs = list(zip(found["none"], results, strict=True))
        ratio = statistics.median(plain[0] / own[0] for plain, own in pairs)
        seconds, passes = (sum(r[i] for r in results) for i in (0, 1))
        total = given.bytes * len(results)
        same = all(np.array_equal(plain[2], own[2]) for plain, own in pairs)
        table.add_row(
            name, f"{total / seconds:.0f}", f"{total / passes:.2f}", f"{ratio:.2f}", str(same)
        )
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
