"""Byteify: the encoder and decoder of a byte model begin as what the embedding and the head of a
subword model are, whose trunk is the one inside.

The first stage of Bolmo (Minixhofer et al. 2025, 2512.15586), made cheap: the trunk is not asked.
It reads ``TEXT`` bytes of the corpus once, as it did before, and gives a state for each subword of
them. From then on subwords are drawn from what its head says at those states, side by side in any
order. The encoder learns the embedding of each; the decoder, after each byte, the distribution of
the next that follows from the head's distribution of the subword: it is distilled exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding

from octavo.batch import Batch
from octavo.configs.schema import MeshConfig
from octavo.data.shards import Corpus
from octavo.model.layers import take
from octavo.model.lm import layout_of
from octavo.run.definition import Definition
from octavo.run.sharding import make_mesh
from octavo.tokenizers.fused import ENDS, FusedTokenizer

TEXT, PIECES = 300_000, 100
STEPS, ROWS, LENGTH, RATE = 2000, 8, 256, 4e-3
ANY = 0.25
"""Share of the subwords that is drawn without the head."""
PARTS = ("embedding", "head", "norm", "trunk.encoder", "trunk.pool", "trunk.unpool.leave",
         "trunk.decoder")  # fmt: skip
"""What is fitted, by the beginning of its name."""


def _everywhere() -> NamedSharding:
    return NamedSharding(jax.sharding.get_mesh(), jax.P())


def _here(leaves: dict) -> dict:
    """What every host has on its first device."""
    if jax.sharding.get_mesh().size > 1:
        leaves = jax.jit(lambda leaves: leaves, out_shardings=_everywhere())(leaves)
    return {path: leaf.addressable_data(0) for path, leaf in leaves.items()}


@dataclass(frozen=True, eq=False)
class Subwords:
    """A flat model of subwords, whose trunk is the one inside a model of fused bytes."""

    tokenizer: FusedTokenizer
    definition: Definition
    """Of the flat model."""
    corpus: Corpus
    """Of fused bytes."""
    length: int
    """Of its rows in training."""
    rows: int
    """That go through it at a time."""

    def spelled(self) -> list[np.ndarray]:
        """Fused ids of each subword; of what stands for no bytes, the edge of a document."""
        of = self.tokenizer.of
        edge = np.array([self.tokenizer.eos_id], np.int32)
        found = [edge] * of.vocab_size
        for id_ in np.flatnonzero(of.bytes_per_id()).tolist():
            found[id_] = np.frombuffer(of.decode(np.array([id_])), np.uint8).astype(np.int32)
            found[id_][-1] += ENDS
        return found

    def states(self, params: dict) -> np.ndarray:
        """``[subwords, D]``: the trunk's states over pieces from all over the text."""
        tokens = self.corpus.tokens
        count = min(PIECES, 1 + tokens // 4096)
        pieces = np.empty((count, min(tokens, TEXT) // count), self.corpus.dtype)
        starts = np.linspace(0, tokens - pieces.shape[1], count).astype(int)
        for start, piece in zip(starts.tolist(), pieces, strict=True):
            self.corpus.read(start, start + len(piece), piece)
        ids = [self.tokenizer.of.encode(self.tokenizer.decode(piece)) for piece in pieces]
        ids = np.concatenate(ids).astype(np.int32)
        times = max(len(ids) // (self.rows * self.length), 1)
        parts = np.resize(ids, (times, self.rows, self.length))
        one = jax.jit(
            lambda params, tokens: self.definition.bind(params)(whole(tokens)).states,
            out_shardings=_everywhere(),
        )
        found = [np.asarray(one(params, part).addressable_data(0), np.float32) for part in parts]
        return np.concatenate(found).reshape(-1, found[0].shape[-1])

    def drawing(self, params: dict) -> Callable[[jax.Array, jax.Array], np.ndarray]:
        """What gives, for states and a key, one subword that follows each state, by the head; some
        are any, as the head says next to nothing of those that the text lacks."""

        @jax.jit
        def draw(part, key):
            odds = self.log_odds(params, part)
            any_ = jax.random.bernoulli(jax.random.fold_in(key, 0), ANY, (len(part), 1))
            odds = jnp.where(any_ & (odds > -jnp.inf), 0, odds)
            return jax.random.categorical(key, odds)

        def drawn(states, key):
            parts = [states[at : at + 4096] for at in range(0, len(states), 4096)]
            found = [draw(part, jax.random.fold_in(key, i)) for i, part in enumerate(parts)]
            return np.concatenate(found)

        return drawn

    def log_odds(self, params: dict, states: jax.Array) -> jax.Array:
        """``[..., subword ids]``: of what stands for bytes, or ends the document."""
        sayable = self.tokenizer.of.bytes_per_id() > 0
        sayable[self.tokenizer.of.eos_id] = True
        return jnp.where(sayable, self.definition.bind(params).logits(states), -jnp.inf)


@dataclass(frozen=True, eq=False)
class Tree:
    """The beginnings of subwords. No subword begins another: its last byte says that it ends."""

    order: np.ndarray
    """``[subwords]``: ids by their spelling."""
    child: np.ndarray
    """``[beginnings, most]``: what may follow a beginning, fused ids; 0 where there is no more."""
    edges: np.ndarray
    """``[beginnings, most + 1]``: where in ``order`` the subwords of each child begin, and the last
    one's end; the end again where there is no more."""
    passed: list[np.ndarray]
    """Of each subword, the beginnings before each of its ids."""

    @classmethod
    def of(cls, spelled: list[np.ndarray]) -> "Tree":
        order = sorted(range(len(spelled)), key=lambda id_: spelled[id_].tolist())
        passed = [np.zeros(len(each), np.int32) for each in spelled]
        found: list[tuple[list[int], list[int]]] = []
        todo = [(0, 0, len(order))]
        while todo:
            depth, low, high = todo.pop()
            children, edges = [], []
            for at in range(low, high):
                passed[order[at]][depth] = len(found)
                here = int(spelled[order[at]][depth])
                if not children or children[-1] != here:
                    children.append(here)
                    edges.append(at)
            edges.append(high)
            todo += [(depth + 1, *edges[i : i + 2]) for i, id_ in enumerate(children) if id_ < ENDS]
            found.append((children, edges))
        most = max(len(children) for children, _ in found)
        child = np.zeros((len(found), most), np.int32)
        edge = np.zeros((len(found), most + 1), np.int32)
        for i, (children, edges) in enumerate(found):
            child[i, : len(children)] = children
            edge[i] = edges[-1]
            edge[i, : len(edges)] = edges
        return cls(np.array(order), child, edge, passed)

    def follows(self, p: jax.Array, beginning: jax.Array) -> jax.Array:
        """Probabilities ``[..., most]`` of each child of beginnings ``[...]``, by those of subwords
        ``[..., subword ids]``."""
        sums = jnp.cumsum(p[..., self.order], axis=-1)
        sums = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums], axis=-1)
        q = jnp.diff(jnp.take_along_axis(sums, jnp.asarray(self.edges)[beginning], axis=-1))
        q = jnp.maximum(q, 0)  # sums are rounded
        return q / jnp.maximum(jnp.sum(q, axis=-1, keepdims=True), 1e-20)


def whole(tokens: jax.Array) -> Batch:
    """Rows ``[B, T]`` of a document each."""
    one = jnp.ones_like(tokens)
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return Batch(tokens, tokens, one, places, one.astype(jnp.float32), 0 * one)


def rows_of(
    spelled: list[np.ndarray], tree: Tree, drawn: np.ndarray, order: np.ndarray, begin: int
) -> dict[str, np.ndarray]:
    """Rows ``[ROWS, LENGTH]`` of drawn subwords: their fused ``tokens``; ``subword``, the id of
    what ends there, -1 elsewhere; ``state``, after which what goes on there was drawn; and the
    ``beginning`` of it that is there."""
    tokens = np.full((ROWS, LENGTH + 1), begin, np.int32)
    subword, state = np.full((2, ROWS, LENGTH), -1, np.int32)
    beginning = np.zeros((ROWS, LENGTH), np.int32)
    states = iter(order.tolist())
    for row in range(ROWS):
        at = 0
        while at < LENGTH:
            which = next(states)
            id_ = int(drawn[which])
            each = spelled[id_][: LENGTH - at]
            here = slice(at, at + len(each))
            tokens[row, at + 1 : at + 1 + len(each)] = each
            state[row, here], beginning[row, here] = which, tree.passed[id_][: len(each)]
            at += len(each)
            if at < LENGTH:
                subword[row, at] = id_
    tokens = tokens[:, :LENGTH]
    return {"tokens": tokens, "subword": subword, "state": state, "beginning": beginning}


def fitted(
    definition: Definition, params: dict, there: Subwords, old: dict, seed: int,
    say: Callable[[str], None],
) -> tuple[dict, dict[str, float]]:  # fmt: skip
    """The parameters, with an encoder and a decoder that know the ``old`` ones' subwords; and how
    well: the share of the variance of embeddings that is ``explained``, and bits per byte of what
    the head draws, as it is ``spelled`` and as the head has ``drawn`` it.

    All hosts compute the same, each on one device: what is fitted is small."""
    laid: Any = flatten_dict(params)
    states = there.states(old)
    around = {path: leaf for path, leaf in laid.items() if path[:2] != ("trunk", "inner")}
    outside = {path: leaf for path, leaf in flatten_dict(old).items() if path[0] != "trunk"}
    around, outside = _here(around), _here(outside)
    with jax.set_mesh(make_mesh(MeshConfig(1, 1), jax.local_devices()[:1])):
        old = unflatten_dict(flatten_dict(there.definition.abstract) | outside)
        fitting, about = _fitted(definition, around, there, old, states, seed, say)
    shardings = {path: laid[path].sharding for path in fitting}
    made = {
        path: jax.make_array_from_callback(leaf.shape, shardings[path], leaf.__getitem__)
        for path, leaf in jax.device_get(fitting).items()
    }
    return unflatten_dict(laid | made), about


def _is_fitted(path: tuple) -> bool:
    name = f"{'.'.join(map(str, path))}."
    return name.startswith(tuple(f"{part}." for part in PARTS))


def _fitted(
    definition: Definition, around: dict, there: Subwords, old: dict, states: np.ndarray,
    seed: int, say: Callable[[str], None],
) -> tuple[dict, dict[str, float]]:  # fmt: skip
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, STEPS // 20, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, 0.9, 0.98))
    ids = jnp.arange(there.tokenizer.of.vocab_size)[None]
    table = jax.jit(lambda: there.definition.bind(old).embedding(ids, 0 * ids)[0])()
    table = table.astype(jnp.float32)
    spread = jnp.mean(jnp.var(table, axis=0))
    fitting = {path: leaf for path, leaf in around.items() if _is_fitted(path)}
    rest = flatten_dict(definition.abstract) | around
    spelled = there.spelled()
    tree = Tree.of(spelled)

    def loss(fitting, states, tokens, subword, state, beginning):
        model = definition.bind(unflatten_dict(rest | fitting))
        batch = whole(tokens)
        layout = layout_of(batch, model.config, model.vocabulary)
        x = model.embedding(batch.tokens, batch.positions)
        pooled, decoded, last = model.trunk.around(
            x, layout, lambda last: states[take(state, last)][:, :, None]
        )
        wanted = take(subword, last)
        error = jnp.mean(jnp.square(pooled[:, :, 0] - table[wanted]), axis=-1)
        missed = jnp.sum(error * (wanted >= 0)) / jnp.sum(wanted >= 0) / spread
        p = jax.nn.softmax(there.log_odds(old, states[state]))
        follows = tree.follows(p, beginning)
        log_p = jax.nn.log_softmax(model.logits(decoded))
        log_p = jnp.take_along_axis(log_p, jnp.asarray(tree.child)[beginning], axis=-1)
        nats = -jnp.mean(jnp.sum(follows * log_p, axis=-1))
        own = jnp.mean(jnp.sum(jax.scipy.special.entr(follows), axis=-1))
        return missed + nats, (missed, nats, own)

    @jax.jit
    def step(fitting, opt, states, rows):
        grads, said = jax.grad(loss, has_aux=True)(fitting, states, **rows)
        updates, opt = optimizer.update(grads, opt, fitting)
        return optax.apply_updates(fitting, updates), opt, jnp.stack(said)

    rng, opt = np.random.default_rng(seed), optimizer.init(fitting)
    said: list[jax.Array] = []
    about: dict[str, float] = {}
    most, among, draw = ROWS * LENGTH, jnp.asarray(states), there.drawing(old)
    order, drawn, key = np.zeros(0, np.int64), np.zeros(0), jax.random.key(seed)
    for number in range(STEPS):
        if len(order) < most:
            drawn = draw(among, jax.random.fold_in(key, number))
            fresh = [rng.permutation(len(states)) for _ in range(-(-most // len(states)))]
            order = np.concatenate([order, *fresh])
        rows = rows_of(spelled, tree, drawn, order[:most], there.tokenizer.bos_id)
        order = order[int((rows["subword"] >= 0).sum()) :]
        fitting, opt, found = step(fitting, opt, among, rows)
        said.append(found)
        if (number + 1) % -(-STEPS // 10) == 0 or number + 1 == STEPS:
            missed, nats, own = np.mean(jax.device_get(said[-STEPS // 20 :]), axis=0).tolist()
            bits = {"spelled": nats / np.log(2), "drawn": own / np.log(2)}
            about = {
                name: round(value, 4) for name, value in {"explained": 1 - missed, **bits}.items()
            }
            say(
                f"fitting    {number + 1:,}/{STEPS:,} of the encoder and decoder to the subwords: "
                "{explained:.1%} of embeddings, {spelled:.3f} bits/byte".format(**about)
            )
    return fitting, about
