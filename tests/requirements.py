"""Markers that skip a test where an optional package is missing."""

from __future__ import annotations

import pytest

from ccnet.runtime.backends import trt_api as trt

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in trt.available(), reason='tensorrt_rtx is not installed: pip install ".[rtx]"'
)
