"""What a study is asked to compare, and its plan."""

import dataclasses
import shlex
import sys
from pathlib import Path

import pytest

from octavo import ablate
from octavo.ablation import corpora, results, shown
from octavo.ablation.place import STUDY, Place
from octavo.ablation.plan import continued, plan
from octavo.ablation.study import Arguments, asked_of
from octavo.configs.checks import ConfigError
from octavo.configs.schema import to_json
from octavo.settings import parse_config
from studies import TINY, asked, corpus_of

pytestmark = pytest.mark.xdist_group("ablate")  # what is planned and done is shared


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


def test_unequal_text_is_refused(tmp_path):
    texts = [f"document {i} of some words that are long enough. " * 30 for i in range(80)]
    whole = corpus_of(tmp_path / "a", texts)
    shorter = corpus_of(tmp_path / "b", texts, heldout=0.1)
    other = corpus_of(tmp_path / "c", [text.upper() for text in texts])
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
