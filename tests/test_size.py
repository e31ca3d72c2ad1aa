"""One dial for the size of every preset's model."""

import pytest

from helpers import POD_SIZES
from octavo.configs import presets
from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig
from octavo.run.size import parameters, parameters_of, resized, vocabulary_of

CASES = [
    *((name, 30_000_000) for name in presets() if not name.endswith(POD_SIZES)),
    *((name, 3_000_000) for name in ("flat", "aunet", "lobef", "hybrid", "hnet-100m")),
]


@pytest.mark.parametrize(("name", "asked"), CASES)
def test_every_preset_comes_near_any_size(name, asked):
    """Counted by the definition of the model; nothing is allocated."""
    config = presets()[name]
    vocabulary = vocabulary_of(config.data.source, config.model)
    model = resized(config.model, asked, vocabulary)
    assert abs(parameters(model, vocabulary) / asked - 1) < 0.15
    widths = zip(config.model.widths, model.widths, strict=True)
    shares = [now / before for before, now in widths]
    assert max(shares) < 1.5 * min(shares)  # all levels in proportion
    assert model.layers % len(model.mixers) == 0
    heads = [model.head_size, *(stage.width // stage.heads for stage in model.stages)]
    assert set(heads) <= {32, 64, 128}
    # Nothing else changes.
    assert model.mtp == config.model.mtp and model.mixers == config.model.mixers
    for before, now in zip(config.model.stages, model.stages, strict=True):
        assert now.rates == before.rates and now.segmenter == before.segmenter


def test_the_flat_model_grows_as_its_family():
    flat, vocabulary = ModelConfig(), vocabulary_of("stdlib", ModelConfig())
    grown = resized(flat, 85_000_000, vocabulary)
    assert (grown.width, grown.heads) == (768, 6) and 10 <= grown.layers <= 14
    grouped = resized(ModelConfig(kv_heads=2, mlp_width=300), 3_000_000, vocabulary)
    assert grouped.heads % grouped.kv_heads == 0 and grouped.kv_heads < grouped.heads
    assert grouped.mlp_width == pytest.approx(300 * grouped.width / 128, abs=1)


@pytest.mark.parametrize(
    ("size", "number"), [("30m", 30e6), ("1.5B", 1.5e9), ("850k", 850e3), ("12345", 12345)]
)
def test_sizes_are_read(size, number):
    assert parameters_of(size) == number


@pytest.mark.parametrize("size", ["", "m", "-3m", "3 m", "0", "1e6", "nan", "9" * 5000])
def test_what_is_no_size(size):
    with pytest.raises(ConfigError, match="as 30m or 1.5b"):
        parameters_of(size)


@pytest.mark.parametrize("asked", [10, 10**24])
def test_sizes_that_cannot_be(asked):
    with pytest.raises(ConfigError):
        resized(ModelConfig(), asked, vocabulary_of("stdlib", ModelConfig()))
