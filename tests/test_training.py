"""One step: sums over parts, skipping, optimizers, schedules; and that a model learns."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import batch_of, shrink, words
from octavo.batch import Batch
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig, MTPConfig
from octavo.configs.schema import (  # fmt: skip
    Config,
    ExecutionConfig,
    MeshConfig,
    OptimizerConfig,
    from_json,
    to_json,
)
from octavo.model import flops
from octavo.model.axes import ActivationRules, ShardingRules
from octavo.model.embeddings.bit_biased import BITS
from octavo.model.entropy import cross_entropy
from octavo.model.lm import Output, _kept
from octavo.run.checkpoint import Checkpoints
from octavo.run.definition import define
from octavo.run.sharding import batch_sharding, check_fits, local_rows, make_mesh, place_batch
from octavo.tokenizers.bytes import BYTES, ByteTokenizer
from octavo.training import optimizers
from octavo.training.objective import boundary_nats, entropy_spikes, objective
from octavo.training.optimizer import learning_rate, make_optimizer
from octavo.training.optimizers.adamw import VECTORS
from octavo.training.trainer import Trainer

SMALL = Config(model=ModelConfig(width=32, layers=2, heads=2))


def change(config, **sections):
    return dataclasses.replace(
        config,
        **{k: dataclasses.replace(getattr(config, k), **v) for k, v in sections.items()},
    )


class Training:
    """A config's training on one device, and its state."""

    def __init__(self, config, steps=100):
        config = change(config, train={"steps": steps})
        self.of = Trainer.of(config, ByteTokenizer(), devices=jax.devices()[:1])
        with jax.set_mesh(self.of.mesh):
            self.state = self.of.fresh()

    def run(self, batch):
        with jax.set_mesh(self.of.mesh):
            self.state, metrics = self.of.step(self.state, batch._asdict())
            return {name: float(value) for name, value in metrics.items()}

    def params(self):
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self.state["params"])]


def rows(seed, count=8, length=64):
    return batch_of([words(seed * 100 + i, length - 1 - 5 * (i % 3)) for i in range(count)], length)


def test_accumulation_changes_nothing():
    whole, parts = Training(SMALL), Training(change(SMALL, train={"accumulation": 4}))
    for seed in range(3):
        a, b = whole.run(rows(seed)), parts.run(rows(seed))
        for name in a:
            assert math.isclose(a[name], b[name], rel_tol=1e-5), name
    for a, b in zip(whole.params(), parts.params(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_state_is_donated():
    trainer = Training(SMALL)
    before = jax.tree.leaves(trainer.state)
    trainer.run(rows(0))
    assert all(leaf.is_deleted() for leaf in before)


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    trainer = Training(SMALL)
    trainer.run(rows(0))
    before = trainer.params()
    bad = rows(1)._replace(loss_weights=rows(1).loss_weights * jnp.inf)
    assert [trainer.run(bad)["skipped"] for _ in range(3)] == [1, 2, 3]
    for a, b in zip(before, trainer.params(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(trainer.state["step"]) == 4
    assert trainer.run(rows(2))["skipped"] == 0
    assert any((a != b).any() for a, b in zip(before, trainer.params(), strict=True))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("adamw", {}),
        ("adamw", {"embedding": "bit_biased", "tied_embeddings": True}),
        ("adamw", {"embedding": "one_hot", "width": 256, "layers": 1}),
        ("muon", {"embedding": "one_hot", "width": 256, "layers": 1, "tied_embeddings": True}),
        ("muon", {"activation": "gelu", "tied_embeddings": True}),
        ("muon", {"gated_mlp": True, "activation": "silu", "kv_heads": 1, "qk_norm": False,
                  "window": 16}),
    ],
    ids=str,
)  # fmt: skip
def test_learns_one_batch(name, model):
    """Every part of the model trains: far below the entropy of its bytes after some steps."""
    config = change(
        SMALL, model=model, optimizer={"name": name, "warmup_steps": 5, "learning_rate": 1e-2}
    )
    trainer, batch = Training(config, steps=40), rows(0, count=2)
    first = trainer.params()
    losses = [trainer.run(batch)["loss"] for _ in range(40)]
    assert losses[0] > 4 and losses[-1] < 1, losses[::10]
    assert all((a != b).any() for a, b in zip(first, trainer.params(), strict=True))


def test_bit_biased_follows_its_equation():
    """E'[b] = E[b] + bits(b) A, and A starts at zero."""
    config = change(SMALL, model={"embedding": "bit_biased"})
    definition = define(config, BYTES, "cpu")
    params = jax.jit(definition.init)(jax.random.key(0))
    assert not params["embedding"]["bits"].any()
    assert BITS[0b10000011].tolist() == [1, 0, 0, 0, 0, 0, 1, 1]
    params["embedding"]["bits"] = jnp.arange(8 * 32, dtype=jnp.float32).reshape(8, 32)
    found = definition.bind(params).embedding.table()[0b10000011]
    a = params["embedding"]["bits"]
    np.testing.assert_allclose(found, params["embedding"]["rows"][0x83] + a[0] + a[6] + a[7])


def test_bits_are_folded_for_decoding():
    """The same logits, and no bits to add at every step."""
    definition = define(change(SMALL, model={"embedding": "bit_biased"}), BYTES, "cpu")
    params = jax.jit(definition.init)(jax.random.key(0))
    params["embedding"]["bits"] = jax.random.normal(jax.random.key(1), (8, 32))
    folded = definition.apart(params)
    assert folded["embedding"]["bits"] is None
    logits = jax.jit(lambda params: definition.bind(params)(batch_of([words(0, 8)], 64)).logits)
    np.testing.assert_array_equal(logits(params), logits(folded))


def test_the_hash_released_with_blt():
    """By its formula in whole numbers, of documents that share a row; and by hand for "abc":
    101 + 102 p + 103 p^2 = 103000001544000005862, less 6 * 2^64 is -7680462898257303834."""
    text, rest = b"abc" + words(0, 40) + bytes([0, 255]), words(1, 15)
    batch = batch_of([text, rest], 64)
    for rows in (64, 30_000, 500_000, 2**24):
        config = change(SMALL, model={"embedding": "ngram_polynomial", "hash_rows": 64})
        definition = define(config, BYTES, "cpu")
        part = definition.bind(jax.jit(definition.init)(jax.random.key(0))).embedding
        found = np.array(list(part.hashes(batch.tokens, batch.positions, rows)))
        if rows == 500_000:
            assert found[0, 0, 3] == 196_166
        for size, of_size in zip(range(3, 9), found, strict=True):
            expected = []
            for document in (text, rest):
                ids = [0] * (size - 1) + [1] + [byte + 4 for byte in document]
                for at in range(len(document) + 1):
                    code = sum(x * 1_000_000_007**j for j, x in enumerate(ids[at : at + size]))
                    expected.append(((code + 2**63) % 2**64 - 2**63) % rows)
            assert of_size[0, : len(expected)].tolist() == expected


def test_the_released_hash_is_of_bytes():
    config = change(SMALL, model={"embedding": "ngram_polynomial"})
    with pytest.raises(ConfigError, match="hashes bytes"):
        define(config, dataclasses.replace(BYTES, are_bytes=False), "cpu")


def test_dropped_tokens():
    """A share of the embeddings is hidden while training draws, and none when it scores."""
    config = change(SMALL, model={"token_dropout": 0.25})
    definition = define(config, BYTES, "cpu")
    params, batch = jax.jit(definition.init)(jax.random.key(0)), batch_of([words(0, 8)], 64)
    run = jax.jit(lambda params, noise: definition.bind(params)(batch, noise).logits)
    noise = jax.random.logistic(jax.random.key(1), batch.tokens.shape)
    plain = define(SMALL, BYTES, "cpu").bind(params)(batch).logits
    np.testing.assert_allclose(run(params, None), plain, atol=1e-5)
    assert not np.allclose(run(params, noise), plain, atol=1e-2)
    drawn = jax.random.logistic(jax.random.key(2), (100_000,))
    assert abs(float(_kept(drawn, 0.25).mean()) - 0.75) < 0.01
    # Whatever a segmenter makes of the same noise.
    assert abs(float(_kept(drawn, 0.25)[drawn > 1].mean()) - 0.75) < 0.02


def test_schedules():
    def rates(**changes):
        config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, **changes)
        rate = learning_rate(config, 100)
        return np.array([float(rate(step)) for step in range(101)])

    wsd = rates(schedule="wsd", decay_fraction=0.3)
    np.testing.assert_allclose(wsd[:10], np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(wsd[10:71], 1)
    np.testing.assert_allclose(wsd[70:], 1 - np.arange(31) / 30, atol=1e-6)
    cosine = rates(schedule="cosine")
    expected = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(91) / 90)) / 2
    np.testing.assert_allclose(cosine[10:], expected, atol=1e-6)
    short = rates(schedule="wsd", decay_fraction=1.0)  # the warm-up leaves less
    np.testing.assert_allclose(short[10:], 1 - np.arange(91) / 90, atol=1e-6)


def first_updates(optimizer, grads, params):
    return jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])(grads, params)


def test_only_matrices_decay():
    """With no gradient, decay is all that moves: matrices shrink, gains stay."""
    config = OptimizerConfig(weight_decay=0.5, warmup_steps=1, learning_rate=0.1)
    definition = define(SMALL, BYTES, "cpu")
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), definition.abstract)
    for name in ("adamw", "muon"):
        optimizer = make_optimizer(dataclasses.replace(config, name=name), 10, definition.names)
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates = first_updates(optimizer, zeros, params)
        for path, update in jax.tree.leaves_with_path(updates):
            gain = "gain" in jax.tree_util.keystr(path)
            np.testing.assert_allclose(update, 0 if gain else -0.05, atol=1e-6, err_msg=str(path))


def test_vectors_do_not_decay():
    """Of null units, prefixes, registers: learned as they are, though they lie in matrices."""
    config = OptimizerConfig(weight_decay=0.5, warmup_steps=1, learning_rate=0.1)
    seen = set()
    for name in ("words", "hat-released", "manta", "mtp-registers", "hybrid"):
        definition = define(shrink(presets()[name]), BYTES, "cpu")
        params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), definition.abstract)
        optimizer = make_optimizer(config, 10, definition.names)
        updates = first_updates(optimizer, jax.tree.map(jnp.zeros_like, params), params)
        for path, update in jax.tree.leaves_with_path(updates):
            if (last := path[-1].key) in VECTORS:
                seen.add(last)
                np.testing.assert_array_equal(update, 0, err_msg=str(path))
    assert seen == set(VECTORS)


def test_multipliers_of_the_learning_rate():
    """Parts move by their factor of what they would, the later of two that fit; matrices in
    proportion to how wide they were meant to be. Nothing else changes."""
    definition = define(shrink(presets()["hnet-2stage"]), BYTES, "cpu")
    params = jax.jit(definition.init)(jax.random.key(0))
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)

    def updates(**changes):
        config = OptimizerConfig(warmup_steps=1, weight_decay=0.0, **changes)
        found = first_updates(make_optimizer(config, 10, definition.names), grads, params)
        return jax.tree.leaves_with_path(found)

    plain = updates()
    named = ("level0=2", "level1=0.5", "embedding=3", "segmenters=0.25", "norms=1")
    for (path, a), (_, b) in zip(plain, updates(multipliers=named), strict=True):
        keys = [key.key for key in path]
        factor = [2.0, 0.5, 1.0][keys.count("inner")]
        factor = 3.0 if keys[0] == "embedding" else factor
        factor = 0.25 if "segmenter" in keys else factor
        factor = 1.0 if keys[-1] == "gain" else factor
        np.testing.assert_allclose(b, factor * a, rtol=1e-5, err_msg=str(keys))
    for (path, a), (_, b) in zip(plain, updates(base_width=8), strict=True):
        keys = [key.key for key in path]
        factor = 8 / a.shape[-2] if "blocks" in keys and keys[-1] == "weight" else 1
        np.testing.assert_allclose(b, factor * a, rtol=1e-5, err_msg=str(path))


def test_base_width_is_for_adamw():
    definition = define(SMALL, BYTES, "cpu")
    with pytest.raises(ConfigError, match="not for muon"):
        make_optimizer(OptimizerConfig(name="muon", base_width=64), 10, definition.names)


@pytest.mark.parametrize("wrong", ["level7=2", "mtp=2"])
def test_multipliers_of_what_is_not_there(wrong):
    definition = define(SMALL, BYTES, "cpu")
    with pytest.raises(ConfigError, match="the model has no"):
        make_optimizer(OptimizerConfig(multipliers=(wrong,)), 10, definition.names)


@pytest.mark.parametrize("wrong", ["level0", "embedding=", "trunk=2", "head=-1", "head=1e999"])
def test_wrong_multipliers(wrong):
    with pytest.raises(ConfigError, match="multipliers are as embedding=0.5"):
        OptimizerConfig(multipliers=(wrong,))


@pytest.mark.parametrize("kind", ["linear", "heads", "modules"])
def test_muon_leaves_heads_to_adamw(kind):
    """Stacked heads over the vocabulary, too: only the blocks' own matrices are orthogonalized."""
    config = change(SMALL, model={"mtp": MTPConfig(kind, count=3)}, optimizer={"name": "muon"})
    definition = define(config, BYTES, "cpu")
    state = make_optimizer(config.optimizer, 10, definition.names).init(definition.abstract)
    moved = jax.tree.leaves_with_path(state.inner_states["muon"])
    paths = [jax.tree_util.keystr(path) for path, leaf in moved if leaf.ndim == 3]
    assert paths and all("'blocks'" in path or "'joins'" in path for path in paths), paths


def test_muon_orthogonalizes():
    definition = define(SMALL, BYTES, "cpu")
    config = OptimizerConfig(name="muon", weight_decay=0, warmup_steps=1, learning_rate=1.0)
    optimizer = make_optimizer(config, 10, definition.names)
    params = jax.jit(definition.init)(jax.random.key(0))
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    updates = first_updates(optimizer, grads, params)
    singular = jnp.linalg.svd(updates["trunk"]["stack"]["blocks"]["mlp"]["up"]["weight"][1])[1]
    singular /= 0.2 * 128**0.5
    assert 0.5 < float(singular.min()) and float(singular.max()) < 1.4


def test_an_optimizer_is_one_file(tmp_path, monkeypatch):
    """Of factored statistics, which have not their parameters' shapes: it trains, sharded as
    unsharded, and goes on from a checkpoint."""
    (tmp_path / "factored.py").write_text(
        "import optax\n"
        "from octavo.training.optimizers import adamw\n"
        "def transforms(config, rate):\n"
        "    factored = optax.adafactor(rate, min_dim_size_to_factor=8)\n"
        "    return adamw.transforms(config, rate) | {'factored': factored}\n"
    )
    monkeypatch.setattr(optimizers, "__path__", [*optimizers.__path__, str(tmp_path)])
    config = change(SMALL, optimizer={"name": "factored"}, data={"length": 64, "batch_size": 8})
    config = change(config, optimizer={"learning_rate": 1e-2, "warmup_steps": 2})
    host = {name: np.asarray(field) for name, field in rows(0)._asdict().items()}

    def trainer(devices, mesh):
        return Trainer.of(
            dataclasses.replace(config, mesh=mesh), ByteTokenizer(), devices=jax.devices()[:devices]
        )

    def losses(it, steps, restored=False):
        with jax.set_mesh(it.mesh):
            state = it.fresh() if not restored else Checkpoints(tmp_path, 1).restore(
                it.abstract, {}, it.meta, warn=pytest.fail)  # fmt: skip
            found = []
            for _ in range(steps):
                state, metrics = it.step(state, it.place(host))
                found.append(float(metrics["loss"]))
        shapes = {leaf.shape for leaf in jax.tree.leaves(state["opt"])}
        assert {(2, 32), (2, 128)} <= shapes, "nothing is factored"
        return state, found

    _, alone = losses(trainer(1, MeshConfig()), 4)
    it = trainer(8, MeshConfig(2, 2, 2))
    state, found = losses(it, 2)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(state, {}, it.meta)
    checkpoints.wait()
    checkpoints.close()
    _, rest = losses(it, 2, restored=True)
    np.testing.assert_allclose(found + rest, alone, rtol=1e-4)
    assert alone[-1] < alone[0] - 0.1
    with pytest.raises(ConfigError, match="no optimizer.name 'factord'. Did you mean factored?"):
        Trainer.of(change(SMALL, optimizer={"name": "factord"}), ByteTokenizer())


def test_cross_entropy_and_z_loss():
    logits = jax.random.normal(jax.random.key(0), (2, 64, 256)) * 5
    batch = rows(0, count=2)
    nats, log_normalizer = cross_entropy(logits, batch.targets)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-5)
    sizes = jnp.asarray(ByteTokenizer().bytes_per_id())
    plain, sums = objective(Output(logits), batch, sizes, SMALL)
    with_z, _ = objective(Output(logits), batch, sizes, change(SMALL, train={"z_loss": 0.1}))
    z = float(jnp.sum(log_normalizer**2 * batch.loss_weights))
    assert math.isclose(float(with_z - plain), 0.1 * z, rel_tol=1e-4)
    documents = 2
    assert float(sums["targets"]) == float(sums["bytes"]) + documents


def test_a_predicted_segmenter_pays():
    """Binary cross-entropy of log-odds, towards marks or towards rises of the model's entropy."""
    odds = jnp.array([[-2.0, 0.0, 3.0]])
    target = jnp.array([[True, False, True]])
    p = jax.nn.sigmoid(odds)
    expected = -jnp.log(jnp.where(target, p, 1 - p))
    np.testing.assert_allclose(boundary_nats(odds, target), expected, rtol=1e-6)
    # The sharper the logits, the lower the entropy: 0, high, low, high, higher, low.
    sharp = jnp.array([[9.0, 1.0, 5.0, 3.0, 2.0, 4.0]])
    logits = sharp[..., None] * jnp.array([1.0, 0.0, 0.0])
    spikes = entropy_spikes(logits, jnp.arange(6)[None])
    assert spikes.tolist() == [[True, True, False, False, True, False]]
    restarted = entropy_spikes(logits, jnp.array([[0, 1, 2, 0, 1, 2]]))
    assert restarted.tolist() == [[True, True, False, True, True, False]]


@pytest.mark.parametrize(
    "model",
    [ModelConfig(), ModelConfig(gated_mlp=True, kv_heads=2), ModelConfig(window=256),
     ModelConfig(tied_embeddings=True, embedding="one_hot", width=256)],
    ids=["plain", "gated", "window", "one_hot"],
)  # fmt: skip
def test_flops_agree_with_the_compiler(model):
    """The formula against XLA's count of an unscanned forward pass, where attention is dense
    in blocks of 128 (so the causal half and the window are approximate)."""
    length = 512
    model = dataclasses.replace(model, layers=2)
    config = Config(model=model, execution=ExecutionConfig(scan_layers=False))
    definition = define(config, BYTES, "cpu")
    shape = jax.ShapeDtypeStruct((1, length), jnp.int32)
    batch = Batch(*(shape,) * 6)
    run = jax.jit(lambda params, batch: definition.bind(params)(batch).logits)
    counted = run.lower(definition.abstract, batch).compile().cost_analysis()["flops"] / length
    assert 0.85 < flops.forward_flops(config.model, 256, length) / counted < 1.02


@pytest.mark.parametrize(
    ("mesh", "said"),
    [(MeshConfig(1, 3), "3 does not divide the 8 devices; nearest that does: 2 or 4"),
     (MeshConfig(1, 4), "make 4 devices, but there are 8; set one axis to -1"),
     (MeshConfig(), "accumulation 12 is no multiple of .* mesh.fsdp 8.* Ask for 8 or 16 rows"),
     (MeshConfig(1, -1, 8), "mesh.tensor 8 does not divide model.heads 4"),
     (MeshConfig(), "Ask for .* rows, or let N devices share each row with --mesh.sequence"),
     (MeshConfig(1, 1, sequence=8), "mesh.sequence 8 does not divide data.length 1028; .* 4 or 2"),
     (MeshConfig(1, 1, sequence=3), "mesh.sequence 3, mesh.tensor 1: 3 does not divide the 8")],
)  # fmt: skip
def test_a_mesh_that_does_not_divide(mesh, said):
    with pytest.raises(ConfigError, match=said):
        check_fits(make_mesh(mesh), Config().model, rows=12, length=1028)


@pytest.mark.parametrize(
    ("mesh", "width", "sizes"),
    [(MeshConfig(), 128, (1, 8, 1, 1)), (MeshConfig(), 64, (2, 4, 1, 1)),
     (MeshConfig(), 8, (8, 1, 1, 1)), (MeshConfig(tensor=2), 32, (2, 2, 1, 2)),
     (MeshConfig(fsdp=2), 64, (4, 2, 1, 1)), (MeshConfig(1, -1), 64, (1, 8, 1, 1)),
     (MeshConfig(-1, 8), 64, (1, 8, 1, 1)), (MeshConfig(sequence=2), 64, (2, 2, 2, 1))],
)  # fmt: skip
def test_the_mesh_where_it_is_left_open(mesh, width, sizes):
    """A tile of every width for each that shares the parameters; what is asked for stays."""
    model = dataclasses.replace(presets()["words"].model, width=128)
    narrow = dataclasses.replace(model, stages=(dataclasses.replace(model.stages[0], width=width),))
    assert tuple(make_mesh(mesh, model=narrow).shape.values()) == sizes


@pytest.mark.parametrize(
    ("mesh", "said"),
    [(MeshConfig(1, 2, 4), "mesh.tensor 4 does not divide model.stages.0.heads 2"),
     (MeshConfig(1, 3, 1), "mesh.fsdp 3 does not divide model.stages.0.width 64"),
     (MeshConfig(1, 3, 1, 2), "x mesh.sequence 6 does not divide model.stages.0.width 64")],
)  # fmt: skip
def test_a_mesh_must_divide_every_level(mesh, said):
    words = dataclasses.replace(presets()["words"].model, width=144)
    devices = jax.devices()[: mesh.fsdp * mesh.tensor * mesh.sequence]
    with pytest.raises(ConfigError, match=said):
        check_fits(make_mesh(mesh, devices), words, rows=24, length=64)


def test_axes_that_collide_are_refused():
    rules = dataclasses.replace(ShardingRules(), mlp="fsdp")
    assert rules.spec(("layers", "mlp", "heads")) == jax.P(None, "fsdp", "tensor")
    with pytest.raises(ConfigError, match="mesh.fsdp cannot split both embed and mlp"):
        rules.spec(("embed", "mlp"))
    with pytest.raises(
        ConfigError, match="mesh.sequence cannot split both positions and positions"
    ):
        ActivationRules().spec(("rows", "positions", "positions"))


def test_each_device_is_given_its_rows_and_positions():
    """More devices than rows."""
    mesh = make_mesh(MeshConfig(1, 2, sequence=4))
    batch = {"tokens": np.arange(4 * 8).reshape(4, 8)}
    lie = batch_sharding(mesh)
    np.testing.assert_array_equal(local_rows(lie, (4, 8)), np.arange(4))
    placed = place_batch(lie, batch, np.arange(4), 4)["tokens"]
    np.testing.assert_array_equal(placed, batch["tokens"])
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 2)}


def test_memory_and_what_is_gathered_where_rows_are_shared():
    """Of activations, only keys and values are whole rows on any device."""

    def compiled(mesh):
        config = change(SMALL, data={"length": 1024, "batch_size": 2})
        config = dataclasses.replace(config, mesh=mesh)
        devices = jax.devices()[: mesh.fsdp * mesh.sequence]
        it = Trainer.of(config, ByteTokenizer(), devices=devices)
        with jax.set_mesh(it.mesh):
            return it.step.lower(it.abstract, it.abstract_batch()).compile()

    whole, shared = compiled(MeshConfig(1, 2)), compiled(MeshConfig(1, 2, sequence=4))
    heads, size = SMALL.model.heads, SMALL.model.head_size
    gathered = set(re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", shared.as_text()))
    assert {shape for shape in gathered if "1024" in shape} == {f"1,1024,{heads},{size}", "1,1024"}
    used = [found.memory_analysis().temp_size_in_bytes for found in (whole, shared)]
    assert used[1] < 0.5 * used[0]


def test_config_survives_json():
    config = change(SMALL, optimizer={"name": "muon"}, train={"seed": 3})
    for one in (config, *presets().values()):
        assert from_json(to_json(one)) == one


def test_bfloat16_is_close():
    """Same losses as float32 to bfloat16's precision; parameters and moments stay float32."""
    exact = Training(SMALL)
    rough = Training(change(SMALL, execution={"compute_dtype": "bfloat16"}))
    for seed in range(5):
        a, b = exact.run(rows(seed)), rough.run(rows(seed))
        assert math.isclose(a["loss"], b["loss"], rel_tol=1e-2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(rough.state)} == {"float32", "int32"}
