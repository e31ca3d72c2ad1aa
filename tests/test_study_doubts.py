"""Faults that are planted in a study: left out, flagged, or passed over."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT
from octavo.ablation import tables
from octavo.ablation.analysis import summary
from octavo.ablation.bootstrap import pooled
from octavo.configs.checks import ConfigError
from octavo.data.errors import DataError
from studies import cell, edit, point, told, warned

# What is doubted.


def test_what_no_certificate_proves_is_left_out(study):
    for seed in range(3):
        edit(
            cell(study, "hnet", 1, seed) / "measured.json", certificate__proves=False,
            certificate__why="the file has 1.2 bits per byte, and the score says 0.9.",
        )  # fmt: skip
    found = told(study)
    assert "hnet at 5e12 FLOPs" in warned(found, "certificate")
    assert "the file has 1.2 bits per byte" in warned(found, "certificate")
    assert point(found, "hnet", 1)["rank"] is None and not point(found, "hnet", 1)["certified"]
    assert not point(found, "hnet", 1)["difference"]["clear"]
    assert point(found, "hnet", 0)["rank"] == 1
    assert found["ranks"][1]["order"] == ["spacebyte", "flat"]
    assert found["answer"][0].startswith("spacebyte is best at 5e12")
    assert "but for hnet" in found["answer"][2]
    groups = [[s["bits_per_byte"] for s in point(found, arm, 1)["seeds"]]
              for arm in ("flat", "spacebyte")]  # fmt: skip
    noise = pooled(groups)  # of which the seeds of what is not proven are no part
    assert noise is not None
    against = point(found, "spacebyte", 1)["difference"]
    assert against["seeds"] == pytest.approx(noise.half_width(3, 3))


def test_a_certificate_of_another_file_or_step_proves_nothing(study):
    (cell(study, "hnet", 1, 0) / "certificate" / "0.oct").write_bytes(b"other")
    edit(cell(study, "spacebyte", 1, 0) / "measured.json", certificate__step=3)
    edit(cell(study, "flat", 1, 0) / "measured.json", certificate=None)
    found = told(study)
    assert found["ranks"][1]["order"] == []
    assert "is not the file that it was made of" in warned(found, "certificate")
    assert "is of step 3" in warned(found, "certificate")
    assert "there is no certificate" in warned(found, "certificate")
    assert found["answer"][0].startswith("hnet is best at 2e12 useful training FLOPs, the largest")
    assert "budget so far" in found["answer"][0]


def test_nothing_is_proven(study):
    for path in study.glob("runs/*/measured.json"):
        edit(path, certificate=None)
    found = told(study)
    assert "no score of flat, spacebyte and hnet is proven" in found["answer"][0]
    assert found["cuts"] and all(not place["order"] for place in found["ranks"])
    assert point(found, "hnet", 1)["difference"]["margin"] > 0


def test_missing_cells(study):
    shutil.rmtree(cell(study, "hnet", 1, 1))
    edit(cell(study, "flat", 1, 2) / "results.json", finished=False, stopped=True, step=50)
    (cell(study, "flat", 1, 1) / "measured.json").unlink()
    found = told(study)
    assert sorted(found["done"]["missing"]) == ["flat-b1-s1", "flat-b1-s2", "hnet-b1-s1"]
    assert "3 cells of 24 are missing" in warned(found, "missing")
    assert "Only one seed is there of flat at 5e12 FLOPs" in warned(found, "seeds")
    assert [each["seed"] for each in point(found, "hnet", 1)["seeds"]] == [0, 2]
    assert not point(found, "hnet", 1)["difference"]["clear"]
    assert point(found, "hnet", 1)["difference"]["by_seed"] == [
        point(found, "hnet", 1)["seeds"][0]["bits_per_byte"]
        - point(found, "flat", 1)["seeds"][0]["bits_per_byte"]
    ]
    assert "do not believe it yet, as 3 cells are not there" in found["answer"][2]


@pytest.mark.parametrize(("change", "why"), [
    ({"fingerprint": "0"}, "is of other text than the study's"),
    ({"step": 7}, "is of step 7, and the run ended at step 120"),
    ({"bits_per_byte": 1.0}, "does not add up"),
    ({"documents": {"nats": [1.0], "bytes": [4]}}, "of other sizes than the study's"),
    ({"documents": {"nats": [1.0], "bytes": []}}, "does not say what each document costs"),
    ({"documents__nats": [None] * 40}, "not finite"),
    ({"format": 2}, "has format 2"),
])  # fmt: skip
def test_scores_that_are_none(study, change, why):
    edit(cell(study, "hnet", 1, 1) / "measured.json", **change)
    found = told(study)
    (failed,) = found["done"]["failed"]
    assert failed["cell"] == "hnet-b1-s1" and why in failed["why"]
    assert why in warned(found, "failed")
    assert len(point(found, "hnet", 1)["seeds"]) == 2


def change(study: Path, arm: str, name: str, **how) -> None:
    for path in study.glob(f"runs/{arm}-*/{name}"):
        edit(path, **how)


@pytest.mark.parametrize(("name", "how", "kind", "part"), [
    ("results.json", {"flops_useful": 2.2e12}, "budget", "hnet at 2e12 FLOPs by +10%"),
    ("results.json", {"heldout/bytes": 99}, "unequal", "hnet held out another part"),
    ("results.json", {"data": [{"bytes": 40_000_000}]}, "unequal", "hnet had less text"),
    ("results.json", {"bytes": 300_000_000}, "epochs", "hnet 6.0 times"),
    ("results.json", {"commit": "dead" * 10}, "provenance", "deaddeaddead in 6 cells"),
    ("results.json", {"commit_changed": True}, "provenance", "Changes that are in no commit"),
    ("results.json", {"versions__jax": "0.9"}, "provenance", "versions of jax: 0.10.2 in 12"),
    ("results.json", {"device": "TPU v5"}, "provenance", "1 × TPU v5 in 6 cells"),
    ("results.json", {"heldout/bits_per_byte": 1.5}, "score", "had 1.5000 bits per byte when"),
    ("measured.json", {"collapsed": "all ends"}, "collapsed", "collapsed in 6 runs: all ends."),
    ("study.json", {"unequal": ["text"]}, "unequal", "not compared on equal terms"),
])  # fmt: skip
def test_warnings(study, name, how, kind, part):
    before = told(study)
    assert warned(before, kind) == ""
    if name == "study.json":
        edit(study / name, **how)
    else:
        change(study, "hnet", name, **how)
    found = told(study)
    assert part in warned(found, kind)
    new = [w for w in found["warnings"] if w["kind"] == kind and w["level"] == "loud"]
    if name != "study.json":
        assert new[0]["arms"] == ["hnet"] and new[0]["cells"] or kind == "epochs"
        assert found["answer"][2] != before["answer"][2] or kind in ("unequal", "score")


def test_text_that_is_read_twice_is_noted(study):
    change(study, "hnet", "results.json", bytes=60_000_000)
    found = told(study)
    assert "hnet 1.2 times" in warned(found, "epochs", "note") and not warned(found, "epochs")


def test_merged_ends(study):
    for path in study.glob("runs/hnet-*/metrics.jsonl"):
        path.write_text(path.read_text().replace('"merged/0": 0.0', '"merged/0": 0.001'))
    found = told(study)
    share = point(found, "hnet", 1)["merged"]
    assert share == pytest.approx(0.001 / 0.202, rel=0.02)
    assert "0.50% of those of hnet at 5e12 FLOPs" in warned(found, "merged")
    assert point(found, "flat", 1)["merged"] is None
    assert point(summary(study), "spacebyte", 1)["merged"] == 0


def test_an_arm_that_moves_more_than_the_others(study):
    path = cell(study, "hnet", 1, 1) / "measured.json"
    measured = json.loads(path.read_text())
    nats = [2 * x for x in measured["documents"]["nats"]]
    edit(path, documents__nats=nats, bits_per_byte=2 * measured["bits_per_byte"])
    assert "hnet at 5e12 FLOPs moves with the seed" in warned(told(study), "seeds")


# Files.


def test_no_study(tmp_path):
    with pytest.raises(ConfigError, match="holds no study"):
        summary(tmp_path)
    for text in ("{", "[]", '{"format": 2}', '{"format": 1}'):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(DataError, match=r"study\.json"):
            summary(tmp_path)


def test_any_files(whole, tmp_path):
    """Whatever lies there, there is a summary, and tables of it."""
    rng, strange = random.Random(0), ["", "[]", "{}", "null", "{{", "\xff", '{"step": "a"}']
    for number in range(5):
        out = Path(shutil.copytree(whole, tmp_path / f"{number}"))
        paths = sorted(path for path in out.rglob("*") if path.is_file() and path.parent != out)
        paths += [out / "speed.json", out / "text.json"]
        for path in rng.sample(paths, 8):
            match rng.randrange(3):
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(rng.choice(strange).encode("latin-1"))
                case 2:
                    path.write_bytes(path.read_bytes()[: rng.randrange(200)])
        for path in sorted(out.glob("runs/*/*.json")):
            try:
                found = json.loads(path.read_bytes())
                kept = {k: found[k] for k in ("documents", "bits_per_byte", "fingerprint", "step")
                        if k in found} if "documents" in found else {}  # fmt: skip
                path.write_text(json.dumps(spoilt(found, rng) | kept))
            except (ValueError, TypeError):
                continue
        found = summary(out)
        assert found["points"]
        tables.write(out, json.loads(json.dumps(found, allow_nan=False)), out)


def spoilt(value, rng: random.Random, top: bool = True):
    """JSON with some values that are of another type, or not there."""
    if not top and rng.random() < 0.02:
        return rng.choice([None, [], {}, "x", -1, True, [None], {"a": []}, 1e300])
    if isinstance(value, dict):
        return {k: spoilt(v, rng, False) for k, v in value.items() if rng.random() > 0.02}
    if isinstance(value, list):
        return [spoilt(each, rng, False) for each in value]
    return value


def test_needs_no_jax(whole):
    code = (
        "import sys; from pathlib import Path\n"
        "from octavo.ablation import analysis, tables\n"
        f"tables.comma_separated(analysis.summary(Path({str(whole)!r})))\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
