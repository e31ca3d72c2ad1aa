"""The page of a run: what it plots is what was logged, it takes any files, and it works in a
browser."""

import json
import math
import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import ROOT, run
from octavo import view
from octavo.configs.checks import ConfigError
from octavo.evaluation.curves import Few
from octavo.evaluation.report import page, write_report

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one browser, one finished run

OLD = ROOT / "tests" / "data" / "runs"
TEXT = 'naïve 日本 </script><b>\t"x"\n'
HOSTILE = "</script><!--<script> \x1b[31m\x00\ud800 &amp; \u202e"


def row_of(step: int, seed: int = 0) -> dict:
    noise = random.Random(f"{seed} {step}").random()
    row = {
        "step": step, "train/bits_per_byte": 3 + 5 / step + noise, "train/loss": 2 + noise,
        "train/skipped_in_a_row": float(step in (7, 8)), "optimizer/grad_norm": noise,
        "optimizer/learning_rate": 3e-3, "train/bytes": 512 * step, "train/flops": 1e9 * step,
        "perf/seconds": step / 4, "perf/bytes_per_second": 2048.0, "perf/host_memory_bytes": 1e9,
        "units/0": 0.2, "rate/0": 0.25, "merged/0": 0.0, "collapsed/0": 0.1, "units/1": 0.1,
    }  # fmt: skip
    if step % 10 == 0:
        score = 3 + 5 / step + seed
        row |= {"heldout/bits_per_byte": score, "heldout/low": score - 0.1,
                "heldout/high": score + 0.2, "heldout/bits_per_byte/eng": score - 1,
                "heldout/bits_per_byte/de/<b>": score + 1}  # fmt: skip
    return row


def make_run(folder: Path, steps: int = 60, seed: int = 0, **results) -> Path:
    """A run directory by hand."""
    folder.mkdir()
    config = json.loads((OLD / "hnet" / "config.json").read_text())
    config["train"] |= {"steps": 60, "seed": seed}
    config["optimizer"]["learning_rate"] *= seed + 1
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(row_of(step, seed)) + "\n")
    size = len(TEXT.encode())
    with open(folder / "samples.jsonl", "w") as file:
        for step in range(10, steps + 1, 10):
            cut = {"text": TEXT, "ends": [i % 3 == 2 for i in range(size)],
                   "surprisal": [step / 10.0] * size,
                   "probability": [None if i % 2 else 0.25 for i in range(size)]}  # fmt: skip
            sample = {"step": step, "prompt": "The ", "text": f"The {step} {HOSTILE}", "cut": cut}
            file.write(json.dumps(sample) + "\n")
    if results:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def embedded(made: str) -> dict:
    """What a page draws."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', made)
    return json.loads(found)


def values(data: dict, name: str, table: str = "curves", number: int = 0) -> list:
    return data["runs"][number][table]["values"][name][0]


def test_what_is_plotted_is_what_was_logged(tmp_path):
    folder, out = make_run(tmp_path / "run"), tmp_path / "page.html"
    rows = [row_of(step) for step in range(1, 61)]
    rows[20] |= {"train/bits_per_byte": None, "nonfinite": ["train/bits_per_byte"]}
    lines = [json.dumps(row) for row in rows]
    lines[30:30] = ["", "[1, 2]", '{"step": "x"}', '{"step": 31, "trai', '{"step": -1}', "\x00"]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 61, "train/bits')
    write_report([folder], out)
    data = embedded(out.read_text(encoding="utf-8"))
    run = data["runs"][0]
    for axis in ("step", "train/bytes", "train/flops", "perf/seconds"):
        assert run["curves"]["x"][axis] == [row[axis] for row in rows]
    for name in ("train/bits_per_byte", "optimizer/grad_norm", "units/1", "collapsed/0"):
        logged = [math.nan if row[name] is None else row[name] for row in rows]
        drawn = [math.nan if value is None else value for value in values(data, name)]
        np.testing.assert_allclose(drawn, logged, rtol=1e-5)
    assert values(data, "train/bits_per_byte")[20] is None
    scored = rows[9::10]
    assert run["heldout"]["x"]["perf/seconds"] == [row["perf/seconds"] for row in scored]
    names = ("heldout/bits_per_byte", "heldout/low", "heldout/high")
    for drawn, name in zip(run["heldout"]["values"][names[0]], names, strict=True):
        np.testing.assert_allclose(drawn, [row[name] for row in scored], rtol=1e-5)
    label = "heldout/bits_per_byte/de/<b>"
    np.testing.assert_allclose(values(data, label, "heldout"), [r[label] for r in scored], 1e-5)
    assert run["skipped"] == [6, 7]
    drawn = {one["name"] for chart in data["charts"] for one in chart["series"]}
    assert drawn >= {name for row in rows for name in row} - {
        "step", "train/bytes", "train/flops", "perf/seconds", "train/skipped_in_a_row",
        "nonfinite", "heldout/low", "heldout/high",
    }  # fmt: skip


def test_a_long_run_is_thinned(tmp_path):
    """Whatever is thinned, the least and the most stay, and so does every evaluation."""
    steps, folder = 30_000, tmp_path / "run"
    make_run(folder, 10)
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            row = {"step": step, "train/bits_per_byte": 2.0 + step % 2, "train/bytes": 8 * step}
            row["train/bits_per_byte"] += 7 * (step == 12_345)
            if step % 1000 == 0:
                row["heldout/bits_per_byte"] = 3 - step / steps
            file.write(json.dumps(row) + "\n")
    made = page([folder])
    assert len(made) < 300_000
    data = embedded(made)
    mean, low, high = data["runs"][0]["curves"]["values"]["train/bits_per_byte"]
    x = data["runs"][0]["curves"]["x"]["step"]
    assert len(x) == len(mean) < 1600 and x[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (min(low), max(high)) == (2, 10) and high.count(10) == 1
    assert abs(x[high.index(10)] - 12_345) <= 30
    assert abs(np.mean(mean[-100:]) - 2.5) < 0.05
    assert len(values(data, "heldout/bits_per_byte", "heldout")) == 30
    several = embedded(page([folder] * 3))
    assert len(several["runs"][0]["curves"]["x"]["step"]) < 800


def test_few():
    few: Few[int] = Few(4)
    for i in range(100):
        few.add(i)
        kept = list(few)
        assert kept[0] == 0 and kept[-1] == i and len(kept) <= 6
        assert kept == sorted(set(kept))
    assert kept == [0, 32, 64, 96, 99]


def test_hostile_text(tmp_path):
    """A sample, a label, a name may hold anything."""
    folder = make_run(
        tmp_path / "a<b>&'\"<script>", preset=HOSTILE, command=[HOSTILE], failed="<i>"
    )
    made = page([folder])
    made.encode()  # no halves of surrogate pairs
    assert made.count("<script") == made.count("</script>") == 3 and "<!--" not in made
    assert "<b>&" not in made and "\x1b" not in made and "\x00" not in made and "<i>" not in made
    assert made.replace("http://www.w3.org/2000/svg", "").count("http") == 1  # http-equiv
    data = embedded(made)
    assert data["runs"][0]["name"] == folder.name
    assert data["runs"][0]["samples"][-1][2] == (
        "The 60 </script><!--<script> \u241b[31m\u2400\ufffd &amp; \u202e"
    )


ROUNDS = 10
ODD = [None, True, "x", [], [1], {}, {"a": [None]}, -1, 0, 1e308, 10**400, math.nan, HOSTILE]


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "samples.jsonl", "results.json"])
def test_any_files(tmp_path, name):
    """Files of other versions, damaged or written by anybody: the page shows the rest."""
    folder = make_run(tmp_path / "run", step=60, best={"step": 1, "bits_per_byte": 2.0},
                      data=[{"folder": "a", "bytes": 3}], versions={"jax": "1"})  # fmt: skip
    names = ["heldout/bits_per_byte", "heldout/low", "heldout/high", "heldout/bytes", "hosts",
             "heldout/documents", "heldout/by_label", "step", "bytes", "flops", "flops_useful",
             "parameters", "seconds", "evaluation_seconds", "device", "devices", "versions",
             "commit", "data", "tokenizer", "seed", "preset", "command", "best",
             "failed"]  # fmt: skip
    whole = (folder / name).read_text()
    rng = random.Random(name)
    for _ in range(ROUNDS):
        lines = []
        for line in whole.splitlines() if name.endswith("l") else [whole]:
            value = json.loads(line)
            if name == "results.json":
                value |= {key: rng.choice(ODD) for key in rng.sample(names, 5)}
            for _ in range(rng.randrange(3)):
                part = value
                while isinstance(part, dict) and part:
                    key = rng.choice(list(part))
                    if not isinstance(part[key], dict) or rng.random() < 0.3:
                        part[key] = rng.choice(ODD)
                        break
                    part = part[key]
            text = json.dumps(value)
            lines.append(text[: rng.randrange(len(text))] if rng.random() < 0.1 else text)
        (folder / name).write_text("\n".join(lines))
        page([folder])
    page([folder, OLD / "flat"])
    (folder / name).unlink()
    page([folder])
    (folder / name).mkdir()
    page([folder])


def test_nothing_is_there_yet(tmp_path):
    made = page([tmp_path])
    assert "nothing is logged yet" in made and embedded(made)["charts"] == []


def test_an_older_run():
    """One without held-out points, samples, and most of the results; settings by today's names."""
    made = page([OLD / "hnet"])
    assert "<b>6.536</b>" in made and "like hnet · finished at step 20" in made
    assert "execution.remat" in made and "train.evaluation_bytes" in made
    assert "FLOPs" not in [label for _, label in embedded(made)["axes"]]


def test_a_run_of_another_revision(tmp_path):
    folder = make_run(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["of_tomorrow"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    assert "model.of_tomorrow" in page([folder])


def test_status(tmp_path):
    folder = make_run(tmp_path / "run", 30)
    assert "stopped at step 30 of 60" in page([folder])
    about = {"host": socket.gethostname(), "process": os.getpid()}
    (folder / "lock").write_text(json.dumps(about))
    made = page([folder])
    assert (
        "running, at step 30 of 60 at 20" in made and 'id="reload"' in made.partition("<main>")[0]
    )
    (folder / "results.json").write_text('{"stopped": true, "step": 30}')
    assert "stopped at step 30 of 60" in page([folder])
    (folder / "results.json").write_text('{"stopped": true, "step": 20}')  # it was continued
    assert "running, at step 30 of 60" in page([folder])
    (folder / "results.json").write_text(
        '{"finished": true, "step": 60}'
    )  # the lock is kept a while
    assert "finished at step 60" in page([folder])
    (folder / "results.json").unlink()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, check=True)  # fmt: skip
    (folder / "lock").write_text(json.dumps(about | {"process": int(gone.stdout)}))
    (folder / "diverged.json").write_text("{}")
    assert "gave up at step 30 of 60" in page([folder])


def test_a_run_that_went_on_after_its_results(tmp_path):
    """What the results say is of the step they were made at."""
    made = page([make_run(tmp_path / "run", step=20, bytes=512 * 20,
                          **{"heldout/bits_per_byte": 9.5})])  # fmt: skip
    assert f"<b>{row_of(60)['heldout/bits_per_byte']:.3f}</b>" in made and "<b>9.500" not in made
    assert "<dd>30.7 kB</dd>" in made
    made = page([make_run(tmp_path / "other", step=60, **{"heldout/bits_per_byte": 9.5})])
    assert "<b>9.500</b>" in made


def test_several_runs(tmp_path):
    about = {"heldout/documents": 3, "step": 60}
    folders = [
        make_run(tmp_path / f"run{seed}", seed=seed, **about, **{"heldout/bytes": size},
                 **{"heldout/bits_per_byte": 3 + seed, "heldout/low": 2.9, "heldout/high": 5.5})
        for seed, size in ((1, 100), (0, 100), (2, 100))
    ]  # fmt: skip
    made = page(folders)
    table = made[made.index('class="scores"') : made.index("</table>")]
    assert re.findall(r"run\d", table) == ["run0", "run1", "run2"] and "2.900 to 5.500" in table
    assert "not of the same text" not in made
    differ = made[made.index("Settings that differ") : made.index("All settings")]
    assert re.findall(r"<th scope=\"row\"><code>([\w.]+)", differ) == [
        "optimizer.learning_rate", "train.seed",
    ]  # fmt: skip
    assert differ.count('class="differs"') == 4
    assert [one["name"] for one in embedded(made)["runs"]] == ["run1", "run0", "run2"]
    assert len(embedded(made)["cuts"][0]["models"]) == 3  # the same text, side by side
    results = json.loads((folders[0] / "results.json").read_text())
    (folders[0] / "results.json").write_text(json.dumps(results | {"heldout/bytes": 90}))
    assert "not of the same text" in page(folders)


def test_labels_that_are_only_scored_at_the_end_have_no_curve(tmp_path):
    late = {f"late{i}": {"bits_per_byte": i, "bytes": 9, "documents": 1} for i in range(20)}
    about = {"heldout/bits_per_byte": 3.0, "heldout/bytes": 180, "heldout/by_label": late}
    made = page([make_run(tmp_path / "run", step=60, **about)])
    assert "late19" in made
    drawn = [one["label"] for one in embedded(made)["charts"][1]["series"]]
    assert drawn == ["de/<b>", "eng"]


def test_thousands_of_labels(tmp_path):
    folder = make_run(tmp_path / "run", 2)
    labels = {f"heldout/bits_per_byte/lang{i}": i / 100 for i in range(3000)}
    with open(folder / "metrics.jsonl", "a") as file:
        for step in range(3, 60):
            row = {"step": step, "heldout/bits_per_byte": 3.0} | labels
            file.write(json.dumps(row) + "\n")
    made = page([folder])
    assert len(made) < 300_000 and "and 700 more" in made
    assert len(embedded(made)["charts"][1]["series"]) == 8


def test_numbers_that_are_too_large(tmp_path, browser):
    """A page of one row with the FLOPs of a large model, or of numbers near the end of all numbers,
    draws what can be drawn and never hangs."""
    huge = {"train/bits_per_byte": 1e308, "optimizer/grad_norm": -1e308, "perf/mfu": 1e-320}
    for i, more in enumerate(({"train/flops": 3e22}, huge, huge | {"train/flops": 1e299})):
        folder = make_run(tmp_path / f"{i}", 1)
        row = row_of(10) | {"step": 1, "heldout/low": 1.0, "heldout/high": None} | more
        (folder / "metrics.jsonl").write_text(f"{json.dumps(row)}\n")
        size = 9_000 if i else 9
        cut = {"text": "a" * size, "ends": [True] * size, "surprisal": [1e308] * size,
               "probability": [None] * size}  # fmt: skip
        (folder / "samples.jsonl").write_text(json.dumps({"step": 1, "text": "t", "cut": cut}))
        write_report([folder], folder / "report.html")
        # A run cuts less for its page, and a browser is slow with much.
        assert len(embedded((folder / "report.html").read_text())["cuts"]) == (not i)
        browser.get(f"file://{folder / 'report.html'}")
        browser.execute_script(
            "for (const e of document.querySelectorAll('#axes input')) {"
            "  e.click();"
            "  for (const svg of document.querySelectorAll('.plot svg, pre'))"
            "    svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
            "}"
        )
        assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_it_needs_no_jax():
    code = (
        "import sys\nfrom pathlib import Path\nfrom octavo.evaluation.report import page\n"
        f"page([Path({str(OLD / 'hnet')!r})])\n"
        "assert not {'jax', 'matplotlib', 'flax', 'pyarrow'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_report_command(trained, tmp_path):
    folder = tmp_path / "run"
    folder.symlink_to(trained[0])
    done = run("view.py", str(folder), "--report", JAX_PLATFORMS="none such")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"the page is {folder / 'report.html'}\n"
    made = (folder / "report.html").read_text(encoding="utf-8")
    (folder / "report.html").unlink()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(
        values(embedded(made), "train/loss"), [row["train/loss"] for row in rows], rtol=1e-5
    )
    # Several, with a text that they are opened for.
    text, out = tmp_path / "text.txt", tmp_path / "page.html"
    text.write_text("abc abd")
    runs = (str(folder), str(OLD / "flat"))
    view.view(view.Arguments(runs, report=True, text=str(text), out=str(out)))
    data = embedded(out.read_text(encoding="utf-8"))
    assert bytes(data["cuts"][-1]["bytes"]) == b"abc abd" and len(data["cuts"][-1]["models"]) == 2
    for wrong, message in (
        ((str(tmp_path),), "it has no config.json"),
        ((str(tmp_path / "none"),), "there is no such folder"),
        ((str(folder), str(trained[0])), "is named twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            view.view(view.Arguments(wrong, report=True, out=str(out)))
    with pytest.raises(ConfigError, match="is what this command reads"):
        metrics = str(folder / "metrics.jsonl")
        view.view(view.Arguments((str(folder),), report=True, out=metrics))


def test_in_a_browser(browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    runs = [make_run(tmp_path / name, seed=seed) for seed, name in enumerate(("one<i>", "two"))]
    find = lambda css: browser.find_elements(By.CSS_SELECTOR, css)  # noqa: E731
    for folders in (runs[:1], runs):
        out = tmp_path / f"{len(folders)}.html"
        write_report(folders, out)
        for width in (390, 1400):
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 390,
            })  # fmt: skip
            browser.get(f"file://{out}")
            scroll = "return document.documentElement.scrollWidth"
            assert browser.execute_script(scroll) <= width
            charts = find(".chart")
            assert len(charts) == len(embedded(out.read_text(encoding="utf-8"))["charts"])
            for chart in charts:
                lines = chart.find_elements(By.CSS_SELECTOR, ".plot .line")
                assert lines and all(len(line.get_attribute("d")) > 20 for line in lines)
                # Within the drawing, and none over another in a row.
                boxes = [text.rect for text in chart.find_elements(By.CSS_SELECTOR, ".plot text")]
                assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
                low = [box for box in boxes if abs(box["y"] - boxes[-2]["y"]) < 1]
                low.sort(key=lambda box: box["x"])
                ends = [box["x"] + box["width"] for box in low]
                assert all(e <= b["x"] for e, b in zip(ends, low[1:], strict=False))
    # Several runs: hide one, change the axis; the page remembers both.
    before = find(".plot .line")[0].get_attribute("d")
    find('#axes input[value="train/flops"]')[0].send_keys(Keys.SPACE)
    assert find(".chart .axis")[0].text == "FLOPs"
    find("#runs button")[0].click()
    assert find("#runs button")[0].get_attribute("aria-pressed") == "false"
    assert len(find(".chart:first-child .plot .line")) == 2  # of one run: training and held-out
    browser.refresh()
    assert len(find(".chart:first-child .plot .line")) == 2
    find("#log")[0].click()
    assert find(".plot .line")[0].get_attribute("d") != before
    # The keyboard reads a curve.
    find("#log")[0].click()
    svg = find(".chart:first-child .plot svg")[0]
    svg.send_keys(Keys.ARROW_RIGHT)
    tip = find("#tip")[0].text
    row = row_of(1, 1)
    assert tip.startswith("FLOPs 1G") and f"two · training {row['train/bits_per_byte']:.5g}" in tip
    # Dragging looks closer, a button goes back.
    from selenium.webdriver import ActionChains

    wide = find(".chart:first-child .plot .line")[0].get_attribute("d")
    ActionChains(browser).move_to_element(svg).click_and_hold().move_by_offset(
        150, 0
    ).release().perform()
    assert find("#whole")[0].is_displayed()
    assert find(".chart:first-child .plot .line")[0].get_attribute("d") != wide
    find("#whole")[0].click()
    assert find(".chart:first-child .plot .line")[0].get_attribute("d") == wide
    # Samples go back in time.
    sample = find(".sample")[1]
    assert sample.find_element(By.TAG_NAME, "output").text == "step 60"
    sample.find_element(By.TAG_NAME, "input").send_keys(Keys.HOME)
    assert sample.find_element(By.TAG_NAME, "output").text == "step 10"
    assert sample.find_element(By.TAG_NAME, "pre").text.startswith("The 10 </script>")
    assert sample.find_element(By.TAG_NAME, "b").text.strip() == "The"
    # The cut text, by keyboard and in colours of surprisal.
    text = find(".units pre")[0]
    assert [s.get_attribute("textContent") for s in text.find_elements(By.TAG_NAME, "span")][
        :7
    ] == list("naïve 日")
    text.send_keys(Keys.ARROW_RIGHT)
    assert "one<i> · step 60 6e 6.00 bits p(end) 0.25" in find("#tip")[0].text
    find("#heat")[0].click()
    assert "heat" in find("#cuts")[0].get_attribute("class")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
