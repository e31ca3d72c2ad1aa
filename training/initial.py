"""What a run begins with that is not drawn: the parameters of another run, or of a Hugging Face
folder, which are only read."""

import dataclasses
import fnmatch
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding

from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, to_json
from octavo.data.shards import Corpus
from octavo.files import json_text
from octavo.interchange import reading
from octavo.run import mirror
from octavo.run.checkpoint import Record, load_params, saved_steps
from octavo.run.definition import Definition, define, described
from octavo.run.directory import CONFIG, read_config
from octavo.run.errors import CheckpointError
from octavo.run.identity import differences
from octavo.run.saved import read
from octavo.tokenizers.fused import FusedTokenizer
from octavo.tokenizers.interface import Tokenizer
from octavo.training.byteify import Subwords, fitted
from octavo.training.state import state_of
from octavo.training.vocabularies import Rows

TOKENIZER = "tokenizer"
"""In ``train.init_allow``: another one than the parameters were trained with."""


def resolved(config: Config, record: Record | None) -> Config:
    """The config with the step of ``train.init_from`` in it: of the newest checkpoint there is, or
    the one that the run in ``workdir``, of this record or without any, began with. Raises
    ConfigError if there is no checkpoint to begin with."""
    asked, before = config.train.init_from, _begun(config, record)
    if asked is None or reading.is_foreign(asked):
        return config
    run, step = _split(asked)
    if before is not None and asked in (before, _split(before)[0]):
        at = before
    elif record is not None:  # another beginning, which is refused where they are compared
        return config
    elif step is None:
        steps = saved_steps(mirror.folder(run, "train.init_from"))
        if not steps:
            raise ConfigError(f"train.init_from {run}: there is no checkpoint to begin with.")
        at = f"{run}@{steps[0]}"
    else:
        at = asked
    return dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=at))


def _begun(config: Config, record: Record | None) -> str | None:
    """What the run that is there began with."""
    if record is not None and record.config is not None:
        return record.config.train.init_from
    folder = mirror.folder(config.workdir) if config.workdir else None
    if folder is None or not (folder / CONFIG).is_file():
        return None
    try:
        return read_config(folder).train.init_from
    except (CheckpointError, ConfigError):  # said where it matters
        return None


def _split(asked: str) -> tuple[str, int | None]:
    """RUN and STEP of ``RUN[@STEP]``."""
    run, at, step = asked.rpartition("@")
    if at and step.isdecimal() and step.isascii() and len(step) < 10:
        return run, int(step)
    return asked, None


@dataclass(frozen=True, eq=False)
class _There:
    """What lies there to begin with."""

    name: str
    what: str
    """In words: a step of a run."""
    config: Config
    tokenizer: Tokenizer
    file: str
    """Of the tokenizer."""
    read: Callable[[dict], dict]
    """Parameters by path, onto shardings by path."""
    origin: dict


def _of_run(asked: str) -> _There:
    run, step = _split(asked)
    folder = mirror.folder(run, "train.init_from")
    config, tokenizer, record = read(folder, step)
    if record is None:
        raise CheckpointError(f"train.init_from {asked}: its record cannot be read.")
    step = record.step
    abstract = define(config, tokenizer.vocabulary, "cpu").abstract

    def parameters(where: dict) -> dict:
        mirror.fetch_arrays(folder, step)
        return flatten_dict(
            load_params(folder, described(abstract, unflatten_dict(where)), step)[0]
        )

    origin = {
        "run": run,
        "step": step,
        "config": f"{google_crc32c.value(json_text(record.meta.get('config', {})).encode()):08x}",
        "parameters": f"{record.meta.get('checksums', {}).get('params', 0):08x}",
    }
    what, file = f"{folder} at step {step}", f"{run}/tokenizer.json"
    return _There(run, what, config, tokenizer, file, parameters, origin)


def _of_foreign(asked: str, ours: Config) -> _There:
    folder = reading.Folder(Path(asked))

    config = dataclasses.replace(ours, model=folder.model)
    shapes: Any = flatten_dict(define(config, folder.tokenizer.vocabulary, "cpu").abstract)

    def parameters(where: dict) -> dict:
        found = {}
        for path, leaf in folder.parameters():
            if leaf.shape != (shape := shapes[path].shape):
                raise ConfigError(
                    f"train.init_from {asked}: by its config.json {_name(path)} is {list(shape)}, "
                    f"but the weights have {list(leaf.shape)}."
                )
            found[path] = _placed(leaf, where[path])
        return found

    origin = {
        "run": asked,
        "model_type": folder.about["model_type"],
        "config": f"{google_crc32c.value(json_text(folder.about).encode()):08x}",
        "parameters": f"{folder.checksum:08x}",
    }
    file = str(folder.tokenizer_file)
    return _There(asked, asked, config, folder.tokenizer, file, parameters, origin)


def _placed(leaf: np.ndarray, where: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(leaf.shape, where, lambda index: leaf[index])


@dataclass(frozen=True, eq=False)
class Source:
    """What a run begins with, and what of it fits."""

    there: _There
    abstract: dict
    """Shapes and dtypes of its parameters."""
    fresh: tuple[tuple, ...]
    """Paths of the parameters that are drawn all the same."""
    left: tuple[tuple, ...]
    """Paths there of those that have no place in the model."""
    taken: dict[tuple, tuple]
    """Path there of what is taken over, by its path in the model."""
    rows: Rows | None
    """What becomes of the rows of another vocabulary; None: what they are taken as."""
    spelled: Subwords | None
    """What the encoder and the decoder around a trunk of subwords learn first; None: nothing."""
    unlike: tuple[str, ...]
    """What the settings of its model say otherwise; and that its subwords are not fitted."""
    origin: dict
    """What the record of a run that began so says: where from, which step, and checksums; and how
    well subwords were learned."""

    @classmethod
    def of(
        cls, config: Config, tokenizer: Tokenizer, definition: Definition,
        corpora: tuple[Corpus, ...] = (),
    ) -> "Source":  # fmt: skip
        """What ``train.init_from`` names, for this model and corpora of its ids. Raises
        ConfigError if that is no checkpoint, or has what does not fit and is not among
        ``train.init_allow``."""
        asked, allowed = str(config.train.init_from), config.train.init_allow
        found = _of_foreign(asked, config) if reading.is_foreign(asked) else _of_run(asked)
        theirs = found.tokenizer
        stages = config.model.stages if not found.config.model.stages else ()
        fused = tokenizer if stages and isinstance(tokenizer, FusedTokenizer) else None
        subwords = fused.of if fused else tokenizer
        other = theirs.fingerprint != subwords.fingerprint
        if other and (fused or not stages) and not _named(TOKENIZER, allowed):
            ends = tokenizer.of if isinstance(tokenizer, FusedTokenizer) else None
            if ends and not stages and ends.fingerprint == theirs.fingerprint:
                raise ConfigError(
                    f"train.init_from {asked}: the text is of bytes that say where its subwords "
                    "end, and the model has no stage around them. Name the file of the stage last: "
                    f"--config {asked} --config FILE."
                )
            of = "ends of subwords" if fused else "ids"
            raise ConfigError(
                f"train.init_from {asked} was trained on the ids of {theirs.name} "
                f"({theirs.fingerprint}), and these {of} are of {subwords.name} "
                f"({subwords.fingerprint}). Prepare the text with its tokenizer (--tokenizer "
                f"{'fused:' if fused else ''}{found.file}), or allow it: --train.init-allow "
                f"{TOKENIZER}."
            )
        there = define(found.config, theirs.vocabulary, "cpu")
        old: Any = flatten_dict(there.abstract)
        new: Any = flatten_dict(definition.abstract)
        names: Any = flatten_dict(definition.names)
        how, rows = config.train.init_embeddings, None
        if how != "rows" and stages:
            raise ConfigError(
                f"train.init_embeddings: {asked} gives the trunk inside, and no embedding."
            )
        if how != "rows" and other:
            rows = Rows.of(theirs, tokenizer, how, corpora, names)
        inside = {path: _inside(path, len(stages)) for path in old}
        at = {path: place for path, place in inside.items() if place is not None}
        named = {place: old[path] for path, place in at.items()}
        unfit = {path: _misfit(path, named, new, rows) for path in named | new}
        unfit = {path: why for path, why in unfit.items() if why}
        for name in allowed:
            if not any(_named(each, (name,)) for each in (TOKENIZER, *map(_name, named | new))):
                raise ConfigError(f"train.init_allow {name}: no parameter is called so, of either.")
        # What is around a trunk is drawn anew, unasked.
        trunk = ("trunk", *("inner",) * len(stages), "stack")
        owed = {p: why for p, why in unfit.items() if not stages or p[: len(trunk)] == trunk}
        _check_allowed(asked, found.name, owed, allowed)
        fresh = tuple(path for path in unfit if path in new)
        if len(fresh) == len(new):
            raise ConfigError(f"train.init_from {asked} has no parameter that fits this model.")
        taken = {place: path for path, place in at.items() if place in new and place not in unfit}
        left = tuple(path for path in old if path not in taken.values())
        spelled = None
        if fused and not other:
            most = config.data.batch_size // config.train.accumulation
            length = found.config.data.length
            spelled = Subwords(fused, there, corpora[0], length, most)
        model = dataclasses.replace(config.model, stages=()) if stages else config.model
        before, now = to_json(found.config.model), to_json(model)
        unlike = differences(before, now, "model.", (f"{found.name} has", "this one"))
        if fused and other:
            unlike = (*unlike, "not fitted to its subwords: these ends are of another tokenizer")
        lists = {"fresh": [*map(_name, fresh)], "left": [*map(_name, left)]}
        about = tuple(unlike), found.origin | lists
        return cls(found, there.abstract, fresh, left, taken, rows, spelled, *about)

    def said(self) -> Iterator[str]:
        """What of it is used, a line each."""
        yield f"begins     with the parameters of {self.there.what}"
        for paths, what in ((self.fresh, "drawn anew"), (self.left, "left out")):
            if paths:
                yield f"           {what}: {_listed(list(map(_name, paths)), ', ')}"
        if "explained" in self.origin:
            about = {name: self.origin[name] for name in ("explained", "spelled", "drawn")}
            yield (
                "           fitted to its subwords: the encoder explains {explained:.1%} of their "
                "embeddings; what the head draws is spelled in {spelled:.3f} bits/byte, and costs "
                "{drawn:.3f} there".format(**about)
            )
        for line in self.unlike:
            yield f"           {line}"

    def state(
        self, definition: Definition, optimizer: optax.GradientTransformation, abstract: dict,
        mesh: Mesh, seed: int, say: Callable[[str], None],
    ) -> dict:  # fmt: skip
        """The state before the first step, laid out like ``abstract``: these parameters, read
        straight to their devices, and a fresh optimizer. say: takes lines of progress. Raises
        CheckpointError if they cannot be read, or are not what was saved."""
        ours: Any = flatten_dict(abstract["params"])
        everywhere = NamedSharding(mesh, jax.P())
        remade = self.rows.axes if self.rows else {}
        goes = {there: path for path, there in self.taken.items() if path not in remade}
        where = {
            path: ours[goes[path]].sharding if path in goes else everywhere
            for path in flatten_dict(self.abstract)
        }
        found = self.there.read(where)
        params = {path: found[there] for path, there in self.taken.items()}
        anew = {*self.fresh, *remade}
        if anew:

            def drawn(key):
                made = flatten_dict(definition.init(key))
                return {path: made[path] for path in anew}

            shardings = {path: ours[path].sharding for path in anew}
            made = jax.jit(drawn, out_shardings=shardings)(jax.random.key(seed))
            if self.rows is not None:
                made |= {path: self.rows.made(path, found[path], made[path]) for path in remade}
            params |= made
        if self.spelled is not None:
            old = unflatten_dict(found)
            made, about = fitted(definition, unflatten_dict(params), self.spelled, old, seed, say)
            params = flatten_dict(made)
            self.origin.update(about)
            del old
        del found
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        begin = jax.jit(
            lambda params: state_of(definition, optimizer, params),
            out_shardings=shardings,
            donate_argnums=0,
        )
        return begin(unflatten_dict(params))


def _name(path: tuple) -> str:
    return ".".join(map(str, path))


def _named(name: str, allowed: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)


def _inside(path: tuple, levels: int) -> tuple | None:
    """Where a flat model's parameter stands in a model of so many levels around it; None: nowhere.
    What was normed for the head is normed for the bytes."""
    if not levels:
        return path
    if path[0] == "trunk":
        return "trunk", *("inner",) * levels, *path[1:]
    if path[0] == "norm":
        return "trunk", *("inner",) * (levels - 1), "unpool", *path
    return None


def _misfit(path: tuple, old: dict, new: dict, rows: Rows | None) -> str | None:
    """Why a parameter cannot be taken over; None if it can."""
    if path not in old:
        return f"{_name(path)} is missing there"
    if path not in new:
        return f"{_name(path)} has no place here"
    there, here = old[path].shape, new[path].shape
    if rows is not None and path in rows.axes:
        axis = rows.axes[path]
        there = (*there[:axis], here[axis], *there[axis + 1 :])
    if there != here:
        return f"{_name(path)} is {list(there)} there and {list(here)} here"
    return None


def _check_allowed(asked: str, run: str, unfit: dict[tuple, str], allowed: tuple[str, ...]) -> None:
    refused = {path: why for path, why in unfit.items() if not _named(_name(path), allowed)}
    if not refused:
        return
    parts: dict[str, list] = {}
    for path in refused:
        parts.setdefault(str(path[0]), []).append(path)
    patterns = [_pattern(paths) for paths in parts.values()]
    raise ConfigError(
        f"train.init_from {asked} does not fit this model: {_listed([*refused.values()], '; ')}. "
        f"Take its settings (--config {shlex.quote(f'{run}/config.json')}), or allow by name what "
        "need not fit, which is drawn anew or left out: --train.init-allow "
        f"{shlex.join([*allowed, *patterns])}."
    )


def _pattern(paths: list[tuple]) -> str:
    """One name for all of these."""
    if len(paths) == 1:
        return _name(paths[0])
    return _name((*os.path.commonprefix(paths), "*"))


def _listed(names: list[str], between: str, most: int = 12) -> str:
    more = f"{between}and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
