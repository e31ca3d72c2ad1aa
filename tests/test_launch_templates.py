"""Templates for queues of jobs: what they would submit, with commands that ablate.py understands.
The schedulers are stand-ins that write down how they were called."""

import dataclasses
import re
import subprocess

import pytest
import yaml

from helpers import ROOT
from octavo.ablation import showing
from octavo.ablation.place import Place
from octavo.ablation.plan import Cell, Planned
from octavo.ablation.running import Progress
from octavo.ablation.study import Arguments

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
TEMPLATES = [*SCRIPTS, ROOT / "launch" / "kubernetes.yaml"]
FLAGS = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Arguments)}


def stand_in(folder, name, body=""):
    """A command of that name in the folder, which notes its arguments, one a line."""
    path = folder / name
    path.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" "" >> {folder}/calls\n{body}\n')
    path.chmod(0o755)


def ran(folder, script, *arguments):
    """The calls of stand-ins that a script makes, each a list of words."""
    (folder / "calls").write_text("")
    done = subprocess.run(
        ["bash", ROOT / "launch" / script, *arguments], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [call.splitlines() for call in (folder / "calls").read_text().split("\n\n") if call]


def cell(number, rate):
    tried = rate is not None
    return Cell(number, f"flat-{number}", "flat", None, 0, 0, rate, 9, 9.0, 9.0, 9.0, 9, "", tried)


def commands(out, done=()):
    """What ``--print-commands`` says of a study of two tries and two other cells."""
    cells = tuple(cell(number, rate) for number, rate in enumerate((0.5, 1, None, None)))
    place, planned = Place(out), Planned({}, cells, {})
    found = Progress(done={c.name for c in cells if c.number in done})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(showing, "progress", lambda place, planned: found)
        return "\n".join(("study      a plan --cell 99", *showing.commands(planned, place)))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert "\nset -euo pipefail\n" in path.read_text()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_flags_are_those_of_ablate(path):
    calls = re.findall(r"(?:octavo-ablate|ablate\.py)([ ,][^\n]*)", path.read_text())
    flags = {flag for call in calls for flag in re.findall(r"(?<=[ ,])--[a-z-]+", call)}
    # What stands behind the study is for the scheduler.
    assert flags - FLAGS <= {"--cpus-per-task", "--mem", "--time"} and "--out" in flags


def test_slurm_cells(tmp_path):
    out = "shared/my studies"
    stand_in(tmp_path, "python", f"cat <<'END'\n{commands(out)}\nEND")
    stand_in(tmp_path, "sbatch", f"echo $(($(grep -c sbatch {tmp_path}/calls) + 40))';cluster'")
    plan, tries, rest, page = ran(tmp_path, "slurm_cells.sh", out, "--time=2:00:00")
    assert plan == ["python", "ablate.py", "--out", out, "--print-commands"]
    for call, array, after in ((tries, "0,1", None), (rest, "2,3", 41), (page, None, 42)):
        assert [w for w in call if w.startswith("--array")] == [f"--array={array}"] * bool(array)
        waits = [word for word in call if word.startswith("--dependency")]
        assert waits == [f"--dependency=afterany:{after}"] * bool(after)
        assert "--time=2:00:00" in call
        wrapped = next(word for word in call if word.startswith("--wrap"))
        assert wrapped.startswith(f"--wrap=srun --ntasks=1 python ablate.py --out '{out}'")
        assert wrapped.endswith(" --cell $SLURM_ARRAY_TASK_ID") == bool(array)


@pytest.mark.parametrize(("done", "arrays"), [((0, 1, 2), ["3"]), (range(4), [])])
def test_slurm_cells_that_are_left(done, arrays, tmp_path):
    stand_in(tmp_path, "python", f"cat <<'END'\n{commands('out', done)}\nEND")
    stand_in(tmp_path, "sbatch", "echo 7")
    _, *jobs = ran(tmp_path, "slurm_cells.sh", "out")
    found = [word.partition("=")[2] for job in jobs for word in job if word.startswith("--array")]
    assert found == arrays
    assert len(jobs) == len(arrays) + 1  # and the page


def test_slurm_workers(tmp_path):
    stand_in(tmp_path, "srun")
    study = ["flat", "flat --tokenizer bpe:4096", "--steps", "100", "--out", "o"]
    (call,) = ran(tmp_path, "slurm_workers.sh", *study)
    assert call == ["srun", "--ntasks=1", "python", "ablate.py", *study]


def test_xpk(tmp_path):
    stand_in(tmp_path, "xpk")
    calls = ran(tmp_path, "xpk.sh", "3", "'flat --model.width 64' --out gs://b/s", "--cluster=c")
    names = {word for call in calls for word in call if word.startswith("--workload=")}
    assert len(calls) == len(names) == 3
    for call in calls:
        assert "--command=octavo-ablate 'flat --model.width 64' --out gs://b/s" in call
        assert call[-1] == "--cluster=c"


def test_kubernetes():
    job = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    assert [75] in [rule.get("onExitCodes", {}).get("values") for rule in _rules(spec)]
    (container,) = pod["containers"]
    assert container["command"][-2:] == ["--cell", "$(JOB_COMPLETION_INDEX)"]


def _rules(spec):
    return spec["podFailurePolicy"]["rules"]
