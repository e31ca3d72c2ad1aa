"""What lies in a run's directory, by name."""

from pathlib import Path

from octavo.configs.schema import Config, from_json
from octavo.files import read_json
from octavo.run.errors import CheckpointError

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
METRICS, SAMPLES, GOODPUT = "metrics.jsonl", "samples.jsonl", "goodput.jsonl"
RESULTS, REPORT, SAMPLE = "results.json", "report.html", "sample.txt"
LOCK = "lock"
PROFILE = "profile"
"""Folder of what train.profile traced."""
CERTIFICATE = "certificate"
"""Folder of a certificate: texts that were really compressed."""
DIVERGED = "diverged.json"
"""Says that the run gave up, and where."""
MARKER = "marker"
"""Folder, in a corpus or a run, of the small model whose entropy marks the ends of units."""
THRESHOLD = "threshold.json"
"""In a marker: by which rule units end (``run/marks.py``)."""

_REWRITTEN = "Continue the run with its own command, which writes the file anew."


def read_config(folder: Path, advice: str = _REWRITTEN) -> Config:
    """The config of a run directory. Raises CheckpointError if it is damaged, ConfigError if it is
    of another version."""
    path = folder / CONFIG
    return from_json(read_json(path, dict, error=CheckpointError, advice=advice), str(path))
