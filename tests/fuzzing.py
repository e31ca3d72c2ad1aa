"""Thrown at every command: generated arguments and mutilated files.

A case is a function of a seed and a number. Whatever it is, the command ends with a documented exit
code and one sentence, in bounded time, and what it reads stays as it was. Commands run in this
process; what ends them goes through the boundary of the command line.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tyro

from octavo import cli
from octavo.configs.schema import Config
from octavo.run import opened
from octavo.training.lifecycle import Watchdog

SECONDS = 60
"""A command that takes longer hangs."""

NUMBERS = (
    "0", "-1", "1", "2", "7", "-0", "1.5", "0.5", "nan", "inf", "-inf", "1e308", "1e-320", "1e-10",
    "-5", "99999999999999999999", "-99999999999999999999", "9" * 5000, "2147483648", "4294967296",
    "0x10", "1_0", "\u0663", "\u00b2", "",
)  # fmt: skip
WORDS = (
    "", " ", "x", "x" * 300, "x" * 5000, "\u00e9", "\udcff", "a\nb", "[bold]", "[/b]", ":smile:",
    "$x$", "{}", "None", "True", "-", "auto", "own", "lookup", "recycling", "exit:1", "exit:99",
    "exit:\u00b2", "exit:", "latin", "klingon", "latin+latin", "bytes", "words", "bpe:7", "bpe:260",
    "bpe:" + "9" * 30, "unigram:300", "tfds:", "gs://bucket/run", "run<!--<script>",
)  # fmt: skip
PATHS = (
    "run", "run/config.json", "run/checkpoints", "corpus", "corpus/manifest.json", "parallel",
    "parallel/eng.txt", "text.txt", "packed", "empty.txt", "empty", "fifo", "nowhere", "nowhere/x",
    "latin1.txt", "text.txt/x", ".", "out", "out.svg", "corpus:nan", "corpus:0", "corpus,corpus",
    "corpus:1,nowhere", ",", "link", "loop",
)  # fmt: skip

COMMANDS = {
    "evaluate": (
        ["run", "bits", "--text", "text.txt"],
        ["run", "words", "--text", "text.txt", "--json", "out"],
        ["run", "noise", "--text", "text.txt"],
        ["run", "fairness", "--parallel", "parallel", "--plot", "out.svg", "--tokenizer",
         "run/tokenizer.json"],
        ["run", "--data", "corpus", "--most-bytes", "100"],
        ["run", "certify", "--text", "text.txt", "--certificate", "out"],
    ),
    "generate": (["run", "--prompt", "the ", "--bytes", "2", "--speculative", "none"],),
    "compress": (["run", "text.txt", "out"], ["--decompress", "run", "packed", "out"]),
    "export": (["run", "out"], ["run", "out", "--step", "30", "--dtype", "bfloat16"]),
    "view": (
        ["run", "--text", "text.txt", "--out", "out"],
        ["run", "--report", "--out", "out"],
    ),
    "rates": (["parallel"],),
    "schemes": (
        ["text.txt", "--of", "bytes", "corpus", "--out", "empty"],
        ["--parallel", "parallel", "--of", "run", "words", "--morphemes", "gold.tsv"],
    ),
    "prepare": (
        ["text.txt", "--out", "out", "--processes", "1"],
        ["corpus", "--out", "out", "--processes", "1", "--tokenizer", "words"],
        ["--verify", "--out", "corpus"],
    ),
    "train": (
        ["flat", "--data.source", "corpus", "--workdir", "out", "--model.width", "32",
         "--model.layers", "1", "--model.heads", "2", "--data.length", "64", "--data.batch-size",
         "8", "--train.steps", "1", "--train.sample-bytes", "0", "--train.evaluation-bytes", "0"],
    ),
}  # fmt: skip
"""Command lines that work, with which every case begins."""

READERS = ("evaluate", "generate", "compress", "export", "view", "rates", "schemes")
"""Commands that change nothing but what they are told to write."""

DANGEROUS = ("--processes", "--data.workers", "--prepare.processes")
"""Flags whose large values would start processes by the thousand if they were not refused."""


@dataclass
class Case:
    script: str
    arguments: list[str]
    mutilated: str = ""
    """The file that is not what it was, in a copy of its folder."""

    def __str__(self):
        shown = [a if len(a) < 60 else f"{a[:20]}...({len(a)})" for a in self.arguments]
        after = f" with another {self.mutilated}" if self.mutilated else ""
        return ascii(f"{self.script}.py {' '.join(map(repr, shown))}") + after


def workspace(folder: Path, trained: Path, corpus: Path) -> None:
    """What commands are given: a finished run, a corpus, texts and things that are none."""
    shutil.copytree(trained, folder / "run", ignore=shutil.ignore_patterns("10", "20"))
    shutil.copytree(corpus, folder / "corpus")
    (folder / "parallel").mkdir()
    (folder / "parallel" / "eng.txt").write_text("one two\nthree\n")
    (folder / "parallel" / "ell.txt").write_text("\u03b1\u03b2 \u03b3\n\u03b4\n", encoding="utf-8")
    (folder / "text.txt").write_bytes("the quick tr\u00e8s fox".encode())
    (folder / "gold.tsv").write_text("cats\tcat s\tcat\n")
    (folder / "latin1.txt").write_bytes(b"caf\xe9")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("text.txt")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    with at(folder):
        code, said = outcome("compress", ["run", "text.txt", "packed"])
    assert code == 0, said


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    """Work in a folder, and change nothing of this process. The run in it is opened once."""
    before, handlers = os.getcwd(), {n: signal.getsignal(n) for n in (1, 2, 15)}
    os.chdir(folder)
    really = opened.open_run

    def open_run(name, *more, **how):
        if name == "run" and all(asked is None for asked in (*more, *how.values())):
            return _opened(really, folder)
        return really(name, *more, **how)

    try:
        with (
            mock.patch.object(opened, "open_run", open_run),
            mock.patch.object(Watchdog, "_watch", lambda self: None),  # it would end this process
        ):
            yield
    finally:
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@functools.cache
def _opened(open_run: Callable, folder: Path) -> opened.Run:
    return open_run(folder / "run")


class Hangs(BaseException):
    """A command took longer than SECONDS."""


def outcome(script: str, arguments: list[str]) -> tuple[int, str]:
    """The exit code of a command, and what it said of it."""

    passed = []

    def late(number, frame):
        passed.append(SECONDS)
        raise Hangs

    main = importlib.import_module(f"octavo.{script}").main
    # Files, as a shell gives: with numbers, and in no encoding that holds everything.
    out, err = (tempfile.TemporaryFile("w+", encoding="ascii") for _ in range(2))
    for stream in (out, err):
        stream.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with (
            out,
            err,
            mock.patch.object(sys, "argv", [f"{script}.py", *arguments]),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xc3"))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
                sentence, code = "", 0
            except SystemExit as parsed:
                err.seek(0)
                sentence, code = err.read(), parsed.code or 0
            except BaseException as error:
                if os.environ.get("OCTAVO_DEBUG"):
                    traceback.print_exc(file=sys.__stderr__)
                sentence, code = cli._outcome(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if passed:
        raise Hangs
    return code, sentence


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """What lies in a folder: contents of files, None for all else."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else None
        for path in folder.rglob("*")
    }


def complaint(case: Case, folder: Path) -> str | None:
    """Run a case in its workspace; what is wrong with how it ended, if anything."""
    before = snapshot(folder)
    try:
        with at(folder):
            code, said = outcome(case.script, case.arguments)
    except Hangs:
        return f"takes longer than {SECONDS} seconds"
    if code not in (0, 1, 2, 75):
        return f"ends with code {code}"
    if "This should not happen" in said or "Traceback" in said:
        return said
    if code and not said.strip():
        return f"ends with code {code} and says nothing"
    if case.script in READERS:
        after = snapshot(folder)
        changed = [name for name in before if before[name] != after.get(name, b"?")]
        if any(not _may_be_written(case, name) for name in changed):
            return f"changes what it reads: {changed}"
    return None


def _may_be_written(case: Case, name: str) -> bool:
    """Whether a file that was there is named as an output, and not as an input too."""
    named = [name, "link"] if name == "text.txt" else [name]
    return sum(argument in named for argument in case.arguments) == 1


def flags_of(script: str) -> dict[str, object]:
    """Every flag of a script, and the type of its value."""
    if script != "train":
        type_ = importlib.import_module(f"octavo.{script}").Arguments
        hints = typing.get_type_hints(type_, include_extras=True)
        return {
            f"--{name.replace('_', '-')}": hint
            for name, hint in hints.items()
            if tyro.conf.Positional not in getattr(hint, "__metadata__", ())
        }
    found: dict[str, object] = {"--workdir": str}
    for section in dataclasses.fields(Config):
        if dataclasses.is_dataclass(section.type):
            for name, hint in typing.get_type_hints(section.type).items():
                found[f"--{section.name}.{name.replace('_', '-')}"] = hint
    return found


def generated(rng: random.Random, scripts: tuple[str, ...]) -> Case:
    """A command line that is wrong somewhere, perhaps."""
    script = rng.choice(scripts)
    arguments = list(rng.choice(COMMANDS[script]))
    flags = flags_of(script)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.6:  # a value
            flag = rng.choice(sorted(flags))
            value = _value(rng, flags[flag])
            if flag in DANGEROUS and len(value) > 1:
                value = "-1"
            if flag in arguments:
                place = arguments.index(flag) + 1
                arguments[place : place + 1] = [value]
            else:
                arguments += [flag, value]
        elif kind < 0.8:  # anything, anywhere
            place = rng.randrange(len(arguments))
            if arguments[place - 1] not in DANGEROUS:
                arguments[place] = rng.choice(PATHS + WORDS)
        elif kind < 0.9:
            arguments.pop(rng.randrange(len(arguments)))
        else:  # a flag twice, without its value, or unknown
            arguments += rng.choice(
                (arguments[-2:], [rng.choice(sorted(flags))], ["--nonsense", "1"], ["surplus"])
            )
        if not arguments:
            break
    return Case(script, [a for a in arguments if "\0" not in a])


def _value(rng: random.Random, hint: object) -> str:
    numeric = any(name in str(hint) for name in ("int", "float"))
    if rng.random() < 0.15:
        return rng.choice(NUMBERS + WORDS + PATHS)
    return rng.choice(NUMBERS if numeric else WORDS + PATHS)


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """Cut, emptied, flipped, prolonged or replaced."""
    way = rng.randrange(8)
    if way == 0:
        return b""
    if way == 1:
        return data[: rng.randrange(len(data) + 1)]
    if way == 2:
        return data + rng.randbytes(rng.choice((1, 4, 16)))
    if way == 3:
        return rng.randbytes(len(data))
    if way == 4:
        return b"[" * 100_000
    if way == 5:
        return b"\xff\xfe" + data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


ODD = (
    None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "../x", [], {},
    [None], {"x": 1}, "9" * 400,
)  # fmt: skip


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """JSON with other values, keys too many or too few, at any depth; or not JSON any more."""
    if rng.random() < 0.3:
        return damaged_bytes(rng, data)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        holder = value
        while isinstance(holder, dict | list) and holder:
            key = rng.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.15:
                break
            holder = holder[key]
        if not isinstance(holder, dict | list) or not holder:
            continue
        way = rng.random()
        if way < 0.2:
            del holder[key]
        elif way < 0.3 and isinstance(holder, dict):
            holder["surplus"] = rng.choice(ODD)
        else:
            holder[key] = rng.choice(ODD)
    return json.dumps(value).encode()


OF_A_RUN = (
    (["evaluate"], ["RUN", "bits", "--text", "text.txt"]),
    (["generate"], ["RUN", "--prompt", "ab", "--bytes", "2"]),
    (["view"], ["RUN", "--text", "text.txt", "--out", "out"]),
    (["view"], ["RUN", "--report", "--out", "out"]),
    (["compress"], ["RUN", "text.txt", "out"]),
    (["export"], ["RUN", "out"]),
    (["schemes"], ["text.txt", "--of", "RUN"]),
)
OF_A_CORPUS = (
    (["evaluate"], ["run", "bits", "--data", "RUN", "--most-bytes", "100"]),
    (["prepare"], ["--verify", "--out", "RUN"]),
    (["prepare"], ["RUN", "--out", "out", "--processes", "1"]),
    (["train"], [*COMMANDS["train"][0], "--data.source", "RUN"]),
    (["schemes"], ["RUN", "--of", "RUN"]),
)


def mutilated(rng: random.Random, folder: Path, what: str) -> Case:
    """A copy of the run, the corpus or the packed file, ``damaged``, with something wrong in it,
    and a command that reads it."""
    damaged = folder / "damaged"
    if what == "packed":
        damaged.write_bytes(damaged_bytes(rng, (folder / "packed").read_bytes()))
        return Case("compress", ["--decompress", "run", "damaged", "out"], "packed")
    source = folder / what
    shutil.copytree(source, damaged)
    files = sorted(path for path in damaged.rglob("*") if path.is_file())
    by_name = [path for path in files if path.suffix == ".json"] if rng.random() < 0.6 else files
    file = rng.choice(by_name)
    shown = str(file.relative_to(damaged))
    data = file.read_bytes()
    if rng.random() < 0.1:
        file.unlink()
    elif rng.random() < 0.1 and file.parent == damaged:
        file.unlink()
        rng.choice((os.mkfifo, os.mkdir))(file)
    elif file.suffix == ".json" and file.parent == damaged:
        file.write_bytes(damaged_json(rng, data))
    else:
        file.write_bytes(damaged_bytes(rng, data))
    (script,), arguments = rng.choice(OF_A_RUN if what == "run" else OF_A_CORPUS)
    return Case(script, ["damaged" if a == "RUN" else a for a in arguments], shown)


def cases(
    seed: int, scripts: tuple[str, ...], mutilations: tuple[str, ...]
) -> Callable[[int, Path], Case]:
    """``case(number, workspace)``: generated arguments for one of ``scripts``; of both kinds, every
    third is a mutilation."""

    def case(number: int, folder: Path) -> Case:
        rng = random.Random(f"{seed} {number}")
        if mutilations and (not scripts or number % 3 == 0):
            return mutilated(rng, folder, rng.choice(mutilations))
        return generated(rng, scripts)

    return case


def accepted(*arguments, **named) -> None:
    """In place of what starts a training: the settings are good, which is all that is asked."""
    raise cli.RunError("training begins.")


@contextlib.contextmanager
def cleaned(folder: Path) -> Iterator[None]:
    """Leave a workspace as it was before a case."""
    before = snapshot(folder)
    try:
        yield
    finally:
        after = snapshot(folder)
        for name in sorted(after.keys() - before.keys(), reverse=True):  # from the inside out
            path = folder / name
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, data in before.items():
            if data is not None and after.get(name) != data:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
