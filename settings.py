"""What a command is asked to train: a preset or a run's own settings, a file's on top of them, and
flags on top of those."""

import codecs
import contextlib
import dataclasses
import difflib
import sys
from pathlib import Path
from typing import Any

from octavo import cli, process
from octavo.arguments import read_file
from octavo.configs import BROKEN, presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import StageConfig
from octavo.configs.schema import MOVED, Config, from_json, moved, to_json
from octavo.files import parse_json
from octavo.presentation import Option, print_help, print_presets
from octavo.run import mirror
from octavo.run.directory import CONFIG, read_config
from octavo.run.errors import CheckpointError

DEFAULT = "flat"
"""The preset of who names none."""
MOST_BYTES = 1 << 22
"""Of a file of settings."""
BEGAN = ("init_from", "init_allow", "init_embeddings", "freeze", "freeze_steps")
"""Settings of training that say how a run began."""


def parse_config(
    script: str,
    description: str,
    arguments: list[str] | None = None,
    own: tuple[Option, ...] = (),
) -> Config:
    """``[PRESET] [--config FILE ...] [--workdir RUN] [--dotted.field VALUE ...]`` as the settings
    they ask for.

    A run that ``--workdir`` names gives its own settings, unless another preset is named; otherwise
    PRESET gives them. FILE overrides those, each the ones before it, and flags override all. own:
    options that the script took out of ``arguments``, for the help. Raises ConfigError for what
    cannot be.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    known = presets()
    for file, error in BROKEN.items():
        process.warn(f"{file} cannot be used, nor its presets: {type(error).__name__}: {error}")
    if "--list" in arguments:
        print_presets()
        raise SystemExit(0)
    topic = _topic(arguments)
    name = _preset(arguments, known)
    files, size = all_taken(arguments, "--config"), taken(arguments, "--model.size")
    if topic is not None:
        print_help(
            topic, f"{script} {name or '[PRESET]'}", description, known[name or DEFAULT], own
        )
        raise SystemExit(0)
    arguments = [_moved(argument) for argument in arguments]
    flags = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    anew = "--train.init-from" in flags
    over = [(file, _read(file, known, anew)) for file in files]
    base = _base(
        name,
        {k: v for _, one in over for k, v in one.items()},
        _last(arguments, "--workdir"),
        known,
    )
    before = _with_files(base, over)
    if size is not None:
        before = _sized(before, size, arguments, _with_files(_fresh(name, base, known), over))
    return cli.parse(Config, f"{script} {name or ''}".strip(), description, arguments, before)


def _topic(arguments: list[str]) -> str | None:
    """What ``--help [TOPIC]`` asks about; "" for the short help, None where none is asked for."""
    for place, argument in enumerate(arguments):
        if argument.startswith("--help="):
            return argument.partition("=")[2]
        if argument in ("-h", "--help"):
            return next(iter(arguments[place + 1 :]), "")
    return None


def _preset(arguments: list[str], known: dict[str, Config]) -> str | None:
    """Take the preset from the front. Raises ConfigError if there is none such."""
    if not arguments or arguments[0].startswith("-"):
        return None
    name = arguments.pop(0)
    _check_preset(name, known)
    return name


def _check_preset(name: str, known: dict[str, Config]) -> None:
    if name not in known:
        raise ConfigError(f"no preset {name!r}.{nearest(name, known)} Presets: {', '.join(known)}.")


def nearest(name: str, known) -> str:
    """The hint for a name that is not known; nothing if none is near."""
    near = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def taken(arguments: list[str], flag: str) -> str | None:
    """As ``all_taken``; the last counts."""
    found = all_taken(arguments, flag)
    return found[-1] if found else None


def all_taken(arguments: list[str], flag: str) -> list[str]:
    """Take each ``flag VALUE`` or ``flag=VALUE`` out of the arguments. Raises ConfigError for a
    flag without a value."""
    found, place = [], 0
    while place < len(arguments):
        name, equals, value = arguments[place].partition("=")
        if name != flag:
            place += 1
            continue
        if not equals and place + 1 == len(arguments):
            raise ConfigError(f"{flag} needs a value; --help shows which.")
        found.append(value if equals else arguments[place + 1])
        del arguments[place : place + (1 if equals else 2)]
    return found


def _last(arguments: list[str], flag: str) -> str | None:
    """The value of a flag that stays among the arguments."""
    with contextlib.suppress(ConfigError):
        return taken(list(arguments), flag)
    return None


def _moved(argument: str) -> str:
    """A flag of an earlier revision as it is called now."""
    name, equals, value = argument.partition("=")
    section, _, setting = name.removeprefix("--").replace("-", "_").partition(".")
    where = MOVED.get((section, setting))
    if where is None or not name.startswith("--"):
        return argument
    flag = f"--{'.'.join(where).replace('_', '-')}"
    process.warn(f"{name} is called {flag} now")
    return flag + equals + value


# What there was before any flag.


def _base(name: str | None, over: dict, workdir: str | None, known: dict[str, Config]) -> Config:
    """The settings below the file's: those of the run that is continued, or of a preset."""
    name = name or over.get("preset")
    fresh = known.get(name or DEFAULT, known[DEFAULT])
    workdir = workdir or over.get("workdir") or fresh.workdir
    if not isinstance(workdir, str | None):  # refused with the file's other values
        return fresh
    run = _run_in(workdir, damaged_too=name is not None)
    return run if run is not None and _is_of(run, name, fresh) else fresh


def _is_of(run: Config, name: str | None, preset: Config) -> bool:
    """Whether a run is of the preset that is named, if one is. Runs of earlier revisions do not say
    which they are of: then, of the same parts."""
    if run.preset is not None or name is None:
        return name in (None, run.preset)

    def parts(model):
        stages = [
            (s.segmenter, s.supervision, s.scripts, s.pool, s.unpool, s.slots, s.mixers)
            for s in model.stages
        ]
        return model.embedding, model.gated_mlp, model.mixers, model.mtp.kind, stages

    return parts(run.model) == parts(preset.model)


def _fresh(name: str | None, base: Config, known: dict[str, Config]) -> Config:
    """The preset that ``base`` was before anything was changed, as far as that is known."""
    return known.get(name or base.preset or "", base)


def _run_in(workdir: str | None, damaged_too: bool) -> Config | None:
    """The settings of the run in a folder, None if it holds none. Raises CheckpointError if they
    cannot be read, unless ``damaged_too``."""
    try:
        if not workdir or not ((folder := mirror.folder(workdir)) / CONFIG).is_file():
            return None
        found = read_config(folder, "Name its PRESET and flags again, which writes it anew.")
        train = dataclasses.replace(found.train, rewarm=_rewarms(found, folder))
        return dataclasses.replace(found, workdir=workdir, train=train)
    except (OSError, ValueError, CheckpointError):  # a ConfigError is a ValueError
        if damaged_too:
            return None
        raise


def _rewarms(config: Config, folder: Path) -> bool:
    """Whether the learning rate of a run is still to rise as it was asked to: once it has a
    checkpoint of that plan, more steps ask anew."""
    if not config.train.rewarm:
        return False
    from octavo.run.checkpoint import record_of  # which takes a while to import

    record = record_of(folder)
    planned = record.config if record else None
    return planned is None or planned.train.steps != config.train.steps


def _read(file: str, known: dict[str, Config], anew: bool) -> dict:
    """The settings in a file: JSON as config.json of a run, or TOML. anew: without what says how
    that run began, as this one begins with another. Raises ConfigError."""
    if (Path(file) / CONFIG).is_file():
        file = str(Path(file) / CONFIG)
    data = read_file(file, "--config").removeprefix(codecs.BOM_UTF8)  # as some editors write
    if len(data) > MOST_BYTES:
        raise ConfigError(f"--config {file} has {len(data):,} bytes: too many for settings.")
    if data.lstrip()[:1] == b"{":
        found = parse_json(data, dict, name=f"--config {file}", error=ConfigError, fault="")
        if "model_type" in found:  # of Hugging Face
            from octavo.interchange import reading  # which takes a while to import

            return {"model": reading.settings(found, Path(file))}
        found.pop("workdir", None)  # of that run
        if anew and isinstance(found.get("train"), dict):
            found["train"] = {k: v for k, v in found["train"].items() if k not in BEGAN}
        if found.get("preset") not in known:
            found.pop("preset", None)
        return moved(found)
    import tomllib

    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {file} is neither JSON nor TOML: {error}.") from error
    if "preset" in found:
        _check_preset(str(found["preset"]), known)
    return moved(_underscored(found, file))


def _underscored(value: Any, file: str) -> Any:
    """Keys as the settings are called: flags have dashes."""
    if isinstance(value, list):
        return [_underscored(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key.replace("-", "_"): _underscored(item, file) for key, item in value.items()}
    if len(found) < len(value):
        twice = next(key for key in value if "-" in key and key.replace("-", "_") in value)
        raise ConfigError(f"--config {file}: {twice} is there twice, with and without dashes.")
    return found


def _with_files(base: Config, over: list[tuple[str, dict]]) -> Config:
    """The settings with those of files on top, one after the other."""
    for file, found in over:
        base = from_json(_merged(base, found, file, base), f"--config {file}", fault="")
    return base


def _merged(part: Any, over: dict, file: str, whole: Config, at: str = "") -> dict:
    """``part`` of a config as JSON, with what a file says of it. Raises ConfigError for a setting
    that there is none of."""
    made = to_json(part)
    for name, value in over.items():
        if name not in made:
            near = _near_setting(f"{at}{name}", whole)
            raise ConfigError(f"--config {file}: there is no setting {at}{name}.{near}")
        old = getattr(part, name)
        if dataclasses.is_dataclass(old) and isinstance(value, dict):
            made[name] = _merged(old, value, file, whole, f"{at}{name}.")
        elif name == "stages" and isinstance(value, list):
            levels = [*part.stages, *(StageConfig() for _ in value)]
            made[name] = [
                _merged(level, each, file, whole, f"{at}stages.{i}.")
                if isinstance(each, dict)
                else each
                for i, (level, each) in enumerate(zip(levels, value, strict=False))
            ]
        else:
            made[name] = value
    return made


def _near_setting(name: str, whole: Config) -> str:
    """The setting that a wrong name may mean: of a like name, or of that name elsewhere."""
    names = [f"model.stages.{i}.{f}" for i in range(9) for f in to_json(StageConfig())]
    for section, value in to_json(whole).items():
        names += [f"{section}.{field}" for field in value] if isinstance(value, dict) else [section]
    own = name.rpartition(".")[2]
    elsewhere = [each for each in names if each.rpartition(".")[2] == own]
    return f" Did you mean {elsewhere[0]}?" if elsewhere else nearest(name, names)


def _sized(base: Config, size: str, arguments: list[str], preset: Config) -> Config:
    """``base`` with the model of ``preset`` at this size, for the corpus that is asked for: the
    same for who repeats the command on the run that it made."""
    from octavo.run.size import parameters_of, resized, vocabulary_of

    asked = parameters_of(size)
    source = _last(arguments, "--data.source") or base.data.source
    model = resized(preset.model, asked, vocabulary_of(source, preset.model))
    return dataclasses.replace(base, model=model)
