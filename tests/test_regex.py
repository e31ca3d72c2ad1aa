"""Patterns as automata over bytes: what they accept, what they refuse, what is drawn."""

import random
import re
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import random_run
from octavo.configs.checks import ConfigError
from octavo.decoding import automata
from octavo.decoding.automata import Dfa
from octavo.decoding.by_bytes import Reading
from octavo.decoding.drafting import Lookup
from octavo.decoding.regex import automaton
from octavo.decoding.sampling import Sampling

PATTERNS = (
    "", "abc", "a|bc*", "(ab)+c{2,3}", "[a-c]*d?", r"\d{3}-\d{2}", r"[^\n]+", ".", r"\s*\w+",
    "(?i)He[l-m]*o", "^a$|^b$", "(a|ab)(c|bcd)*", r"\S\D\W", "(?s).*x", "x{0}", "(?:a?){3}a{3}",
    r"[^\W\d]+", "[]a-]+", "a(?i:b)c", "(((a*)*)*)*b", "é+", "[а-яё]+", "日本?", r"\u65e5+",
    "[a-zé-ü]+", "[^é日]+",
)  # fmt: skip
PIECES = [
    *(bytes([b]) for b in b"abcdxHEhelo1 -\n_]"), *(c.encode() for c in "éёя日本ü"),
    b"\xff", b"\x80", b"\xc3",
]  # fmt: skip


def accepts(dfa: Dfa, data: bytes) -> bool:
    state = dfa.follow(dfa.start, data)
    return state >= 0 and bool(dfa.accepts[state])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_python_matches(pattern):
    """Of characters as of text; of bytes, if it names no character, as of bytes."""
    rng = random.Random(0)
    texts = [b"".join(rng.choices(PIECES, k=rng.randrange(7))) for _ in range(1500)]
    of_characters = automaton(pattern, characters=True)
    for data in texts:
        text = data.decode(errors="replace")
        whole = "\ufffd" not in text and bool(re.fullmatch(pattern, text, re.ASCII))
        assert accepts(of_characters, data) == whole, data
    if pattern.isascii() and "\\u" not in pattern:
        of_bytes = automaton(pattern)
        for data in texts:
            assert accepts(of_bytes, data) == bool(re.fullmatch(pattern.encode(), data)), data


def test_characters_of_a_pattern_of_bytes():
    """Are whole under a quantifier and in a class; escapes are bytes."""
    assert accepts(automaton("é+"), "éé".encode()) and not accepts(automaton("é+"), b"\xc3\xa9\xa9")
    assert accepts(automaton(r"\xe9[\x80-\xff]"), b"\xe9\xff")
    mixed = automaton(r"[a-я\xff]+")
    assert accepts(mixed, "zя".encode() + b"\xff") and not accepts(mixed, b"\xd1")
    dot = automaton(r"a\u002eb[a\u002dz]")  # which stand for themselves, whatever they are bare
    assert accepts(dot, b"a.b-") and not accepts(dot, b"axb-") and not accepts(dot, b"a.bm")
    assert accepts(automaton("\udcff"), b"\xff")  # of a command line that is no UTF-8


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", "a reference to a group"), ("a(?=b)", "looking ahead"), (r"a\b", "an anchor"),
        ("a^b", "an anchor"), ("a*+", "possessive"), ("(?>a)", "an atomic group"),
        ("(", "is wrong"), ("[^é]", "all but a character"), (r"\N{BULLET}", r"\\N"),
        ("(?u)a", "is wrong"),
        (r"[^\x00-\xff]", "matches no text"), ("(?:.*a.{20})", "more than 10,000 states"),
        ("(a{1000}){1000}", "says too much"),
    ],
)  # fmt: skip
def test_refused(pattern, said):
    with pytest.raises(ConfigError, match=said):
        automaton(pattern)


def test_what_cannot_be_completed_is_not_begun(monkeypatch):
    """By ids that do not spell every byte: behind c, nothing would end."""
    way = Reading([b"a", b"b", b"c", b"ab", None], {}, 4)
    monkeypatch.setattr(automata, "readings", lambda _: [way])
    dfa = automaton("ab|cd")
    table = automata.table_of(SimpleNamespace(vocab_size=5), dfa)
    assert (table[dfa.start] >= 0).tolist() == [True, False, False, True, False]
    assert (table[table[dfa.start, 3]] >= 0).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("scheme", ["bytes", "bpe"])
def test_drawn_text_matches(scheme):
    """Of a model that knows nothing: behind prompts that end inside characters and pieces, with
    drafts; of bytes, and of characters."""
    run, how, pattern = random_run("flat", scheme), Sampling(), "(yes|no|é){2,4}(, .{2})*"
    prompts = [b"", b"the q", b"caf\xc3", "日".encode()[:2]]
    for valid in (False, True):
        found = run.samples(
            prompts, 60, how, samples=4, regex=pattern, valid_utf8=valid, drafter=Lookup(3),
            stop="no,",
        )  # fmt: skip
        finished = set()
        for sample in found:
            data = sample.data
            if valid:  # what completes the prompt's character comes first
                whole = sample.prompt + data
                begun = len(sample.prompt.decode(errors="ignore").encode())
                text = whole[begun:].decode()
                text = text[1:] if begun < len(sample.prompt) else text
                matched = re.fullmatch(pattern, text)
            else:
                matched = re.fullmatch(pattern.encode().replace("é".encode(), b"\xc3\xa9"), data)
            finished.add(sample.finish)
            assert matched or sample.finish != "end", sample
        assert "end" in finished
    with pytest.raises(ConfigError, match="has an anchor"):
        run.generate("x", regex=r"\b")


def test_the_models_own_probability_is_told_beside():
    """Where one text alone may be drawn, it is certain, whatever the model thinks of it."""
    run = random_run("flat", "bytes")
    [sample] = run.samples([b"a"], 9, Sampling(), regex="xyz")
    ids = run.tokenizer.encode(b"axyz")
    [said] = run.predictions([ids])
    assert sample.data == b"xyz" and sample.finish == "end" and sample.ids == 4
    np.testing.assert_allclose(-sample.log_p, said.nats[1:].sum(), rtol=1e-4)
    assert abs(sample.drawn_log_p) < 1e-5
