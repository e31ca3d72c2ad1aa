"""Runs as models of lm-eval, by the real harness on small tasks that lie on disk."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import octavo
from helpers import ROOT, opened, words
from octavo import cli, evaluate
from octavo.configs.checks import ConfigError
from octavo.run.continuations import continuations, cut

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # nothing is asked of a network

pytestmark = pytest.mark.xdist_group("trained")

LONG = words(3, 500).decode()
"""Of more than seven rows of training."""

QUESTIONS = [
    {"asked": "the quick brown", "choices": ["fox", "dog jumps", "très", "xyz"], "right": 0},
    {"asked": "over the lazy ", "choices": ["dog", "cat", "qqqq", "è"], "right": 0},
    {"asked": "and très", "choices": ["lazy", "zzz", "fox and", "1"], "right": 2},
]
TEXTS = [LONG, "the fox très", ""]

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
def tasks(tmp_path_factory):
    """A folder of tasks, and their data beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    write = lambda name, rows: (folder / name).write_text("\n".join(map(json.dumps, rows)))  # noqa: E731
    write("questions.jsonl", QUESTIONS)
    write("texts.jsonl", [{"text": words(i, 60 + i).decode()} for i in range(5)])
    write("long.jsonl", [{"text": text} for text in TEXTS[:2]])
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


def test_first(trained, tasks):
    out = evaluate.evaluate(evaluate.Arguments(str(trained[0]), "tasks", tasks=",".join(TASKS), include_path=str(tasks)))
    print(json.dumps(out, indent=1))
    assert 0
