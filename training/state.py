"""The model as the trainer sees it: a definition and a plain pytree.

``state = {"step", "params", "opt", "skipped"}`` of dicts and arrays, and "integral" for a model
whose delete gate a controller steers. Flax's modules describe the parameters and run the forward
pass; per-variable bookkeeping in a step costs ten times a dict's.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from octavo.configs.schema import Config
from octavo.model.check import check, steered
from octavo.model.layers import Execution
from octavo.model.lm import ByteLM
from octavo.model.mixers.attention import Attention
from octavo.model.stored import flattened, nested, stored_name, to_stored
from octavo.tokenizers.interface import Vocabulary
from octavo.training.sharding import ShardingRules


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
    init: object
    """``init(key)`` gives fresh parameters; jit it."""
    backend: str
    """The attention kernels that were chosen, joined by "+"."""
    controlled: bool
    """Whether a controller steers a delete gate."""

    def bind(self, params: dict) -> ByteLM:
        """The callable module with these parameters."""
        leaves = {self.paths[path]: leaf for path, leaf in flattened(params).items()}
        return nnx.merge(self.graph, nested(leaves))

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract))

    def shardings(self, mesh: Mesh, rules: ShardingRules) -> dict:
        return jax.tree.map(
            lambda names: NamedSharding(mesh, rules.spec(names)),
            self.names,
            is_leaf=lambda leaf: isinstance(leaf, tuple),
        )


def define(config: Config, vocabulary: Vocabulary, platform: str) -> Definition:
    """Build the model abstractly, for a tokenizer's vocabulary: nothing is allocated. Raises
    ConfigError if it cannot be."""
    check(config.model, config.data.length, vocabulary)
    how = dataclasses.asdict(config.execution)
    execution = Execution(platform, jnp.dtype(how.pop("compute_dtype")), **how)

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
        paths={stored_name(path): path for path in flattened(nnx.to_pure_dict(state))},
        abstract=stored(state),
        names=stored(
            jax.tree.map(axis_names, state, is_leaf=lambda x: isinstance(x, nnx.Variable))
        ),
        init=lambda key: stored(nnx.state(make(key))),
        backend="+".join(sorted(kernels, key=lambda name: (name == "reference", name))) or "no",
        controlled=steered(config.model) is not None,
    )


def _described(tree: dict, shardings: dict) -> dict:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def abstract_params(definition: Definition, mesh: Mesh) -> dict:
    """Shapes, dtypes and shardings of the parameters."""
    return _described(definition.abstract, definition.shardings(mesh, ShardingRules()))


def abstract_state(
    definition: Definition, optimizer: optax.GradientTransformation, mesh: Mesh
) -> dict:
    """Shapes, dtypes and shardings of the whole state. Optimizer statistics lie like their
    parameters, counters on every device."""
    params, everywhere = abstract_params(definition, mesh), NamedSharding(mesh, jax.P())
    # A statistic's path ends in its parameter's, whatever wraps it.
    by_path = {path: leaf.sharding for path, leaf in jax.tree.leaves_with_path(params)}

    def opt_sharding(path, leaf):
        endings = (path[i:] for i in range(len(path)))
        return next((by_path[end] for end in endings if end in by_path), everywhere)

    opt = jax.eval_shape(optimizer.init, definition.abstract)
    counter = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    integral = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    return ({"integral": integral} if definition.controlled else {}) | {
        "step": counter,
        "params": params,
        "opt": _described(opt, jax.tree.map_with_path(opt_sharding, opt)),
        "skipped": counter,
    }


def fresh_state(
    definition: Definition, optimizer: optax.GradientTransformation, abstract: dict, seed: int
) -> dict:
    """Initialized parameters and optimizer, laid out like ``abstract``; the same on any mesh."""

    def make(key):
        return state_of(definition, optimizer, definition.init(key))

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))


def state_of(definition: Definition, optimizer: optax.GradientTransformation, params: dict) -> dict:
    """The state in which these parameters have not been trained yet."""
    zero = jnp.zeros((), jnp.int32)
    state = {"step": zero, "params": params, "opt": optimizer.init(params), "skipped": zero}
    return state | ({"integral": jnp.zeros(())} if definition.controlled else {})
