"""Templates for schedulers: what they would submit, with commands that ours understand. The
schedulers are stand-ins that write down how they were called, and answer as they are told."""

import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers import ROOT
from octavo import process
from octavo.ablation import showing
from octavo.ablation.place import Place
from octavo.ablation.plan import Cell, Planned
from octavo.ablation.running import Progress
from octavo.ablation.study import Arguments
from octavo.settings import parse_config

LAUNCH = ROOT / "launch"
STUDY, TRAIN = LAUNCH / "study", LAUNCH / "train"
SCRIPTS = sorted(LAUNCH.glob("*/*.sh"))
FLAGS = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Arguments)}


def stand_in(folder, name, body=""):
    """A command of that name in the folder, which notes its arguments, one a line."""
    path = folder / name
    path.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" "" >> {folder}/calls\n{body}\n')
    path.chmod(0o755)


def ran(folder, script, *arguments, code=0, **environment):
    """The calls of stand-ins that a script makes, each a list of words."""
    (folder / "calls").write_text("")
    done = subprocess.run(
        ["bash", LAUNCH / script, *arguments], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": f"{folder}:/usr/bin:/bin"} | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return [call.splitlines() for call in (folder / "calls").read_text().split("\n\n") if call]


def relative(path):
    return str(path.relative_to(LAUNCH))


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_scripts_parse(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert "\nset -euo pipefail\n" in path.read_text()


@pytest.mark.parametrize("linter", ["shellcheck", "hadolint"])
def test_linters(linter):
    if not shutil.which(linter):
        pytest.skip(f"there is no {linter}")
    files = SCRIPTS if linter == "shellcheck" else [LAUNCH / "Dockerfile"]
    done = subprocess.run([linter, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# A study.


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


@pytest.mark.parametrize("path", sorted(STUDY.iterdir()), ids=lambda path: path.name)
def test_flags_are_those_of_ablate(path):
    calls = re.findall(r"(?:octavo-ablate|ablate\.py)([ ,][^\n]*)", path.read_text())
    flags = {flag for call in calls for flag in re.findall(r"(?<=[ ,])--[a-z-]+", call)}
    # What stands behind the study is for the scheduler.
    assert flags - FLAGS <= {"--cpus-per-task", "--mem", "--time"} and "--out" in flags


def test_slurm_cells(tmp_path):
    out = "shared/my studies"
    stand_in(tmp_path, "python", f"cat <<'END'\n{commands(out)}\nEND")
    stand_in(tmp_path, "sbatch", f"echo $(($(grep -c sbatch {tmp_path}/calls) + 40))';cluster'")
    plan, tries, rest, page = ran(tmp_path, "study/slurm_cells.sh", out, "--time=2:00:00")
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
    _, *jobs = ran(tmp_path, "study/slurm_cells.sh", "out")
    found = [word.partition("=")[2] for job in jobs for word in job if word.startswith("--array")]
    assert found == arrays
    assert len(jobs) == len(arrays) + 1  # and the page


def test_slurm_workers(tmp_path):
    stand_in(tmp_path, "srun")
    study = ["flat", "flat --tokenizer bpe:4096", "--steps", "100", "--out", "o"]
    (call,) = ran(tmp_path, "study/slurm_workers.sh", *study)
    assert call == ["srun", "--ntasks=1", "python", "ablate.py", *study]


def test_xpk_study(tmp_path):
    stand_in(tmp_path, "xpk")
    study = "'flat --model.width 64' --out gs://b/s"
    calls = ran(tmp_path, "study/xpk.sh", "3", study, "--cluster=c")
    names = {word for call in calls for word in call if word.startswith("--workload=")}
    assert len(calls) == len(names) == 3
    for call in calls:
        assert "--command=octavo-ablate 'flat --model.width 64' --out gs://b/s" in call
        assert call[-1] == "--cluster=c"


def lost(given, read):
    """Where a manifest has what the models of the published API do not know, or not so."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [f"{k}.{x}" for k in given for x in lost(given[k], read.get(k))]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [f"{i}.{x}" for i in range(len(given)) for x in lost(given[i], read[i])]
    return [] if given == read else [str(given)]


def test_kubernetes():
    from kubeflow_trainer_api.models import IoK8sApiBatchV1JobSpec

    job = yaml.safe_load((STUDY / "kubernetes.yaml").read_text())
    assert lost(job["spec"], IoK8sApiBatchV1JobSpec.from_dict(job["spec"]).to_dict()) == []
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    assert [75] in [rule.get("onExitCodes", {}).get("values") for rule in _rules(spec)]
    (container,) = pod["containers"]
    assert container["command"][-2:] == ["--cell", "$(JOB_COMPLETION_INDEX)"]


def _rules(spec):
    return spec["podFailurePolicy"]["rules"]


# One run.

RUN = ["flat-1b", "--data.source", "gs://b/corpora/web", "--train.steps", "100"]


def asks_for(words):
    """What a command line of train.py, without its name, asks for."""
    config = parse_config("train.py", "", words)
    assert config.preset == "flat-1b" and config.train.distributed
    return config


def test_jobset(tmp_path):
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    jobset = yaml.safe_load((TRAIN / "jobset.yaml").read_text())
    assert lost(jobset, JobsetV1alpha2JobSet.from_dict(jobset).to_dict()) == []
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    command, *words = container["command"]
    assert command == "octavo-train"
    asks_for([f"--workdir={tmp_path}" if w.startswith("--workdir=") else w for w in words])
    # As many pods as make the slice, all or none.
    x, y = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    hosts = x * y // container["resources"]["limits"]["google.com/tpu"]
    assert spec["completions"] == spec["parallelism"] == hosts == 64 and spec["backoffLimit"] == 0


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (process.FAILED, "FailJobSet"),
        (process.WRONG_USE, "FailJobSet"),
        (127, "FailJobSet"),
        (process.STALLED, None),  # RestartJobSet, and counted
        (137, None),
        (process.PREEMPTED, "RestartJobSetAndIgnoreMaxRestarts"),
    ],
)
def test_jobset_begins_again(code, action):
    """By the rules, as the controllers of Jobs and JobSets apply them."""
    spec = yaml.safe_load((TRAIN / "jobset.yaml").read_text())["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = _rules(job)
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "In"
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if code in rule["onExitCodes"]["values"]:
        name = rule["onExitCodes"]["containerName"]
        reason = "PodFailurePolicy"
        message = (
            f"Container {name} for pod default/flat-1b-slice-0-7-x175z failed with exit code "
            f"{code} matching FailJob rule at index 0"
        )
    policy = spec["failurePolicy"]
    found = [
        rule["action"] for rule in policy["rules"]
        if reason in rule["onJobFailureReasons"]
        and any(re.search(p, message) for p in rule.get("onJobFailureMessagePatterns", [""]))
    ]  # fmt: skip
    assert (found or [None])[0] == action and policy["maxRestarts"] > 0


def test_xpk(tmp_path):
    stand_in(tmp_path, "xpk")
    (call,) = ran(tmp_path, "train/xpk.sh", "flat-1b", shlex.join(RUN), "--cluster=c")
    assert call[:3] == ["xpk", "workload", "create"] and call[-1] == "--cluster=c"
    assert "--restart-on-exit-codes=70,75" in call
    command = next(w.partition("=")[2] for w in call if w.startswith("--command="))
    first, *words = shlex.split(command)
    assert first == "octavo-train"
    assert asks_for(words).train.steps == 100


@pytest.mark.parametrize(
    ("code", "before", "requeued"),
    [(0, 0, False), (1, 0, False), (70, 0, False), (75, 0, True), (75, 50, False)],
)
def test_slurm(code, before, requeued, tmp_path):
    stand_in(tmp_path, "python", f"exit {code}")
    stand_in(tmp_path, "scontrol")
    first, *others = ran(
        tmp_path, "train/slurm.sh", *RUN, code=code,
        SLURM_JOB_ID="7", SLURM_RESTART_COUNT=str(before),
    )  # fmt: skip
    assert others == ([["scontrol", "requeue", "7"]] if requeued else [])
    # What again is to run, and what that runs.
    assert first[:5] == ["python", "-m", "octavo.launch.again", "--except", "75"]
    step = first[5:]
    assert step[0] == "srun" and step[3:5] == ["python", "train.py"]
    asks_for(step[5:])


def test_queued_resources(tmp_path):
    """Asked for, waited for, begun, watched, taken away, asked for anew, and deleted at the end."""
    answers = [
        *("", "WAITING_FOR_RESOURCES", "ACTIVE", "none", "ACTIVE", "running 0", "ACTIVE"),
        *("exited 255", "SUSPENDED", "", "ACTIVE", "exited 0"),
    ]
    (tmp_path / "answers").write_text("\n".join(answers) + "\n")
    answer = f'read -r a < {tmp_path}/answers; sed -i 1d {tmp_path}/answers; [[ $a ]] && echo "$a"'
    stand_in(
        tmp_path, "gcloud",
        f'case "$4 $*" in describe*) {answer} || exit 1 ;; ssh*inspect*--node=all*) ;; '
        f'ssh*--node=0*inspect*) {answer} ;; esac',
    )  # fmt: skip
    calls = ran(
        tmp_path, "train/queued_resources.sh", "n", "v5litepod-256", "v2-alpha-tpuv5-lite",
        "eu-docker.pkg.dev/p/o:1", shlex.join(RUN), "--spot", PAUSE="0",
    )  # fmt: skip
    assert all(call[:4] == ["gcloud", "compute", "tpus", "queued-resources"] for call in calls)
    calls = [call[4:] for call in calls]
    what = [c[0] + (c[2] if c[0] == "ssh" else "") for c in calls if c[0] != "describe"]
    begin, look = "ssh--node=all", "ssh--node=0"
    assert what == [
        "create", look, begin, look, begin, look, begin, "delete", "create", look, look, "delete",
    ]  # fmt: skip
    created = next(call for call in calls if call[0] == "create")
    assert created[2:] == [
        "--accelerator-type=v5litepod-256", "--runtime-version=v2-alpha-tpuv5-lite", "--node-id=n",
        "--spot",
    ]  # fmt: skip
    script = "\n".join(next(call for call in calls if "--node=all" in call)[5:])
    subprocess.run(["bash", "-n", "-c", script.removeprefix("--command=")], check=True)
    command = script.partition("octavo-train ")[2]
    assert asks_for(shlex.split(command)).train.steps == 100


# The image.


def test_image_has_what_is_installed():
    """Every package, and no folder beside them; the requirements of the extras, each locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    folders = {name.split(".")[1] for name in packages if "." in name}
    taken = re.findall("^!(.*)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {name for name in taken if (ROOT / name).is_dir()} == folders
    for files in project["tool"]["setuptools"]["data-files"].values():
        assert set(files) <= set(taken)

    text = (LAUNCH / "Dockerfile").read_text()
    lists = re.search(r'RUN python -c "(.*?)" \\\n', text, re.DOTALL)
    assert lists
    code = lists[1].replace("\\\n", "")
    locked = (ROOT / "requirements" / "lock-py311.txt").read_text()
    brought = {"jax[tpu]": "libtpu", "jax[cuda13]": "jax-cuda13-plugin"}
    for extras, backend in (("tpu,gs", "jax[tpu]"), ("cuda13,s3", "jax[cuda13]")):
        assert f"EXTRAS={extras}" in text
        told = subprocess.run(
            [sys.executable, "-c", code, extras], cwd=ROOT, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        needs = told.stdout.splitlines()
        assert backend in needs
        for need in (brought.get(line) or Requirement(line).name for line in needs):
            assert f"\n{canonicalize_name(need)}==" in locked, need


def test_image_runs_as_nobody_special():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1].split(":")[0].isdigit() and int(users[-1].split(":")[0]) > 0
