"""Whatever a command is given, it ends as documented: in one sentence, and nothing it reads is
changed. benchmarks/fuzz.py does the same for as long as one likes."""

import fuzzing
import pytest

from octavo.training.trainer import Trainer

pytestmark = pytest.mark.xdist_group("trained")  # one worker, one finished run


@pytest.fixture(scope="module")
def folder(trained, corpus, tmp_path_factory):
    made = tmp_path_factory.mktemp("workspace")
    fuzzing.workspace(made, trained[0], corpus)
    return made


@pytest.mark.parametrize(
    ("scripts", "mutilations", "count"),
    [
        (("evaluate", "compress", "view", "rates"), (), 120),
        (("schemes",), (), 25),
        (("generate",), (), 40),
        (("export",), (), 20),
        (("prepare",), (), 40),
        (("train",), (), 60),
        ((), ("run",), 15),
        ((), ("corpus",), 30),
        ((), ("packed",), 30),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_documented_exits_only(scripts, mutilations, count, folder, monkeypatch):
    monkeypatch.setattr(Trainer, "fresh", fuzzing.accepted)
    case_of = fuzzing.cases(0, scripts, mutilations)
    failures = []
    for number in range(count):
        with fuzzing.cleaned(folder):
            case = case_of(number, folder)
            if complaint := fuzzing.complaint(case, folder):
                failures.append(f"{number}: {case}: {complaint}")
    assert not failures, "\n".join(failures)
