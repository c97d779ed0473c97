"""Bands, sizes and reflect padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ccnet import contract
from ccnet.contract import padded_size, reflect_index


def test_bands_are_400_to_700_nm_in_steps_of_10() -> None:
    assert len(contract.BANDS_NM) == 31
    assert (contract.BANDS_NM[0], contract.BANDS_NM[-1]) == (400, 700)
    assert set(np.diff(contract.BANDS_NM)) == {10}
    assert contract.HALO % contract.SIZE_MULTIPLE == 0


@given(size=st.integers(1, 10**6), multiple=st.integers(1, 512))
def test_padded_size_is_the_next_multiple(size: int, multiple: int) -> None:
    result = padded_size(size, multiple)
    assert result % multiple == 0
    assert size <= result < size + multiple


@given(size=st.integers(1, 40), before=st.integers(0, 130), after=st.integers(0, 130))
def test_reflect_index_equals_numpys_reflect_padding(size: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(reflect_index(size, -before, size + after), expected)
