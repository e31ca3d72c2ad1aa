"""Continuations of prompts, whole: what was drawn, why it ended, what it cost, and its units."""

import codecs
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from octavo.configs.checks import ConfigError
from octavo.decoding import regex, sampling, utf8
from octavo.decoding.automata import Automaton, Dfa, table_of
from octavo.model.drafter import Drafter
from octavo.run.by_bytes import continued
from octavo.run.score import over_bytes, predictions
from octavo.tokenizers.interface import SubwordTokenizer

if TYPE_CHECKING:
    from octavo.run.opened import Run

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One continuation of a prompt."""

    prompt: bytes
    data: bytes
    """What was drawn behind it. A character that the asked number of bytes would cut is left out;
    of a stop string, nothing is there."""
    finish: sampling.Finish
    log_p: float
    """Nats: of the ids that ``data`` came of (the last of them whole, where it was cut), and of the
    end of the document if it ended, by the model alone: at temperature 1, without filters. Of a
    subword that begins inside the prompt, that of what it adds."""
    drawn_log_p: float
    """The same among what could be drawn: with temperature, filters and what was allowed."""
    ids: int
    """How many these ids are."""
    units: list[tuple[int, int]]
    """Spans of bytes of prompt and data together: the units, as the score of this text has them,
    that reach beyond the prompt. Of a flat model, its ids."""


@dataclass(frozen=True)
class Rule:
    """What alone may be drawn, by the bytes."""

    dfa: Dfa
    table: np.ndarray
    valid_utf8: bool
    pattern: bool
    """The text behind the prompt matches a pattern."""

    @classmethod
    def of(cls, tokenizer, valid_utf8: bool, pattern: str | None) -> "Rule | None":
        """None: anything may be. Raises ConfigError if a pattern cannot be followed, or the ids
        cannot spell it."""
        if pattern is None:
            if not valid_utf8:
                return None
            return cls(utf8.DFA, table_of(tokenizer, utf8.DFA), True, False)
        dfa = regex.automaton(pattern, characters=valid_utf8)
        dfa = utf8.begun_then(dfa) if valid_utf8 else dfa
        found = cls(dfa, table_of(tokenizer, dfa), valid_utf8, True)
        if not found.live(dfa.start):
            raise ConfigError(
                f"the ids of {tokenizer.name} spell nothing that matches {pattern!r}."
            )
        return found

    def start(self, prompt: bytes) -> int:
        """The state behind a prompt: a pattern begins there, or behind the character that is begun
        there if the text is to be UTF-8."""
        begun = utf8.state_after(prompt) if self.valid_utf8 else utf8.WHOLE
        if not self.pattern:
            return begun
        states = len(self.dfa.accepts) - (utf8.STATES - 1)
        return self.dfa.start if begun == utf8.WHOLE else states - 1 + begun

    def live(self, state: int) -> bool:
        """Whether anything may follow, be it the end."""
        return state >= 0 and bool((self.table[state] >= 0).any())

    def left(
        self, ways: list[tuple[np.ndarray, bytes, float]], state: int
    ) -> list[tuple[np.ndarray, bytes, float]]:
        """Of what a prompt may go on with (``by_bytes.continued``), that which may be drawn; the
        end of the document, where it may end. Raises ConfigError if the model gives none of them
        any probability."""
        left = [
            way for way in ways
            if (self.live(self.dfa.follow(state, way[1])) if way[1] else self.dfa.accepts[state])
        ]  # fmt: skip
        if not sum(p for _, _, p in left) > 0:
            raise ConfigError("the model gives nothing that may follow the prompt any probability.")
        return left


@dataclass(frozen=True)
class Begun:
    """A row before its ids are drawn."""

    prompt: bytes
    ids: np.ndarray
    """To go on from."""
    more: bytes
    """What of their bytes follows the prompt."""
    ended: bool = False
    """The document ends here."""
    log_p: tuple[float, float] = (0.0, 0.0)
    """Of that: as in ``Sample``, ``log_p`` and ``drawn_log_p``."""


@dataclass(frozen=True)
class Asked:
    """What is to be drawn."""

    most_bytes: int
    how: sampling.Sampling
    samples: int
    seed: int
    stop: Sequence[bytes]
    drafter: Drafter | None
    rule: Rule | None


def begun(run: "Run", prompt: bytes, number: int, asked: Asked) -> list[Begun]:
    """The rows of the ``number``-th prompt, one a sample."""
    tokenizer, rule = run.tokenizer, asked.rule
    newest = newest_of(run, prompt)
    own = tokenizer.encode(newest)
    if not (newest and isinstance(tokenizer, SubwordTokenizer)):
        return [Begun(prompt, own, b"")] * asked.samples
    ways = continued(run, newest)
    ways = ways if rule is None else rule.left(ways, rule.start(newest))
    with jax.set_mesh(run.mesh):
        log_p = sampling.filtered(jnp.log(jnp.array([p for _, _, p in ways])), asked.how)
        key = jax.random.fold_in(jax.random.key(asked.seed), asked.samples)
        key = jax.random.fold_in(key, number) if number else key
        drawn = np.asarray(jax.random.categorical(key, log_p, shape=(asked.samples,)))
        log_p = np.asarray(log_p)
    found = []
    for i in drawn.tolist():
        ids, more, p = ways[i]
        price = float(np.log(p)), float(log_p[i])
        ended = bool(ids[-1] == tokenizer.eos_id)
        found.append(Begun(prompt, own if ended else ids, b"" if ended else more, ended, price))
    return found


def newest_of(run: "Run", prompt: bytes) -> bytes:
    """What is read of a prompt, from the beginning of a character."""
    newest = prompt[-run.most_prompt :]
    if len(newest) == len(prompt):
        return prompt
    inside = next((i for i, byte in enumerate(newest[:4]) if byte & 0xC0 != 0x80), 0)
    return newest[inside:]


def draw(
    run: "Run",
    rows: list[Begun],
    asked: Asked,
    *,
    first_row: int = 0,
    acceptance: sampling.Acceptance | None = None,
    paid: list[np.ndarray] | None = None,
) -> list[sampling.Text]:
    """The texts of rows, drawn side by side as far as any of them is asked for. first_row, paid: as
    in ``sampling.generate``."""
    tokenizer, rule = run.tokenizer, asked.rule
    # A mark may follow every byte.
    count = asked.most_bytes * (1 if tokenizer.vocabulary.unit_mark is None else 2)
    automaton = None
    if rule is not None:
        states = [
            max(rule.dfa.follow(rule.start(newest_of(run, row.prompt)), row.more), 0)
            for row in rows
        ]
        automaton = Automaton(rule.table, np.array(states, np.int32))
    pieces = sampling.generate(
        run.definition.bind, run.apart, [row.ids for row in rows], count, sampling=asked.how,
        seed=asked.seed, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, marker=run.marker,
        context=run.length, drafter=asked.drafter, acceptance=acceptance, automaton=automaton,
        first_row=first_row, paid=paid,
    )  # fmt: skip
    texts = itertools.tee(_each_on(run.mesh, pieces), len(rows))
    return [
        sampling.Text(each, tokenizer, number, asked.most_bytes, asked.stop, row.more, row.ended)
        for number, (each, row) in enumerate(zip(texts, rows, strict=True))
    ]


def samples(
    run: "Run",
    prompts: Sequence[bytes],
    asked: Asked,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Iterator[Sample]:
    """All samples of all prompts, in order, ``batch_size`` rows drawn at a time; progress is called
    with how many are drawn, and how many there are."""
    of_prompt = functools.lru_cache(1)(lambda number: begun(run, prompts[number], number, asked))
    of = len(prompts) * asked.samples
    for first in range(0, of, batch_size):
        some = range(first, min(first + batch_size, of))
        rows = [of_prompt(i // asked.samples)[i % asked.samples] for i in some]
        # The last ones, filled up: what was compiled is used again.
        full = rows + rows[-1:] * (batch_size - len(rows) if first else 0)
        paid: list[np.ndarray] = []
        texts = draw(run, full, asked, first_row=first, paid=paid)[: len(rows)]
        for text in texts:
            for _ in text:
                pass
        yield from _finished(run, rows, texts, paid, batch_size)
        progress(some.stop, of)


def _finished(
    run: "Run", rows: list[Begun], texts: list[sampling.Text], paid: list[np.ndarray],
    batch_size: int,
) -> Iterator[Sample]:  # fmt: skip
    found = [_whole(row.prompt, text) for row, text in zip(rows, texts, strict=True)]
    counts = [text.count(len(data)) for text, data in zip(texts, found, strict=True)]
    ids = [
        np.append(row.ids, text.ids[:count]).astype(np.int32)
        for row, text, count in zip(rows, texts, counts, strict=True)
    ]
    ids = [each[:-1] if each[-1:].tolist() == [run.tokenizer.eos_id] else each for each in ids]
    filled = [each for each in ids if len(each)]
    said = iter(predictions(run, filled, batch_size=batch_size) if filled else ())
    prices = np.concatenate(paid, axis=1) if paid else np.zeros((len(rows), 0, 2))
    for number, (row, text, count) in enumerate(zip(rows, texts, counts, strict=True)):
        assert text.finish is not None, "it was drawn to its end"
        data, spans = found[number], []
        if len(ids[number]):
            size = len(run.tokenizer.decode(ids[number]))
            spans = over_bytes(ids[number], next(said), run.tokenizer, size).spans
        before = len(row.prompt) - len(newest_of(run, row.prompt))
        end = len(row.prompt) + len(data)
        units = [(a + before, min(b + before, end)) for a, b in spans]
        counted = bool(row.more and data) or row.ended
        price = np.array(row.log_p) * counted + prices[number, :count].sum(0, dtype=np.float64)
        yield Sample(
            prompt=row.prompt, data=data, finish=text.finish, log_p=float(price[0]),
            drawn_log_p=float(price[1]), ids=count + counted,
            units=[(a, b) for a, b in units if b > len(row.prompt) and a < end],
        )  # fmt: skip


def _whole(prompt: bytes, text: sampling.Text) -> bytes:
    """Without a character that the asked number of bytes cut."""
    if text.finish != "length":
        return text.data
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(prompt + text.data)
    cut = min(len(decoder.getstate()[0]), len(text.data))
    return text.data[: len(text.data) - cut]


def _each_on(mesh: Mesh | None, values: Iterator[T]) -> Iterator[T]:
    """Each of the values made with the mesh current, which it no longer is where they are used."""
    while True:
        with jax.set_mesh(mesh):
            found = list(itertools.islice(values, 1))
        if not found:
            return
        yield found[0]
