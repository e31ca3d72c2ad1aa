"""The page of a study: its numbers are those of the summary, it takes any names and what is
missing, and it works in a browser and on paper."""

import base64
import copy
import json
import re
import subprocess
import sys

import pytest

from helpers import ROOT
from octavo.ablation import analysis
from octavo.ablation.page import AXES, page, write
from octavo.ablation.words import signed
from studies import write_study

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one browser

HOSTILE = "</script><!--<script> <i>\x00\ud800 &amp; 日本 " + "long" * 20


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The summary of a study of three arms, two budgets and two seeds; flat is the baseline."""
    out = tmp_path_factory.mktemp("studies") / "units"
    out.mkdir()
    write_study(out, budgets=(2e12, 5e12), seeds=2, best={"hnet": 2})
    return analysis.summary(out)


def embedded(made: str) -> dict:
    """What a page draws."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', made)
    return json.loads(found)


def named(summary: dict, old: str, new: str) -> dict:
    """The summary with another name for an arm, wherever it stands."""
    if isinstance(summary, dict):
        return {k: named(v, old, new) for k, v in summary.items()}
    if isinstance(summary, list):
        return [named(v, old, new) for v in summary]
    return new if summary == old else summary


def grown(summary: dict, count: int) -> dict:
    """The summary with more arms, which are copies of the last."""
    summary = copy.deepcopy(summary)
    last = summary["arms"][-1]["name"]
    for i in range(len(summary["arms"]), count):
        about = summary["arms"][-1] | {"name": f"{last}-{i}", "colour": i}
        summary["arms"].append(about)
        for part in ("points", "tries", "cells", "curves"):
            mine = [one for one in summary[part] if one["arm"] == last]
            summary[part] += [named(one, last, f"{last}-{i}") for one in mine]
        for cut in summary["cuts"]:
            cut["arms"].append(cut["arms"][-1] | {"arm": f"{last}-{i}"})
    return summary


def rows_of(made: str, of: str) -> list[list[str]]:
    """The cells of a table as text."""
    table = made[made.index(of) :]
    table = table[: table.index("</table>")]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    text = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in text]


def test_numbers_are_those_of_the_summary(study):
    made = page(study)
    for sentence in (*study["answer"], *study["cannot"]):
        assert sentence.replace("'", "&#x27;") in made
    for warning in study["warnings"]:
        assert warning["text"].replace("'", "&#x27;") in made
    points = {(p["arm"], p["budget"]): p for p in study["points"]}
    head, *rows = rows_of(made, 'class="facts sortable"')
    assert len(rows) == 3 and [row[0] for row in rows] == study["ranks"][-1]["order"]
    for row in rows:
        both = [points[row[0], budget] for budget in (0, 1)]
        assert row[1] == str(both[1]["rank"])
        for cell, point in zip(row[2:4], both, strict=True):
            assert cell == f"{point['mean']:.3f} ± {point['spread']:.3f} {point['rank']}"
        for cell, point in zip(row[4:6], both, strict=True):
            against = point["difference"]
            told = against and signed(against["mean"], against["margin"]).replace("-", "−")
            assert cell == (told or "baseline")
        assert row[head.index("next wordright")] == f"{both[1]['next_word_accuracy']:.1%}"
        assert row[-1] == "✓"
    _, *forest, _ = rows_of(made, '<figure class="forest">')
    for row in forest:
        point = points[row[1], 1]
        assert row[2] == f"{point['mean']:.3f}"
        verdict = "baseline"
        if against := point["difference"]:
            assert row[4] == signed(against["mean"], against["margin"]).replace("-", "−")
            verdict = "better" if against["clear"] and against["mean"] < 0 else "not clear"
        assert row[5] == verdict
    data = embedded(made)
    for drawn, point in zip(data["points"], study["points"], strict=True):
        assert drawn["bits"] == pytest.approx(point["mean"], rel=1e-5)
        assert drawn["interval"] == pytest.approx([point["low"], point["high"]], rel=1e-5)
        assert drawn["x"]["flops_paid"] == pytest.approx(point["flops_paid"], rel=1e-5)
        inference = point["inference"]
        assert drawn["flops"] == pytest.approx(
            [inference["flops_per_byte_useful"], inference["flops_per_byte_paid"]], rel=1e-5
        )
    tables = {table["title"]: table for table in data["tables"]}
    for of, title in (("by_label", "By language or source"), ("by_script", "By script")):
        for row, point in zip(tables[title]["rows"], study["points"], strict=True):
            assert row == pytest.approx(list(point[of].values()), rel=1e-4)
    for row, point in zip(tables["Under noise"]["rows"], study["points"], strict=True):
        assert row == pytest.approx([one["bits_per_byte"] for one in point["noise"]], rel=1e-4)


def test_every_cell_says_where_it_comes_from(study):
    made = page(study)
    assert made.count('<details class="cell') == len(study["cells"])
    for cell in study["cells"]:
        assert f'<code class="command">{cell["command"]}</code>' in made
        for piece in (cell["certificate"] or {"pieces": []})["pieces"]:
            assert piece["sha256"] in made and piece["compressed_sha256"] in made
    assert study["text"]["fingerprint"] in made and study["cells"][0]["results"]["commit"] in made
    # What proves nothing says why, at its place.
    broken = copy.deepcopy(study)
    cell = next(cell for cell in broken["cells"] if cell["certificate"])
    cell["unproven"] = "0.oct was not restored"
    assert made.count("certified ✓") - page(broken).count("certified ✓") == 1
    assert "proves nothing: 0.oct was not restored" in page(broken)


def test_curves_stand_where_their_steps_were(study):
    data = embedded(page(study))
    curves = [curve for curve in study["curves"] if curve["chosen"]]
    assert len(data["curves"]) == len(curves) < len(study["curves"])
    for drawn, curve in zip(data["curves"], curves, strict=True):
        assert drawn["train"] == pytest.approx(curve["train"], rel=1e-3)
        last = curve["heldout"][-1]
        assert drawn["heldout"]["bits"][-1] == pytest.approx(last[1], rel=1e-4)
        assert drawn["heldout"]["x"]["step"][-1] == pytest.approx(last[0], rel=0.02)
        whole = curve["x"]["bytes"][-1]
        assert drawn["heldout"]["x"]["bytes"][-1] == pytest.approx(whole, rel=0.02)


def test_hostile_names(study):
    """An arm may be called anything, and so may a label, a text, a command."""
    for old in ("hnet", "flat"):
        summary = named(study, old, HOSTILE)
        summary["title"] = summary["cells"][0]["command"] = summary["cuts"][0]["label"] = HOSTILE
        for point in summary["points"]:
            point["by_label"][HOSTILE] = 2.0
        made = page(summary)
        made.encode()
        assert made.count("<script") == made.count("</script>") == 3 and "<!--" not in made
        assert "<i>" not in made and "\x00" not in made
        assert len(rows_of(made, 'class="facts sortable"')) == 4


def test_it_is_one_file(study):
    made = page(study).replace("http://www.w3.org/2000/svg", "")
    assert made.count("http") == 1  # http-equiv
    assert "default-src 'none'" in made
    links = set(re.findall(r'(?:href|src)="([^"#]*)"', made))
    assert links == {"data:,", "table.md", "table.csv", "table.tex", "results.parquet"}


def test_size(study):
    """Fifteen arms, three budgets, two seeds."""
    summary = grown(study, 15)
    for part in ("points", "cells", "curves"):
        summary[part] += [one | {"budget": 2} for one in summary[part] if one["budget"] == 1]
    summary["budget"]["values"].append(1.2e13)
    assert len(summary["points"]) == 45 and len(page(summary)) < 1_000_000


def test_many_arms(study):
    made = page(grown(study, 25))
    assert len(rows_of(made, 'class="facts sortable"')) == 26
    assert len(rows_of(made, '<figure class="forest">')) == 27


def test_what_is_missing(study):
    """A summary of a study that has hardly begun, or of which parts were not measured."""
    empty = copy.deepcopy(study)
    for part in ("points", "envelope", "ranks", "flips", "tries", "curves", "cuts", "warnings"):
        empty[part] = []
    empty["speed"] = None
    for cell in empty["cells"]:
        cell |= {"status": "missing", "results": {}, "certificate": None, "learning_rate": None,
                 "settings": {}}  # fmt: skip
    assert "not done" in page(empty)
    for name in (
        "spread", "low", "high", "seconds", "parameters", "next_word_accuracy", "flops_paid",
        "bytes_per_unit", "fairness_premium", "train_bytes_per_second", "languages", "difference",
        "rank", "inference", "by_label", "noise", "bands",
    ):  # fmt: skip
        summary = copy.deepcopy(study)
        for point in summary["points"]:
            point[name] = None
        page(summary)
    summary = copy.deepcopy(study)
    for point in summary["points"]:
        for name in ("low", "high", "documents", "seeds", "margin"):
            point["difference"] = point["difference"] and point["difference"] | {name: None}
    page(summary)
    for part in ("tuning_cost", "tries", "curves", "cuts", "cells", "speed", "done", "flips"):
        summary = {name: value for name, value in study.items() if name != part}
        page(summary)


def test_runs_that_were_there(tmp_path):
    write_study(tmp_path, existing=True)
    made = page(analysis.summary(tmp_path))
    assert "nothing was matched" in made and "at as trained" not in made


def test_it_is_written_whole(study, tmp_path):
    write(tmp_path, study)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == page(study)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(OSError):
        write(tmp_path / "none", study)


def test_it_needs_no_jax():
    code = (
        "import sys\nimport octavo.ablation.page\n"
        "assert not {'jax', 'matplotlib', 'flax', 'pyarrow'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class Browser:
    """What the tests do with one."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width: int = 1400, scheme: str = "light"):
        self.cdp("Emulation.setDeviceMetricsOverride",
                 width=width, height=900, deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        self.cdp("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
        self.driver.get(f"file://{path}")
        self.js("sessionStorage.clear()")
        self.driver.refresh()

    def cdp(self, command: str, **how):
        return self.driver.execute_cdp_cmd(command, how)

    def js(self, code: str, *arguments):
        return self.driver.execute_script(code, *arguments)

    def all(self, css: str) -> list:
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css
        )

    def set(self, css: str, value: str) -> None:
        """As a person does it: the value, and the events of it."""
        self.js(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "for (const n of ['input', 'change']) e.dispatchEvent(new Event(n, {bubbles: true}))",
            css, value,
        )  # fmt: skip

    def errors(self) -> list:
        return [line for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture
def chromium(browser):
    yield Browser(browser)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_any_study_at_any_width(study, chromium, tmp_path):
    one = copy.deepcopy(study)
    one["arms"] = one["arms"][:1]
    for part in ("points", "tries", "cells", "curves"):
        one[part] = [each for each in one[part] if each["arm"] == "flat" and not each.get("budget")]
    one["budget"]["values"] = one["budget"]["values"][:1]
    one |= {"ranks": [], "flips": []}
    for cut in one["cuts"]:
        cut["arms"] = cut["arms"][:1]
    hostile = named(study, "hnet", HOSTILE)
    for number, summary in enumerate((study, one, hostile, grown(study, 25))):
        out = tmp_path / f"{number}.html"
        out.write_text(page(summary), encoding="utf-8")
        for width, scheme in ((390, "light"), (1400, "dark")):
            chromium.open(out, width, scheme)
            assert chromium.js("return document.documentElement.scrollWidth") <= width
            assert not chromium.errors()
            for chart in chromium.all(".chart svg"):
                assert chart.find_elements("css selector", ".line, circle, g path")
                ends = chromium.js(
                    "return [...arguments[0].querySelectorAll('text')].map(e => {"
                    "  const b = e.getBoundingClientRect(); return [b.left, b.right]; })", chart,
                )  # fmt: skip
                assert all(left >= 0 and right <= width for left, right in ends)


def test_the_table_sorts(study, chromium, tmp_path):
    write(tmp_path, study)
    chromium.open(tmp_path / "index.html")
    points = {(p["arm"], p["budget"]): p for p in study["points"]}
    names = "#table tbody th"
    assert chromium.texts(names) == study["ranks"][-1]["order"]
    heads = chromium.all("#table thead th")

    def press(column: int) -> list[str]:
        from selenium.webdriver.common.keys import Keys

        heads[column].find_element("css selector", "button").send_keys(Keys.ENTER)
        sorted_by = [head.get_attribute("aria-sort") for head in heads]
        assert sum(each is not None for each in sorted_by) == 1
        return chromium.texts(names)

    by_mean = sorted(("flat", "spacebyte", "hnet"), key=lambda arm: points[arm, 0]["mean"])
    assert press(2) == by_mean and heads[2].get_attribute("aria-sort") == "ascending"
    assert press(2) == by_mean[::-1] and heads[2].get_attribute("aria-sort") == "descending"
    assert press(0) == ["flat", "hnet", "spacebyte"]
    # What has no number is last, both ways.
    chromium.js("delete document.querySelector('#table tbody tr').children[1].dataset.key")
    assert press(1)[-1] == press(1)[-1] == "flat"


def test_prices_change_the_ranking(study, chromium, tmp_path):
    study = copy.deepcopy(study)
    for point in study["points"]:
        if point["arm"] == "hnet":
            point["bytes_per_unit"] *= 2
    write(tmp_path, study)
    chromium.open(tmp_path / "index.html")
    mine = [point for point in study["points"] if point["budget"] == 1]

    def ranked(flops: float, memory: float, unit: float, kind: str) -> list[str]:
        def product(point) -> float:
            per_unit, inference = point["bytes_per_unit"], point["inference"]
            return point["mean"] * (
                flops * inference[f"flops_per_byte_{kind}"] / 1e6
                + memory * inference["parameter_bytes"] / 1e3 / per_unit
                + unit / per_unit
            )

        for name, value in (("flops", flops), ("memory", memory), ("unit", unit)):
            chromium.set(f"#{name}", str(value))
        chromium.set("#counted", str(("useful", "paid").index(kind)))
        found = chromium.texts("#costs tbody th")
        assert found == [point["arm"] for point in sorted(mine, key=product)]
        shown = chromium.all("#costs tbody td:nth-child(5)")
        base = next(point for point in mine if point["arm"] == "flat")
        told = [float(text) for text in chromium.texts("#costs tbody td:nth-child(6)")]
        for arm, cell, share in zip(found, shown, told, strict=True):
            point = next(point for point in mine if point["arm"] == arm)
            assert float(cell.get_attribute("data-key")) == pytest.approx(product(point), rel=1e-4)
            assert f"{product(point):.3g}".startswith(cell.text[:3].rstrip("."))
            assert share == pytest.approx(product(point) / product(base), abs=0.006)
        return found

    first = ranked(1, 0, 0, "useful")
    assert first[-1] == "flat"
    fronts = chromium.texts("#costs tbody td:nth-child(7)")
    best = min(mine, key=lambda point: point["mean"])["arm"]
    assert fronts[0] == "✓" == fronts[first.index(best)] and fronts[-1] == ""
    formula = chromium.texts("#formula")[0]
    assert first[0] == "spacebyte" and ranked(0, 0, 1, "paid")[0] == "hnet"
    ranked(2, 1e-6, 0, "paid")
    assert chromium.texts("#formula")[0] != formula
    chromium.all("#reset")[0].click()
    assert chromium.texts("#costs tbody th") == first
    chromium.set("#cost .budget select", "0")  # everywhere
    assert [e.get_property("value") for e in chromium.all(".budget select")] == ["0"] * 3
    assert not chromium.errors()


def test_arms_are_chosen_and_pointed_at(study, chromium, tmp_path):
    from selenium.webdriver.common.keys import Keys

    write(tmp_path, study)
    chromium.open(tmp_path / "index.html")
    lines = "#budgets .plot g[data-arm] .line"
    assert len(chromium.all(lines)) == 3
    chromium.all("#compute .arms button")[0].click()
    assert len(chromium.all(lines)) == 2
    pressed = [e.get_attribute("aria-pressed") for e in chromium.all('[data-chip="0"]')]
    assert pressed == ["false"] * 3 and len(chromium.all("#cut0 section[hidden]")) == 1
    chromium.driver.refresh()
    assert len(chromium.all(lines)) == 2  # it is remembered
    chromium.all("#compute .arms button")[0].click()
    # Other axes, and differences in place of bits per byte.
    for axis, label in AXES.items():
        chromium.all(f'#x input[value="{axis}"]')[0].send_keys(Keys.SPACE)
        assert chromium.all("#budgets .axis")[0].text == label and len(chromium.all(lines)) == 3
    chromium.all('#y input[value="difference"]')[0].send_keys(Keys.SPACE)
    chromium.all('#x input[value="flops_useful"]')[0].send_keys(Keys.SPACE)
    # The keyboard reads the points; what is pointed at stands out everywhere.
    svg = chromium.all("#budgets svg[tabindex]")[0]
    svg.send_keys(Keys.END, Keys.ARROW_RIGHT)
    tip, hot = chromium.texts("#tip")[0], chromium.all("#table tr.hot th")[0].text
    point = next(p for p in study["points"] if p["arm"] == hot and p["budget"] == 0)
    assert tip.startswith(hot) and f"bits/byte{point['mean']:.3f}" in tip
    chromium.all('#mode input[value="values"]')[0].send_keys(Keys.SPACE)
    cell = chromium.all("#heats tbody td")[0]
    best = next(p for p in study["points"] if p["budget"] == 1 and p["rank"] == 1)
    assert cell.text == f"{next(iter(best['by_label'].values())):.3f}"
    # Another text is written when it is asked for.
    assert not chromium.all("#cut1 pre span")
    chromium.set("#text", "1")
    assert chromium.texts("#cut1 pre")[0] == study["cuts"][1]["text"]
    assert chromium.all("#cut0[hidden]")
    assert not chromium.errors()


def test_cells_are_found(study, chromium, tmp_path):
    write(tmp_path, study)
    chromium.open(tmp_path / "index.html")
    shown = ".cell:not([hidden])"
    chosen = sum(cell["chosen"] for cell in study["cells"])
    assert len(chromium.all(shown)) == chosen
    chromium.all("#tries")[0].click()
    assert len(chromium.all(shown)) == len(study["cells"])
    chromium.set("#find", "hnet-b1-s0")
    (cell,) = chromium.all(shown)
    cell.find_element("css selector", "summary").click()
    command = cell.find_element("css selector", ".command")
    cell.find_element("css selector", ".copy").click()
    assert chromium.js("return String(getSelection())").strip() == command.text
    assert cell.find_element("css selector", ".copy").text in ("copied", "press Ctrl-C")


def test_on_paper(study, chromium, tmp_path):
    write(tmp_path, study)
    chromium.open(tmp_path / "index.html")
    chromium.js(
        "addEventListener('beforeprint', () => { window.open_ = "
        "document.querySelectorAll('details:not([open])').length; })"
    )
    drawn = "return document.querySelector('#budgets svg[tabindex]').getAttribute('viewBox')"
    before = chromium.js(drawn)
    made = chromium.cdp("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
    assert base64.b64decode(made["data"]).startswith(b"%PDF")
    assert chromium.js("return window.open_") == 0
    # And it is again as it was.
    assert chromium.all("details:not([open])") and chromium.js(drawn) == before
    # Nothing is wider than the paper, nor does anything scroll there.
    chromium.cdp("Emulation.setDeviceMetricsOverride",
                 width=690, height=1000, deviceScaleFactor=1, mobile=False)  # fmt: skip
    chromium.cdp("Emulation.setEmulatedMedia", media="print")
    assert not chromium.js(
        "return [...document.querySelectorAll('.controls, .arms, nav, .copy')]"
        ".filter(e => e.getClientRects().length).length"
    )
    wide = chromium.js(
        "return [...document.querySelectorAll('.chart, .forest, .rates, dl, .cells, #cost table')]"
        ".filter(e => e.getBoundingClientRect().right > 691).map(e => e.className)"
    )
    assert not wide and not chromium.errors()
    chromium.cdp("Emulation.setEmulatedMedia", media="")
