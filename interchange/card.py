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
        _HEAD.format(type=made.config["model_type"]),
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
- octavo
- {type}
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
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
inputs = tokenizer("A text", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))
```
"""


def _scores(run: Saved, found: dict[str, Any]) -> list[str]:
    score = "heldout/bits_per_byte"
    if found.get(score) is None:
        return ["The run's folder holds none.\n"]
    rows = [("all", found[score], found.get("heldout/low"), found.get("heldout/high"))]
    labels = found.get("heldout/by_label")
    for label, value in labels.items() if isinstance(labels, dict) else ():
        rows.append((label, value, None, None))
    step = found.get("heldout/step")
    lines = [
        f"| {name} | {_number(value)} | {_between(low, high)} |" for name, value, low, high in rows
    ]
    other = "" if step == run.step else f" These are of step {step}, not of this checkpoint."
    return [
        f"Bits per byte of {found.get('heldout/bytes', 0):,} held-out bytes "
        f"({found.get('heldout/documents', 0):,} documents), ends of documents included.{other}\n",
        "| text | bits per byte | 95% interval |\n|---|---|---|",
        *lines,
        "",
    ]  # fmt: skip


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float | int) else "-"


def _between(low: Any, high: Any) -> str:
    return "-" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _certified(run: Saved, found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    other = "" if found.get("step") == run.step else f" (step {found.get('step')}, not this one)"
    proves = "It proves the score." if found.get("proves") else str(found.get("why") or "")
    return [
        "## Certificate\n",
        f"The checkpoint{other} really compressed {found.get('bytes', 0):,} held-out bytes in "
        f"{len(found.get('pieces', ()))} pieces to {found.get('compressed_bytes', 0):,}, "
        f"{found.get('overhead_bytes', 0):,} of them the files' own: "
        f"{_number(found.get('bits_per_byte_score'))} bits per byte by its score. {proves} "
        "Sizes and checksums: certificate.json.\n",
    ]


def _record(run: Saved, found: dict[str, Any]) -> list[str]:
    data = found.get("data") or []
    versions = found.get("versions") or {}
    until = f"until step {found.get('step')}"
    rows = {
        "step": f"{run.step:,} of {run.config.train.steps:,}",
        "data, by fingerprint": ", ".join(
            f"{Path(one['folder']).name} {one['fingerprint']} ({one['bytes']:,} bytes)"
            for one in data
        ),
        "text": f"{found['bytes']:,} bytes, {until}" if found.get("bytes") else "",
        "FLOPs": f"{found['flops']:.4g}, {until}" if found.get("flops") else "",
        "seed": run.config.train.seed,
        "tokenizer": f"{run.tokenizer.name} {run.tokenizer.fingerprint}",
        "device": f"{found['devices']} x {found['device']}" if found.get("device") else "",
        "commit": found.get("commit") or "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value != ""]
    return ["| | |\n|---|---|", *lines, ""]
