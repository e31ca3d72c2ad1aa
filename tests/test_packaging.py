"""The repository root is the package, beside a library of the same name as one of its folders."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers import ROOT

_PLAIN = {
    "batch", "brief", "compiled", "configs", "tokenizers", "files", "process", "storage", "locks",
}  # fmt: skip
ROOMS = {
    # What each room may import, besides itself.
    "brief": set(),
    "files": set(),
    "batch": set(),
    "compiled": set(),
    "process": set(),
    "machine": {"files", "process"},
    "storage": {"files", "process", "configs"},
    "locks": {"files", "process", "configs", "storage"},
    "arguments": {"files", "configs", "storage"},
    "configs": {"files"},
    "tokenizers": {"files", "compiled"},
    "model": _PLAIN,
    "decoding": {*_PLAIN, "model"},
    "data": _PLAIN,
    "run": {*_PLAIN, "model", "decoding", "data"},
    "interchange": {*_PLAIN, "model", "decoding", "data", "run"},
    "training": {*_PLAIN, "model", "decoding", "data", "run", "interchange"},
    "launch": {
        *_PLAIN, "model", "data", "run", "training", "evaluation", "arguments", "cli", "settings",
        "presentation",
    },
    "evaluation": {*_PLAIN, "model", "decoding", "data", "run", "arguments"},
    "ablation": {
        *_PLAIN, "model", "decoding", "data", "run", "arguments", "training", "evaluation",
        "settings", "cli", "presentation",
    },
}  # fmt: skip
SOURCES = sorted(  # of these folders alone: an environment may lie beside them
    path
    for pattern in ("*.py", *(f"{folder}/**/*.py" for folder in (*ROOMS, "tests", "benchmarks")))
    for path in ROOT.glob(pattern)
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_hugging_face_tokenizers_beside_ours():
    """With the repository root first on the path, as in ``python train.py``."""
    code = (
        "import sys; sys.path.insert(0, '')\n"
        "import octavo.tokenizers.bytes as ours, tokenizers as theirs\n"
        "assert theirs.Tokenizer and 'site-packages' in theirs.__file__\n"
        "assert ours.ByteTokenizer().vocab_size == 256"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert not (ROOT / "tokenizers" / "__init__.py").exists()


OUR_TOKENIZERS = {path.stem for path in (ROOT / "tokenizers").iterdir()}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_are_absolute_and_run_down(path):
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        first, _, rest = name.partition(".")
        # By its bare name, tokenizers is Hugging Face's: what is no file of ours is theirs.
        theirs = first == "tokenizers" and not set(rest.split(".")) & OUR_TOKENIZERS
        assert first not in ROOMS or theirs, f"{name}: import it as octavo.{name}"
        if name.startswith("octavo.") and room in ROOMS:
            other = name.split(".")[1]
            assert other == room or other in ROOMS[room], f"{room} must not know {other}"


def test_every_folder_is_in_the_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in SOURCES} - {ROOT, ROOT / "tests", ROOT / "benchmarks"}
    expected = {"octavo"} | {f"octavo.{f.relative_to(ROOT).as_posix()}" for f in folders}
    assert {name for name in listed} == {name.replace("/", ".") for name in expected}


REQUIREMENTS = ROOT / "requirements"


def pins(path) -> dict[str, str]:
    """Versions by normalized name, of a lock file: pins and comments, no place to get them."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    pairs = [re.fullmatch(r"([a-z0-9-]+)==([\w.]+)", line) for line in lines]
    assert all(pairs), [line for line, pair in zip(lines, pairs, strict=True) if not pair]
    return dict(pair.groups() for pair in pairs if pair)


def asked_for() -> list[Requirement]:
    """What pyproject.toml asks for, with the extras that the lock files have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][name] for name in ("test", "lint", "tpu-compile")]
    return [Requirement(line) for line in sum(extras, project["dependencies"])]


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_locked_versions_are_in_range(path):
    locked = pins(path)
    for requirement in asked_for():
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} and {version}"


def test_the_lowest_versions_are_those_that_were_tried():
    tried = pins(REQUIREMENTS / "lowest-py311.txt")
    for requirement in asked_for():
        for bound in (s.version for s in requirement.specifier if s.operator == ">="):
            version = tried[canonicalize_name(requirement.name)]
            assert Version(version) == Version(bound), f"{requirement}, but {version} was tried"
