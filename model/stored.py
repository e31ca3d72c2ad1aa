"""Names of parameters in checkpoints, which stay what they were, whatever modules call them."""

import re

from flax.traverse_util import flatten_dict, unflatten_dict

_NAMES = (
    # In modules, in checkpoints.
    (r"(^|\.)blocks\.mixer(_norm)?\.", r"\1blocks.attention\2."),
    (r"\.cross_attention\.", ".reader."),
    (r"\.pool\.positions$", ".prefix"),
    (r"\.unpool\.skip\.", ".unpool.beside."),
    (r"\.end_predictor\.", ".foreseer."),
    (r"^mtp\.next\.", "mtp.first."),
)


def stored_name(path: tuple) -> tuple:
    """The path of a parameter in checkpoints, of its path among modules."""
    text = ".".join(map(str, path))
    for of_module, of_checkpoint in _NAMES:
        text = re.sub(of_module, of_checkpoint, text)
    return tuple(int(part) if part.isdigit() else part for part in text.split("."))


def to_stored(tree: dict) -> dict:
    """Parameters by their names in checkpoints, of those by their names among modules."""
    return unflatten_dict({stored_name(path): leaf for path, leaf in flatten_dict(tree).items()})
