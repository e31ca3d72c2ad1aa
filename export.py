"""Write a checkpoint as a Hugging Face folder: python export.py RUN OUT [--step N]

OUT gets weights (safetensors), the model's and the tokenizer's settings, and a model card;
transformers loads it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from octavo import cli
from octavo.arguments import Range


@dataclass(frozen=True)
class Arguments:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, as train.py printed it."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write; one that is there is replaced if it is an export."""
    step: Annotated[int | None, Range(0)] = None
    """Of an older checkpoint. None: the newest."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""


def main() -> None:
    export(cli.parse(Arguments, "export.py", __doc__, flags=True))


def export(arguments: Arguments) -> None:
    """Write the folder, say what is in it."""
    from octavo.interchange import folder

    for line in folder.export(arguments.run, arguments.out, arguments.step, arguments.dtype):
        cli.console().print(line)


def cli_main() -> None:
    cli.run(main)


if __name__ == "__main__":
    cli_main()
