"""Which word of four has a letter, ends like another, or is spelt most like it; and how many have a
letter. All four have as many bytes, and any of them is right with the same probability; as is any
number."""

import functools

import numpy as np

from octavo.evaluation.bytetasks.asking import WRONG, Question
from octavo.evaluation.bytetasks.letters import same_size
from octavo.evaluation.bytetasks.scripts import Script, letters

COUNT = 1 + WRONG


def counting(rng: np.random.Generator, script: Script) -> Question:
    """How often a letter occurs in four words, at most once in each: once to four times, each as
    often, whatever the letter."""
    occurring = _occurring(script)
    letter, having, lacking = occurring[rng.integers(len(occurring))]
    count = int(rng.integers(1, COUNT + 1))
    words = [
        each[i]
        for each, some in ((having, count), (lacking, COUNT - count))
        for i in rng.choice(len(each), some, replace=False).tolist()
    ]
    rng.shuffle(words)
    wrong = tuple(f" {n}" for n in range(1, COUNT + 1) if n != count)
    return Question(f'How many "{letter}" in "{" ".join(words)}"?', f" {count}", wrong)


def containing(rng: np.random.Generator, script: Script) -> Question:
    """The word that has a letter; each of the others has one that no other has, too."""
    while True:
        words = same_size(rng, script.words, COUNT)
        own = [
            [x for x in letters(one) if all(x not in letters(w) for w in words if w != one)]
            for one in words
        ]
        if all(own):
            break
    asked = f'Which has "{own[0][rng.integers(len(own[0]))]}" in'
    return _which(rng, asked, words)


def rhymes(rng: np.random.Generator, script: Script) -> Question:
    """The word that ends as another does, in ``script.ending`` letters; each of the others ends as
    some other word does, too."""
    alike = [each for each in script.by_ending.values() if len(each) > 1]
    rhyming = [one for each in alike for one in each]
    while True:
        words = same_size(rng, rhyming, COUNT)
        if len({script.end(one) for one in words}) == COUNT:
            break
    like = [one for one in script.by_ending[script.end(words[0])] if one != words[0]]
    return _which(rng, f'Which ends like "{like[rng.integers(len(like))]}" in', words)


def similarity(rng: np.random.Generator, script: Script) -> Question:
    """The word that is the fewest edits (Levenshtein) from what is asked: itself with two letters
    swapped and one that is another."""
    while True:
        words = same_size(rng, script.words, COUNT)
        changed = letters(words[0])
        one, other, at = rng.integers(len(changed), size=3).tolist()
        changed[one], changed[other] = changed[other], changed[one]
        changed[at] = script.letters[rng.integers(len(script.letters))]
        text = "".join(changed)
        near, *far = (edits(text, word) for word in words)
        if 0 < near < min(far):
            return _which(rng, f'Which is spelt like "{text}" in', words)


@functools.cache
def _occurring(script: Script) -> list[tuple[str, list[str], list[str]]]:
    """Letters, the words that have each once, and those that lack it."""
    spelt = [(one, letters(one)) for one in script.words]
    found = []
    for letter in script.letters:
        having = [one for one, each in spelt if each.count(letter) == 1]
        lacking = [one for one, each in spelt if letter not in each]
        if len(having) >= COUNT and len(lacking) >= COUNT:
            found.append((letter, having, lacking))
    return found


def edits(one: str, other: str) -> int:
    """Letters to insert, delete or replace (Levenshtein 1966)."""
    a, b = letters(one), letters(other)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _which(rng: np.random.Generator, asked: str, words: list[str]) -> Question:
    """The first of the words is right."""
    listed = [words[i] for i in rng.permutation(len(words)).tolist()]
    answer, *wrong = (f" {one}" for one in words)
    return Question(f'{asked} "{" ".join(listed)}"?', answer, tuple(wrong))
