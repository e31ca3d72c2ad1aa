"""A run that begins with the parameters of another."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from helpers import arguments_of, metrics_of, run
from octavo.configs.checks import ConfigError
from octavo.configs.model import MTPConfig
from octavo.run.checkpoint import record_of
from octavo.run.saved import load
from octavo.tokenizers.words import WordTokenizer
from octavo.training.initial import Source, resolved
from octavo.training.trainer import Trainer

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


def beginning(config, source, **train):
    """The config, begun with a run."""
    init = {"init_from": str(source), "steps": 12, "checkpoint_every": 6, "seed": 5} | train
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **init))


def named(tree) -> dict[str, np.ndarray]:
    found = jax.tree.leaves_with_path(tree)
    return {".".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in found}


def state_of(config) -> tuple[Trainer, dict]:
    trainer = Trainer.of(config)
    with jax.set_mesh(trainer.mesh):
        return trainer, trainer.fresh()


def test_parameters_alone_are_taken_over(tiny, trained):
    """Onto the mesh as it is: over eight devices, from a run of one."""
    trainer, state = state_of(beginning(tiny, f"{trained[0]}@20"))
    expected = named(load(trained[0], 20).params)
    assert trainer.mesh.size == 8 and expected.keys() == named(state["params"]).keys()
    for name, leaf in named(state["params"]).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    assert int(state["step"]) == 0 and not any(leaf.any() for leaf in jax.tree.leaves(state["opt"]))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, (state, trainer.abstract))
    assert shardings[0] == shardings[1]
    record = record_of(trained[0], 20)
    assert trainer.origin["step"] == 20 and trainer.meta["origin"] == trainer.origin
    assert int(trainer.origin["parameters"], 16) == record.meta["checksums"]["params"]
    assert f"the parameters of {trained[0]} at step 20" in "".join(trainer.source.said())


def test_what_does_not_fit_is_named_and_allowed_by_name(tiny, trained):
    config = beginning(tiny, trained[0])
    model = dataclasses.replace(
        config.model, mtp=MTPConfig("linear", count=3), tied_embeddings=True
    )
    wider = dataclasses.replace(config, model=model)
    with pytest.raises(ConfigError) as refused:
        Trainer.of(wider)
    said = str(refused.value)
    assert said.count("is missing there") == 1 and said.count("has no place here") == 1, said
    allowed = said.rpartition("--train.init-allow ")[2].rstrip(".").split()
    assert len(allowed) == 2
    half = beginning(wider, trained[0], init_allow=(allowed[0].strip("'"),))
    with pytest.raises(ConfigError, match="does not fit this model"):
        Trainer.of(half)
    train = {"init_allow": tuple(name.strip("'") for name in allowed)}
    trainer, state = state_of(beginning(wider, trained[0], **train))
    drawn, taken = named(state_of(beginning(wider, "", init_from=None))[1]["params"]), 0
    old = named(load(trained[0]).params)
    for name, leaf in named(state["params"]).items():
        fresh = name in trainer.origin["fresh"]
        np.testing.assert_array_equal(leaf, (drawn if fresh else old)[name], err_msg=name)
        taken += not fresh
    assert len(trainer.origin["fresh"]) == len(trainer.origin["left"]) == 1 < taken
    assert any("drawn anew" in line for line in trainer.source.said())


def test_shapes_and_tokenizers_that_differ(tiny, trained):
    config = beginning(tiny, trained[0])
    deeper = dataclasses.replace(config, model=dataclasses.replace(config.model, layers=3))
    with pytest.raises(ConfigError, match=r"up.weight is \[2, 32, 128\] there and \[3, 32, 128\]"):
        Trainer.of(deeper)
    narrow = dataclasses.replace(config.model, width=16, heads=2)
    everything = beginning(dataclasses.replace(config, model=narrow), trained[0], init_allow=("*",))
    mesh = dataclasses.replace(config.mesh, replica=8, fsdp=1)
    with pytest.raises(ConfigError, match="has no parameter that fits"):
        Trainer.of(dataclasses.replace(everything, mesh=mesh))
    with pytest.raises(ConfigError, match="init_allow nope: no parameter is called so"):
        Trainer.of(beginning(tiny, trained[0], init_allow=("head.*", "nope")))
    with pytest.raises(ConfigError, match="of no use without train.init_from"):
        beginning(tiny, "", init_from=None, init_allow=("head.*",))
    definition = Trainer.of(tiny).definition
    with pytest.raises(ConfigError, match="trained on the ids of bytes .*--train.init-allow tok"):
        Source.of(config, WordTokenizer(), definition)
    allowed = beginning(tiny, trained[0], init_allow=("tokenizer",))
    assert Source.of(allowed, WordTokenizer(), definition).origin["fresh"] == []


def test_the_step_is_settled_at_the_start(tiny, trained, tmp_path):
    """So that a run killed before its first checkpoint begins again with the same."""
    source = tmp_path / "with@sign"
    shutil.copytree(trained[0], source)
    config = dataclasses.replace(beginning(tiny, source), workdir=str(tmp_path / "run"))
    first = resolved(config, None)
    assert first.train.init_from == f"{source}@30"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(dataclasses.asdict(first)))
    shutil.copytree(source / "checkpoints" / "30", source / "checkpoints" / "40")
    assert resolved(config, None) == first  # its newest is another now
    other = resolved(beginning(config, f"{source}@10"), None)
    assert other.train.init_from == f"{source}@10"
    for asked, said in ((f"{source}@7", "no checkpoint of step 7; there are: 10, 20"),
                        (tmp_path / "none", "there is no checkpoint to begin with")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            Trainer.of(resolved(beginning(tiny, asked), None))


def test_killed_and_continued(tiny, trained, tmp_path):
    """Before the first checkpoint it begins again; after that the source is not even read."""
    source, whole = tmp_path / "source", tmp_path / "whole"
    shutil.copytree(trained[0], source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    done = run("train.py", "flat", *arguments_of(beginning(tiny, source), whole))
    assert done.returncode == 0, done.stderr
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    origin = json.loads((whole / "results.json").read_text())["origin"]
    assert origin["run"] == str(source) and origin["step"] == 30 and origin["fresh"] == []
    early, late = tmp_path / "early", tmp_path / "late"
    for copy, keeps in ((early, 0), (late, 6)):
        shutil.copytree(whole, copy)
        for step in (6, 12):
            if step > keeps:
                shutil.rmtree(copy / "checkpoints" / str(step))
        lines = (copy / "metrics.jsonl").read_text().splitlines()
        (copy / "metrics.jsonl").write_text("\n".join(lines[: keeps + 3]) + "\n")
        if copy == late:
            source.rename(tmp_path / "elsewhere")
        done = run("train.py", "--workdir", str(copy))
        assert done.returncode == 0, done.stderr
        assert metrics_of(copy) == metrics_of(whole)
    assert json.loads((late / "results.json").read_text())["origin"] == origin
