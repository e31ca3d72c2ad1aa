"""Only valid UTF-8 is drawn: by any tokenizer and model, whoever drafts, whatever the prompt."""

import codecs
import dataclasses

import numpy as np
import pytest

from helpers import SCHEMES, of_preset
from helpers import random_run as opened
from octavo.configs.checks import ConfigError
from octavo.decoding import utf8
from octavo.decoding.automata import Automaton, table_of
from octavo.decoding.drafting import Smaller, own_drafter
from octavo.decoding.sampling import Acceptance, Sampling, generate
from octavo.run.opened import Run
from octavo.run.samples import Rule
from octavo.tokenizers.bytes import ESCAPE, FLIP
from octavo.tokenizers.huffman import HuffmanTokenizer
from octavo.tokenizers.words import MARK

HOT = Sampling(temperature=3.0)


def drawn(run: Run, prompts: list[bytes], count: int, valid: bool, how=HOT, **more):
    """Bytes behind each prompt, their ids, and whether the document ended."""
    tokenizer = run.tokenizer
    states = np.array([utf8.state_after(prompt) for prompt in prompts], np.int32)
    automaton = Automaton(table_of(tokenizer, utf8.DFA), states) if valid else None
    pieces = generate(
        run.definition.bind, run.apart, [tokenizer.encode(prompt) for prompt in prompts], count,
        sampling=how, seed=5, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, marker=run.marker,
        automaton=automaton, **more,
    )  # fmt: skip
    found = []
    for ids in np.concatenate(list(pieces), axis=1):
        ends = np.flatnonzero(ids == tokenizer.eos_id)
        ids = ids[: ends[0]] if len(ends) else ids
        found.append((tokenizer.decode(ids), ids, bool(len(ends))))
    return found


def check(prompt: bytes, data: bytes, ended: bool) -> None:
    """Raises UnicodeDecodeError unless the text begins valid UTF-8, and is some if it ended."""
    codecs.getincrementaldecoder("utf-8")("strict").decode(prompt + data, final=ended)


def test_the_automaton_is_pythons_decoder():
    """Of all bytes behind all beginnings of characters."""

    seconds, rest = (b"\x80", b"\x90", b"\xa0"), (b"", b"\x80", b"\x80\x80")
    tails = [b"", *(second + more for second in seconds for more in rest)]

    def whole(data: bytes) -> bool:
        return data.decode(errors="ignore").encode() == data

    begun = [b""]
    while begun:
        longer = [one + bytes([byte]) for one in begun for byte in range(256)]
        states = [utf8.follow(utf8.WHOLE, one) for one in longer]
        assert [state == utf8.WHOLE for state in states] == [whole(one) for one in longer]
        goes_on = [any(whole(one + tail) for tail in tails) for one in longer]
        assert [state >= 0 for state in states] == goes_on
        # Of what begins a character alike, one is enough.
        begun = list({s: one for s, one in zip(states, longer, strict=True) if s > 0}.values())


def test_state_behind_any_prompt():
    for prompt, state in (
        (b"", 0), (b"caf\xc3", 1), ("né日".encode(), 0), (b"\xff\xe6", 2), (b"\xe6\x97x", 0),
        (b"\xf0\x80", 0), (b"\xe0\xf1", 3), (b"\xed", 5), (b"\xa9\xa9", 0),
        (b"\xed\xa0", 0), ("🙂".encode(), 0), ("🙂".encode()[:3], 1), (b"\xf4\x90\xe6\x97", 1),
    ):  # fmt: skip
        assert utf8.state_after(prompt) == state


def test_table():
    """Bytes with marks and escapes, and pieces that begin and end inside characters."""
    table = table_of(SCHEMES["words"], utf8.DFA)
    assert table[1, MARK] == 1 and table[1, 0xA9] == 0 and table[1, ord("a")] == -1
    assert table[0, ESCAPE] == 8 and table[8, MARK ^ FLIP] == 0 and table[1, ESCAPE] == -1
    assert (table[8] >= 0).sum() == 4
    bpe = SCHEMES["bpe"]
    table = table_of(bpe, utf8.DFA)
    for state in range(8):
        wanted = [utf8.follow(state, piece) for piece in bpe.pieces]
        assert table[state].tolist() == [*wanted, 0 if state == 0 else -1]
    word = HuffmanTokenizer([b"the"], [[256]], 0, "x+|.+")
    with pytest.raises(ConfigError, match="the ids of huffman-.* do not each stand for bytes"):
        table_of(word, utf8.DFA)


CASES = [("flat", "bytes"), ("flat", "bpe"), ("words", "words")]


@pytest.mark.parametrize(
    ("name", "scheme"), [of_preset(*case) for case in CASES], ids=["-".join(c) for c in CASES]
)
def test_what_is_drawn_is_valid(name, scheme):
    """Thousands of bytes of a model that knows nothing, behind prompts that end anywhere; without
    the rule they are not."""
    run = opened(name, scheme)
    prompts = ["é日🙂".encode()[:cut] for cut in range(10)] * 2
    found = drawn(run, prompts, 200, valid=True)
    for prompt, (data, _, ended) in zip(prompts, found, strict=True):
        check(prompt, data, ended)
    assert sum(len(data) for data, _, _ in found) > 1000
    assert len({data for data, _, _ in found}) == len(found)
    if name != "flat":  # it takes long to compile
        return
    free = drawn(run, prompts, 200, valid=False)
    for prompt, (data, _, ended) in zip(prompts, free, strict=True):
        with pytest.raises(UnicodeDecodeError):
            check(prompt, data, ended)


def test_the_model_chooses_among_what_may_be_drawn():
    run, prompts = opened("flat", "bytes"), [b"", b"caf\xc3", "日".encode()[:2]]
    table = table_of(run.tokenizer, utf8.DFA)
    found = drawn(run, prompts, 1, valid=True, how=Sampling(temperature=0))
    for prompt, (_, ids, ended) in zip(prompts, found, strict=True):
        logits = np.where(table[utf8.state_after(prompt)] >= 0, run.logits(prompt)[-1], -np.inf)
        assert [*ids, *[run.tokenizer.eos_id] * ended] == [logits.argmax()]


@pytest.mark.parametrize("kind", ["own", "smaller"])
def test_drafts(kind):
    """Whoever drafts, the ids are those of no drafter; by rejection sampling, valid ones."""
    run = opened("mtp-heads", "bytes")
    small = opened("flat", "bytes")
    drafter = {
        "own": lambda: own_drafter(run.config.model),
        "smaller": lambda: Smaller(small.definition.bind, small.apart, small.length, 4),
    }[kind]()
    prompts, acceptance = [b"", b"caf\xc3", b"abcabcabca"], Acceptance()
    how = Sampling(temperature=1.0)
    found = drawn(run, prompts, 120, True, how, drafter=drafter, acceptance=acceptance)
    for prompt, (data, _, ended) in zip(prompts, found, strict=True):
        check(prompt, data, ended)
    assert acceptance.accepted > 0
    if kind != "smaller":
        plain = drawn(run, prompts, 120, True, how)
        assert [data for data, _, _ in found] == [data for data, _, _ in plain]


@pytest.mark.parametrize("scheme", ["bytes", "bpe"])
def test_text_of_a_run(scheme):
    """What is shown has no damage, wherever the prompt or the asked number of bytes cuts."""
    run = opened("flat", scheme)
    for prompt, begun in ((b"caf\xc3", "caf"), ("a \u65e5".encode()[:4], "a "), (b"", "")):
        texts = run.continuations(prompt, 7, HOT, samples=32, valid_utf8=True)
        for text in ["".join(pieces) for pieces in texts]:
            assert "\ufffd" not in text and text.startswith(begun)
            assert len(text.encode()) <= len(prompt) + 7
            if prompt:  # the character goes on, and does not end the text
                assert len(text) > len(begun)
    for prompt, valid in ((b"\xff caf\xc3", True), (b"caf\xc3", False)):
        texts = run.continuations(prompt, 7, HOT, samples=32, valid_utf8=valid)
        counts = ["".join(pieces).count("\ufffd") for pieces in texts]
        assert set(counts) == {1} if valid else max(counts) > 1


def test_ways_out_of_a_prompt():
    """Of what all spellings of a prompt go on with, what is valid; the end, behind a character."""
    ids, mores = np.zeros(1, np.int32), [(b"", 0.2), (b"\xa9", 0.3), (b"x", 0.4), (b"\xa9t", 0.1)]
    ways = [(ids, more, p) for more, p in mores]
    rule = Rule.of(SCHEMES["bpe"], True, None)
    assert {more: p for _, more, p in rule.left(ways, 1)} == {b"\xa9": 0.3, b"\xa9t": 0.1}
    assert {more for _, more, _ in rule.left(ways, utf8.WHOLE)} == {b"", b"x"}


def test_refused_of_ids_without_bytes_of_their_own():
    tokenizer = HuffmanTokenizer([b"the"], [[256]], 0, "x+|.+")
    run = dataclasses.replace(opened("flat", "bytes"), tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="do not each stand for bytes of their own"):
        run.generate("x", valid_utf8=True)
