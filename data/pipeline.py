"""From the plan to batches: Grain reads the plan by random access, one element a step.

An element is a whole host batch, made by one compiled copy loop. Nothing many-to-one follows, so
neither threads nor worker processes can change the stream; the state of the pipeline is the step.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np

from octavo import process
from octavo.batch import Batch, Room
from octavo.compiled import compiled
from octavo.configs.schema import DataConfig
from octavo.data.errors import DataError, WorkerError
from octavo.data.plan import Plan, Rows, values
from octavo.data.remote import corpus_folder
from octavo.data.shards import Corpus, folder_and_label
from octavo.data.stdlib import VARIANTS, embedded_corpus


@dataclass(frozen=True)
class _Window:
    """The text of one shuffle window, in memory, and its rows in shuffled order."""

    ids: np.ndarray
    marks: np.ndarray
    """Of each id, if the corpus has marks; else empty."""
    rows: Rows
    """Pieces as places in ``ids``; an id before every piece is there too."""


class BatchSource(grain.sources.RandomAccessDataSource):
    """Element ``step``: the given rows of the global batch at that step, ``{field: [rows, T]}``, in
    the narrow types of ``Batch``."""

    def __init__(self, plan: Plan, rows: np.ndarray, steps: int):
        self.plan, self.rows, self.steps = plan, np.asarray(rows, np.int64), steps
        self._start_empty()

    def _start_empty(self):
        self._windows: OrderedDict[tuple[int, ...], _Window] = OrderedDict()
        # Two a lane: the one being read and, at a border, the next.
        self._most = 2 * self.plan.streams(self.rows)
        self._lock = threading.Lock()

    def __getstate__(self):
        return {"plan": self.plan, "rows": self.rows, "steps": self.steps}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._start_empty()

    def __len__(self) -> int:
        return self.steps

    def __repr__(self) -> str:
        return f"BatchSource({self.plan.fingerprint}, {len(self.rows)} rows)"

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        plan, shape = self.plan, (len(self.rows), self.plan.length)
        kinds = Batch.dtypes(plan.corpora[0].dtype, plan.length)
        batch = {name: np.empty(shape, kind) for name, kind in kinds.items()}
        corpora, lanes, draws = plan.draws(step * plan.batch_size + self.rows)
        fields = [field.reshape(-1) for field in batch.values()]
        for c in values(corpora):
            tokenizer, of_corpus = plan.corpora[c].tokenizer, corpora == c
            for lane in values(lanes[of_corpus]):
                mine = np.flatnonzero(of_corpus & (lanes == lane))
                for epoch, window, which, places in plan.orders[c].locate(lane, draws[mine]):
                    loaded = self._load(c, lane, epoch, window)
                    _fill(
                        loaded.ids, loaded.marks,
                        loaded.rows.first, loaded.rows.start, loaded.rows.stop,
                        places, mine[which], tokenizer.bos_id, tokenizer.eos_id, plan.length,
                        *fields,
                    )  # fmt: skip
        return batch

    def _load(self, *key: int) -> _Window:
        """corpus, lane, epoch, window."""
        with self._lock:
            if key not in self._windows:
                while len(self._windows) >= self._most:
                    self._windows.popitem(last=False)
                self._windows[key] = self._read(*key)
            self._windows.move_to_end(key)
            return self._windows[key]

    def _read(self, corpus: int, lane: int, epoch: int, number: int) -> _Window:
        source, order = self.plan.corpora[corpus], self.plan.orders[corpus]
        window = order.window(lane, epoch, number)
        about = window.chunks.tolist(), window.skipped.tolist(), window.sizes.tolist()
        pieces = [
            order.strategy.chunk(chunk).part(skipped, size)
            for chunk, skipped, size in zip(*about, strict=True)
        ]
        # One id before each chunk's text: the input of its first target.
        lows = [int(p.start.min()) - 1 for p in pieces]
        sizes = [int(p.stop.max()) - low for p, low in zip(pieces, lows, strict=True)]
        bases = np.cumsum([0, *sizes])
        ids = np.empty(bases[-1], source.dtype)
        marks = np.zeros(bases[-1] if source.marks else 0, np.uint8)
        for low, size, base in zip(lows, sizes, bases, strict=False):
            skipped = max(-low, 0)  # before the corpus's first id there is none
            ids[base : base + skipped] = source.tokenizer.eos_id
            part = slice(base + skipped, base + size)
            read_marks = marks[part] if source.marks else None
            source.read(low + skipped, low + size, ids[part], read_marks)
        shifts = bases[:-1] - lows
        piece_base = np.cumsum([0] + [len(p.start) for p in pieces])
        row_base = np.cumsum([0] + [len(p.first) - 1 for p in pieces])
        firsts = np.concatenate(
            [p.first[:-1] + b for p, b in zip(pieces, piece_base, strict=False)] + [piece_base[-1:]]
        )
        starts, stops = (
            np.concatenate([getattr(p, n) + s for p, s in zip(pieces, shifts, strict=True)])
            for n in ("start", "stop")
        )
        # Reorder the rows once, so that a batch reads consecutive entries.
        at = row_base[window.slot] + window.row
        counts = firsts[at + 1] - firsts[at]
        first = np.cumsum(np.append(0, counts))
        take = np.repeat(firsts[at] - first[:-1], counts) + np.arange(first[-1])
        return _Window(ids, marks, Rows(first, starts[take], stops[take]))


@compiled
def _fill(
    ids, marks, first, start, stop, places, rows, bos, eos, length,
    tokens, targets, segment_ids, positions, loss_weights, marked,
):  # fmt: skip
    """Rows of a batch whose fields ``[rows * length]`` hold anything yet.

    Each field in a loop of its own, by indices that are never negative: only so the compiler makes
    copies of whole vectors of them."""
    for i in range(len(places)):
        at, segment = np.uint64(rows[i] * length), 0
        end = at + np.uint64(length)
        for piece in range(first[places[i]], first[places[i] + 1]):
            low, segment = np.uint64(start[piece]), segment + 1
            n = np.uint64(stop[piece]) - low
            before = low - np.uint64(1)
            for k in range(n):
                tokens[at + k] = ids[before + k]
            for k in range(n):
                targets[at + k] = ids[low + k]
            for k in range(n):
                segment_ids[at + k] = segment
            for k in range(n):
                positions[at + k] = k
            for k in range(n):
                loss_weights[at + k] = 1
            if len(marks):
                for k in range(n):
                    marked[at + k] = marks[before + k]
            else:
                for k in range(n):
                    marked[at + k] = 0
            if tokens[at] == eos:
                tokens[at] = bos
            at += n
        for k in range(at, end):
            tokens[k] = targets[k] = segment_ids[k] = positions[k] = loss_weights[k] = 0
            marked[k] = 0


def _weighted(part: str) -> tuple[str, float]:
    """A name and the weight after its last colon; 1 if there is none, or the colon belongs to the
    name."""
    name, colon, weight = part.rpartition(":")
    if not colon or _is_folder(part):
        return part, 1.0
    try:
        return name.strip(), float(weight)
    except ValueError:
        return part, 1.0


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(folder_and_label(name)[0]).is_dir()
    except (OSError, ValueError):  # no name of a file
        return False


def _place(name: str) -> Path:
    """Where ``name``, or ``name[label]``, lies on this machine."""
    if name in VARIANTS:
        return embedded_corpus(name)
    name, label = folder_and_label(name)
    folder = corpus_folder(name)
    return folder if label is None else Path(f"{folder}[{label}]")


def parse_source(source: str) -> list[tuple[Path, float]]:
    """``"a:0.7,b:0.3"`` as folders and weights; a folder without a weight has weight 1, and
    "stdlib" (and its variants) names the embedded corpus; ``a[eng]`` is what of a corpus has that
    label. Where a folder of exactly that name exists, commas and colons belong to its name. Raises
    DataError for what names none."""
    parsed = []
    parts = source.split(",")
    while parts:
        # The most parts that together name a folder.
        for count in range(len(parts), 0, -1):
            part = ",".join(parts[:count]).strip()
            name, share = _weighted(part)
            if count == 1 or _is_folder(name):
                break
        parts = parts[count:]
        if not name:
            raise DataError(
                f"data.source: a part of {source!r} is empty. Write FOLDER or "
                "FOLDER:WEIGHT,FOLDER:WEIGHT."
            )
        if not 0 < share < float("inf"):
            weight = part.rpartition(":")[2]
            raise DataError(f"data.source: the weight of {name} must be above 0, not {weight}.")
        parsed.append((_place(name), share))
    return parsed


def folders_of(source: str) -> list[Path]:
    """The folders of the parts of ``data.source``, without labels."""
    return [Path(folder_and_label(str(named))[0]) for named, _ in parse_source(source)]


def make_plan(
    config: DataConfig,
    seed: int,
    need_marks: bool = False,
    room: Room | None = None,
    version: int = Plan.VERSION,
) -> Plan:
    """Open the training split of the configured corpora and plan it, for rows with the model's
    room. Raises DataError for any that cannot be used, or has no marks where they are needed.

    version: of the plan; that of a run which is continued.
    """
    corpora = [(Corpus(folder), weight) for folder, weight in parse_source(config.source)]
    first = corpora[0][0]
    for corpus, _ in corpora:
        if corpus.tokenizer.fingerprint != first.tokenizer.fingerprint:
            raise DataError(
                f"{corpus.folder} and {first.folder} were made with different tokenizers; "
                "a mixture needs one."
            )
        if not corpus.tokens:
            raise DataError(f"{corpus.folder} holds no training text.")
        if need_marks and not corpus.marks:
            raise DataError(
                f"{corpus.folder} has no marks, which the model's units need: make them with "
                "python prepare.py SOURCE --out DIR --marks (RUN or unigram:SIZE)."
            )
    return Plan(
        corpora,
        packing=config.packing,
        length=config.length,
        batch_size=config.batch_size,
        shuffle_window_ids=config.shuffle_window_mib << 20,
        seed=seed,
        room=room,
        version=version,
    )


def batches(
    plan: Plan, rows: np.ndarray, *, first_step: int, steps: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """The host batches of steps ``first_step`` to ``steps``, prefetched."""
    dataset = grain.MapDataset.source(BatchSource(plan, rows, steps))[first_step:]
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    iterable = dataset.to_iter_dataset(options)
    if not workers:
        return iter(iterable)
    _allow_grain_workers()
    options = grain.MultiprocessingOptions(num_workers=workers)
    iterable = iterable.mp_prefetch(options, worker_init_fn=_start_worker)
    # A signal to all of us is answered by the trainer, which needs batches until it has stopped.
    with process.deaf(*process.SIGNALS):
        return _unless_killed(iter(iterable))


def _unless_killed(iterator: Iterator) -> Iterator[dict[str, np.ndarray]]:
    """What workers make. Raises WorkerError if one of them was killed."""
    while True:
        try:
            with process.deaf(*process.SIGNALS):  # the first call may start them
                batch = next(iterator, None)
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise WorkerError.killed("--data.workers") from error
        if batch is None:
            return
        yield batch


def _start_worker(index: int, count: int) -> None:
    process.end_with_parent()


def _allow_grain_workers() -> None:
    """Grain reads absl flags when it spawns workers; outside absl.app.run nobody parsed them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
