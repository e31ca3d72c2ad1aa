"""A checkout runs and tests its own code, whatever other octavo is installed: the link ``octavo``
stands beside the scripts, which Python puts first on the path, and pytest is told of it."""

import subprocess
import sys

import pytest

from helpers import ROOT

OURS = [
    # Command, and where it is run. -P: as `pytest` alone, which does not look where it is started.
    pytest.param([str(ROOT / "train.py"), "--help"], None, id="a script from elsewhere"),
    pytest.param([str(ROOT / "benchmarks" / "speculative.py"), "--help"], None, id="a benchmark"),
    pytest.param(["evaluate.py", "--help"], ROOT, id="a script from the checkout"),
    pytest.param(["-m", "octavo.launch.compile", "--help"], ROOT, id="a module from the checkout"),
    pytest.param(["-P", "-m", "pytest", "-n0", "--co", "tests/test_golden.py"], ROOT, id="pytest"),
]


@pytest.mark.parametrize("command, where", OURS)
def test_a_checkout_runs_its_own_code(command, where, tmp_path, monkeypatch):
    other = tmp_path / "installed" / "octavo"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('this is another octavo')\n")
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    begun = [sys.executable, *command]
    done = subprocess.run(begun, cwd=where or tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # The other one is found where nothing of ours stands before it.
    alone = [sys.executable, "-c", "import octavo"]
    found = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True)
    assert "this is another octavo" in found.stderr
