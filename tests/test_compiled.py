"""Compiled loops where nothing can be kept: a checkout that is read only, and no home."""

import numpy as np
import pytest
from numba.core import caching

from octavo.compiled import compiled, inlined


@inlined
def twice(x):
    return 2 * x


def total(values):
    found = 0
    for value in values:
        found += twice(value)
    return found


@pytest.mark.parametrize("places", [True, False])
def test_where_nothing_can_be_kept(monkeypatch, places):
    if not places:
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled(total)(np.arange(5)) == 20
