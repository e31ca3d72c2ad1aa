"""Questions about letters: what they ask, and who answers them how well."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import run
from octavo.evaluation.measures import awareness
from octavo.run.score import Predictions
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer

SUBWORDS = BPETokenizer.train([" ".join(awareness.WORDS).encode()], 400)


def by_rule(asked: str) -> str:
    """The answer, by reading the question."""
    if found := re.fullmatch(r'Spell "(\w+)":', asked):
        return " " + " ".join(found[1])
    if found := re.fullmatch(r'How many "(\w)" in "([\w ]+)"\?', asked):
        return f" {found[2].count(found[1])}"
    if found := re.fullmatch(r'"(\w+)" backwards:', asked):
        return " " + found[1][::-1]
    found = re.fullmatch(r"(\d+) \+ (\d+) =", asked)
    return f" {int(found[1]) + int(found[2])}"


@pytest.mark.parametrize("task", awareness.TASKS, ids=lambda task: task.__name__)
def test_questions(task):
    questions = awareness.drawn(task)
    assert len({one.asked for one in questions}) == awareness.QUESTIONS + awareness.SHOTS
    assert questions == awareness.drawn(task)
    for one in questions:
        assert one.answer == by_rule(one.asked)
        answers = {one.answer, *one.wrong}
        assert len(answers) == 4 and len({len(answer) for answer in answers}) == 1
        if task in (awareness.spelling, awareness.reversing):
            assert len({"".join(sorted(answer)) for answer in answers}) == 1
        assert one.line(one.answer).decode() == f"{one.asked}{one.answer}\n"
    # No answer is right by being the usual one.
    usual = max(map([one.answer for one in questions].count, {one.answer for one in questions}))
    assert usual < 0.35 * len(questions)


def a_run(answer, tokenizer, length=256):
    """A run that is asked the last line of each text, and pays for where it would say another.
    answer: of a question, what it says; None: it is uniform."""
    sizes, read = tokenizer.bytes_per_id(), []

    def predictions(encoded, **how):
        found = []
        for ids in encoded:
            nats, correct = np.ones(len(ids) + 1), np.zeros(len(ids) + 1, bool)
            nats[-1] = len(found) % 3  # no answer asks for the end of the document
            text = tokenizer.decode(ids)
            before, line = text[:-1].rpartition(b"\n")[::2]
            asked = re.match(rb'.*(":|\?| =|backwards:)', line)[0]
            read.append((before.count(b"\n") + bool(before), len(ids)))
            if answer is not None:
                said = text[: len(text) - len(line) - 1] + asked + answer(asked.decode()).encode()
                stops = np.cumsum(sizes[ids])
                ahead = said + b"\n"
                same = [text[:stop] == ahead[:stop] for stop in stops.tolist()]
                # The prompt is a surprise, and so is what is not said; behind that, all is cheap.
                begun = stops > len(text) - len(line) - 1 + len(asked)
                correct[:-1] = same & begun
                nats[:-1] = np.where(begun & ~np.array(same), 5.0, 0.1)
            empty = np.zeros(0)
            found.append(Predictions(nats.astype(np.float32), correct, empty, empty, empty))
        return found

    it = SimpleNamespace(tokenizer=tokenizer, length=length, predictions=predictions)
    return it, read


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), SUBWORDS], ids=lambda t: t.scheme)
def test_a_rule_answers_all(tokenizer):
    it, read = a_run(by_rule, tokenizer)
    rows = awareness.measure(it, [])
    assert [row["task"] for row in rows] == ["spelling", "counting", "reversing", "sums"]
    for row in rows:
        assert row["choice"] == row["exact"] == 1 == pytest.approx(row["choice_high"])
        assert row["exact_low"] == pytest.approx(0.9812, abs=1e-4)
        assert row["shots"] == 4
    assert max(ids for _, ids in read) < 256 and {shots for shots, _ in read} == {4}


def test_a_uniform_model_is_right_by_chance():
    rows = awareness.measure(a_run(None, ByteTokenizer())[0], [])
    for row in rows:
        assert row["choice"] == row["chance"] == 0.25 and row["exact"] == 0
        assert row["choice_low"] < 0.25 < row["choice_high"]


def test_an_answer_that_goes_on_is_not_exact():
    """It begins with the right answer, and does not end there."""
    rows = awareness.measure(a_run(lambda asked: by_rule(asked) + "x", ByteTokenizer())[0], [])
    assert all(row["exact"] == 0 and row["choice"] == 1 for row in rows)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), SUBWORDS], ids=lambda t: t.scheme)
def test_where_an_answer_begins(tokenizer):
    it, _ = a_run(None, tokenizer)
    for task in awareness.TASKS:
        *shots, question = awareness.drawn(task)[:5]
        (ids, *_), start, count = awareness._asked(it, shots, question)
        before = b"".join(one.line(one.answer) for one in shots[:count]) + question.asked.encode()
        assert tokenizer.decode(ids[:start]) == before
        assert tokenizer.decode(ids[start:]).decode() == question.answer + "\n"


def test_short_rows():
    """Fewer questions before, and none is cut."""
    it, read = a_run(by_rule, ByteTokenizer(), length=96)
    rows = awareness.measure(it, [])
    assert all(0 < row["shots"] < 4 and row["exact"] == 1 for row in rows[:3])
    assert max(ids for _, ids in read) < 96


def test_wilson():
    from scipy.stats import binomtest

    for right, of in ((0, 10), (3, 10), (200, 200), (57, 200)):
        expected = binomtest(right, of).proportion_ci(method="wilson")
        assert awareness.wilson(right, of) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    done = run("evaluate.py", str(trained[0]), "awareness", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["awareness"]
    assert len(rows) == 4 and all(row["exact"] == 0 for row in rows)
    assert all(0 <= row["choice_low"] <= row["choice"] <= row["choice_high"] <= 1 for row in rows)
