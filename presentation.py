"""What commands that train tell of themselves: a short help, all of it by sections, the presets."""

import dataclasses
import shutil
import textwrap
import zlib
from pathlib import Path
from typing import NamedTuple

from octavo import cli
from octavo.configs import families
from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, to_json
from octavo.files import json_text, read_json

SIZES = Path(__file__).parent / "configs" / "sizes.json"
"""Parameters of the models of the presets, by ``model_key``."""


class Option(NamedTuple):
    """A flag with its value, and what it is for."""

    flag: str
    about: str


_GENERAL = (
    Option(
        "PRESET", "what the settings are before any flag: one of --list; flat where none is named"
    ),
    Option("--workdir RUN", "folder of the run; one found there is continued, with its settings"),
    Option(
        "--config FILE",
        "settings from a file: config.json of a run, or TOML; further files and flags go on top",
    ),
    Option("--model.size 30m", "scale width, depth and heads of all levels to so many parameters"),
)
_FIELDS = (
    Option("--data.source DIR", "text made by prepare.py; several as a:0.7,b:0.3"),
    Option("--data.length INT", "positions per row"),
    Option("--data.batch-size INT", "rows per step"),
    Option("--train.steps INT", "optimizer steps"),
    Option("--train.seed INT", "of the parameters, the data order and all noise"),
    Option("--train.init-from RUN[@STEP]", "begin with the parameters of another run"),
    Option("--train.evaluate-every INT", "steps between scores of held-out text; None: a tenth"),
    Option("--train.checkpoint-every INT", "steps between checkpoints"),
    Option("--optimizer.learning-rate FLOAT", "its peak"),
    Option("--optimizer.name STR", "adamw, muon, or a file of training/optimizers/"),
    Option("--execution.compute-dtype STR", "float32 or bfloat16"),
    Option("--mesh.fsdp INT", "devices that share one copy of the parameters; -1: by the widths"),
    Option("--mesh.sequence INT", "devices that share each row: long rows, more devices than rows"),
    Option("--train.distributed True", "several hosts: the same command on each"),
)
"""The settings that are changed most."""
_COMMAND = (
    Option("--list", "the presets: what each is, its data, size and time"),
    Option("--help TOPIC", "{topics}: every setting of a section; all: every setting"),
    Option("--version", "of octavo and what it computes with"),
    Option("--debug", "show the stack of an error"),
)
TOPICS = tuple(
    part.name for part in dataclasses.fields(Config) if dataclasses.is_dataclass(part.type)
)


def print_help(
    topic: str, usage: str, description: str, config: Config, own: tuple[Option, ...]
) -> None:
    """The help that ``--help TOPIC`` asks for, with the defaults of ``config``; a TOPIC of "" is
    the short one. own: options of the script. Raises ConfigError if there is no such topic."""
    if topic == "" or topic.startswith("-"):
        print(_short(usage, description, config, own))
        return
    if topic not in (*TOPICS, "all"):
        raise ConfigError(f"--help {topic}: there are {', '.join(TOPICS)} and all.")
    about = "\n".join((description, *(f"{option.flag}: {option.about}." for option in own)))
    if topic == "all":
        about += "\n" + "\n".join(f"{option.flag}: {option.about}." for option in _GENERAL[2:])
        cli.parse(Config, usage, about, ["--help"], config)
    part = getattr(config, topic)
    only = dataclasses.make_dataclass("Config", [(topic, type(part))], frozen=True)
    cli.parse(only, usage, about, ["--help"], only(part))


def _short(usage: str, description: str, config: Config, own: tuple[Option, ...]) -> str:
    topics = "|".join(TOPICS)
    fields = [Option(o.flag, f"{o.about} (default: {_value(config, o.flag)})") for o in _FIELDS]
    command = [Option(o.flag, o.about.format(topics=topics)) for o in _COMMAND]
    lines = [f"usage: {usage} [--dotted.field VALUE ...]", "", *_wrapped(description, "")]
    for options in (own, _GENERAL, fields, command):
        lines += [""] if options else []
        for option in options:
            lines += _wrapped(f"{option.flag:<34}{option.about}", " " * 34)
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    width = max(70, min(100, shutil.get_terminal_size((100, 24)).columns))
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _value(config: Config, flag: str) -> object:
    """What a setting has before any flag."""
    section, _, name = flag.split()[0].removeprefix("--").partition(".")
    return getattr(getattr(config, section), name.replace("-", "_"))


def print_presets() -> None:
    """The presets by family, a line each."""
    known = read_json(SIZES, dict)
    wide = shutil.get_terminal_size((1000, 24)).columns
    names = ("preset", "size", "data", "minutes", "what it is")
    print("{:<20} {:>8}  {:<20} {:>7}  {}".format(*names))
    for family in families():
        print(f"\n{family.title}")
        for name, config in family.presets.items():
            millions = _parameters(config, known) / 1e6
            size = f"{millions:,.0f} M" if millions >= 100 else f"{millions:.3g} M"
            about = family.about.get(name, "")
            minutes = family.minutes.get(name, "")
            columns = f"{name:<20} {size:>8}  {config.data.source:<20} {minutes:>7}"
            print(f"{columns}  {about}".rstrip()[:wide], flush=True)
    print(f"\n{_NOTES}")


def model_key(config: Config) -> str:
    """What stands for a model in ``SIZES``: another one has another."""
    return f"{zlib.crc32(json_text(to_json(config.model)).encode()):08x}"


def _parameters(config: Config, known: dict) -> int:
    """As recorded, or counted: which takes JAX, and a second."""
    if (key := model_key(config)) in known:
        return known[key]
    from octavo.run.size import parameters, vocabulary_of

    return parameters(config.model, vocabulary_of(config.data.source, config.model))


_NOTES = """\
python train.py NAME trains one. data: stdlib is the text that comes with Python; a folder is made
by prepare.py, and a preset whose folder is missing says the commands. minutes: for the preset's
1,000 steps on two CPU cores, from its speed beside that of flat; empty where that was not measured
(docs/models.md). Which is best: python ablate.py compares them (docs/ablation.md)."""
