"""Benchmarks end as the commands do: in one sentence, with an exit code."""

import importlib.util
import sys
from pathlib import Path

import pytest

from octavo import cli
from octavo.configs.checks import ConfigError
from octavo.data.errors import DataError

BENCHMARKS = {path.stem: path for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py")}


def loaded(name: str, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS[name].parent)
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_go_through_the_one_boundary():
    for path in BENCHMARKS.values():
        text = path.read_text(encoding="utf-8")
        if "__main__" in text:
            assert "    cli.run(main)\n" in text, path


@pytest.mark.parametrize("preset", ["magnet", "blt", "flat-100m"])
def test_a_missing_corpus(preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="corpora"):
        loaded("models", monkeypatch).contender(preset)


def test_an_unknown_preset(monkeypatch):
    with pytest.raises(ConfigError, match="no preset 'flot'; there are flat,"):
        loaded("models", monkeypatch).contender("flot")


@pytest.mark.parametrize("name", ["step_time", "loss_vs_torch", "magnet_vs_torch"])
def test_without_pytorch(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch_model", raising=False)
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(ConfigError, match="needs PyTorch") as failed:
        loaded(name, monkeypatch).main()
    assert cli._outcome(failed.value) == (str(failed.value), cli.WRONG_USE)
