"""Ids that training hardly reached: by their embeddings, by how often they occur in the training
text, and by prompts that repeat them.

The method of Land & Bartolo 2024 ("Fishing for Magikarp", 2405.05417, section 2). Indicators: the
cosine distance of an id's output embedding to the mean of those of ids that were never trained,
and, where input and output are not tied, the L2 norm of its input embedding; low is suspicious. The
norm is moved by weight decay, too, so the distance ranks. Which ids were never trained need not be
guessed here: those that occur least in the training text, never where there are such.

The ids of lowest distance are confirmed by three prompts that repeat one id: the highest
probability of the id at the last three places where it is due. Below 0.001 it is verified, below
0.1 weakly; above 0.9 it is rejected, above 0.1 weakly. The prompts are the paper's, shortened to a
row of training, read in one pass (the paper generates three ids), and the question is no dialogue:
these are base models. A model that repeats nothing at all confirms every id: ``common_repeated``
says how well it repeats the most frequent ones.
"""

from collections.abc import Callable

import numpy as np

from octavo.configs.checks import ConfigError
from octavo.data.pipeline import parse_source
from octavo.data.shards import Corpus
from octavo.model.embeddings import LearnedTable
from octavo.tokenizers.interface import Tokenizer

TEXTS = False
KEPT = READS_CORPORA = True
SHOWN = 20
"""Rows of the table, and ids for ``common_repeated``."""
CANDIDATES = 0.02
"""Share of ids that are prompted."""
FEW = 10
"""An id that was trained on less often is counted as ``hardly``."""
PLACES = 3
CHUNK = 1 << 22
"""Ids of a corpus that are counted at a time."""

PROMPTS = (
    (20, b"This device repeats its input exactly.", (b"\nInput: <", b">\nOutput: <"), b">"),
    (10, b"What do phrases mean?", (b"\nWhat does '", b"' mean? I am asked what '"), b"' means."),
    (50, b"The same phrase again and again:\n", (b"",), b""),
)
"""Most rounds; what stands first; what stands before the id in a round, each time; what ends it."""


def kind(tokenizer: Tokenizer, id_: int) -> str:
    """``reachable``: encoding what the id stands for gives it. ``unreachable``: it gives others,
    so that no text of just these bytes does. ``partial``: its bytes are no UTF-8 by themselves, and
    encoding them gives others; longer text may give it."""
    data = tokenizer.decode(np.array([id_]))
    if tokenizer.encode(data).tolist() == [id_]:
        return "reachable"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "partial"
    return "unreachable"


def counts_in(
    corpora: list[Corpus], progress: Callable[[int, int], None] = lambda done, of: None
) -> np.ndarray:
    """``[corpora, V]`` int64: how often each id occurs in the training text of each corpus."""
    of, done = sum(corpus.tokens for corpus in corpora), 0
    found = np.zeros((len(corpora), corpora[0].tokenizer.vocab_size), np.int64)
    for counts, corpus in zip(found, corpora, strict=True):
        for start in range(0, corpus.tokens, CHUNK):
            ids = np.empty(min(CHUNK, corpus.tokens - start), corpus.dtype)
            corpus.read(start, start + len(ids), ids)
            counts += np.bincount(ids, minlength=len(counts))
            done += len(ids)
            progress(done, of)
    return found


def cosine_distance(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``[V]``: 1 - cosine of each row of embeddings ``[V, d]`` with the mean of those of the ids
    of ``reference``."""
    mean = embeddings[reference].mean(0)
    norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(mean)
    return 1 - embeddings @ mean / np.maximum(norms, 1e-30)


def prompts_of(tokenizer: Tokenizer, id_: int, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The prompts of an id, each of at most ``most`` ids if two rounds fit: ids, and the last
    places where the id is due. What stands around it is encoded apart, as the id is cut off from it
    whatever the tokenizer would do."""
    found = []
    for rounds, first, before, end in PROMPTS:
        head, tail, *parts = (tokenizer.encode(part).tolist() for part in (first, end, *before))
        one = sum(([*part, id_] for part in parts), []) + tail
        fit = (most - len(head) + len(tail)) // len(one)
        if fit < 2:
            head, fit = [], max((most + len(tail)) // len(one), 1)
        count = min(rounds, fit)
        ids = head + one * count
        due = len(head) + np.arange(1, count + 1) * len(one) - len(tail) - 1
        found.append((np.array(ids[: due[-1] + 1], tokenizer.dtype), due[-PLACES:]))
    return found


def repeated(run, ids: list[int], **scoring) -> np.ndarray:
    """``[ids]``: of each, the highest probability that the model gives it at the last places of
    any prompt where it is due."""
    prompts = [p for id_ in ids for p in prompts_of(run.tokenizer, id_, run.length - 1)]
    found = run.predictions([prompt for prompt, _ in prompts], **scoring)
    best = [np.exp(-one.nats[due]).max() for one, (_, due) in zip(found, prompts, strict=True)]
    return np.reshape(best, (len(ids), len(PROMPTS))).max(1)


def verdict(probability: float) -> str:
    """The paper's, by thresholds."""
    if probability > 0.9:
        return "rejected"
    if probability > 0.1:
        return "weakly rejected"
    return "weakly verified" if probability >= 0.001 else "verified"


def embeddings_of(run) -> tuple[np.ndarray, np.ndarray | None]:
    """Output and, where they are not tied, input embeddings, ``[V, d]``. Raises ConfigError of a
    model without a learned row per id."""
    model = run.config.model
    if not issubclass(run.definition.embedding, LearnedTable):
        raise ConfigError(
            f"undertrained reads a learned row per id, and model.embedding {model.embedding} has "
            "none."
        )
    rows = np.asarray(run.definition.embedding.folded(run.params["embedding"])["rows"], np.float32)
    if model.tied_embeddings:
        return rows, None
    return np.asarray(run.params["head"]["weight"], np.float32).T, rows


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's, ties at their mean rank; None where one of them is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(one), rankdata(other)
    if min(np.ptp(each) for each in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def shown(data: bytes) -> str:
    """Bytes in a table: text as Python would write it, and what is no UTF-8 by its value."""
    return ascii(data.decode("utf-8", "backslashreplace"))[1:-1].replace("\\\\", "\\")


def check(arguments, inputs: tuple) -> None:
    """Raise ConfigError for what has no meaning here."""
    if arguments.length is not None:
        raise ConfigError("--length is not for undertrained: it counts what rows of training held.")


def measure(run, documents: list, arguments=None, **scoring) -> list[dict]:
    """One row, and ``by_id`` the ids of lowest distance."""
    output, rows = embeddings_of(run)
    sources = parse_source(run.config.data.source)
    corpora = [Corpus(folder) for folder, _ in sources]
    if any(corpus.tokenizer.fingerprint != run.tokenizer.fingerprint for corpus in corpora):
        raise ConfigError(
            f"{run.config.data.source} has other ids than {run.name} was trained on; put the "
            "corpus back that it was."
        )
    parts = counts_in(corpora, scoring.get("progress", lambda done, of: None))
    counts = parts.sum(0)
    shares = np.array([weight for _, weight in sources])
    rates = shares / shares.sum() / np.array([corpus.tokens for corpus in corpora])
    data = run.config.data
    trained = run.step * data.batch_size * data.length * (rates @ parts)

    usable = np.flatnonzero(run.tokenizer.bytes_per_id())  # what stands for no byte is no text
    least = int(counts[usable].min())
    reference = usable[counts[usable] == least]
    distance = cosine_distance(output, reference)
    norm = None if rows is None else np.linalg.norm(rows, axis=1)
    order = usable[np.argsort(distance[usable], kind="stable")]
    suspects = order[: max(SHOWN, round(CANDIDATES * len(usable)))].tolist()
    common = usable[np.argsort(-counts[usable], kind="stable")][:SHOWN].tolist()
    found = repeated(run, [*suspects, *common], **scoring)
    likely = dict(zip(suspects, found[: len(suspects)].tolist(), strict=True))
    verdicts = {id_: verdict(p) for id_, p in likely.items()}
    kinds = {id_: kind(run.tokenizer, id_) for id_ in usable.tolist()}
    summary = {
        "ids": len(usable),
        "never": int((counts[usable] == 0).sum()),
        "hardly": int((trained[usable] < FEW).sum()),
        "unreachable": list(kinds.values()).count("unreachable"),
        "partial": list(kinds.values()).count("partial"),
        "least": least,
        "reference": len(reference),
        "spearman_distance": correlation(distance[usable], counts[usable]),
        "spearman_norm": None if norm is None else correlation(norm[usable], counts[usable]),
        "prompted": len(suspects),
        **{
            name.replace(" ", "_"): list(verdicts.values()).count(name)
            for name in ("verified", "weakly verified", "weakly rejected", "rejected")
        },
        "common_repeated": float(np.median(found[len(suspects) :])),
    }
    worst = {
        str(id_): {
            "bytes": shown(run.tokenizer.decode(np.array([id_]))),
            "kind": kinds[id_],
            "verdict": verdicts[id_],
            "repeated": likely[id_],
            "distance": float(distance[id_]),
            "norm": None if norm is None else float(norm[id_]),
            "occurs": int(counts[id_]),
            "trained": float(trained[id_]),
        }
        for id_ in suspects[:SHOWN]
    }
    return [summary | {"by_id": worst}]
