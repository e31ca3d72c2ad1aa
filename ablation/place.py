"""The folder of a study, here or on object storage, by the names of its files."""

import contextlib
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from octavo import files, storage
from octavo.configs.checks import ConfigError
from octavo.data.manifest import MANIFEST
from octavo.run.directory import CERTIFICATE, CONFIG, METRICS, RESULTS
from octavo.storage import Mirror, is_url

FORMAT = 1
"""Of the files of JSON."""
STUDY, TEXT, SPEED = "study.json", "text.json", "speed.json"
MEASURED = "measured.json"
RUNS = "runs"
_SMALL = re.compile(
    rf"{STUDY}|{TEXT}|{SPEED}|"
    rf"{RUNS}/[^/]+/({CONFIG}|{METRICS}|{RESULTS}|{MEASURED}|{CERTIFICATE}/.*)"
)
"""What the results of a study are made of."""


class Place:
    """Where a study lies."""

    def __init__(self, out: str):
        self.out = out.rstrip("/") or out
        self.remote = is_url(out)
        if "::" in out:
            raise ConfigError(f"--out {out}: name a folder without ::, which URLs chain by.")
        if self.remote:
            storage.check(out, "--out")
        elif Path(out).exists() and not Path(out).is_dir():
            raise ConfigError(f"--out {out} is a file; name a folder.")
        for file, what in ((CONFIG, "a run"), (MANIFEST, "a corpus")):
            if not self.remote and (Path(out) / file).is_file():
                raise ConfigError(f"--out {out} is the folder of {what}; name another.")

    def __str__(self) -> str:
        return self.out

    def make(self) -> None:
        """Raises ConfigError if the folder cannot be made."""
        if self.remote:
            return
        try:
            Path(self.out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {self.out} cannot be made: {error.strerror}.") from error

    def at(self, name: str) -> str:
        """The path or URL of a file or folder of the study."""
        return f"{self.out}/{name}"

    def run(self, cell: str) -> str:
        """That of the run of a cell."""
        return self.at(f"{RUNS}/{cell}")

    def read(self, name: str) -> Any:
        """What a file of JSON holds; None if it is not there. Raises OSError, and ConfigError for
        what is no JSON."""
        try:
            data = storage.read(self.at(name)) if self.remote else files.read(self.at(name))
            return json.loads(data)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{self.at(name)} is damaged: {error}.") from error

    def remove(self, name: str) -> None:
        """A file, if it is there. Raises OSError."""
        if self.remote:
            storage.remove(self.at(name))
        else:
            Path(self.at(name)).unlink(missing_ok=True)

    def write(self, name: str, value: Any) -> None:
        """A file of JSON. Raises OSError."""
        storage.write_json(self.at(name), value)

    def files(self) -> Path:
        """The small files of the study in a folder of this machine, to read, as they are now."""
        if not self.remote:
            return Path(self.out)
        self._mirror.pull(lambda name: bool(_SMALL.fullmatch(name)))
        return self._mirror.folder

    @cached_property
    def _mirror(self) -> Mirror:
        """For the life of this process: what it has is not fetched again."""
        return Mirror(self.out)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A folder of the study to write in; on object storage, what is in it at the end is put
        there."""
        if not self.remote:
            path = Path(self.at(name))
            path.mkdir(parents=True, exist_ok=True)
            yield path
            return
        mirror = Mirror(self.at(name))
        try:
            yield mirror.folder
            mirror.push(mirror.changed())
        finally:
            mirror.close()
