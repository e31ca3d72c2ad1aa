"""Preparation by an Apache Beam pipeline: the same work, on machines that any of its runners has.

Machines share the folder of the corpus and the sources. A pipeline is one step over the numbers of
jobs; what those are lies in the folder, and what they gave, so that no runner carries text, nor
anything that grows with the tokenizer.
"""

import functools
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from octavo import files
from octavo.configs.checks import ConfigError
from octavo.data.errors import DataError, WorkerError


def on_beam(options: Sequence[str], folder: Path) -> Callable[..., Iterator[Any]]:
    """What runs jobs of ``prepare``, given as ``(work, jobs)``, as a pipeline. options: of Beam's,
    each NAME=VALUE.

    Raises ConfigError if Beam is not installed or does not know the options; WorkerError, when it
    runs, if the pipeline fails.
    """
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise ConfigError("--beam needs Apache Beam: pip install 'octavo[beam]'.") from error
    try:
        given = PipelineOptions([f"--{option}" for option in options])
        beam.Pipeline(options=given)
        known = given.get_all_options()
    except Exception as error:  # of each runner its own
        raise ConfigError(f"--beam {' '.join(options)}: {files.reason(error)}.") from error
    for option in options:
        if (name := option.partition("=")[0]) not in known:
            raise ConfigError(f"--beam {option}: Beam has no option {name!r}.")

    def run(work: Callable[[Any], Any], jobs: list) -> Iterator[Any]:
        place = folder.absolute() / f"beam-{uuid.uuid4().hex[:8]}"
        place.mkdir(parents=True)
        try:
            files.write(place / "jobs", pickle.dumps((work, jobs)))
            try:
                with beam.Pipeline(options=given) as pipeline:
                    numbers = pipeline | beam.Create(range(len(jobs))) | beam.Reshuffle()
                    _ = numbers | beam.Map(_do, str(place))
            except Exception as error:  # each runner has its own
                raise WorkerError(f"the Beam pipeline failed: {files.reason(error)}") from error
            for number in range(len(jobs)):
                found = pickle.loads((place / str(number)).read_bytes())
                if isinstance(found, DataError):
                    raise found
                yield found
        finally:
            shutil.rmtree(place, ignore_errors=True)

    return run


@functools.lru_cache(maxsize=2)
def _jobs(place: str) -> tuple[Callable[[Any], Any], list]:
    return pickle.loads((Path(place) / "jobs").read_bytes())


def _do(number: int, place: str) -> None:
    """A job. What its text lacks is a result: trying again would not help."""
    work, jobs = _jobs(place)
    try:
        found = work(jobs[number])
    except DataError as error:
        found = error
    files.write(Path(place) / str(number), pickle.dumps(found))
