"""What begins a command again, and what runs one on several hosts: with small commands in place of
a training, and a stand-in for ssh that runs here what it is given."""

import os
import signal
import subprocess
import sys
import time

import pytest

from helpers import ROOT

JOB = """
cd "$(dirname "$0")"
codes=($(cat codes)) n=$(ls -d began.* 2> /dev/null | wc -l)
touch began.$n
code=${codes[n]%%+*} saved=${codes[n]#*+}
[[ $saved == "${codes[n]}" ]] || { rm -rf run/checkpoints; mkdir -p "run/checkpoints/$saved"; }
[[ $code != kill ]] || kill -9 $$
exit "$code"
"""
"""Ends with the next code of the file; before, 75+20 saves step 20, and keeps no other."""

WAITS = """
trap 'echo got TERM; exit 75' TERM
trap 'echo got INT; touch got-int; exit 75' INT
touch waits
while :; do sleep 0.1; done
"""


def again(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "octavo.launch.again", "--pause", "0", *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "runs", "last"),
    [
        ("75 kill 0", 3, 0),
        ("75 1 0", 2, 1),
        ("2 0", 1, 2),
        ("70 70 70 70 70", 3, 70),  # twice without a new checkpoint, and no more
        ("70 75+20 kill 70 75+10 0", 5, 75),  # one that was set aside counts for nothing
        ("75+10 75+20 75+30 70+40 75+50 0", 6, 0),
    ],
)
@pytest.mark.parametrize("flag", ["--workdir={}", "--workdir file://{}"], ids=["here", "by URL"])
def test_begins_again(codes, runs, last, flag, tmp_path):
    (tmp_path / "codes").write_text(codes)
    (tmp_path / "job").write_text(JOB)
    (tmp_path / "run").mkdir()
    workdir = flag.format(tmp_path / "run").split()
    job = again("--times", "2", "bash", str(tmp_path / "job"), *workdir)
    said = job.communicate(timeout=60)[1]
    assert (job.returncode, len(list(tmp_path.glob("began.*")))) == (last, runs), said


def test_ends_at_a_code_that_is_named(tmp_path):
    job = again("--except", "75", "sh", "-c", "exit 75")
    assert job.communicate(timeout=60) == (None, "") and job.returncode == 75


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_the_end(number, tmp_path):
    """Sent to a group, as a terminal does; the command gets it once."""
    (tmp_path / "job").write_text(f"cd {tmp_path}\n{WAITS}")
    job = again("bash", str(tmp_path / "job"), process_group=0, stdout=subprocess.PIPE)
    wait_for((tmp_path / "waits").exists)
    os.killpg(job.pid, number)
    out, err = job.communicate(timeout=60)
    assert (job.returncode, out, err) == (75, f"got {number.name.removeprefix('SIG')}\n", "")


def test_a_signal_ends_the_pause(tmp_path):
    job = again("--pause", "100", "sh", "-c", "exit 70")
    assert job.stderr and "again in 100 seconds" in job.stderr.readline()
    job.terminate()
    assert job.wait(60) == 70


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    """Begins a script on two hosts, which are this machine."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text('#!/bin/bash\necho "${@: -2:1}" >> "$HOME/called"\nexec bash -c "${@: -1}"\n')
    ssh.chmod(0o755)
    (tmp_path / "hosts").write_text("# ours\none\n\nme@two  # the other\n")

    def begin(script, *arguments):
        (tmp_path / "job").write_text(script)
        return subprocess.Popen(
            [
                sys.executable, "-m", "octavo.launch.ssh", "--logs", str(tmp_path / "logs"),
                "--folder", str(tmp_path), *arguments, str(tmp_path / "hosts"),
                "bash", "job", "it's $one",
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
            env=os.environ | {"PATH": f"{ssh.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        )  # fmt: skip

    return begin


def logs(folder):
    return {path.name: path.read_text() for path in sorted((folder / "logs").iterdir())}


def test_hosts_are_told_where_they_are(hosts, tmp_path):
    say = 'echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES, $JAX_COORDINATOR_ADDRESS, $PWD, $1"\n'
    job = hosts(say + "exit $((JAX_PROCESS_ID * 75))", "--port", "99", "--coordinator", "inner")
    out, err = job.communicate(timeout=60)
    lines = [f"{i} of 2, inner:99, {tmp_path}, it's $one\n" for i in range(2)]
    assert (job.returncode, err) == (75, "host 1 (me@two): exit code 75\n")
    assert logs(tmp_path) == {"0-one.log": lines[0], "1-two.log": lines[1]}
    assert out == lines[0]
    assert set((tmp_path / "called").read_text().split()) == {"one", "me@two"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_hosts(number, hosts, tmp_path):
    """Sent to a group; ssh itself does not get it."""
    job = hosts(WAITS.replace("waits", "waits.$JAX_PROCESS_ID"))
    wait_for(lambda: len(list(tmp_path.glob("waits.*"))) == 2)
    os.killpg(job.pid, number)
    job.communicate(timeout=60)
    assert job.returncode == 75
    said = f"got {number.name.removeprefix('SIG')}\n"
    assert logs(tmp_path) == {"0-one.log": said, "1-two.log": said}


def test_hosts_that_are_left_are_ended(hosts, tmp_path):
    """Where one failed and another does not end by itself."""
    job = hosts(f"[[ $JAX_PROCESS_ID == 1 ]] && exit 2\n{WAITS}", "--grace", "0")
    assert job.wait(60) == 75
    assert logs(tmp_path)["0-one.log"] == "got TERM\n"


def test_what_an_earlier_one_left_is_ended_first(hosts, tmp_path):
    first = hosts(WAITS.replace("waits", "waits.$JAX_PROCESS_ID"))
    wait_for(lambda: len(list(tmp_path.glob("waits.*"))) == 2)
    first.kill()
    job = hosts("echo second")
    assert job.wait(60) == 0
    # What the first one said comes through a process of its own.
    both = ["got TERM", "second"]
    wait_for(lambda: all(sorted(log.split("\n")[:-1]) == both for log in logs(tmp_path).values()))


@pytest.mark.parametrize(
    ("names", "said"), [(None, "hosts: No such file or directory"), ("# none\n", "names no host")]
)
def test_no_hosts(names, said, hosts, tmp_path):
    (tmp_path / "hosts").unlink()
    if names is not None:
        (tmp_path / "hosts").write_text(names)
    job = hosts("exit 0")
    assert said in job.communicate(timeout=60)[1] and job.returncode == 2
