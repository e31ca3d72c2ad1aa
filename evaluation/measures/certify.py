"""Beginnings of held-out documents, or of FILE, really compressed and restored: files that prove
the score, and a certificate of them (--certificate DIR).

What is scored is computed for all ids at once, what is compressed one id after another, from
nothing but what a decoder has. A model that looks ahead, even by where its units end, scores better
than it compresses: that shows here, if it is by more than a few percent. As any file of
compress.py, a piece is restored by the same checkpoint, on as many devices of the same kind, with
the same versions.
"""

import contextlib
import hashlib
import math
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from octavo import files
from octavo.arguments import check_output
from octavo.configs.checks import ConfigError
from octavo.data.heldout import Held, shortened
from octavo.run import codec
from octavo.run.directory import CERTIFICATE
from octavo.run.errors import CodecError
from octavo.run.versions import versions
from octavo.storage import is_url

HELD = True
PIECES = 4
MOST_BYTES = 2048
"""Of all pieces: an id takes a millisecond, to compress and to restore each."""
FILE = "certificate.json"
FORMAT = 1
_SHARE, _BYTES = 0.01, 5
"""By how much a file may differ from its score: coders round, and write whole words."""


def check(arguments, inputs: tuple) -> None:
    """Raise ConfigError if the certificate cannot be written, or proves another score."""
    if arguments.overlap is not None:
        raise ConfigError("--overlap is not for certify: files are made with half a row.")
    if arguments.ends is not None:
        raise ConfigError("--ends is not for certify: files are made as the run is configured.")
    if arguments.length is not None:
        raise ConfigError("--length is not for certify: files are made in rows of training.")
    if arguments.certificate is None:
        if is_url(arguments.run):
            run = arguments.run
            raise ConfigError(f"{run} lies on other storage: name a folder with --certificate.")
        if not Path(arguments.run).is_dir():
            return  # which is said where it is opened
    folder = _folder(arguments)
    if os.path.isfile(folder):
        raise ConfigError(f"--certificate {folder} is a file; name a folder.")
    names = [f"{i}{suffix}" for i in range(PIECES) for suffix in (".txt", ".oct")]
    there = os.path.isdir(folder)
    written = [folder / name for name in (*names, FILE)] if there else [folder]
    for path in written:
        check_output(str(path), "--certificate", *inputs, arguments.json)


def _folder(arguments) -> Path:
    return Path(arguments.certificate or Path(arguments.run) / CERTIFICATE)


def choose(held: list[Held], most_bytes: int) -> list[Held]:
    """Up to four documents, of as many labels as there are, evenly spaced, and of them beginnings
    that come to ``most_bytes`` (0: ``MOST_BYTES``)."""
    most = most_bytes or MOST_BYTES
    found = shortened([one for one in held if one.text], most, most / PIECES)
    before: dict[tuple, int] = {}
    ranks = []
    for one in found:
        key = one.corpus, one.label
        ranks.append(before.get(key, 0))
        before[key] = ranks[-1] + 1
    first = sorted(np.argsort(ranks, kind="stable")[:PIECES].tolist())
    return [found[i] for i in first]


def measure(
    run,
    pieces: list[Held],
    arguments,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
    batch_size: int = 16,
    **scoring,
) -> list[dict]:
    """A row for each piece, and one for all; writes the certificate, and says how to check it."""
    folder = _folder(arguments)
    texts = [one.text for one in pieces]
    nats = run.score(texts, batch_size=batch_size).document_nats
    about = certify(run, str(arguments.run), pieces, nats, folder, progress)
    print(f"the certificate is in {folder}; a piece is restored by\n{about['decoder']}")
    print(about["why"] or "it proves the score")
    return rows(about)


def rows(certificate: dict[str, Any]) -> list[dict]:
    """Of a certificate: sizes that were promised, and those that came of it."""
    found = [
        {
            "piece": piece["file"],
            "label": piece["label"] or "",
            "bytes": piece["bytes"],
            "promised_bytes": piece["bits"] / 8,
            "payload_bytes": _payload(piece),
            "restored": piece["restored"],
            "proves": _proves(piece),
        }
        for piece in certificate["pieces"]
    ]
    sizes = [row["payload_bytes"] for row in found]
    return [*found, {
        "piece": "all",
        "label": "",
        "bytes": certificate["bytes"],
        "promised_bytes": sum(row["promised_bytes"] for row in found),
        "payload_bytes": None if None in sizes else sum(sizes),
        "restored": all(row["restored"] for row in found),
        "proves": certificate["proves"],
    }]  # fmt: skip


def certify(
    run,
    name: str,
    pieces: list[Held],
    nats: np.ndarray,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Compress each piece to a file of the folder, restore it from there, and return what
    certificate.json says.

    name: the run, as a decoder is told. nats ``[pieces]``: what the score says of each as a
    document of its own, its end included, by windows that overlap by half. progress: is called with
    the ids that are done, and how many there are. Raises OSError that names a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What is there of an earlier one never stands beside what is new.
    for old in (folder / FILE, *folder.glob("[0-9].txt"), *folder.glob("[0-9].oct")):
        old.unlink(missing_ok=True)
    ids = [len(run.tokenizer.encode(one.text)) + 1 for one in pieces]
    total, done = 2 * sum(ids), 0

    def tell(more: int) -> None:
        if more % 16 == 0:
            progress(done + more, total)

    found, faults = [], []
    for i, one in enumerate(pieces):
        about, fault = _piece(run, one, float(nats[i]) / math.log(2), folder / f"{i}", ids[i], tell)
        found.append(about)
        faults += [fault] if fault else []
        done += 2 * ids[i]
    progress(total, total)
    size = sum(len(one.text) for one in pieces)
    sizes = [one["compressed_bytes"] for one in found]
    whole = None if None in sizes else sum(sizes)
    told = shlex.join([name, str(folder / "0.oct"), "restored.txt"])
    values = {
        "format": FORMAT,
        "run": files.shown(name),
        "step": run.step,
        "checkpoint": f"{codec.checkpoint_checksum(run.params):08x}",
        "pieces": found,
        "bytes": size,
        "compressed_bytes": whole,
        "overhead_bytes": codec.HEADER * len(found),
        "bits_per_byte_score": float(nats.sum()) / math.log(2) / size,
        "bits_per_byte_file": None if whole is None else 8 * whole / size,
        "proves": all(map(_proves, found)),
        "why": f"{faults[0]}." if faults else _difference(found),
        "decoder": files.shown(f"python compress.py --decompress {told}"),
        "device": str(run.mesh.devices.flat[0].device_kind),
        "devices": run.mesh.size,
        "versions": versions("constriction"),
    }
    files.write_json(folder / FILE, values)
    return values


def _piece(
    run, one: Held, bits: float, path: Path, ids: int, tell: Callable[[int], None]
) -> tuple[dict[str, Any], str | None]:
    """What is said of a piece, and why it cannot be restored, if so. path: of its two files,
    without their suffixes."""
    text, packed = path.with_suffix(".txt"), path.with_suffix(".oct")
    files.write(text, one.text)
    about: dict[str, Any] = {
        "label": one.label, "file": text.name, "bytes": len(one.text),
        "sha256": hashlib.sha256(one.text).hexdigest(),
        "compressed": None, "compressed_bytes": None, "compressed_sha256": None,
        "bits": bits, "restored": False,
    }  # fmt: skip
    try:
        files.write(packed, run.compress(one.text, tell))
    except CodecError as error:
        return about, f"{text.name} cannot be compressed: {error}"
    data = files.read(packed)
    about |= {
        "compressed": packed.name, "compressed_bytes": len(data),
        "compressed_sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    try:
        about["restored"] = run.decompress(data, lambda done: tell(ids + done)) == one.text
    except CodecError as error:
        return about, f"{packed.name} cannot be restored: {error}"
    return about, None if about["restored"] else f"{packed.name} gives another text back"


def _payload(piece: dict[str, Any]) -> Any:
    """Bytes of its file beside the header; None if it has none."""
    return piece["compressed_bytes"] and piece["compressed_bytes"] - codec.HEADER


def _proves(piece: dict[str, Any]) -> bool:
    """Whether it was restored, from a file of the size of its score."""
    promised = piece["bits"] / 8
    fits = piece["restored"] and abs(_payload(piece) - promised) <= _SHARE * promised + _BYTES
    return bool(fits)


def _difference(pieces: list[dict[str, Any]]) -> str | None:
    """By how much files differ from their score, in a sentence; None if none does."""
    if all(map(_proves, pieces)):
        return None
    promised = sum(piece["bits"] for piece in pieces) / 8
    payload = sum(map(_payload, pieces))
    if payload > promised:
        why = (
            "the score knows of the text what no decoder does, as that of a model that looks ahead"
        )
    else:
        why = "the score is not that of what compresses"
    return (
        f"{sum(not _proves(piece) for piece in pieces)} of {len(pieces)} files are of another size "
        f"than their score says, all together {payload:,} bytes, not {promised:,.0f} "
        f"({payload / promised:.2f} times as many): {why}."
    )


def read_certificate(folder: Path) -> dict[str, Any] | None:
    """What a certificate says; None if there is none that is whole."""
    with contextlib.suppress(OSError, files.FileError):
        found = files.read_json(folder / FILE, dict[str, Any])
        return found if found.get("format") == FORMAT else None
    return None
