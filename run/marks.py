"""Marks for text that no corpus has marked: what a model that reads stored marks needs to score,
sample or compress.

A marker marks the ids of whole documents side by side (``of_documents``), and one after another
with a cache (``init_cache``, ``extend``), which goes on for as long as the document does: the marks
are the same, whatever the rows of the model that reads them.
"""

import dataclasses
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from octavo.batch import FIELDS, Batch, Room
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.data.errors import DataError
from octavo.data.manifest import read_manifest
from octavo.data.pipeline import folders_of
from octavo.data.shards import Corpus
from octavo.files import read_json, write_json
from octavo.model.check import check_vocabulary, ends_at_marks, reads_marks, reads_unit_marks
from octavo.model.entropy import entropy
from octavo.model.layers import take
from octavo.run.checkpoint import saved_steps
from octavo.run.directory import CONFIG, MARKER, THRESHOLD, TOKENIZER
from octavo.run.errors import CheckpointError
from octavo.run.rows import over_documents, packed_rows, row_axes
from octavo.run.saved import Saved, load
from octavo.tokenizers.interface import Tokenizer


class NoMarks:
    """For models whose segmenter reads the ids alone."""

    params: dict = {}

    def of_documents(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        return [np.zeros(len(ids), np.uint8) for ids in encoded]

    def init_cache(self, rows: int, slots: int) -> dict:
        return {}

    def extend(self, params, tokens, cache, valid):
        return jnp.zeros_like(tokens), cache


@dataclass(frozen=True)
class Rule:
    """How a small model's entropy marks. In ``THRESHOLD``, a number alone is a threshold without
    the rest."""

    threshold: float
    """Nats."""
    rise: bool = False
    """It is the rise of entropy that is held against the threshold."""
    reset: bool = False
    """Each line stands alone."""


class EntropyMarks:
    """A unit ends with the ids after which a small model's next-id entropy is above a threshold
    (BLT, 2412.09871, section 2.3, "global constraint"), or higher by more than that than after the
    id before (rise; its "approximate monotonic constraint"): decided by the ids up to there. With
    reset, each line is marked as a document of its own (section 4.4: "we reset the entropy context
    with new lines", as entropy falls where text repeats); a line ends with an id that holds a line
    feed.

    bind, params: the small model. length: its rows in training. room: of its rows (see
    ``packed_rows``). mesh: over which the parameters lie.

    In a document longer than ``length``, window k begins at id k * step and is asked for all ids
    from where window k - 1 ends; step is half of ``length``, rounded up, so that each id has at
    least about that much context. Whoever marks computes by these windows, one pass or many: what
    differs is the rounding of float32, which a mark feels if its entropy is within some 1e-6 nats
    of the threshold.
    """

    BATCH = 16

    def __init__(
        self,
        bind: Callable,
        params: dict,
        tokenizer: Tokenizer,
        length: int,
        rule: Rule,
        room: Room | None = None,
        mesh: Mesh | None = None,
    ):
        self.bind, self.params, self.tokenizer = bind, params, tokenizer
        self.length, self.rule, self.room, self.mesh = length, rule, room, mesh
        self.step = length - length // 2
        self._breaks = line_breaks(tokenizer) if rule.reset else None
        self._axes = row_axes(lambda rows: self.init_cache(rows, 0))

        @jax.jit
        def entropies(params, rows):
            batch = Batch(**{name: rows[:, i] for i, name in enumerate(FIELDS)}).widen()
            return entropy(bind(params)(batch).logits)

        self._entropies = entropies

    @classmethod
    def with_rate(
        cls,
        run: Saved,
        documents: list[bytes],
        rate: float,
        rise: bool = False,
        reset: bool = False,
    ) -> "EntropyMarks":
        """The marker of an opened run whose threshold marks this share of the ids."""
        mark = cls.of_run(run, Rule(0.0, rise, reset))
        found = mark.compared([run.tokenizer.encode(document) for document in documents])
        found = np.concatenate(found).astype(np.float64)
        below = found[found <= np.quantile(found, 1 - rate)]
        above = found[found > below.max()]
        # Between two entropies, not at one: rounding must not decide.
        threshold = float((below.max() + (above.min() if len(above) else below.max())) / 2)
        mark.rule = dataclasses.replace(mark.rule, threshold=threshold)
        return mark

    @classmethod
    def of_run(cls, run: Saved, rule: Rule) -> "EntropyMarks":
        """The marker of an opened run."""
        return cls(
            run.definition.bind, run.params, run.tokenizer, run.length, rule, run.room, run.mesh
        )

    @property
    def description(self) -> dict:
        """What a manifest says of the marks."""
        rule = dataclasses.asdict(self.rule)
        said = {name: value for name, value in rule.items() if value is not False}
        return {"kind": "entropy", **said, "tokenizer": self.tokenizer.name}

    def __call__(self, documents: list[bytes], encoded: list[np.ndarray]) -> list[np.ndarray]:
        return self.of_documents(encoded)

    def entropies(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Entropy in nats after each id, float32, of documents without their ends."""
        return self._by_line(encoded, lambda values: values[1:])

    def compared(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """What is held against the threshold, of each id."""
        return self._by_line(encoded, np.diff if self.rule.rise else lambda values: values[1:])

    def _by_line(self, encoded: list[np.ndarray], of_each: Callable) -> list[np.ndarray]:
        """``of_each`` of the entropies of each document; of each of its lines, if they stand
        alone."""
        if self._breaks is None:
            return [of_each(values) for values in self._all(encoded)]
        lines = [np.split(ids, np.flatnonzero(self._breaks[ids[:-1]]) + 1) for ids in encoded]
        found = iter(map(of_each, self._all([line for each in lines for line in each])))
        return [np.concatenate([next(found) for _ in each]) for each in lines]

    def _all(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Entropies after the begin-of-document id, and then after each id."""
        rows, places = packed_rows(
            encoded, self.tokenizer, self.length, self.length // 2, room=self.room
        )

        def evaluate(part: np.ndarray):
            return (np.asarray(self._entropies(self.params, part)),)

        with jax.set_mesh(self.mesh):
            found = over_documents(evaluate, rows, places, len(encoded), self.BATCH)
        return [values for (values,) in found]

    def of_documents(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Marks of each id, uint8."""
        return [
            (values > self.rule.threshold).astype(np.uint8) for values in self.compared(encoded)
        ]

    def init_cache(self, rows: int, slots: int) -> dict:
        """Two windows of each row: the one that is asked now, and the next. Documents may be of any
        length, whatever ``slots``."""
        windows = (self._empty(rows), self._empty(rows))
        cache = {"read": jnp.zeros(rows, jnp.int32), "windows": windows}
        return cache | ({"newest": jnp.zeros(rows)} if self.rule.rise else {})

    def extend(self, params, tokens, cache, valid):
        """Marks ``[B, N]`` of tokens that continue the cache, of which ``valid [B]`` count, and the
        longer cache."""
        if self._breaks is None:
            return self._extend(params, tokens, cache, valid)
        (B, N), breaks = tokens.shape, jnp.array(self._breaks)
        t = jnp.arange(N)[None]

        def begun():
            begin = jnp.full((B, 1), self.tokenizer.bos_id, tokens.dtype)
            return self._extend(params, begin, self.init_cache(B, N), jnp.ones_like(valid))[1]

        def one(state):
            """A line of each row, or what there is of it."""
            at, marks, cache = state
            own = take(tokens, jnp.minimum(at[:, None] + t, N - 1))
            ends = breaks[own] & (at[:, None] + t < valid[:, None])
            ended = jnp.any(ends, axis=1)
            count = jnp.where(ended, 1 + jnp.argmax(ends, axis=1), valid - at)
            found, cache = self._extend(params, own, cache, count)
            place = t - at[:, None]
            here = (place >= 0) & (place < count[:, None])
            marks = jnp.where(here, take(found, jnp.maximum(place, 0)), marks)
            cache = jax.lax.cond(
                jnp.any(ended), lambda: _where(ended, begun(), cache, self._axes), lambda: cache
            )
            return at + count, marks, cache

        state = jnp.zeros_like(valid), jnp.zeros((B, N), jnp.int32), cache
        _, marks, cache = jax.lax.while_loop(lambda state: jnp.any(state[0] < valid), one, state)
        return marks, cache

    def _extend(self, params, tokens, cache, valid):
        """``extend`` within a line."""
        newest = cache.get("newest")
        found, cache = self._extend_entropies(params, tokens, cache, valid)
        if newest is None:
            return (found > self.rule.threshold).astype(jnp.int32), cache
        all_ = jnp.concatenate([newest[:, None], found], axis=1)
        cache = cache | {"newest": take(all_, valid[:, None])[:, 0]}
        return (found - all_[:, :-1] > self.rule.threshold).astype(jnp.int32), cache

    def _extend_entropies(self, params, tokens, cache, valid):
        """As ``_extend``, entropies for marks."""
        (B, N), step = tokens.shape, self.step
        if N <= step:
            return self._read(params, tokens, cache, valid)
        parts = -(-N // step)
        padded = jnp.pad(tokens, ((0, 0), (0, parts * step - N)))

        def one(cache, part):
            tokens, begin = part
            found, cache = self._read(params, tokens, cache, jnp.clip(valid - begin, 0, step))
            return cache, found

        split = padded.reshape(B, parts, step).swapaxes(0, 1), step * jnp.arange(parts)
        cache, found = jax.lax.scan(one, cache, split)
        return found.swapaxes(0, 1).reshape(B, -1)[:, :N], cache

    def _empty(self, rows: int) -> dict:
        # A window is read on to the end of the tokens that it ends in.
        return self.bind(self.params).init_cache(rows, self.length + self.step)

    def _window(self, at):
        """The window that is asked for the id at a place of the document; the begin id's is 0."""
        return jnp.where(at < self.length, 0, (at - self.length) // self.step + 1)

    def _read(self, params, tokens, cache, valid):
        """``_extend_entropies`` for at most ``step`` tokens: they lie in two windows or, if more
        than one, begin a third."""
        model, (B, N) = self.bind(params), tokens.shape
        read, windows = cache["read"], list(cache["windows"])
        asked, t = self._window(read), jnp.arange(N)[None]
        if N > 1:
            windows.append(self._empty(B))
        found = []
        for number, window in enumerate(windows):
            # Tokens before the window's first are left out: the rest moves to the left.
            skipped = jnp.clip((asked + number) * self.step - read, 0, N)[:, None]
            own = take(tokens, jnp.minimum(t + skipped, N - 1))
            count = jnp.maximum(valid - skipped[:, 0], 0)
            logits, windows[number] = model.extend(own, window, valid=count)
            found.append(take(entropy(logits), jnp.maximum(t - skipped, 0)))
        of_each = self._window(read[:, None] + t) - asked[:, None]
        found = jnp.take_along_axis(jnp.stack(found), of_each[None], axis=0)[0]
        moves = self._window(read + valid) > asked
        windows = tuple(windows[:2]), tuple((*windows, self._empty(B))[1:3])
        windows = jax.lax.cond(
            jnp.any(moves),
            lambda: _where(moves, windows[1], windows[0], self._axes["windows"]),
            lambda: windows[0],
        )
        return found, cache | {"read": read + valid, "windows": windows}


def _where(rows, those, these, axes):
    """Caches ``those`` in the ``rows [B]``, ``these`` in others; axes: of rows, in each part."""

    def one(row, a, b):
        return jax.tree.map(lambda a, b: jnp.where(row, a, b), a, b)

    return jax.vmap(one, (0, axes, axes), axes)(rows, those, these)


def line_breaks(tokenizer: Tokenizer) -> np.ndarray:
    """Which ids hold a line feed, ``[vocab_size]`` bool."""
    holds = np.zeros(tokenizer.vocab_size, bool)
    for id_ in np.flatnonzero(tokenizer.bytes_per_id()):
        holds[id_] = b"\n" in tokenizer.decode(np.array([id_]))
    return holds


def marker_for(model: ModelConfig, tokenizer: Tokenizer, folder: Path) -> NoMarks | EntropyMarks:
    """What marks text for a model: nothing, unless it reads stored marks; then the small model that
    is kept in ``folder`` (of a corpus or a run).

    Raises ConfigError if there is none that marks by what it has read so far, or if the model's
    rule for units does not go with the tokenizer.
    """
    try:
        check_vocabulary(model, tokenizer.vocabulary)
    except ConfigError as error:
        raise ConfigError(f"{error} ({folder} was made by {tokenizer.name}.)") from error
    if not ends_at_marks(model):
        return NoMarks()
    if not (folder / MARKER).is_dir():
        raise ConfigError(
            f"the model's units end at stored marks, but {folder} has none that a model decides as "
            f"it reads: make them with {commands_for(model)}, "
            "and name it: --data.source DIR."
        )
    return EntropyMarks.of_run(load(folder / MARKER), read_rule(folder / MARKER))


def read_rule(folder: Path) -> Rule:
    """How a marker marks."""
    found = read_json(folder / THRESHOLD, float | Rule, error=CheckpointError)
    return Rule(found) if isinstance(found, float) else found


def commands_for(model: ModelConfig, folder: Path | str = "DIR") -> str:
    """The commands that make a corpus for a model in ``folder``, of the text that comes with
    Python."""
    make = f"python prepare.py stdlib --out {shlex.quote(str(folder))}"
    if ends_at_marks(model):
        small = "--model.width 64 --model.heads 2 --model.window 128"
        return (
            f"python train.py flat {small} --workdir runs/entropy && {make} --marks runs/entropy "
            "(stdlib is the text that comes with Python; for your own, name its files instead, and "
            "train the small model, which decides the marks, on a corpus of them without marks)"
        )
    if reads_marks(model):
        return f"{make} --marks unigram:5000{_OWN}"
    if reads_unit_marks(model):
        return f"{make} --tokenizer words{_OWN}"
    return f"{make}{_OWN}"


_OWN = " (stdlib is the text that comes with Python; for your own, name its files instead)"


def check_prepared(model: ModelConfig, source: str) -> None:
    """Raise DataError, with the commands that make it, for a part of ``data.source`` that is no
    corpus, or lacks the marks that the model reads."""
    for folder in folders_of(source):
        if not folder.exists():
            raise DataError(
                f"{folder} is not a prepared corpus: make one with {commands_for(model, folder)}."
            )
        if reads_marks(model) and not read_manifest(folder).marks:
            raise DataError(
                f"{folder} has no marks, which the model's units need: make them with "
                f"{commands_for(model)}, and name it: --data.source DIR."
            )


def check_marks(model: ModelConfig, corpora: list[Corpus]) -> None:
    """Raise ConfigError, naming the corpus, unless the marks of a mixture are what the model takes
    them for: made by what was read so far if units end at them, and all made alike."""
    if not reads_marks(model):
        return
    first = corpora[0]
    for corpus in corpora:
        folder = corpus.folder
        kind = (corpus.marks or {}).get("kind")
        if kind != "entropy" and ends_at_marks(model):
            raise ConfigError(
                f"the model's units end at stored marks, but {folder} has none that a model "
                f"decides as it reads (they are of {kind or 'no kind'}): make them with "
                f"{commands_for(model)}, and name it: --data.source DIR."
            )
        if _made_by(corpus) != _made_by(first):
            raise ConfigError(
                f"the marks of {folder} and {first.folder} were made differently; a mixture needs "
                f"one kind: mark {folder} as {first.folder} was (entropy: by "
                f"--marks {first.folder / MARKER})."
            )


def _made_by(corpus: Corpus) -> tuple:
    """What decided a corpus's marks: equal for two that are marked alike."""
    small, marks = corpus.folder / MARKER, corpus.marks
    if not marks or marks.get("kind") != "entropy" or not small.is_dir():
        return (marks,)
    records = sorted(small.glob("checkpoints/*/meta/metadata"), key=lambda p: int(p.parts[-3]))
    if not records:
        raise CheckpointError(f"{small} holds no checkpoint.")
    meta = read_json(records[-1], dict, error=CheckpointError)
    length = read_json(small / CONFIG, dict, error=CheckpointError)["data"]["length"]
    return marks, meta["checksums"]["params"], length


def keep_marker(source: Path, mark: EntropyMarks | None, folder: Path) -> None:
    """Copy the small model of ``source`` (a run; or a marker, and no ``mark``) to ``folder``,
    without its optimizer."""
    out = folder / MARKER
    if out.exists():
        return
    partial = folder / f"{MARKER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    newest = str(saved_steps(source)[0])
    shutil.copytree(
        source / "checkpoints" / newest,
        partial / "checkpoints" / newest,
        ignore=shutil.ignore_patterns("opt"),
    )
    for name in (CONFIG, TOKENIZER):
        shutil.copy(source / name, partial / name)
    if mark is None:
        shutil.copy(source / THRESHOLD, partial / THRESHOLD)
    else:
        write_json(partial / THRESHOLD, dataclasses.asdict(mark.rule))
    partial.rename(out)
