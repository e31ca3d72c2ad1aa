"""A model without its parameters, which are a plain pytree of dicts beside it.

Flax's modules describe the parameters and run the forward pass; per-variable bookkeeping in a step
costs ten times a dict's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding

from octavo.configs.schema import Config
from octavo.model.axes import POSITIONS, ShardingRules, split
from octavo.model.check import check, steered
from octavo.model.embeddings import Embedding, embedding
from octavo.model.layers import Filled
from octavo.model.lm import ByteLM
from octavo.model.mixers.attention import Attention
from octavo.model.stored import stored_name, to_stored
from octavo.model.transformer import Layers
from octavo.run.execution import COMPILER, execution_of, recomputation
from octavo.tokenizers.interface import Vocabulary


@dataclass(frozen=True)
class Definition:
    """A model without its parameters."""

    graph: nnx.GraphDef
    paths: dict[tuple, tuple]
    """Where each parameter of a checkpoint stands among the modules."""
    abstract: dict
    """Shapes and dtypes of the parameters."""
    names: dict
    """Logical axis names of the parameters: tuples, "layers" first where stacked."""
    init: Callable[[jax.Array], dict]
    """``init(key)`` gives fresh parameters; jit it."""
    backend: str
    """The attention kernels that were chosen, joined by "+"."""
    controlled: bool
    """Whether a controller steers a delete gate."""
    remat: str
    """What the backward pass computes again (``execution.remat``)."""
    scan_layers: bool
    """Whether layers are scanned, or compiled one by one."""
    embedding: type[Embedding]
    compiler: dict
    """What the compiler of the step is told."""

    @property
    def recomputation(self) -> float:
        """What rematerialization makes of training's FLOPs."""
        return recomputation(self.remat)

    def apart(self, params: dict) -> dict:
        """The same parameters for decoding, which ``bind`` takes too: the embedding's folded. Where
        layers are compiled one by one, each layer's lie by themselves: a step would copy them out
        of their stack."""
        params = params | {"embedding": self.embedding.folded(params["embedding"])}
        if self.scan_layers:
            return params

        def each(path: tuple, leaf):
            # Further ids are predicted layer by layer of a scan.
            stacked = "blocks" in path and path[0] != "mtp"
            return Layers(leaf) if stacked else leaf

        leaves = flatten_dict(params)
        split = jax.jit(lambda: {path: each(path, leaf) for path, leaf in leaves.items()})
        return unflatten_dict(split())

    def bind(self, params: dict) -> ByteLM:
        """The callable module with these parameters."""
        leaves = {self.paths[path]: leaf for path, leaf in flatten_dict(params).items()}
        return nnx.merge(self.graph, unflatten_dict(leaves))

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract))

    def shardings(self, mesh: Mesh, rules: ShardingRules) -> dict:
        return jax.tree.map(
            lambda names: NamedSharding(mesh, rules.spec(names)),
            self.names,
            is_leaf=lambda leaf: isinstance(leaf, tuple),
        )


def define(
    config: Config, vocabulary: Vocabulary, platform: str, filled: tuple[Filled, ...] | None = None
) -> Definition:
    """Build the model abstractly, for a tokenizer's vocabulary: nothing is allocated. filled: see
    ``Execution``. Raises ConfigError if it cannot be."""
    check(config.model, config.data.length, vocabulary)
    execution = execution_of(config, platform, filled, split(*POSITIONS))

    def make(key):
        return ByteLM(config.model, vocabulary, execution, nnx.Rngs(params=key))

    # eval_shape on a typed key: the very function that init runs.
    model = nnx.eval_shape(lambda: make(jax.random.key(0)))
    graph, state = nnx.split(model)
    kernels = {part.backend for _, part in nnx.iter_modules(model) if isinstance(part, Attention)}

    def axis_names(variable: nnx.Param) -> tuple:
        names = variable.get_metadata("names")
        return ("layers",) * (len(variable.shape) - len(names)) + tuple(names)

    def stored(state) -> dict:
        return to_stored(nnx.to_pure_dict(state))

    return Definition(
        graph=graph,
        paths={stored_name(path): path for path in flatten_dict(nnx.to_pure_dict(state))},
        abstract=stored(state),
        names=stored(
            jax.tree.map(axis_names, state, is_leaf=lambda x: isinstance(x, nnx.Variable))
        ),
        init=lambda key: stored(nnx.state(make(key))),
        backend="+".join(sorted(kernels, key=lambda name: (name == "reference", name))) or "no",
        controlled=steered(config.model) is not None,
        remat=execution.remat,
        scan_layers=execution.scan_layers,
        embedding=embedding(config.model.embedding),
        compiler=COMPILER.get(platform, {}),
    )


def described(tree: dict, shardings: dict) -> dict:
    """Shapes, dtypes and shardings of the leaves."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def abstract_params(definition: Definition, mesh: Mesh) -> dict:
    """Shapes, dtypes and shardings of the parameters."""
    return described(definition.abstract, definition.shardings(mesh, ShardingRules()))
