"""Studies: what is asked for, which cells it takes, that all arms are given the same, and that it
goes on wherever it was killed, on several machines."""

import contextlib
import dataclasses
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
from octavo import ablate, locks, process, storage
from octavo.ablation import corpora, existing, results, shown
from octavo.ablation.claims import Claims
from octavo.ablation.place import STUDY, Place
from octavo.ablation.plan import Planned, continued, plan
from octavo.ablation.running import do
from octavo.ablation.showing import write_page
from octavo.ablation.study import Arguments, Study, asked_of
from octavo.cli import RunError
from octavo.configs.checks import ConfigError
from octavo.configs.schema import to_json
from octavo.data.prepare import prepare
from octavo.data.sources import find_units
from octavo.process import Preempted
from octavo.run.directory import DIVERGED
from octavo.settings import parse_config
from octavo.tokenizers.bytes import ByteTokenizer
from studies import write_study

pytestmark = pytest.mark.xdist_group("ablate")  # what is planned and done is shared

TINY = (
    "--model.width 32 --model.layers 2 --model.heads 2 --data.length 64 --data.batch-size 8 "
    "--optimizer.warmup-steps 4"
)
TINY_FLAT = f"flat {TINY} --train.log-every 5"


def asked(*arms: str, **more) -> Study:
    given = {"steps": "20,40", "out": "x"} | more
    return asked_of(Arguments(arms=arms, **given))[0]


def test_arms_are_named_after_what_is_changed():
    study = asked(
        "flat", "flat --model.width 64", "wide=flat --model.width=192", "hnet --model.size 1m,2m",
        "flat --tokenizer bpe:4096", "flat --data.source corpora/bpe",
    )  # fmt: skip
    assert [arm.name for arm in study.arms] == [
        "flat", "flat-width64", "wide", "hnet", "flat-bpe4096", "flat-bpe",
    ]  # fmt: skip
    assert study.arms[3].sizes == ("1m", "2m")
    assert study.arms[3].words == ["hnet"]
    assert study.arms[4].tokenizer == "bpe:4096"
    assert study.arms[4].words == ["flat"]
    assert study.baseline == "flat"


@pytest.mark.parametrize(
    ("arms", "more", "said"),
    [
        ((), {}, "needs arms"),
        (("flt",), {}, "begins with 'flt', which is no preset; .* Did you mean flat?"),
        (("flat", "flat"), {}, "two arms are called flat"),
        (("flat",), {"steps": None}, "name the budgets by one of --flops"),
        (("flat",), {"flops": "1e12"}, "name the budgets by one of --flops"),
        (("flat",), {"steps": "0"}, "--steps has numbers above 0"),
        (("flat",), {"steps": "ten"}, "--steps has numbers above 0"),
        (("flat",), {"steps": "20.5"}, "--steps are whole numbers"),
        (("flat",), {"steps": "20,20"}, "each once"),
        (("flat",), {"steps": "nan"}, "numbers above 0"),
        (("flat",), {"rates": "-1"}, "--rates has numbers above 0"),
        (("flat",), {"baseline": "hnet"}, "--baseline hnet is no arm"),
        (("flat",), {"counted": "paid"}, "--counted is of --flops"),
        (("flat",), {"allow": ("tokenizer",)}, "what can be unequal is text, heldout, budget"),
        (("flat --train.steps 5",), {}, "which the study decides"),
        (("flat --workdir=x",), {}, "which the study decides"),
        (("flat --tokenizer bpe:300 --data.source x",), {}, "a corpus has its own"),
        (("flat 'x",), {}, "cannot be read"),
        (("a/b=flat",), {}, "which is no preset"),
        (("flat --model.size 1m,2m",), {"inference_flops": 1e6}, "names sizes"),
        (("flat --model.size 500k,500000",), {}, "names a size twice"),
        (("flat --model.size 500k,",), {}, "is a number of parameters"),
        (("flat --train.evaluation_bytes 5",), {}, "which the study decides"),
        (("flat --help",), {}, "is no setting"),
        (("flat",), {"common": "--train.init-from x"}, "--common has --train.init-from"),
        (("flat",), {"common": "--list"}, "is no setting"),
        (("flat",), {"common": "'"}, "--common .* cannot be read"),
        (("flat",), {"common": "--data.source x", "data": ("y",)}, "--common names a corpus"),
        (("flat",), {"baseline": ""}, "--baseline  is no arm"),
        (("flat",), {"out": ""}, "name a folder"),
    ],
)
def test_a_study_that_cannot_be(arms, more, said):
    with pytest.raises(ConfigError, match=said):
        asked(*arms, **more)


def test_a_file_says_what_a_command_line_would(tmp_path):
    file = tmp_path / "units.toml"
    file.write_text(
        'arms = ["flat", {name = "bpe", run = "flat --tokenizer bpe:300"}]\n'
        'flops = [1e12, 2e12]\nseeds = 2\nrates = [1]\nbaseline = "bpe"\ndata = "corpora/x"\n'
        "heldout-bytes = 5000\n"
    )
    study, out = asked_of(Arguments(arms=(str(file),)))
    again, _ = asked_of(Arguments(
        arms=("flat", "bpe=flat --tokenizer bpe:300"), flops="1e12,2e12", seeds=2, rates="1",
        baseline="bpe", data=("corpora/x",), heldout_bytes=5000, out="x",
    ))  # fmt: skip
    assert study == again
    assert out == str(tmp_path / "units")
    arm = asked(f"flat --config {file}").arms[0]  # and no file
    assert arm.words[0] == "flat"
    over, _ = asked_of(Arguments(arms=(str(file),), steps="30", seeds=1))
    assert (over.by, over.budgets, over.seeds) == ("steps", (30.0,), 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms = [", "is no TOML"),
        ("arm = 1", "there is no arm"),
        ("jobs = 2", "there is no jobs"),
        ("arms = [1]", "an arm is a string"),
        ('arms = [{name = "x"}]', "an arm is a string"),
        ('arms = ["flat"]\nsteps = 20\nseeds = "two"', "seeds cannot be 'two'"),
        ('arms = ["flat"]\nsteps = 20\nseeds = -3', r"seeds lies in \[1, 1000\], not -3"),
        ('arms = ["flat"]\nsteps = 20\nheldout_bytes = 0', "heldout-bytes lies in"),
        ('arms = ["flat"]\nsteps = 20\ninference_flops = nan', "must be a finite number"),
        ('arms = ["flat"]\nflops = 1e12\ncounted = "all"', "counted is one of useful, paid"),
        ('arms = ["flat"]\nsteps = 20\ndata = 5', "data cannot be 5"),
        ('arms = ["flat"]\nsteps = 20\nallow = [["text"]]', "allow cannot be"),
        ("steps = 20\nheldout-bytes = 1\nheldout_bytes = 2", "is there twice"),
        ('arms = [{name = "", run = "flat"}]\nsteps = 20', "is no name of an arm"),
    ],
)
def test_a_file_that_is_no_study(tmp_path, text, said):
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        asked_of(Arguments(arms=(str(file),)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "x", "--seeds", "5"), "--seeds is of no use without arms"),
        (("--out", "x", "--cell", "1", "--dry-run"), "--cell and --dry-run are asked for at once"),
        (("flat", "--steps", "20", "--out", "a::b"), "without ::"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(words, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ablate.py", *words])
    with pytest.raises(ConfigError, match=said):
        ablate.main()


def test_a_study_lies_in_a_folder_of_its_own(trained, corpus):
    for folder, what in ((trained[0], "a run"), (corpus, "a corpus")):
        with pytest.raises(ConfigError, match=f"is the folder of {what}"):
            Place(str(folder))


@pytest.mark.parametrize(
    ("arms", "more", "said"),
    [
        (("a=flat --model.size 200k,300k", "a-200k=flat"), {}, "give a-200k another name"),
        (("a=flat", "A=flat"), {}, "two cells are called A-20-s0"),
        (("flat",), {"steps": "1000001,1000002"}, "less than a millionth"),
        (("flat",), {"rates": "0.12345678,0.12345679"}, "less than a millionth"),
    ],
)
def test_no_two_cells_are_one_folder(corpus, arms, more, said):
    arms = tuple(f"{arm} --data.length 64 --data.batch-size 8" for arm in arms)
    given = {"steps": "20", "rates": "1", "seeds": 1, "data": (corpus,)} | more
    with pytest.raises(ConfigError, match=said):
        plan(asked(*arms, **given), Place("x"))


def test_a_file_of_settings_begins_no_arm_elsewhere(corpus, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[train]\ninit_from = "runs/x"\n')
    with pytest.raises(ConfigError, match="begins with parameters of runs/x"):
        plan(asked(f"flat --config {file}", data=(corpus,)), Place("x"))


@pytest.fixture(scope="module")
def planned(corpus, tmp_path_factory) -> tuple[Study, Place, Planned]:
    study = asked(
        f"flat=flat {TINY}", f"stride=megabyte {TINY} --model.stages.0.width 32 "
        "--model.stages.0.heads 2", steps=None, flops="4e9,12e9", seeds=2, data=(corpus,),
        heldout_bytes=3000,
    )  # fmt: skip
    place = Place(str(tmp_path_factory.mktemp("study")))
    return study, place, plan(study, place)[0]


def test_cells_are_matched_by_useful_flops(planned):
    study, _, made = planned
    assert len({cell.name for cell in made.cells}) == len(made.cells)
    assert [cell.number for cell in made.cells] == list(range(len(made.cells)))
    tries = [cell for cell in made.cells if cell.rate is not None]
    # Each arm as often; the chosen one is the cell of seed 0.
    assert len(tries) == 2 * 3 and all((c.budget, c.seed) == (0, 0) for c in tries)
    assert len(made.cells) == len(tries) + 2 * (2 * 2 - 1)
    for cell in made.cells:
        assert cell.flops_useful == pytest.approx(study.budgets[cell.budget], rel=0.03)
        assert cell.flops_paid > cell.flops_useful
    first = {cell.arm: cell for cell in reversed(made.cells)}
    assert first["flat"].steps != first["stride"].steps


def test_a_cell_is_the_run_of_its_command(planned, tmp_path):
    """What is printed makes the very config of the cell."""
    _, _, made = planned
    cell = next(cell for cell in made.cells if cell.rate == 2.0)
    words = shlex.split(cell.command)[2:]
    again = parse_config("train.py", "", [*words, "--workdir", "RUN"])
    config = made.config(cell, 2.0, "RUN")
    kept = dataclasses.replace(again.train, keep_checkpoints=config.train.keep_checkpoints)
    assert dataclasses.replace(again, train=kept) == config


def test_a_chosen_learning_rate_is_in_the_command_that_is_shown(planned):
    """That of the plan does not know it."""
    _, _, made = planned
    for rate, tried in ((None, False), (2.0, True)):
        cell = next(cell for cell in made.cells if cell.rate == rate and cell.arm == "flat")
        config = to_json(made.config(cell, 2.0, "RUN"))
        it = results.Cell(dataclasses.asdict(cell), Path("x"), Path("x"), "done", config=config)
        words = shlex.split(shown.cell_json(it, True, {})["command"])[2:]
        again = parse_config("train.py", "", [*words, "--workdir", "RUN"])
        assert again.optimizer == made.config(cell, 2.0, "RUN").optimizer, tried


def test_sizes_that_there_are_none_of(corpus):
    with pytest.raises(ConfigError, match="a does not come within 10% of .* the nearest are"):
        plan(asked(f"a=flat {TINY}", inference_flops=1.0, data=(corpus,)), Place("x"))


def test_an_extended_study_keeps_its_cells(planned):
    study, place, made = planned
    place.write(STUDY, made.to_json())
    more = dataclasses.replace(study, seeds=3, budgets=(4e9, 8e9, 12e9))
    longer = continued(plan(more, place)[0], place)
    before = {cell.name: cell for cell in made.cells}
    for cell in longer.cells[: len(made.cells)]:
        old = before[cell.name]
        assert cell.number == old.number and cell.steps == old.steps
        assert more.budgets[cell.budget] == study.budgets[old.budget]
    assert len(longer.cells) == len(made.cells) + 2 * 2 + 2 * 3
    # What is not asked for any more leaves its numbers to nobody.
    fewer = dataclasses.replace(more, arms=(study.arms[0],))
    left = continued(plan(fewer, place)[0], place)
    assert all(
        cell.number == before[cell.name].number for cell in left.cells if cell.name in before
    )
    assert len({cell.number for cell in left.cells}) == len(left.cells) < len(longer.cells)
    changed = dataclasses.replace(study.arms[0], asked=study.arms[0].asked + " --train.z-loss 1")
    other = dataclasses.replace(study, arms=(changed, study.arms[1]))
    with pytest.raises(ConfigError, match="flat has other settings: train.z_loss 0.0, asked for 1"):
        continued(plan(other, place)[0], place)
    with pytest.raises(ConfigError, match="holds another study: heldout_bytes"):
        continued(plan(dataclasses.replace(study, heldout_bytes=2000), place)[0], place)


def _corpus(folder, texts, heldout=0.2) -> str:
    (folder / "text").mkdir(parents=True)
    for i, text in enumerate(texts):
        (folder / "text" / f"{i:03}.txt").write_text(text)
    units = find_units([str(folder / "text")], "text", None)
    prepare(units, folder / "shards", ByteTokenizer(), heldout=heldout, processes=1)
    return str(folder / "shards")


def test_unequal_text_is_refused(tmp_path):
    texts = [f"document {i} of some words that are long enough. " * 30 for i in range(80)]
    whole = _corpus(tmp_path / "a", texts)
    shorter = _corpus(tmp_path / "b", texts, heldout=0.1)
    other = _corpus(tmp_path / "c", [text.upper() for text in texts])
    for source, said in ((shorter, "holds out other text"), (other, "holds out other text")):
        arms = (
            f"{name}=flat {TINY} --data.source {at}" for name, at in (("a", whole), ("b", source))
        )
        study = asked(*arms)
        with pytest.raises(ConfigError, match=said):
            plan(study, Place(str(tmp_path / "x")))
    allowed = dataclasses.replace(study, allow=("heldout",))
    with pytest.raises(ConfigError, match="is trained on other text"):
        plan(allowed, Place(str(tmp_path / "x")))
    plan(dataclasses.replace(study, allow=("heldout", "text")), Place(str(tmp_path / "x")))
    # A corpus that is there is not taken for one of other text.
    bpe = f"{tmp_path}/bpe"
    corpora.made([whole], bpe, corpora.Wanted("bpe:300", None))
    with pytest.raises(ConfigError, match="was made of other text"):
        corpora.made([other], bpe, corpora.Wanted("bpe:300", None))
    # So is the same text in another mixture.
    mixed = (
        f"a=flat {TINY} --data.source {whole}:1,{whole}:1",
        f"b=flat {TINY} --data.source {whole}:9,{whole}:1",
    )
    with pytest.raises(ConfigError, match=r"in shares of 0\.9:0\.1"):
        plan(asked(*mixed), Place(str(tmp_path / "x")))
    # The same documents in other ids are the same text.
    assert corpora.Text.of(bpe, 0) == corpora.Text.of(whole, 0)


def test_budgets_that_are_too_small(corpus):
    with pytest.raises(ConfigError, match="are 3 steps of flat; ask for"):
        plan(asked(f"flat=flat {TINY}", steps="3", data=(corpus,)), Place("x"))


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
    whole = _corpus(tmp_path / "a", [f"document {i} " * 60 for i in range(20)])
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
