"""What is done to the letters of a word, or to the words of a phrase: spelling, joining, inserting,
deleting, substituting, swapping, reversing (the kinds of CUTE, Edman et al. 2024, 2409.15452).

All answers to a question have as many bytes, and any of them would be right had it been asked for,
with the same probability: it does not help to know which letters come often, or what words look
like; nothing does but to read what is asked.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from octavo.evaluation.bytetasks.asking import WRONG, Question, others
from octavo.evaluation.bytetasks.scripts import Script, letters

PHRASE = 4
"""Words of a phrase."""


@dataclass(frozen=True)
class Level:
    """Pieces of a text."""

    draw: Callable[[np.random.Generator, Script], list[str]]
    """A text in pieces."""
    every: Callable[[Script], tuple[str, ...]]
    """All pieces there are."""
    between: str

    def text(self, pieces: list[str] | tuple[str, ...]) -> str:
        return self.between.join(pieces)

    def new(self, rng: np.random.Generator, script: Script, pieces: list[str]) -> str:
        """One that is not among the pieces."""
        every = self.every(script)
        while (one := every[rng.integers(len(every))]) in pieces:
            pass
        return one


def word(rng: np.random.Generator, script: Script) -> str:
    return script.words[rng.integers(len(script.words))]


def same_size(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    """So many different ones of the words, all of as many bytes."""
    while True:
        size = len(words[int(rng.integers(len(words)))].encode())
        fitting = [one for one in words if len(one.encode()) == size]
        if len(fitting) > 2 * count:
            return [fitting[i] for i in rng.choice(len(fitting), count, replace=False).tolist()]


LETTERS = Level(lambda rng, script: letters(word(rng, script)), lambda script: script.letters, "")
WORDS = Level(
    lambda rng, script: same_size(rng, script.words, PHRASE), lambda script: script.words, " "
)  # fmt: skip


def spelling(rng: np.random.Generator, script: Script) -> Question:
    """The letters of a word, one by one; wrong: of words like it."""
    right, *wrong = _alike(rng, script)
    return Question(
        f'Spell "{right}":', spelt(letters(right)), tuple(map(spelt, map(letters, wrong)))
    )


def joining(rng: np.random.Generator, script: Script) -> Question:
    """The reverse of spelling, of a word or of one with two letters swapped; wrong: the others."""
    right, *wrong = _orders(rng, LETTERS.draw(rng, script))
    return _question(f'Join "{" ".join(right)}":', LETTERS, [right, *wrong])


def reversing(rng: np.random.Generator, script: Script) -> Question:
    """The letters of a word from the last to the first; wrong: of words like it."""
    right, *wrong = _alike(rng, script)
    return _question(f'"{right}" backwards:', LETTERS, [letters(w)[::-1] for w in (right, *wrong)])


def reversing_words(rng: np.random.Generator, script: Script) -> Question:
    """The words of a phrase from the last to the first; wrong: with two of them swapped, or what
    they are swapped from."""
    right, *wrong = _orders(rng, WORDS.draw(rng, script))
    asked = f'"{WORDS.text(right)}" backwards:'
    return _question(asked, WORDS, [each[::-1] for each in (right, *wrong)])


def inserting(rng: np.random.Generator, script: Script, level: Level = LETTERS) -> Question:
    """A new piece behind one that is named; wrong: behind others."""
    pieces, at = _places(rng, script, level)
    new = level.new(rng, script, pieces)
    asked = f'Insert "{new}" after "{pieces[at[0]]}" in "{level.text(pieces)}":'
    return _question(asked, level, [[*pieces[: i + 1], new, *pieces[i + 1 :]] for i in at])


def deleting(rng: np.random.Generator, script: Script, level: Level = LETTERS) -> Question:
    """Without a piece that is named; wrong: without others."""
    pieces, at = _places(rng, script, level)
    asked = f'Delete "{pieces[at[0]]}" from "{level.text(pieces)}":'
    return _question(asked, level, [[*pieces[:i], *pieces[i + 1 :]] for i in at])


def substituting(rng: np.random.Generator, script: Script, level: Level = LETTERS) -> Question:
    """A new piece in place of one that is named; wrong: of others."""
    pieces, at = _places(rng, script, level)
    new = level.new(rng, script, pieces)
    asked = f'Replace "{pieces[at[0]]}" with "{new}" in "{level.text(pieces)}":'
    return _question(asked, level, [[*pieces[:i], new, *pieces[i + 1 :]] for i in at])


def swapping(rng: np.random.Generator, script: Script, level: Level = LETTERS) -> Question:
    """Two pieces that are named, in each other's place; wrong: two others."""
    pieces, at = _places(rng, script, level)
    pairs = [(i, j) for i in at for j in at if i < j]
    chosen = [pairs[i] for i in rng.choice(len(pairs), 1 + WRONG, replace=False).tolist()]
    one, other = chosen[0]
    asked = f'Swap "{pieces[one]}" and "{pieces[other]}" in "{level.text(pieces)}":'
    return _question(asked, level, [list(_exchanged(pieces, i, j)) for i, j in chosen])


def _question(asked: str, level: Level, each: list[list[str]]) -> Question:
    answer, *wrong = (f" {level.text(pieces)}" for pieces in each)
    return Question(asked, answer, tuple(wrong))


def _places(
    rng: np.random.Generator, script: Script, level: Level
) -> tuple[list[str], list[int]]:  # fmt: skip
    """Pieces, and the places of ``1 + WRONG`` of them that occur once and have as many bytes."""
    while True:
        pieces = level.draw(rng, script)
        once = [i for i, piece in enumerate(pieces) if pieces.count(piece) == 1]
        if once:
            size = len(pieces[once[int(rng.integers(len(once)))]].encode())
            once = [i for i in once if len(pieces[i].encode()) == size]
        if len(once) > WRONG:
            return pieces, [once[i] for i in rng.choice(len(once), 1 + WRONG, replace=False)]


def swapped(rng: np.random.Generator, pieces: list[str]) -> tuple[str, ...]:
    """With two of them in each other's place."""
    one, other = rng.choice(len(pieces), 2, replace=False).tolist()
    return _exchanged(pieces, one, other)


def _exchanged(pieces: list[str], one: int, other: int) -> tuple[str, ...]:
    found = list(pieces)
    found[one], found[other] = found[other], found[one]
    return tuple(found)


def _orders(rng: np.random.Generator, pieces: list[str]) -> list[list[str]]:
    """Pieces, and as they are with two of them swapped, thrice; any of the four is the first."""
    each = [tuple(pieces), *others(tuple(pieces), lambda: swapped(rng, pieces))]
    return [list(each[i]) for i in rng.permutation(len(each)).tolist()]


def _alike(rng: np.random.Generator, script: Script) -> list[str]:
    """A word and ``WRONG`` others, of as many bytes and letters, which are like it. They are always
    the same four: each is asked for as often."""
    groups = _groups(script)
    group = groups[rng.integers(len(groups))]
    return [group[i] for i in rng.permutation(len(group)).tolist()]


@functools.cache
def _groups(script: Script) -> list[list[str]]:
    """Words by four, each in one group: one word, and those that have the most letters in common
    with it, at the same places. A few are left over."""
    left = {each: letters(each) for each in script.words}
    found = []
    while left:
        one, own = left.popitem()
        same = [
            each
            for each, its in left.items()
            if len(its) == len(own) and len(each.encode()) == len(one.encode())
        ]
        same.sort(key=lambda each: -sum(map(operator.eq, left[each], own)))
        if len(same) >= WRONG:
            found.append([one, *same[:WRONG]])
            for each in same[:WRONG]:
                del left[each]
    return found


def spelt(pieces: list[str] | tuple[str, ...]) -> str:
    return "".join(f" {piece}" for piece in pieces)
