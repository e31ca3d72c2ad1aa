"""Studies for tests. What a small one asks for; and one as its files alone have it: numbers that
look like those of real runs, with the effects and the noise that a test asks for. No model is
trained for that: there are no checkpoints."""

import dataclasses
import hashlib
import json
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octavo.ablation import tables
from octavo.ablation.analysis import summary
from octavo.ablation.study import Arguments, Study, asked_of
from octavo.configs import presets
from octavo.configs.schema import to_json
from octavo.data.prepare import prepare
from octavo.data.sources import find_units
from octavo.files import write_json
from octavo.tokenizers.bytes import ByteTokenizer

TINY = (
    "--model.width 32 --model.layers 2 --model.heads 2 --data.length 64 --data.batch-size 8 "
    "--optimizer.warmup-steps 4"
)
TINY_FLAT = f"flat {TINY} --train.log-every 5"


def asked(*arms: str, **more) -> Study:
    given = {"steps": "20,40", "out": "x"} | more
    return asked_of(Arguments(arms=arms, **given))[0]


def corpus_of(folder, texts, heldout=0.2) -> str:
    (folder / "text").mkdir(parents=True)
    for i, text in enumerate(texts):
        (folder / "text" / f"{i:03}.txt").write_text(text)
    units = find_units([str(folder / "text")], "text", None)
    prepare(units, folder / "shards", ByteTokenizer(), heldout=heldout, processes=1)
    return str(folder / "shards")


LABELS = {
    "en": ("Latin", "The cat sat on the mat, and then it went away to think about it."),
    "de": ("Latin", "Die Katze saß auf der Matte, und dann ging sie weg, um nachzudenken."),
    "ja": ("Han", "猫は敷物の上に座って、それから考えるために出て行った。"),
}
"""Language: its script, and a text of it."""
NOISES = ("drop", "insert", "swap", "repeat", "case")
BANDS = ("all", "0", "1-9", "10-99", "100-999", "1000+")
EFFECTS = {"flat": 0.0, "spacebyte": -0.08, "hnet": -0.12, "hat": -0.03, "bpe": -0.05}
STEPS = 60
SHAPE = {"budgets": (2e12, 5e12), "documents": 40}
ARMS = ("flat", "spacebyte", "hnet")
"""Of the study that several tests read."""
HEAVY = {"flat": 1.0, "spacebyte": 0.45, "hnet": 0.6, "hat": 0.5, "bpe": 0.4}
"""FLOPs a byte, relative to the first."""


def write_study(
    out: Path,
    arms: Sequence[str] = ("flat", "spacebyte", "hnet"),
    budgets: Sequence[float | None] = (2e12, 5e12, 1.2e13),
    seeds: int = 3,
    *,
    by: str = "flops",
    counted: str = "useful",
    baseline: str | None = None,
    effects: dict[str, float | Sequence[float]] | None = None,
    spread: float = 0.004,
    documents: int = 60,
    grid: Sequence[float] = (0.5, 1, 2),
    best: dict[str, float] | None = None,
    sizes: dict[str, list[str]] | None = None,
    speed: bool = True,
    existing: bool = False,
    title: str | None = None,
) -> dict[str, Any]:
    """Write the folder of a finished study; returns what its study.json says.

    effects: bits per byte of an arm above ``flat``, at each budget or at all. spread: standard
    deviation over seeds, in bits per byte. best: the rate of the grid that trains an arm best.
    sizes: of the arms that are ladders, smallest first. existing: runs that were there: one seed,
    one budget, nothing tuned."""
    grid = () if existing else tuple(grid)
    budgets = (None,) if existing else tuple(budgets)
    effects, best, sizes = (EFFECTS | (effects or {})), best or {}, sizes or {}
    rng = np.random.default_rng(zlib.crc32(f"{arms} {budgets} {seeds}".encode()))
    text = _text(out, documents, rng)
    study: dict[str, Any] = {
        "format": 1, "name": out.name, "title": title,
        "budget": {"by": by, "counted": counted, "values": list(budgets)},
        "inference_flops": None, "seeds": 1 if existing else seeds, "baseline": baseline or arms[0],
        "tuning": {
            "grid": list(grid),
            "rule": "the lowest bits per byte of training, over the last tenth of the steps",
            "transfer": "the multiple of the preset's learning rate is kept at larger budgets",
        },
        "unequal": [], "existing": existing,
        "text": {
            "source": "corpora/tales", "documents": documents,
            "bytes": sum(one["bytes"] for one in text["documents"]),
            "fingerprint": text["fingerprint"],
        },
        "arms": [
            {
                "name": arm, "asked": arm, "preset": arm if arm in presets() else "flat",
                "sizes": sizes.get(arm, [None]), "source": "corpora/tales",
                "tokenizer": "bpe" if arm.startswith("bpe") else "bytes",
                "vocabulary": 8192 if arm.startswith("bpe") else 256,
            }
            for arm in arms
        ],
        "cells": [],
    }  # fmt: skip
    for arm in arms:
        for place, size in enumerate(sizes.get(arm, [None])):
            for budget in range(len(budgets)):
                for seed in range(study["seeds"]):
                    tries = grid if not (place or budget or seed) and len(grid) > 1 else (None,)
                    for rate in tries:
                        study["cells"].append(_planned(study, arm, size, budget, seed, rate))
    level = {  # what is hard for one is hard for all; then what an arm has of its own
        "documents": rng.normal(0, 0.25, documents),
        **{arm: rng.normal(0, 0.02, documents) for arm in arms},
    }
    for planned in study["cells"]:
        arm = planned["arm"]
        effect = effects.get(arm, 0.0)
        effect = effect if isinstance(effect, int | float) else effect[planned["budget"]]
        seed = np.random.default_rng([zlib.crc32(planned["name"].encode())])
        bits = 2.3 - 0.12 * planned["budget"] + effect + seed.normal(0, spread)
        if planned["size"] is not None:
            place = sizes[arm].index(planned["size"])
            bits += 0.05 * abs(place - planned["budget"])  # the larger, the larger the budget
        rate = 1.0 if planned["rate"] is None else planned["rate"]
        bits += 0.05 * abs(math.log2(rate / best.get(arm, 1.0)))
        own = bits + level["documents"] + level[arm] + seed.normal(0, 0.01, documents)
        _run(out, study, planned, text, own, seed, best.get(arm, 1.0))
    write_json(out / "study.json", study)
    write_json(out / "text.json", text)
    if speed:
        write_json(out / "speed.json", _speed(study))
    return study


def cell(out: Path, arm: str, budget: int = 0, seed: int = 0, rate: float | None = None) -> Path:
    """The folder of a cell."""
    study = json.loads((out / "study.json").read_text())
    wanted = {"arm": arm, "budget": budget, "seed": seed}
    for one in study["cells"]:
        if wanted.items() <= one.items() and rate in (None, one["rate"]):
            return out / "runs" / one["name"]
    raise KeyError((arm, budget, seed, rate))


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file by name; ``__`` stands between the names of nested ones."""
    whole = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split("__")
        part = whole
        for each in outer:
            part = part[each]
        part[last] = value
    write_json(path, whole)


def told(out: Path) -> dict:
    """The summary, which must be JSON, with sentences that are sentences, and tables of it."""
    found = summary(out)
    json.dumps(found, allow_nan=False)
    assert len(found["answer"]) == 3
    warnings = [each["text"] for each in found["warnings"]]
    for text in (*found["answer"], *found["cannot"], *warnings):
        assert re.fullmatch(r"[A-Za-z0-9(].*[^.,;: ]\.", text), text
        assert not re.search(r"  | [,.;:]|[,;:][,;:.]|\.\.|None|nan|\b1 (cell|seed|pair)s", text)
    tables.write(out, found, out)
    return found


def point(found: dict, arm: str, budget: int, size: str | None = None) -> dict:
    wanted = {"arm": arm, "budget": budget, "size": size}
    (one,) = [each for each in found["points"] if wanted.items() <= each.items()]
    return one


def warned(found: dict, kind: str, level: str = "loud") -> str:
    """Its sentences of a kind, in one."""
    return " ".join(
        w["text"] for w in found["warnings"] if (w["kind"], w["level"]) == (kind, level)
    )


def _text(out: Path, documents: int, rng: np.random.Generator) -> dict[str, Any]:
    labels = list(LABELS)
    found = [
        {
            "sha256": hashlib.sha256(f"{i}".encode()).hexdigest(),
            "bytes": int(rng.integers(300, 4000)), "label": labels[i % 3], "corpus": "tales",
            "script": LABELS[labels[i % 3]][0],
        }
        for i in range(documents)
    ]  # fmt: skip
    fingerprint = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    return {"fingerprint": fingerprint, "documents": found, "words": {"the": 5000, "cat": 12}}


def _planned(study, arm, size, budget, seed, rate) -> dict[str, Any]:
    value = study["budget"]["values"][budget]
    heavy = HEAVY.get(arm, 0.5) * 2e6
    by = study["budget"]["by"]
    useful = (value or 2e12) if by == "flops" else 2e12 * (1 + budget)
    steps = value if by == "steps" else STEPS * (1 + budget)
    size_in_bytes = value if by == "bytes" else int(useful / heavy)
    name = "-".join([arm, *([size] if size else []), f"b{budget}", f"s{seed}"])
    flag = "" if rate is None else f" --optimizer.learning-rate {3e-3 * rate:g}"
    return {
        "number": len(study["cells"]), "name": f"{name}-x{rate}" if rate is not None else name,
        "arm": arm, "size": size, "budget": budget, "seed": seed, "rate": rate, "steps": steps,
        "bytes": size_in_bytes, "flops_useful": useful, "flops_paid": useful * 1.3,
        "parameters": 850_000 + 1000 * len(arm),
        "command": f"python train.py {arm} --train.seed {seed} --train.steps {steps}{flag}",
    }  # fmt: skip


def _run(out, study, planned, text, own, rng, best) -> None:
    """An ordinary run, and what was measured of it. own: bits per byte of each document; best: the
    rate that the arm's other cells have."""
    folder = out / "runs" / planned["name"]
    folder.mkdir(parents=True)
    rate = (best if planned["rate"] is None else planned["rate"]) * 3e-3
    preset = next(one["preset"] for one in study["arms"] if one["name"] == planned["arm"])
    config = presets()[preset]
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    train = dataclasses.replace(config.train, steps=planned["steps"], seed=planned["seed"])
    config = dataclasses.replace(config, optimizer=optimizer, train=train, workdir=str(folder))
    write_json(folder / "config.json", to_json(config))
    sizes = np.array([one["bytes"] for one in text["documents"]])
    nats = own * math.log(2) * sizes
    bits = float(nats.sum() / math.log(2) / sizes.sum())
    steps, seconds = planned["steps"], planned["flops_paid"] / 2e10
    levels = 0 if planned["arm"] in ("flat", "bpe") else 1
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            row = {
                "step": step,
                "train/bits_per_byte": bits + 5 / step - 5 / steps + float(rng.normal(0, 0.01)),
                "train/skipped_in_a_row": 0.0, "train/bytes": planned["bytes"] * step // steps,
                "train/flops": planned["flops_paid"] * step / steps,
                "train/flops_useful": planned["flops_useful"] * step / steps,
                "perf/seconds": seconds * step / steps, "optimizer/learning_rate": rate,
                **{f"units/{i}": 0.2 + 0.1 / step for i in range(levels)},
                **{f"merged/{i}": 0.0 for i in range(levels)},
                **{f"collapsed/{i}": 0.0 for i in range(levels)},
            }  # fmt: skip
            if step % (steps // 3) == 0:
                row["heldout/bits_per_byte"] = bits + 5 / step - 5 / steps
            file.write(json.dumps(row) + "\n")
    write_json(folder / "results.json", {
        "heldout/bits_per_byte": bits, "heldout/low": bits - 0.05, "heldout/high": bits + 0.05,
        "heldout/bytes": int(sizes.sum()), "heldout/documents": len(sizes), "heldout/step": steps,
        "heldout/by_label": {}, "step": steps, "finished": True, "stopped": False,
        "bytes": planned["bytes"], "flops": planned["flops_paid"] * 1.01,
        "flops_useful": planned["flops_useful"] * 1.01, "seconds": seconds,
        "evaluation_seconds": 3.0, "bytes_per_second": planned["bytes"] / seconds,
        "train/bits_per_byte": bits, "best": {"step": steps, "bits_per_byte": bits},
        "preset": preset, "parameters": planned["parameters"], "seed": planned["seed"],
        "tokenizer": "bytes", "device": "cpu", "devices": 1, "hosts": 1,
        "data": [{"folder": "corpora/tales", "fingerprint": "a49ef8a46142736c", "bytes": 50000000}],
        "commit": "c0ffee" * 6 + "c0ff", "commit_changed": False, "revision": "0.1.0",
        "versions": {"python": "3.11.7", "jax": "0.10.2", "octavo": "0.1.0"},
        "command": planned["command"],
    })  # fmt: skip
    if planned["rate"] not in (None, best):
        return  # a lost try is not measured
    certificate = _certificate(folder, planned, bits)
    write_json(folder / "measured.json", _measured(planned, text, nats, sizes, rng, certificate))


def _measured(planned, text, nats, sizes, rng, certificate) -> dict[str, Any]:
    bits = float(nats.sum() / math.log(2) / sizes.sum())

    def group(of: str) -> dict[str, dict]:
        found = {}
        for name in dict.fromkeys(one[of] for one in text["documents"]):
            mine = [i for i, one in enumerate(text["documents"]) if one[of] == name]
            value = float(nats[mine].sum() / math.log(2) / sizes[mine].sum())
            found[name] = {
                "bits_per_byte": value, "low": value - 0.05, "high": value + 0.05,
                "bytes": int(sizes[mine].sum()), "documents": len(mine),
            }  # fmt: skip
        return found

    noise = [{"noise": "none", "rate": 0.0, "bits_per_byte": bits, "more": 0.0}]
    for i, kind in enumerate(NOISES):
        for rate in (0.02, 0.1):
            more = rate * (2 + i)
            row = {"noise": kind, "rate": rate, "bits_per_byte": bits + more, "more": more}
            noise.append(row)
    bands = [
        {
            "band": band, "words": 100 * (1 + i), "accuracy": 0.1 + 0.05 * i,
            "bits_per_byte": bits + 0.2 - 0.1 * i, "bytes": 600 * (1 + i),
        }
        for i, band in enumerate(BANDS)
    ]  # fmt: skip
    per_unit = 1.0 if planned["arm"] == "flat" else 4.5
    languages = [
        {
            "language": label, "script": script, "units_per_sentence": 60 / per_unit * (1 + i / 3),
            "premium": 1 + i / 3, "bits_per_sentence": 60 * bits, "bits_per_byte": bits,
        }
        for i, (label, (script, _)) in enumerate(LABELS.items())
    ]  # fmt: skip
    learned = planned["arm"] in ("hnet", "gumbel", "magnet", "manta", "mrt5")
    cuts = []
    for label, (_, sample) in LABELS.items():
        whole = sample.encode()
        spaces = [byte == 32 for byte in whole]
        cuts.append({
            "label": label, "text": sample,
            "ends": [True] * len(whole) if planned["arm"] == "flat" else spaces,
            "surprisal": [float(x) for x in rng.gamma(2, bits / 2, len(whole))],
            "probability": [float(x) if learned else None for x in rng.random(len(whole))],
        })  # fmt: skip
    step = planned["steps"]
    return {
        "format": 1, "step": step, "fingerprint": text["fingerprint"], "bits_per_byte": bits,
        "low": bits - 0.05, "high": bits + 0.05,
        "documents": {"nats": nats.tolist(), "bytes": sizes.tolist()},
        "by_label": group("label"), "by_script": group("script"), "noise": noise, "bands": bands,
        "next_word_accuracy": 0.2 + (2.3 - bits) / 10, "bytes_per_unit": per_unit,
        "units_by_script": {"Latin": per_unit, "Han": per_unit * 0.8}, "ids_per_byte": 1.0,
        "fairness": {"premium": 1 + 2 / 3, "languages": languages},
        "inference": {
            "flops_per_byte_useful": 6e5 * HEAVY.get(planned["arm"], 0.5),
            "flops_per_byte_paid": 8e5 * HEAVY.get(planned["arm"], 0.5),
            "parameter_bytes": 4 * planned["parameters"],
        },
        "units": {} if planned["arm"] in ("flat", "bpe") else {"0": 1 / per_unit},
        "collapsed": None, "cuts": cuts, "certificate": certificate,
        "seconds": {"score": 2.0, "noise": 9.0, "certify": 4.0},
    }  # fmt: skip


def _certificate(folder: Path, planned, bits: float) -> dict[str, Any]:
    (folder / "certificate").mkdir()
    data = np.random.default_rng(planned["number"]).bytes(int(bits * 2000 / 8) + 24)
    (folder / "certificate" / "0.oct").write_bytes(data)
    piece = {
        "label": "en", "file": "0.txt", "bytes": 2000, "sha256": "ab" * 32, "compressed": "0.oct",
        "compressed_bytes": len(data), "compressed_sha256": hashlib.sha256(data).hexdigest(),
        "bits": bits * 2000, "restored": True,
    }  # fmt: skip
    found = {
        "format": 1, "run": folder.name, "step": planned["steps"], "checkpoint": "89abcdef",
        "pieces": [piece], "bytes": 2000, "compressed_bytes": len(data), "overhead_bytes": 24,
        "bits_per_byte_score": bits, "bits_per_byte_file": 8 * (len(data) - 24) / 2000,
        "proves": True, "why": None,
        "decoder": "python compress.py --decompress RUN certificate/0.oct OUT",
        "device": "cpu", "versions": {"jax": "0.10.2"},
    }  # fmt: skip
    write_json(folder / "certificate" / "certificate.json", found)
    return found


def _speed(study) -> dict[str, Any]:
    def row(arm: str, size: str | None) -> dict[str, Any]:
        fast = 12_000 / HEAVY.get(arm, 0.5)
        return {
            "arm": arm,
            "size": size,
            "train_bytes_per_second": [fast, fast * 1.02, fast * 0.99],
            "decode_bytes_per_second": [fast / 20, fast / 19, fast / 21],
        }

    rows = [row(arm["name"], size) for arm in study["arms"] for size in arm["sizes"]]
    return {"device": "cpu", "rounds": 3, "arms": rows}
