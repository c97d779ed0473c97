"""Gaps of a cube: pixels and bands without data are counted and named."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract.gaps import describe_gaps, gaps_as_text, known_values


def test_cube_with_data_everywhere_has_no_gaps() -> None:
    cube = np.zeros((31, 4, 6), np.float32)
    assert known_values(cube) is None and describe_gaps(cube) is None and gaps_as_text(cube) == ""


@pytest.mark.parametrize(
    ("pixels", "bands", "text"),
    [
        (3, [], "3 of 24 pixels"),
        (0, [400, 700], "2 of 31 bands (400, 700 nm)"),
        (5, [550], "5 of 24 pixels and 1 of 31 bands (550 nm)"),
    ],
)
def test_gaps_are_counted_and_named(pixels: int, bands: list[int], text: str) -> None:
    cube = np.zeros((31, 4, 6), np.float32)
    cube.reshape(31, -1)[:, :pixels] = np.nan
    cube[[(nm - 400) // 10 for nm in bands]] = np.nan
    assert describe_gaps(cube) == {"pixels": pixels, "bands": bands}
    assert gaps_as_text(cube) == text
    known = known_values(cube)
    assert known is not None and np.array_equal(known, ~np.isnan(cube))
