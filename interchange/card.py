"""The model card of an export: what was trained on what, what it scored, how to load it."""

import contextlib
from pathlib import Path
from typing import Any

from octavo import files
from octavo.configs.schema import to_json
from octavo.interchange.exported import Exported
from octavo.run.directory import CERTIFICATE, RESULTS
from octavo.run.saved import Saved


def card(run: Saved, made: Exported, dtype: str, tokenizer: str, folder: Path | None) -> str:
    """README.md. tokenizer: what there is to say of it. folder: of the run, for its results."""
    found = _read(folder, RESULTS)
    certificate = _read(folder, f"{CERTIFICATE}/certificate.json")
    kind = made.config["architectures"][0]
    parts = [
        _HEAD.format(tags="\n- ".join(dict.fromkeys(("octavo", made.config["model_type"])))),
        f"# {found.get('preset') or 'octavo'}, step {run.step}\n",
        f"A language model trained with Octavo: {run.definition.parameters:,} parameters over "
        f"the ids of {run.tokenizer.name}, in rows of {run.length:,}. Here it is {kind}, in "
        f"{dtype}.\n",
        "## Loading it\n",
        _loading(made),
        f"{tokenizer}\n",
        *(f"{note}\n" for note in made.notes),
        "## Scores\n",
        *_scores(run, found),
        *_certified(run, certificate),
        "## Record\n",
        *_record(run, found),
        "<details><summary>All settings</summary>\n",
        f"```json\n{files.json_text(to_json(run.config), indent=1)}\n```\n",
        "</details>\n",
    ]
    return "\n".join(parts)


_HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- {tags}
# license: yours to choose
---
"""


def _read(folder: Path | None, name: str) -> dict[str, Any]:
    """What a file of the run says, as far as it can be read."""
    with contextlib.suppress(OSError, files.FileError):
        if folder is not None:
            return files.read_json(folder / name, dict[str, Any])
    return {}


def _loading(made: Exported) -> str:
    trust = ", trust_remote_code=True" if made.code else ""
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER"{trust})
tokenizer = AutoTokenizer.from_pretrained("FOLDER"{trust})
inputs = tokenizer("A text", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))
```
"""


def _scores(run: Saved, found: dict[str, Any]) -> list[str]:
    names = ("heldout/bits_per_byte", "heldout/low", "heldout/high", "heldout/bytes")
    rows = [("all", *map(found.get, names))]
    labels = found.get("heldout/by_label")
    for label, about in labels.items() if isinstance(labels, dict) else ():
        if isinstance(about, dict):
            rows.append((label, *map(about.get, ("bits_per_byte", "low", "high", "bytes"))))
    if not isinstance(rows[0][1], float):
        return ["The run's folder holds none.\n"]
    step = found.get("heldout/step", found.get("step"))
    other = "" if step == run.step else f" These are of step {step}, not of this checkpoint."
    return [
        f"Of held-out text, ends of documents included.{other}\n",
        "| text | bytes | bits per byte | 95% interval |\n|---|---|---|---|",
        *(
            f"| {name} | {_count(size)} | {_bits(bits)} | {_bits(low)} to {_bits(high)} |"
            for name, bits, low, high, size in rows
        ),
        "",
    ]


def _bits(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float | int) else "?"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _certified(run: Saved, found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    other = "" if found.get("step") == run.step else f" of step {found.get('step')}, not this one,"
    pieces = found.get("pieces")
    of = len(pieces) if isinstance(pieces, list) else "?"
    size, packed, own = map(_count, map(found.get, ("bytes", "compressed_bytes", "overhead_bytes")))
    proves = "It proves the score." if found.get("proves") else f"{found.get('why') or ''}"
    return [
        "## Certificate\n",
        f"The checkpoint{other} really compressed {size} held-out bytes, in {of} pieces, to "
        f"{packed}, of which {own} are of the format. Its score promised "
        f"{_bits(found.get('bits_per_byte_score'))} bits per byte. {proves} Sizes and checksums: "
        "certificate.json.\n",
    ]


def _record(run: Saved, found: dict[str, Any]) -> list[str]:
    data, versions, flops = (found.get(name) for name in ("data", "versions", "flops"))
    until = f"until step {found.get('step')}"
    rows = {
        "step": f"{run.step:,} of {run.config.train.steps:,}",
        "data": ", ".join(
            f"{Path(str(one.get('folder'))).name}, {_count(one.get('bytes'))} bytes, fingerprint "
            f"{one.get('fingerprint')}"
            for one in (data if isinstance(data, list) else ())
            if isinstance(one, dict)
        ),
        "text": f"{_count(found['bytes'])} bytes, {until}" if "bytes" in found else "",
        "FLOPs": f"{flops:.4g}, {until}" if isinstance(flops, float) else "",
        "seed": run.config.train.seed,
        "tokenizer": f"{run.tokenizer.name}, fingerprint {run.tokenizer.fingerprint}",
        "device": f"{found.get('devices')} x {found['device']}" if "device" in found else "",
        "commit": found.get("commit") or "",
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in (versions.items() if isinstance(versions, dict) else ())
        ),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value != ""]
    return ["| | |\n|---|---|", *lines, ""]
