"""Speculative decoding: whoever drafts, the ids are those that come one at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import SomeMarks, batch_of, defined, random_text, shrink
from octavo.configs import presets
from octavo.configs.schema import Config, ConfigError, ModelConfig
from octavo.evaluation.marks import NoMarks
from octavo.model.drafting import (
    EarlyExit,
    FromModules,
    Lookup,
    Now,
    Recycling,
    Smaller,
    WithinUnit,
    own_drafter,
)
from octavo.model.sampling import Acceptance, Loop, Sampling, filtered, generate
from octavo.tokenizers.bytes import BOS, ByteTokenizer

OWN = ("mtp-heads", "mtp-modules", "mtp-registers", "mtp-lookahead", "mtp-spacebyte", "toucan")
CASES = (
    *((name, "own") for name in OWN),
    *(("mtp-heads", name) for name in ("lookup", "recycling", "exit")),
    *((name, "lookup") for name in ("words", "hat", "megabyte", "blt", "aunet", "magnet", "manta")),
    *((name, "lookup") for name in ("hnet-2stage", "mrt5")),
)


@functools.cache
def model_of(name):
    config = shrink(presets()[name])
    return config, *defined(config)


def drafter_of(name, kind):
    config = model_of(name)[0].model
    kinds = {
        "own": lambda: own_drafter(config), "lookup": lambda: Lookup(5), "none": lambda: None,
        "recycling": lambda: Recycling(5), "exit": lambda: EarlyExit(config, 1, 3),
    }  # fmt: skip
    return kinds[kind]()


@functools.cache
def loop_of(name, kind, temperature, count=40):
    """``decode(prompts, seed, eos)``: ids ``[3, count]`` and passes, compiled once."""
    config, definition, params = model_of(name)
    drafter = drafter_of(name, kind)

    def decode(prompts, seed):
        acceptance = Acceptance()
        pieces = generate(
            definition.bind, params, prompts, count, sampling=Sampling(temperature, top_p=0.95),
            seed=seed, bos_id=BOS, eos_id=7, marker=SomeMarks(), chunk=16, drafter=drafter,
            acceptance=acceptance, context=48,
        )  # fmt: skip
        return np.concatenate(list(pieces), axis=1), acceptance

    return decode


PROMPTS = [b"", random_text(1, 20), b"abcabcabca"]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=["-".join(case) for case in CASES])
def test_the_same_ids(name, kind):
    """Sampled, in rows of unequal length and pace, past the context, until each document ends."""
    prompts = [ByteTokenizer().encode(p) for p in PROMPTS]
    plain, _ = loop_of(name, "none", 1.0)(prompts, 3)
    found, acceptance = loop_of(name, kind, 1.0)(prompts, 3)
    assert found.shape == plain.shape
    np.testing.assert_array_equal(found, plain)
    assert acceptance.ids == acceptance.passes + acceptance.accepted <= found.size
    assert acceptance.accepted <= acceptance.drafted


@pytest.mark.parametrize("name", ["mtp-heads", "mtp-spacebyte", "toucan"])
def test_the_same_ids_when_greedy(name):
    prompts = [ByteTokenizer().encode(p) for p in PROMPTS]
    plain, _ = loop_of(name, "none", 0.0)(prompts, 0)
    found, _ = loop_of(name, "own", 0.0)(prompts, 1)
    np.testing.assert_array_equal(found, plain)
