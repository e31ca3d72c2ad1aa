"""What a training step takes and gives: a plain pytree.

``state = {"step", "params", "opt", "skipped"}`` of dicts and arrays, and "integral" for a model
whose delete gate a controller steers.
"""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from octavo.run.definition import Definition, abstract_params, described


def abstract_state(
    definition: Definition, optimizer: optax.GradientTransformation, mesh: Mesh
) -> dict:
    """Shapes, dtypes and shardings of the whole state. Optimizer statistics of a parameter's shape
    lie like it; every device has all of the others (counters, factored statistics)."""
    params, everywhere = abstract_params(definition, mesh), NamedSharding(mesh, jax.P())
    # A statistic's path ends in its parameter's, whatever wraps it.
    by_path = dict(jax.tree.leaves_with_path(params))

    def opt_sharding(path, leaf):
        endings = (path[i:] for i in range(len(path)))
        parameter = next((by_path[end] for end in endings if end in by_path), None)
        if parameter is None or parameter.shape != leaf.shape:
            return everywhere
        return parameter.sharding

    opt = jax.eval_shape(optimizer.init, definition.abstract)
    counter = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    integral = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    return ({"integral": integral} if definition.controlled else {}) | {
        "step": counter,
        "params": params,
        "opt": described(opt, jax.tree.map_with_path(opt_sharding, opt)),
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
