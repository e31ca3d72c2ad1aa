"""The real training step of a 100M model, compiled by the real TPU compiler for 16 chips."""

import dataclasses
import re

import jax
import pytest

from octavo.cli import RunError
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import MTPConfig

pytest.importorskip("libtpu", reason="libtpu is not installed: pip install -e '.[tpu-compile]'")
from octavo.configs.schema import MeshConfig
from octavo.launch.compile import compile_step, lines, told
from octavo.launch.topologies import devices_of, topology
from octavo.model.units.room import row_units
from octavo.run.execution import execution_of
from octavo.run.sharding import make_mesh, narrow

# One process at a time may load the compiler.
pytestmark = pytest.mark.xdist_group("libtpu")

HBM = 15.75 * 2**30
"""What a v5e chip leaves to a program."""


def with_data(config, **changes):
    """The time to compile grows with the bytes of an array, not only with the program."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


@pytest.fixture(scope="session")
def compiled():
    return compile_step(presets()["flat-100m"], "v5e-16")


def test_fits_and_is_sharded(compiled):
    assert compiled.chips == 16
    assert compiled.peak_bytes < HBM
    # 12 bytes a parameter (float32 weights and two moments), over 16 chips, and the batch.
    parameters = 85e6
    assert 12 * parameters / 16 < compiled.argument_bytes < 1.5 * 12 * parameters / 16


def test_attention_is_splash_without_a_dense_mask(compiled):
    length = presets()["flat-100m"].data.length
    assert "tpu_custom_call" in compiled.text
    assert not re.search(rf"\[(\d+,)*{length},{length}(,\d+)*\]", compiled.text)


def test_collectives_are_those_of_fsdp(compiled):
    """Weights are gathered, gradients reduced (rings of permutes or reductions), and no activation
    changes hands."""
    assert compiled.collectives["all-gather"] >= 7
    assert compiled.collectives.keys() >= {"all-reduce"}
    assert compiled.collectives.keys() <= {"all-gather", "all-reduce", "reduce-scatter",
                                           "collective-permute"}  # fmt: skip
    rows = presets()["flat-100m"].data.batch_size // 16
    gathered = re.findall(r"= \(?\w+\[([\d,]+)\]\S* all-gather", compiled.text)
    assert gathered and not any(shape.startswith(f"{rows},4096") for shape in gathered)


def test_the_report(compiled):
    """Weights are gathered twice (forward; backward, that computes it again), in bfloat16, and
    gradients reduced once: bytes by the size of the model. Products by their FLOPs."""
    about = told(compiled, presets()["flat-100m"])
    weights = 2 * 85e6
    moved = {one["kind"]: one["bytes"] for one in about["collectives"]}
    assert moved["all-gather"] == pytest.approx(2 * weights, rel=0.15)
    assert moved["all-reduce"] == pytest.approx(2 * weights, rel=0.15)  # counted twice
    compute = about["compute"]
    assert compute["paid_flops"] == pytest.approx(compute["useful_flops"] * 4 / 3)
    assert sum(compute["seconds"].values()) > compute["paid_flops"] / 197e12
    assert 0.1 < about["mfu"] < 0.75 * about["hfu"] + 1e-9 < 0.75
    starts = {line.split()[0] for line in lines(about)}
    assert starts >= {"memory", "compute", "collective", "step", "MFU"}


def test_two_chips_share_each_row():
    """Fewer rows than chips: the kernel runs over a chip's queries, and of whole rows only keys,
    values and documents are gathered."""
    config = with_data(presets()["flat"], batch_size=2, length=1024)
    config = dataclasses.replace(config, mesh=MeshConfig(1, 2, sequence=2))
    found = compile_step(config, "v5e-4")
    assert "tpu_custom_call" in found.text
    gathered = set(re.findall(r"= \(?\w+\[([\d,]+)\]\S* all-gather", found.text))
    rows = {shape.removeprefix("1,") for shape in gathered if "1024" in shape}
    assert rows == {f"1024,{config.model.heads},{config.model.head_size}", "1024"}


def test_the_mesh_of_a_pod():
    """Shards of a tile at least, neighbours along the axes; and what is said of narrower ones."""
    devices, model = devices_of(topology("v5e-256")), presets()["flat-1b"].model
    mesh = make_mesh(MeshConfig(), devices, model)
    assert dict(mesh.shape) == {"replica": 2, "fsdp": 128, "sequence": 1, "tensor": 1}
    assert narrow(mesh, model) is None
    # A group of 128 is half of the torus: 8 columns, or rows, of 16.
    spans = [len({device.coords[axis] for device in mesh.devices[0].flat}) for axis in (0, 1)]
    assert sorted(spans) == [8, 16]
    whole = make_mesh(MeshConfig(replica=1), devices, model)
    assert whole.shape["fsdp"] == 256
    assert "leaves a device 8 rows of a width of 2048" in str(narrow(whole, model))


def test_chips_with_more_memory_keep_more():
    """Of flat-1b, 10.7 GiB of a v5p's 95; of a chip with 31 or 16 GiB that is too much."""
    config = presets()["flat-1b"]

    def remat(name: str) -> str:
        mesh = make_mesh(config.mesh, devices_of(topology(name)), config.model)
        with jax.set_mesh(mesh):
            return execution_of(config, "tpu", devices=64).remat

    assert [remat(name) for name in ("v5p-128", "v6e-64", "v5e-64")] == ["inner", "full", "full"]


def test_too_big_is_one_sentence():
    config = presets()["flat-100m"]
    model = dataclasses.replace(config.model, layers=48)
    how = dataclasses.replace(config.execution, remat="none")
    config = dataclasses.replace(config, model=model, execution=how)
    config = with_data(config, batch_size=1024)
    with pytest.raises(ConfigError, match="does not fit a chip of v5e-16"):
        compile_step(config, "v5e-16")


def test_unknown_topology():
    with pytest.raises(ConfigError, match="known: .*v5e-16"):
        compile_step(presets()["flat-100m"], "v9-1")


@pytest.mark.parametrize("where", ["Lowered.compile", "Compiled.as_text"])
def test_a_failure_of_the_compiler_is_one_sentence(where, monkeypatch):
    def fail(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nand a page of dumps")

    monkeypatch.setattr(f"jax.stages.{where}", fail)
    config = with_data(presets()["flat"], batch_size=4, length=128)
    with pytest.raises(RunError, match="compiler failed for v5e-4.*INTERNAL: Mosaic failed[^\n]*$"):
        compile_step(config, "v5e-4")


def test_an_hourglass():
    """Units, pools and attention inside words, with rows that no kernel block divides."""
    config = with_data(presets()["words"], batch_size=4)
    # A width that no number of units equals: a mask must not be taken for a matrix of weights.
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=160))
    found = compile_step(config, "v5e-4")
    assert "tpu_custom_call" in found.text
    for length in (config.data.length, row_units(config.model.stages[0], config.data.length)):
        assert not re.search(rf"\[(\d+,)*{length},{length}(,\d+)*\]", found.text)


@pytest.mark.parametrize("name", ["magnet", "manta", "hnet", "mrt5"])
def test_learned_boundaries(name):
    """Noise, routes, scans and soft pools; the delete gate's trunk with a bias of keys."""
    found = compile_step(with_data(presets()[name], batch_size=4), "v5e-4")
    assert "tpu_custom_call" in found.text


def test_memory_of_heads_does_not_grow_with_their_number():
    """Parallel heads, a row of 1024 a chip: one head's logits at a time."""
    flat = with_data(presets()["flat-100m"], batch_size=16, length=1024)
    small = dataclasses.replace(flat.model, width=128, heads=1, layers=3)
    # All chips share one copy: gradients of more heads are to count little.
    flat = dataclasses.replace(flat, mesh=MeshConfig(replica=1))
    needed = []
    for count in (2, 8):
        model = dataclasses.replace(small, mtp=MTPConfig("heads", count=count))
        found = compile_step(dataclasses.replace(flat, model=model), "v5e-16")
        needed.append(found.peak_bytes - found.argument_bytes)
    # Of six more heads, whole weights and their gradients are there at once: 0.2 MB each.
    logits = flat.data.length * 256 * 4
    assert needed[1] - needed[0] < 2 * logits
