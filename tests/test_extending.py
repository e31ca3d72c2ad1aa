"""The pages of docs/extending: their files, copied into a checkout, and their commands."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from helpers import ROOT

PAGES = {page.stem: page.read_text() for page in (ROOT / "docs" / "extending").glob("*.md")}
TINY = (
    "--model.width 32 --model.heads 2 --data.length 64 --data.batch-size 8 --data.source stdlib "
    "--train.steps 3 --train.evaluation-bytes 2000 --train.sample-bytes 20"
).split()


def files_of(page: str) -> dict[str, str]:
    return dict(re.findall(r"`([\w/]+\.py)`[^`]*```python\n(.*?)```", PAGES[page], re.DOTALL))


MIXER = files_of("layer")["model/mixers/moving_average.py"]
OPTIMIZER = files_of("optimizer")["training/optimizers/factored.py"]
MEASURE = files_of("measure")["evaluation/measures/beginnings.py"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with the files of every page but the tokenizer's, which has a test of
    its own."""
    home = tmp_path_factory.mktemp("checkout") / "octavo"
    ignore = shutil.ignore_patterns(".git", "octavo", "runs", "corpora", "__pycache__", ".*cache")
    shutil.copytree(ROOT, home, ignore=ignore)
    (home / "octavo").symlink_to(".")
    for page in ("segmenter", "layer", "measure", "optimizer"):
        for name, code in files_of(page).items():
            assert not (home / name).exists(), f"{name} is there already"
            (home / name).write_text(code)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=home, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done

    return home, run


def test_few_files():
    """What an addition takes."""
    assert len(files_of("segmenter")) == 3  # two segmenters, and a preset of each in one file
    assert len(files_of("layer")) == 2
    assert len(files_of("measure")) == len(files_of("optimizer")) == 1


def test_contracts(checkout):
    """Those that a new part breaks first."""
    _, run = checkout
    chosen = "causality_when or stepwise or sharded_equals"
    done = run(
        "-m", "pytest", "-n", "0", "tests/test_contracts.py",
        "-k", f"(linear-score or averages) and ({chosen})",
    )  # fmt: skip
    assert "\n6 passed" in done.stdout


def test_train_and_measure(checkout):
    home, run = checkout
    run(
        "train.py", "clauses", "--workdir", "run", "--optimizer.name", "factored", *TINY,
        "--model.layers", "1", "--model.mixers", "moving_average",
    )  # fmt: skip
    done = run("evaluate.py", "run", "beginnings", "--most-bytes", "3000")
    assert "beginning" in done.stdout and "rest" in done.stdout
    helped = run("train.py", "clauses", "--help", "model").stdout
    for text in ("clauses:", "a linear score of each position's state", "moving_average:"):
        assert text in re.sub(r"[\s│]+", " ", helped)


@pytest.mark.parametrize(
    "text, said",
    [
        ("LAYERS = {}\nLAYERS['none']\n", "KeyError: 'none'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("presets = lambda: {'wrong': 5}\n", "gives configs by name, not 5 as 'wrong'"),
        (
            "from octavo.configs.flat import presets as flat\n"
            "presets = lambda: {3: flat()['flat']}\n",
            "gives configs by name, not Config",
        ),
        (
            "from octavo.configs.flat import presets as flat\n"
            "presets = lambda: {'flat': flat()['flat-1b']}\n",
            "there is a preset 'flat' already",
        ),
    ],
    ids=["raises", "exits", "no config", "no name", "another's name"],
)
def test_a_file_of_presets_that_is_wrong_breaks_itself(checkout, text, said):
    home, _ = checkout
    (home / "configs" / "wrong.py").write_text(text)
    try:
        command = [sys.executable, "train.py", "--list"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    finally:
        (home / "configs" / "wrong.py").unlink()
    assert done.returncode == 0 and "\naverages " in done.stdout
    assert re.search(r"\nflat +0.853 M ", done.stdout)  # as it was
    assert "configs/wrong.py cannot be used, nor its presets: " in done.stderr
    assert said in done.stderr


HALF = {
    "model/mixers/half.py": {
        "def": "cannot be used: SyntaxError",
        "import no_such_library": "cannot be used: ModuleNotFoundError: No module named",
        "x = 3": "has one class that is a Mixer, not 0.",
        MIXER: None,
        MIXER + MIXER.replace("MovingAverage", "Another"): "has one class that is a Mixer, not 2.",
        MIXER.replace("def settle", "def settles"): "lacks settle.",
        MIXER.replace("def flops", "def flop"): "lacks flops.",
    },
    "training/optimizers/half.py": {
        "def": "cannot be used: SyntaxError",
        "x = 3": "lacks transforms.",
        OPTIMIZER: None,
        OPTIMIZER.replace('"matrix"', '"matrices"'): "not matrices, matrix, vector.",
        OPTIMIZER.replace("adamw.transforms(config, rate) |", ""): "not matrix.",
    },
    "evaluation/measures/half.py": {
        "def": "cannot be used: SyntaxError",
        "x = 3": "lacks measure.",
        MEASURE: None,
    },
}
"""Files and what is said of them."""
USE = """
import json, sys
from pathlib import Path
from octavo.configs import kinds
from octavo.configs.checks import ConfigError
from octavo.configs.schema import OptimizerConfig
from octavo.evaluation import measures
from octavo.model.mixers import mixer
from octavo.training.optimizer import make_optimizer

uses = {
    "model": lambda: mixer("half"),
    "training": lambda: make_optimizer(OptimizerConfig(name="half"), 9, {}),
    "evaluation": lambda: (measures.sentences(), measures.load("half")),
}
found = []
for file, codes in json.loads(sys.argv[1]).items():
    for code in codes:
        Path(file).write_text(code)
        kinds.kinds.cache_clear()
        for name in [name for name in sys.modules if name.endswith(".half")]:
            del sys.modules[name]
        try:
            uses[file.split("/")[0]]()
            found.append(None)
        except ConfigError as error:
            found.append(str(error))
    Path(file).unlink()
print(json.dumps(found))
"""


def test_a_file_that_is_not_finished_says_what_it_lacks(checkout):
    _, run = checkout
    codes = {file: list(said) for file, said in HALF.items()}
    found = json.loads(run("-B", "-c", USE, json.dumps(codes)).stdout.splitlines()[-1])
    expected = [(file, said) for file, codes in HALF.items() for said in codes.values()]
    assert len(found) == len(expected)
    for sentence, (file, said) in zip(found, expected, strict=True):
        if said is None:
            assert sentence is None
        else:
            assert sentence and file in sentence and said in sentence


def test_a_measure_that_is_wrong_breaks_itself(checkout):
    home, run = checkout
    (home / "evaluation" / "measures" / "wrong.py").write_text("def")
    try:
        assert "wrong: cannot be used: SyntaxError" in run("evaluate.py", "--help").stdout
    finally:
        (home / "evaluation" / "measures" / "wrong.py").unlink()
