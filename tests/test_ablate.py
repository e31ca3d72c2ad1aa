"""Studies: who does which cell, and runs that are there."""

import contextlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import ROOT, run
from octavo import locks, process, storage
from octavo.ablation import corpora, existing
from octavo.ablation.claims import Claims
from octavo.ablation.place import STUDY, Place
from octavo.ablation.running import do
from octavo.ablation.showing import write_page
from octavo.ablation.study import Arguments
from octavo.cli import RunError
from octavo.configs.checks import ConfigError
from octavo.process import Preempted
from octavo.run.directory import DIVERGED
from studies import TINY_FLAT, corpus_of, write_study

pytestmark = pytest.mark.xdist_group("ablate")  # what is planned and done is shared


def test_one_of_many_who_come_at_once_has_the_claim(tmp_path):
    """Each holds it for a while: who else is told that it has it would be a second."""
    gate, won = threading.Barrier(8), []

    def come():
        gate.wait()
        with contextlib.suppress(locks.InUse), Claims(str(tmp_path)).of("cell"):
            won.append(threading.get_ident())
            time.sleep(0.3)

    for _ in range(3):
        won.clear()
        threads = [threading.Thread(target=come) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
    assert not list((tmp_path / "claims").iterdir())


def test_a_cell_that_another_process_does_is_no_failure(planned, monkeypatch):
    """Who loses by a moment ends with 75: try again."""
    _, _, made = planned
    out = tempfile.mkdtemp()
    place = Place(out)
    place.write(STUDY, made.to_json())
    with Claims(out).of(made.cells[0].name):
        monkeypatch.setattr(Claims, "held", lambda self, name: None)
        with pytest.raises(Preempted, match="is being done"):
            do(place, made, 0, lambda config: pytest.fail("trained"))


def test_a_cell_whose_learning_rate_never_comes_is_a_failure(planned, tmp_path):
    _, _, made = planned
    place = Place(str(tmp_path))
    place.write(STUDY, made.to_json())
    tries = [cell for cell in made.cells if cell.tried and cell.arm == "flat"]
    waits = next(cell for cell in made.cells if not cell.tried and cell.arm == "flat")
    with pytest.raises(Preempted, match=f"which cells {tries[0].number}, "):
        do(place, made, waits.number, lambda config: pytest.fail("trained"))
    for cell in tries:
        folder = tmp_path / "runs" / cell.name
        folder.mkdir(parents=True)
        (folder / DIVERGED).touch()
    with pytest.raises(RunError, match="no learning rate that flat tried came to an end"):
        do(place, made, waits.number, lambda config: pytest.fail("trained"))


def test_two_processes_make_a_corpus_once(tmp_path, monkeypatch):
    whole = corpus_of(tmp_path / "a", [f"document {i} " * 60 for i in range(20)])
    began, real = [], subprocess.run

    def counted(*words, **more):
        began.append(words)
        return real(*words, **more)

    monkeypatch.setattr(subprocess, "run", counted)
    wanted, folder = corpora.Wanted("bpe:300", None), f"{tmp_path}/out/corpora/bpe300"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(corpora.made, [whole], folder, wanted) for _ in range(2)]
        assert [one.result() for one in both] == [folder, folder]
    assert len(began) == 1


def test_a_command_ends_with_the_one_that_started_it(tmp_path):
    """Even if that was killed."""
    child = "import sys, time; from octavo import cli; cli.run(lambda: time.sleep(100))"
    starter = (
        "import subprocess, sys; from octavo import process; "
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}], "
        "env=process.with_starter()).pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT,
    ) as one:  # fmt: skip
        number = int(one.stdout.readline())
        assert process.alive(number)
        one.kill()
    until = time.monotonic() + 30
    while process.alive(number) and "Z" not in _state(number):
        assert time.monotonic() < until
        time.sleep(0.1)


def _state(number: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def test_claims_expire(tmp_path, monkeypatch):
    claims = Claims(str(tmp_path / "a study"))
    assert claims.held("cell") is None
    with claims.of("cell"):
        assert f"process {os.getpid()}" in (claims.held("cell") or "")
        with pytest.raises(ConfigError, match="in use"):
            Claims(str(tmp_path / "a study")).of("cell").__enter__()
    assert claims.held("cell") is None
    # Of another machine, which cannot be asked whether its process lives.
    monkeypatch.setattr(locks.Lock, "BEAT_SECONDS", 0.1)
    lock = claims.of("cell")
    lock.mine.host = "elsewhere"
    assert lock._create()
    assert claims.held("cell")
    time.sleep(0.6)
    assert claims.held("cell") is None
    with claims.of("cell") as taken:
        found = taken.holder()
        assert found and found.token == taken.mine.token


def _start(*words: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "ablate.py"), *words]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
    )  # fmt: skip


def _until(found, process: subprocess.Popen) -> None:
    while not found():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def study(corpus, tmp_path_factory):
    """A study of four cells, killed in the first, which two processes then finish together; and
    what they said."""
    out = tmp_path_factory.mktemp("study") / "x"
    words = [
        f"flat={TINY_FLAT}", f"bpe={TINY_FLAT} --tokenizer bpe:300", "--steps", "20", "--seeds",
        "1", "--rates", "1,2", "--data", corpus, "--heldout-bytes", "2500", "--out", str(out),
    ]  # fmt: skip
    first = _start(*words)
    _until((out / "runs" / "flat-20-s0-x1" / "metrics.jsonl").is_file, first)
    first.kill()
    first.wait()
    both = [_start(*words), _start("--out", str(out))]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    return out, said


def test_a_killed_study_is_finished_by_two_processes(study):
    out, said = study
    planned, arms = json.loads((out / STUDY).read_text()), set()
    for cell in planned["cells"]:
        folder = out / "runs" / cell["name"]
        starts = list((folder / "tensorboard").iterdir())
        assert len(starts) == 1 + (cell["number"] == 0)
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == list(range(1, 21))
        if not (folder / "measured.json").exists():  # a try that was not chosen
            continue
        arms.add(cell["arm"])
        measured = json.loads((folder / "measured.json").read_text())
        results = json.loads((folder / "results.json").read_text())
        assert measured["certificate"]["proves"]
        assert measured["bits_per_byte"] == pytest.approx(results["heldout/bits_per_byte"])
    assert arms == {"flat", "bpe"}
    for name in ("index.html", "table.md", "table.csv", "table.tex", "results.parquet"):
        assert (out / name).stat().st_size
    assert not list((out / "claims").iterdir())
    assert "index.html" in said[0]


def test_a_cell_made_again_by_its_command_has_the_same_score(study, tmp_path):
    out, _ = study
    cell = json.loads((out / STUDY).read_text())["cells"][0]
    words = shlex.split(cell["command"])
    assert words[:2] == ["python", "train.py"]
    done = run("train.py", *words[2:], "--workdir", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    again, before = (
        json.loads((folder / "results.json").read_text())["heldout/bits_per_byte"]
        for folder in (tmp_path / "again", out / "runs" / cell["name"])
    )
    assert again == before


def test_a_finished_study_says_what_came_of_it(study):
    out, _ = study
    done = run("ablate.py", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "0 of 4 cells are to be done" in done.stdout
    assert "index.html" in done.stdout
    listed = run("ablate.py", "--out", str(out), "--print-commands")
    assert "--cell" not in listed.stdout
    (out / "runs" / "bpe-20-s0-x2" / "measured.json").unlink()
    listed = run("ablate.py", "--out", str(out), "--print-commands")
    assert [line for line in listed.stdout.splitlines() if "--cell" in line] == [
        f"python ablate.py --out {out} --cell 3"
    ]
    done = run("ablate.py", "--out", str(out), "--cell", "3")
    assert done.returncode == 0 and "measuring" in done.stdout
    beyond = run("ablate.py", "--out", str(out), "--cell", "4")
    assert beyond.returncode == 2 and "has cells 0 to 3" in beyond.stderr


def test_runs_that_are_there(study, trained, corpus, tmp_path):
    out, _ = study
    runs = [str(out / "runs" / name) for name in ("flat-20-s0-x1", "flat-20-s0-x2")]
    place, planned, text = existing.plan(
        Arguments(arms=tuple(runs), data=(corpus,), out=str(tmp_path / "mine"))
    )
    assert planned.about["existing"] and [cell.number for cell in planned.cells] == [0, 1]
    assert text["documents"] and place.out == str(tmp_path / "mine")
    longer = (runs[0], str(trained[0]))
    with pytest.raises(ConfigError, match="no fair comparison"):
        existing.plan(Arguments(arms=longer, out="x"))
    existing.plan(Arguments(arms=longer, out="x", allow=("budget,text",)))
    with pytest.raises(ConfigError, match="is for runs that are to be trained"):
        existing.plan(Arguments(arms=longer, out="x", steps="20"))
    done = run("ablate.py", *runs, "--data", corpus, "--out", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "index.html").is_file()


def _copy(run, folder, **over) -> str:
    """A run like another; over: of its results."""
    shutil.copytree(run, folder)
    told = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(told | over))
    return str(folder)


def test_runs_that_are_there_are_told_apart(trained, tmp_path):
    """By their folders: none is named twice, and none is taken for another of the same name."""
    a = _copy(trained[0], tmp_path / "x" / "run")
    b = _copy(trained[0], tmp_path / "y" / "run", seconds=1.0)
    strange = _copy(trained[0], tmp_path / "a <b>[c]")
    _, made, _ = existing.plan(Arguments(arms=(a, b, strange), out=str(tmp_path / "o")))
    names = [cell.name for cell in made.cells]
    assert len(set(names)) == 3 and not any(set(" <>[]/") & set(name) for name in names)
    with pytest.raises(ConfigError, match="is named twice"):
        existing.plan(Arguments(arms=(a, f"{tmp_path}/y/../x/run/"), out="x"))
    with pytest.raises(ConfigError, match="what can be unequal is"):
        existing.plan(Arguments(arms=(a,), out="x", allow=("all",)))
    for wrong in (None, "3", 0, math.nan):
        shutil.rmtree(tmp_path / "z", ignore_errors=True)
        with pytest.raises(ConfigError, match="has no flops_useful"):
            run = _copy(trained[0], tmp_path / "z", flops_useful=wrong)
            existing.plan(Arguments(arms=(run,), out="x"))
    # What was measured of a run is not taken for that of another, or of the same that went on.
    place, made, _ = existing.plan(Arguments(arms=(a,), out=str(tmp_path / "o")))
    existing.keep_files(place, made)
    measured = tmp_path / "o" / "runs" / "run" / "measured.json"
    measured.write_text("{}")
    existing.keep_files(place, made)
    assert measured.exists()
    place, made, _ = existing.plan(Arguments(arms=(b,), out=str(tmp_path / "o")))
    existing.keep_files(place, made)
    assert not measured.exists()


def test_runs_that_are_there_take_no_trained_study(planned, trained, tmp_path):
    place = Place(str(tmp_path))
    place.write(STUDY, planned[2].to_json())
    with pytest.raises(ConfigError, match="holds a study of runs that it trained"):
        existing.plan(Arguments(arms=(str(trained[0]),), out=str(tmp_path)))


def test_other_rows_are_another_arm(trained, tmp_path):
    """Not another seed of the same: their mean would be one of what is unequal."""
    run = tmp_path / "run"
    _copy(trained[0], run)
    config = json.loads((run / "config.json").read_text())
    config["train"]["seed"] += 1
    (run / "config.json").write_text(json.dumps(config))
    both = (str(trained[0]), str(run))
    _, made, _ = existing.plan(Arguments(arms=both, out="x"))
    assert len({cell.arm for cell in made.cells}) == 1
    config["data"]["packing"] = "best_fit"
    (run / "config.json").write_text(json.dumps(config))
    _, made, _ = existing.plan(Arguments(arms=both, out="x"))
    assert len({cell.arm for cell in made.cells}) == 2


def test_the_page_of_a_study_on_other_storage(tmp_path):
    write_study(tmp_path / "here", seeds=2, budgets=(2e12,))
    storage.put("memory://studies/x", names_in(tmp_path / "here"), tmp_path / "here")
    said = write_page(Place("memory://studies/x"))
    assert "page       memory://studies/x/index.html" in said
    there = storage.listed("memory://studies/x")
    for name in ("index.html", "table.md", "table.csv", "table.tex", "results.parquet"):
        assert there[name]


def names_in(folder) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
