"""What texts cost that begin alike: what several share is read once, with a cache.

Texts in order are a tree. A node of it, ids that all texts behind it share, is read behind what
stands before it; several nodes at a time, each in a row of a cache, in two widths alone: few
programs are compiled, whatever the texts.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from octavo.model.entropy import cross_entropy
from octavo.model.layers import take
from octavo.run.rows import row_axes
from octavo.run.sharding import batch_sharding, place_batch

if TYPE_CHECKING:
    from octavo.run.opened import Run

LEAST = 6
"""Ids that are worth a node of their own."""
WIDTHS = 16, 64
"""Positions of each row that are read at a time."""


@dataclass
class Node:
    """Ids ``start`` to ``stop`` of texts, by their numbers, which are the same in all of them."""

    start: int
    stop: int
    texts: Sequence[int]
    nodes: "list[Node]" = field(default_factory=list)


def tree(texts: list[np.ndarray]) -> list[Node]:
    """The first nodes of what holds all texts. Fewer than ``LEAST`` ids are not shared."""
    order = sorted(range(len(texts)), key=lambda i: texts[i].astype(">u4").tobytes())
    common = [0] + [_common(texts[a], texts[b]) for a, b in zip(order, order[1:], strict=False)]

    def grown(start: int, low: int, high: int) -> list[Node]:
        """Of texts ``low`` to ``high`` of the order, which share all before ``start``."""
        found, begin = [], low
        while begin < high:
            end = begin + 1
            while end < high and common[end] >= start + LEAST:
                end += 1
            stop = min(common[begin + 1 : end], default=len(texts[order[begin]]))
            node = Node(start, stop, order[begin:end])
            # A text that ends here comes before those that go on.
            while begin < end and len(texts[order[begin]]) == stop:
                begin += 1
            node.nodes = grown(stop, begin, end)
            found.append(node)
            begin = end
        return found

    return grown(0, 0, len(texts))


def size(nodes: list[Node]) -> int:
    """Ids to read."""
    return sum(node.stop - node.start + size(node.nodes) for node in nodes)


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """With how many ids both begin."""
    least = min(len(one), len(other))
    differ = one[:least] != other[:least]
    return int(differ.argmax()) if differ.any() else least


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _empty(bind: Callable, marker, slots: int, rows: int, params: tuple) -> dict:
    """Rows of a cache. params: of the model and the marker."""
    model = bind(params[0])
    return {
        "cache": model.init_cache(rows, slots),
        "marked": marker.init_cache(rows, slots),
        "logits": jnp.zeros((rows, model.vocabulary.size)),  # behind the newest id
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _read(
    bind: Callable, mesh: Mesh, marker, slots: int, params: tuple, pool: dict, sources: jax.Array,
    valid: jax.Array, tokens: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], dict]:  # fmt: skip
    """Rows ``sources [B]`` of a pool, continued by ``valid [B]`` of tokens ``[B, N]``: what each
    token costs in nats, and whether it was the most likely; and the pool of these rows."""
    axes = row_axes(lambda rows: _empty(bind, marker, slots, rows, params))
    pool = jax.tree.map(lambda leaf, axis: jnp.take(leaf, sources, axis), pool, axes)
    marks, marked = marker.extend(params[1], tokens, pool["marked"], valid)
    logits, cache = bind(params[0]).extend(tokens, pool["cache"], marks, valid)
    before = jnp.concatenate([pool["logits"][:, None], logits], axis=1)
    newest = take(before, valid[:, None])[:, 0]
    nats, _ = cross_entropy(before[:, :-1], tokens)
    found = nats, jnp.argmax(before[:, :-1], axis=-1) == tokens
    found = jax.lax.with_sharding_constraint(found, NamedSharding(mesh, jax.P()))
    return found, {"cache": cache, "marked": marked, "logits": newest}


def branching(
    run: "Run",
    encoded: list[np.ndarray],
    asked: list[int],
    nodes: list[Node],
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[tuple[float, bool]]:
    """Of each text, from which of its ids it is asked: nats, and whether each id was the most
    likely one. encoded: with the id of the begin of a document before each; asked counts it.
    nodes: the ``tree`` of the texts. batch_size: rows at a time, which the mesh divides. progress
    is called with how many texts are done. Raises nothing for texts longer than a row of training:
    all of them is seen.
    """
    assert run.mesh is not None, "what is read lies over a mesh"
    nats, greedy = np.zeros(len(encoded)), np.ones(len(encoded), bool)
    longest = max(map(len, encoded))
    slots = 1 << (longest + WIDTHS[-1] - 1).bit_length()
    params = run.apart, run.marker.params
    sharding, done = batch_sharding(run.mesh), 0

    def read(pool: dict, some: list[tuple[int, Node]]) -> dict:
        """Nodes behind rows of the pool."""
        sources = np.zeros(batch_size, np.int32)
        sources[: len(some)] = [row for row, _ in some]
        lengths = np.zeros(batch_size, np.int32)
        lengths[: len(some)] = [node.stop - node.start for _, node in some]
        costs, hits, begin = [], [], 0
        while begin < lengths.max():
            left = int(lengths.max()) - begin
            width = next((each for each in WIDTHS if each >= left), WIDTHS[-1])
            tokens = np.zeros((batch_size, width), np.int32)
            valid = np.clip(lengths - begin, 0, width)
            for row, (_, node) in enumerate(some):
                at = node.start + begin
                tokens[row, : valid[row]] = encoded[node.texts[0]][at : at + valid[row]]
            placed = place_batch(sharding, {"tokens": tokens}, np.arange(batch_size), batch_size)
            about = run.definition.bind, run.mesh, run.marker, slots
            found, pool = _read(*about, params, pool, sources, valid, placed["tokens"])
            for values, each in zip((costs, hits), found, strict=True):
                values.append(np.asarray(each))
            sources, begin = np.arange(batch_size, dtype=np.int32), begin + width
        for row, (_, node) in enumerate(some):
            of_node = np.concatenate([part[row] for part in costs])[: node.stop - node.start]
            right = np.concatenate([part[row] for part in hits])[: node.stop - node.start]
            for text in node.texts:
                if asked[text] < node.stop:
                    skipped = max(asked[text] - node.start, 0)
                    nats[text] += of_node[skipped:].sum(dtype=np.float64)
                    greedy[text] &= right[skipped:].all()
        return pool

    def visit(pool: dict, nodes: list[tuple[int, Node]]) -> None:
        nonlocal done
        nodes.sort(key=lambda each: each[1].stop - each[1].start)
        for begin in range(0, len(nodes), batch_size):
            some = nodes[begin : begin + batch_size]
            after = read(pool, some)
            further = [(row, each) for row, (_, node) in enumerate(some) for each in node.nodes]
            done += sum(len(encoded[i]) == node.stop for _, node in some for i in node.texts)
            progress(done)
            visit(after, further)

    with jax.set_mesh(run.mesh):
        empty = _empty(run.definition.bind, run.marker, slots, batch_size, params)
        visit(empty, [(0, node) for node in nodes])
    return list(zip(nats.tolist(), greedy.tolist(), strict=True))
