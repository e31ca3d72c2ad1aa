"""The Markov source of studies/markov.toml: its text, and what that costs who knows it."""

import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT

SCRIPT = ROOT / "studies" / "markov.py"
SPEC = importlib.util.spec_from_file_location("markov", SCRIPT)
markov = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(markov)


def cost(text: str, order: int, switch: float) -> float:
    """Bits of a document, letter by letter; a switch of 1/2 knows the letters' share alone."""
    bits = -math.log2(markov.END)
    for i in range(len(text)):
        bits -= math.log2(1 - markov.END) if i else 0  # a document has a letter
        turned = i >= order and text[i] != text[i - order]
        bits -= math.log2(0.5 if i < order else switch if turned else 1 - switch)
    return bits


@pytest.mark.parametrize("order, switch", [(1, 0.3), (2, 0.1), (6, 0.1)])
def test_the_text_costs_what_is_said(order, switch):
    rng = np.random.default_rng(0)
    texts = [markov.document(rng, order, switch) for _ in range(600)]
    letters = sum(map(len, texts))
    assert letters / 600 == pytest.approx(1 / markov.END, rel=0.15)
    for known, bits in ((switch, markov.entropy(switch)), (0.5, 1.0)):
        found = sum(cost(text, order, known) for text in texts) / letters
        assert found == pytest.approx(markov.bits_per_byte(order, bits), abs=0.006)
    long = "".join(text for text in texts if len(text) > 500)
    letters = np.frombuffer(long.encode(), np.uint8)
    for back in range(1, order + 1):
        turned = (letters[back:] != letters[:-back]).mean()
        assert turned == pytest.approx(switch if back == order else 0.5, abs=0.02)


def test_entropy():
    assert markov.entropy(0.5) == 1 and markov.entropy(0.1) == pytest.approx(0.468996, abs=1e-6)


def test_from_the_command_line(tmp_path):
    def made(*arguments):
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, cwd=tmp_path
        )

    for out in ("one", "other"):
        assert made("--order", "3", "--bytes", "5000", out).returncode == 0
    one, other = (tmp_path / out / "markov.jsonl" for out in ("one", "other"))
    assert one.read_text() == other.read_text()
    texts = [json.loads(line)["text"] for line in one.read_text().splitlines()]
    assert 5000 <= sum(map(len, texts)) < 12_000 and set("".join(texts)) == {"a", "b"}
    about = json.loads((tmp_path / "one" / "markov.json").read_text())
    assert about["order"] == 3
    assert 0.469 < about["bits_per_byte"] < 0.5 < 1 < about["unigram_bits_per_byte"] < 1.03
    done = made("--switch", "1", "out")
    assert done.returncode == 2 and "inside (0, 1)" in done.stderr
