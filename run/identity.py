"""What makes a run itself: settings compared, and the difference said."""

from octavo.configs.checks import ConfigError
from octavo.configs.schema import Config, identity, to_json


def differences(
    saved: dict, asked: dict, prefix: str = "", words: tuple[str, str] = ("saved", "asked for")
) -> list[str]:
    """Every value of two nested dicts that is not the same, as text."""
    found = []
    for key in saved | asked:
        old, new = saved.get(key, "nothing"), asked.get(key, "nothing")
        if all(isinstance(value, list) and value for value in (old, new)):
            # Lists of parts, as of stages, are compared part by part.
            if all(isinstance(item, dict) for item in (*old, *new)):
                old, new = (dict(enumerate(value)) for value in (old, new))
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.", words)
        elif old != new:
            found.append(f"{prefix}{key}: {words[0]} {old!r}, {words[1]} {new!r}")
    return found


SAME = (
    "Ask for the same (without a preset and flags, its own settings are taken), or choose another "
    "--workdir; --train.init-from begins a new run with the parameters of one."
)


def check_identity(
    saved: Config,
    asked: Config,
    who: str,
    advice: str = SAME,
    allowed: tuple[str, ...] = (),
) -> None:
    """Raise ConfigError, a sentence from ``who`` to ``advice``, unless both configs make the same
    run but for the settings ``allowed``."""
    before, now = identity(saved), identity(asked)
    for section in before:
        prefix = "" if section == "model" else f"{section}."
        found = differences(before[section], now[section], prefix)
        found = [text for text in found if text.partition(":")[0] not in allowed]
        if found:
            what = {"train": "seed, objective or beginning"}.get(section, section)
            raise ConfigError(f"{who} with another {what} ({'; '.join(found)}). {advice}")


def changes(saved: Config | None, asked: Config) -> list[str]:
    """Every setting that is not the saved one, as text."""
    if saved is None:
        return []
    names = {"workdir": None, "preset": None}
    before, now = (to_json(config) | names for config in (saved, asked))
    return differences(before, now)
