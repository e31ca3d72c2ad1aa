"""Sums over all ids that spell a text, against their enumeration and where the truth is known."""

import itertools

import jax
import numpy as np
import pytest

from helpers import defined
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig, MeshConfig
from octavo.decoding.by_bytes import END, Heads, answer, readings
from octavo.decoding.sampling import Sampling
from octavo.run import by_bytes, codec
from octavo.run.by_bytes import continued, ensemble, exact
from octavo.run.marks import NoMarks
from octavo.run.opened import Run
from octavo.run.score import logits
from octavo.run.sharding import make_mesh
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ESCAPE, FLIP, ByteTokenizer
from octavo.tokenizers.interface import SubwordTokenizer, Tokenizer
from octavo.tokenizers.words import MARK, WordTokenizer

PIECES = [b"th", b"he", b"the", b" t", b" th", b" the", "é".encode(), b"\xa9t", b"tt"]
TOKENIZER = BPETokenizer([bytes([i]) for i in range(256)] + PIECES)
CONFIG = Config(
    model=ModelConfig(width=32, layers=1, heads=2),
    data=DataConfig(source="none", length=5, batch_size=8),
)
TEXTS = [b"the", " the thé".encode(), b"x\xa9t"]


def opened(config, tokenizer, marker=None) -> Run:
    definition, params = defined(config, tokenizer.vocabulary)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return Run(config, tokenizer, definition, params, 0, mesh, marker or NoMarks())


@pytest.fixture(scope="module")
def model() -> Run:
    return opened(CONFIG, TOKENIZER)


def spellings(text: bytes, pieces: list[bytes]) -> list[list[int]]:
    """All ids that spell a text, by trying every piece."""
    if not text:
        return [[]]
    return [
        [i, *rest]
        for i, piece in enumerate(pieces)
        if text.startswith(piece)
        for rest in spellings(text[len(piece) :], pieces)
    ]


def enumerated(run: Run, text: bytes, **how) -> float:
    """Nats of a text, by all that spells it."""
    ways = [np.array(ids, np.int32) for ids in spellings(text, run.tokenizer.pieces)]
    nats = [one.nats.sum(dtype=np.float64) for one in run.predictions(ways, **how)]
    return -np.logaddexp.reduce(-np.array(nats))


def test_all_that_spells_a_text(model):
    """Of texts shorter and longer than a row, side by side, nothing dropped."""
    found = exact(model, TEXTS, overlap=1, rows=64, threshold=0.0, batch_size=2)
    wanted = [enumerated(model, text, overlap=1) for text in TEXTS]
    np.testing.assert_allclose(found.nats, wanted, rtol=1e-5)
    np.testing.assert_allclose(found.at_most, found.nats, rtol=1e-9)
    canonical = [
        one.nats.sum() for one in model.predictions(list(map(TOKENIZER.encode, TEXTS)), overlap=1)
    ]
    assert (found.nats <= np.array(canonical) + 1e-4).all() and found.nats[1] < canonical[1] - 0.01


def test_few_heads(model):
    """What is dropped passes on its probability: close to the sum, and what was followed of it is
    never more. With one row, the only way that is followed."""
    text = " the thé".encode()
    whole = enumerated(model, text, overlap=1)
    found = exact(model, [text] * 2, overlap=1, rows=4)
    assert found.nats[0] == found.nats[1]
    assert abs(found.nats[0] - whole) < 0.05 * whole
    assert found.at_most[0] > whole + 1e-3


@pytest.mark.parametrize("unlikely", [b"a", b"ax", b"abx", b"axab"])
def test_text_leaves_what_is_likely(unlikely):
    """A model that all but knows how a piece goes on; the text ends, or goes on otherwise."""
    tokenizer = Pieces([bytes([i]) for i in range(256)] + [b"abcd", b""])  # one has no bytes
    p = np.full(tokenizer.vocab_size, 1e-9)
    p[256] = 1 - p.sum() + p[256]
    heads = Heads(readings(tokenizer), range(4))

    def work():
        yield from heads.begin([tokenizer.bos_id])
        for byte in unlikely:
            yield from heads.feed(byte)

    answer(lambda reads: np.tile(np.log(p), (len(reads), 1)), work())
    nats, at_most = heads.end()
    wanted = -(len(unlikely) + 1) * np.log(1e-9)
    assert nats == pytest.approx(wanted, rel=1e-6) and nats <= at_most + 1e-9 <= wanted + 1e-6


class Markov:
    """Ids that depend on the one before alone: probabilities ``[V, V]``, and what they make of
    bytes by walking over all of them."""

    def __init__(self, pieces: list[bytes], seed: int):
        self.pieces, V = pieces, len(pieces) + 1
        rng = np.random.default_rng(seed)
        self.p = rng.dirichlet(np.full(V, 0.3), V)

    def __call__(self, reads):
        return np.log(self.p[[one.path.id for one in reads]])

    def begins(self, text: bytes) -> float:
        """Probability that a document begins so: all ids that reach its end or further, by the last
        id that ended before."""
        size, edge = len(text), len(self.pieces)
        ended = np.zeros((size + 1, edge + 1))
        ended[0, edge] = 1
        total = 0.0
        for at in range(size):
            for i, piece in enumerate(self.pieces):
                reached = ended[at] @ self.p[:, i]
                if text[at:].startswith(piece):
                    ended[at + len(piece), i] += reached
                elif piece.startswith(text[at:]):
                    total += reached
        self.ended = ended[size]
        return total + ended[size].sum()

    def distribution(self, text: bytes) -> np.ndarray:
        """Of the next byte and the end."""
        of = self.begins(text)
        end = self.ended @ self.p[:, len(self.pieces)]
        return np.array([*(self.begins(text + bytes([b])) for b in range(256)), end]) / of


class Pieces(SubwordTokenizer):
    """Any pieces; how it would write a text is of no interest."""

    scheme = "pieces"
    fingerprint = ""
    train = encode = None  # type: ignore[assignment]


@pytest.mark.parametrize("seed", range(3))
def test_known_source(seed):
    """The bytes of a Markov chain of ids, two of which stand for the same bytes: each next byte,
    and the end, as often as they truly come."""
    pieces = [b"a", b"b", b"c", b"ab", b"abc", b"bc", b"ca", b"cab", b"bb", b"a", b"abab"]
    source = Markov(pieces, seed)
    heads = Heads(readings(Pieces(pieces)), range(4000), threshold=0.0)
    answer(source, heads.begin([len(pieces)]))
    text = b"abcabbcabab"[seed : seed + 7]
    nats = 0.0
    for at in range(len(text) + 1):
        found = heads.distribution()
        np.testing.assert_allclose(found, source.distribution(text[:at]), atol=1e-12)
        np.testing.assert_allclose(found.sum(), 1)
        nats -= np.log(found[text[at] if at < len(text) else END])
        if at < len(text):
            answer(source, heads.feed(text[at]))
    np.testing.assert_allclose(heads.end(), nats)


def test_marks_and_escapes():
    """A mark may stand anywhere, an escape only where a byte needs it: against all ids up to some
    length, of a source that seldom gives more."""
    tokenizer = WordTokenizer()
    rng = np.random.default_rng(0)
    p = rng.dirichlet(
        np.full(256, 0.02) + 3.0 * np.isin(np.arange(256), [2, 3, 16, 23, 97, 87]), 256
    )
    p[:, MARK] *= 0.01  # marks follow marks seldom
    p[:, tokenizer.bos_id] = 0
    p /= p.sum(1, keepdims=True)
    text = b"a\x17Wa"
    wanted = 0.0
    for marks in itertools.product(range(4), repeat=len(text) + 1):
        ids, before = [], tokenizer.bos_id
        for byte, count in zip((*text, None), marks, strict=True):
            ids += [MARK] * count
            if byte is not None:
                ids += [ESCAPE, byte ^ FLIP] if byte == MARK else [byte]
        ids.append(tokenizer.eos_id)
        assert tokenizer.decode(np.array(ids)) == text
        one = 1.0
        for id_ in ids:
            one, before = one * p[before, id_], id_
        wanted += one
    heads = Heads(readings(tokenizer), range(500), threshold=1e-12)
    model = lambda reads: np.log(p[[one.path.id for one in reads]] + 1e-300)  # noqa: E731
    answer(model, heads.begin([tokenizer.bos_id]))
    for byte in text:
        answer(model, heads.feed(byte))
    nats, at_most = heads.end()
    np.testing.assert_allclose(at_most, -np.log(wanted), rtol=1e-6)
    assert nats < at_most  # what stands for nothing is out of the question


def test_ids_without_bytes_of_their_own():
    class Other(Tokenizer):
        scheme = "other"
        fingerprint = ""
        encode = decode = bytes_per_id = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="the ids of other do not each stand for bytes"):
        readings(Other())


def test_code_of_bytes(model):
    """The bytes come back from a file of the size of the exact score, in windows that are many
    times shorter; what is damaged is known."""
    text = " the thé thehe\xff\x00".encode("latin-1") * 12
    packed = model.compress(text, exact=True)
    assert model.decompress(packed) == text
    size = exact(model, [text]).nats[0] / np.log(2) / 8
    assert abs(len(packed) - codec.HEADER - size) <= 0.01 * size + 4
    for damaged in (packed[:-4], packed[:-9] + bytes([packed[-9] ^ 1]) + packed[-8:]):
        with pytest.raises(codec.CodecError):
            model.decompress(damaged)


def begins(run: Run, text: bytes) -> float:
    """Probability that a document begins so: of ids that spell some of it, and a next one that
    reaches its end or further."""
    total = 0.0
    for at in range(len(text)):
        last = [i for i, piece in enumerate(run.tokenizer.pieces) if piece.startswith(text[at:])]
        for ids in spellings(text[:at], run.tokenizer.pieces):
            log_p = np.asarray(jax.nn.log_softmax(logits(run, np.array(ids, np.int32))), float)
            total += np.exp(log_p[np.arange(len(ids)), ids].sum()) * np.exp(log_p[-1, last]).sum()
    return total


def test_prompt_inside_a_piece(model):
    """A prompt that ends inside a piece and a character goes on as all that spells it says, and
    what is drawn begins with it."""
    prompt = b"th\xc3"
    ways = continued(model, prompt)
    pieces = [*TOKENIZER.pieces, b""]
    for ids, more, _ in ways[::50]:
        assert b"".join(pieces[i] for i in ids) == prompt + more
    np.testing.assert_allclose(sum(p for _, _, p in ways), 1)
    of = begins(model, prompt)
    for byte in (*b"\xa9 t", 0xFF):
        share = sum(p for _, more, p in ways if more[:1] == bytes([byte]))
        np.testing.assert_allclose(share, begins(model, prompt + bytes([byte])) / of, rtol=1e-4)
    likely = max(ways, key=lambda way: way[2])[1]
    for bytes_ in (1, 6):
        texts = model.continuations(prompt, bytes_, Sampling(temperature=0), samples=2)
        first, second = ("".join(pieces) for pieces in texts)
        assert first == second
        assert first.startswith((prompt + likely[:bytes_]).decode(errors="replace"))
    assert likely == b"\xa9" and len(first) > len("th\xe9")


def test_continuations(model):
    """Behind contexts that end inside pieces and characters, of several lengths side by side: what
    documents that begin so go on with. Greedy is what the likeliest bytes give."""
    pairs = [(b"th", b"e"), (b"", b" the"), (b"t\xc3", b"\xa9t"), (b"th\xc3", b""), (b"xth", b"ex")]
    found = model.costs(pairs, exact=True, heads=64, batch_size=2)
    for (context, more), one in zip(pairs, found, strict=True):
        share = (begins(model, context + more) if context + more else 1.0) / (
            begins(model, context) if context else 1.0
        )
        assert one.nats == pytest.approx(-np.log(share), rel=1e-3, abs=1e-6), (context, more)
    each = [begins(model, b"th" + bytes([byte])) for byte in range(256)]
    assert max(each) > begins(model, b"th") - sum(each), "it seldom ends"
    likely = bytes([int(np.argmax(each))])
    for byte, greedy in ((likely, True), (b"\x00", False)):
        assert model.costs([(b"th", byte)], exact=True, heads=64)[0].greedy is greedy
    long = "the thé ".encode() * 4  # of several rows
    [one] = model.costs([(long, b"th")], exact=True)
    assert 0 < one.nats < 20


def test_compiled_once(model):
    """What reads a run is compiled once, however often it is asked."""
    asked = lambda: (exact(model, TEXTS), continued(model, b"th\xc3"))  # noqa: E731
    asked()
    compiled = by_bytes._read._cache_size()
    again, _ = asked()
    assert compiled > 0 and by_bytes._read._cache_size() == compiled
    np.testing.assert_array_equal(again.nats, exact(model, TEXTS).nats)


def test_ensemble(model):
    """Of two runs with tokenizers of their own, texts side by side: each alone as its exact score,
    and the mean, byte by byte, at least as good as the two on average."""
    of_bytes = opened(CONFIG, ByteTokenizer())
    texts = [b" the", b"t", b"x the"]
    a, b, both = ensemble([model, of_bytes], texts, batch_size=2)
    np.testing.assert_allclose(a, exact(model, texts, batch_size=2).nats, rtol=1e-6)
    np.testing.assert_allclose(b, exact(of_bytes, texts, batch_size=2).nats, rtol=1e-6)
    assert (both < (a + b) / 2).all() and (both > np.minimum(a, b) - np.log(2) * 6).all()
