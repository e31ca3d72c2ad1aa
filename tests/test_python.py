"""A run in Python: octavo.open_run and octavo.train, and the page that shows them."""

import concurrent.futures
import dataclasses
import doctest
import importlib
import json
import math
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

import octavo
from helpers import ROOT, opened, random_text, shrink, words
from octavo import cli, evaluate, generate
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.schema import MeshConfig
from octavo.decoding.sampling import Sampling
from octavo.run.errors import CodecError
from octavo.run.sharding import make_mesh

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run

LONG = words(0, 200)
"""Of more than three rows of training."""


@pytest.fixture(scope="module")
def it(trained):
    return octavo.open_run(trained[0])


@pytest.fixture(scope="module")
def older(trained):
    return octavo.open_run(str(trained[0]), step=10)


def test_importing_is_quick():
    """JAX is imported by the calls, not by the names."""
    code = (
        "import sys, octavo\nassert callable(octavo.train)\n"
        "import octavo.train\nassert callable(octavo.train) and octavo.train.main\n"
        "assert 'jax' not in sys.modules\n"
        "assert octavo.open_run.__name__ == 'open_run'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_is_open(it, older, trained, tiny):
    name = trained[0].name
    assert repr(it) == f"<Run {name} at step 30: 0.04M parameters, bytes>"
    assert older.step == 10 and it.config.model == tiny.model and it.tokenizer.name == "bytes"
    for params in (it.params, older.params):
        assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params))
    for step in (11, 0, -1):
        with pytest.raises(ConfigError, match=f"of step {step}; there are: 10, 20, 30"):
            octavo.open_run(trained[0], step=step)
    with pytest.raises(ConfigError, match="is no run directory"):
        octavo.open_run(trained[0] / "checkpoints")


def test_two_runs_side_by_side(it, older, trained):
    """Neither knows of the other, whatever the order of what they are asked."""
    first, second = it.score(LONG).nats, older.score(LONG).nats
    assert first < second
    texts = [run.generate("the ", 20, seed=2) for run in (it, older, it, older)]
    assert texts[:2] == texts[2:] and texts[0] != texts[1]
    assert [it.score(LONG).nats, older.score(LONG).nats] == [first, second]
    alone = octavo.open_run(trained[0], step=10)
    assert alone.score(LONG).nats == second


@pytest.mark.parametrize("outer", [None, MeshConfig(1, 2, 2)], ids=["none", "of four devices"])
def test_the_callers_mesh_stays(outer, it, trained):
    """Also between two pieces of a text that is drawn."""
    mesh = outer and make_mesh(outer, jax.devices()[4:])
    with jax.set_mesh(mesh):
        before = jax.sharding.get_abstract_mesh()
        assert before.empty == (outer is None)
        [pieces] = it.continuations("the ", 40, Sampling())
        for call in (
            lambda: octavo.open_run(trained[0]),
            lambda: it.score("some text"),
            lambda: it.logits("some text"),
            lambda: it.units("some text"),
            lambda: next(pieces),
            lambda: next(pieces),
            lambda: it.decompress(it.compress("text")),
        ):
            call()
            assert jax.sharding.get_abstract_mesh() == before
    assert jax.sharding.get_abstract_mesh().empty


def test_score_is_that_of_the_command(it, trained, tmp_path):
    (tmp_path / "text").write_bytes(LONG)
    asked = [str(trained[0]), "--text", str(tmp_path / "text")]
    told = evaluate.evaluate(cli.parse(evaluate.Arguments, "evaluate.py", "", asked))
    score = it.score(LONG)
    assert told["nats"] == score.nats and told["bits_per_byte"] == score.bits_per_byte
    assert it.score(LONG.decode()) == score == it.score([LONG])
    # And what train.py said of the documents held out, on a device of its own.
    asked = [str(trained[0]), "--most-bytes", "2000"]
    told = evaluate.evaluate(cli.parse(evaluate.Arguments, "evaluate.py", "", asked))
    final = json.loads((trained[0] / "results.json").read_text())["heldout/bits_per_byte"]
    assert abs(told["bits_per_byte"] - final) < 1e-5


@pytest.mark.parametrize("text", [LONG, "", "ü", b"\xff\x02\x10 a\x00"], ids=repr)
def test_logits_and_surprisal_are_what_is_paid(text, it):
    data = text.encode() if isinstance(text, str) else text
    ids = it.tokenizer.encode(data)
    logits = it.logits(text)
    assert logits.shape == (len(ids) + 1, 256) and logits.dtype == np.float32
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    paid = -log_p[np.arange(len(ids) + 1), np.append(ids, it.tokenizer.eos_id)]
    if not data:
        with pytest.raises(ValueError, match="there is no text to score"):
            it.score(text)
        return
    score = it.score(text)
    assert math.isclose(score.nats, paid.sum(), rel_tol=1e-5)
    (bits,) = score.surprisal
    assert bits.shape == (len(data),)
    np.testing.assert_allclose(bits.sum() + paid[-1] / math.log(2), score.nats / math.log(2))


def test_scores_of_several_texts(it):
    texts = [LONG, "a b", b"\xff"]
    together, alone = it.score(texts), [it.score(text) for text in texts]
    assert math.isclose(together.nats, sum(one.nats for one in alone), rel_tol=1e-6)
    for found, one in zip(together.surprisal, alone, strict=True):
        np.testing.assert_allclose(found, one.surprisal[0], rtol=1e-4, atol=1e-4)


def test_units():
    """Spans cover the text; a rule's end at spaces, learned ones with a probability."""
    text = b"ab cd " + random_text(0, 90)
    spaces = opened(shrink(presets()["pooling-space"])).units(text)
    learned = opened(shrink(presets()["hnet"])).units(text)
    for units in (spaces, learned):
        assert b"".join(text[a:b] for a, b in units.spans) == text
        assert len(units.spans) == units.ends.sum() + (not units.ends[-1])
        assert len(units.surprisal) == len(text)
    assert [text[a:b] for a, b in spaces.spans[:2]] == [b"ab ", b"cd "]
    p = learned.probability
    assert ((p >= 0) & (p <= 1)).all() and (p > 0.5).any()


@pytest.mark.parametrize(
    "wrong", [5, 3.0, None, [1, 2], np.frombuffer(b"ab", np.uint8)], ids=lambda wrong: repr(wrong)
)
def test_what_is_no_text_is_refused(wrong, it):
    """Python would make so many zeros of a number."""
    for call in (it.score, it.logits, it.units, it.generate, it.compress):
        with pytest.raises(TypeError):
            call(wrong)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_in_other_wrappings_are_one_document(kind, it):
    assert it.score(kind(b"abc")) == it.score(b"abc")


def test_numbers_out_of_range_are_refused(it, trained):
    for numbers, said in (
        ({"seed": -1}, "seed lies in"),
        ({"seed": 2**32}, "seed lies in"),  # or it were the text of seed 0
        ({"bytes": -1}, "bytes is 0 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            it.generate("x", **{"bytes": 3} | numbers)
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match="batch_size is 1 or more"):
            it.score("x", batch_size=batch_size)
    for step in (10.0, "10"):  # of which the folder is "10"
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            octavo.open_run(trained[0], step=step)


def test_text_is_that_of_the_command(it, trained, capfdbinary):
    for prompt, seed in (("the qu", 3), ("tr\udcc3", 4)):
        asked = [str(trained[0]), "--prompt", prompt, "--bytes", "30", "--seed", str(seed)]
        generate.generate(cli.parse(generate.Arguments, "generate.py", "", asked))
        shown = capfdbinary.readouterr().out.decode()
        assert shown == it.generate(prompt, bytes=30, seed=seed) + "\n"
        assert shown != it.generate(prompt, bytes=30, seed=seed + 1) + "\n"
    with pytest.raises(ValueError, match="temperature is 0 or more"):
        it.generate("x", temperature=-1)


def test_round_trip(it, older):
    packed = it.compress("très " + LONG.decode())
    assert it.decompress(packed) == "très ".encode() + LONG
    promised = it.score("très " + LONG.decode())
    assert abs(8 * len(packed) - promised.nats / math.log(2)) < 8 * 16 + 64
    with pytest.raises(CodecError, match="another checkpoint"):
        older.decompress(packed)


def test_training_returns_what_came_of_it(tiny, tmp_path, capsys):
    train = dataclasses.replace(tiny.train, steps=3)
    config = dataclasses.replace(tiny, train=train, workdir=str(tmp_path / "run"))
    results = octavo.train(config)
    saved = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results == saved | {"workdir": config.workdir} and results["step"] == 3
    assert jax.sharding.get_abstract_mesh().empty

    assert importlib.import_module("octavo.train") is octavo.train  # the module can be called
    again, spent = octavo.train(config), {"seconds", "evaluation_seconds"}
    assert {k: v for k, v in again.items() if k not in spent} == {
        k: v for k, v in results.items() if k not in spent
    }
    assert "continues at step 3" in capsys.readouterr().out
    assert octavo.open_run(config.workdir).step == 3


@pytest.mark.parametrize("config", [None, "flat", {}], ids=repr)
def test_what_is_no_config_is_refused(config):
    with pytest.raises(ConfigError, match="train takes a Config"):
        octavo.train(config)


@pytest.mark.parametrize(
    "section, name, value, said",
    [
        ("optimizer", "schedule", "none", "optimizer.schedule is 'wsd' or 'cosine', not 'none'"),
        ("execution", "compute_dtype", "float16", "execution.compute_dtype is 'float32' or"),
        ("data", "length", 64.0, "data.length is of type int, not 64.0"),
        ("train", "steps", "3", "train.steps is of type int, not '3'"),
        ("train", "distributed", 1, "train.distributed is of type bool, not 1"),
        ("optimizer", "learning_rate", True, "learning_rate is of type float, not True"),
        ("model", "mixers", "attention", "model.mixers is a tuple of which each is 'attention' or"),
        ("model", "window", "8", "model.window is of type int or None, not '8'"),
    ],
)
def test_a_value_of_another_type_is_refused(section, name, value, said, tiny):
    """By the config itself: a run of it would train, and its folder never open again."""
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(getattr(tiny, section), **{name: value})


def test_sections_and_folders_have_types(tiny, tmp_path):
    for changes, said in (
        ({"model": None}, "model is of type ModelConfig, not None"),
        ({"workdir": tmp_path}, "workdir is of type str or None, not PosixPath"),
    ):
        with pytest.raises(ConfigError, match=f"^{said}"):
            dataclasses.replace(tiny, **changes)


def test_training_in_another_thread(tiny, tmp_path):
    """Where signals cannot be caught."""
    train = dataclasses.replace(tiny.train, steps=2, evaluation_bytes=0, sample_bytes=0)
    config = dataclasses.replace(tiny, train=train, workdir=str(tmp_path / "run"))
    with concurrent.futures.ThreadPoolExecutor() as threads:
        assert threads.submit(octavo.train, config).result()["step"] == 2


def test_the_page(tmp_path, monkeypatch):
    """docs/python.md: every block in order, and what it says comes out."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "python.md", None, 0)
    assert len(test.examples) > 25
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said: list[str] = []
    doctest.DocTestRunner(optionflags=flags).run(test, out=said.append)
    assert not said, "".join(said)
