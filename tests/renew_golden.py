"""Write every preset's config, and how many parameters its model has, anew:
python tests/renew_golden.py, and look at the diff."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout's presets, whatever is installed

from octavo.configs import presets
from octavo.configs.schema import to_json
from octavo.files import write, write_json
from octavo.presentation import SIZES, model_key
from octavo.run.size import parameters, vocabulary_of

CONFIGS = Path(__file__).parent / "golden" / "configs"


def recorded_text(name: str) -> str:
    """A preset's resolved config as its golden file should hold it."""
    return json.dumps(to_json(presets()[name]), indent=1) + "\n"


def counted() -> dict[str, int]:
    """Parameters of the model of every preset."""
    found = {}
    for config in presets().values():
        vocabulary = vocabulary_of(config.data.source, config.model)
        found[model_key(config)] = parameters(config.model, vocabulary)
    return found


def main() -> None:
    for path in CONFIGS.glob("*.json"):
        if path.stem not in presets():
            path.unlink()
    for name in presets():
        write(CONFIGS / f"{name}.json", recorded_text(name))
    write_json(SIZES, counted())


if __name__ == "__main__":
    main()
