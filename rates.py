"""Rates that treat scripts alike: python rates.py DIR --anchor eng --rate 0.2

DIR holds a file LANGUAGE.txt for each language, where line i says the same in all. Prints the flags
that give magnet's predictors these rates.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from octavo import cli, storage
from octavo.configs.checks import ConfigError


@dataclass(frozen=True)
class Arguments:
    parallel: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of parallel text."""
    anchor: str = "eng"
    """The language whose rate is given."""
    rate: float = 0.2
    """Units of the anchor's text, per byte; from 0.01 to 0.5."""
    scripts: tuple[str, ...] = ()
    """Scripts with a predictor of their own, as han+hiragana. None: those that the text has."""


def main() -> None:
    arguments = cli.parse(Arguments, "rates.py", (__doc__ or "").split("\n\n")[1])

    from octavo.evaluation.parallel import read_parallel
    from octavo.evaluation.rates import LEAST, MOST, fair_rates, written_in

    if not LEAST <= arguments.rate <= MOST:
        raise ConfigError(f"--rate lies in [{LEAST}, {MOST}], not {arguments.rate}.")
    storage.refuse(arguments.parallel, "DIR")
    texts = read_parallel(arguments.parallel)
    routes = arguments.scripts or written_in(texts)
    found = fair_rates(texts, routes, arguments.anchor, arguments.rate)
    for name, rate in zip(("other scripts", *routes), found, strict=True):
        if rate in (LEAST, MOST):
            print(f"warning: {name} would need a rate beyond {rate}.", file=sys.stderr)
    scripts = ("--model.stages.0.scripts", *routes) if routes else ()
    print(*scripts, "--model.stages.0.rates", *found)


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
