"""What the page and the tables have of a study: curves, cuts, where cells come from, numbers."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from octavo.ablation import tables
from octavo.ablation.analysis import summary
from studies import ARMS, point

# What the page shows besides.


def test_curves_and_cuts(whole):
    found = summary(whole)
    curve = next(each for each in found["curves"] if each["cell"] == "hnet-b1-s1")
    sizes = {len(values) for values in (*curve["x"].values(), curve["train"], curve["units"]["0"])}
    assert len(sizes) == 1 and 30 < sizes.pop() <= 60
    assert curve["heldout"][-1] == [120, pytest.approx(point(found, "hnet", 1)["mean"], abs=0.05)]
    assert curve["x"]["bytes"] == sorted(curve["x"]["bytes"])
    lost = [each["cell"] for each in found["curves"] if not each["chosen"]]
    assert len(lost) == 6 and all("-b0-s0-x" in name for name in lost)
    assert [cut["label"] for cut in found["cuts"]] == ["en", "de", "ja"]
    for cut in found["cuts"]:
        assert [each["arm"] for each in cut["arms"]] == list(ARMS)
        assert {len(each["ends"]) for each in cut["arms"]} == {len(cut["text"].encode())}


def test_where_cells_come_from(whole):
    found = {each["name"]: each for each in summary(whole)["cells"]}
    one = found["hnet-b1-s2"]
    assert one["settings"]["train.seed"] == 2 and "optimizer.beta1" not in one["settings"]
    assert one["settings"]["model.stages.0.segmenter"] == "routing"
    assert one["learning_rate"] == pytest.approx(3e-3) and one["certificate"]["proves"]
    assert one["results"]["commit"].startswith("c0ffee")
    assert found["hnet-b0-s0-x2"]["chosen"] is False


# Tables.


def test_csv_has_every_number(whole, tmp_path):
    found = summary(whole)
    rows = list(csv.DictReader(tables.comma_separated(found).splitlines()))
    assert len(rows) == len(found["points"]) == 6
    for row, each in zip(rows, found["points"], strict=True):
        assert (row["arm"], int(row["budget"])) == (each["arm"], each["budget"])
        assert float(row["mean"]) == each["mean"]  # in full
        assert float(row["seeds.2.bits_per_byte"]) == each["seeds"][2]["bits_per_byte"]
        assert float(row["noise.drop.0.1.more"]) == each["noise"][2]["more"]
        assert float(row["by_label.ja"]) == each["by_label"]["ja"]
        if each["difference"]:
            assert float(row["difference.low"]) == each["difference"]["low"]
            assert row["difference.clear"] == str(each["difference"]["clear"])
        else:
            assert row["difference.low"] == ""


def test_parquet_has_what_a_bootstrap_takes(whole, tmp_path):
    """Another's computation, of the one file."""
    found = summary(whole)
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    tables.write(out, found, out)
    table = pyarrow.parquet.read_table(out / "results.parquet")
    rows = table.to_pylist()
    assert len(rows) == len(found["cells"]) == 24
    assert str(table.schema.field("document_nats").type).startswith("list<")
    mine = {
        arm: [r for r in rows if (r["arm"], r["budget"]) == (arm, 1) and r["chosen"]]
        for arm in ("flat", "hnet")
    }
    sizes = np.array(mine["flat"][0]["document_bytes"])
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 10_000)

    def drawn(arm: str) -> np.ndarray:
        nats = np.array([row["document_nats"] for row in mine[arm]])
        return (weights @ nats.T / (weights @ sizes)[:, None] / np.log(2)).mean(1)

    low, high = np.percentile(drawn("hnet") - drawn("flat"), [2.5, 97.5])
    against = point(found, "hnet", 1)["difference"]
    assert (against["low"], against["high"]) == pytest.approx((low, high), rel=1e-9)
    one = mine["hnet"][0]
    assert one["noise"][1]["noise"] == "drop" and one["by_label"][2]["name"] == "ja"
    assert one["settings.optimizer.learning_rate"] == pytest.approx(3e-3)
    assert one["certificate.pieces"][0]["restored"] is True
    assert one["results.heldout/bits_per_byte"] == pytest.approx(one["bits_per_byte"])


def test_markdown(whole):
    found = summary(whole)
    text = tables.markdown(found)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[1] for row in rows[2:]] == ["hnet", "spacebyte", "flat"]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    best = point(found, "hnet", 1)
    assert f"{best['mean']:.3f} ± {best['spread']:.3f}" in rows[2]
    assert f"−{-best['difference']['mean']:.3f} ± {best['difference']['margin']:.3f}" in rows[2]
    assert "Matched by useful training FLOPs" in text and found["answer"][0] in text
    found["warnings"] = [{"level": "loud", "text": "a | b"}, {"level": "note", "text": "hidden"}]
    assert "- a \\| b" in tables.markdown(found) and "hidden" not in tables.markdown(found)


def hostile(found: dict) -> dict:
    """With a name of all that LaTeX and Markdown read."""
    name = '100%_a&b#{$}~^\\<|>"`*['
    text = json.dumps(found).replace('"hnet"', json.dumps(name))
    return json.loads(text) | {"title": name, "name": name}


def test_latex_escapes_what_it_reads(whole):
    text = tables.latex(hostile(summary(whole)))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[%_&#{}$]", "", body)
    lines = bare.splitlines()
    rows = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    assert len({row.count("&") for row in rows if "&" in row}) == 1
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r'[#%_~|<>"`]', re.sub(r"\\label\{.*?\}", "", bare).replace("`", ""))
    assert body.count("\\begin{") == body.count("\\end{")
    assert "\\textasciicircum{}\\textbackslash{}\\textless{}" in body


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX")
def test_latex_compiles(whole, tmp_path):
    (tmp_path / "table.tex").write_text(tables.latex(hostile(summary(whole))))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}"
        "\\begin{document}\\input{table.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_tables_are_whole_or_not_there(study, monkeypatch):
    found = summary(study)
    tables.write(study, found, study)
    before = {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()}

    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr(tables.files, "write", fails)
    with pytest.raises(OSError):
        tables.write(study, found, study)
    assert before == {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()}
