"""Runs as models of lm-eval, by the real harness on small tasks that lie on disk."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # nothing is asked of a network
pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

import octavo
from helpers import ROOT, words
from octavo import evaluate
from octavo.configs.checks import ConfigError
from octavo.decoding.sampling import Sampling
from octavo.evaluation import harness
from octavo.evaluation.harness import OctavoLM

pytestmark = pytest.mark.xdist_group("trained")

LONG = words(3, 500).decode()
"""Of more than seven rows of training."""

QUESTIONS = [
    {"asked": "the quick brown", "choices": ["fox", "dog jumps", "très", "xyz"], "right": 0},
    {"asked": "over the lazy ", "choices": ["dog", "cat", "qqqq", "è"], "right": 0},
    {"asked": "and très", "choices": ["lazy", "zzz", "fox and", "1"], "right": 2},
]
TEXTS = [LONG, "the fox très"]
CLOZE = [words(i, 40 + i).decode() for i in range(5)]

TASKS = {
    "small_choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{asked}}", "doc_to_target": "{{right}}",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "small_cloze": {
        "output_type": "loglikelihood", "doc_to_text": "{{text.rsplit(' ', 1)[0]}}",
        "doc_to_target": "{{' ' + text.rsplit(' ', 1)[1]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
    },
    "small_rolling": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}],
    },
    "small_generated": {
        "output_type": "generate_until", "doc_to_text": "{{asked}}",
        "doc_to_target": "{{choices[right]}}",
        "generation_kwargs": {"until": [" "], "do_sample": False, "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def it(trained):
    return octavo.open_run(trained[0])


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of tasks, and their data beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    write = lambda name, rows: (folder / name).write_text("\n".join(map(json.dumps, rows)))  # noqa: E731
    write("questions.jsonl", QUESTIONS)
    write("texts.jsonl", [{"text": text} for text in CLOZE])
    write("long.jsonl", [{"text": text} for text in TEXTS])
    files = {"small_cloze": "texts", "small_rolling": "long"}
    for name, about in TASKS.items():
        data = str(folder / f"{files.get(name, 'questions')}.jsonl")
        task = about | {
            "task": name, "dataset_path": "json", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": data}, "cache_dir": str(folder / "cache")},
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML
    lost = {
        "task": "small_lost", "dataset_path": "json", "test_split": "test", **TASKS["small_choice"],
        "dataset_kwargs": {"data_files": {"test": str(folder / "nowhere.jsonl")}},
    }  # fmt: skip
    (folder / "small_lost.yaml").write_text(json.dumps(lost))
    return folder


def asked(kind: str, *args):
    """A request, as the harness makes them."""
    return Instance(kind, {}, args, 0)


def by_hand(run, context: str, continuation: str) -> tuple[float, bool]:
    """From all that the run says of the whole, as one document."""
    kept = context.rstrip()
    ids = run.tokenizer.encode((context + continuation).encode())
    [found] = run.predictions([ids])
    part = slice(len(run.tokenizer.encode(kept.encode())), len(ids))
    return -float(found.nats[part].sum()), bool(found.correct[part].all())


def test_tasks(it, trained, tasks, tmp_path, monkeypatch):
    """Four kinds of tasks by evaluate.py: what the harness makes of our numbers. One of its own
    reads a folder of the name of its data set."""
    there = tmp_path / "EleutherAI" / "lambada_openai" / "data"
    there.mkdir(parents=True)
    (there / "test.jsonl").write_text((tasks / "texts.jsonl").read_text())
    monkeypatch.chdir(tmp_path)
    out, names = tmp_path / "out.json", [*TASKS, "lambada_openai"]
    arguments = evaluate.Arguments(
        str(trained[0]), ("tasks",), tasks=",".join(names), include_path=str(tasks), json=str(out)
    )
    evaluate.evaluate(arguments)
    found = {(row["task"], row["metric"]): row for row in json.loads(out.read_text())["tasks"]}
    assert found["small_choice", "acc"]["documents"] == 3
    right = []
    for question in QUESTIONS:
        each = [by_hand(it, question["asked"], " " + c)[0] for c in question["choices"]]
        right.append(int(np.argmax(each)) == question["right"])
    assert found["small_choice", "acc"]["value"] == pytest.approx(np.mean(right))
    pairs = [text.rsplit(" ", 1) for text in CLOZE]
    each = [by_hand(it, context, " " + word) for context, word in pairs]
    assert found["small_cloze", "acc"]["value"] == np.mean([greedy for _, greedy in each])
    perplexity = math.exp(-np.mean([log_p for log_p, _ in each]))
    assert found["small_cloze", "perplexity"]["value"] == pytest.approx(perplexity, rel=1e-5)
    assert found["small_cloze", "perplexity"]["stderr"] > 0
    lambada = found["lambada_openai", "perplexity"]
    assert lambada["value"] == found["small_cloze", "perplexity"]["value"]
    assert (lambada["version"], lambada["documents"], lambada["shots"]) == ("1.0", 5, 0)
    # Ends of documents are not paid.
    score = it.score(TEXTS)
    ends = [
        one.nats[-1] for one in it.predictions([it.tokenizer.encode(t.encode()) for t in TEXTS])
    ]
    bits = (score.nats - sum(ends)) / math.log(2) / score.bytes
    assert found["small_rolling", "bits_per_byte"]["value"] == pytest.approx(bits, rel=1e-6)
    assert found["small_generated", "exact_match"]["value"] == 0


def test_rolling_with_ends(it):
    """Then it is the score itself."""
    found = OctavoLM(it, end=True).loglikelihood_rolling([asked("", text) for text in TEXTS])
    np.testing.assert_allclose(found, -it.score(TEXTS).document_nats, rtol=1e-6)


def test_greedy(it):
    """A continuation that greedy decoding gives is told as that; another is not. It comes in a
    batch of prompts of unequal lengths as it comes alone."""
    prompts = ["the quick ", "and", LONG, "très laz", "x"]
    alone = ["".join(it.continuations(p, 20, Sampling(0))[0])[len(p) :] for p in prompts]
    model = OctavoLM(it, batch_size=4)
    how = {"until": ["\x00"], "max_gen_toks": 20}
    found = model.generate_until([asked("", prompt, how) for prompt in prompts])
    assert found == alone and all(found)
    said = model.loglikelihood(
        [asked("", p, text) for p, text in zip(prompts, alone, strict=True) if p != LONG]
        + [asked("", p, "~") for p in prompts]
    )
    assert [greedy for _, greedy in said] == [True] * 4 + [False] * 5


def test_stops(it):
    """The first of several strings ends the text, wherever pieces of it end; so does its size, and
    then without the character that it cuts."""
    [whole] = OctavoLM(it).generate_until([asked("", "the ", {"max_gen_toks": 90})])
    stops = [whole[40:44], whole[34:37], "never"]
    cut = whole[: min(whole.find(stop) for stop in stops[:2])]
    [found] = OctavoLM(it).generate_until([asked("", "the ", {"until": stops})])
    assert found == cut


def test_sampled(it):
    """Sampling is asked for by the harness's names, and by none that means nothing here."""
    how, stops, most = harness._generation(
        {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "typical_p": 0.8, "until": "x",
         "max_new_tokens": 7, "num_beams": 1}
    )  # fmt: skip
    assert how == Sampling(0.5, top_p=0.9, typical=0.8) and (stops, most) == (["x"], 7)
    assert harness._generation({"do_sample": False, "temperature": 0.5})[0] == Sampling(0)
    assert harness._generation({"temperature": 0.0})[0] == Sampling(0)
    with pytest.raises(ConfigError, match="not sampled by num_beams, repetition_penalty"):
        harness._generation({"num_beams": 4, "repetition_penalty": 1.1})
    with pytest.raises(ConfigError, match="the task's top-p lies in"):
        harness._generation({"temperature": 1, "top_p": 2})


def test_told_in_a_sentence(trained, tasks, monkeypatch):
    def told(match, **about):
        arguments = evaluate.Arguments(
            str(trained[0]), ("tasks",), **{"include_path": str(tasks)} | about
        )
        with pytest.raises(ConfigError, match=match) as caught:
            evaluate.evaluate(arguments)
        assert "\n" not in str(caught.value)

    told("tasks needs their names: --tasks")
    told("there is no task 'lambada_opena'; alike: lambada_openai", tasks="lambada_opena")
    told("there is no task '~'; lm_eval ls tasks lists them", tasks="~")
    told("--include-path nowhere is no folder", tasks="x", include_path="nowhere")
    told(r"small_lost cannot be loaded: .*nowhere\.jsonl", tasks="small_choice,small_lost")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told("lm-eval, which has others, is not here: pip install 'octavo", tasks="arc_easy")
    with pytest.raises(ConfigError, match="--num-fewshot is for tasks alone"):
        evaluate.evaluate(evaluate.Arguments(str(trained[0]), num_fewshot=0))


def test_their_command(trained, tasks, tmp_path):
    """lm_eval finds ours by the line that is installed, and computes the same; nothing of ours is
    read where it is not asked for."""
    shutil.copy(ROOT / "octavo-lm-eval.pth", tmp_path)
    code = "import site, sys; site.addsitedir(sys.argv.pop()); "
    about = dict(capture_output=True, text=True, cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", f"{code}from lm_eval.__main__ import cli_evaluate; cli_evaluate()",
         "--model", "octavo", "--model_args", f"run={trained[0]},end=True", "--batch_size", "4",
         "--tasks", "small_rolling", "--include_path", str(tasks), "--output_path", "out",
         str(tmp_path)],
        **about,
    )  # fmt: skip
    [out] = tmp_path.glob("out/**/results*.json")
    found = json.loads(out.read_text())["results"]["small_rolling"]["bits_per_byte,none"]
    wanted = octavo.open_run(trained[0]).score(TEXTS).bits_per_byte
    assert found == pytest.approx(wanted, rel=1e-6), done.stdout
    ask = "import json; print([name for name in sys.modules if name.startswith('octavo')])"
    assert (
        subprocess.run([sys.executable, "-c", code + ask, str(tmp_path)], **about).stdout == "[]\n"
    )


def test_same_as_their_own(it, trained, tasks, tmp_path):
    """The harness's own numbers of an export: contexts that end in spaces, are empty or longer than
    a row, and greedy decoding."""
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    folder = pytest.importorskip("octavo.interchange.folder")
    from lm_eval.models.huggingface import HFLM

    list(folder.export(str(trained[0]), str(tmp_path / "hf"), None, "float32"))
    about = dict(pretrained=str(tmp_path / "hf"), device="cpu", dtype="float32", batch_size=2)
    theirs = HFLM(**about, max_length=it.length)
    ours = OctavoLM(it)
    pairs = [
        ("the quick ", "fox"), ("", "the dog"), (LONG, " très"), ("and the ", " lazy"), ("é", "é"),
        *(("jumps over the lazy and", f" {word}") for word in ("dog", "fox jumps", "très")),
    ]  # fmt: skip
    requests = [asked("", *pair) for pair in pairs]
    for ours_, theirs_ in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True
    ):
        assert ours_[0] == pytest.approx(theirs_[0], abs=1e-3) and ours_[1] == theirs_[1]
    how = {"until": [" "], "max_gen_toks": 12, "do_sample": False}
    requests = [asked("", text, how) for text in ("the quick br", "over the l", "tr")]
    assert ours.generate_until(requests) == theirs.generate_until(requests)
    # Texts that one window holds. The harness puts a begin before them whatever the tokenizer does,
    # which would be the second.
    requests = [asked("", text) for text in ("the quick brown", "très lazy dog jumps")]
    theirs = HFLM(**about, add_bos_token=False, max_length=it.length)
    np.testing.assert_allclose(
        ours.loglikelihood_rolling(requests), theirs.loglikelihood_rolling(requests), atol=1e-3
    )
