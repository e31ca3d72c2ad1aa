"""What a model knows of the letters in its ids: spelling, counting and reversing words, digits of
sums, as questions that are made here (as CUTE, Edman et al. 2024, 2409.15452, asks them).

A question stands behind others with their answers, as plain text, and is asked in two ways. Choice:
the right answer costs less than wrong ones of the same length; where several cost the same, the
right one counts for its share, so that a uniform model is right by chance. Exact: greedy decoding
gives the answer and ends its line, as one pass tells (see ``words``). Both with a 95% interval
(Wilson 1927). What is compared is the cost of the whole text, so it does not matter where ids end.

Wrong answers have the same letters as the right one, or differ in a digit that may be any, so it
does not help to know which come often.

The questions are the same for all runs, but for how many stand before each: as many as fit a row
of training, up to four.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TEXTS = False
KEPT = True
QUESTIONS = 200
"""Of each task."""
SHOTS = 4
WRONG = 3
SEED = 0

WORDS = """
about above accident after again almost anchor animal answer apple arrow artist autumn barrel
basket beach beauty before belief belong better between blanket border bottle bottom branch bread
breakfast breath bridge bright broken brother bucket butter button camera candle captain careful
carpet carry castle centre certain chair chance change cheese chicken children choice church
circle clean clock clothes cloud coffee collect colour common company concert copper corner cotton
country cousin credit crowd custom dance danger daughter decide degree desert detail dinner doctor
double dragon dream driver eagle early earth effort eight empty energy engine escape evening event
expect fabric factory family famous farmer farther father feather fence figure finger finish
flower follow forest forget fortune freedom friend frozen future garden gather general gentle
ghost giant glass golden grass green ground hammer handle happy harbour heart heavy history hollow
honest honey horse hotel house hundred hunter island jacket jungle justice kettle kitchen knight
ladder language lantern large laugh leather lesson letter light listen little lovely machine magic
manner marble market master meadow measure message metal method middle minute mirror model moment
money month morning mother mountain music narrow nation nature needle never night notice number
object ocean office orange orchard other outside oxygen palace paper parent patient peace pencil
people pepper person piano picture pillow planet plastic please plenty pocket poetry pollen potato
powder present pretty prison problem promise proper purple quick quiet rabbit rather river round
saddle school second seven shadow sheep shoulder silver simple sister sleep smile smooth spoon
spring square station stone story strange street strong sugar summer supper table teacher thank
thing three thunder today together tomorrow travel tree trouble under village visit voice water
weather welcome wheel whisper white window winter woman wonder world write yellow young
""".split()


@dataclass(frozen=True)
class Question:
    asked: str
    answer: str
    """With the space that leads it."""
    wrong: tuple[str, ...]
    """``WRONG`` others, all different, as long as the answer."""

    def line(self, answer: str) -> bytes:
        return f"{self.asked}{answer}\n".encode()


def spelling(rng: np.random.Generator) -> Question:
    """The letters of a word, one by one; wrong: with two of them swapped."""
    word = _word(rng)
    wrong = _others(word, lambda: _misspelt(rng, word))
    return Question(f'Spell "{word}":', _spelt(word), tuple(map(_spelt, wrong)))


def counting(rng: np.random.Generator) -> Question:
    """How often a letter occurs in two words: once to four times, each as often."""
    count = int(rng.integers(1, WRONG + 2))
    letters: list[str] = []
    while not letters:
        words = f"{_word(rng)} {_word(rng)}"
        letters = sorted({c for c in words if c != " " and words.count(c) == count})
    asked = f'How many "{rng.choice(letters)}" in "{words}"?'
    return Question(asked, f" {count}", tuple(f" {n}" for n in range(1, WRONG + 2) if n != count))


def reversing(rng: np.random.Generator) -> Question:
    """A word from its last letter to its first; wrong: with two letters swapped."""
    word = _word(rng)
    wrong = _others(word, lambda: _misspelt(rng, word))
    return Question(f'"{word}" backwards:', f" {word[::-1]}", tuple(f" {w[::-1]}" for w in wrong))


def sums(rng: np.random.Generator) -> Question:
    """The sum of two numbers of three digits; wrong: a digit is another, but not the first."""
    one, other = rng.integers(100, 1000, 2).tolist()
    answer = f"{one + other}"

    def changed() -> str:
        at = int(rng.integers(1, len(answer)))
        return f"{answer[:at]}{rng.integers(10)}{answer[at + 1 :]}"

    wrong = _others(answer, changed)
    return Question(f"{one} + {other} =", f" {answer}", tuple(f" {w}" for w in wrong))


TASKS: tuple[Callable[[np.random.Generator], Question], ...] = (
    spelling, counting, reversing, sums,
)  # fmt: skip
"""A task is a function that can draw ``QUESTIONS + SHOTS`` different questions; its name is the
task's."""


def _word(rng: np.random.Generator) -> str:
    return WORDS[rng.integers(len(WORDS))]


def _spelt(word: str) -> str:
    return "".join(f" {letter}" for letter in word)


def _misspelt(rng: np.random.Generator, word: str) -> str:
    """The word with two letters swapped."""
    letters = list(word)
    one, other = rng.choice(len(word), 2, replace=False).tolist()
    letters[one], letters[other] = letters[other], letters[one]
    return "".join(letters)


def _others(right: str, draw: Callable[[], str]) -> list[str]:
    """``WRONG`` different ones that are drawn, none of them right."""
    found: list[str] = []
    while len(found) < WRONG:
        one = draw()
        if one != right and one not in found:
            found.append(one)
    return found


def drawn(task: Callable[[np.random.Generator], Question]) -> list[Question]:
    """``SHOTS`` questions that stand before each, and then those that are asked; all different."""
    rng, found = np.random.default_rng(SEED), {}
    while len(found) < SHOTS + QUESTIONS:
        one = task(rng)
        found.setdefault(one.asked, one)
    return list(found.values())


def wilson(right: float, of: int) -> tuple[float, float]:
    """The 95% interval of a share of ``right`` among ``of``."""
    z, p = 1.959964, right / of
    middle = p + z * z / (2 * of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = (x / (1 + z * z / of) for x in (middle - half, middle + half))
    return max(low, 0.0), min(high, 1.0)


def _asked(run, shots: list[Question], question: Question) -> tuple[list[np.ndarray], int, int]:
    """Ids of the text with the right answer, and with each wrong one; at which of the right text's
    ids the answer begins; and how many questions stand before."""
    answers = (question.answer, *question.wrong)
    for count in range(len(shots), -1, -1):
        before = b"".join(one.line(one.answer) for one in shots[:count])
        encoded = [run.tokenizer.encode(before + question.line(answer)) for answer in answers]
        if max(map(len, encoded)) < run.length:
            break
    stops = np.cumsum(run.tokenizer.bytes_per_id()[encoded[0]])
    start = len(before) + len(question.asked.encode())
    return encoded, int(np.searchsorted(stops, start, side="right")), count


def measure(run, documents: list, arguments=None, **scoring) -> list[dict]:
    """A row for each task."""
    asked = [
        _asked(run, shots, question)
        for each in map(drawn, TASKS)
        for shots in [each[:SHOTS]]
        for question in each[SHOTS:]
    ]
    found = iter(run.predictions([ids for encoded, *_ in asked for ids in encoded], **scoring))
    choice, exact = [], []
    for encoded, start, _ in asked:
        right, *wrong = (next(found) for _ in encoded)
        # Without the end of the document, which no answer asks for.
        costs = [one.nats[:-1].sum(dtype=np.float64) for one in (right, *wrong)]
        best = min(costs)
        choice.append((costs[0] == best) / costs.count(best))
        exact.append(bool(right.correct[start:-1].all()))
    rows = []
    for i, task in enumerate(TASKS):
        part = slice(i * QUESTIONS, (i + 1) * QUESTIONS)
        row = {
            "task": task.__name__,
            "questions": QUESTIONS,
            "shots": float(np.mean([count for *_, count in asked[part]])),
            "chance": 1 / (1 + WRONG),
        }
        for name, right in (("choice", sum(choice[part])), ("exact", sum(exact[part]))):
            low, high = wilson(right, QUESTIONS)
            row |= {name: float(right / QUESTIONS), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows
