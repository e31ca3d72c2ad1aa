"""One training step: gradients, clipping, update; skipped whole if anything is not finite."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from octavo.batch import Batch
from octavo.configs.schema import Config
from octavo.model.axes import ROWS, constrain
from octavo.model.check import steered
from octavo.model.mtp import distances
from octavo.run.definition import Definition
from octavo.training.objective import INTEGRAL, nats_ahead, objective


def make_step(
    config: Config,
    definition: Definition,
    optimizer: optax.GradientTransformation,
    abstract: dict,
    bytes_per_id: np.ndarray,
    frozen: dict | None = None,
) -> Callable[[dict, dict], tuple[dict, dict]]:
    """The jitted ``(state, batch arrays) -> (state, metrics)``; the state is donated, and stays
    laid out like ``abstract``. frozen: booleans of the parameters that ``train.freeze`` names.

    Metrics are scalars: nats, bytes, targets and the model's statistics (sums over the batch), loss
    (per target), grad_norm, skipped (non-finite steps in a row, this one included).
    """
    parts = config.train.accumulation
    gate = steered(config.model)
    drawn = config.model.token_dropout > 0
    drawn |= any(stage.supervision != "none" for stage in config.model.stages)

    def loss(params, batch_and_noise, integral, ahead):
        batch, noise = batch_and_noise
        model = definition.bind(params)
        output = model(batch, noise, ahead)
        ahead_nats = model.predict_ahead(batch, output, ahead, functools.partial(nats_ahead, batch))
        return objective(output, batch, jnp.asarray(bytes_per_id), config, integral, ahead_nats)

    gradient = jax.value_and_grad(loss, has_aux=True)

    def summed(params, batch, *rest):
        """Loss, sums and gradient over the whole batch, ``parts`` equal parts at a time."""
        if parts == 1:
            return gradient(params, batch, *rest)
        # Row i goes to part i mod parts: every device keeps the rows it has.
        split = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(total, part):
            return jax.tree.map(jnp.add, total, gradient(params, part, *rest)), None

        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split), *rest),
        )
        return lax.scan(add, zeros, split)[0]

    # Left to the compiler, a leaf may be laid out anew, and the next step compiled again.
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    @functools.partial(
        jax.jit, donate_argnums=0, out_shardings=(shardings, None),
        compiler_options=definition.compiler,
    )  # fmt: skip
    def step(state: dict, arrays: dict) -> tuple[dict, dict]:
        batch = Batch(**arrays).widen()
        # Drawn for the whole batch: the same on any mesh, in any number of parts.
        key = jax.random.fold_in(jax.random.key(config.train.seed), state["step"])
        noise = constrain(jax.random.logistic(key, batch.tokens.shape), *ROWS) if drawn else None
        ahead = distances(config.model, jax.random.fold_in(key, 1))
        integral = state.get("integral", 0.0)
        (total, sums), grads = summed(state["params"], (batch, noise), integral, ahead)
        scale = 1 / jnp.maximum(sums["targets"], 1)
        grads = jax.tree.map(lambda g: g * scale, grads)
        if frozen is not None:
            # What does not move has no part in the norm.
            until = config.train.freeze_steps
            thawed = False if until is None else state["step"] >= until
            grads = jax.tree.map(
                lambda g, held: jnp.where(thawed, g, 0) if held else g, grads, frozen
            )
        norm = optax.tree.norm(grads)
        if config.optimizer.clip_norm:
            clip = jnp.minimum(1.0, config.optimizer.clip_norm / jnp.maximum(norm, 1e-12))
            grads = jax.tree.map(lambda g: g * clip, grads)
        updates, opt = optimizer.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)

        # Not of the new parameters: what waits for all of them keeps them twice. They are tested
        # by the next loss, and before they are saved.
        finite = jnp.isfinite(total) & jnp.isfinite(norm)

        def keep(new, old):
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        skipped = jnp.where(finite, 0, state["skipped"] + 1)
        new = {
            "step": state["step"] + 1,
            "params": keep(params, state["params"]),
            "opt": keep(opt, state["opt"]),
            "skipped": skipped,
        }
        if gate is not None:
            share = sums[f"ends/{gate}"] / jnp.maximum(sums[f"positions/{gate}"], 1)
            rate = config.model.stages[gate].rates[0]
            new["integral"] = keep(integral + INTEGRAL * (share - rate), integral)
        metrics = sums | {"loss": total * scale, "grad_norm": norm, "skipped": skipped}
        return new, metrics

    return step
