"""The numbers of a study against others made here in another way, and its sentences for studies of
every shape."""

import itertools
import json
import math
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from octavo.ablation.analysis import _ranks, summary
from octavo.ablation.bootstrap import Noise, Sample, difference, pooled, resampled
from octavo.ablation.results import (
    chosen_rate,
    read_cells,
    read_study,
    training_bits,
    tries_of,
)
from studies import ARMS, SHAPE, cell, edit, point, told, warned, write_study


def written(tmp_path: Path, *arms: str, **how) -> dict:
    write_study(tmp_path / "study", arms or ARMS, **(SHAPE | how))
    return told(tmp_path / "study")


# The numbers.


def by_hand(out: Path, arm: str, base: str, budget: int, arms=ARMS, seeds=3) -> dict:
    """A difference, from measured.json alone, draw by draw."""
    text = json.loads((out / "text.json").read_text())["documents"]
    sizes = [one["bytes"] for one in text]

    def nats(name: str) -> list[list[float]]:
        found = []
        for seed in range(seeds):
            rate = 1 if budget == seed == 0 else None
            folder = cell(out, name, budget, seed, rate)
            found.append(json.loads((folder / "measured.json").read_text())["documents"]["nats"])
        return found

    def bits(of: list[float]) -> float:
        return sum(of) / math.log(2) / sum(sizes)

    mine, other = nats(arm), nats(base)
    draws = np.random.default_rng(0).multinomial(
        len(sizes), [1 / len(sizes)] * len(sizes), size=10_000
    )
    found = []
    for drawn in draws[:, :]:
        total = float((drawn * sizes).sum()) * math.log(2)
        one = statistics.mean(float((drawn * each).sum()) / total for each in np.array(mine))
        two = statistics.mean(float((drawn * each).sum()) / total for each in np.array(other))
        found.append(one - two)
    low, high = np.percentile(found, [2.5, 97.5])
    variances = [statistics.variance(map(bits, nats(name))) for name in arms]
    sd = math.sqrt(statistics.mean(variances))  # as all have as many seeds
    half = stats.t.ppf(0.975, len(arms) * (seeds - 1)) * sd * math.sqrt(2 / seeds)
    mean = statistics.mean(map(bits, mine)) - statistics.mean(map(bits, other))
    return {
        "mean": mean, "low": low, "high": high, "documents": (high - low) / 2, "seeds": half,
        "margin": math.sqrt(((high - low) / 2) ** 2 + half**2),
        "spread": statistics.stdev(map(bits, mine)),
        "by_seed": [bits(a) - bits(b) for a, b in zip(mine, other, strict=True)],
    }  # fmt: skip


@pytest.mark.parametrize("budget", [0, 1])
def test_a_difference_is_what_the_files_give_by_hand(whole, budget):
    found = point(summary(whole), "hnet", budget)
    expected = by_hand(whole, "hnet", "flat", budget)
    assert found["spread"] == pytest.approx(expected.pop("spread"), rel=1e-9)
    for name, value in expected.items():
        assert found["difference"][name] == pytest.approx(value, rel=1e-6), name
    assert found["difference"]["clear"] is True
    behind = point(summary(whole), "spacebyte", budget)["behind"]  # hnet is the best
    expected = by_hand(whole, "spacebyte", "hnet", budget)
    assert behind["margin"] == pytest.approx(expected["margin"], rel=1e-6)


def test_means_and_intervals_of_a_point(whole):
    found = point(summary(whole), "spacebyte", 1)
    assert found["mean"] == pytest.approx(
        statistics.mean(each["bits_per_byte"] for each in found["seeds"])
    )
    assert found["low"] < found["mean"] < found["high"]
    assert found["difference"]["high"] - found["difference"]["low"] < found["high"] - found["low"]
    assert [each["seed"] for each in found["seeds"]] == [0, 1, 2]
    assert found["flops_useful"] == pytest.approx(5e12 * 1.01)
    assert point(summary(whole), "flat", 1)["difference"] is None


def test_what_the_seed_does_is_pooled_over_unequal_groups():
    noise = pooled([[1.0, 3.0], [5.0], [2.0, 2.0, 5.0]])
    assert noise is not None and noise.df == 3
    assert noise.sd == pytest.approx(math.sqrt((2 + 6) / 3))
    assert noise.half_width(2, 3) == pytest.approx(
        3.182446305284263 * noise.sd * math.sqrt(1 / 2 + 1 / 3)  # t of 3 degrees, of a table
    )
    assert pooled([[1.0], [2.0]]) is None


def alike(mean: float, draws: list[float]) -> Sample:
    """Two seeds that do not differ."""
    return Sample({0: mean, 1: mean}, np.array(draws))


def test_what_it_takes_to_be_told_apart():
    base, little = alike(1.0, [1.0] * 100), Noise(0.01, 10)
    wide = [0.9] * 10 + [2.0] * 90  # draws around 1.9, a tenth of them below the baseline

    def clear(one: Sample, noise: Noise | None, other: Sample = base) -> bool:
        return difference(one, other, noise)["clear"]

    assert clear(alike(2.0, [2.0] * 100), little)
    assert not clear(alike(2.0, wide), little)  # 0 lies within the interval
    assert difference(alike(2.0, wide), base, little)["margin"] < 1
    assert not clear(alike(2.0, [2.0] * 100), Noise(1.0, 2))  # the seed does more
    assert not clear(alike(2.0, [2.0] * 100), None)
    assert not clear(Sample({0: 2.0}, np.full(100, 2.0)), little)  # one seed, of one arm or other
    assert not clear(alike(2.0, [2.0] * 100), little, Sample({0: 1.0}, np.full(100, 1.0)))
    assert not clear(Sample({0: 2.0, 1: 2.0}, None), little)


def test_draws_are_the_same_for_all_cells_and_leave_out_empty_text():
    sizes = np.array([0, 0, 10])
    nats = np.array([[1.0, 1.0, 10.0], [2.0, 2.0, 20.0]])
    draws = resampled(nats, sizes)
    assert np.isfinite(draws).all() and len(draws) == pytest.approx(10_000 * 19 / 27, rel=0.03)
    np.testing.assert_allclose(draws[:, 1], 2 * draws[:, 0])


def test_intervals_hold_what_they_should():
    """Of many studies of two arms that are alike, about one in twenty tells them apart."""
    rng = np.random.default_rng(1)
    clear = 0
    for _ in range(60):
        groups = [list(rng.normal(0, 1, 3)) for _ in range(2)]
        noise = pooled(groups)
        assert noise is not None
        apart = abs(statistics.mean(groups[0]) - statistics.mean(groups[1]))
        clear += apart > noise.half_width(3, 3)
    assert clear <= 8


# The order.


def test_ranks_ties_and_flips(tmp_path):
    effects = {"spacebyte": (-0.1, -0.02), "hnet": (0.1, -0.2), "hat": (-0.1, -0.02)}
    found = written(tmp_path, "flat", "spacebyte", "hnet", "hat", effects=effects, spread=0.002)
    first, second = found["ranks"]
    assert set(first["order"][:2]) == {"spacebyte", "hat"} and first["order"][2:] == [
        "flat",
        "hnet",
    ]
    assert [sorted(group) for group in first["ties"]] == [["hat", "spacebyte"]]
    assert second["order"][0] == "hnet"
    assert point(found, "hat", 0)["tied"] == ["spacebyte"]
    flips = {(flip["a"], flip["b"]): flip for flip in found["flips"]}
    assert {pair for pair, flip in flips.items() if flip["clear"]} == {
        ("spacebyte", "hnet"), ("hat", "hnet"), ("flat", "hnet")
    }  # fmt: skip
    assert flips["flat", "hnet"]["budgets"] == [0, 1]
    assert "flat is better than hnet at 2e12 FLOPs and worse at 5e12 FLOPs" in warned(found, "flip")
    assert "At 2e12 FLOPs, these are not told apart" in warned(found, "tie")
    assert found["answer"][0].startswith(
        "hnet is best at 5e12 useful training FLOPs, the largest of 2 budgets: "
    )
    assert "(clear)" in found["answer"][0]
    assert "The lead changes with the budget" in found["answer"][1]
    assert "believe it at this budget alone" in found["answer"][2]


def test_the_runner_up_is_not_told_apart(tmp_path):
    found = written(tmp_path, effects={"hnet": -0.08, "spacebyte": -0.08})
    best, other, last = found["ranks"][1]["order"]
    assert last == "flat"
    assert f"{best} has the lowest mean but no clear lead at 5e12" in found["answer"][0]
    assert f"less than the runner-up {other} (within the noise)" in found["answer"][0]
    belief = f"believe that {best} is better than flat, but not that it is better than {other}"
    assert belief in found["answer"][2]


def test_ties_are_groups_that_may_overlap():
    tied = [{"a", "b"}, {"b", "c"}, {"c", "d"}, {"b", "d"}]
    clear = {frozenset(pair): set(pair) not in tied for pair in itertools.combinations("abcde", 2)}
    found = _ranks(0, dict.fromkeys("abcde"), clear)
    assert found["ties"] == [["a", "b"], ["b", "c", "d"]]


def test_the_baseline_wins(tmp_path):
    found = written(tmp_path, effects={"hnet": 0.1, "spacebyte": 0.05}, baseline="flat")
    assert found["answer"][0].startswith("flat (the baseline) is best at 5e12")
    assert "less than the runner-up spacebyte (clear)" in found["answer"][0]
    assert "the lead of flat over spacebyte goes from +0.0" in found["answer"][1]


def test_the_same_scores_are_a_tie(study):
    """To the last digit."""
    for budget, seed in itertools.product((0, 1), (0, 1, 2)):
        rate = 1 if budget == seed == 0 else None
        shutil.copy(
            cell(study, "hnet", budget, seed, rate) / "measured.json",
            cell(study, "spacebyte", budget, seed, rate) / "measured.json",
        )
        for arm in ("hnet", "spacebyte"):
            folder = cell(study, arm, budget, seed, rate)
            bits = json.loads((folder / "measured.json").read_text())["bits_per_byte"]
            edit(folder / "results.json", **{"heldout/bits_per_byte": bits})
        shutil.rmtree(cell(study, "spacebyte", budget, seed, rate) / "certificate")
    found = told(study)
    assert point(found, "spacebyte", 1)["tied"] == ["hnet"] and not found["flips"]
    assert "0.000 ± 0.0" in found["answer"][0] and "within the noise" in found["answer"][0]


@pytest.mark.parametrize("how", [{"by": "bytes", "budgets": (4e6, 8e6)},
                                 {"by": "steps", "budgets": (300, 600)}])  # fmt: skip
def test_other_budgets(tmp_path, how):
    found = written(tmp_path, **how)
    shown = {"bytes": "at 8 MB of text,", "steps": "at 600 steps,"}[how["by"]]
    assert shown in found["answer"][0] and not warned(found, "budget")


def test_few_of_everything(tmp_path):
    found = written(tmp_path, "flat", "hnet", budgets=(2e12,), seeds=2)
    assert "less than the baseline and runner-up flat (clear)" in found["answer"][0]
    assert "There is one budget, so" in found["answer"][1]
    assert "2 seeds only" in warned(found, "seeds", "note") and not warned(found, "seeds")


def test_one_seed_tells_nothing_apart(tmp_path):
    found = written(tmp_path, seeds=1)
    assert "one seed only" in warned(found, "seeds")
    for each in found["points"]:
        assert each["spread"] is None and len(each["tied"]) == 2
        against = each["difference"]
        if against:
            assert against["seeds"] is None and not against["clear"]
            assert against["margin"] == pytest.approx(against["documents"])
    assert "do not believe it yet, as one seed" in found["answer"][2]


def test_one_arm_and_none_done(tmp_path, study):
    found = written(tmp_path / "one", "flat")
    assert "there is no other arm to compare it with" in found["answer"][0]
    shutil.rmtree(study / "runs")
    found = told(study)
    assert found["points"] == [] and found["done"]["done"] == 0
    assert found["answer"][0] == "No arm can be said to have won: no cell is done."


def test_one_document(tmp_path):
    found = written(tmp_path, documents=1)
    assert point(found, "hnet", 1)["low"] is None
    assert point(found, "hnet", 1)["difference"]["clear"] is False
    assert "One document is scored" in warned(found, "text")


def test_text_too_small(tmp_path):
    found = written(tmp_path, effects={"hnet": 0.0, "spacebyte": -0.2}, documents=5)
    assert "5 documents" in warned(found, "text", "note")
    assert "too small" in warned(found, "text") and "hnet" in warned(found, "text")
    assert "spacebyte" not in warned(found, "text")


def test_a_ladder_of_sizes(tmp_path):
    found = written(tmp_path, "flat", "hnet", sizes={"hnet": ["500k", "1m"]}, spread=0.001)
    envelope = {(each["budget"], each["arm"]): each["size"] for each in found["envelope"]}
    assert envelope == {(0, "hnet"): "500k", (1, "hnet"): "1m"}
    assert point(found, "hnet", 1, "500k")["rank"] is None
    assert point(found, "hnet", 1, "1m")["rank"] == 1
    assert found["answer"][0].startswith("hnet (1m) is best")
    assert any("sizes was taken by the score itself" in each for each in found["cannot"])
    tries = [each for each in found["tries"] if each["arm"] == "hnet"]
    assert len(tries) == 3 and {each["size"] for each in tries} == {"500k"}


def test_existing_runs(tmp_path):
    found = written(tmp_path, existing=True)
    assert found["answer"][0].startswith("hnet has the lowest mean but no clear lead: ")
    assert "not ways of cutting text" in found["answer"][2]
    assert "not matched" in warned(found, "unequal") and found["tries"] == []


def test_what_a_study_cannot_tell(whole):
    found = "\n".join(summary(whole)["cannot"])
    for part in ("1e19", "2,000,000 times", "(en, de and ja)", "Latin and Han", "0.5, 1 and 2",
                 "useful training FLOPs", "What hnet would do", "share 40 documents"):  # fmt: skip
        assert part in found


# Learning rates.


def choice(out: Path, arm: str) -> dict | None:
    plan = read_study(out)
    names = {each["name"] for each in tries_of(plan, arm)}
    return chosen_rate([each for each in read_cells(out, plan) if each.name in names])


def test_the_chosen_rate(study):
    found = choice(study, "hnet")
    assert found is not None and (found["rate"], found["edge"]) == (1, False)
    assert found["learning_rate"] == pytest.approx(3e-3)
    folder = cell(study, "hnet", rate=1)
    assert found["cell"] == folder.name
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    late = [row["train/bits_per_byte"] for row in rows if row["step"] > 0.9 * len(rows)]
    assert len(late) == 6 and found["bits_per_byte"] == pytest.approx(statistics.mean(late))
    assert training_bits(folder / "metrics.jsonl", 61) is None  # the last step is not there
    edit(cell(study, "hnet", rate=2) / "results.json", finished=False, stopped=True, step=30)
    assert choice(study, "hnet") is None
    cost = summary(study)["tuning_cost"]
    assert cost["flops"] == pytest.approx(6 * 2e12 * 1.3 * 1.01) or cost["share"] > 0


def test_held_out_text_chooses_nothing(study):
    edit(cell(study, "hnet", rate=2) / "results.json", **{"heldout/bits_per_byte": 0.1})
    found = choice(study, "hnet")
    assert found is not None and found["rate"] == 1


def test_a_try_that_gave_up_loses(study):
    for rate in (0.5, 1):
        folder = cell(study, "hnet", rate=rate)
        edit(folder / "results.json", finished=False, stopped=True, step=30)
        (folder / "diverged.json").write_text('{"step": 30, "learning_rate": 0.003}')
    found = choice(study, "hnet")
    assert found is not None and (found["rate"], found["edge"]) == (2, True)
    assert "gave up at step 30" in str(found["tries"][0]["why"])
    seen = told(study)
    assert "highest learning rate that was tried, 2 times" in warned(seen, "edge")
    assert "hnet did not train at 0.5 and 1 times" in warned(seen, "tuning", "note")
    edit(cell(study, "hnet", rate=2) / "results.json", finished=False, stopped=True, step=30)
    (cell(study, "hnet", rate=2) / "diverged.json").write_text("{}")
    found = choice(study, "hnet")
    assert found is not None and found["rate"] is None and found["cell"] is None
    assert "hnet has no learning rate" in warned(told(study), "tuning")


def test_a_try_with_skipped_steps_loses(study):
    metrics = cell(study, "hnet", rate=1) / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows[58]["train/skipped_in_a_row"] = 1.0
    metrics.write_text("\n".join(map(json.dumps, rows)))
    found = choice(study, "hnet")
    assert found is not None and found["rate"] != 1


def test_no_rate_is_tried(tmp_path):
    found = written(tmp_path, grid=(1,))
    plan = read_study(tmp_path / "study")
    assert found["tries"] == [] == tries_of(plan, "hnet")
    assert found["done"]["done"] == found["done"]["cells"] == 18
    assert any("nothing was tuned" in each for each in found["cannot"])
    for each in plan["cells"]:  # as a grid of one rate is planned
        each["rate"] = 1.0
    edit(tmp_path / "study" / "study.json", cells=plan["cells"])
    assert summary(tmp_path / "study")["points"] == found["points"]
