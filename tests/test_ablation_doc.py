"""docs/ablation.md: what it shows runs, and comes to what the page says."""

import dataclasses
import re

import pytest

from helpers import ROOT
from octavo.ablation import tables
from octavo.ablation.analysis import summary
from octavo.ablation.study import Arguments, asked_of
from studies import write_study

TEXT = (ROOT / "docs" / "ablation.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


def test_statistics_again(tmp_path, monkeypatch):
    """From results.parquet alone, by the code of the page: the differences, their margins, and
    which of them are clear."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "studies" / "mine"
    effects = {"hnet": -0.12, "hat": 0.004}
    write_study(out, ("flat", "hnet", "hat"), (1e12, 3e12), seeds=3, effects=effects, spread=0.004)
    found = summary(out)
    tables.write(out, found, out)
    names: dict = {}
    exec(block("python"), names)
    seen = set()
    for point in found["points"]:
        if point["budget"] == 0 and (told := point["difference"]):
            mean, margin, clear = names["difference"](point["arm"], "flat")
            assert mean == pytest.approx(told["mean"], rel=1e-9)
            assert margin == pytest.approx(told["margin"], rel=1e-9)
            assert clear == told["clear"]
            seen.add((point["arm"], clear))
    assert seen == {("hnet", True), ("hat", False)}


def test_the_study_in_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(block("toml"))
    study, out = asked_of(Arguments(arms=(str(file),)))
    assert out == str(tmp_path / "mine")
    assert [arm.name for arm in study.arms] == ["flat", "flat-bpe4096", "ours"]
    assert (study.by, study.budgets, study.baseline) == ("flops", (2e12, 8e12), "flat")


def test_flags():
    """It tells of all that ablate.py takes, and of no flag that there is not."""
    flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Arguments)}
    told = set(re.findall(r"(?<![\w.-])--[a-z][a-z-]+(?![\w.-]*\.)", TEXT))
    of_others = "certificate decompress heldout most-bytes no-deps text tokenizer".split()
    assert told - flags == {f"--{name}" for name in of_others}
    assert flags - told == {"--arms", "--title", "--baseline"}  # of these the file tells
