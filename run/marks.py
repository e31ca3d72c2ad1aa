"""Marks for text that no corpus has marked: what a model that reads stored marks needs to score,
sample or compress.

A marker marks the ids of whole documents side by side (``of_documents``), and one after another
with a cache (``init_cache``, ``extend``), which goes on for as long as the document does: the marks
are the same, whatever the rows of the model that reads them.
"""

import shlex
import shutil
from collections.abc import Callable
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
from octavo.run.rows import over_documents, packed_rows
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


class EntropyMarks:
    """A unit ends with the ids after which a small model's next-id entropy is above a threshold
    (BLT, 2412.09871, section 2.3, "global constraint"): decided by the ids up to there.

    bind, params: the small model. length: its rows in training. threshold: nats. room: of its rows
    (see ``packed_rows``). mesh: over which the parameters lie.

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
        threshold: float,
        room: Room | None = None,
        mesh: Mesh | None = None,
    ):
        self.bind, self.params, self.tokenizer = bind, params, tokenizer
        self.length, self.threshold, self.room, self.mesh = length, threshold, room, mesh
        self.step = length - length // 2
        of_two, of_three = (jax.eval_shape(lambda rows=rows: self._empty(rows)) for rows in (2, 3))
        # Which axis of each part of a cache is that of rows.
        self._axes = jax.tree.map(
            lambda a, b: [x == y for x, y in zip(a.shape, b.shape, strict=True)].index(False),
            of_two, of_three,
        )  # fmt: skip

        @jax.jit
        def entropies(params, rows):
            batch = Batch(**{name: rows[:, i] for i, name in enumerate(FIELDS)}).widen()
            return entropy(bind(params)(batch).logits)

        self._entropies = entropies

    @classmethod
    def with_rate(cls, run: Saved, documents: list[bytes], rate: float) -> "EntropyMarks":
        """The marker of an opened run whose threshold marks this share of the ids."""
        mark = cls.of_run(run, threshold=0.0)
        found = mark.entropies([run.tokenizer.encode(document) for document in documents])
        found = np.concatenate(found).astype(np.float64)
        below = found[found <= np.quantile(found, 1 - rate)]
        above = found[found > below.max()]
        # Between two entropies, not at one: rounding must not decide.
        mark.threshold = float((below.max() + (above.min() if len(above) else below.max())) / 2)
        return mark

    @classmethod
    def of_run(cls, run: Saved, threshold: float) -> "EntropyMarks":
        """The marker of an opened run."""
        return cls(
            run.definition.bind, run.params, run.tokenizer, run.length, threshold, run.room,
            run.mesh,
        )  # fmt: skip

    @property
    def description(self) -> dict:
        """What a manifest says of the marks."""
        return {"kind": "entropy", "threshold": self.threshold, "tokenizer": self.tokenizer.name}

    def __call__(self, documents: list[bytes], encoded: list[np.ndarray]) -> list[np.ndarray]:
        return self.of_documents(encoded)

    def entropies(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Entropy in nats after each id, float32, of documents without their ends."""
        rows, places = packed_rows(
            encoded, self.tokenizer, self.length, self.length // 2, room=self.room
        )

        def evaluate(part: np.ndarray):
            return (np.asarray(self._entropies(self.params, part)),)

        with jax.set_mesh(self.mesh):
            found = over_documents(evaluate, rows, places, len(encoded), self.BATCH)
        return [values[1:] for (values,) in found]  # the first: after the begin-of-document id

    def of_documents(self, encoded: list[np.ndarray]) -> list[np.ndarray]:
        """Marks of each id, uint8."""
        return [(values > self.threshold).astype(np.uint8) for values in self.entropies(encoded)]

    def init_cache(self, rows: int, slots: int) -> dict:
        """Two windows of each row: the one that is asked now, and the next. Documents may be of any
        length, whatever ``slots``."""
        windows = (self._empty(rows), self._empty(rows))
        return {"read": jnp.zeros(rows, jnp.int32), "windows": windows}

    def extend(self, params, tokens, cache, valid):
        """Marks ``[B, N]`` of tokens that continue the cache, of which ``valid [B]`` count, and the
        longer cache."""
        found, cache = self.extend_entropies(params, tokens, cache, valid)
        return (found > self.threshold).astype(jnp.int32), cache

    def extend_entropies(self, params, tokens, cache, valid):
        """As ``extend``, entropies for marks."""
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
        """``extend_entropies`` for at most ``step`` tokens: they lie in two windows or, if more
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
            jnp.any(moves), lambda: self._where(moves, windows[1], windows[0]), lambda: windows[0]
        )
        return found, {"read": read + valid, "windows": windows}

    def _where(self, rows, those, these):
        """Caches of ``those`` windows in the rows ``[B]`` that move on, of ``these`` in others."""

        def one(moves, a, b):
            return jax.tree.map(lambda a, b: jnp.where(moves, a, b), a, b)

        axes = (self._axes, self._axes)
        return jax.vmap(one, (0, axes, axes), axes)(rows, those, these)


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
    small = load(folder / MARKER)
    threshold = read_json(folder / MARKER / THRESHOLD, float, error=CheckpointError)
    return EntropyMarks.of_run(small, threshold)


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


def keep_marker(source: Path, threshold: float | None, folder: Path) -> None:
    """Copy the small model of ``source`` (a run; or a marker, and no threshold) to ``folder``,
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
    if threshold is None:
        shutil.copy(source / THRESHOLD, partial / THRESHOLD)
    else:
        write_json(partial / THRESHOLD, threshold)
    partial.rename(out)
