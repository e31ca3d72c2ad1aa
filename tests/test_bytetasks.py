"""Byte tasks: what they ask, and who answers them how well."""

import csv
import functools
import json
import math
import re
from collections import Counter
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
import regex

from helpers import run
from octavo.configs.checks import ConfigError
from octavo.evaluation import bytetasks
from octavo.evaluation.bytetasks.asking import SHOTS
from octavo.evaluation.bytetasks.scripts import SCRIPTS
from octavo.run.continuations import Continuation
from octavo.tokenizers.bytes import ByteTokenizer


def by_rule(name: str, script: str, asked: str) -> str:
    """The answer, by reading what stands in quotation marks, or the sum."""
    split = regex.compile(r"\PM\pM*").findall
    if "sums" in name:
        one, other = asked.removesuffix(" =").split(" + ")
        digits = next(s.digits for s in SCRIPTS if s.name == script)
        spaces, turn = name == "aligned_sums", -1 if name == "reversed_sums" else 1
        values = [
            int("".join(str(digits.index(digit)) for digit in each.replace(" ", ""))[::turn])
            for each in (one, other)
        ]
        found = str(sum(values)).zfill(4 if spaces else 0)[::turn]
        return " " + (" " if spaces else "").join(digits[int(digit)] for digit in found)
    *what, text = asked.split('"')[1::2]
    between = " " if "words" in name else ""
    pieces = text.split() if between else split(text)
    if name == "spelling":
        return "".join(f" {piece}" for piece in pieces)
    if name == "joining":
        return " " + text.replace(" ", "")
    if name == "counting":
        return f" {split(text).count(what[0])}"
    if name in ("containing", "rhymes", "similarity"):
        length = 1 if script in ("devanagari", "han", "hangul") else 2
        fits = {
            "containing": lambda word: what[0] in split(word),
            "rhymes": lambda word: split(word)[-length:] == split(what[0])[-length:],
            "similarity": lambda word: -distance(tuple(split(word)), tuple(split(what[0]))),
        }[name]
        return " " + max(text.split(), key=fits)
    at = [pieces.index(each) for each in what if each in pieces]
    if name.startswith("reversing"):
        pieces.reverse()
    elif name.startswith("inserting"):
        pieces.insert(at[0] + 1, what[0])
    elif name.startswith("deleting"):
        del pieces[at[0]]
    elif name.startswith("substituting"):
        pieces[at[0]] = what[1]
    else:
        pieces[at[0]], pieces[at[1]] = pieces[at[1]], pieces[at[0]]
    return " " + between.join(pieces)


@functools.cache
def distance(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Levenshtein's, as it is defined."""
    if not one or not other:
        return len(one) + len(other)
    same = one[0] == other[0]
    return min(
        distance(one[1:], other) + 1, distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (not same),
    )  # fmt: skip


@pytest.mark.parametrize("name", bytetasks.NAMES)
def test_questions(name):
    for script in bytetasks.scripts_of(name):
        plain, noised = (bytetasks.series_of(name, script, noise) for noise in bytetasks.NOISE)
        assert plain == bytetasks.series_of(name, script)
        assert len({one.asked for one in plain.questions}) == bytetasks.QUESTIONS
        assert len(plain.shots) == len(noised.shots) == SHOTS
        for one, other in zip(plain.questions, noised.questions, strict=True):
            assert by_rule(name, script.name, one.asked) == one.answer
            assert by_rule(name, script.name, other.asked) == other.answer == one.answer
            assert one.wrong == other.wrong
            answers = [one.answer, *one.wrong]
            assert len(set(answers)) == 4 and len({len(each.encode()) for each in answers}) == 1
        for line in plain.shots:
            asked = max((line.decode()[:i] for i in range(len(line.decode()))), key=_ends_asking)
            assert f"{asked}{by_rule(name, script.name, asked)}\n".encode() == line
        # All lines before are changed, and many questions of those that have words.
        changed = [
            a.asked != b.asked for a, b in zip(plain.questions, noised.questions, strict=True)
        ]
        assert all(a != b for a, b in zip(plain.shots, noised.shots, strict=True))
        assert sum(changed) == 0 if "sums" in name else sum(changed) > 30


def _ends_asking(text: str) -> int:
    return len(text) if text.endswith(('":', '"?', "backwards:", " =")) else 0


def a_run(costs, length: int = 1 << 12):
    return SimpleNamespace(tokenizer=ByteTokenizer(), length=length, costs=costs)


def asked_of(costs, names=("bytes",), **how) -> list[dict]:
    def of_pairs(pairs, **scoring):
        return [costs(context, continuation) for context, continuation in pairs]

    return bytetasks.measure(a_run(of_pairs), names, **how)


@pytest.mark.parametrize("name", bytetasks.NAMES)
def test_a_rule_answers_all(name):
    answers = {
        one.asked.encode(): f"{one.answer}\n".encode()
        for script in bytetasks.scripts_of(name)
        for noise in bytetasks.NOISE
        for one in bytetasks.series_of(name, script, noise).questions
    }  # each by rule, as test_questions holds

    def costs(context, continuation):
        right = answers[context.rpartition(b"\n")[2]] == continuation
        return Continuation(0.0 if right else 1.0, right)

    rows = asked_of(costs, [name])
    scripts = ["all", *(script.name for script in bytetasks.scripts_of(name))]
    expected = [(name, script, noise) for noise in bytetasks.NOISE for script in scripts]
    assert [(row["task"], row["script"], row["noise"]) for row in rows] == expected
    for row in rows:
        assert row["accuracy"] == row["exact"] == 1 == pytest.approx(row["high"])
        assert row["low"] > 0.96 and row["shots"] == SHOTS
        assert row["questions"] == bytetasks.QUESTIONS * (
            len(scripts) - 1 if row["script"] == "all" else 1
        )


def test_a_uniform_model_is_right_by_chance():
    """It gives all bytes the same, and greedy decoding gives no answer."""
    rows = asked_of(
        lambda context, answer: Continuation(len(answer) * math.log(256), False), limit=20
    )
    assert {row["task"] for row in rows} == set(bytetasks.NAMES)
    for row in rows:
        assert row["accuracy"] == row["chance"] == 0.25 and row["exact"] == 0


@pytest.mark.parametrize("order", [1, 2])
def test_knowing_what_words_look_like_does_not_help(order):
    """Nor which answers, or which letters, come often: whoever does not read the question is right
    by chance."""
    counts = Counter()
    for script in SCRIPTS:
        for word in script.words:
            text = f" {word} "
            counts.update(text[i : i + order] for i in range(len(text)))
        for value, digit in enumerate(script.digits):
            counts[digit] = 10 * value

    def costs(context, continuation):
        text = continuation.decode()
        if context.endswith(b'":') and b"Spell" in context.rpartition(b"\n")[2]:
            text = " " + text.replace(" ", "")
        likely = [math.log(counts[text[i : i + order]] + 0.1) for i in range(len(text))]
        return Continuation(round(-math.fsum(likely), 6), False)

    for row in asked_of(costs, limit=50):
        if row["script"] == "all" and not row["noise"]:
            assert abs(row["accuracy"] - 0.25) < 0.07, row


def test_short_rows_and_few_questions():
    """As many lines before a question as fit; no text is longer than a row."""
    read = []

    def costs(pairs, **scoring):
        assert scoring == {"batch_size": 3}
        read.extend(pairs)
        return [Continuation(1.0, False)] * len(pairs)

    names = ["spelling", "sums"]
    rows = bytetasks.measure(a_run(costs, 100), names, 5, batch_size=3)
    assert {row["questions"] for row in rows} == {5, 5 * len(SCRIPTS), 20}
    assert all(
        0 < row["shots"] < 4
        for row in rows
        if row["script"] == "latin" and row["task"] == "spelling"
    )
    assert max(len(one + other) for one, other in read) < 100
    assert len(read) == 4 * 5 * 2 * sum(len(bytetasks.scripts_of(name)) for name in names)
    rows = bytetasks.measure(a_run(costs), names, 5, 2, batch_size=3)
    assert {row["shots"] for row in rows} == {2}


def written(folder, name: str, rows: list[dict]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


EXAMPLE = '1. Spell "hi".\n   Answer: "h i"\n\nSpell "cow".'


def test_answers_from_files(tmp_path):
    """Of CUTE and EXECUTE, by the tasks' names and folders, in any of the layouts."""
    asked = []

    def costs(context, continuation):
        asked.append((context, continuation))
        return Continuation(1.0, "c o w" in continuation)

    right, wrong = ({"prompt": EXAMPLE, "answer": each} for each in ("c o w", "c w"))
    written(tmp_path, "data/spell-00000-of-00002.parquet", [right, wrong])
    written(tmp_path, "data/spell-00001-of-00002.parquet", [right])
    written(tmp_path, "rus/spell.csv", [wrong])
    begun = {"prompt": f'{EXAMPLE}\n\nAnswer: "', "answer": '"c o w"'}
    written(tmp_path, "jpn/spell.json", [begun])
    rows = asked_of(costs, [f"execute:{tmp_path}"])
    assert [(row["task"], row["questions"]) for row in rows] == [
        ("execute", 5), ("execute/spell", 3), ("execute/jpn/spell", 1), ("execute/rus/spell", 1),
    ]  # fmt: skip
    assert [row["accuracy"] for row in rows] == pytest.approx([0.6, 2 / 3, 1, 0])
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    assert asked[0] == (f"{EXAMPLE}\n   Answer:", ' "c o w"')
    assert (begun["prompt"], 'c o w"') in asked


def test_pairs_from_files(tmp_path):
    good, bad = "the fox jumps", "the fox jump"
    written(tmp_path, "agreement.jsonl", 3 * [{"sentence_good": good, "sentence_bad": bad}])
    written(tmp_path, "same.jsonl", [{"sentence_good": bad, "sentence_bad": bad}])
    all_, agreement, same = asked_of(
        lambda context, text: Continuation(float(text == bad), False), [f"blimp:{tmp_path}"]
    )
    assert (all_["task"], all_["accuracy"], all_["chance"]) == ("blimp", 3.5 / 4, 0.5)
    assert (agreement["task"], agreement["accuracy"]) == ("blimp/agreement", 1)
    assert same["accuracy"] == 0.5


def test_last_words_from_a_file(tmp_path):
    written(tmp_path, "test.jsonl", [{"text": "over the lazy dog\n"}, {"text": "très brün"}])
    costs = {("over the lazy", " dog"): (2.0, True), ("très", " brün"): (4.0, False)}
    [row] = asked_of(lambda *pair: Continuation(*costs[pair]), [f"lambada:{tmp_path}/test.jsonl"])
    assert (row["task"], row["accuracy"], row["questions"]) == ("lambada", 0.5, 2)
    assert row["bits_per_byte"] == pytest.approx(6 / math.log(2) / 10)
    assert row["perplexity"] == pytest.approx(math.exp(3))
    (tmp_path / "other.jsonl").write_text('{"text": "a\u2028b c"}\n')  # one line of JSON
    costs["a\u2028b", " c"] = 3.0, True
    rows = asked_of(lambda *pair: Continuation(*costs[pair]), [f"lambada:{tmp_path}"])
    told = [(row["task"], row["questions"]) for row in rows]
    assert told == [("lambada", 3), ("lambada/other", 1), ("lambada/test", 2)]


def test_wrong_files_are_told_in_a_sentence(tmp_path):
    written(tmp_path, "blimp/a.jsonl", [{"sentence_good": "a"}])
    written(tmp_path, "cute/a.parquet", [{"prompt": "a", "answer": 3}])
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "no.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    for name, told in {
        f"blimp:{tmp_path}/nowhere": "there is no",
        "lambada:": "give lambada:PATH",
        f"blimp:{tmp_path}/blimp": "a.jsonl is no file of blimp: row 1 has no sentence_bad",
        f"cute:{tmp_path}/cute": "row 1 has no answer",
        f"lambada:{tmp_path}/broken.jsonl": "cannot be read",
        f"lambada:{tmp_path}/no.txt": "ends in .jsonl",
        f"execute:{tmp_path}/empty": "ends in .jsonl",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(told)):
            bytetasks.check([name])
    with pytest.raises(ConfigError, match="4 or fewer, not 5"):
        bytetasks.check(["spelling"], 5)


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path):
    written(tmp_path, "blimp/a.jsonl", [{"sentence_good": "the dog", "sentence_bad": "xq#~X#q"}])
    out, names = tmp_path / "out.json", f"rhymes,blimp:{tmp_path}/blimp"
    arguments = [str(trained[0]), "tasks", "--tasks", names, "--limit", "2", "--json", str(out)]
    done = run("evaluate.py", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["tasks"]
    assert len(rows) == 2 * (1 + len(SCRIPTS)) + 1 and len({tuple(row) for row in rows}) == 1
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows)
    assert rows[-1]["task"] == "blimp" and rows[-1]["accuracy"] == 1
