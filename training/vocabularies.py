"""Rows of another vocabulary: what the embedding and output rows of a tokenizer's ids begin as, of
those of another tokenizer that were trained.

An id whose bytes are an id there has that one's row. For the others, ``mean`` takes the plain mean
over the ids that spell their bytes there, and ``focus`` weighs the ids that both have by sparsemax
over similarity in an auxiliary space (FOCUS, Dobler & de Melo 2023, 2305.14481). Changed: that
space is of co-occurrence in the text to train on (positive pointwise mutual information, reduced by
a singular value decomposition; Levy & Goldberg 2014), where FOCUS trains fastText.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils
from scipy import sparse
from scipy.sparse.linalg import svds

from octavo.data.shards import Corpus
from octavo.tokenizers.interface import Tokenizer

WINDOW = 5
"""Ids to either side that are company."""
TEXT = 4_000_000
"""Ids of each corpus that are counted, at most."""
SIZE = 100
"""Numbers of a vector in the auxiliary space."""


@dataclass(frozen=True, eq=False)
class Rows:
    """How the parameters that have a row for each id begin, of those of other ids."""

    weights: sparse.csr_matrix
    """``[new ids, old ids]``, see ``rows_of``."""
    axes: dict[tuple, int]
    """The axis of ids of each such parameter, by its path."""

    @classmethod
    def of(
        cls, old: Tokenizer, new: Tokenizer, how: str, corpora: tuple[Corpus, ...],
        names: dict[tuple, tuple],
    ) -> "Rows":  # fmt: skip
        """names: logical axes of the parameters, by path. The rest as ``rows_of``."""
        axes = {path: axes.index("vocab") for path, axes in names.items() if "vocab" in axes}
        return cls(rows_of(old, new, how, corpora), axes)

    def made(self, path: tuple, old: jax.Array, drawn: jax.Array) -> jax.Array:
        """The parameter at a path, of the ``old`` one, which every device has whole; an id of which
        nothing is known keeps what was ``drawn``, as all of it is laid out."""
        axis = self.axes[path]
        rows = np.moveaxis(np.asarray(old), axis, 0)
        made = (self.weights @ rows.reshape(len(rows), -1)).reshape(-1, *rows.shape[1:])
        if jax.process_count() > 1:  # sums may be rounded otherwise elsewhere
            made = multihost_utils.broadcast_one_to_all(made)
        made = np.moveaxis(np.asarray(made, drawn.dtype), 0, axis)
        known = np.expand_dims(
            np.diff(self.weights.indptr) > 0, [i for i in range(drawn.ndim) if i != axis]
        )

        def part(index):
            return made[index]

        whole = jax.make_array_from_callback(made.shape, drawn.sharding, part)
        return jax.jit(lambda new, old: jax.numpy.where(known, new, old))(whole, drawn)


def pieces(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The bytes that ids stand for, by id; the first of those that stand for the same."""
    found: dict[bytes, int] = {}
    for id_ in np.flatnonzero(tokenizer.bytes_per_id()).tolist():
        found.setdefault(tokenizer.decode(np.array([id_])), id_)
    return found


def rows_of(
    old: Tokenizer, new: Tokenizer, how: str, corpora: tuple[Corpus, ...]
) -> sparse.csr_matrix:
    """``[new ids, old ids]`` float32: which rows of old ids make up that of each new one. how:
    "mean" or "focus"; corpora: of new ids. Empty rows: nothing is known of the id (it stands for no
    bytes, and is no edge of a document)."""
    there, here = pieces(old), pieces(new)
    shared = {id_: there[piece] for piece, id_ in here.items() if piece in there}
    rows = {id_: (np.array([source]), np.ones(1)) for id_, source in shared.items()}
    rows[new.bos_id] = np.array([old.bos_id]), np.ones(1)
    rows[new.eos_id] = np.array([old.eos_id]), np.ones(1)
    vectors = company(new, corpora) if how == "focus" and shared else None
    for piece, id_ in here.items():
        if id_ in rows:
            continue
        if vectors is None or not vectors[id_].any():
            spelled = np.asarray(old.encode(piece)).astype(np.int64)
            spelled = spelled[old.bytes_per_id()[spelled] > 0]
            rows[id_] = spelled, np.full(len(spelled), 1 / len(spelled))
        else:
            both = np.array([*shared])
            weights = sparsemax(vectors[both] @ vectors[id_])
            kept = np.flatnonzero(weights)
            rows[id_] = np.array([shared[each] for each in both[kept]]), weights[kept]
    at = np.concatenate([np.full(len(ids), id_) for id_, (ids, _) in rows.items()])
    ids, weights = (np.concatenate([row[i] for row in rows.values()]) for i in range(2))
    shape = new.vocab_size, old.vocab_size
    return sparse.csr_matrix((weights.astype(np.float32), (at, ids)), shape)


def company(tokenizer: Tokenizer, corpora: tuple[Corpus, ...]) -> np.ndarray:
    """``[ids, SIZE]`` float64, unit vectors: ids that stand in like company lie near each other;
    zeros for those that the text lacks."""
    V = tokenizer.vocab_size
    counts = sparse.csr_matrix((V, V))
    for corpus in corpora:
        ids = np.empty(min(corpus.tokens, TEXT), corpus.dtype)
        corpus.read(0, len(ids), ids)
        for away in range(1, min(WINDOW, len(ids) - 1) + 1):
            near = np.full(len(ids) - away, 1 / away)  # the nearer, the more it counts
            counts += sparse.coo_matrix((near, (ids[:-away], ids[away:])), (V, V)).tocsr()
    counts = (counts + counts.T).tocoo()
    total = np.asarray(counts.sum(axis=0)).ravel()
    if counts.nnz == 0:
        return np.zeros((V, 1))
    smooth = total**0.75  # of contexts: rare ones would be near everything
    smooth /= smooth.sum()
    gain = np.log(counts.data / (total[counts.row] * smooth[counts.col]))
    gain = sparse.csr_matrix((np.maximum(gain, 0), (counts.row, counts.col)), (V, V))
    size = min(SIZE, V - 1)
    u, s, _ = svds(gain, k=size, v0=np.ones(V), solver="arpack")
    vectors = u * np.sqrt(s)
    vectors[total == 0] = 0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-9, vectors / np.maximum(lengths, 1e-9), 0)


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The distribution nearest to ``scores [n]``, which has zeros (Martins & Astudillo 2016)."""
    falling = np.sort(scores)[::-1]
    above = np.cumsum(falling) - 1
    count = np.arange(1, len(scores) + 1)
    support = count[falling * count > above].max()
    return np.maximum(scores - above[support - 1] / support, 0)
