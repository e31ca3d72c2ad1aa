"""Presets resolve to what they did: a default that changes is seen, and said in the changelog."""

import difflib

import pytest

from octavo.configs import presets
from octavo.files import read_json
from octavo.presentation import SIZES
from renew_golden import CONFIGS, counted, recorded_text

RENEW = "python tests/renew_golden.py"


@pytest.mark.parametrize("name", presets())
def test_a_preset_resolves_as_recorded(name):
    path = CONFIGS / f"{name}.json"
    assert path.exists(), f"no golden file of the new preset {name}: {RENEW}"
    recorded, now = path.read_text(), recorded_text(name)
    lines = difflib.unified_diff(
        recorded.splitlines(), now.splitlines(), f"recorded {name}", f"{name} now", lineterm=""
    )
    if recorded != now:
        changed = "\n".join(lines)
        pytest.fail(
            f"{name} does not resolve to its recorded config. If that is meant, say so in "
            f"CHANGELOG.md and run {RENEW}.\n{changed}",
            pytrace=False,
        )


def test_every_recorded_preset_is_there():
    gone = {path.stem for path in CONFIGS.glob("*.json")} - set(presets())
    assert not gone, f"presets that are gone: {sorted(gone)}. If that is meant: {RENEW}"


def test_the_sizes_that_are_listed_are_those_of_the_models():
    assert read_json(SIZES) == counted(), f"other parameters: {RENEW}"
