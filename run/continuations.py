"""What a run gives texts behind others: the cost of a continuation's bytes given a context's.

Context and continuation are encoded as one text, as they would stand in a document, and the ids of
the continuation are those behind as many as the context alone has (lm-eval counts them so for its
own models). Where no id is left, as a context may end inside an id, they begin with the first that
reaches beyond the context.

Of a text longer than a row the last row's worth is read, whatever the context loses of it; a
continuation longer than a row is read in windows, as a score is.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from octavo.run.branching import Node, branching, size, tree
from octavo.run.score import costs, rows_at_a_time
from octavo.tokenizers.interface import Tokenizer

if TYPE_CHECKING:
    from octavo.run.opened import Run

SHARE = 2
"""What texts share is read once where that makes fewer ids by this factor."""

Pair = tuple[bytes, bytes]
"""A context, and what may follow it."""


class Continuation(NamedTuple):
    """What a model says of one."""

    nats: float
    """What its bytes cost behind the context; of a log-likelihood, the negative."""
    greedy: bool
    """Whether the most likely ids, one after the other, are its ids."""


def cut(tokenizer: Tokenizer, context: bytes, continuation: bytes) -> tuple[np.ndarray, int]:
    """Ids of both as one text, and which is the first of the continuation."""
    ids = tokenizer.encode(context + continuation)
    first = len(tokenizer.encode(context)) if context else 0
    if continuation and first >= len(ids):
        stops = np.cumsum(tokenizer.bytes_per_id()[ids])
        first = int(np.searchsorted(stops, len(context), side="right"))
    return ids, min(first, len(ids))


def continuations(
    run: "Run",
    pairs: Sequence[Pair],
    *,
    overlap: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Continuation]:
    """What the run says of each pair.

    batch_size: rows at a time. overlap: of windows, as in the score. progress is called with the
    pairs that are done, and how many there are.
    """
    encoded, firsts = [], []
    for pair in pairs:
        ids, first = cut(run.tokenizer, *pair)
        encoded.append(ids)
        firsts.append(first)
    found: list = [Continuation(0.0, True)] * len(pairs)  # of no bytes
    shared, texts, nodes, alone = _apart(encoded, firsts, run)
    done = 0

    def keep(numbers: list[int], each: Iterable[Continuation]) -> None:
        nonlocal done
        for i, one in zip(numbers, each, strict=True):
            found[i] = one
        done += len(numbers)
        progress(done, len(pairs))

    if shared:
        assert run.mesh is not None, "what is read lies over a mesh"
        rows = rows_at_a_time(run.mesh, batch_size, len(shared))
        asked = [firsts[i] + 1 for i in shared]
        each = branching(run, texts, asked, nodes, rows, lambda done: progress(done, len(pairs)))
        keep(shared, [Continuation(*one) for one in each])
    if alone:
        asked = [slice(firsts[i], len(encoded[i])) for i in alone]
        how = {"overlap": overlap, "batch_size": batch_size}
        each = costs(run, [encoded[i] for i in alone], asked, **how)
        keep(alone, [Continuation(float(n.sum(dtype=np.float64)), bool(c.all())) for n, c in each])
    return found


def _apart(
    encoded: Sequence[np.ndarray], firsts: Sequence[int], run: "Run"
) -> tuple[list[int], list[np.ndarray], list[Node], list[int]]:
    """Numbers of the texts that are read by what they share, where that is less; they with the id
    of the begin of a document, and their tree. And numbers of those that are read alone, the
    longest first. Those of no ids are in neither."""
    filled = [i for i, first in enumerate(firsts) if len(encoded[i]) > first]
    fitting = [i for i in filled if len(encoded[i]) <= run.length]
    texts = [np.append(run.tokenizer.bos_id, encoded[i]) for i in fitting]
    worth = [
        node for node in tree(texts)
        if SHARE * size([node]) <= sum(len(texts[i]) for i in node.texts)
    ]  # fmt: skip
    chosen = sorted(i for node in worth for i in node.texts)
    shared, texts = [fitting[i] for i in chosen], [texts[i] for i in chosen]
    alone = sorted(set(filled).difference(shared), key=lambda i: -len(encoded[i]))
    return shared, texts, tree(texts), alone
