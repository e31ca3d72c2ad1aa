"""Eight simulated devices, and every preset in a size for tests."""

import dataclasses
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"

import pytest

from helpers import shrink
from octavo.configs import presets
from octavo.configs.schema import Config


@pytest.fixture(params=list(presets()))
def preset(request) -> Config:
    """Every preset, shrunk, in float32 (tolerances must not hide a leak)."""
    config = shrink(presets()[request.param])
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, compute_dtype="float32")
    )
