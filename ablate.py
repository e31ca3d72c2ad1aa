"""Compare ways of cutting text: python ablate.py ARM [ARM ...] --flops A,B,C --seeds N --out DIR

Every ARM is trained at every budget with every seed, each an ordinary run; then all are scored on
the same text. DIR/index.html says what won, by how much, and whether to believe it. The same
command goes on where a study was stopped, and on several machines at once. docs/ablation.md
explains it.
"""

import sys
from pathlib import Path

from octavo import cli, process
from octavo.ablation.study import Arguments
from octavo.settings import taken


def main() -> None:
    words = sys.argv[1:]
    if (common := taken(words, "--common")) is not None:
        words.append(f"--common={common}")  # or what begins with dashes would be a flag
    about = (__doc__ or "").split("\n\n", 1)[1]
    ablate(cli.parse(Arguments, "ablate.py", about, words, flags=True))


def ablate(arguments: Arguments) -> None:
    """Do a study, or what is left of it, and write its page."""
    from octavo.ablation import existing, showing
    from octavo.ablation.place import STUDY, TEXT, Place
    from octavo.ablation.plan import Planned, continued, plan
    from octavo.ablation.running import Workers, check_failed, do, time_arms
    from octavo.ablation.study import asked_of, check_going_on, check_together
    from octavo.configs.checks import ConfigError
    from octavo.train import train

    # Commands alone are printed where a queue of jobs reads them.
    console = cli.console(stderr=arguments.print_commands)
    place, text = None, None
    check_together(arguments)
    if arguments.out and not arguments.arms:  # what lies there
        check_going_on(arguments)
        place = Place(arguments.out)
        if (found := place.read(STUDY)) is None:
            raise ConfigError(f"{place} holds no study; name its arms and budgets.")
        planned = Planned.from_json(found, place.at(STUDY))
    elif existing.are_runs(arguments.arms):
        place, planned, text = existing.plan(arguments)
    else:
        study, out = asked_of(arguments)
        place = Place(out)
        try:
            planned, text = plan(study, place)
        except ConfigError as error:
            if place.read(STUDY) is None:
                raise
            raise ConfigError(
                f"{error} (What {place} holds goes on, as it was asked for, with python ablate.py "
                f"--out {place}.)"
            ) from error
        planned = continued(planned, place)
    if arguments.cell is not None and place.read(STUDY):
        do(place, planned, arguments.cell, train)
        return
    showing.show_plan(planned, place, arguments.jobs, console)
    if arguments.dry_run:
        return
    if text is not None:
        place.make()
        existing.keep_files(place, planned)
        place.write(TEXT, text)
        place.write(STUDY, planned.to_json())
    if arguments.cell is not None:
        do(place, planned, arguments.cell, train)
        return
    if arguments.print_commands:
        for line in showing.commands(planned, place):
            print(line)
        return
    process.kept = f"What was finished is kept; python ablate.py --out {place} goes on."

    def page() -> None:
        showing.write_page(place)

    failed = Workers(place, planned, arguments.jobs, Path(sys.argv[0]), page, console.print)()
    if not failed:
        time_arms(place, planned, console.print)
    for line in showing.write_page(place):
        console.print(line)
    check_failed(failed)


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
