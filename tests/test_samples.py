"""Samples of several prompts: where they stop, what they cost, their units, and lines of JSON."""

import base64
import json
import re

import numpy as np
import pytest

from helpers import opened, random_run, shrink
from octavo import cli, generate
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.decoding.sampling import Sampling, Shown, Text
from octavo.run.opened import open_run
from octavo.tokenizers.bytes import ByteTokenizer

TOKENIZER = ByteTokenizer()
PROMPTS = [b"the q", b"caf\xc3", b"", "日".encode() * 5, "日本".encode()[:4]]


def stopped(data: bytes, size: int, stop: list[bytes], most: int | None = None) -> Text:
    """A text that comes in pieces of some size, read to its end."""
    ids = np.append(TOKENIZER.encode(data), TOKENIZER.eos_id)
    pieces = (ids[None, at : at + size] for at in range(0, len(ids), size))
    text = Text(pieces, TOKENIZER, most_bytes=most, stop=stop)
    shown = list(text)
    assert b"".join(shown) == text.data
    return text


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_stop_strings(size):
    """However the text is cut into pieces, it ends before the string that is complete first."""
    for data, stop, expected, finish in (
        (b"one two three", [b"two"], b"one ", "stop"),
        (b"one two three", [b"three", b" t"], b"one", "stop"),
        (b"aab", [b"aaa"], b"aab", "end"),
        (b"xabc", [b"abc", b"b"], b"xa", "stop"),  # b was there before abc was
        (b"xabc", [b"abc", b"bc"], b"x", "stop"),  # at once: the longer
        ("né".encode(), [b"\xa9"], b"n\xc3", "stop"),
        (b"now\n\n", [b"\n\n"], b"now", "stop"),
        (b"now\n", [b"\n\n"], b"now\n", "end"),
    ):
        text = stopped(data, size, stop)
        assert (text.data, text.finish) == (expected, finish)
    cut = stopped(b"one two", size, [b"two"], most=6)
    assert (cut.data, cut.finish) == (b"one tw", "length")
    assert [stopped(b"one", size, [], most).finish for most in (3, 4)] == ["length", "end"]


def test_what_may_begin_a_stop_string_waits():
    ids = np.array([[*b"ab ab"]])
    pieces = Shown(b"", Text(iter([ids[:, :2], ids[:, 2:3], ids[:, 3:]]), TOKENIZER, stop=[b"bc"]))
    assert [piece for piece in pieces if piece] == ["a", "b ", "a", "b"]
    assert pieces.finish == "length"


@pytest.mark.parametrize("scheme", ["bytes", "bpe"])
def test_costs_and_units(scheme):
    """What a sample cost is what the score of its ids says; batches change nothing."""
    run = random_run("flat", scheme)
    how = Sampling(1.0)
    found = list(run.samples(PROMPTS, 20, how, samples=3, seed=1, batch_size=4))
    again = list(run.samples(PROMPTS, 20, how, samples=3, seed=1))
    assert len(found) == 3 * len(PROMPTS) and len({one.data for one in found}) > 12
    checked = 0
    for one, other in zip(found, again, strict=True):
        assert (one.data, one.finish, one.units) == (other.data, other.finish, other.units)
        assert one.log_p == pytest.approx(other.log_p, abs=1e-3) and one.log_p < 0
        assert one.drawn_log_p == pytest.approx(one.log_p, abs=1e-3)  # nothing was filtered
        spans = one.units
        if one.data:
            assert spans[0][0] <= len(one.prompt) < spans[0][1]
            assert spans[-1][1] == len(one.prompt) + len(one.data)
            assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
        # What was drawn is not always what the tokenizer writes; where it is, the score knows it.
        ids = run.tokenizer.encode(one.prompt + one.data)
        own = run.tokenizer.encode(one.prompt)
        if scheme == "bytes" and len(ids) == len(own) + one.ids - (one.finish == "end"):
            [said] = run.predictions([ids])
            paid = said.nats[len(own) : len(own) + one.ids].sum()
            assert paid == pytest.approx(-one.log_p, rel=1e-4)
            checked += 1
    assert checked > 5 or scheme != "bytes"
    texts = run.continuations(PROMPTS[0], 20, how, samples=3, seed=1)
    shown = [(one.prompt + one.data).decode(errors="replace") for one in found[:3]]
    assert ["".join(pieces) for pieces in texts] == shown


def test_units_of_an_hourglass():
    """Those of the whole document, that reach beyond the prompt; the first began in it."""
    run = opened(shrink(presets()["pooling-space"]))
    [sample] = run.samples([b"ab cd e"], 7, Sampling(), regex="f gh i")
    document = sample.prompt + sample.data
    assert document == b"ab cd ef gh i" and sample.units == run.units(document).spans[2:]
    assert document[slice(*sample.units[0])] == b"ef "


def test_greedy_and_filters_cost():
    run = random_run("flat", "bytes")
    [greedy] = run.samples([b"ab"], 8, Sampling(temperature=0))
    assert greedy.drawn_log_p == 0 > greedy.log_p
    [few] = run.samples([b"ab"], 8, Sampling(top_k=3), seed=2)
    assert few.drawn_log_p > few.log_p + 1
    for wrong, said in (({"stop": [b""]}, "a stop string"), ({"batch_size": 0}, "batch_size is 1")):
        with pytest.raises(ValueError, match=said):
            run.samples([b"a"], 3, Sampling(), **wrong)


@pytest.mark.xdist_group("trained")
def test_from_the_command_line(trained, tmp_path, capfdbinary):
    """Prompts from files, lines of JSON that give back every byte, and what is wrong is said."""

    def asked(*arguments: str) -> None:
        given = [str(trained[0]), "--bytes", "12", *arguments]
        generate.generate(cli.parse(generate.Arguments, "generate.py", "", given, flags=True))

    lines, objects, out = tmp_path / "p.txt", tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    lines.write_bytes(b"the qu\ntr\xc3\n")
    coded = base64.b64encode(b"tr\xc3").decode()
    objects.write_text('{"prompt": "the qu"}\n\n' + json.dumps({"prompt_base64": coded}) + "\n")
    hot = ("--samples", "2", "--temperature", "9", "--stop", "e", "--stop", "a")
    asked("--prompts", str(lines), *hot, "--jsonl", str(out))
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["number"], one["sample"]) for one in found] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    run = open_run(trained[0])
    how = Sampling(9.0)
    samples = run.samples([b"the qu", b"tr\xc3"], 12, how, samples=2, stop=["e", "a"])
    for one, sample in zip(found, samples, strict=True):
        data = base64.b64decode(one.get("text_base64", "")) or one["text"].encode()
        assert (data, one["finish"], one["bytes"]) == (sample.data, sample.finish, len(data))
        assert one["log_probability"] == pytest.approx(sample.log_p, abs=1e-3)
        assert [tuple(span) for span in one["units"]] == sample.units
    assert "text_base64" in found[0] and found[2]["prompt_base64"] == coded
    asked("--prompts", str(objects), *hot, "--jsonl", "-")
    assert capfdbinary.readouterr().out.decode() == out.read_text()
    asked("--prompts", str(lines), "--regex", "[a-z]{40}")
    shown = capfdbinary.readouterr()
    assert re.fullmatch("--- 1\nthe qu[a-z]{12}\n--- 2\ntr\ufffd[a-z]{12}\n", shown.out.decode())
    assert b"2 of 2 texts were cut at --bytes 12" in shown.err

    objects.write_text('{"text": "x"}\n')
    (tmp_path / "none").write_text("")
    for arguments, said in (
        (["--prompts", str(objects)], "p.jsonl, line 1 is no prompt"),
        (["--prompts", str(tmp_path / "none")], "none is empty"),
        (["--prompts", "nowhere.txt"], "--prompts nowhere.txt cannot be read"),
        (["--prompts", str(lines), "--prompt", "x"], "--prompt and --prompts, not both"),
        (["--prompts", str(lines), "--jsonl", str(lines)], "is what this command reads"),
        (["--prompt", "x", "--stop", ""], "--stop takes a text"),
        (["--prompt", "x", "--regex", "("], "the pattern '\\(' is wrong"),
    ):
        with pytest.raises(ConfigError, match=said):
            asked(*arguments)
