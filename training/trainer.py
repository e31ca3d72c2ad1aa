"""What a training is made of, set up once: mesh, data plan, model, optimizer, state and step.

Nothing is allocated before ``fresh`` or a checkpoint gives a state, so the same object describes a
training that is only compiled, for machines that are not there.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from octavo.batch import Batch
from octavo.configs.schema import Config, to_json
from octavo.data.pipeline import batches, make_plan
from octavo.data.plan import Plan
from octavo.model import flops
from octavo.model.check import check, check_used, reads_marks
from octavo.model.layers import Filled
from octavo.model.units.pools import pool
from octavo.model.units.room import room_of, slots
from octavo.run import sharding
from octavo.run.checkpoint import Record
from octavo.run.definition import Definition, define
from octavo.run.marks import EntropyMarks, NoMarks, check_marks, check_prepared, marker_for
from octavo.run.opened import Run
from octavo.tokenizers.interface import Tokenizer
from octavo.training import expected, optimizers
from octavo.training.initial import Source
from octavo.training.optimizer import Replanned, frozen_of, make_optimizer, replan
from octavo.training.state import abstract_state, fresh_state
from octavo.training.step import make_step


@dataclass(frozen=True, eq=False)
class Trainer:
    """A config, the devices it is trained on, and what it is trained with.

    Its functions of arrays expect the mesh to be current: ``with jax.set_mesh(trainer.mesh)``.
    """

    config: Config
    mesh: Mesh
    tokenizer: Tokenizer
    definition: Definition
    planned: Plan | None
    """The data plan; None: the batches come from elsewhere."""
    marker: NoMarks | EntropyMarks
    """What marks text beside the corpus, for the score and the sample."""
    replanned: Replanned | None = None
    source: Source | None = None
    """What a new run begins with instead of parameters that are drawn."""
    origin: dict | None = None
    """``Source.origin`` of the run, also where it is continued."""

    @classmethod
    def of(
        cls,
        config: Config,
        tokenizer: Tokenizer | None = None,
        *,
        record: Record | None = None,
        devices: list | None = None,
        platform: str | None = None,
        filled: tuple[Filled, ...] | None = None,
    ) -> "Trainer":
        """The training of the config's corpora or, with a tokenizer, of batches from elsewhere.

        record: of the run that is continued, whose data follow its own version of the plan.
        devices: to train on; None: all. platform: to choose kernels for; None: the devices'.
        filled: of each stage's units; None: counted, if there are corpora.
        Raises ConfigError or DataError for what cannot work.
        """
        # What cannot work is told before data are read; what does nothing, to those who begin.
        optimizers.load(config.optimizer.name)
        check(config.model, config.data.length, None if tokenizer is None else tokenizer.vocabulary)
        if record is None:
            check_used(config.model)
        mesh = sharding.make_mesh(config.mesh, devices, config.model)
        rows = config.data.batch_size // config.train.accumulation
        sharding.check_fits(mesh, config.model, rows, config.data.length)
        plan, marker = None, NoMarks()
        if tokenizer is None:
            version = Plan.VERSION if record is None else record.data.get("version", Plan.VERSION)
            plan = plan_of(config, version)
            check_marks(config.model, plan.corpora)
            tokenizer = plan.corpora[0].tokenizer
            marker = marker_for(config.model, tokenizer, plan.corpora[0].folder)
        if filled is None and plan is not None:
            filled = expected.filled(config, plan)
        platform = platform or str(mesh.devices.flat[0].platform)
        with jax.set_mesh(mesh):
            definition = define(config, tokenizer.vocabulary, platform, filled)
        trainer = cls(config, mesh, tokenizer, definition, plan, marker)
        if plan is None or record is not None or config.train.init_from is None:
            return trainer
        source = Source.of(config, tokenizer, definition, tuple(plan.corpora))
        return dataclasses.replace(trainer, source=source, origin=source.origin)

    def continuing(self, record: Record | None) -> "Trainer":
        """The same, going on from a checkpoint: if that was trained for another number of steps,
        the learning rate is laid out anew. Raises ConfigError as ``replan``."""
        if record is None:
            return self
        again = replan(self.config, record)
        return dataclasses.replace(
            self, replanned=again, source=None, origin=record.meta.get("origin")
        )

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        config = self.config
        names, train = self.definition.names, config.train
        return make_optimizer(
            config.optimizer, train.steps, names, self.replanned, self.frozen, train.freeze_steps
        )

    @cached_property
    def frozen(self) -> dict | None:
        """Which parameters are, for ``train.freeze_steps``; None: none ever."""
        patterns = self.config.train.freeze
        return frozen_of(self.definition.names, patterns) if patterns else None

    @cached_property
    def abstract(self) -> dict:
        """Shapes, dtypes and shardings of the state."""
        return abstract_state(self.definition, self.optimizer, self.mesh)

    @cached_property
    def step(self) -> Callable[[dict, dict], tuple[dict, dict]]:
        """The jitted ``(state, batch arrays) -> (state, metrics)`` of ``make_step``."""
        sizes = self.tokenizer.bytes_per_id()
        return make_step(
            self.config, self.definition, self.optimizer, self.abstract, sizes, self.frozen
        )

    @property
    def meta(self) -> dict:
        """What a checkpoint says of the training (``Record.meta``)."""
        return {
            "model": to_json(self.config.model),
            "config": to_json(self.config),
            "tokenizer": self.tokenizer.fingerprint,
            "schedule": self.replanned and dataclasses.asdict(self.replanned),
            "origin": self.origin,
        }

    def fresh(
        self, seed: int | None = None, say: Callable[[str], None] = lambda line: None
    ) -> dict:
        """The state before the first step. seed: None: the config's; say: takes lines of progress.
        Raises CheckpointError if the run that it begins with cannot be read."""
        seed = self.config.train.seed if seed is None else seed
        if self.source is not None:
            return self.source.state(
                self.definition, self.optimizer, self.abstract, self.mesh, seed, say
            )
        return fresh_state(self.definition, self.optimizer, self.abstract, seed)

    @property
    def plan(self) -> Plan:
        """What every row of every step holds."""
        assert self.planned, "made with a tokenizer: its batches come from elsewhere"
        return self.planned

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions of a step."""
        return self.config.data.batch_size, self.config.data.length

    @cached_property
    def _rows(self) -> np.ndarray:
        """Those of this host's devices."""
        return sharding.local_rows(sharding.batch_sharding(self.mesh), self.shape)

    def batches(self, first_step: int = 0, steps: int | None = None) -> Iterator[dict]:
        """This host's rows of the steps after ``first_step``, as the plan has them. steps: up to
        this one; None: the config's."""
        config = self.config
        last = config.train.steps if steps is None else steps
        return batches(
            self.plan, self._rows, first_step=first_step, steps=last, workers=config.data.workers
        )

    def place(self, host_batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Global arrays from this host's rows."""
        where = sharding.batch_sharding(self.mesh)
        return sharding.place_batch(where, host_batch, self._rows, self.shape[0])

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of what ``place`` gives."""
        where = sharding.batch_sharding(self.mesh)
        return {
            field: jax.ShapeDtypeStruct(self.shape, kind, sharding=where)
            for field, kind in Batch.dtypes(self.tokenizer.dtype, self.shape[1]).items()
        }

    @property
    def bytes_per_id(self) -> float:
        """Mean bytes of text that an id of the corpora stands for."""
        return self.plan.bytes_per_id()

    def useful_flops(self, targets: float, parts: Mapping[str, float | None]) -> float:
        """Of a step of so many targets: forward and backward over the units that it had, without
        padding and recomputation. parts: what the step did (``of_parts``); where that does not say
        how many units there were, as many as rows have room for."""
        config = self.config
        found = [parts.get(f"units/{level}") for level in range(len(config.model.stages))]
        units = None if None in found else tuple(each for each in found if each is not None)
        size, length = self.tokenizer.vocab_size, config.data.length
        return targets * flops.training_flops(config.model, size, length, units)

    def paid_flops(self, values: Mapping[str, float]) -> float:
        """That a machine spends on a step, by the formulas of ``model/flops.py``: forward and
        backward at every position of every row, padding included, over as many units as were
        computed; and under ``execution.remat`` "full" the forward pass once more. values: the
        step's sums (``computed/L``); where they do not say, as many units as rows have room for."""
        config, (rows, length) = self.config, self.shape
        room = slots(config.model, length)
        computed, mixed = (
            [values.get(f"{what}/{level}", rows * most) for level, most in enumerate(room)]
            for what in ("computed", "mixed")
        )
        units = tuple(
            count / (rows * length * pool(stage.pool).per_unit(stage))
            for stage, count in zip(config.model.stages, computed, strict=True)
        )
        seen = tuple(count / (rows * length) for count in mixed)
        each = flops.training_flops(config.model, self.tokenizer.vocab_size, length, units, seen)
        return each * rows * length * self.definition.recomputation

    def run(self, state: dict, name: str = "run") -> Run:
        """The model of a state, to score and to sample from."""
        about = self.config, self.tokenizer, self.definition, state["params"], int(state["step"])
        return Run(*about, self.mesh, self.marker, name)


def plan_of(config: Config, version: int = Plan.VERSION) -> Plan:
    """What every row of every step holds. Raises DataError for corpora that cannot be used."""
    check_prepared(config.model, config.data.source)
    room = room_of(config.model, config.data.length)
    return make_plan(config.data, config.train.seed, reads_marks(config.model), room, version)
