"""What a study is asked to compare: on the command line, or in a file that is committed."""

import re
import shlex
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from octavo.arguments import Range, check_numbers, read_file
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.settings import nearest, taken

BUDGETS = ("flops", "bytes", "steps")
"""By what arms are matched; of training."""
UNEQUAL = ("text", "heldout", "budget")
"""Inequalities that can be asked for."""
_NAME = re.compile(r"([A-Za-z0-9][\w.+-]*)=(?=\S)", re.ASCII)
COUNTED = ("useful", "paid")
_OURS = (
    "--workdir", "--train.steps", "--train.seed", "--train.init-from", "--train.evaluation-bytes",
    "--train.sample-bytes", "--train.checkpoint-every", "--train.keep-checkpoints",
)  # fmt: skip
"""What the study decides, or what one arm alone would be given."""
_HOW = {"out", "jobs", "cell", "print_commands", "dry_run"}
"""Arguments that say how a study is done, not what it is."""
_QUESTIONS = ("-h", "--help", "--list", "--version", "--debug")
"""Flags that are no settings."""


@dataclass(frozen=True)
class Arm:
    """What is compared with the others."""

    name: str
    asked: str
    """A preset and what is changed of it, as a command line has it."""
    sizes: tuple[str | None, ...] = (None,)
    """``--model.size`` of each rung of a ladder; None: of an arm that is none."""
    tokenizer: str | None = None
    """``prepare.py --tokenizer`` of the corpus that is made for it; None: what its model reads."""

    @property
    def words(self) -> list[str]:
        """Of the command line, without what the study itself reads."""
        words = _split(self.asked)
        taken(words, "--tokenizer")
        if len(self.sizes) > 1:
            taken(words, "--model.size")
        return words

    @property
    def names_source(self) -> bool:
        """Whether it says itself which corpus it reads."""
        return "--data.source" in _flags(self.words)


@dataclass(frozen=True)
class Arguments:
    arms: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ARM ...")] = ()
    """A preset, or a quoted preset with what is changed of it: "flat --tokenizer bpe:4096",
    "hnet --model.size 500k,1m,2m" (a ladder), "wide=flat --model.width 192" (with a name). Or one
    study in a file of TOML; or RUNs that are there, to be scored and shown only; or none, to go on
    with the study in OUT."""
    flops: Annotated[str | None, tyro.conf.arg(metavar="A,B,C")] = None
    """Budgets: FLOPs of the training of each run, as 2e12,5e12."""
    bytes: Annotated[str | None, tyro.conf.arg(metavar="A,B,C")] = None
    """Budgets: bytes of text that each run reads."""
    steps: Annotated[str | None, tyro.conf.arg(metavar="A,B,C")] = None
    """Budgets: steps of each run."""
    counted: Literal["useful", "paid"] | None = None
    """FLOPs of units that exist (useful, the default), or of all that rows have room for (paid)."""
    inference_flops: Annotated[float | None, Range(1, 10**15)] = None
    """Scale every arm so that predicting a byte costs so many FLOPs (useful), within 10%."""
    seeds: Annotated[int | None, Range(1, 1000)] = None
    """Runs of each arm at each budget. None: 3."""
    rates: Annotated[str | None, tyro.conf.arg(metavar="X,Y,Z")] = None
    """Learning rates that every arm tries at the smallest budget, as multiples of its own. None:
    0.5,1,2. A single one: none is tried."""
    baseline: Annotated[str | None, tyro.conf.arg(metavar="ARM")] = None
    """The arm that the others are held against. None: the first."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")] = ()
    """The text of all arms that name no data.source: a prepared folder, or text as prepare.py takes
    it. Corpora of other tokenizers are made of it. None: what the presets name."""
    parallel: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Parallel text, a file LANGUAGE.txt each, for the fairness premium."""
    common: Annotated[str | None, tyro.conf.arg(metavar="FLAGS")] = None
    """Settings of all arms, as "--data.length 1024"; where an arm says otherwise, it wins."""
    heldout_bytes: Annotated[int | None, Range(1, 2**40)] = None
    """Held-out text that is scored, spread over its labels. None: 200,000."""
    allow: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WHAT")] = ()
    """Compare what is unequal: text (that was trained on), heldout (that is scored), budget; of
    several, with commas."""
    title: str | None = None
    """Of the page."""
    out: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the study, or its URL. None: of a file studies/x.toml, studies/x."""
    jobs: Annotated[int, Range(1, 256)] = 1
    """Cells at a time on this machine."""
    cell: Annotated[int | None, Range(0)] = None
    """Do this one cell of the plan and no other."""
    print_commands: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print a command for each cell that is not done, for a queue of jobs, and end."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the plan, and end."""


@dataclass(frozen=True)
class Study:
    """What was asked for, every setting filled in."""

    arms: tuple[Arm, ...]
    by: str
    """One of ``BUDGETS``."""
    budgets: tuple[float, ...]
    counted: str = "useful"
    inference_flops: float | None = None
    seeds: int = 3
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    baseline: str = ""
    data: tuple[str, ...] = ()
    parallel: str | None = None
    common: str = ""
    heldout_bytes: int = 200_000
    allow: tuple[str, ...] = ()
    title: str | None = None


def asked_of(arguments: Arguments) -> tuple[Study, str]:
    """The study that arguments ask for, and the folder where it lies. Raises ConfigError for what
    cannot be."""
    arguments, tables = _with_file(arguments)
    if not arguments.arms and not tables:
        raise ConfigError("a study needs arms: name presets, or a file of TOML that names them.")
    if not arguments.out:
        raise ConfigError("name a folder for the study: --out DIR.")
    common = _split(arguments.common or "", "--common")
    _check_words(common, "--common")
    arms = [*map(_arm, arguments.arms), *(_arm(**table) for table in tables)]
    names = [arm.name for arm in arms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f'two arms are called {twice}; give one a name, as "other=flat ...".')
    given = [by for by in BUDGETS if getattr(arguments, by) is not None]
    if len(given) != 1:
        flags = ", ".join(f"--{by} A,B,C" for by in BUDGETS)
        raise ConfigError(f"name the budgets by one of {flags}.")
    by = given[0]
    budgets = _numbers(getattr(arguments, by), f"--{by}")
    if by == "steps" and any(budget % 1 for budget in budgets):
        raise ConfigError(f"--steps are whole numbers, not {getattr(arguments, by)}.")
    if arguments.counted not in (None, *COUNTED):
        raise ConfigError(f"counted is one of {', '.join(COUNTED)}, not {arguments.counted!r:.60}.")
    if arguments.counted and by != "flops":
        raise ConfigError(f"--counted is of --flops; this study is matched by {by}.")
    if "--data.source" in _flags(common):
        if arguments.data or any(arm.tokenizer is not None for arm in arms):
            raise ConfigError(
                "--common names a corpus; name the text of all arms with --data DIR, of which "
                "those of other tokenizers are made."
            )
    baseline = names[0] if arguments.baseline is None else arguments.baseline
    if baseline not in names:
        raise ConfigError(f"--baseline {baseline} is no arm; there are {', '.join(names)}.")
    allow = allowed(arguments.allow)
    if arguments.inference_flops and (several := [a.name for a in arms if a.sizes != (None,)]):
        raise ConfigError(
            f"{several[0]} names sizes, but --inference-flops decides them; leave one out."
        )
    study = Study(
        tuple(arms), by, budgets, arguments.counted or "useful", arguments.inference_flops,
        arguments.seeds or Study.seeds,
        Study.rates if arguments.rates is None else _numbers(arguments.rates, "--rates"),
        baseline, arguments.data, arguments.parallel, arguments.common or "",
        arguments.heldout_bytes or Study.heldout_bytes, allow, arguments.title,
    )  # fmt: skip
    return study, arguments.out


def check_going_on(arguments: Arguments) -> None:
    """Raise ConfigError for what a study that is there, and is gone on with, cannot be told
    without its arms."""
    for one in fields(Arguments):
        if one.name not in {"arms", *_HOW} and getattr(arguments, one.name) != one.default:
            flag = one.name.replace("_", "-")
            raise ConfigError(
                f"--{flag} is of no use without arms: --out alone goes on with the study that is "
                "there, as it was asked for. To extend it, name its arms too."
            )


def check_together(arguments: Arguments) -> None:
    """Raise ConfigError for flags that ask for several things at once."""
    asked = [name for name in ("dry_run", "print_commands") if getattr(arguments, name)]
    asked = ["cell"] * (arguments.cell is not None) + asked
    if len(asked) > 1:
        two = " and ".join(f"--{name.replace('_', '-')}" for name in asked[:2])
        raise ConfigError(f"{two} are asked for at once; which?")


def allowed(allow: tuple[str, ...]) -> tuple[str, ...]:
    """What may be unequal, of words with spaces or commas between. Raises ConfigError for what
    cannot be."""
    names = tuple(name for word in allow for name in word.split(",") if name)
    if strange := set(names) - set(UNEQUAL):
        raise ConfigError(
            f"--allow {','.join(sorted(strange))}: what can be unequal is {', '.join(UNEQUAL)}; "
            "of several, with commas."
        )
    return names


def is_file(arms: tuple[str, ...]) -> bool:
    """Whether what stands for arms is a study in a file."""
    if len(arms) != 1 or not arms[0].endswith(".toml"):
        return False
    return len(arms[0].split()) == 1 or Path(arms[0]).is_file()  # or an arm: "flat --config x.toml"


def _with_file(arguments: Arguments) -> tuple[Arguments, list[dict]]:
    """The arguments with what a file says where they say nothing, and its tables of arms."""
    if not is_file(arguments.arms):
        return arguments, []
    (file,) = arguments.arms
    try:
        found = tomllib.loads(read_file(file, "the study").decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is no TOML: {error}.") from error
    if twice := next(
        (name for name in found if "-" in name and name.replace("-", "_") in found), 0
    ):
        raise ConfigError(f"{file}: {twice} is there twice, with and without dashes.")
    found = {name.replace("-", "_"): value for name, value in found.items()}
    known = {field.name for field in fields(Arguments)} - _HOW
    if strange := sorted(found.keys() - known):
        raise ConfigError(
            f"{file}: there is no {strange[0]}; a study has {', '.join(sorted(known))}."
        )
    over: dict[str, Any] = {"out": arguments.out or file.removesuffix(".toml")}
    lists = [by for by in (*BUDGETS, "rates") if by in found]
    budgets_given = any(getattr(arguments, by) is not None for by in BUDGETS)
    arms, tables = [], []
    for arm in _typed(found.pop("arms", []), list, f"{file}: arms"):
        if isinstance(arm, str):
            arms.append(arm)
        else:
            tables.append(_table(arm, file))
    for name, value in found.items():
        if getattr(arguments, name) or (name in BUDGETS and budgets_given):
            continue
        if name == "counted" and budgets_given and arguments.flops is None:
            continue  # of the budgets that are asked for instead
        if name in lists:
            over[name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        elif name in ("data", "allow"):
            each = value if isinstance(value, list) else [value]
            over[name] = tuple(_typed(one, str, f"{file}: {name}") for one in each)
        elif name in ("seeds", "heldout_bytes"):
            over[name] = _typed(value, int, f"{file}: {name}")
        elif name == "inference_flops":
            over[name] = _typed(value, int | float, f"{file}: {name}")
        else:
            over[name] = _typed(value, str, f"{file}: {name}")
    asked = replace(arguments, arms=tuple(arms), **over)
    try:
        check_numbers(asked)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return asked, tables


def _typed(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{name} cannot be {value!r:.60}.")
    return value


def _table(table: Any, file: str) -> dict[str, str]:
    """An arm of a file: ``{name = ..., run = ...}``."""
    if not isinstance(table, dict) or not {"run"} <= table.keys() <= {"name", "run"}:
        raise ConfigError(
            f"{file}: an arm is a string, or has a name and a run, not {table!r:.60}."
        )
    found = {key: _typed(value, str, f"{file}: {key}") for key, value in table.items()}
    return {"asked": found["run"], **({"name": found["name"]} if "name" in found else {})}


def _numbers(text: str, flag: str) -> tuple[float, ...]:
    """Increasing numbers above 0. Raises ConfigError for others."""
    try:
        found = tuple(sorted(float(part) for part in text.split(",")))
    except ValueError:
        found = ()
    if not found or len(set(found)) < len(found) or not all(0 < x < 1e30 for x in found):
        raise ConfigError(f"{flag} has numbers above 0, each once, as 1e12,5e12; not {text!r:.60}.")
    return found


def _split(asked: str, what: str = "the arm") -> list[str]:
    try:
        return shlex.split(asked)
    except ValueError as error:
        raise ConfigError(f"{what} {asked!r:.80} cannot be read: {error}.") from error


def _flags(words: list[str]) -> list[str]:
    return [word.partition("=")[0].replace("_", "-") for word in words]


def _check_words(words: list[str], what: str) -> None:
    """Raise ConfigError for what is no setting of an arm."""
    for word in words:
        flag = word.partition("=")[0]
        if flag.replace("_", "-") in _OURS:
            raise ConfigError(f"{what} has {word}, which the study decides.")
        if flag in _QUESTIONS:
            raise ConfigError(f"{what} has {word}, which is no setting.")


def _arm(asked: str, name: str | None = None) -> Arm:
    """An arm as it is asked for. Raises ConfigError if it is none."""
    if name is None and (named := _NAME.match(asked)):
        name, asked = named[1], asked[named.end() :]
    words = _split(asked)
    if not words or words[0] not in presets():
        first = words[0] if words else "nothing"
        hint = nearest(first, presets())
        if Path(first).is_dir():
            hint = " (Of runs that are there, all that is named must be runs.)"
        raise ConfigError(
            f"the arm {asked!r:.80} begins with {first!r:.40}, which is no preset; "
            f"python train.py --list shows them.{hint}"
        )
    _check_words(words, f"the arm {asked!r:.80}")
    tokenizer = taken(words, "--tokenizer")
    if tokenizer is not None and "--data.source" in _flags(words):
        raise ConfigError(
            f"the arm {asked!r:.80} names a corpus and a tokenizer; a corpus has its own."
        )
    size = taken(words, "--model.size")
    sizes = _sizes(size, asked) if size and "," in size else (None,)
    name = _named(words, tokenizer, size) if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,60}", name, re.ASCII):
        raise ConfigError(
            f"{name!r:.80} is no name of an arm, which is a folder's too: letters, digits and "
            '-_.+; give it one, as "name=flat ...".'
        )
    return Arm(name, asked, sizes, tokenizer)


def _sizes(size: str, asked: str) -> tuple[str, ...]:
    """The rungs of a ladder."""
    from octavo.run.size import parameters_of  # which takes a while to import

    sizes = tuple(part.strip() for part in size.split(","))
    if len({parameters_of(one) for one in sizes}) < len(sizes):
        raise ConfigError(f"the arm {asked!r:.80} names a size twice.")
    return sizes


def _named(words: list[str], tokenizer: str | None, size: str | None) -> str:
    """A name made of the preset and what is changed of it."""
    parts, at = [words[0]], 1
    if tokenizer:
        parts.append(Path(tokenizer).name.replace(":", ""))
    if size and "," not in size:
        parts.append(size)
    while at < len(words):
        flag, equals, value = words[at].partition("=")
        if not equals and at + 1 < len(words):
            value, at = words[at + 1], at + 1
        at += 1
        field = flag.rpartition(".")[2].lstrip("-")
        parts.append(Path(value).name if field == "source" else f"{field}{value}")
    name = re.sub(r"[^\w.+]+", "-", "-".join(parts), flags=re.ASCII)
    return name.strip("-")[:60]
