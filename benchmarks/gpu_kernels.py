"""Attention kernels of a GPU against the definition, and what they cost (see ``gpu.py``)."""

import functools
import math
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from octavo.model import cudnn
from octavo.model.kernels import MaskSpec, attention, why_not

BOUND = {"bfloat16": 2e-2, "float32": 2e-3}
"""Of ||found - expected|| / ||expected||; float32 products may be TF32."""


def defined(q, k, v, spec: MaskSpec):
    """Softmax attention in float32 over a dense mask."""
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    t = jnp.arange(q.shape[1])
    seen = jnp.ones((1, len(t), len(t)), bool)
    if spec.causal:
        seen &= t[:, None] >= t
    if spec.window is not None:
        seen &= abs(t[:, None] - t) < spec.window
    if spec.segment_ids is not None:
        seen &= spec.segment_ids[:, :, None] == spec.segment_ids[:, None]
    exact = {"precision": jax.lax.Precision.HIGHEST}
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, **exact) / math.sqrt(q.shape[-1])
    if spec.key_bias is not None:
        scores += spec.key_bias[:, None, None]
    scores = jnp.where(seen[:, None], scores, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    top = jnp.maximum(top, 0) if spec.plus_one else top
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, -1, keepdims=True) + (jnp.exp(-top) if spec.plus_one else 0)
    return jnp.einsum("bhqk,bkhd->bqhd", weights / total, v, **exact)


def ids_of(rows: int, length: int, documents: int):
    """``[rows, length]``: documents of random lengths, and a little padding."""
    draws = np.random.default_rng(documents).integers(1, documents + 1, (rows, length))
    ids = np.sort(draws, axis=1)
    if documents > 1:
        ids[0, -5:] = 0
    return jnp.asarray(ids, jnp.int32)


def cases(length: int):
    """Name, mask, head size."""
    few, many = ids_of(2, length, 5), ids_of(2, length, 2 * cudnn.DOCUMENTS)
    bias = jax.random.normal(jax.random.key(9), (2, length))
    yield "causal", MaskSpec(), 128
    yield "causal, 5 documents", MaskSpec(few), 128
    yield "causal, 5 documents, heads of 64", MaskSpec(few), 64
    yield "causal, 64 documents", MaskSpec(many), 128
    yield "both sides, 5 documents", MaskSpec(few, causal=False), 64
    yield "window 128, 5 documents", MaskSpec(few, window=128), 128
    yield "window 32 to both sides", MaskSpec(many, causal=False, window=32), 32
    yield "key bias, softmax1", MaskSpec(few, key_bias=bias, plus_one=True), 128


def error(found, expected) -> float:
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def parity(length: int) -> dict[str, float]:
    """The worst error of output and gradients of each kernel in each case that it serves. Says
    what lies beyond the bound."""
    backends = ("cudnn", "reference") if jax.default_backend() == "gpu" else ("reference",)
    found = {}
    for name, spec, size in cases(length):
        keys = jax.random.split(jax.random.key(0), 4)
        made = [jax.random.normal(key, (2, length, 4, size)) for key in keys]
        for dtype in (jnp.bfloat16, jnp.float32):
            given = [x.astype(dtype) for x in made]
            expected = pulled(
                lambda *x, s=spec: defined(*x, s), [x.astype(jnp.float32) for x in given]
            )
            for backend in backends:
                if why_not(backend, spec, dtype, size):
                    continue
                kind = jnp.dtype(dtype).name
                label = f"{backend} {kind} {name}"
                try:
                    got = pulled(lambda *x, b=backend, s=spec: attention(*x, s, b), given)
                except Exception as problem:  # told; the other kernels go on
                    found[label + " FAILED " + str(problem)[:200]] = math.nan
                    continue
                worst = max(map(error, got, expected))
                beyond = "" if worst < BOUND[kind] else " BEYOND THE BOUND"
                found[label + beyond] = worst
                print(label + beyond, worst, file=sys.stderr, flush=True)
    return found


def pulled(attend, given: list) -> list:
    """Output and gradients in float32; given: q, k, v, and the output's gradient."""

    def both(q, k, v, gradient):
        mixed, pull = jax.vjp(attend, q, k, v)
        return mixed, *pull(gradient)

    return [x.astype(jnp.float32) for x in jax.jit(both)(*given)]


def milliseconds(run, *given, rounds: int) -> float:
    for _ in range(2):
        jax.block_until_ready(run(*given))
    began = time.perf_counter()
    for _ in range(rounds):
        out = run(*given)
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / rounds * 1e3


def compiled(length: int, rows: int) -> dict[str, tuple]:
    """Attention of flat-100m: its forward pass and that with the backward one, and what they
    take."""
    keys = jax.random.split(jax.random.key(0), 3)
    shape, found = (rows, length, 6, 128), {}
    given = [jax.random.normal(key, shape, jnp.bfloat16) for key in keys]
    backend = "cudnn" if jax.default_backend() == "gpu" else "reference"

    def attend(ids, q, k, v):
        return attention(q, k, v, MaskSpec(ids), backend)

    def both(ids, *given):
        mixed, pull = jax.vjp(functools.partial(attend, ids), *given)
        return pull(mixed)

    def programs(ids):
        return [jax.jit(f).lower(ids, *given).compile() for f in (attend, both)]

    found[f"{backend}, no documents"] = programs(None), (None, *given)
    with_ids = programs(ids_of(rows, length, 1))
    for documents in (1, 5, 20, 60):
        ids = ids_of(rows, length, documents)
        found[f"{backend}, {documents} documents"] = with_ids, (ids, *given)
    return found


def costs(programs: dict[str, tuple], small: bool) -> dict[str, dict[str, float]]:
    """Milliseconds."""
    rounds = 1 if small else 10
    return {
        label: {
            name: milliseconds(run, *given, rounds=rounds)
            for name, run in zip(("forward", "both"), runs, strict=True)
        }
        for label, (runs, given) in programs.items()
    }
