"""What continuations cost behind contexts, against scores of the whole."""

import dataclasses

import jax
import numpy as np
import pytest

import octavo
from helpers import forward, opened, shrink, words
from octavo.batch import FIELDS, Batch
from octavo.configs import presets
from octavo.configs.schema import MeshConfig
from octavo.run import branching
from octavo.run import continuations as its
from octavo.run.continuations import cut
from octavo.run.rows import windows
from octavo.run.sharding import make_mesh
from octavo.tokenizers.bpe import BPETokenizer

CONTEXT = "the quick bröwn fox jumps ".encode()
SHARED = [(CONTEXT, more) for more in (b"over", b"lazy dog", b"\xc3", b"")]
ALONE = [(b"", b"the end"), (b"x\xc3", b"\xa9 a"), (b"a", words(0, 100)), (b"the", b" ")]


def check(run, pairs, batch_size=1):
    """Against the score of the whole, without what the context's ids cost."""
    found = run.costs(pairs, batch_size=batch_size)
    encoded, firsts = zip(*(cut(run.tokenizer, *pair) for pair in pairs), strict=True)
    whole = run.predictions(list(encoded), batch_size=batch_size)
    for pair, one, first, said in zip(pairs, found, firsts, whole, strict=True):
        part = slice(first, len(said.nats) - 1)
        assert one.nats == pytest.approx(said.nats[part].sum(), abs=2e-4), pair
        assert one.greedy == said.correct[part].all(), pair


def test_every_preset(preset, monkeypatch):
    """Ends inside characters, empty contexts, and more than a row of continuation."""
    monkeypatch.setattr(its, "SHARE", np.inf)
    check(opened(preset), [*SHARED, *ALONE])


@pytest.mark.parametrize("name", ["hnet-2stage", "blt", "hybrid"])
def test_shared(name, monkeypatch):
    """What texts share is read once: parts of contexts, contexts with and without what follows; in
    passes that are shorter than it, of fewer rows than texts."""
    config = shrink(presets()[name])
    execution = dataclasses.replace(config.execution, compute_dtype="float32")
    run = opened(dataclasses.replace(config, execution=execution))
    monkeypatch.setattr(its, "SHARE", 0)
    monkeypatch.setattr(branching, "WIDTHS", (8, 16))
    many = [(b"and the lazy", f" dog {i}".encode()) for i in range(5)]
    check(run, [*SHARED, *many, *ALONE, (b"and the lazy fox", b"!"), SHARED[0]], batch_size=4)


def test_what_is_shared():
    """Texts that begin alike are read by that, where it halves what is read; others beside them are
    not."""
    run = opened(shrink(presets()["flat"]))
    many = [(b"and the lazy", f" {word}".encode()) for word in ("dog", "cat", "fox", "hen")]
    pairs = [(b"fox jumps", b" over"), *many, (b"the quick brown", b" fox"), (b"and", b"")]
    encoded, firsts = zip(*(cut(run.tokenizer, *pair) for pair in pairs), strict=True)
    shared, texts, nodes, alone = its._apart(encoded, firsts, run)
    assert shared == [1, 2, 3, 4] and sorted(alone) == [0, 5] and len(nodes) == 1
    assert branching.size(nodes) * 2 <= sum(map(len, texts))


@pytest.mark.xdist_group("trained")
def test_on_eight_devices(trained):
    """As on one."""
    run = octavo.open_run(trained[0])
    assert run.mesh is not None and run.mesh.size == 8
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    alone = dataclasses.replace(run, params=jax.device_get(run.params), mesh=mesh)
    for one, other in zip(run.costs(SHARED + ALONE), alone.costs(SHARED + ALONE), strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-4) and one.greedy == other.greedy


def test_long_contexts():
    """The last row's worth is read, from the middle of the text."""
    run = opened(shrink(presets()["flat"]))
    context, more, length = words(1, 200), b" dog", run.length
    ids = run.tokenizer.encode(context + more).astype(np.int32)
    fields = {name: np.ones((1, length), np.int32) for name in FIELDS}
    fields |= {"tokens": ids[None, -length - 1 : -1], "targets": ids[None, -length:]}
    fields |= {"positions": np.arange(length)[None], "marks": np.zeros((1, length), np.int32)}
    logits = forward(run.definition)(run.params, Batch(**fields).widen())[0, -len(more) :]
    log_p = np.asarray(jax.nn.log_softmax(logits))
    [found] = run.costs([(context, more)])
    assert found.nats == pytest.approx(-log_p[np.arange(len(more)), ids[-len(more) :]].sum(), 1e-4)


def test_windows():
    """All that is asked, once; together where they can be."""
    assert list(windows(slice(0, 9), 10, 5)) == [(0, 0, 9)]
    assert list(windows(slice(0, 17), 10, 4)) == [(0, 0, 10), (6, 10, 16), (12, 16, 17)]
    assert list(windows(slice(12, 17), 10, 4)) == [(7, 12, 17)]
    assert list(windows(slice(3, 17), 10, 4)) == [(0, 3, 10), (6, 10, 16), (12, 16, 17)]


def test_ids_of_a_continuation():
    """Those behind as many as the context alone has; if none are left, from the one that reaches
    beyond it."""
    pieces = [b"ab", b"abc", b"cd", b"abcd"]
    tokenizer = BPETokenizer([bytes([i]) for i in range(256)] + pieces)
    for context, more, first in (
        (b"ab", b"cd", None), (b"x", b"ab", 1), (b"", b"ab", 0), (b"xab", b"", 2), (b"a", b"b", 0),
    ):  # fmt: skip
        ids, found = cut(tokenizer, context, more)
        before = len(tokenizer.encode(context))
        wanted = (before if before < len(ids) else 0) if first is None else first
        assert found == wanted, (context, more, ids)
