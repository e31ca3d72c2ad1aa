"""The repository root is the package, beside a library of the same name as one of its folders."""

import ast
import subprocess
import sys
import tomllib

import pytest

from helpers import ROOT

_PLAIN = {"batch", "configs", "tokenizers", "files", "process"}
ROOMS = {
    # What each room may import, besides itself.
    "files": set(),
    "batch": set(),
    "process": set(),
    "arguments": {"files", "configs"},
    "configs": {"files"},
    "tokenizers": {"files"},
    "model": _PLAIN,
    "decoding": {*_PLAIN, "model"},
    "data": _PLAIN,
    "run": {*_PLAIN, "model", "decoding", "data"},
    "training": {*_PLAIN, "model", "data", "run"},
    "launch": {*_PLAIN, "model", "run", "training", "cli"},
    "evaluation": {*_PLAIN, "model", "decoding", "data", "run", "arguments"},
}
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_are_absolute_and_run_down(path):
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        assert name.split(".")[0] not in ROOMS, f"{name}: import it as octavo.{name}"
        if name.startswith("octavo.") and room in ROOMS:
            other = name.split(".")[1]
            assert other == room or other in ROOMS[room], f"{room} must not know {other}"


def test_every_folder_is_in_the_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in SOURCES} - {ROOT, ROOT / "tests", ROOT / "benchmarks"}
    expected = {"octavo"} | {f"octavo.{f.relative_to(ROOT).as_posix()}" for f in folders}
    assert {name for name in listed} == {name.replace("/", ".") for name in expected}
