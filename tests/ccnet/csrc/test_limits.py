"""The numbers that Python asks of the kernels' library."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

from ccnet.ops.band_cosine import EPS
from ccnet.ops.kernels import _Work, kernel, limit, limits
from ccnet.ops.scan import STREAMS, scan

pytestmark = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")


def test_limit_may_hold_several_numbers() -> None:
    assert limits("heads") == (1, 2, 4)
    assert limits("operator_patches") == (4, 8, 16)
    with pytest.raises(ValueError, match="too many values"):
        limit("heads")


def test_unknown_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="ccnet_nonsense"):
        limit("nonsense")


def test_work_struct_has_the_same_size_in_c_and_python() -> None:
    assert limit("work_size") == ctypes.sizeof(_Work)


def test_cosines_have_the_same_lower_limit_of_a_norm_in_c_and_python() -> None:
    assert ctypes.c_float.in_dll(kernel(), "ccnet_min_norm").value == np.float32(EPS)  # type: ignore[arg-type]


@pytest.mark.parametrize("beyond", [0, 1])
def test_kernel_runs_up_to_its_limit_and_the_reference_ops_beyond(beyond: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccnet.ops import scan as module

    launched = []
    run = module.launch
    monkeypatch.setattr(module, "launch", lambda name, *args: (launched.append(name), run(name, *args)))
    bands = limit("max_bands") + beyond
    u = scan(torch.rand(1, 1, bands, 2, 3), torch.rand(2, 1, 2), torch.rand(2, 1))
    assert u.shape == (1, STREAMS, 1, bands, 2, 3)
    assert launched == ([] if beyond else ["ccnet_scan"])
