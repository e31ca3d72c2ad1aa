"""What people look at: the fairness report, and the page of units in a real browser."""

import dataclasses
import html
import io
import json
import math
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from helpers import arguments_of, run, words
from octavo.brief import beginning
from octavo.evaluation import table
from octavo.evaluation.measures import fairness
from octavo.evaluation.viewer import characters, page
from octavo.run.score import Predictions, Units, over_bytes
from octavo.tokenizers.words import WordTokenizer

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    """A run of a few steps of magnet."""
    workdir = tmp_path_factory.mktemp("learned")
    config = dataclasses.replace(
        tiny, train=dataclasses.replace(tiny.train, steps=3, evaluation_bytes=0, sample_bytes=0)
    )
    stage = ("--model.stages.0.width", "32", "--model.stages.0.heads", "2",
             "--model.stages.0.scripts", "latin", "greek",
             "--model.stages.0.rates", "0.2", "0.2", "0.1")  # fmt: skip
    done = run("train.py", "magnet", *arguments_of(config, workdir), *stage)
    assert done.returncode == 0, done.stderr
    return workdir


def test_metrics_of_a_learned_segmenter(learned):
    row = json.loads((learned / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0.05 < row["rate/0"] < 0.5 and row["collapsed/0"] <= 1
    assert row["units/0"] > 0 and row["boundary_loss/0"] > 0


def test_fairness_report(learned, tmp_path):
    for name, letter in (("eng", "a"), ("ell", "\u03b1")):
        lines = [f"{letter * 3} {letter * 5} {letter * i}" for i in range(1, 9)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    out, plot = tmp_path / "rows.json", tmp_path / "plot.svg"
    done = run("evaluate.py", str(learned), "fairness", "--parallel", str(tmp_path),
               "--json", str(out), "--plot", str(plot))  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {(r["system"], r["language"]): r for r in json.loads(out.read_text())["fairness"]}
    assert {system for system, _ in rows} == {learned.name, "bytes", "whitespace", "bpe"}
    assert rows["bytes", "ell"]["units_per_sentence"] == pytest.approx(2 * 12.5 + 2)
    assert rows["bytes", "ell"]["premium"] == pytest.approx(27 / 14.5)
    assert rows["whitespace", "ell"]["units_per_sentence"] == 3
    assert rows["whitespace", "spread"]["units_per_sentence"] == 1
    assert rows[learned.name, "ell"]["script"] == "greek"
    mine = rows[learned.name, "eng"]
    assert mine["bits_per_sentence"] == pytest.approx(mine["bits_per_byte"] * 14.5)
    assert "<svg" in plot.read_text() and "ell" in plot.read_text()
    for wrong, message in (
        (("fairness",), "fairness needs --parallel DIR"),
        (("fairness", "--parallel", str(tmp_path), "--anchor", "deu"), "no language 'deu'"),
        (("fairness", "--parallel", str(tmp_path / "none")), "needs a file LANGUAGE.txt"),
    ):
        done = run("evaluate.py", str(learned), *wrong)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_predictions_over_bytes():
    """Ids without bytes (here the ends of words) go with the byte before them."""
    tokenizer = WordTokenizer()
    text = b"ab cd"
    ids = tokenizer.encode(text)
    n = len(ids)
    found = Predictions(
        nats=np.ones(n + 1, np.float32), correct=np.ones(n + 1, bool),
        ends=tokenizer.bytes_per_id()[ids] == 0, probability=np.linspace(0, 1, n),
        levels=np.zeros(n + 1, np.int8),
    )  # fmt: skip
    units = over_bytes(ids, found, tokenizer, len(text))
    assert units.surprisal.sum() == pytest.approx(n / math.log(2))
    assert units.ends.sum() == n - len(text) > 0 and np.nanmax(units.probability) == 1
    assert units.spans == [(0, 2), (2, 5)]


ROWS = {
    "fairness": [
        {"system": system, "language": language, "script": script,
         "bytes_per_unit": 1234.5678 + i, "units_per_sentence": 98765.4321 + i,
         "premium": 1.25 + i, "bits_per_sentence": 123456.789 + i if i % 2 else None,
         "bits_per_byte": 8.7654 + i}
        for i, (system, language, script) in enumerate([
            ("flat-20261124-090000-with-a-long-name", "eng", "latin"), ("bytes", "jpn", "hiragana"),
            ("\u65e5\u672c [bold] :smile:", "spread", "")])
    ],
    "bits": [{"bits_per_byte": 7.1234, "bytes": 12345678901, "documents": 1234567,
              "ids": 12345678901, "nats": 98765432109.8765}],
    "words": [{"band": "1001 or more", "words": 123456789, "accuracy": 0.4321}],
    "noise": [{"noise": "repeat", "rate": 0.02, "bits_per_byte": 7.1234, "more": -0.1234}],
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_tables_crop_no_number(what, encoding):
    """At any width of a terminal from 40 columns on, and in a pipe on one line each."""
    rows = ROWS[what]
    numbers = [
        f"{value:,.4f}" if isinstance(value, float) else str(value)
        for row in rows for value in row.values() if not isinstance(value, str | None)
    ]  # fmt: skip
    for width in (40, 41, 47, 60, 80, 100, 200, None):
        out = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")
        terminal = Console(file=out, width=width or 50, force_terminal=width is not None,
                           markup=False, emoji=False, soft_wrap=True, highlight=False)  # fmt: skip
        table.show("runs/[x] at step 3: a:smile:", rows, terminal)
        out.flush()
        text = re.sub("\x1b\\[[0-9;]*m", "", out.buffer.getvalue().decode())
        lines = text.splitlines()
        assert lines[0] == "runs/[x] at step 3: a:smile:"
        cells = {cell.strip() for line in lines for cell in re.split("[|\u2502\u2503]", line)}
        assert cells >= set(numbers), width
        if width is None:
            assert set(rows[0]) <= cells and len(lines) == len(rows) + 5
        else:
            assert max(map(cell_len, lines[1:])) <= width or encoding == "ascii"


def test_fairness_of_a_run_called_like_what_stands_beside_it(tmp_path):
    """Every system has a name of its own; names with signs of formulas are drawn as they are."""
    texts = {"eng": [b"a b", b"c"], "$x$ _y": [b"d e", b"f"]}
    tokenizer = WordTokenizer()
    rows = fairness.by_language("a", texts, lambda lines: (np.zeros(2) + 1, np.zeros(2)), "eng")
    assert rows[-1]["bits_per_byte"] is None  # nothing is no measure of nothing
    for name in ("bytes", "whitespace", "words", "_$x$\udcff"):
        with mock.patch.object(fairness, "units_of", lambda *_: (np.ones(2), np.ones(2))):
            rows = fairness.fairness(None, name, texts, "eng", tokenizer, {})
        assert len({row["system"] for row in rows}) == 4
        fairness.plot(rows, "eng", tmp_path / "plot.svg")
        assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_page_of_a_hostile_name():
    """A run's folder may be called anything, and its text may hold anything."""
    text = b"a\0\r\x1b<!--<script>\xff"
    ends = np.ones(len(text), bool)
    for name in ("run<!--<script>", "a\"'&\n</script>", "x\udcff"):
        made = page(text, [(name, Units(np.ones(len(text)), ends, np.full(len(text), np.nan)))])
        made.encode()
        script = made[made.index("const data = ") : made.index("const tip")]
        assert "<" not in script and made.count("<script>") == 1 and "<!--" not in made
        assert html.escape(name.replace("\udcff", "\\udcff")) in made
        assert all(f"\\u{0x2400 + code:x}" in script for code in (0, 13, 27))


def test_beginning_of_a_text():
    text = "aé日".encode()
    assert [beginning(text, n) for n in (1, 2, 3, 4, 5, 6, 9)] == [
        b"a", b"a", *["aé".encode()] * 3, text, text,
    ]  # fmt: skip
    assert beginning(b"\xff\xfe\xfd", 2) == b"\xff\xfe"
    assert beginning("日".encode(), 1) == "日".encode()[:1]


def test_characters():
    text = "aé日".encode() + b"\xe6\x97" + "𐌰".encode()
    assert characters(text) == [
        ("a", 0, 1), ("é", 1, 2), ("日", 3, 3), ("\ufffd", 6, 1), ("\ufffd", 7, 1), ("𐌰", 8, 4),
    ]  # fmt: skip


def hover(browser, selector):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    target = browser.find_element(By.CSS_SELECTOR, selector)
    ActionChains(browser).move_to_element(target).perform()
    return browser.find_element(By.ID, "tip").text


def test_page_in_a_browser(browser, tmp_path):
    from selenium.webdriver.common.by import By

    text = "ab <b>&\n日本".encode()
    n = len(text)
    ends = np.zeros(n, bool)
    ends[[2, 9]] = True  # after the space, and inside the first ideograph
    learned = Units(np.arange(n) / 2, ends, np.linspace(0, 0.9, n))
    plain = Units(np.ones(n), np.ones(n, bool), np.full(n, np.nan))
    out = tmp_path / "units.html"
    out.write_text(page(text, [("first <i>", learned), ("flat", plain)]), encoding="utf-8")
    browser.get(f"file://{out}")
    sections = browser.find_elements(By.TAG_NAME, "section")
    assert [s.find_element(By.TAG_NAME, "h2").text for s in sections] == ["first <i>", "flat"]
    spans = sections[0].find_elements(By.CSS_SELECTOR, "pre span")
    assert [s.get_attribute("textContent") for s in spans] == list("ab <b>&") + ["↵\n", "日", "本"]
    colours = [s.value_of_css_property("background-color") for s in spans]
    assert colours[0] == colours[2] != colours[3] == colours[8] != colours[9]
    assert "cut" in spans[8].get_attribute("class")
    tip = hover(browser, 'section[data-model="0"] span[data-i="2"]')
    assert "first <i> 20 1.00 bits p(end) 0.14 ends" in tip and "flat 20 1.00 bits" in tip
    # A character of three bytes shows each, and is marked in both columns.
    assert hover(browser, 'section[data-model="1"] span[data-i="9"]').count("bits") == 6
    assert len(browser.find_elements(By.CSS_SELECTOR, ".here")) == 2
    browser.find_element(By.ID, "heat").click()
    assert spans[0].value_of_css_property("background-color") != colours[0]
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_view_command(learned, trained, browser, tmp_path):
    from selenium.webdriver.common.by import By

    text = tmp_path / "text.txt"
    text.write_bytes(words(0, 150) + "\n</script> αβγ".encode())
    out = tmp_path / "page.html"
    runs = (str(learned), str(trained[0]))
    done = run("view.py", *runs, "--text", str(text), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "http" not in out.read_text()
    browser.get(f"file://{out}")
    assert len(browser.find_elements(By.TAG_NAME, "section")) == 2
    assert "p(end)" in hover(browser, 'span[data-i="5"]')
    missing = run("view.py", *runs, "--text", str(Path(text).with_suffix(".none")))
    assert missing.returncode == 2 and "cannot be read" in missing.stderr
