"""Questions about letters: what they ask, and who answers them how well."""

import json
import re
from types import SimpleNamespace

import pytest

from helpers import run
from octavo.evaluation.bytetasks.asking import SHOTS, answers, context_of, drawn, wilson
from octavo.evaluation.bytetasks.scripts import LATIN
from octavo.evaluation.measures import awareness
from octavo.run.continuations import Continuation
from octavo.tokenizers.bpe import BPETokenizer
from octavo.tokenizers.bytes import ByteTokenizer

SUBWORDS = BPETokenizer.train([" ".join(LATIN.words).encode()], 400)


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
    shots, questions = (series := drawn(task, awareness.QUESTIONS)).shots, series.questions
    assert series == drawn(task, awareness.QUESTIONS)
    assert len({one.asked for one in questions}) == awareness.QUESTIONS and len(shots) == SHOTS
    assert not {one.line(one.answer) for one in questions} & set(shots)
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
    """A run that pays for where it would say another answer. answer: of a question, what it says;
    None: it gives all bytes the same."""
    read = []

    def costs(pairs, **how):
        found = []
        for context, more in pairs:
            before, asked = context.rpartition(b"\n")[::2]
            read.append((before.count(b"\n") + bool(before), len(tokenizer.encode(context + more))))
            ahead = None if answer is None else answer(asked.decode()).encode() + b"\n"
            nats = float(len(more)) if ahead is None else 0.1 + 5.0 * (ahead[: len(more)] != more)
            found.append(Continuation(nats, ahead == more))
        return found

    return SimpleNamespace(tokenizer=tokenizer, length=length, costs=costs), read


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


def test_answers_end_their_lines():
    """And all stand behind the same context, with as many lines as are there."""
    asked = []

    def costs(pairs, **how):
        asked.extend(pairs)
        return [Continuation(1.0, False)] * len(pairs)

    it, _ = a_run(None, ByteTokenizer())
    it.costs = costs
    series = drawn(awareness.sums, 1)
    answers(it, [series])
    [question] = series.questions
    context = b"".join(series.shots) + question.asked.encode()
    assert context_of(it, series.shots, question) == (context, SHOTS)
    said = [f"{one}\n".encode() for one in (question.answer, *question.wrong)]
    assert asked == [(context, one) for one in said]


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
        assert wilson(right, of) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    done = run("evaluate.py", str(trained[0]), "awareness", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["awareness"]
    assert len(rows) == 4 and all(row["exact"] == 0 for row in rows)
    assert all(0 <= row["choice_low"] <= row["choice"] <= row["choice_high"] <= 1 for row in rows)
