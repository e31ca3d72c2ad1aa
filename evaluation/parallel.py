"""Parallel text: the same sentences in several languages, a file ``LANGUAGE.txt`` each, where line
i says the same in all."""

from pathlib import Path

from octavo.configs.checks import ConfigError


def read_parallel(folder: str | Path, most: int = 0) -> dict[str, list[bytes]]:
    """Languages and their lines, those that no language lacks; ``most``: of them, spread over the
    files (0: all). Raises ConfigError if the folder holds no parallel text."""
    files = sorted(Path(folder).glob("*.txt"))
    if len(files) < 2:
        there = "" if Path(folder).is_dir() else ", and there is no such folder"
        raise ConfigError(
            f"{folder} needs a file LANGUAGE.txt for each of two or more languages{there}."
        )
    lines = {file.stem: _lines(file) for file in files}
    counts = {language: len(found) for language, found in lines.items()}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"the files of {folder} are not parallel, their lines differ: {counts}.")
    whole = [i for i in range(max(counts.values())) if all(lines[k][i].strip() for k in lines)]
    if not whole:
        raise ConfigError(f"{folder} has no line that all of its languages have.")
    if most and len(whole) > most:
        whole = [whole[i * len(whole) // most] for i in range(most)]
    return {language: [found[i] for i in whole] for language, found in lines.items()}


def _lines(file: Path) -> list[bytes]:
    """The lines of a file without their ends. Raises ConfigError if it is no text in UTF-8."""
    if not file.is_file():
        raise ConfigError(f"{file} is no file; a folder of parallel text has a file a language.")
    try:
        data = file.read_bytes()
        data.decode()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}. Convert "
            "it, for example with iconv."
        ) from error
    return data.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
